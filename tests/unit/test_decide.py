"""Approvals: who may decide, what a decision leads to, and that nothing makes it count twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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
from attestry.domain.stages import Stage, Standing, Status
from attestry.ports import Put
from attestry.usecases.decide import approve_by_policy, decide_approval
from attestry.usecases.records import OUTBOX, Move, approval_key, load_version, move_writes
from tests.fakes import Faults, MemoryMetaStore
from tests.versions import AT, DANA, ERIN, FRANK, make_version, session


@pytest.fixture
def meta() -> MemoryMetaStore:
    return MemoryMetaStore()


def waiting(meta: MemoryMetaStore, **kwargs):
    return make_version(meta, stage=Stage.APPROVAL, status=Status.RUNNING, **kwargs)


def decide(meta, who, verdict=Verdict.APPROVE, number=1, reason="reviewed"):
    return decide_approval(meta, "credit-risk", number, verdict, reason=reason, by=who, at=AT)


def test_an_approval_by_another_person_approves_the_version(meta):
    waiting(meta)
    decision = decide(meta, ERIN)
    assert decision.complete
    assert decision.version.standing is Standing.APPROVED
    assert decision.version.approved
    row = meta.get(approval_key("credit-risk", 1, "erin"))
    assert row["version_digest"] == decision.version.version_digest
    assert row["transition"] == decision.version.transition


def test_a_rejection_ends_the_version_with_the_reason(meta):
    waiting(meta)
    decision = decide(meta, ERIN, Verdict.REJECT, reason="recall is too low")
    assert decision.version.standing is Standing.REJECTED
    assert "recall is too low" in decision.version.error
    assert not decision.version.approved


def test_the_submitter_cannot_decide(meta):
    waiting(meta)
    with pytest.raises(SelfApprovalError, match="dana submitted"):
        decide(meta, session("approver", "dana", person="dana"))
    assert load_version(meta, "credit-risk", 1).status is Status.RUNNING


def test_the_submitter_cannot_decide_under_a_second_login_of_the_same_person(meta):
    waiting(meta)
    with pytest.raises(SelfApprovalError):
        decide(meta, session("approver", "dana-admin", person="dana"))


def test_the_table_itself_refuses_an_approval_by_the_submitter(meta):
    """Even code that forgets the rule cannot write it: the condition stands in the transaction."""
    version = waiting(meta)
    move = Move(Stage.APPROVAL, Status.SUCCEEDED, Standing.APPROVED, "version.approved", DANA, "mine", AT)
    writes = move_writes(version, move, {"approved": True}, differs={"submitter_person": "dana"})
    with pytest.raises(ConditionFailedError):
        meta.transact(writes)


def test_a_login_that_maps_to_no_person_cannot_decide(meta):
    waiting(meta)
    with pytest.raises(UnprovenIdentityError, match="maps to no person"):
        decide(meta, session("approver", "stranger"))


def test_nobody_can_decide_while_the_submitter_is_unproven(meta):
    waiting(meta, submitter=session("scientist", "unknown"))
    with pytest.raises(UnprovenIdentityError, match="unproven"):
        decide(meta, ERIN)


def test_a_person_without_the_role_cannot_decide(meta):
    waiting(meta)
    with pytest.raises(ForbiddenError, match="needs a decision in the role approver"):
        decide(meta, session("scientist", "grace", person="grace"))


def test_two_approvals_are_needed_where_the_policy_says_two(meta):
    waiting(meta, policy=ApprovalPolicy(False, ("approver",), 2))
    first = decide(meta, ERIN)
    assert not first.complete
    assert first.version.status is Status.RUNNING
    second = decide(meta, FRANK)
    assert second.complete
    assert second.approvals == ("erin", "frank")


def test_one_person_cannot_fill_two_places_of_a_quorum(meta):
    waiting(meta, policy=ApprovalPolicy(False, ("approver",), 2))
    decide(meta, ERIN)
    again = decide(meta, session("approver", "erin2", person="erin"))
    assert not again.complete
    assert load_version(meta, "credit-risk", 1).status is Status.RUNNING


def test_the_same_decision_again_is_answered_like_the_first_and_writes_nothing(meta):
    waiting(meta)
    first = decide(meta, ERIN)
    events = len(meta.query(OUTBOX))
    again = decide(meta, ERIN)
    assert again.complete
    assert again.version == first.version
    assert len(meta.query(OUTBOX)) == events


def test_a_decision_is_not_changed_into_its_opposite(meta):
    waiting(meta)
    decide(meta, ERIN)
    with pytest.raises(ConflictError, match="already decided"):
        decide(meta, ERIN, Verdict.REJECT)


def test_an_approval_of_one_version_does_not_serve_for_another(meta):
    waiting(meta)
    waiting(meta, number=2)
    decide(meta, ERIN, number=1)
    assert load_version(meta, "credit-risk", 2).status is Status.RUNNING
    assert meta.get(approval_key("credit-risk", 2, "erin")) is None


@pytest.mark.parametrize(
    ("stage", "status"), [(Stage.VALIDATION, Status.SUCCEEDED), (Stage.TRAINING, Status.RUNNING), (Stage.DEPLOYMENT, Status.SUCCEEDED)]
)
def test_a_version_that_does_not_wait_is_not_decided_on(meta, stage, status):
    make_version(meta, stage=stage, status=status)
    with pytest.raises(ConflictError, match="does not wait"):
        decide(meta, ERIN)


def test_of_many_decisions_at_once_exactly_one_ends_the_stage(meta):
    waiting(meta)
    people = [session("approver", f"p{i}", person=f"p{i}") for i in range(16)]

    def one(index: int) -> str:
        verdict = Verdict.APPROVE if index % 2 else Verdict.REJECT
        try:
            return decide(meta, people[index], verdict).version.standing.value
        except AttestryError as error:
            return error.code

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(one, range(16)))
    ended = [
        r for r in meta.query("VERSION#credit-risk#1", prefix="TRANSITION#") if r["to"]["status"] != "RUNNING" and r["kind"] != "test.moved"
    ]
    assert len(ended) == 1
    assert outcomes.count("conflict") == 15
    assert load_version(meta, "credit-risk", 1).standing.value == ended[0]["to"]["standing"]


@pytest.mark.parametrize("kind", ["before", "after"])
def test_a_decision_that_is_cut_off_at_any_call_is_finished_by_a_retry(kind):
    tried = 0
    for point in range(1, 40):
        faults = Faults()
        meta = MemoryMetaStore(faults)
        waiting(meta)
        faults.clear()
        getattr(faults, f"fail_{kind}")(point)
        try:
            decide(meta, ERIN)
        except UnavailableError:
            tried += 1
            faults.clear()
            assert decide(meta, ERIN).version.standing is Standing.APPROVED
        else:
            break
        approvals = meta.query("VERSION#credit-risk#1", prefix="APPROVAL#")
        approved = [e for e in meta.query(OUTBOX) if b"version.approved" in e["event"]]
        assert len(approvals) == len(approved) == 1
    assert tried >= 4


def test_an_automatic_policy_approves_in_the_registrys_name(meta):
    version = waiting(meta, policy=ApprovalPolicy(automatic=True))
    approved = approve_by_policy(meta, version, at=AT)
    assert approved.approved
    row = meta.query("VERSION#credit-risk#1", prefix="APPROVAL#")[0]
    assert row["principal"]["issuer"] == "attestry"


def test_a_policy_that_asks_for_people_is_never_applied_automatically(meta):
    with pytest.raises(ConflictError):
        approve_by_policy(meta, waiting(meta), at=AT)


@given(st.sets(st.sampled_from("abcdefgh")), st.integers(0, 5))
def test_more_approvals_never_unmeet_a_policy(persons, count):
    policy = ApprovalPolicy(False, ("approver",), count)
    if is_met(policy, persons):
        assert is_met(policy, persons | {"z"})
    assert not is_met(policy, set())


@given(st.text().filter(lambda t: not t.strip() or len(t) > 500))
def test_a_reason_of_no_or_too_much_text_is_refused_by_field_and_rule(text):
    with pytest.raises(InvalidInputError) as refused:
        read_reason(text)
    assert refused.value.problems[0].field == "reason"


@given(st.one_of(st.text(), st.integers(), st.none()).filter(lambda v: v not in ("approve", "reject")))
def test_a_verdict_is_one_of_two_words(value):
    with pytest.raises(InvalidInputError):
        read_verdict(value)


def test_two_rows_of_one_decision_cannot_be_written(meta):
    waiting(meta)
    decide(meta, ERIN)
    with pytest.raises(ConditionFailedError):
        meta.transact([Put(approval_key("credit-risk", 1, "erin"), {"decision": "reject"})])
