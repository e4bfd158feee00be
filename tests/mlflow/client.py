"""Runs in MLflow's own environment: real code of MLflow against the registry. Prints what it saw as JSON; the test that runs it judges.

Tracking is a server of MLflow's own; the registry is elsewhere. Acts are named `ACT:MODEL` and done one after the other, through the plugin
(attestry://) until the word `plain`, and from there on by MLflow's client as it comes; `bearer` is the same with a token in MLflow's own
variable.
"""

import json
import os
import pathlib
import sys
import tempfile
import time

import mlflow
import requests
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

FEATURES, LABELS = load_iris(return_X_y=True)


def refused(act, *arguments, **named):
    """Return the code of the refusal of a call."""
    try:
        act(*arguments, **named)
    except MlflowException as error:
        return error.error_code
    return ""


def ready(client, name, number):
    """Return a version once its files are frozen."""
    deadline = time.monotonic() + 60
    while (version := client.get_model_version(name, number)).status == "PENDING_REGISTRATION" and time.monotonic() < deadline:
        time.sleep(0.2)
    return version


def register(name):
    """Train, log and register in the three ways that MLflow has; return what is known of the versions."""
    client = MlflowClient()
    mlflow.set_experiment(f"of-{name}")
    with mlflow.start_run() as run:
        model = LogisticRegression(max_iter=200).fit(FEATURES, LABELS)
        mlflow.log_metric("accuracy", model.score(FEATURES, LABELS))
        # The client looks every three seconds whether a version is ready; the last one is waited for in its own way.
        later = {"registered_model_name": name, "await_registration_for": None}
        logged = mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"], **later)
    second = mlflow.register_model(f"runs:/{run.info.run_id}/model", name, await_registration_for=None, tags={"from": "run"})
    third = mlflow.register_model(f"models:/{logged.model_id}", name)
    versions = [ready(client, name, number) for number in (1, second.version, third.version)]
    return {
        "run": run.info.run_id,
        "logged": logged.model_id,
        "numbers": [int(v.version) for v in versions],
        "status": [v.status for v in versions],
        "sources": [v.source for v in versions],
        "stages": [v.current_stage for v in versions],
        "runs": [v.run_id for v in versions],
        "tags": versions[1].tags,
        "loaded": predict(f"models:/{name}/1") == model.predict(FEATURES[:5]).tolist(),
    }


def predict(uri):
    """Load a model and return its answers to a few rows."""
    return mlflow.sklearn.load_model(uri).predict(FEATURES[:5]).tolist()


def use(name):
    """Alias, tag, describe, search and load as MLflow's client does by itself."""
    client = MlflowClient()
    client.set_registered_model_alias(name, "champion", "1")
    client.set_registered_model_tag(name, "team", "bio")
    client.set_model_version_tag(name, "1", "reviewed", "yes & no = maybe")
    client.update_model_version(name, "1", description="the first")
    client.update_registered_model(name, "sorts irises")
    model, version = client.get_registered_model(name), client.get_model_version_by_alias(name, "champion")
    found = client.search_model_versions(f"name = '{name}' AND version_number < 3", order_by=["version_number DESC"])
    tagged = client.search_registered_models(f"name = '{name}' AND tags.team = 'bio'")
    page = client.search_model_versions(f"name = '{name}'", max_results=1, order_by=["version_number ASC"])
    rest = client.search_model_versions(f"name = '{name}'", max_results=5, order_by=["version_number ASC"], page_token=page.token)
    return {
        "alias": (version.version, version.aliases, version.description, version.tags),
        "model": (model.description, model.tags, model.aliases),
        "found": [int(v.version) for v in found],
        "tagged": [m.name for m in tagged],
        "paged": [int(v.version) for v in (*page, *rest)],
        "loaded": predict(f"models:/{name}@champion") == predict(f"models:/{name}/1"),
        "uri": client.get_model_version_download_uri(name, "1").split("/", 1)[0],
        "again": refused(client.create_registered_model, name),
        "missing": refused(client.get_model_version, name, "99"),
        "unknown": refused(client.search_model_versions, "owner = 'x'"),
    }


def bring(name):
    """Register a model by the plugin, whose token is its own."""
    model = LogisticRegression(max_iter=200).fit(FEATURES, LABELS)
    mlflow.sklearn.save_model(model, "model", pip_requirements=["scikit-learn"])
    made = mlflow.register_model(str(pathlib.Path("model").resolve()), name, await_registration_for=None)
    version = ready(MlflowClient(), name, made.version)
    loaded = predict(f"models:/{name}/1") == model.predict(FEATURES[:5]).tolist()
    return {"number": int(version.version), "status": version.status, "loaded": loaded}


def hold(name):
    """Describe, find, load and be refused, by MLflow's own client with MLflow's own variable for a token."""
    client = MlflowClient()
    client.set_registered_model_alias(name, "champion", "1")
    client.set_model_version_tag(name, "1", "reviewed", "yes & no = maybe")
    version = client.get_model_version_by_alias(name, "champion")
    found = client.search_model_versions(f"name = '{name}' AND version_number < 3", order_by=["version_number DESC"])
    seen = {
        "version": (version.version, version.aliases, version.tags, version.user_id),
        "found": [int(v.version) for v in found],
        "stage": client.transition_model_version_stage(name, "1", "Production").current_stage,
        "loaded": predict(f"models:/{name}@champion") == predict(f"models:/{name}/1"),
        "uri": client.get_model_version_download_uri(name, "1"),
        "missing": refused(client.get_model_version, name, "99"),
        "denied": refused(client.delete_model_version, name, "1"),
        "webhook": refused(client.create_webhook, "ci", "https://ci.example.org/x", ["model_version.created"]),
    }
    good = os.environ["MLFLOW_TRACKING_TOKEN"]
    os.environ["MLFLOW_TRACKING_TOKEN"] = os.environ["FORGED"]
    seen["forged"] = refused(client.get_registered_model, name)
    os.environ["MLFLOW_TRACKING_TOKEN"] = good
    return seen


def others(name):
    """See and load what somebody else made."""
    version = MlflowClient().get_model_version_by_alias(name, "champion")
    return {"alias": version.version, "loaded": predict(f"models:/{name}@champion") == predict(f"models:/{name}/1")}


def steal(name):
    """Try to register what is not the caller's own, and return the codes."""
    client = MlflowClient()
    sources = (
        "s3://attestry-store/candidates/AROAOTHER:erin/0123456789abcdef/import",
        "s3://attestry-store/models/x/1-a/frozen/model",
        "runs:/0123456789abcdef/model",
        "/etc",
        "attestry://uploads/0123456789abcdef/../../x",
        "attestry://uploads/00000000000000000000000000000000",
    )
    return [refused(client.create_model_version, name, source) for source in sources]


def move(name):
    """Ask for stages and deletions."""
    client = MlflowClient()
    moved = client.transition_model_version_stage(name, "1", "Production")
    return {
        "moved": (moved.current_stage, moved.status_message),
        "archived": refused(client.transition_model_version_stage, name, "2", "Archived"),
        "deleted": refused(client.delete_model_version, name, "2"),
        "renamed": refused(client.rename_registered_model, name, f"{name}-2"),
        "gone": refused(client.delete_registered_model, name),
        "stages": {v.version: v.current_stage for v in client.search_model_versions(f"name = '{name}'")},
    }


def retire(name):
    """Delete a version of a governed model by somebody who may retire it."""
    client = MlflowClient()
    client.delete_model_version(name, "2")
    version = client.get_model_version(name, "2")
    return {"stage": version.current_stage, "message": version.status_message, "load": refused(predict, f"models:/{name}/2")}


def free(name):
    """MLflow's own semantics, in an open model."""
    client = MlflowClient()
    for number in ("1", "2"):
        client.transition_model_version_stage(name, number, "Production")
    client.transition_model_version_stage(name, "3", "Production", archive_existing_versions=True)
    stages = {v.version: v.current_stage for v in client.search_model_versions(f"name = '{name}'")}
    latest = {v.current_stage: v.version for v in client.get_latest_versions(name)}
    client.set_registered_model_alias(name, "champion", "2")
    client.delete_model_version(name, "2")
    client.rename_registered_model(name, f"{name}_v2")
    taken = refused(client.rename_registered_model, f"{name}_v2", f"{name}_v2/x")
    after = {
        "versions": sorted(int(v.version) for v in client.search_model_versions(f"name = '{name}_v2'")),
        "alias": refused(client.get_model_version_by_alias, f"{name}_v2", "champion"),
        "old": refused(client.get_registered_model, name),
        "loaded": predict(f"models:/{name}_v2/3") == predict(f"models:/{name}_v2/1"),
    }
    client.delete_registered_model(f"{name}_v2")
    return {"stages": stages, "latest": latest, **after, "taken": taken, "gone": refused(client.get_registered_model, f"{name}_v2")}


def await_tracking(url):
    """Wait until the tracking server answers."""
    deadline = time.monotonic() + 180
    while True:
        try:
            requests.get(f"{url}/health", timeout=10).raise_for_status()
        except requests.RequestException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def main(words):
    """Do what is asked for, and print what was seen, by act and model."""
    acts = {act.__name__: act for act in (register, use, steal, move, retire, free, bring, hold, others)}
    seen = {}
    for word in words:
        if word == "plain":
            mlflow.set_registry_uri(os.environ["ATTESTRY_API_URL"])
            os.environ["MLFLOW_TRACKING_AUTH"] = "attestry"
            continue
        if word == "bearer":
            mlflow.set_registry_uri(f"{os.environ['ATTESTRY_API_URL']}/oidc")
            os.environ["MLFLOW_TRACKING_TOKEN"] = os.environ.pop("ATTESTRY_TOKEN")
            continue
        act, name = word.split(":", 1)
        seen[word] = acts[act](name)
    print(json.dumps(seen, default=list))


if __name__ == "__main__":
    await_tracking(os.environ["TRACKING"])
    mlflow.set_tracking_uri(os.environ["TRACKING"])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main(sys.argv[1:])
