"""The offline verifier recomputes whether the policy was met: by role, by person, in order."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from attestry.domain.approvals import Verdict
from attestry.domain.conditions import Conditions, Terms
from attestry.evidence.bundle import read_bundle
from attestry.ports import Update
from attestry.usecases import decide as decide_module
from attestry.usecases import delegate as delegate_module
from attestry.usecases import predict as predict_module
from attestry.usecases.decide import decide_approval
from attestry.usecases.gate import open_approval
from attestry.usecases.lapse import lapse_due
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.reconcile_model import ModelExaminer
from attestry.usecases.reconcile_version import VersionExaminer
from attestry.usecases.records import version_key
from attestry.usecases.trace import trace_prediction
from tests.evidence_world import ERIN, GRACE, EvidenceWorld, rewrite
from tests.versions import session

VICTOR = session("validator", "victor", person="victor")
IN_ORDER = {"require": [{"role": "validator", "count": 1}, {"role": "approver", "count": 2}], "in_order": True}


def asking_for(people: dict[str, Any], **approval: Any) -> Any:
    def edit(draft: dict[str, Any]) -> None:
        draft["approval"] = {"people": people, **approval}

    return edit


def waiting(people: dict[str, Any], **approval: Any) -> EvidenceWorld:
    world = EvidenceWorld()
    world.validate(edit=asking_for(people, **approval))
    world.open()
    return world


def verdict_of(world: EvidenceWorld) -> tuple[str, str]:
    world.sequence()
    verification = world.verify(world.version_bundle())
    return verification.verdict, verification.reason


def test_a_quorum_of_roles_in_order_is_proven():
    world = waiting(IN_ORDER)
    for person in (VICTOR, ERIN, GRACE):
        world.approve(person, signed=False)
    world.swap()
    assert verdict_of(world)[0] == "PROVEN"


def test_a_quorum_that_is_not_complete_is_proven_as_not_approved():
    world = waiting(IN_ORDER)
    world.approve(VICTOR, signed=False)
    assert verdict_of(world)[0] == "PROVEN"
    assert not world.head.approved


def test_approvals_out_of_order_break_the_proof_though_the_registry_signed_them(monkeypatch):
    world = waiting(IN_ORDER)
    monkeypatch.setattr(decide_module, "check_in_turn", lambda *_: None)
    for person in (ERIN, GRACE, VICTOR):
        world.approve(person, signed=False)
    verdict, reason = verdict_of(world)
    assert verdict == "BROKEN"
    assert "an approval as approver comes too early" in reason


def test_an_approval_that_the_registry_completed_too_early_breaks_the_proof(monkeypatch):
    world = waiting({"require": [{"role": "validator"}, {"role": "approver"}]})
    monkeypatch.setattr(decide_module, "is_met", lambda *_: True)
    world.approve(ERIN, signed=False)
    verdict, reason = verdict_of(world)
    assert verdict == "BROKEN"
    assert "1 validator" in reason


@pytest.mark.parametrize("policy", [{"roles": ["approver"], "count": 2}, {"roles": ["approver"]}])
def test_a_policy_of_the_form_that_was_there_first_is_proven_as_ever(policy):
    world = waiting(policy)
    for person in (ERIN, GRACE)[: policy.get("count", 1)]:
        world.approve(person, signed=False)
    assert world.head.approval_policy == {"automatic": False, "roles": ["approver"], "count": policy.get("count", 1), "signed": False}
    assert verdict_of(world)[0] == "PROVEN"


class TestConditions:
    def test_a_prediction_within_its_conditions_is_proven_and_the_proof_says_them(self):
        world = conditioned()
        prediction = world.predict()
        world.seal()
        verification = world.verify(world.bundle(prediction, payload=True))
        assert verification.verdict == "PROVEN", verification.reason
        standing = next(s for s in verification.steps if s.name == "standing")
        assert "for 30 predictions, where a is 1.5" in standing.detail
        assert verification.facts["approvals"][0]["conditions"] == {"max_predictions": 30, "segments": {"a": ["1.5"]}}

    def test_terms_that_do_not_follow_from_the_approvals_break_the_proof(self, monkeypatch):
        monkeypatch.setattr(decide_module, "strictest", lambda *_: Terms(max_predictions=10**6, segments={"a": ("1.5",)}))
        world = conditioned()
        verdict, reason = verdict_of(world)
        assert verdict == "BROKEN"
        assert "other conditions than follow from its approvals" in reason

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"part": None}, "allows 30 predictions, the delegation any number"),
            ({"part": 31}, "allows 30 predictions, the delegation 31"),
            ({"segments": {}}, "names another segment"),
        ],
    )
    def test_a_delegation_that_lets_its_key_do_more_than_the_approval_breaks_the_proof(self, monkeypatch, given, told):
        real = delegate_module.issue

        def issue(*args: Any, **kwargs: Any) -> Any:
            changes = {"max_receipts": given["part"]} if "part" in given else {"segments": given["segments"]}
            return real(*args, **{**kwargs, **changes})

        monkeypatch.setattr(delegate_module, "issue", issue)
        world = conditioned()
        prediction = world.predict()
        world.seal()
        verification = world.verify(world.bundle(prediction))
        assert verification.verdict == "BROKEN"
        assert told in verification.reason

    def test_a_delegation_beyond_the_end_of_the_approval_breaks_the_proof(self, monkeypatch):
        monkeypatch.setattr(delegate_module, "_lifetime", lambda *_: 3600)
        world = waiting({"roles": ["approver"]}, valid_days=1)
        world.approve(ERIN, signed=False)
        world.swap()
        world.clock.at += timedelta(hours=23, minutes=30)
        prediction = world.predict()
        world.seal()
        verification = world.verify(world.bundle(prediction))
        assert verification.verdict == "BROKEN"
        assert "the approval ended at" in verification.reason

    def test_a_request_outside_of_the_segment_that_was_answered_all_the_same_breaks_the_proof(self, monkeypatch):
        monkeypatch.setattr(predict_module, "check_segments", lambda *_: None)
        world = conditioned(values=("2.5",))
        prediction = world.predict()
        world.seal()
        verification = world.verify(world.bundle(prediction, payload=True))
        assert verification.verdict == "BROKEN"
        assert "lies outside of what the version was approved for" in verification.reason


def conditioned(values: tuple[str, ...] = ("1.5",)) -> EvidenceWorld:
    world = waiting({"roles": ["approver"]})
    version = world.head
    decide_approval(
        world.meta,
        world.flow.attestors["decide"],
        world.store,
        version.model,
        version.number,
        Verdict.APPROVE,
        reason="within the data that it was trained on",
        by=ERIN,
        at=world.clock.now(),
        conditions=Conditions(max_predictions=30, segments={"a": values}),
    )
    world.swap()
    return world


@pytest.fixture(scope="module")
def lapsed() -> tuple[EvidenceWorld, str, str]:
    world = waiting({"roles": ["approver"]}, valid_days=1)
    world.approve(ERIN)
    world.swap()
    first = world.predict()
    world.clock.at += timedelta(days=1)
    done = lapse_due(world.meta, world.flow.attestors["operate"], world.flow.notifier, bool, at=world.clock.now())
    assert (done.lapsed, done.errors) == (("tumour-diagnosis@1",), ())
    world.seal()
    world.meta.transact([Update(version_key("tumour-diagnosis", 1), {"attempt": 2})])
    flow, version = world.flow, world.head
    ports = (world.meta, flow.attestors["gate"], world.store, flow.pipeline, flow.notifier)
    open_approval(*ports, model=version.model, number=1, token="again", at=world.clock.now())
    world.approve(ERIN)
    world.swap()
    second = world.predict()
    world.seal()
    return world, first, second


class TestLapse:
    """A version that was approved for a day, deployed, lapsed, approved again and deployed again."""

    def test_predictions_of_both_approvals_are_proven_afterwards(self, lapsed):
        world, first, second = lapsed
        for prediction in (first, second):
            verification = world.verify(world.bundle(prediction))
            assert verification.verdict == "PROVEN", verification.reason
        told = next(s.detail for s in verification.steps if s.name == "approvals")
        assert "that approval lapsed: the approval of tumour-diagnosis@1 ended at" in told

    def test_every_decision_of_both_openings_is_told(self, lapsed):
        world, _, second = lapsed
        facts = world.verify(world.bundle(second)).facts["approvals"]
        assert [(f["person"], f["grade"]) for f in facts] == [("erin", "signed by person")] * 2

    def test_without_the_packet_of_the_first_opening_nothing_is_proven(self, lapsed):
        world, first, _ = lapsed
        bundle = world.bundle(first)
        (name,) = [n for n in read_bundle(bundle).files if n.startswith("version/packets/")]
        verification = world.verify(rewrite(bundle, {name: None}))
        assert verification.verdict != "PROVEN"
        assert f"{name} is not in the bundle" in str([s.detail for s in verification.steps])

    def test_a_signature_of_the_first_opening_does_not_pass_for_one_of_the_second(self, lapsed):
        world, _, second = lapsed
        bundle = world.bundle(second)
        files = read_bundle(bundle).files
        (again,) = [n for n in files if n.startswith("signatures/erin#")]
        assert world.verify(rewrite(bundle, {again: files["signatures/erin.sig"]})).verdict == "BROKEN"

    def test_reconciliation_finds_nothing_amiss(self, lapsed):
        world, *_ = lapsed
        ledger = LedgerBytes(world.meta, world.store)
        observed = VersionExaminer(world.meta, world.store, ledger).examine("tumour-diagnosis", 1)
        assert observed == []
        assert ModelExaminer(world.meta, ledger).examine("tumour-diagnosis") == []

    def test_a_decision_of_the_second_opening_that_was_deleted_is_found(self, lapsed):
        world, *_ = lapsed
        (key,) = [k for k in world.meta.rows if k.sort.startswith("APPROVAL#erin#")]
        row = world.meta.rows.pop(key)
        observed = VersionExaminer(world.meta, world.store, LedgerBytes(world.meta, world.store)).examine("tumour-diagnosis", 1)
        world.meta.rows[key] = row
        assert [o.what for o in observed] == ["decision.deleted"]

    def test_the_trace_of_a_prediction_names_the_approval_that_was_in_force(self, lapsed):
        world, first, second = lapsed
        for prediction in (first, second):
            document = trace_prediction(world.meta, world.store, prediction, delegator_key=world.delegator.public_key_der)
            assert document["verdict"] == "SIGNED-UNANCHORED", document["steps"]


def test_while_the_place_is_vacant_the_model_is_found_as_the_registry_left_it():
    world = waiting({"roles": ["approver"]}, valid_days=1)
    world.approve(ERIN)
    world.swap()
    world.clock.at += timedelta(days=1)
    lapse_due(world.meta, world.flow.attestors["operate"], world.flow.notifier, bool, at=world.clock.now())
    world.sequence()
    ledger = LedgerBytes(world.meta, world.store)
    assert ModelExaminer(world.meta, ledger).examine("tumour-diagnosis") == []
    assert VersionExaminer(world.meta, world.store, ledger).examine("tumour-diagnosis", 1) == []
    assert verdict_of(world)[0] == "PROVEN"


def test_a_lapse_by_a_function_that_may_not_make_it_breaks_the_proof():
    world = waiting({"roles": ["approver"]}, valid_days=1)
    world.approve(ERIN)
    world.swap()
    world.clock.at += timedelta(days=1)
    lapse_due(world.meta, world.flow.attestors["decide"], world.flow.notifier, bool, at=world.clock.now())
    verdict, reason = verdict_of(world)
    assert verdict == "BROKEN"
    assert "decide may not sign approval.lapsed" in reason
