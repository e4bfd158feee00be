"""The verbs kill, retire, capture and findings: what they send, what they say, how they end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attestry.cli.main import make_app
from tests.unit.client_double import ApiDouble

Run = Callable[..., Any]
OUT = {"model": "credit-risk", "version": 2, "standing": "RETIRED", "retires_on": "", "vacated": [], "rollback": {}}


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
    for name, value in {
        "ATTESTRY_API_URL": api.url,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    app = make_app()
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_a_kill_says_what_can_be_put_in_its_place(api: ApiDouble, run: Run) -> None:
    api.answer("POST /v1/models/credit-risk/versions/2/kill", {**OUT, "vacated": ["production"], "rollback": {"production": 1}})
    done = run("kill", "credit-risk@2", "--reason", "it leaks")
    assert done.exit_code == 0
    told = " ".join(done.stdout.split())
    assert told.startswith("credit-risk@2 is killed nothing is deployed in production any more")
    assert "`attestry rollback credit-risk` puts credit-risk@1 in place" in told
    assert api.asked[-1].body == {"reason": "it leaks"}


def test_a_kill_needs_a_reason(run: Run) -> None:
    assert run("kill", "credit-risk@2").exit_code == 2


def test_a_retirement_is_sent_with_its_date(api: ApiDouble, run: Run) -> None:
    api.answer("POST /v1/models/credit-risk/versions/2/retirement", {**OUT, "standing": "APPROVED", "retires_on": "2030-01-01"})
    done = run("retire", "credit-risk@2", "--reason", "old", "--on", "2030-01-01", "--even-if-deployed")
    assert "credit-risk@2 goes out of use on 2030-01-01" in done.stdout
    assert api.asked[-1].body == {"reason": "old", "on": "2030-01-01", "even_if_deployed": True}


def test_a_refused_retirement_ends_with_its_sentence(api: ApiDouble, run: Run) -> None:
    api.refuse("POST /v1/models/credit-risk/versions/2/retirement", 409, "conflict", "credit-risk@2 stands deployed")
    done = run("retire", "credit-risk@2", "--reason", "old")
    assert done.exit_code == 1
    assert "stands deployed" in done.output


def test_the_capture_rate_is_sent_as_it_was_typed(api: ApiDouble, run: Run) -> None:
    answer = {"model": "credit-risk", "environment": "production", "version": 2, "rate": "0.1", "previous": "1"}
    api.answer("POST /v1/models/credit-risk/capture", answer)
    done = run("capture", "credit-risk", "--rate", "0.1", "--reason", "costs")
    assert "is 0.1; it was 1" in " ".join(done.stdout.split())
    assert api.asked[-1].body == {"rate": "0.1", "reason": "costs", "environment": "production"}


def test_open_findings_are_listed_and_end_with_the_code_for_bytes_that_differ(api: ApiDouble, run: Run) -> None:
    finding = {
        "id": "i",
        "what": "head.metrics",
        "where": "VERSION#m#1/HEAD",
        "expected": "0.9",
        "found": "0.99",
        "model": "m",
        "number": 1,
    }
    api.answer("GET /v1/findings", {"findings": [finding]})
    done = run("findings")
    assert done.exit_code == 5
    assert "head.metrics" in done.stdout
    assert json.loads(run("findings", "--json").stdout) == [finding]


def test_no_findings_end_well(api: ApiDouble, run: Run) -> None:
    api.answer("GET /v1/findings", {"findings": []})
    done = run("findings", "credit-risk")
    assert (done.exit_code, done.stdout.strip()) == (0, "no open findings")


def test_rollout_tells_what_stands_beside_the_deployed_version(api: ApiDouble, run: Run) -> None:
    plan = {"steps": [5, 50], "minutes": 60}
    failure = {"at": "2026-01-02T03:04:05Z", "why": "predict_fn raised"}
    canary = {"number": 3, "share": 5, "since": "then", "plan": plan, "answered": 12, "failed": 1, "p95_ms": 40, "failures": [failure]}
    counts = {"compared": 2, "instances": 4, "agreed": 3, "numeric": 4, "failed": 1, "skipped": 0, "difference": "0.5"}
    shadow = {"number": 4, "begun": "then", "plan": plan, "comparison": counts, "last_error": "boom"}
    answer = {"model": "credit-risk", "environment": "production", "deployed": 2, "canary": canary, "shadow": shadow}
    api.answer("GET /v1/models/credit-risk/rollout", answer)
    told = " ".join(run("rollout", "credit-risk").stdout.split())
    assert "credit-risk@2 stands DEPLOYED in production" in told
    assert "credit-risk@3 stands CANARY: 5 percent of the requests (steps 5, 50)" in told
    assert "12 predictions, 1 failures; 95 percent took up to 40 ms" in told
    assert "predict_fn raised" in told
    assert "2 requests compared: 3 of 4 predictions agree; 1 failed numbers differ by 0.125 on average" in told


def test_rollout_says_when_there_is_none(api: ApiDouble, run: Run) -> None:
    answer = {"model": "credit-risk", "environment": "production", "deployed": None, "canary": {}, "shadow": {}}
    api.answer("GET /v1/models/credit-risk/rollout", answer)
    told = " ".join(run("rollout", "credit-risk").stdout.split())
    assert told == "nothing is deployed in production nothing is rolled out beside it"


def test_a_rollout_is_changed_with_a_reason(api: ApiDouble, run: Run) -> None:
    api.answer("POST /v1/models/credit-risk/rollout", {"model": "credit-risk", "version": 3, "standing": "APPROVED"})
    beside = {"canary": {"number": 3, "step": 1}, "shadow": {}}
    api.answer("GET /v1/models/credit-risk/rollout", {"model": "credit-risk", "environment": "staging", "deployed": 2, **beside})
    assert run("rollout", "credit-risk", "halt").exit_code == 2
    done = run("rollout", "credit-risk", "halt", "--reason", "too many refusals", "--environment", "staging")
    assert done.stdout.strip() == "credit-risk@3 is APPROVED in staging"
    assert api.asked[-1].body == {"action": "halt", "reason": "too many refusals", "environment": "staging", "version": 3}
    assert run("rollout", "credit-risk", "advance", "--reason", "fine").exit_code == 0
    assert api.asked[-1].body == {"action": "advance", "reason": "fine", "environment": "production", "version": 3, "step": 1}


def test_a_promotion_names_the_next_environment(api: ApiDouble, run: Run) -> None:
    api.answer("POST /v1/models/credit-risk/versions/3/promotion", {"model": "credit-risk", "version": 3}, 202)
    done = run("promote", "credit-risk@3", "--to", "production", "--reason", "fine in staging")
    assert done.stdout.strip() == "credit-risk@3 is being promoted to production"
    assert api.asked[-1].body == {"to": "production", "reason": "fine in staging"}


def test_a_rollback_leads_to_a_version_of_ones_choice(api: ApiDouble, run: Run) -> None:
    api.answer("POST /v1/models/credit-risk/rollback", {"version": 1, "standing": "DEPLOYED"})
    assert run("rollback", "credit-risk", "--to", "1", "--reason", "worse").exit_code == 0
    assert api.asked[-1].body == {"reason": "worse", "to": 1, "environment": "production"}


def test_a_deployment_may_leave_out_the_rollout(api: ApiDouble, run: Run) -> None:
    api.answer("POST /v1/models/credit-risk/versions/3/deployment", {}, 202)
    assert run("deploy", "credit-risk@3", "--reason", "now", "--strategy", "all-at-once", "--no-wait").exit_code == 0
    assert api.asked[-1].body == {"reason": "now", "strategy": "all-at-once"}
