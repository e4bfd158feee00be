"""A model that was written from the documentation alone, with nothing but the command line: three classes, an older scikit-learn,
approval by the gates, and half of the payloads captured."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score, roc_auc_score

from attestry.local.stack import LocalStack

pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).with_name("third_model")
MODEL = "wine-cultivar"
CLASSES = ["class_0", "class_1", "class_2"]
POLICY = "attestry:approval-policy"
CAPTURE_RATE = 0.5
SECONDS = 600
"""How long the first version may take; its environment, and the registry's own, may have to be built."""


@dataclass(frozen=True)
class Done:
    """What a call of the command line gave."""

    code: int
    body: Any

    @property
    def problems(self) -> dict[str, str]:
        """Field and rule of every problem with the input."""
        return {problem["field"]: problem["rule"] for problem in self.body["error"]["problems"]}


@dataclass(frozen=True)
class CommandLine:
    """The command line as a person uses it who has no more than the files that `attestry up` names."""

    data: Path

    def __call__(self, profile: str, *arguments: str, text: str = "") -> Done:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ATTESTRY_"))} | {
            "AWS_CONFIG_FILE": str(self.data / "aws" / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.data / "aws" / "credentials"),
            "AWS_PROFILE": profile,
        }
        command = [sys.executable, "-m", "attestry.cli.main", *arguments, "--json"]
        ended = subprocess.run(command, cwd=ROOT, env=env, input=text, capture_output=True, text=True, timeout=SECONDS + 60)
        assert not ended.stderr, ended.stderr
        return Done(ended.returncode, json.loads(ended.stdout))

    def predict(self, rows: list[dict[str, float]]) -> Done:
        """Ask the deployed version as a consumer."""
        return self("frank-consumer", "predict", MODEL, text=json.dumps({"instances": rows}))


def git(folder: Path, *arguments: str) -> str:
    """Run git in a repository, and return what it printed."""
    author = ("-c", "user.name=dana", "-c", "user.email=dana@example.com", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def attestry(stack: LocalStack) -> CommandLine:
    """The command line against the running registry, where dana's login is a person's: nothing is approved for an unknown submitter."""
    line = CommandLine(stack.data.path)
    assert line("admin", "people", "add", "dana", "--login", "dana").code == 0
    return line


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder in a git repository, with its data beside it and not in git."""
    repository = tmp_path_factory.mktemp("third-model")
    folder = repository / "wine"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("data", "__pycache__", ".ruff_cache"))
    git(repository, "init", "--quiet", "--initial-branch=main")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Wines")
    subprocess.run([sys.executable, "get_data.py"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def submitted(attestry: CommandLine, project: Path) -> dict[str, Any]:
    """What the submission gave, once the version has come to rest."""
    done = attestry("dana", "submit", str(project), "--wait", "--timeout", str(SECONDS))
    assert done.code == 0, done.body
    body: dict[str, Any] = done.body
    return body


@pytest.fixture(scope="module")
def version(attestry: CommandLine, submitted: dict[str, Any]) -> dict[str, Any]:
    """All that is recorded of the version, once it is in place."""
    deadline = time.monotonic() + SECONDS
    while True:
        body: dict[str, Any] = attestry("grace", "show", f"{MODEL}@{submitted['version']}").body
        if body["standing"] == "DEPLOYED":
            return body
        assert time.monotonic() < deadline, body
        time.sleep(1)


@pytest.fixture(scope="module")
def wines(project: Path) -> pd.DataFrame:
    """One wine of each cultivar, as it was measured."""
    table = pd.read_csv(project / "data" / "wine.csv")
    return table.groupby("cultivar").head(1).reset_index(drop=True)


def features(table: pd.DataFrame) -> list[dict[str, float]]:
    """Rows as a request holds them."""
    rows: list[dict[str, float]] = table.drop(columns="cultivar", errors="ignore").to_dict("records")
    return rows


def test_a_model_with_automatic_approval_stands_deployed_without_any_person(submitted: dict[str, Any], version: dict[str, Any]) -> None:
    assert (submitted["rest"], submitted["version"], submitted["created"], submitted["dirty"]) == ("DEPLOYED", 1, True, False)
    assert (version["stage"], version["status"], version["standing"]) == ("DEPLOYMENT", "SUCCEEDED", "DEPLOYED")
    assert [(d["person"], d["decision"]) for d in version["approvals"]] == [(POLICY, "approve")]
    assert (version["submitter"]["login"], version["submitter_person"]) == ("dana", "dana")
    actors = [transition["principal"]["login"] for transition in version["transitions"]]
    assert actors[0] == "dana"
    assert set(actors[1:]) == {"attestry:pipeline", POLICY}


def test_scripts_run_on_the_versions_of_their_own_lock_file(attestry: CommandLine, version: dict[str, Any]) -> None:
    assert {"scikit-learn==1.5.2", "numpy==2.1.3", "pandas==2.2.3", "pyarrow==18.1.0"} <= set(version["environment"]["packages"])
    log = attestry("dana", "logs", f"{MODEL}@{version['number']}", "--stage", "TRAINING")
    assert "scikit-learn 1.5.2 on 117 wines of class_0, class_1, class_2" in json.dumps(log.body)


def test_every_gate_that_the_manifest_names_is_reported_as_passed(version: dict[str, Any]) -> None:
    assert {(gate["name"], gate["rule"]) for gate in version["gates"] if gate["passed"]} == {
        ("accuracy_score", "minimum"),
        ("roc_auc_score", "minimum"),
        ("log_loss", "maximum"),
        ("f1_of_all", "no_worse_than_deployed"),
        ("model.labels", "required"),
        ("data.source[].licence", "required"),
    }
    assert all(gate["passed"] for gate in version["gates"])


def test_metrics_of_several_classes_are_those_of_the_deployed_model_on_the_hold_out(
    attestry: CommandLine, version: dict[str, Any], tmp_path: Path
) -> None:
    for part in ("holdout", "holdout-labels"):
        assert attestry("grace", "data", f"{MODEL}@{version['number']}", "--set", part, "--to", str(tmp_path / part)).code == 0
    asked = attestry.predict(features(pd.read_parquet(tmp_path / "holdout")))
    predicted = pd.DataFrame(asked.body["output"])
    truth = pd.read_parquet(tmp_path / "holdout-labels")["cultivar"]
    scores = predicted[[f"probability_{name}" for name in CLASSES]]

    assert len(truth) == 61
    assert {name: float(value) for name, value in version["metrics"].items()} == pytest.approx(
        {
            "accuracy_score": accuracy_score(truth, predicted["cultivar"]),
            "f1_of_all": f1_score(truth, predicted["cultivar"], average="macro"),
            "recall_of_class_1": recall_score(truth, predicted["cultivar"], labels=["class_1"], average="macro"),
            "roc_auc_score": roc_auc_score(truth, scores, multi_class="ovr"),
            "log_loss": log_loss(truth, scores),
        },
        abs=1e-9,
    )


def test_a_prediction_names_a_class_and_the_probability_of_each(
    attestry: CommandLine, version: dict[str, Any], wines: pd.DataFrame
) -> None:
    done = attestry.predict(features(wines))

    assert (done.code, done.body["model"], done.body["version"]) == (0, MODEL, version["number"])
    assert [row["cultivar"] for row in done.body["output"]] == CLASSES
    for row in done.body["output"]:
        assert sum(row[f"probability_{name}"] for name in CLASSES) == pytest.approx(1)


def test_a_trace_goes_from_a_prediction_to_code_data_settings_and_the_policy_that_approved(
    attestry: CommandLine, project: Path, version: dict[str, Any], wines: pd.DataFrame
) -> None:
    predicted = attestry.predict(features(wines)).body
    done = attestry("grace", "trace", predicted["prediction_id"], "--deep")
    trace = done.body

    # PROVEN once the receipt is sealed and the seal in the ledger, which takes a minute or two.
    assert done.code == 0
    assert trace["verdict"] in ("SIGNED-UNANCHORED", "PROVEN")
    assert {step["outcome"] for step in trace["steps"]} == {"passed"}
    assert json.loads(trace["prediction"]["output"]["value"]) == predicted["output"]
    assert trace["prediction"]["receipt"]["value"] == predicted["receipt"]
    assert trace["code"]["revision"]["value"] == git(project, "rev-parse", "HEAD")
    assert trace["data"]["source"][0]["sha256"] == {
        "value": hashlib.sha256((project / "data" / "wine.csv").read_bytes()).hexdigest(),
        "grade": "verified",
    }
    assert trace["environment"]["framework"]["value"] == {"name": "scikit-learn", "version": "1.5.2"}
    assert trace["settings"]["hyperparameters"] == {"value": {"shrinkage": 0.1, "solver": "lsqr"}, "grade": "verified"}
    assert trace["settings"]["approval"] == {"value": {"automatic": True, "signed": False}, "grade": "verified"}
    assert trace["validation"]["metrics"]["value"] == version["metrics"]
    assert trace["people"]["approved_by"] == {"value": [POLICY], "grade": "attested"}
    assert trace["people"]["ran_by"]["value"]["login"] == "dana"
    assert trace["people"]["code_author"] == {"value": "dana <dana@example.com>", "grade": "claimed"}


@pytest.mark.usefixtures("version")
def test_which_payloads_are_captured_follows_from_the_receipt_and_the_rate(attestry: CommandLine, wines: pd.DataFrame) -> None:
    seen: set[bool] = set()
    for _ in range(40):
        predicted = attestry.predict(features(wines.head(1))).body
        captured = attestry("grace", "trace", predicted["prediction_id"]).body["prediction"]["captured"]["value"]
        drawn = hashlib.sha256(b"capture\n" + predicted["receipt"].encode()).digest()[:8]
        assert captured is (int.from_bytes(drawn, "big") < CAPTURE_RATE * 2**64)
        seen.add(captured)
        if len(seen) == 2:
            return
    pytest.fail("40 predictions were all captured, or none of them")


@pytest.mark.usefixtures("version")
def test_a_request_with_wrong_features_is_refused_with_every_field_and_rule(attestry: CommandLine, wines: pd.DataFrame) -> None:
    good, named, typed = features(wines)
    named["alcohl"] = named.pop("alcohol")
    done = attestry.predict([good, named, typed | {"hue": "red"}])  # type: ignore[dict-item]

    assert (done.code, done.body["error"]["status"]) == (1, 400)
    assert done.problems == {"instances[1].alcohol": "required", "instances[1].alcohl": "unknown", "instances[2].hue": "type"}


def test_the_same_commit_again_is_the_same_version(attestry: CommandLine, project: Path, submitted: dict[str, Any]) -> None:
    again = attestry("dana", "submit", str(project))

    assert (again.code, again.body["created"]) == (0, False)
    assert (again.body["version"], again.body["candidate"]) == (submitted["version"], submitted["candidate"])


def test_uncommitted_changes_are_listed_and_refused_but_data_files_are_none(attestry: CommandLine, project: Path, tmp_path: Path) -> None:
    changed = tmp_path / "repository"
    shutil.copytree(project.parent, changed)
    (changed / "wine" / "notes.py").write_text("# not committed\n")
    done = attestry("dana", "submit", str(changed / "wine"))

    assert (done.code, done.body["error"]["code"]) == (1, "dirty_tree")
    assert done.body["error"]["details"]["changes"] == ["?? wine/notes.py"]
