"""Conflicts of interest: declared, by authorship, by having approved before; who has one decides nothing, whatever code forgets it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from attestry.domain.approvals import ApprovalPolicy, Verdict
from attestry.domain.conflicts import ConflictOfInterestError, is_author
from attestry.domain.errors import ConflictError, ForbiddenError, NotFoundError, UnprovenIdentityError
from attestry.usecases import decide as decide_module
from attestry.usecases.conflicts import conflicts_of, declare_conflict
from attestry.usecases.packet import load_packet
from attestry.usecases.people import add_person
from tests.approvals import ADMIN, MODEL, ApprovalWorld
from tests.evidence_world import EvidenceWorld
from tests.unit.manifest_samples import COMPLETE
from tests.unit.test_quorum_evidence import asking_for, verdict_of, waiting
from tests.versions import AT, ERIN, FRANK, session

GRACE = session("approver", "grace", person="grace")
OTHER_ADMIN = session("admin", "olga", person="olga")


@pytest.fixture
def world() -> ApprovalWorld:
    made = ApprovalWorld()
    for person in ("alex", "erin", "frank", "grace"):
        add_person(made.meta, person, [person], name="", by=ADMIN, at=AT)
    return made


def declare(world: ApprovalWorld, by: Any = ERIN, **more: Any) -> Any:
    return declare_conflict(world.meta, MODEL, **{"person": "", "reason": "my sister sells it", "by": by, "at": AT, **more})


def test_who_has_declared_a_conflict_neither_approves_nor_rejects(world):
    world.judged()
    declare(world)
    world.open()
    for verdict in Verdict:
        with pytest.raises(ConflictOfInterestError, match=r"erin has a conflict of interest .* my sister sells it"):
            world.decide(ERIN, verdict)
    assert world.decide(FRANK).complete


def test_what_is_declared_when_the_approval_opens_stands_in_the_packet(world):
    world.judged()
    declare(world)
    world.open()
    (listed,) = world.packet().content["conflicts"]
    assert (listed["person"], listed["rule"]) == ("erin", "declared")


def test_a_conflict_that_is_declared_after_the_opening_counts_as_well(world):
    world.waiting()
    assert "conflicts" not in world.packet().content
    declare(world)
    with pytest.raises(ConflictOfInterestError):
        world.decide(ERIN)


def test_an_approval_cannot_be_completed_with_one_of_somebody_who_has_a_conflict_by_now(world):
    world.waiting(policy=ApprovalPolicy(False, ("approver",), 2))
    world.decide(ERIN)
    declare(world)
    with pytest.raises(ConflictOfInterestError, match="erin has a conflict"):
        world.decide(FRANK)
    assert not world.head().approved


def test_the_table_refuses_a_decision_past_a_declaration_that_code_forgot(world, monkeypatch):
    world.waiting()
    declare(world)
    monkeypatch.setattr(decide_module, "check_no_conflict", lambda *_: None)
    with pytest.raises(ConflictError, match="being changed by others"):
        world.decide(ERIN)
    assert not world.head().approved


def test_the_same_declaration_again_writes_nothing(world):
    world.judged()
    first, events = declare(world), len(world.events())
    assert declare(world, reason="another") == first
    assert len(world.events()) == events


def test_an_admin_declares_for_others_and_withdraws_and_each_is_an_event(world):
    world.judged()
    declare(world, ADMIN, person="erin")
    assert not declare(world, ADMIN, person="erin", withdraw=True, reason="she sold it").active
    declare(world, ADMIN, person="erin")
    told = [(e["kind"], e["sequence"]) for e in world.events() if e["subject"] == f"conflict/{MODEL}/erin"]
    assert sorted(told, key=lambda t: t[1]) == [("conflict.declared", 1), ("conflict.withdrawn", 2), ("conflict.declared", 3)]
    declare(world, ADMIN, person="erin", withdraw=True)
    world.open()
    assert world.decide(ERIN).complete


@pytest.mark.parametrize("more", [{"person": "frank"}, {"withdraw": True}, {"person": "frank", "withdraw": True}])
def test_who_is_no_admin_speaks_for_themselves_and_takes_nothing_back(world, more):
    world.judged()
    declare(world, FRANK)
    with pytest.raises(ForbiddenError):
        declare(world, ERIN, **more)
    assert [d.active for d in conflicts_of(world.meta, MODEL)] == [True]


def test_an_admin_does_not_withdraw_their_own(world):
    world.judged()
    declare(world, ADMIN)
    with pytest.raises(ForbiddenError, match="another admin"):
        declare(world, ADMIN, withdraw=True)
    assert not declare(world, OTHER_ADMIN, person="alex", withdraw=True).active


def test_a_conflict_needs_a_person_a_model_and_somebody_who_maps_to_a_person(world):
    world.judged()
    with pytest.raises(UnprovenIdentityError):
        declare(world, session("approver", "stranger"))
    with pytest.raises(NotFoundError, match="no person nobody"):
        declare(world, ADMIN, person="nobody")
    with pytest.raises(NotFoundError, match="no model"):
        declare_conflict(world.meta, "other", person="", reason="why", by=ERIN, at=AT)
    with pytest.raises(NotFoundError, match="erin has declared no conflict"):
        declare(world, ADMIN, person="erin", withdraw=True)


@pytest.mark.parametrize("author", ["Erin <x@example.com>", "E. <erin@example.com>", "erin", "ERIN", "erin@example.com", "Someone <Erin>"])
def test_an_author_is_known_by_name_address_or_the_beginning_of_the_address(author):
    assert is_author(author, ("erin",))


@pytest.mark.parametrize("author", ["Erina <erina@example.com>", "", "<>", "Frank <frank@example.com>"])
def test_an_author_of_another_name_is_another(author):
    assert not is_author(author, ("erin", ""))


def test_who_wrote_the_code_does_not_decide_where_the_policy_asks_for_independence(world):
    manifest = copy.deepcopy(COMPLETE)
    manifest["source"]["author"] = "Erin Example <e.example@example.com>"
    add_person(world.meta, "erin", ["erin"], name="Erin Example", by=ADMIN, at=AT)
    add_person(world.meta, "grace", ["e.example@example.com"], name="", by=ADMIN, at=AT)
    world.waiting(1, policy=ApprovalPolicy(False, ("approver",), 1, independent=True), manifest=manifest)
    with pytest.raises(ConflictOfInterestError, match="grace wrote the code"):
        world.decide(GRACE)
    assert world.decide(FRANK).complete
    world.waiting(2, policy=ApprovalPolicy(False, ("approver",), 1), manifest=manifest)
    assert world.decide(GRACE, number=2).complete


def test_who_approved_the_version_before_does_not_approve_the_next_where_the_policy_asks_for_fresh_eyes(world):
    world.waiting(1)
    world.decide(ERIN, number=1)
    world.waiting(2, policy=ApprovalPolicy(False, ("approver",), 1, fresh_eyes=True))
    with pytest.raises(ConflictOfInterestError, match="approved credit-risk@1 before"):
        world.decide(ERIN, number=2)
    assert world.decide(FRANK, number=2).complete
    world.waiting(3, policy=ApprovalPolicy(False, ("approver",), 1, fresh_eyes=True))
    assert world.decide(ERIN, number=3).complete


class TestEvidence:
    def opened(self) -> EvidenceWorld:
        world = EvidenceWorld()
        world.validate(edit=asking_for({"roles": ["approver"]}))
        declare_conflict(world.meta, world.head.model, person="", reason="mine", by=ERIN, at=world.clock.now())
        world.open()
        return world

    def test_a_decision_by_somebody_whom_the_packet_lists_breaks_the_proof(self, monkeypatch):
        world = self.opened()
        monkeypatch.setattr(decide_module, "check_interest", lambda *_: ())
        world.approve(ERIN)
        verdict, reason = verdict_of(world)
        assert verdict == "BROKEN"
        assert "erin has a conflict of interest" in reason

    def test_a_decision_by_somebody_else_is_proven(self):
        world = self.opened()
        world.approve(GRACE, signed=False)
        assert verdict_of(world)[0] == "PROVEN"

    def test_a_decision_by_who_wrote_the_code_breaks_the_proof_of_an_independent_policy(self, monkeypatch):
        world = waiting({"roles": ["approver"], "independent": True})
        assert world.head.approval_policy["independent"]
        monkeypatch.setattr(decide_module, "check_interest", lambda *_: ())
        writer = _author_of(world)
        world.approve(session("approver", writer, person=writer), signed=False)
        verdict, reason = verdict_of(world)
        assert verdict == "BROKEN"
        assert f"{writer} wrote the code" in reason


def _author_of(world: EvidenceWorld) -> str:
    author = str(load_packet(world.store, world.head).content["lineage"]["code"]["author"])
    return author.partition("<")[2].rstrip(">").partition("@")[0] or author.casefold()
