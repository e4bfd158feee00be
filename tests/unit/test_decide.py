"""Approvals: who may decide, what a decision leads to, and that nothing makes it count twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.approvals import ApprovalPolicy, Verdict, is_met, read_reason, read_verdict
from attestry.domain.errors import (
    AttestryError,
    ConditionFailedError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    SelfApprovalError,
    UnavailableError,
    UnprovenIdentityError,
)
from attestry.domain.requirements import ApprovalOrderError, Requirement
from attestry.domain.stages import Stage, Standing, Status
from attestry.ports import Put, Update
from attestry.usecases import decide as decide_module
from attestry.usecases.decide import approve_by_policy
from attestry.usecases.operate import claim_submission
from attestry.usecases.records import OUTBOX, Move, approval_key, move_writes
from tests.approvals import MODEL, ApprovalWorld
from tests.ssh_keys import SshPerson
from tests.versions import AT, ATTESTOR, DANA, ERIN, FRANK, make_version, session

ERINS_KEY = SshPerson("erin")


@pytest.fixture
def world() -> ApprovalWorld:
    return ApprovalWorld()


def test_an_approval_by_another_person_approves_the_version(world):
    world.waiting()
    decision = world.decide(ERIN)
    assert decision.complete
    assert decision.version.standing is Standing.APPROVED
    assert decision.version.approved
    row = world.meta.get(approval_key("credit-risk", 1, "erin"))
    assert row["version_digest"] == decision.version.version_digest
    assert row["transition"] == decision.version.transition
    assert row["evidence"] == decision.version.packet["sha256"]
    assert row["opened"] == decision.version.packet["transition"] == decision.version.transition - 1


def test_a_rejection_ends_the_version_with_the_reason(world):
    world.waiting()
    decision = world.decide(ERIN, Verdict.REJECT, reason="recall is too low")
    assert decision.version.standing is Standing.REJECTED
    assert "recall is too low" in decision.version.error
    assert not decision.version.approved


def test_the_submitter_cannot_decide(world):
    world.waiting()
    with pytest.raises(SelfApprovalError, match="dana submitted"):
        world.decide(session("approver", "dana", person="dana"))
    assert world.head().status is Status.RUNNING


def test_the_submitter_cannot_decide_under_a_second_login_of_the_same_person(world):
    world.waiting()
    with pytest.raises(SelfApprovalError):
        world.decide(session("approver", "dana-admin", person="dana"))


def test_the_table_itself_refuses_an_approval_by_the_submitter(world):
    """Even code that forgets the rule cannot write it: the condition stands in the transaction."""
    version = world.waiting()
    move = Move(Stage.APPROVAL, Status.SUCCEEDED, Standing.APPROVED, "version.approved", DANA, "mine", AT)
    writes = move_writes(version, move, ATTESTOR, {"approved": True}, differs={"submitter_person": "dana"})
    with pytest.raises(ConditionFailedError):
        world.meta.transact(writes)


def test_a_login_that_maps_to_no_person_cannot_decide(world):
    world.waiting()
    with pytest.raises(UnprovenIdentityError, match="maps to no person"):
        world.decide(session("approver", "stranger"))


def test_nobody_can_decide_while_the_submitter_is_unproven(world):
    world.waiting(submitter=session("scientist", "unknown"))
    with pytest.raises(UnprovenIdentityError, match="unproven"):
        world.decide(ERIN)


def test_a_person_without_the_role_cannot_decide(world):
    world.waiting()
    with pytest.raises(ForbiddenError, match="in the role approver; grace acts as scientist: use an AWS profile"):
        world.decide(session("scientist", "grace", person="grace"))


def test_two_approvals_are_needed_where_the_policy_says_two(world):
    world.waiting(policy=ApprovalPolicy(False, ("approver",), 2))
    first = world.decide(ERIN)
    assert not first.complete
    assert first.version.status is Status.RUNNING
    second = world.decide(FRANK)
    assert second.complete
    assert second.approvals == ("erin", "frank")


def test_one_person_cannot_fill_two_places_of_a_quorum(world):
    world.waiting(policy=ApprovalPolicy(False, ("approver",), 2))
    world.decide(ERIN)
    again = world.decide(session("approver", "erin2", person="erin"))
    assert not again.complete
    assert world.head().status is Status.RUNNING


def test_the_same_decision_again_is_answered_like_the_first_and_writes_nothing(world):
    world.waiting()
    first = world.decide(ERIN)
    events = len(world.meta.query(OUTBOX))
    again = world.decide(ERIN)
    assert again.complete
    assert again.version == first.version
    assert len(world.meta.query(OUTBOX)) == events


def test_a_decision_is_not_changed_into_its_opposite(world):
    world.waiting()
    world.decide(ERIN)
    with pytest.raises(ConflictError, match="already decided"):
        world.decide(ERIN, Verdict.REJECT)


def test_an_approval_of_one_version_does_not_serve_for_another(world):
    world.waiting()
    world.waiting(number=2)
    world.decide(ERIN, number=1)
    assert world.head(2).status is Status.RUNNING
    assert world.meta.get(approval_key("credit-risk", 2, "erin")) is None


@pytest.mark.parametrize(
    ("stage", "status"), [(Stage.VALIDATION, Status.SUCCEEDED), (Stage.TRAINING, Status.RUNNING), (Stage.DEPLOYMENT, Status.SUCCEEDED)]
)
def test_a_version_that_does_not_wait_is_not_decided_on(world, stage, status):
    make_version(world.meta, stage=stage, status=status)
    with pytest.raises(ConflictError, match="does not wait"):
        world.decide(ERIN)


def test_of_many_decisions_at_once_exactly_one_ends_the_stage(world):
    world.waiting()
    people = [session("approver", f"p{i}", person=f"p{i}") for i in range(16)]

    def one(index: int) -> str:
        verdict = Verdict.APPROVE if index % 2 else Verdict.REJECT
        try:
            return world.decide(people[index], verdict).version.standing.value
        except AttestryError as error:
            return error.code

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(one, range(16)))
    ended = [
        r
        for r in world.meta.query("VERSION#credit-risk#1", prefix="TRANSITION#")
        if r["to"]["status"] != "RUNNING" and r["kind"] != "test.moved"
    ]
    assert len(ended) == 1
    assert outcomes.count("conflict") == 15
    assert world.head().standing.value == ended[0]["to"]["standing"]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", ["before", "after"])
def test_a_decision_that_is_cut_off_at_any_call_is_finished_by_a_retry(kind, signed):
    tried = 0
    for point in range(1, 60):
        world = ApprovalWorld()
        world.register_key("erin", ERINS_KEY)
        packet = world.waiting().packet["sha256"]
        more = {"packet_sha256": packet, **({"signature": ERINS_KEY.sign(packet)} if signed else {})}
        world.faults.clear()
        getattr(world.faults, f"fail_{kind}")(point)
        try:
            world.decide(ERIN, **more)
        except UnavailableError:
            tried += 1
            world.faults.clear()
            assert world.decide(ERIN, **more).version.standing is Standing.APPROVED
        else:
            break
        approvals = world.meta.query("VERSION#credit-risk#1", prefix="APPROVAL#")
        approved = [e for e in world.meta.query(OUTBOX) if b"version.approved" in e["event"]]
        assert len(approvals) == len(approved) == 1
        assert approvals[0]["signed_by_person"] is signed
        assert all(len(v) == 1 for v in world.store.versions.values())
        assert world.statement(world.head().transition).predicate["content"]["signed_by_person"] is signed
    assert tried >= (9 if signed else 7)


def test_an_automatic_policy_approves_in_the_registrys_name_and_on_the_packet(world):
    version = world.waiting(policy=ApprovalPolicy(automatic=True))
    assert version.approved
    row = world.meta.query("VERSION#credit-risk#1", prefix="APPROVAL#")[0]
    assert row["principal"]["issuer"] == "attestry"
    assert (row["evidence"], row["signed_by_person"]) == (version.packet["sha256"], False)


def test_an_automatic_approval_that_was_made_meanwhile_is_not_made_twice(world):
    version = world.waiting(policy=ApprovalPolicy(automatic=True), submitter=session("scientist", "by-hand"))
    stale = replace(version, submitter_person="dana")
    first = approve_by_policy(world.meta, world.attestor, world.store, stale, at=AT)
    assert approve_by_policy(world.meta, world.attestor, world.store, stale, at=AT) == first


def test_nobody_decides_where_the_policy_decides_by_itself(world):
    world.waiting(policy=ApprovalPolicy(automatic=True), submitter=session("scientist", "by-hand"))
    claim_submission(world.meta, world.attestor, MODEL, 1, by=session("scientist", "by-hand", person="dana"), at=AT)
    with pytest.raises(ConflictError, match="approves by itself"):
        world.decide(ERIN, Verdict.REJECT)


def test_a_policy_that_asks_for_people_is_never_applied_automatically(world):
    with pytest.raises(ConflictError):
        approve_by_policy(world.meta, world.attestor, world.store, world.waiting(), at=AT)


@given(st.sets(st.sampled_from("abcdefgh")), st.integers(0, 5))
def test_more_approvals_never_unmeet_a_policy(persons, count):
    policy = ApprovalPolicy(False, ("approver",), count)
    roles = dict.fromkeys(persons, ("approver",))
    if is_met(policy, roles):
        assert is_met(policy, {**roles, "z": ("approver",)})
    assert not is_met(policy, {})


@given(st.text().filter(lambda t: not t.strip() or len(t) > 500))
def test_a_reason_of_no_or_too_much_text_is_refused_by_field_and_rule(text):
    with pytest.raises(InvalidInputError) as refused:
        read_reason(text)
    assert refused.value.problems[0].field == "reason"


@pytest.mark.parametrize("text", ["a\x00b", "a\x1b[31mb", "a\ud800", "total \u202eevorppa", "\u2066x"])
def test_a_reason_that_cannot_be_shown_as_it_is_is_refused(text):
    with pytest.raises(InvalidInputError) as refused:
        read_reason(text)
    assert refused.value.problems[0].rule == "printable"


@pytest.mark.parametrize("text", ["\N{HIRAGANA LETTER A}" * 500, "\N{PILE OF POO}" * 375, '"' * 500, "line\n" * 100])
def test_the_longest_reasons_fit_into_the_event_of_a_signed_decision(world, text):
    person = "p" * 63
    world.register_key(person, ERINS_KEY)
    packet = world.waiting(model=MODEL).packet["sha256"]
    by = session("approver", "n" * 64, person=person)
    assert world.decide(by, reason=read_reason(text), signature=ERINS_KEY.sign(packet)).complete


def test_a_reason_of_too_many_bytes_is_refused():
    with pytest.raises(InvalidInputError, match="1500 bytes"):
        read_reason("\N{PILE OF POO}" * 376)


@given(st.one_of(st.text(), st.integers(), st.none()).filter(lambda v: v not in ("approve", "reject")))
def test_a_verdict_is_one_of_two_words(value):
    with pytest.raises(InvalidInputError):
        read_verdict(value)


def test_two_rows_of_one_decision_cannot_be_written(world):
    world.waiting()
    world.decide(ERIN)
    with pytest.raises(ConditionFailedError):
        world.meta.transact([Put(approval_key("credit-risk", 1, "erin"), {"decision": "reject"})])


@pytest.mark.parametrize(
    "changed", [{"evidence": "ab" * 32}, {"policy_digest": "ab" * 32}, {"version_digest": "ab" * 32}, {"decision": "reject"}]
)
def test_an_approval_of_something_else_fills_no_place_of_a_quorum(world, changed):
    world.waiting(policy=ApprovalPolicy(False, ("approver",), 2))
    world.decide(ERIN)
    world.meta.transact([Update(approval_key(MODEL, 1, "erin"), changed)])
    assert not world.decide(FRANK).complete
    assert not world.head().approved


VALIDATOR_FIRST = ApprovalPolicy(
    False, ("validator", "approver"), 3, require=(Requirement(("validator",), 1), Requirement(("approver",), 2)), in_order=True
)
VICTOR = session("validator", "victor", person="victor")


def test_a_validator_and_two_approvers_approve_where_the_policy_asks_for_them_in_this_order(world):
    world.waiting(policy=VALIDATOR_FIRST)
    with pytest.raises(ApprovalOrderError, match=r"credit-risk@1: an approval as approver comes too early: .* 1 validator first"):
        world.decide(ERIN)
    assert world.meta.get(approval_key(MODEL, 1, "erin")) is None
    assert not world.decide(VICTOR).complete
    assert not world.decide(ERIN).complete
    last = world.decide(FRANK)
    assert last.complete
    assert (last.approvals, last.needed) == (("erin", "frank", "victor"), 3)


def test_one_person_who_has_two_roles_fills_one_place(world):
    world.waiting(policy=VALIDATOR_FIRST)
    world.decide(session("validator", "erin", person="erin"))
    again = world.decide(ERIN)
    assert not again.complete
    assert again.approvals == ("erin",)
    assert not world.decide(FRANK).complete


def test_anyone_of_the_policys_roles_may_reject_before_it_is_their_turn(world):
    world.waiting(policy=VALIDATOR_FIRST)
    assert world.decide(ERIN, Verdict.REJECT, reason="the data are wrong").version.standing is Standing.REJECTED


def test_the_table_refuses_a_last_approval_whose_quorum_was_made_up(world, monkeypatch):
    """Code that counts approvals that are not there cannot write past the rows."""
    version = world.waiting(policy=ApprovalPolicy(False, ("approver",), 2))
    world.decide(ERIN)
    there = decide_module.counted_approvals(world.meta, version)
    made_up = [{**there[0], "person": "gus", "sk": "APPROVAL#gus"}]
    monkeypatch.setattr(decide_module, "counted_approvals", lambda *_: made_up)
    with pytest.raises(ConflictError, match="being changed by others"):
        world.decide(FRANK)
    assert world.head().standing is Standing.CANDIDATE


def test_a_policy_of_the_form_that_was_there_first_is_stored_as_ever_and_keeps_its_digest():
    policy = ApprovalPolicy(False, ("approver",), 2)
    assert policy.to_item() == {"automatic": False, "roles": ["approver"], "count": 2, "signed": False}
    assert policy.digest == "1a4906570ead418817814f0d0ac6a944b6ef2f0d2ccadb851fb4a6296571724d"
    assert ApprovalPolicy.from_item({"automatic": False, "roles": ["approver"], "count": 2}).digest == policy.digest


@given(
    st.builds(
        ApprovalPolicy,
        st.just(False),
        st.just(("approver",)),
        st.integers(1, 3),
        st.booleans(),
        st.sampled_from([(), VALIDATOR_FIRST.require]),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.integers(0, 400),
        st.sampled_from(["", "2027-01-31"]),
        st.sampled_from(["vacate", "rollback"]),
        st.integers(0, 30),
    )
)
def test_every_policy_is_read_as_it_was_stored(policy):
    assert ApprovalPolicy.from_item(policy.to_item()) == policy
