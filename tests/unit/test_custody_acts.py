"""Legal hold and disposal through the API's handler, and as the command line sends and tells them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from attestry.api.components import COMPONENTS
from attestry.api.operations import BY_ID
from attestry.cli.main import make_app
from lambdas import custody
from tests.api_world import ApiWorld
from tests.unit.client_double import ApiDouble

PATH = "/v1/models/credit-risk/versions/2"
ANSWER = {"model": "credit-risk", "version": 2, "standing": "RETIRED", "changed": True, "complete": True, "legal_hold": {}, "disposal": {}}
ASKED = {"state": "requested", "by": "alex", "reason": "r", "at": "then", "request": 9}
ENDED = {**ASKED, "state": "ended", "confirmed_by": "erin", "objects": 41, "left": 2, "left_until": "2030-01-02"}


@pytest.fixture(scope="module")
def api() -> Iterator[ApiWorld]:
    with pytest.MonkeyPatch.context() as patch:
        yield ApiWorld.install(patch)


def ask(api: ApiWorld, what: str, who: str, **body: Any) -> Any:
    answer = api.call("POST", f"/v1/models/{api.model}/versions/1/{what}", {"reason": "the schedule", **body}, who=who)
    if answer.status < 300:
        schema = {**BY_ID["versions.dispose"].answer, "components": {"schemas": dict(COMPONENTS)}}
        assert not list(Draft202012Validator(schema).iter_errors(answer.body))
    return answer


def test_a_version_is_held_lifted_killed_and_disposed_through_the_handler(api: ApiWorld) -> None:
    held = ask(api, "legal-hold", "auditor/grace")
    assert (held.status, held.body["legal_hold"]["by"], held.body["complete"]) == (200, "grace", True)
    assert ask(api, "legal-hold", "auditor/grace", lift=True).status == 403
    assert ask(api, "legal-hold", "admin/alex", lift=True).body["legal_hold"] == {}
    assert ask(api, "disposal", "admin/alex").status == 409
    api.evidence.kill(1)
    assert ask(api, "disposal", "admin/alex").body["disposal"]["state"] == "requested"
    assert ask(api, "disposal", "admin/alex", confirm=True).status == 403
    done = ask(api, "disposal", "approver/val", confirm=True)
    assert (done.status, done.body["disposal"]["state"], done.body["complete"]) == (202, "ended", True)
    assert done.body["disposal"]["objects"] > 0


@pytest.mark.parametrize(("what", "body"), [("legal-hold", {"lift": "yes"}), ("disposal", {"confirm": 1}), ("disposal", {"reason": ""})])
def test_a_request_in_another_form_is_refused_with_its_field(api: ApiWorld, what: str, body: dict[str, Any]) -> None:
    answer = ask(api, what, "admin/alex", **body)
    assert answer.status == 400
    assert next(iter(body)) in answer.raw


def test_what_is_due_is_attended_to_when_the_sweep_says_so(api: ApiWorld) -> None:
    assert custody.handler({"action": "attend_due"}, None)["errors"] == []


@pytest.fixture
def double() -> Iterator[ApiDouble]:
    made = ApiDouble()
    yield made
    made.close()


@pytest.fixture
def run(double: ApiDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "ATTESTRY_API_URL": double.url,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(make_app(), list(arguments))


@pytest.mark.parametrize(
    ("arguments", "path", "answer", "body", "told"),
    [
        (
            ("legal-hold", "credit-risk@2", "--reason", "case"),
            "legal-hold",
            {"legal_hold": {"by": "erin", "at": "then", "reason": "case"}, "complete": False},
            {"reason": "case", "lift": False},
            "credit-risk@2 is under the legal hold of erin since then: case; the locks of its objects are being set",
        ),
        (
            ("legal-hold", "credit-risk@2", "--reason", "settled", "--lift"),
            "legal-hold",
            {},
            {"reason": "settled", "lift": True},
            "credit-risk@2 is under no legal hold",
        ),
        (
            ("dispose", "credit-risk@2", "--reason", "r"),
            "disposal",
            {"disposal": ASKED},
            {"reason": "r", "confirm": False},
            "the disposal of credit-risk@2 was asked for by alex; an approver confirms it with --confirm",
        ),
        (
            ("dispose", "credit-risk@2", "--reason", "r", "--confirm"),
            "disposal",
            {"disposal": ENDED},
            {"reason": "r", "confirm": True},
            "41 objects of credit-risk@2 were disposed, their digests are kept; a lock keeps 2 more, the first until 2030-01-02",
        ),
        (
            ("dispose", "credit-risk@2", "--reason", "r", "--confirm"),
            "disposal",
            {"disposal": {**ENDED, "state": "confirmed"}, "complete": False},
            {"reason": "r", "confirm": True},
            "41 objects of credit-risk@2 were disposed, their digests are kept; more are being deleted",
        ),
    ],
    ids=["hold", "lift", "ask", "confirm", "under way"],
)
def test_the_command_line_sends_and_tells(
    double: ApiDouble, run: Callable[..., Any], arguments: tuple[str, ...], path: str, answer: Any, body: Any, told: str
) -> None:
    double.answer(f"POST {PATH}/{path}", {**ANSWER, **answer})
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert " ".join(done.stdout.split()) == told
    assert double.asked[-1].body == body
