"""The offline verifier recomputes whether the policy was met: by role, by person, in order."""

from __future__ import annotations

from typing import Any

import pytest

from attestry.usecases import decide as decide_module
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
