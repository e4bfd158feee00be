"""Reuse: a refreshed version takes a stage from an earlier one only where the same inputs are shown, bit for bit, by what we signed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from attestry.domain.errors import NotFoundError, UnavailableError
from attestry.domain.stages import Stage, Standing
from attestry.domain.version import Version
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.digests import sha256_hex
from attestry.ports import Update, When
from attestry.usecases.browse import read_log
from attestry.usecases.manual import Hand, redo_stage
from attestry.usecases.records import stage_key, transition_key, version_key
from attestry.usecases.reproduce import ask_reproduction
from attestry.usecases.revoke import kill_version
from attestry.usecases.stage_result import StageResult
from tests.attestations import attested
from tests.evidence_world import ADMIN, EvidenceWorld, rewrite
from tests.flow import Flow, Serving
from tests.unit.test_reconcile import serve_and_prove
from tests.unit.test_refresh import GRACE, MODEL, by_hand, dropped, put, refresh

BOTH = ("processing", "training")
NOTHING_RAN = StageResult(None, None, None, "2026-01-02T03:05:00.000Z")


def reusing(*stages: str) -> Any:
    """The edit of the example's manifest that asks for it."""

    def edit(draft: dict[str, Any]) -> None:
        draft["refresh"] = {"data": True, "reuse": list(stages)}

    return edit


class ReusingFlow(Flow):
    """A registry whose example asks for reuse."""

    stages = BOTH

    def register_example(self, **kwargs: Any) -> Version:
        return super().register_example(edit=reusing(*self.stages), **kwargs)


class PartlyReusingFlow(ReusingFlow):
    stages = ("processing",)


def serving(kind: type[Flow] = ReusingFlow) -> Flow:
    """A flow whose version 1 is deployed."""
    return Serving(kind()).flow


def prepared(flow: Flow, number: int, stage: Stage, attempt: int = 1) -> dict[str, Any]:
    version = flow.refresher._parent(MODEL, number)
    if stage is Stage.PROCESSING:
        flow.build_environments(version)
    return flow.prepare(version, stage, attempt)


def take(flow: Flow, number: int, stage: Stage) -> dict[str, str]:
    """Prepare a stage that is to be taken over, and record it, as the pipeline does without a run between."""
    assert prepared(flow, number, stage).get("reused") is True
    return flow.record(head(flow, number), stage, NOTHING_RAN)


def head(flow: Flow, number: int) -> Version:
    return flow.refresher._parent(MODEL, number)


def record_of(flow: Flow, number: int, stage: Stage, attempt: int = 1) -> dict[str, Any]:
    row = flow.meta.get(stage_key(MODEL, number, stage, attempt))
    assert row is not None
    record: dict[str, Any] = json.loads(row["record"])
    return record


def files_of(version: Version) -> dict[str, str]:
    return {f.path: f.sha256 for f in version.frozen if f.path.startswith("model/")}


def test_a_refresh_without_other_inputs_takes_both_stages_over_and_is_a_version_of_its_own_all_the_same() -> None:
    flow = serving()
    refresh(flow, by_hand())
    assert take(flow, 2, Stage.PROCESSING) == {"outcome": "SUCCEEDED", "error": ""}
    assert take(flow, 2, Stage.TRAINING) == {"outcome": "SUCCEEDED", "error": ""}
    first, second = head(flow, 1), head(flow, 2)
    assert {d.name: d.digest for d in second.datasets} == {d.name: d.digest for d in first.datasets}
    assert files_of(second) == files_of(first)
    assert second.version_digest != first.version_digest
    assert all(f.key.startswith(second.folder) for d in second.datasets if not d.name.startswith("source/") for f in d.files)
    assert all(f.key.startswith(second.folder) for f in second.frozen)
    assert second.schema == first.schema


def test_record_move_and_attestation_name_the_run_that_was_taken_by_the_digest_of_its_record() -> None:
    flow = serving()
    refresh(flow, by_hand())
    take(flow, 2, Stage.PROCESSING)
    row = flow.meta.get(stage_key(MODEL, 1, Stage.PROCESSING, 1))
    assert row is not None
    record = record_of(flow, 2, Stage.PROCESSING)
    assert record["reused_from"]["number"] == 1
    assert record["reused_from"]["record_sha256"] == row["record_sha256"]
    assert (record["claimed"], record["log"], record["builder"]) == ({}, None, "reuse")
    moved = flow.meta.query(version_key(MODEL, 2).partition, prefix="TRANSITION#")[-1]
    assert moved["data"]["reused_from"] == {"version": f"{MODEL}@1", "record_sha256": row["record_sha256"]}
    assert moved["reason"] == f"PROCESSING was taken from {MODEL}@1, which ran it on the same inputs"
    statement = attested(flow.meta, flow.store, flow.mover, MODEL, 2)[-1]
    definition = statement.predicate["buildDefinition"]
    assert definition["internalParameters"]["reused_from"]["record_sha256"] == row["record_sha256"]
    assert {"name": "record of the run", "digest": {"sha256": row["record_sha256"]}} in definition["resolvedDependencies"]


def test_who_looks_for_the_log_of_a_stage_that_was_not_run_is_told_where_it_is() -> None:
    flow = serving()
    refresh(flow, by_hand())
    take(flow, 2, Stage.PROCESSING)
    with pytest.raises(NotFoundError, match=rf"it was taken from {MODEL}@1, which has the log of the run"):
        read_log(flow.meta, flow.store, MODEL, 2, "PROCESSING")


def test_what_was_taken_over_is_proven_offline_traced_and_reconciled() -> None:
    world = EvidenceWorld()
    world.deploy(edit=reusing(*BOTH))
    refresh(world.flow, by_hand())
    world.version = world.flow.refresher._parent(MODEL, 2)
    take(world.flow, 2, Stage.PROCESSING)
    take(world.flow, 2, Stage.TRAINING)
    world.flow.pass_stage(world.version, Stage.VALIDATION)
    document = serve_and_prove(world)
    taken = {run["stage"]["value"]: run.get("reused_from") for run in document["runs"]}
    assert taken["PROCESSING"]["value"]["number"] == taken["TRAINING"]["value"]["number"] == 1
    assert taken["PROCESSING"]["grade"] == "attested"
    assert taken["VALIDATION"] is None


def test_a_verifier_misses_the_record_of_the_run_and_refuses_another_one() -> None:
    world = EvidenceWorld()
    world.deploy(edit=reusing("processing"))
    refresh(world.flow, by_hand())
    world.version = world.flow.refresher._parent(MODEL, 2)
    take(world.flow, 2, Stage.PROCESSING)
    for stage in (Stage.TRAINING, Stage.VALIDATION):
        world.flow.pass_stage(world.version, stage)
    world.seal()
    bundle = world.version_bundle(2)
    assert world.verify(bundle).verdict == "PROVEN"
    name = "version/reused/PROCESSING.json"
    assert world.verify(rewrite(bundle, {name: None})).verdict.startswith("INCOMPLETE")
    other = {**record_of(world.flow, 1, Stage.PROCESSING), "parameters": {}}
    assert world.verify(rewrite(bundle, {name: canonical_bytes(other)})).verdict.startswith("BROKEN")


def test_other_data_are_processed_and_trained_on_anew() -> None:
    flow = serving()
    refresh(flow, dropped(put(flow)))
    answer = prepared(flow, 2, Stage.PROCESSING)
    assert "reused" not in answer
    assert answer["job_url"]
    assert flow.record(head(flow, 2), Stage.PROCESSING, flow.run(head(flow, 2), Stage.PROCESSING))["outcome"] == "SUCCEEDED"
    # The prepared data came out the same, and training has nothing else: that stage can be taken.
    assert prepared(flow, 2, Stage.TRAINING)["reused"] is True


def test_only_stages_that_the_manifest_names_are_taken_over() -> None:
    flow = serving(PartlyReusingFlow)
    refresh(flow, by_hand())
    take(flow, 2, Stage.PROCESSING)
    assert "reused" not in prepared(flow, 2, Stage.TRAINING)


def test_a_run_that_was_taken_over_twice_is_named_as_the_run_that_it_was() -> None:
    flow = serving()
    for number in (2, 3):
        refresh(flow, by_hand(request=f"r{number}"), parent=number - 1)
        take(flow, number, Stage.PROCESSING)
        take(flow, number, Stage.TRAINING)
        flow.to_approval(head(flow, number))
    taken = record_of(flow, 3, Stage.TRAINING)["reused_from"]
    assert (taken["number"], taken["through"]) == (1, [2])


@pytest.mark.parametrize("killed", [1, 2])
def test_nothing_is_taken_by_way_of_a_version_that_was_killed(killed: int) -> None:
    flow = serving()
    refresh(flow, by_hand())
    for stage in (Stage.PROCESSING, Stage.TRAINING):
        take(flow, 2, stage)
    flow.to_approval(head(flow, 2))
    refresh(flow, by_hand(request="r3"), parent=2)
    kill_version(flow.meta, flow.attestor, MODEL, killed, reason="poisoned", by=ADMIN, at=flow.clock.now())
    assert "reused" not in prepared(flow, 3, Stage.PROCESSING)


def test_a_kill_between_plan_and_record_ends_the_stage_and_the_retry_runs_it() -> None:
    flow = serving()
    refresh(flow, by_hand())
    assert prepared(flow, 2, Stage.PROCESSING)["reused"] is True
    kill_version(flow.meta, flow.attestor, MODEL, 1, reason="poisoned", by=ADMIN, at=flow.clock.now())
    answer = flow.record(head(flow, 2), Stage.PROCESSING, NOTHING_RAN)
    assert answer["outcome"] == "FAILED"
    assert "nothing is taken from it" in answer["error"]
    assert "reused" not in prepared(flow, 2, Stage.PROCESSING, attempt=2)


def test_a_killed_version_whose_head_was_edited_back_gives_nothing() -> None:
    flow = serving()
    refresh(flow, by_hand())
    kill_version(flow.meta, flow.attestor, MODEL, 1, reason="poisoned", by=ADMIN, at=flow.clock.now())
    flow.meta.transact([Update(version_key(MODEL, 1), {"standing": Standing.DEPLOYED.value}, When(exists=True))])
    assert "reused" not in prepared(flow, 2, Stage.PROCESSING)


def plant(flow: Flow, *, everything: bool) -> None:
    """Change what version 1 is said to have been trained to, as one who may write every row could."""
    key = stage_key(MODEL, 1, Stage.PROCESSING, 1)
    record = record_of(flow, 1, Stage.PROCESSING)
    bad = flow.store.put_new("models/x/poison.parquet", b"PAR1 poison")
    record["outputs"][0]["files"][0] |= {"key": bad.key, "version_id": bad.version_id, "sha256": bad.sha256, "size": bad.size}
    text = canonical_bytes(record)
    flow.meta.transact([Update(key, {"record": text.decode(), "record_sha256": sha256_hex(text)}, When(exists=True))])
    if everything:
        moves = flow.meta.query(version_key(MODEL, 1).partition, prefix="TRANSITION#")
        moved = next(m for m in moves if m["kind"] == "stage.succeeded" and m["to"]["stage"] == "PROCESSING")
        change = Update(transition_key(MODEL, 1, int(moved["number"])), {"evidence": sha256_hex(text)}, When(exists=True))
        flow.meta.transact([change])


def test_a_planted_record_is_not_even_planned_on() -> None:
    flow = serving()
    plant(flow, everything=False)
    refresh(flow, by_hand())
    assert "reused" not in prepared(flow, 2, Stage.PROCESSING)


def test_a_planted_record_with_its_transition_is_no_run_that_we_signed() -> None:
    flow = serving()
    plant(flow, everything=True)
    refresh(flow, by_hand())
    answer = take(flow, 2, Stage.PROCESSING)
    assert answer["outcome"] == "FAILED"
    assert "is of something else" in answer["error"]
    assert [d.name for d in head(flow, 2).datasets] == ["source/wisconsin-breast-cancer"]


def test_an_attestation_of_another_key_lets_nothing_be_taken() -> None:
    flow = serving()
    refresh(flow, by_hand())
    assert prepared(flow, 2, Stage.PROCESSING)["reused"] is True
    moves = flow.meta.query(version_key(MODEL, 1).partition, prefix="TRANSITION#")
    moved = next(m for m in moves if m["kind"] == "stage.succeeded" and m["to"]["stage"] == "PROCESSING")
    body = flow.store.read(moved["attestation"]["key"], max_bytes=1 << 20)
    forged = flow.store.put_new("models/x/forged.json", body.replace(b'"sig":"M', b'"sig":"N'))
    change = {"attestation": {"sha256": forged.sha256, "key": forged.key, "version_id": forged.version_id}}
    flow.meta.transact([Update(transition_key(MODEL, 1, int(moved["number"])), change, When(exists=True))])
    assert flow.record(head(flow, 2), Stage.PROCESSING, NOTHING_RAN)["outcome"] == "FAILED"


def test_a_file_that_is_not_as_recorded_is_not_taken() -> None:
    flow = serving()
    refresh(flow, by_hand())
    file = head(flow, 1).dataset("holdout-labels").files[0]
    flow.store.tamper(file.key, b"PAR1 other labels")
    answer = take(flow, 2, Stage.PROCESSING)
    assert answer["outcome"] == "FAILED"
    assert "was recorded" in answer["error"]


def test_a_reproduction_runs_everything() -> None:
    flow = serving()
    given: dict[str, Any] = {"request": "r1", "reason": "an auditor wants to know", "by": GRACE, "at": flow.clock.now()}
    refresh(flow, by_hand())
    for stage in (Stage.PROCESSING, Stage.TRAINING):
        take(flow, 2, stage)
    flow.pass_stage(head(flow, 2), Stage.VALIDATION)
    assert ask_reproduction(flow.refresher, flow.meta, MODEL, 2, **given).number == 3
    version = flow.head(Version.from_item(flow.meta.get(version_key(MODEL, 3)) or {}))
    flow.build_environments(version)
    outcome: dict[str, str] = {}
    for stage in (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION):
        assert "reused" not in flow.prepare(version, stage)
        outcome = flow.record(version, stage, flow.run(flow.head(version), stage))
    assert outcome == {"outcome": "REPRODUCED", "error": ""}


def test_a_stage_that_is_done_again_is_run() -> None:
    flow = serving()
    refresh(flow, by_hand())
    take(flow, 2, Stage.PROCESSING)
    hand = Hand(flow.meta, flow.attestor, flow.pipeline, flow.functions, "gate", ADMIN, "the labels look odd", flow.clock.now())
    redo_stage(hand, MODEL, 2, Stage.PROCESSING)
    assert "reused" not in flow.prepare(head(flow, 2), Stage.PROCESSING, head(flow, 2).attempt)


def test_a_registered_version_runs_everything_also_where_the_manifest_asks_for_reuse() -> None:
    flow = serving()
    assert "reused_from" not in record_of(flow, 1, Stage.PROCESSING)


@pytest.mark.parametrize("stage", [Stage.PROCESSING, Stage.TRAINING])
@pytest.mark.parametrize("lost", ["fail_before", "fail_after"])
def test_a_crash_between_any_two_calls_leaves_a_state_from_which_a_retry_takes_the_stage(stage: Stage, lost: str) -> None:
    flow = serving()
    refresh(flow, by_hand())
    if stage is Stage.TRAINING:
        take(flow, 2, Stage.PROCESSING)
    assert prepared(flow, 2, stage)["reused"] is True
    rows, objects = copy.deepcopy(flow.meta.rows), copy.deepcopy(flow.store.versions)

    def record() -> dict[str, str]:
        return flow.recorder.record(MODEL, 2, 1, stage, NOTHING_RAN, flow.clock.now())

    flow.faults.clear()
    assert record()["outcome"] == "SUCCEEDED"
    calls = list(flow.faults.calls)
    for n, call in enumerate(calls, 1):
        flow.meta.rows, flow.store.versions = copy.deepcopy(rows), copy.deepcopy(objects)
        getattr(flow.faults, lost)(n)
        with pytest.raises(UnavailableError):
            record()
        assert record() == {"outcome": "SUCCEEDED", "error": ""}, call
        assert record_of(flow, 2, stage)["reused_from"]["number"] == 1
        moves = flow.meta.query(version_key(MODEL, 2).partition, prefix="TRANSITION#")
        assert [m["kind"] for m in moves if m["to"]["stage"] == stage.value] == ["stage.started", "stage.succeeded"]
