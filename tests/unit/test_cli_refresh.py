"""The verbs refresh, refreshes and reproduce: what they send, what they say, how they end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.client_double import ApiDouble
from tests.unit.test_cli_operate import Run, api, run

__all__ = ["api", "run"]

MADE = {"state": "MADE", "model": "credit-risk", "version": 3, "reason": ""}
REFRESH = "POST /v1/models/credit-risk/refresh"
REPRODUCTION = "POST /v1/models/credit-risk/versions/2/reproduction"


def test_a_refresh_sends_its_reason_and_says_what_is_made(api: ApiDouble, run: Run) -> None:
    api.answer(REFRESH, MADE)
    done = run("refresh", "credit-risk@2", "--reason", "the market moved")
    assert done.exit_code == 0
    assert "credit-risk@3 is made" in done.stdout
    body = api.asked[-1].body
    assert (body["reason"], body["version"]) == ("the market moved", 2)
    assert len(body["request"]) == 32


def test_data_are_uploaded_and_named_by_where_they_lie(api: ApiDouble, run: Run, tmp_path: Path) -> None:
    api.answer(REFRESH, MADE)
    file = tmp_path / "loans.csv"
    file.write_text("a,b\n1,2\n")
    done = run("refresh", "credit-risk", "--reason", "new loans", "--data", f"loans={file}")
    assert done.exit_code == 0, done.output
    assert api.asked[-1].body["data"]["loans"]["name"] == "data/loans/loans.csv"


def test_a_refresh_that_makes_nothing_says_why_and_ends_with_one(api: ApiDouble, run: Run) -> None:
    api.answer(REFRESH, {**MADE, "state": "SKIPPED", "version": None, "reason": "credit-risk@2 is on its way"})
    done = run("refresh", "credit-risk", "--reason", "again")
    assert done.exit_code == 1
    assert "credit-risk@2 is on its way" in done.stdout


@pytest.mark.parametrize("data", ["loans", "=x", "loans="])
def test_data_without_source_or_file_is_wrong_usage(run: Run, data: str) -> None:
    assert run("refresh", "credit-risk", "--reason", "x", "--data", data).exit_code == 2


@pytest.mark.parametrize(("verdict", "code"), [("bit-equal", 0), ("within tolerance", 0), ("different", 1)])
def test_a_reproduction_ends_by_its_verdict(api: ApiDouble, run: Run, verdict: str, code: int) -> None:
    api.answer(REPRODUCTION, MADE)
    compared = {"stage": "VALIDATION", "status": "SUCCEEDED", "standing": "CANDIDATE", "cause": {"kind": "reproduction", "parent": 2}}
    api.answer("GET /v1/models/credit-risk/versions/3", compared)
    told = {"run": {"number": 3}, "verdict": verdict, "differs": [{"what": "model/a", "first": "1", "again": "2"}]}
    api.answer("GET /v1/models/credit-risk/versions/2", {"reproductions": [told]})
    done = run("reproduce", "credit-risk@2", "--reason", "audit")
    assert done.exit_code == code, done.output
    assert f"credit-risk@2 run again as credit-risk@3: {verdict}" in " ".join(done.stdout.split())


def test_what_is_known_of_refreshes_is_shown(api: ApiDouble, run: Run) -> None:
    api.answer("GET /v1/models/credit-risk/refreshes", {"model": "credit-risk", "due": "2026-01-02T09:04:00.000000Z", "skipped": []})
    assert "2026-01-02T09:04" in run("refreshes", "credit-risk").stdout
