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
