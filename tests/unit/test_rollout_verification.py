"""Predictions of canaries and shadows are proven offline, and what no rollout can be is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from attestry.domain.errors import IntegrityError
from attestry.domain.rollout import Plan
from attestry.evidence.checks_moves import _check_kind
from attestry.evidence.verdict import Verdict
from attestry.ports import Update
from attestry.usecases.reconcile_model import ModelExaminer
from attestry.usecases.records import pointer_key, version_key
from attestry.usecases.rollout import advance_rollout, begin_rollout, finish_rollout, halt_rollout
from attestry.usecases.shadow import ShadowRunner
from tests.evidence_world import DEPLOYER, EvidenceWorld

MODEL = "tumour-diagnosis"
PLANS = {"CANARY": Plan("canary", (99,), 10, 0), "SHADOW": Plan("shadow", minutes=60)}


def told(world: EvidenceWorld) -> dict[str, Any]:
    return {"environment": "production", "by": DEPLOYER, "reason": "approved", "at": world.clock.now()}


def second_version(world: EvidenceWorld, standing: str) -> None:
    """Version 1 stands deployed, version 2 beside it."""
    world.deploy()

    def edit(draft: dict[str, Any]) -> None:
        draft["training"]["hyperparameters"]["C"] = 0.7

    world.validate(edit=edit)
    world.open()
    world.approve()
    world.meta._apply([Update(version_key(MODEL, 2), {"strategy": PLANS[standing].to_item()})])
    begin_rollout(world.meta, world.flow.attestors["deploy"], MODEL, 2, **told(world))


def predict_by(world: EvidenceWorld, number: int) -> str:
    for _ in range(200):
        prediction = world.predict()
        kid = prediction.partition("-")[0]
        if world.meta.rows[next(k for k in world.meta.rows if k.partition == f"KEY#{kid}" and k.sort == "DELEGATION")]["number"] == number:
            return prediction
    raise AssertionError(f"version {number} never answers")


def shadow_of(world: EvidenceWorld) -> str:
    world.predict()
    ports: Any = {"meta": world.meta, "store": world.store, "functions": world.flow.functions, "keys": world.keys}
    assert ShadowRunner(**ports, inference="inference", clock=lambda: 0.0).run().compared == 1
    (key,) = [key for key, row in world.meta.rows.items() if "shadow_of" in row]
    return f"{key.partition.removeprefix('KEY#')}-{int(key.sort.removeprefix('R#'))}"


def test_a_prediction_of_a_canary_is_proven_while_it_stands_and_after_it_was_halted() -> None:
    world = EvidenceWorld()
    second_version(world, "CANARY")
    prediction = predict_by(world, 2)
    advance_steps = halt_rollout(world.meta, world.flow.attestors["operate"], MODEL, **told(world))
    assert advance_steps.version.standing == "APPROVED"
    world.seal()
    verified = world.verify(world.bundle(prediction))
    assert verified.verdict is Verdict.PROVEN, verified
    assert any("CANARY when delegated to: version.canaried" in step.detail for step in verified.steps)


def test_a_prediction_of_a_shadow_is_proven_as_a_shadows() -> None:
    world = EvidenceWorld()
    second_version(world, "SHADOW")
    prediction = shadow_of(world)
    world.seal()
    verified = world.verify(world.bundle(prediction))
    assert verified.verdict is Verdict.PROVEN, verified
    assert any("SHADOW when delegated to" in step.detail for step in verified.steps)


def test_a_canary_that_was_put_in_place_in_the_batch_of_its_delegation_is_proven() -> None:
    world = EvidenceWorld()
    second_version(world, "CANARY")
    world.sequence()
    prediction = predict_by(world, 2)
    finish_rollout(world.meta, world.flow.attestors["operate"], MODEL, **told(world))
    world.seal()
    assert world.verify(world.bundle(prediction)).verdict is Verdict.PROVEN


@pytest.mark.parametrize(
    ("kind", "origin", "to"),
    [
        ("version.canaried", "CANDIDATE", ("SUCCEEDED", "CANARY")),
        ("version.shadowed", "REJECTED", ("SUCCEEDED", "SHADOW")),
        ("rollout.advanced", "APPROVED", ("SUCCEEDED", "APPROVED")),
        ("rollout.advanced", "CANARY", ("SUCCEEDED", "DEPLOYED")),
        ("rollout.halted", "SHADOW", ("FAILED", "APPROVED")),
        ("rollout.halted", "CANARY", ("FAILED", "DEPLOYED")),
        ("rollout.ended", "CANDIDATE", ("SUCCEEDED", "APPROVED")),
        ("version.replaced", "CANARY", ("SUCCEEDED", "ROLLBACK")),
    ],
)
def test_a_move_that_no_rollout_makes_is_refused_by_the_verifier(kind: str, origin: str, to: tuple[str, str]) -> None:
    """Else `rollout.halted` would be a way to APPROVED past the approvers."""
    before = {"stage": "DEPLOYMENT", "status": "SUCCEEDED", "standing": origin}
    with pytest.raises(IntegrityError):
        _check_kind("move 9", kind, before, {"stage": "DEPLOYMENT", "status": to[0], "standing": to[1]})


@pytest.mark.parametrize("standing", ["CANARY", "SHADOW"])
def test_the_table_with_a_rollout_agrees_with_the_ledger_and_an_edit_by_hand_is_found(standing: str) -> None:
    world = EvidenceWorld()
    second_version(world, standing)
    world.clock.at += timedelta(minutes=1)
    world.sequence()
    examiner = ModelExaminer(world.meta, _ledger(world))
    assert list(examiner.examine(MODEL)) == []
    name = standing.lower()
    key = pointer_key(MODEL, "production")
    whole = dict(world.meta.rows[key][name])
    for field, value in (
        ("version_digest", "0" * 64),
        ("plan", {}),
        ("capture_rate", "0"),
        *([("share", 100)] if standing == "CANARY" else []),
    ):
        world.meta._apply([Update(key, {name: {**whole, field: value}})])
        assert [o.what for o in examiner.examine(MODEL)] == [f"pointer.{name}.{field}"]
    world.meta._apply([Update(key, {name: {**whole, "number": 1}})])
    assert f"pointer.{name}" in [o.what for o in examiner.examine(MODEL)]
    world.meta._apply([Update(key, {name: None})])
    assert [o.what for o in examiner.examine(MODEL)] == [f"pointer.{name}"]


def test_the_share_of_a_canary_is_that_of_its_last_advance() -> None:
    world = EvidenceWorld()
    PLANS["CANARY"] = Plan("canary", (5, 50), 10, 0)
    second_version(world, "CANARY")
    advance_rollout(world.meta, world.flow.attestors["deploy"], MODEL, **told(world))
    world.sequence()
    assert list(ModelExaminer(world.meta, _ledger(world)).examine(MODEL)) == []


def _ledger(world: EvidenceWorld) -> Any:
    from attestry.usecases.ledger_bytes import LedgerBytes

    return LedgerBytes(world.meta, world.store)
