"""A refreshed version takes its stages from the one before, serves in staging, and is killed there as a drill, on the embedded AWS."""

from __future__ import annotations

from typing import Any

import pytest

from attestry.client.api import RegistryClient
from attestry.client.kill_drill import DrillReport, KillDrill
from tests.embedded.flows import Registry, example_rows, until

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.long, pytest.mark.xdist_group("embedded")]

MODEL = "drilled-threshold"


def in_staging(manifest: dict[str, Any]) -> None:
    manifest["deployment"] |= {"environment": "staging", "promotes_to": ["production"], "strategy": "all-at-once"}
    manifest["refresh"] = {"reuse": ["processing", "training"]}


@pytest.fixture(scope="module")
def refreshed(registry: Registry) -> int:
    """The number of a refreshed version in staging; version 1 is kept for rollback there."""
    _, first = registry.made(registry.small_project(model=MODEL, edit=in_staging))
    registry.approve(MODEL, first)
    number = int(registry.client("frank").refresh(MODEL, "a version for the drill")["version"])
    assert registry.rest(MODEL, number).rest == "WAITING"
    registry.approve(MODEL, number)
    return number


@pytest.fixture(scope="module")
def report(registry: Registry, refreshed: int) -> DrillReport:
    """What the drill of that version came to."""
    sessions = [registry.stack.session("frank-consumer") for _ in range(4)]
    consumers = [RegistryClient(session, registry.stack.api_url, patience_seconds=0) for session in sessions]
    drill = KillDrill(registry.client("frank"), consumers, [example_rows()[0]], watch_seconds=20)
    return drill.run(MODEL, refreshed, "the quarterly drill")


def test_both_stages_were_taken_from_the_version_before_and_validation_was_run(registry: Registry, refreshed: int) -> None:
    moves = [m["reason"] for m in registry.rows(MODEL, refreshed, "TRANSITION#") if m["kind"] == "stage.succeeded"]
    assert [m for m in moves if "was taken from" in m] == [
        f"{stage} was taken from {MODEL}@1, which ran it on the same inputs" for stage in ("PROCESSING", "TRAINING")
    ]
    assert {str(row["stage"]): row.get("log") is not None for row in registry.rows(MODEL, refreshed, "STAGE#")} == {
        "PROCESSING": False,
        "TRAINING": False,
        "VALIDATION": True,
    }
    first, second = registry.head(MODEL, 1), registry.head(MODEL, refreshed)
    assert {f.path: f.sha256 for f in second.frozen if f.path.startswith("model/")} == {
        f.path: f.sha256 for f in first.frozen if f.path.startswith("model/")
    }
    assert second.version_digest != first.version_digest


def test_a_drill_kills_what_serves_in_staging_and_is_recorded(registry: Registry, refreshed: int, report: DrillReport) -> None:
    assert (report.outcome, report.failures) == ("PASSED", ())
    assert report.last_answer_seconds <= 5
    moved = registry.rows(MODEL, refreshed, "TRANSITION#")[-1]
    assert (moved["kind"], moved["data"]["drill"], moved["principal"]["person"]) == ("version.killed", "staging", "frank")
    remark = registry.client("grace").annotations(MODEL, refreshed)[-1]
    assert (remark["transition"], remark["text"]) == (report.transition, report.remark())


def test_what_the_drilled_version_answered_last_is_traced(registry: Registry, report: DrillReport) -> None:
    trace = until(lambda: registry.client("grace").trace(report.last_prediction), "the last prediction could be traced")
    taken = {run["stage"]["value"]: run.get("reused_from") for run in trace["runs"]}
    assert taken["TRAINING"]["value"]["number"] == 1
    assert {step["outcome"] for step in trace["steps"]} <= {"passed", "pending"}, trace["steps"]


def test_a_drill_is_refused_for_what_stands_in_production(registry: Registry, deployed: tuple[str, int]) -> None:
    answer = registry.call("frank", "POST", f"/v1/models/{deployed[0]}/versions/{deployed[1]}/kill", {"reason": "no", "drill": True})
    assert (answer.status, answer.code) == (409, "conflict")
    assert registry.head(*deployed).standing == "DEPLOYED"
