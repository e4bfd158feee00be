"""Lapse: a version leaves service when its approval ends, in order, and says so; it can be approved again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from attestry.domain.approvals import ApprovalPolicy, Verdict
from attestry.domain.conditions import Conditions
from attestry.domain.errors import ApprovalLapsedError, ConflictError, IntegrityError, NotFoundError, UnavailableError
from attestry.domain.replay import compare_version, replay
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.ports import Put, Update, When
from attestry.usecases.conditions import LAPSES, lapse_put, volume_key
from attestry.usecases.decide import Decision
from attestry.usecases.deploy import begin_deployment, roll_back, swap_pointer
from attestry.usecases.lapse import due_lapses, lapse_due
from attestry.usecases.pointer import kept_in, number_in, require_deployed
from attestry.usecases.recorded import check_approvals
from attestry.usecases.records import approval_key, pointer_key, version_key
from tests.approvals import MODEL, ApprovalWorld
from tests.ssh_keys import SshPerson
from tests.versions import AT, ERIN, FRANK, session

HENRY = session("deployer", "henry", person="henry")
MONTH = ApprovalPolicy(False, ("approver",), 1, valid_days=30)
END = AT + timedelta(days=30)
NONE = Conditions()


class Served(ApprovalWorld):
    """Versions that are approved and deployed."""

    def serve(self, number: int = 1, policy: ApprovalPolicy = MONTH, conditions: Conditions = NONE, at: datetime = AT) -> Version:
        self.waiting(number, policy=policy)
        self.decide(ERIN, number=number, conditions=conditions)
        return self.put(number, at)

    def put(self, number: int, at: datetime = AT) -> Version:
        begin_deployment(self.meta, self.attestor, self.head(number), by=HENRY, reason="go", at=at)
        what = {"environment": "production", "capture_rate": "1", "by": HENRY, "reason": "go", "at": at}
        swap_pointer(self.meta, self.attestor, MODEL, number, **what)
        return self.head(number)

    def sweep(self, at: datetime = END) -> Any:
        return lapse_due(self.meta, self.attestor, self.notifier, bool, at=at)

    def pointer(self) -> dict[str, Any]:
        return self.meta.rows[pointer_key(MODEL, "production")]

    def reopen(self, number: int = 1) -> None:
        """What `attestry retry` and the pipeline do."""
        head = self.head(number)
        self.meta.transact([Update(version_key(MODEL, number), {"attempt": head.attempt + 1})])
        self.open(number, f"token-{head.attempt + 1}")


@pytest.fixture
def world() -> Served:
    return Served()


def told(world: Served) -> list[str]:
    return [subject for subject, _ in world.notifier.messages if "the approval of" in subject]


def test_a_version_whose_approval_has_ended_leaves_service_and_people_are_told(world):
    world.serve()
    assert world.sweep(END - timedelta(microseconds=1)).lapsed == ()
    done = world.sweep()
    head = world.head()
    assert (done.lapsed, done.errors) == (("credit-risk@1",), ())
    assert (head.stage, head.status, head.standing, head.approved) == (Stage.APPROVAL, Status.FAILED, Standing.CANDIDATE, False)
    assert "the approval of credit-risk@1 ended at 2026-02-01" in head.error
    with pytest.raises(NotFoundError, match=r"credit-risk@1 was taken out of service at .* by attestry:approval-expiry: the approval of"):
        require_deployed(world.pointer(), MODEL, "production")
    assert told(world)[-1] == "the approval of credit-risk@1 has lapsed"
    assert world.meta.query(LAPSES) == []


def test_the_event_names_what_ended_and_what_was_vacated(world):
    world.serve()
    world.sweep()
    (event,) = [e for e in world.events() if e["kind"] == "approval.lapsed"]
    assert event["data"]["opened"] == world.head().packet["transition"]
    assert event["data"]["until"] == "2026-02-01T03:04:05.000000Z"
    assert event["data"]["vacated"] == ["production"]
    assert event["principal"]["login"] == "attestry:approval-expiry"


def test_people_are_told_the_configured_days_before_and_once(world):
    world.serve(policy=ApprovalPolicy(False, ("approver",), 1, valid_days=30, notice_days=7))
    week = END - timedelta(days=7)
    assert world.sweep(week - timedelta(seconds=1)).told == 0
    assert world.sweep(week).told == 1
    assert world.sweep(week).told == 0
    assert told(world) == ["the approval of credit-risk@1 ends at 2026-02-01T03:04:05.000000Z"]
    assert world.head().standing is Standing.DEPLOYED


def test_the_strictest_date_decides_and_not_the_policys_days_alone(world):
    world.serve(conditions=Conditions(until="2026-01-10"))
    assert world.sweep(datetime.fromisoformat("2026-01-10T00:00:00+00:00")).lapsed == ("credit-risk@1",)


def test_a_number_of_predictions_that_was_made_ends_the_approval(world):
    version = world.serve(policy=ApprovalPolicy(False, ("approver",), 1), conditions=Conditions(max_predictions=50))
    key = volume_key(MODEL, 1, version.opening)
    world.meta.transact(
        [Update(key, {"given": 50, "used": 50}), lapse_put(MODEL, 1, version.opening, "2026-01-03T00:00:00.000000Z", "lapse")]
    )
    assert world.sweep(AT + timedelta(days=1)).lapsed == ("credit-risk@1",)
    assert "has made the 50 predictions that its approval allows" in world.head().error


def test_a_version_that_is_kept_for_rollback_is_kept_no_more(world):
    world.serve(1)
    world.waiting(2, policy=ApprovalPolicy(False, ("approver",), 1))
    world.decide(ERIN, number=2)
    world.put(2)
    assert kept_in(world.pointer()) == 1
    world.sweep()
    assert (number_in(world.pointer()), kept_in(world.pointer())) == (2, None)
    with pytest.raises(NotFoundError):
        roll_back(world.meta, world.attestor, MODEL, environment="production", by=HENRY, reason="back", at=END)


class TestRollback:
    POLICY = ApprovalPolicy(False, ("approver",), 1, valid_days=30, on_lapse="rollback")

    def test_the_version_that_is_kept_takes_the_place_where_the_policy_says_so(self, world):
        world.serve(1, policy=ApprovalPolicy(False, ("approver",), 1))
        world.serve(2, policy=self.POLICY)
        assert world.sweep().lapsed == ("credit-risk@2",)
        assert (number_in(world.pointer()), kept_in(world.pointer())) == (1, None)
        assert world.head(1).standing is Standing.DEPLOYED
        assert world.head(2).standing is Standing.CANDIDATE

    def test_the_place_is_vacant_where_the_version_that_is_kept_has_lapsed_too(self, world):
        world.serve(1, policy=ApprovalPolicy(False, ("approver",), 1, valid_days=30))
        world.serve(2, policy=self.POLICY)
        assert set(world.sweep().lapsed) == {"credit-risk@1", "credit-risk@2"}
        assert (number_in(world.pointer()), kept_in(world.pointer())) == (None, None)


def test_what_was_killed_meanwhile_is_left_alone(world):
    from attestry.usecases.revoke import kill_version

    world.serve()
    kill_version(world.meta, world.attestor, MODEL, 1, reason="it harms", by=ERIN, at=AT)
    done = world.sweep()
    assert (done.lapsed, done.told, done.errors) == ((), 0, ())
    assert world.head().standing is Standing.RETIRED
    assert world.meta.query(LAPSES) == []


def test_an_end_that_was_planted_in_the_table_takes_nothing_out_of_service(world):
    version = world.serve(policy=ApprovalPolicy(False, ("approver",), 1))
    world.meta.transact([lapse_put(MODEL, 1, version.opening, "2026-01-03T00:00:00.000000Z", "lapse")])
    done = world.sweep()
    assert done.lapsed == ()
    assert "an end of its approval is due that the version does not know of" in done.errors[0]
    assert world.head().standing is Standing.DEPLOYED


def test_a_lapse_that_is_cut_off_at_any_call_is_finished_by_the_next_sweep_and_told():
    for kind in ("before", "after"):
        for point in range(1, 40):
            world = Served()
            world.serve(1, policy=ApprovalPolicy(False, ("approver",), 1))
            world.serve(2, policy=TestRollback.POLICY)
            world.sweep(END - timedelta(days=14))
            world.faults.clear()
            getattr(world.faults, f"fail_{kind}")(point)
            try:
                done = world.sweep()
            except UnavailableError:
                done = None
            cut_off = done is None or bool(done.errors)
            world.faults.clear()
            world.sweep()
            assert world.head(2).standing is Standing.CANDIDATE
            assert number_in(world.pointer()) == 1
            assert len([e for e in world.events() if e["kind"] == "approval.lapsed"]) == 1
            assert "the approval of credit-risk@2 has lapsed" in told(world)
            assert world.meta.query(LAPSES) == []
            if not cut_off:
                break
        else:
            raise AssertionError("every try was cut off")


class TestApprovedAgain:
    def lapsed(self, world: Served, **policy: Any) -> Version:
        world.serve(policy=ApprovalPolicy(False, ("approver",), 1, valid_days=30, **policy))
        world.sweep()
        world.reopen()
        return world.head()

    def decide_late(self, world: Served, who: Any = ERIN, **more: Any) -> Decision:
        from attestry.usecases.decide import decide_approval

        at = END + timedelta(days=1)
        return decide_approval(world.meta, world.attestor, world.store, MODEL, 1, Verdict.APPROVE, reason="again", by=who, at=at, **more)

    def test_the_approval_opens_again_with_a_packet_and_decisions_of_its_own(self, world):
        first = world.serve().packet
        world.sweep()
        world.reopen()
        again = world.head()
        assert (again.stage, again.status, again.standing) == (Stage.APPROVAL, Status.RUNNING, Standing.CANDIDATE)
        assert again.packet["sha256"] != first["sha256"]
        decision = self.decide_late(world)
        assert decision.complete
        assert world.meta.get(approval_key(MODEL, 1, "erin"))["evidence"] == first["sha256"]
        assert world.meta.get(approval_key(MODEL, 1, f"erin#{again.packet['transition']:06d}"))["evidence"] == again.packet["sha256"]
        assert dict(decision.version.terms) == {"until": "2026-03-04T03:04:05.000000Z"}

    def test_an_approval_of_the_first_opening_does_not_count_in_the_second(self, world):
        version = self.lapsed(world)
        assert not version.approved
        rows = [world.meta.get(approval_key(MODEL, 1, "erin"))]
        assert rows[0]["decision"] == "approve"
        with pytest.raises(ConflictError):
            swap_pointer(world.meta, world.attestor, MODEL, 1, environment="production", capture_rate="1", by=HENRY, reason="go", at=END)

    def test_the_same_person_signs_again_and_both_signatures_stay(self, world):
        key = SshPerson("erin")
        world.register_key("erin", key)
        packet = world.waiting(policy=MONTH).packet["sha256"]
        world.decide(ERIN, signature=key.sign(packet))
        world.put(1)
        world.sweep()
        world.reopen()
        again = world.head().packet["sha256"]
        assert self.decide_late(world, signature=key.sign(again)).signed_by_person
        kept = [name for name in world.store.versions if "/evidence/signatures/" in name]
        assert len(kept) == 2

    def test_a_second_lapse_is_one_of_the_second_approval(self, world):
        self.lapsed(world)
        self.decide_late(world)
        world.put(1, END + timedelta(days=1))
        assert world.sweep(END + timedelta(days=30)).lapsed == ()
        assert world.sweep(END + timedelta(days=31)).lapsed == ("credit-risk@1",)
        assert len({e["data"]["opened"] for e in world.events() if e["kind"] == "approval.lapsed"}) == 2

    def test_the_ledgers_replay_gives_the_rows_that_are_there(self, world):
        self.lapsed(world)
        self.decide_late(world)
        index = replay(world.events())
        moves = world.meta.query("VERSION#credit-risk#1", prefix="TRANSITION#")
        head = world.meta.rows[version_key(MODEL, 1)]
        assert compare_version(index, "credit-risk@1", head, moves) == []


def test_a_head_that_was_set_back_to_before_the_lapse_is_found_at_the_next_delegation(world):
    before = world.serve()
    rows = [world.meta.get(approval_key(MODEL, 1, "erin"))]
    world.sweep()
    world.meta._apply([Put(version_key(MODEL, 1), before.to_item(), When())])
    with pytest.raises(IntegrityError, match="its approval has lapsed, but its head does not say so"):
        check_approvals(world.meta, world.head(), rows)


def test_nothing_due_costs_one_read(world):
    world.serve()
    world.faults.clear()
    assert due_lapses(world.meta, AT + timedelta(days=2), limit=1) == []
    assert len(world.faults.calls) == 1


def test_frank_cannot_deploy_what_has_ended_even_before_the_sweep_comes(world):
    world.waiting(policy=MONTH)
    world.decide(FRANK)
    with pytest.raises(ApprovalLapsedError):
        begin_deployment(world.meta, world.attestor, world.head(), by=HENRY, reason="go", at=END)
