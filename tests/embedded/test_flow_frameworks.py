"""Models as their frameworks make them: registered on the embedded AWS, approved, loaded again, and answering as they did.

What MLflow has a flavour of comes through the plugin, by MLflow's own code (scikit-learn: `test_mlflow.py`); what it has none of by
`attestry import`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import attestry
from attestry.domain.errors import ConflictError
from tests.embedded.flows import Registry, until
from tests.mlflow_environment import HERE, frameworks_python, mlflow_python, run

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

SECONDS = 240
R_MODEL = HERE / "r" / "model.rds"
"""A linear model that R wrote (`tests/mlflow/r/make.R`), and beside it what R answered to a few rows."""


def bring(registry: Registry, python: Path, *frameworks: str) -> dict[str, Any]:
    """What MLflow's flavours saw of models that they registered, by framework, and what the registry read of each without opening it."""
    names = {framework: f"{framework}-{uuid.uuid4().hex[:8]}" for framework in frameworks}
    variables = {**registry.stack.environment("dana"), "HOME": str(registry.folder), "ATTESTRY_API_URL": registry.stack.api_url}
    words = [f"{framework}:{name}" for framework, name in names.items()]
    printed = run("flavours.py", *words, environment=variables, seconds=SECONDS, python=python)
    seen: dict[str, Any] = json.loads(printed.splitlines()[-1])
    for framework, name in names.items():
        seen[framework]["read"] = registry.client("grace").version(name, 1)["import"]["mlmodel"]["reading"]["flavors"]
    return seen


def judge(seen: dict[str, Any], flavour: str) -> None:
    """A model was registered and loaded by its flavour, and answers as before, one row other than the next."""
    assert (seen["status"], seen["number"]) == ("READY", 1)
    assert (seen["same"], seen["differs_by_row"]) == (True, True)
    assert seen["loader"] == f"mlflow.{flavour}"
    assert {flavour, "python_function"} <= set(seen["read"])


@pytest.fixture(scope="module")
def light(registry: Registry) -> dict[str, Any]:
    """Models of the frameworks that are installed beside MLflow."""
    return bring(registry, mlflow_python(), "xgboost", "onnx")


@pytest.mark.parametrize("flavour", ["xgboost", "onnx"])
def test_a_model_comes_and_goes_by_its_own_flavour_of_mlflow_and_answers_as_it_did(light: dict[str, Any], flavour: str) -> None:
    judge(light[flavour], flavour)


@pytest.mark.long
def test_networks_of_pytorch_and_keras_come_and_go_by_their_own_flavours_and_answer_as_they_did(registry: Registry) -> None:
    seen = bring(registry, frameworks_python(), "pytorch", "keras")
    for flavour in ("pytorch", "keras"):
        judge(seen[flavour], flavour)


def imported(registry: Registry, path: Path) -> str:
    """Import one file by the command line as a data scientist does, and return the version; it cannot be loaded yet."""
    name = f"file-{uuid.uuid4().hex[:8]}"
    variables = {
        **os.environ,
        **registry.stack.environment("dana"),
        "HOME": str(registry.folder),
        "ATTESTRY_API_URL": registry.stack.api_url,
    }
    command = [sys.executable, "-m", "attestry.cli.main", "import", str(path), "--model", name, "--json"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout)["number"] == 1
    with pytest.raises(ConflictError, match="is not approved"):
        attestry.load_model(f"{name}@1", client=registry.client("grace"), folder=registry.folder / "loaded")
    return f"{name}@1"


def loaded(registry: Registry, reference: str) -> Path:
    """Have a version approved, and load it as a service does."""
    model, _, number = reference.partition("@")
    until(lambda: registry.head(model, int(number)).packet, "the approval was opened", 60)
    registry.client("erin").decide(model, int(number), "approve", "compared by hand")
    return attestry.load_model(reference, client=registry.client("grace"), folder=registry.folder / "loaded").path


def test_a_plain_tar_comes_back_byte_for_byte_and_what_is_in_it_answers_as_it_did(registry: Registry, tmp_path: Path) -> None:
    features, labels = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=200).fit(features, labels)
    packed = tmp_path / "model.tar"
    with tarfile.open(packed, "w") as archive:
        for name, content in (
            ("model.pkl", pickle.dumps(model)),
            ("labels.json", json.dumps(["setosa", "versicolor", "virginica"]).encode()),
        ):
            entry = tarfile.TarInfo(f"model/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    path = loaded(registry, imported(registry, packed)) / "model.tar"
    assert path.read_bytes() == packed.read_bytes()
    with tarfile.open(path) as archive:
        unpacked = archive.extractfile("model/model.pkl")
        assert unpacked is not None
        again = pickle.loads(unpacked.read())
    assert np.array_equal(again.predict_proba(features), model.predict_proba(features))


def test_a_model_of_r_comes_back_byte_for_byte_and_answers_as_r_did(registry: Registry) -> None:
    path = loaded(registry, imported(registry, R_MODEL)) / "model.rds"
    assert path.read_bytes() == R_MODEL.read_bytes()
    told = json.loads((R_MODEL.parent / "answers.json").read_text())
    answers = json.loads(run("read_rds.py", str(path), given=json.dumps(told["rows"])))
    assert np.allclose(answers, told["answers"], rtol=1e-12, atol=0)


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="there is no R")
def test_r_itself_makes_a_model_and_reads_it_back_and_it_answers_as_it_did(registry: Registry, tmp_path: Path) -> None:
    def r(script: str, *arguments: str) -> str:
        done = subprocess.run(
            ["Rscript", "--vanilla", "-e", script, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    model, answer = (
        "lm(y ~ x, data.frame(x = c(1, 2, 4, 7), y = c(2, 3, 9, 11)))",
        "cat(format(predict(m, data.frame(x = 1:5)), digits = 17))",
    )
    made = r(f"m <- {model}; saveRDS(m, commandArgs(TRUE)[1]); {answer}", str(tmp_path / "model.rds"))
    path = loaded(registry, imported(registry, tmp_path / "model.rds")) / "model.rds"
    assert r(f"m <- readRDS(commandArgs(TRUE)[1]); {answer}", str(path)) == made
    assert len(set(made.split())) == 5
