"""Reproduce: the recipe is run again and compared; the verdict is an attested event, and the run is never approved or deployed."""

from __future__ import annotations

from typing import Any

import pytest

from attestry.domain.cause import CauseKind
from attestry.domain.errors import ConflictError, UnavailableError, UnprovenIdentityError
from attestry.domain.manifest_sections import Reproduction
from attestry.domain.reproduction import Verdict, compare_runs
from attestry.domain.stages import Stage, Standing
from attestry.domain.version import DataSet, Version
from attestry.ports import Update, When
from attestry.usecases.browse import show_version
from attestry.usecases.deploy import require_deployable
from attestry.usecases.gate import open_approval
from attestry.usecases.records import load_version, version_key
from attestry.usecases.refresh import Refreshed
from attestry.usecases.reproduce import ask_reproduction, reproduction_key
from attestry.usecases.revoke import kill_version
from attestry.usecases.sweep import sweep
from attestry.usecases.trace import trace_prediction
from tests.evidence_world import ADMIN, EvidenceWorld
from tests.fakes import Faults, MemoryMetaStore
from tests.flow import GOOD, Flow, Serving
from tests.unit.test_reconcile import found, reconcile
from tests.unit.test_refresh import GRACE, MODEL
from tests.versions import make_version, ref, session

SCRIPTS = (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION)


def ask(flow: Flow, number: int = 1, **kwargs: Any) -> Refreshed:
    given: dict[str, Any] = {"request": "r1", "reason": "an auditor wants to know", "by": GRACE, **kwargs}
    return ask_reproduction(flow.refresher, flow.meta, MODEL, number, at=flow.clock.now(), **given)


def run(flow: Flow, number: int, **outputs: Any) -> dict[str, str]:
    """Run the stages of a version and return what the last came to."""
    version = load_version(flow.meta, MODEL, number)
    flow.build_environments(version)
    outcome = {}
    for stage in SCRIPTS:
        named = {k: v for k, v in outputs.items() if (k == "metrics") == (stage is Stage.VALIDATION) and stage is not Stage.PROCESSING}
        outcome = flow.pass_stage(version, stage, **named)
    return outcome


def test_equal_bytes_are_bit_equal_and_the_verdict_is_an_attested_event_of_the_version():
    world = EvidenceWorld()
    world.deploy()
    assert ask(world.flow).number == 2
    assert run(world.flow, 2) == {"outcome": "REPRODUCED", "error": ""}
    first = load_version(world.meta, MODEL, 1)
    assert first.standing is Standing.DEPLOYED
    moved = world.meta.query(f"VERSION#{MODEL}#1", prefix="TRANSITION#")[-1]
    assert (moved["kind"], moved["data"]["verdict"], moved["data"]["run"]) == ("version.reproduced", "bit-equal", 2)
    prediction = world.predict()
    world.seal()
    reconcile(world)
    assert found(world) == []
    assert world.verify(world.version_bundle(1)).verdict == "PROVEN"
    assert world.verify(world.version_bundle(2)).verdict == "PROVEN"
    traced = trace_prediction(world.meta, world.store, prediction, delegator_key=world.delegator.public_key_der)
    assert traced["reproductions"][0]["verdict"] == {"value": "bit-equal", "grade": "attested"}
    assert show_version(world.meta, world.store, MODEL, 1)["reproductions"][0]["verdict"] == "bit-equal"


def test_other_bytes_with_metrics_within_the_declared_tolerance_are_within_tolerance():
    flow = Serving().flow
    ask(flow)
    run(flow, 2, model={"model.joblib": b"other weights"}, metrics={**GOOD, "roc_auc_score": 0.9905})
    row = flow.meta.get(reproduction_key(MODEL, 1, 2))
    assert row is not None
    assert row["verdict"] == "within tolerance"
    assert [d["what"] for d in row["differs"]] == ["model/model.joblib", "metric roc_auc_score"]


def test_metrics_beyond_the_tolerance_are_different_and_named_whatever_the_gates_say():
    flow = Serving().flow
    ask(flow)
    assert run(flow, 2, model={"model.joblib": b"x"}, metrics={**GOOD, "roc_auc_score": 0.5})["outcome"] == "REPRODUCED"
    row = flow.meta.get(reproduction_key(MODEL, 1, 2))
    assert row is not None
    assert row["verdict"] == "different"
    assert {"what": "metric roc_auc_score", "first": "0.99", "again": "0.5"} in row["differs"]
    assert load_version(flow.meta, MODEL, 2).standing is Standing.REJECTED


def test_a_run_is_made_with_the_environment_and_the_data_of_the_version():
    flow = Serving().flow
    first = load_version(flow.meta, MODEL, 1)
    ask(flow)
    again = load_version(flow.meta, MODEL, 2)
    assert again.environment is not None
    assert first.environment is not None
    assert again.environment.id == first.environment.id
    assert (again.cause["kind"], again.cause["parent"], again.cause["deploy"]) == ("reproduction", 1, "never")
    run(flow, 2)
    assert load_version(flow.meta, MODEL, 2).dataset("source/wisconsin-breast-cancer") == first.dataset("source/wisconsin-breast-cancer")


def test_a_run_is_never_approved_deployed_refreshed_or_reproduced_itself():
    flow = Serving().flow
    ask(flow)
    run(flow, 2)
    version = load_version(flow.meta, MODEL, 2)
    ports = (flow.meta, flow.attestor, flow.store, flow.pipeline, flow.notifier)
    with pytest.raises(ConflictError, match="nobody decides"):
        open_approval(*ports, model=MODEL, number=2, token="t", at=flow.clock.now())
    with pytest.raises(ConflictError, match="never deployed"):
        require_deployable(version, flow.clock.now())
    with pytest.raises(ConflictError, match="refresh tumour-diagnosis@1"):
        ask(flow, 2)
    assert flow.refresher._parent(MODEL, None).number == 1


def test_an_approval_of_a_run_that_somebody_forced_is_no_proof():
    world = EvidenceWorld()
    world.deploy()
    ask(world.flow)
    cause = load_version(world.meta, MODEL, 2).cause
    # Who can write the table makes the gate forget why the version was made; its first event has it still.
    world.meta.transact([Update(version_key(MODEL, 2), {"cause": {"kind": "manual", "parent": 1}}, When())])
    world.version = load_version(world.meta, MODEL, 2)
    run(world.flow, 2)
    world.open()
    world.approve()
    world.sequence()
    verification = world.verify(world.version_bundle(2))
    assert cause["kind"] == CauseKind.REPRODUCTION
    assert verification.verdict == "BROKEN"
    assert "reproduce another one" in next(s.detail for s in verification.steps if s.name == "approvals")


def test_a_finished_run_is_left_alone_by_the_sweep():
    flow = Serving().flow
    ask(flow)
    run(flow, 2)
    flow.pipeline.end(load_version(flow.meta, MODEL, 2).execution_id, "SUCCEEDED")
    counts = sweep(flow.meta, flow.functions, flow.pipeline, gate_function="gate", at=flow.clock.advance(hours=1))
    assert counts["restarted"] == 0


@pytest.mark.parametrize("kind", ["before", "after"])
def test_a_comparison_that_is_cut_off_anywhere_is_recorded_once_by_the_next_try(kind):
    tried = 0
    for point in range(1, 200):
        faults = Faults()
        flow = Flow(faults)
        version = flow.register_example()
        flow.to_approval(version)
        ask(flow)
        again = load_version(flow.meta, MODEL, 2)
        flow.build_environments(again)
        for stage in SCRIPTS[:2]:
            flow.pass_stage(again, stage)
        flow.prepare(again, Stage.VALIDATION)
        result = flow.run(flow.head(again), Stage.VALIDATION)
        faults.clear()
        getattr(faults, f"fail_{kind}")(point)
        try:
            flow.record(again, Stage.VALIDATION, result)
        except UnavailableError:
            tried += 1
        else:
            break
        faults.clear()
        assert flow.record(again, Stage.VALIDATION, result)["outcome"] == "REPRODUCED"
        moves = [t for t in flow.meta.query(f"VERSION#{MODEL}#1", prefix="TRANSITION#") if t["kind"] == "version.reproduced"]
        assert len(moves) == 1
    assert tried >= 15


def test_a_version_that_is_killed_meanwhile_gets_no_verdict():
    flow = Serving().flow
    ask(flow)
    kill_version(flow.meta, flow.attestor, MODEL, 1, reason="it harms", by=ADMIN, at=flow.clock.now())
    assert run(flow, 2)["outcome"] == "REPRODUCED"
    assert flow.meta.get(reproduction_key(MODEL, 1, 2)) is None


def test_what_has_no_metrics_yet_or_is_asked_for_by_nobody_is_refused():
    flow = Flow()
    flow.register_example()
    with pytest.raises(ConflictError, match="nothing yet"):
        ask(flow)
    served = Serving().flow
    with pytest.raises(UnprovenIdentityError):
        ask(served, by=session("auditor", "mallory"))


def test_the_same_request_again_starts_no_other_run():
    flow = Serving().flow
    assert [ask(flow).state, ask(flow).state] == ["MADE", "MADE_BEFORE"]
    assert ask(flow, request="r2").number == 3


def _version(**changes: Any) -> Version:
    data = tuple(DataSet(name, name * 2, ()) for name in ("training", "holdout", "holdout-labels"))
    given = {"datasets": data, "frozen": (ref("model/a"), ref("manifest.json")), "metrics": {"m": "0.5"}, **changes}
    return make_version(MemoryMetaStore(), **given)


@pytest.mark.parametrize(
    ("changes", "declared", "verdict"),
    [
        ({}, Reproduction(True), Verdict.BIT_EQUAL),
        ({"metrics": {"m": "0.6"}}, Reproduction(True), Verdict.BIT_EQUAL),
        ({"frozen": ()}, Reproduction(True), Verdict.DIFFERENT),
        ({"frozen": ()}, Reproduction(False, 0), Verdict.WITHIN_TOLERANCE),
        ({"frozen": (), "metrics": {"m": "0.61"}}, Reproduction(False, 0.1), Verdict.DIFFERENT),
        ({"frozen": (), "metrics": {"m": "0.6"}}, Reproduction(False, 0.1), Verdict.WITHIN_TOLERANCE),
        ({"frozen": (), "metrics": {"m": "nan"}}, Reproduction(False, 0.1), Verdict.DIFFERENT),
        ({"frozen": (), "metrics": {}}, Reproduction(False, 0.1), Verdict.DIFFERENT),
        ({"datasets": ()}, Reproduction(True), Verdict.DIFFERENT),
    ],
)
def test_verdicts(changes, declared, verdict):
    assert compare_runs(_version(), _version(**changes), declared).verdict is verdict
