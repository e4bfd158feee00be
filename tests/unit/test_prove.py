"""A deep trace is proven with the ledger: PROVEN exactly when trace and proof both hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from attestry.ports import Update
from attestry.usecases.prove import add_proof, prove_prediction
from attestry.usecases.records import version_key
from attestry.usecases.trace import trace_prediction
from tests.evidence_world import EvidenceWorld
from tests.fakes import LocalSigner

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "manifests" / "trace.schema.json").read_text())


@pytest.fixture
def world() -> EvidenceWorld:
    world = EvidenceWorld()
    world.deploy()
    return world


def traced(world: EvidenceWorld, prediction: str) -> dict[str, Any]:
    trace = trace_prediction(world.meta, world.store, prediction, delegator_key=world.delegator.public_key_der, deep=True)
    return add_proof(trace, prove_prediction(world.meta, world.store, prediction, world.clock.now()))


def test_a_prediction_is_proven_once_it_is_sealed_and_sequenced(world: EvidenceWorld) -> None:
    prediction = world.predict()
    before = traced(world, prediction)
    assert before["verdict"] != "PROVEN"
    world.seal()
    after = traced(world, prediction)
    assert after["verdict"] == "PROVEN", after["proof"]
    assert after["proof"]["witnesses"]["self_witnessed"] is True
    assert [e.message for e in Draft202012Validator(SCHEMA).iter_errors(after)] == []
    assert [e.message for e in Draft202012Validator(SCHEMA).iter_errors(before)] == []


def test_what_the_trace_finds_is_not_lifted_by_a_proof_that_holds(world: EvidenceWorld) -> None:
    prediction = world.predict()
    world.seal()
    head = world.head
    world.meta.transact([Update(version_key(head.model, head.number), {"standing": "RETIRED"})])
    after = traced(world, prediction)
    assert after["proof"]["verdict"] == "PROVEN"
    assert after["verdict"] == "BROKEN"


def test_what_the_proof_finds_is_not_hidden_by_a_trace_that_holds(world: EvidenceWorld) -> None:
    prediction = world.predict()
    world.seal()
    key = next(k for k in world.store.versions if k.endswith("/evidence/model.sig"))
    world.store.put(key, b"{}")
    after = traced(world, prediction)
    assert after["proof"]["verdict"] == after["verdict"] == "BROKEN"
    assert any(s["step"] == "artifact" and s["outcome"] == "failed" for s in after["proof"]["steps"])


def test_after_a_rotation_the_former_delegator_is_looked_up_and_nobody_elses_key(world: EvidenceWorld) -> None:
    prediction = world.predict()
    former, today = world.delegator, LocalSigner("arn:aws:kms:eu-central-1:123456789012:key/delegate-2")

    def delegation_step(**keys: Any) -> str:
        trace = trace_prediction(world.meta, world.store, prediction, delegator_key=today.public_key_der, **keys)
        return str(next(s["outcome"] for s in trace["steps"] if s["step"] == "delegation"))

    def published(name: str, at: str) -> bytes:
        return world.trusted_root.delegator(name, at).der

    assert world.trusted_root.delegator(former.key_id, "2026-06-01T00:00:00.000000Z").der == former.public_key_der()
    assert delegation_step() == "failed"
    assert delegation_step(former_key=published) == "passed"
    assert delegation_step(former_key=lambda _name, _at: today.public_key_der()) == "failed"


def test_the_trace_of_a_fresh_version_says_that_it_is_not_yet_in_the_ledger(world: EvidenceWorld) -> None:
    traced_now = traced(world, world.predict())
    assert traced_now["verdict"] == "SIGNED-UNANCHORED"
    assert "checkpoint: not yet in the ledger" in traced_now["proof"]["reason"]
    assert [e.message for e in Draft202012Validator(SCHEMA).iter_errors(traced_now)] == []
