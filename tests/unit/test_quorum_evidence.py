"""The offline verifier recomputes whether the policy was met: by role, by person, in order."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from attestry.domain.approvals import Verdict
from attestry.domain.conditions import Conditions, Terms
from attestry.usecases import decide as decide_module
from attestry.usecases import delegate as delegate_module
from attestry.usecases import predict as predict_module
from attestry.usecases.decide import decide_approval
from tests.evidence_world import ERIN, GRACE, EvidenceWorld
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
