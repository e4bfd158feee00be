"""The command line: what it prints, and how it ends; against a local server that speaks the API's contract."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attestry.cli.main import make_app
from tests.unit.client_double import ApiDouble
from tests.unit.packet_samples import serve_packet

VERSION = {
    "model": "credit-risk",
    "number": 2,
    "stage": "APPROVAL",
    "status": "RUNNING",
    "standing": "CANDIDATE",
    "error": "",
    "candidate": "c" * 64,
    "version_digest": "d" * 64,
    "folder": "models/credit-risk/2-abc",
    "attempt": 1,
    "submitter_person": "dana",
    "created": "2026-01-02T03:04:05Z",
    "updated": "2026-01-02T03:04:05Z",
    "metrics": {"roc_auc_score": "0.9912"},
    "gates": [{"name": "roc_auc_score", "rule": "minimum", "passed": True, "reason": "roc_auc_score is 0.9912, wanted at least 0.9"}],
    "transitions": [
        {
            "number": 1,
            "kind": "candidate.registered",
            "to": {"stage": "REGISTERED", "status": "SUCCEEDED", "standing": "CANDIDATE"},
            "principal": {"person": "dana", "login": "dana"},
            "at": "2026-01-02T03:04:05Z",
            "reason": "[bold]uploaded[/bold]",
        }
    ],
    "stages": [{"stage": "TRAINING", "attempt": 1, "status": "SUCCEEDED", "begun": "2026-01-02T03:04:06Z", "ended": "e"}],
    "approvals": [],
}
TRACE = {
    "format": 1,
    "verdict": "SIGNED-UNANCHORED",
    "deep": False,
    "steps": [{"step": "receipt", "outcome": "passed", "detail": ""}],
    "prediction": {"prediction_id": {"value": "k-1", "grade": "verified"}},
    "runs": [{"stage": {"value": "TRAINING", "grade": "attested"}}],
}

Run = Callable[..., Any]


@pytest.fixture
def api() -> Iterator[ApiDouble]:
    double = ApiDouble()
    yield double
    double.close()


@pytest.fixture
def run(api: ApiDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    settings = {
        "ATTESTRY_API_URL": api.url,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    app = make_app()

    def invoke(*arguments: str, stdin: str | None = None) -> Any:
        return CliRunner().invoke(app, list(arguments), input=stdin)

    return invoke


def script(api: ApiDouble) -> None:
    """Give each reading route an answer."""
    serve_packet(api)
    api.answer("GET /v1/me", {"login": "dana", "person": None, "roles": ["scientist"]})
    api.answer("GET /v1/models", {"models": [{"model": "credit-risk", "owner": "o", "versions": 2, "purpose": "p"}]})
    api.answer("GET /v1/models/credit-risk", {"model": "credit-risk", "deployed": [{"environment": "production", "number": 1}]})
    api.answer("GET /v1/models/credit-risk/versions", {"versions": [VERSION]})
    api.answer("GET /v1/models/credit-risk/versions/2", VERSION)
    row = {"section": "metrics", "field": "roc_auc_score", "before": "0.9", "after": "0.99", "change": "changed"}
    api.answer("GET /v1/models/credit-risk/diff", {"differences": [row]})
    api.answer("GET /v1/models/credit-risk/versions/2/logs", {"stage": "TRAINING", "text": "line one\nline \x1b[31mtwo\n"})
    api.answer("GET /v1/predictions/k-1/trace", TRACE)
    api.answer("GET /v1/people", {"people": [{"person": "erin", "name": "", "logins": ["erin"], "added": "a"}]})
    decided = {"decision": "approve", "complete": True, "approvals": ["erin"], "needed": 1, "signed_by_person": False}
    api.answer("POST /v1/models/credit-risk/versions/2/decision", decided)
    moved = {"model": "credit-risk", "version": 2, "standing": "DEPLOYED", "attempt": 2}
    api.answer("POST /v1/models/credit-risk/versions/2/deployment", moved, 202)
    api.answer("POST /v1/models/credit-risk/versions/2/retry", moved, 202)
    api.answer("POST /v1/models/credit-risk/versions/2/claim", {**moved, "submitter": "dana"})
    api.answer("POST /v1/models/credit-risk/rollback", moved)
    prediction = {"prediction_id": "k-1", "model": "credit-risk", "version": 2, "output": [1, 0], "receipt": "a.b.c"}
    api.answer("POST /v1/models/credit-risk/predictions", prediction)
    key = {"fingerprint": "SHA256:abc", "added": "2026-01-02T03:04:05Z"}
    api.answer("POST /v1/people", {"person": "erin", "logins": ["erin", "e2"], "ssh_keys": [key]}, 201)


EVERY_VERB = [
    ("whoami",),
    ("models",),
    ("versions", "credit-risk"),
    ("show", "credit-risk"),
    ("show", "credit-risk@2"),
    ("diff", "credit-risk@1", "2"),
    ("diff", "credit-risk@1", "credit-risk@2"),
    ("logs", "credit-risk@2"),
    ("trace", "k-1"),
    ("people", "list"),
    ("people", "add", "erin", "--login", "erin", "--login", "e2"),
    ("packet", "credit-risk@2"),
    ("approve", "credit-risk@2", "--reason", "fine"),
    ("reject", "credit-risk@2", "--reason", "not fine"),
    ("deploy", "credit-risk@2", "--reason", "now", "--no-wait"),
    ("rollback", "credit-risk", "--reason", "worse"),
    ("retry", "credit-risk@2", "--reason", "again"),
    ("claim", "credit-risk@2"),
    ("predict", "credit-risk", "--instance", '{"a": 1}'),
]


@pytest.mark.parametrize("arguments", EVERY_VERB, ids=" ".join)
def test_each_verb_prints_for_people_and_ends_with_0(api: ApiDouble, run: Run, arguments: tuple[str, ...]) -> None:
    script(api)
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip()


@pytest.mark.parametrize("arguments", EVERY_VERB, ids=" ".join)
def test_with_json_standard_output_is_one_document_and_standard_error_is_silent(
    api: ApiDouble, run: Run, arguments: tuple[str, ...]
) -> None:
    script(api)
    after, before = run(*arguments, "--json"), run("--json", *arguments)
    assert json.loads(after.stdout) == json.loads(before.stdout)
    assert (after.stderr, before.stderr) == ("", "")


def test_a_version_is_shown_with_its_whole_history(api: ApiDouble, run: Run) -> None:
    script(api)
    shown = run("show", "credit-risk@2").stdout
    wanted = (
        "credit-risk@2",
        "APPROVAL",
        "TRAINING",
        "2026-01-02T03:04:06Z",
        "wanted at least 0.9",
        "candidate.registered",
        "dana",
        "d" * 64,
    )
    for part in wanted:
        assert part in shown
    assert "[bold]uploaded[/bold]" in shown, "text from the record is text, not markup"


def test_a_log_cannot_act_on_the_terminal(api: ApiDouble, run: Run) -> None:
    script(api)
    assert run("logs", "credit-risk@2").stdout == "line one\nline \ufffd[31mtwo\n"


def test_a_trace_shows_the_verdict_each_step_and_the_grade_of_every_fact(api: ApiDouble, run: Run) -> None:
    script(api)
    lines = run("trace", "k-1").stdout.splitlines()
    assert lines[0] == "SIGNED-UNANCHORED"
    assert any(line.split() == ["receipt", "passed"] for line in lines)
    assert any(line.split() == ["prediction.prediction_id", "verified", "k-1"] for line in lines)
    assert any(line.split() == ["runs[0].stage", "attested", "TRAINING"] for line in lines)


@pytest.mark.parametrize(("verdict", "code"), [("PROVEN", 0), ("SIGNED-UNANCHORED", 0), ("INCOMPLETE", 1), ("BROKEN", 5)])
def test_the_exit_code_of_a_trace_is_its_verdict(api: ApiDouble, run: Run, verdict: str, code: int) -> None:
    api.answer("GET /v1/predictions/k-1/trace", {**TRACE, "verdict": verdict})
    assert run("trace", "k-1").exit_code == code
    assert run("trace", "k-1", "--json").exit_code == code


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (400, "invalid_input", 1),
        (409, "conflict", 1),
        (409, "condition_failed", 1),
        (409, "integrity", 5),
        (403, "forbidden", 4),
        (403, "self_approval", 4),
        (403, "unproven_identity", 4),
        (404, "not_found", 3),
        (500, "internal", 1),
        (502, "prediction_failed", 1),
    ],
)
def test_exit_codes_tell_kinds_of_errors_apart(api: ApiDouble, run: Run, status: int, error: str, code: int) -> None:
    serve_packet(api)
    api.refuse("POST /v1/models/credit-risk/versions/2/decision", status, error, "the sentence")
    done = run("approve", "credit-risk@2", "--reason", "fine")
    assert done.exit_code == code
    assert done.stdout == ""
    assert "the sentence" in done.stderr


def test_with_json_an_error_is_the_document(api: ApiDouble, run: Run) -> None:
    api.refuse("GET /v1/models/x", 404, "not_found", "there is no model x")
    done = run("show", "x", "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout) == {"error": {"code": "not_found", "message": "there is no model x", "status": 404}}
    assert done.stderr == ""


def test_problems_are_listed_by_field_and_rule(api: ApiDouble, run: Run) -> None:
    problems = [
        {"field": "instances[0].age", "rule": "type", "message": "a number is needed", "line": None},
        {"field": "instances[1].name", "rule": "unknown_field", "message": "no such feature", "line": None},
    ]
    api.refuse("POST /v1/models/m/predictions", 400, "invalid_input", "two", problems=problems)
    told = run("predict", "m", "--instance", "{}").stderr
    assert "instances[0].age: a number is needed [type]" in told
    assert "instances[1].name: no such feature [unknown_field]" in told


def test_a_version_that_still_loads_ends_with_6(api: ApiDouble, run: Run) -> None:
    api.refuse("POST /v1/models/m/predictions", 503, "not_ready", "loading")
    assert run("predict", "m", "--instance", "{}", "--wait", "0").exit_code == 6


def test_a_registry_that_does_not_answer_ends_with_6(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTESTRY_API_URL", "http://127.0.0.1:9")
    done = run("rollback", "m", "--reason", "x")
    assert done.exit_code == 6
    assert "does not answer" in done.stderr


def test_a_profile_that_does_not_exist_ends_with_4(run: Run) -> None:
    done = run("models", "--profile", "nobody")
    assert done.exit_code == 4
    assert "nobody" in done.stderr


def test_the_profile_decides_who_acts(api: ApiDouble, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script(api)
    credentials = tmp_path / "credentials"
    credentials.write_text("[erin]\naws_access_key_id = AKIDERIN\naws_secret_access_key = s\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert run("models", "--profile", "erin").exit_code == 0
    assert run("--profile", "erin", "models").exit_code == 0
    assert all("Credential=AKIDERIN/" in asked.headers["Authorization"] for asked in api.asked)


@pytest.mark.parametrize(
    "arguments",
    [
        ("approve", "credit-risk@2"),
        ("approve", "credit-risk", "--reason", "x"),
        ("approve", "credit-risk@0", "--reason", "x"),
        ("show", "Credit@1"),
        ("diff", "a@1", "b@2"),
        ("predict", "m@2", "--instance", "{}"),
        ("predict", "m", "--instance", "{not json"),
        ("predict", "m", "--instance", '{"a": NaN}'),
        ("predict", "m", "--file", "does-not-exist.json"),
        ("predict", "m", "--file", "x.json", "--instance", "{}"),
        ("submit", "does-not-exist"),
        ("people", "add", "erin"),
        ("no-such-verb",),
        ("models", "--no-such-option"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_asks_nothing(api: ApiDouble, run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr
    assert api.asked == []


def test_who_asks_a_version_is_told_that_the_model_is_asked(run: Run) -> None:
    told = " ".join(run("predict", "credit-risk@2", "--instance", "{}").stderr.replace("│", " ").split())
    assert "only the version that stands deployed predicts" in told
    assert "attestry predict credit-risk" in told


def test_an_unproven_submitter_is_shown_with_what_is_done_about_it(api: ApiDouble, run: Run) -> None:
    api.answer("GET /v1/models/credit-risk/versions/2", {**VERSION, "submitter_person": None})
    told = " ".join(run("show", "credit-risk@2").stdout.split())
    assert "unproven: its login maps to no person" in told
    assert "attestry claim credit-risk@2" in told


@pytest.mark.parametrize("text", ['{"instances": [{"a": 1}, {"a": 2}]}', '[{"a": 1}, {"a": 2}]'])
def test_instances_come_from_a_file_or_from_standard_input(api: ApiDouble, run: Run, tmp_path: Path, text: str) -> None:
    script(api)
    (tmp_path / "x.json").write_text(text)
    for done in (
        run("predict", "credit-risk", "--file", "x.json"),
        run("predict", "credit-risk", "--file", "-", stdin=text),
        run("predict", "credit-risk", stdin=text),
    ):
        assert done.exit_code == 0, done.output
    assert [a.body for a in api.asked] == [{"instances": [{"a": 1}, {"a": 2}]}] * 3


def test_one_instance_may_stand_alone(api: ApiDouble, run: Run) -> None:
    script(api)
    run("predict", "credit-risk", stdin='{"a": 1}')
    assert api.asked[0].body == {"instances": [{"a": 1}]}


def test_data_is_downloaded_and_its_digests_are_printed(api: ApiDouble, run: Run, tmp_path: Path) -> None:
    file = api.serve_file("part-0.parquet", b"rows")
    api.answer("GET /v1/models/m/versions/1/data", {"set": "training", "files": [file]})
    done = run("data", "m@1")
    assert done.exit_code == 0
    assert (tmp_path / "m@1" / "training" / "part-0.parquet").read_bytes() == b"rows"
    assert hashlib.sha256(b"rows").hexdigest() in done.stdout


def test_data_that_is_not_as_recorded_ends_with_5_and_is_not_kept(api: ApiDouble, run: Run, tmp_path: Path) -> None:
    file = api.serve_file("part-0.parquet", b"evil", announced=b"rows")
    api.answer("GET /v1/models/m/versions/1/data", {"set": "training", "files": [file]})
    done = run("data", "m@1", "--to", "here")
    assert done.exit_code == 5
    assert "not as recorded" in done.stderr
    assert not (tmp_path / "here" / "part-0.parquet").exists()


@pytest.mark.parametrize(("state", "code"), [(("DEPLOYMENT", "SUCCEEDED", "DEPLOYED"), 0), (("DEPLOYMENT", "FAILED", "APPROVED"), 1)])
def test_deploy_waits_until_the_version_is_in_place(api: ApiDouble, run: Run, state: tuple[str, str, str], code: int) -> None:
    api.answer("POST /v1/models/m/versions/1/deployment", {}, 202)
    stage, status, standing = state
    api.answer("GET /v1/models/m/versions/1", {"stage": stage, "status": status, "standing": standing, "error": "cold"})
    done = run("deploy", "m@1", "--reason", "now")
    assert done.exit_code == code
    assert f"{stage} {status}, {standing}" in done.stdout


def test_a_partial_approval_says_how_many_are_missing(api: ApiDouble, run: Run) -> None:
    answer = {"decision": "approve", "complete": False, "approvals": ["erin"], "needed": 2}
    api.answer("POST /v1/models/m/versions/1/decision", answer)
    serve_packet(api, "m", 1)
    assert "1 of 2 approvals" in run("approve", "m@1", "--reason", "x").stdout


def test_a_dirty_tree_is_told_with_its_changes_and_ends_with_1(run: Run, tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "manifests" / "tumour-diagnosis"
    folder = tmp_path / "work"
    subprocess.run(["cp", "-r", str(example), str(folder)], check=True)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "breast_cancer.csv").write_text("radius,malignant\n1.5,0\n")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run(
        ["git", "-c", "user.name=dana", "-c", "user.email=d@example.com", "commit", "--quiet", "--allow-empty", "-m", "x"],
        cwd=folder,
        check=True,
    )
    done = run("submit", "work")
    assert done.exit_code == 1
    assert "train.py" in done.stderr
    assert "allow" in done.stderr


def test_help_and_version_come_without_importing_the_sdk() -> None:
    heavy = "{'boto3', 'botocore', 'rich', 'yaml'} & set(sys.modules)"
    code = f"import sys; from attestry.cli.main import make_app; make_app(); print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_verb_has_help_and_the_shared_options(run: Run) -> None:
    verbs = {arguments[:2] if arguments[0] == "people" else arguments[:1] for arguments in EVERY_VERB}
    for verb in sorted(verbs | {("up",), ("down",), ("submit",), ("data",)}):
        told = run(*verb, "--help").stdout
        assert "--json" in told
        assert "--profile" in told


def test_the_version_of_the_program_is_told(run: Run) -> None:
    assert run("--version").stdout.startswith("attestry ")
