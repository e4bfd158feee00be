"""Development runs on the embedded AWS: logged while they go on, by the function's own rights, bound by the ledger, led to by an import."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

import attestry
from attestry.client.errors import ApiError
from attestry.client.imports import import_model
from attestry.client.runs_push import RunPusher
from attestry.evidence.leaf import event_id
from attestry.sdk.runs import Run
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.reconcile_runs import RunExaminer
from tests.embedded.flows import Registry, at_once, until

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.long, pytest.mark.xdist_group("embedded")]


@pytest.fixture(scope="module")
def trained(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of dana's that was sent while it went on."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "model.bin").write_bytes(b"weights")
    client = registry.client("dana")
    with attestry.start_run("embedded-runs", folder=folder, parameters={"C": 0.1}, tags={"team": "onco"}) as run:
        for step in range(1500):
            run.log_metric("loss", 1 / (step + 1), step=step)
        RunPusher(run.folder).push(client)
        run.log_file(folder / "model.bin")
    RunPusher(run.folder).push(client)
    return run


def test_a_run_is_read_and_listed_by_who_may(registry: Registry, trained: Run) -> None:
    shown = registry.client("grace").run(trained.id)
    assert (shown["owner"], shown["state"], shown["points"]) == ("dana", "FINISHED", 1500)
    assert shown["metrics"]["loss"]["step"] == 1499
    assert [p["step"] for p in registry.client("erin").run_metric(trained.id, "loss")] == list(range(1500))
    for asked in ({}, {"experiment": "embedded-runs"}, {"owner": "dana", "state": "FINISHED"}):
        until(lambda asked=asked: [r for r in registry.client("grace").runs(**asked) if r["run"] == trained.id], "it is listed")  # type: ignore[misc]


def test_nobody_changes_the_run_of_somebody_else_or_one_that_has_ended(registry: Registry, trained: Run) -> None:
    points = [{"name": "loss", "value": 0}]
    for profile, status in (("dana", 409), ("erin", 403), ("frank", 403), ("admin", 403)):
        with pytest.raises(ApiError) as refused:
            registry.client(profile).log_points(trained.id, uuid.uuid4().hex, points)
        assert refused.value.status == status


def test_many_who_log_one_run_at_once_lose_nothing(registry: Registry) -> None:
    client, run = registry.client("dana"), uuid.uuid4().hex
    client.start_run(run, "embedded-runs")
    at_once(8, lambda n: client.log_points(run, f"{n:032x}", [{"name": "loss", "value": n, "step": n}]))
    at_once(8, lambda n: client.log_points(run, f"{n:032x}", [{"name": "loss", "value": n, "step": n}]))
    shown = client.run(run)
    assert (shown["points"], shown["batches"]) == (8, 8)
    assert sorted(p["step"] for p in client.run_metric(run, "loss")) == list(range(8))


def test_an_import_leads_to_the_run_and_the_run_to_the_import(registry: Registry, trained: Run, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    claim = json.loads((trained.folder / "run.json").read_text())
    done = import_model(registry.client("dana"), tmp_path, "embedded-runs", {"run": claim})
    assert registry.client("grace").version("embedded-runs", done.number)["import"]["run"] == trained.id
    assert registry.client("grace").run(trained.id)["versions"] == [{"model": "embedded-runs", "number": done.number}]


def test_the_ledger_has_its_start_and_its_end_and_reconciliation_finds_nothing(registry: Registry, trained: Run) -> None:
    ledger = LedgerBytes(registry.meta, registry.store)
    ids = [event_id(kind, f"run/{trained.id}", 1) for kind in ("run.started", "run.ended")]
    until(lambda: len(ledger.find(ids)) == 2, "both are in the ledger", 120)
    ended: dict[str, Any] = dict(ledger.find(ids)[ids[1]].event["data"])
    shown = registry.client("grace").run(trained.id)
    assert (ended["sha256"], ended["metrics"]) == (shown["digests"]["record"], shown["digests"]["metrics"])
    assert RunExaminer(registry.meta, ledger).examine(shown["created"][:13]) == []
