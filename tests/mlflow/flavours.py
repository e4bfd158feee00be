"""Runs in an environment with MLflow and frameworks: each makes a model, and its own flavour of MLflow registers and loads it.

Words are `FRAMEWORK:MODEL`. Prints, by framework, what was seen, as JSON; the test that runs it judges. Saving, loading and calls of the
registry are MLflow's own, through the plugin; nothing is tracked. An `of_...` returns the flavour, a model, how the model itself answers a
few rows, and what saving it takes besides.
"""

import json
import os
import sys
import tempfile
import time

import mlflow
import numpy
from mlflow.tracking import MlflowClient
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

FEATURES, LABELS = load_iris(return_X_y=True)
FEATURES = FEATURES.astype(numpy.float32)
FEW = numpy.ascontiguousarray(FEATURES[::30])
SECONDS = 60


def of_xgboost():
    """Gradient boosting, as XGBoost keeps it."""
    import xgboost

    model = xgboost.train({"objective": "multi:softprob", "num_class": 3, "seed": 7}, xgboost.DMatrix(FEATURES, LABELS), 5)
    return mlflow.xgboost, model, lambda loaded: loaded.predict(xgboost.DMatrix(FEW))


def of_onnx():
    """A graph that skl2onnx makes of a model, answered by ONNX Runtime."""
    import onnxruntime
    from skl2onnx import to_onnx

    trained = LogisticRegression(max_iter=200).fit(FEATURES, LABELS)
    model = to_onnx(trained, FEATURES[:1], options={"zipmap": False})

    def answer(loaded):
        session = onnxruntime.InferenceSession(loaded.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(["probabilities"], {session.get_inputs()[0].name: FEW})[0]

    return mlflow.onnx, model, answer


def of_pytorch():
    """A small network, trained for a few steps."""
    import torch

    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    steps = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(20):
        steps.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.tensor(FEATURES)), torch.tensor(LABELS)).backward()
        steps.step()

    def answer(loaded):
        with torch.no_grad():
            return loaded(torch.tensor(FEW)).numpy()

    return mlflow.pytorch, model, answer, {"input_example": FEW}  # MLflow keeps the graph, which it traces by an example


def of_keras():
    """A network of Keras, computed by PyTorch."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3, activation="softmax")])
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(FEATURES, LABELS, epochs=2, verbose=0)
    return mlflow.keras, model, lambda loaded: loaded.predict(FEW, verbose=0)


def bring(name, make):
    """Save, register and load a model by its flavour; return what is to be judged."""
    flavour, model, answer, *further = make()
    how = further[0] if further else {}
    client = MlflowClient()
    with tempfile.TemporaryDirectory() as folder:
        flavour.save_model(model, f"{folder}/model", pip_requirements=["numpy"], **how)
        version = mlflow.register_model(f"{folder}/model", name, await_registration_for=None)
    deadline = time.monotonic() + SECONDS
    while (version := client.get_model_version(name, version.version)).status == "PENDING_REGISTRATION":
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    uri = f"models:/{name}/{version.version}"
    expected, given = answer(model), answer(flavour.load_model(uri))
    generic = mlflow.pyfunc.load_model(uri)
    return {
        "status": version.status,
        "number": int(version.version),
        "same": expected.shape == given.shape and bool((expected == given).all()),
        "differs_by_row": len({tuple(row) for row in given.tolist()}) > 1,
        "loader": generic.metadata.flavors["python_function"]["loader_module"],
    }


if __name__ == "__main__":
    made = {"xgboost": of_xgboost, "onnx": of_onnx, "pytorch": of_pytorch, "keras": of_keras}
    mlflow.set_registry_uri("attestry://")
    with tempfile.TemporaryDirectory() as here:
        os.chdir(here)
        mlflow.set_tracking_uri(f"sqlite:///{here}/unused.db")
        seen = {}
        for word in sys.argv[1:]:
            framework, _, model_name = word.partition(":")
            seen[framework] = bring(model_name, made[framework])
    print(json.dumps(seen))
