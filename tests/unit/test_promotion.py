"""Promotions that people approve: who asks, who decides, what is placed and delegated to, and what no attack comes past."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from attestry.domain.approvals import Verdict
from attestry.domain.conflicts import ConflictOfInterestError
from attestry.domain.errors import (
    ApprovalLapsedError,
    AttestryError,
    ConflictError,
    ForbiddenError,
    HeldError,
    IntegrityError,
    SelfApprovalError,
    UnprovenIdentityError,
    UnsignedApprovalError,
)
from attestry.domain.principal import Principal
from attestry.domain.replay import compare_approvals, compare_version, replay
from attestry.domain.requirements import ApprovalOrderError
from attestry.domain.stages import Standing
from attestry.evidence.canonical import parse_canonical
from attestry.evidence.promotion_packet import PromotionPacket
from attestry.ports import Put, Update
from attestry.usecases.browse import show_version
from attestry.usecases.conditions import LAPSES
from attestry.usecases.conflicts import declare_conflict
from attestry.usecases.lapse import lapse_due
from attestry.usecases.packet import show_promotion_packet
from attestry.usecases.promotion_notice import tell_again
from attestry.usecases.promotion_rows import promotion_key
from attestry.usecases.records import OUTBOX, load_version, pointer_key, version_key
from tests.evidence_world import ERIN, GRACE
from tests.fakes import Killed, MemoryNotifier
from tests.promotions import IVAN, TWO, VERA, PromotionWorld
from tests.ssh_keys import SshPerson
from tests.versions import session

MODEL = "tumour-diagnosis"


@pytest.fixture
def world() -> PromotionWorld:
    return PromotionWorld().staged()


def standing_in(world: PromotionWorld, environment: str) -> int | None:
    row = world.meta.get(pointer_key(MODEL, environment)) or {}
    return row.get("number")


def rows_of(world: PromotionWorld) -> list[dict[str, Any]]:
    return world.meta.query(version_key(MODEL, 1).partition, prefix="PROMOTION#")


def events(world: PromotionWorld) -> list[dict[str, Any]]:
    return [parse_canonical(row["event"]) for row in world.meta.query(OUTBOX)]


def assert_ledger_agrees(world: PromotionWorld) -> None:
    index = replay(sorted(events(world), key=lambda e: (e["at"], int(e["sequence"]))))
    shown = show_version(world.meta, world.store, MODEL, 1)
    assert compare_version(index, f"{MODEL}@1", shown, shown["transitions"]) == []
    assert compare_approvals(index, f"{MODEL}@1", [*shown["approvals"], *shown.get("promotion_decisions", [])]) == []


def test_a_deployer_asks_two_approvers_decide_and_the_deployer_puts_it_in_place(world: PromotionWorld) -> None:
    asked = world.ask()
    assert (asked.promotions["production"]["state"], asked.standing, asked.deployment_environment) == ("OPEN", Standing.DEPLOYED, "staging")
    first, second = world.decide(ERIN), world.decide(GRACE)
    assert (first.complete, first.missing, second.complete) == (False, "1 approver", True)
    assert (standing_in(world, "staging"), standing_in(world, "production")) == (1, None)
    world.place()
    assert (standing_in(world, "staging"), standing_in(world, "production")) == (None, 1)
    assert world.delegate().grant.environment == "production"
    placed = [e for e in events(world) if e["kind"] == "version.deployed"][-1]
    assert placed["data"]["promotion"] == {"opened": asked.transition, "approved_by": ["erin", "grace"]}
    assert_ledger_agrees(world)


def test_what_is_decided_on_says_what_the_version_did_where_it_stands(world: PromotionWorld) -> None:
    for _ in range(3):
        world.predict_in("staging")
    world.ask()
    shown = show_promotion_packet(world.meta, world.store, MODEL, 1, "production")
    packet = PromotionPacket.parse(shown["content"].encode())
    assert packet.sha256 == shown["sha256"] == world.head.promotions["production"]["packet"]
    assert packet.content["service"] == {"standing": "DEPLOYED", "since": world.head.deployed_at, "predictions": 3}
    assert packet.content["approval"]["approved_by"] == ["erin"]
    assert (packet.content["origin"], packet.content["environment"], packet.content["replaces"]) == ("staging", "production", {})
    assert packet.content["metrics"] == dict(world.head.metrics)
    assert packet.content["asked_by"]["person"] == "henry"
    subject, message = world.flow.notifier.messages[-1]
    assert subject == f"the promotion of {MODEL}@1 to production waits for approval"
    assert message["packet_sha256"] == packet.sha256
    assert f"attestry approve {MODEL}@1 --reason '...' --promotion production" in message["commands"]


def test_nothing_is_placed_or_begun_in_the_environment_before_it_is_approved(world: PromotionWorld) -> None:
    with pytest.raises(ConflictError, match="nobody has asked for"):
        world.place()
    world.ask()
    with pytest.raises(ConflictError, match="waits for its approval, asked for by henry"):
        world.place()
    world.decide(ERIN)
    with pytest.raises(ConflictError, match="waits for its approval"):
        world.place()
    assert standing_in(world, "production") is None


def test_a_rejection_leaves_the_version_where_it_stands_and_it_can_be_asked_for_again(world: PromotionWorld) -> None:
    world.ask()
    world.decide(ERIN)
    rejected = world.decide(GRACE, Verdict.REJECT)
    assert (rejected.complete, rejected.version.standing, standing_in(world, "staging")) == (True, Standing.DEPLOYED, 1)
    with pytest.raises(ConflictError, match="is REJECTED; ask for it again"):
        world.place()
    with pytest.raises(ConflictError, match="waits for a decision: it is REJECTED"):
        world.decide(IVAN)
    again = world.ask()
    earlier = PromotionPacket.parse(show_promotion_packet(world.meta, world.store, MODEL, 1, "production")["content"].encode()).content
    assert [(d["person"], d["decision"]) for d in earlier["earlier"][0]["decisions"]] == [("erin", "approve"), ("grace", "reject")]
    assert again.promotions["production"]["state"] == "OPEN"
    with pytest.raises(ConflictError, match="waits for its approval"):
        world.place()
    world.decide(ERIN)
    world.decide(IVAN)
    world.place()
    assert_ledger_agrees(world)


def test_what_was_asked_for_can_be_withdrawn_until_the_version_has_come_there(world: PromotionWorld) -> None:
    world.approved()
    assert world.withdraw().promotions["production"]["state"] == "WITHDRAWN"
    assert world.withdraw().rev == world.head.rev
    with pytest.raises(ConflictError, match="is WITHDRAWN"):
        world.place()
    world.approved()
    world.place()
    with pytest.raises(ConflictError, match="has come to production"):
        world.withdraw()
    assert_ledger_agrees(world)


def test_asking_again_while_it_waits_changes_nothing(world: PromotionWorld) -> None:
    first = world.ask()
    assert world.ask(session("deployer", "judy", person="judy")).rev == first.rev
    assert first.promotions["production"]["asked_by"] == "henry"


def test_the_same_decision_again_is_answered_like_the_first_and_another_one_is_refused(world: PromotionWorld) -> None:
    world.ask()
    first = world.decide(ERIN)
    assert world.decide(ERIN).version.rev == first.version.rev
    with pytest.raises(ConflictError, match="has already decided 'approve' on this promotion"):
        world.decide(ERIN, Verdict.REJECT)
    world.decide(GRACE)
    assert world.decide(GRACE).complete
    assert len([r for r in rows_of(world) if "decision" in r]) == 2


@pytest.mark.parametrize(
    ("by", "error", "why"),
    [
        (session("approver", "henry", person="henry"), SelfApprovalError, "henry asked for the promotion"),
        (session("approver", "dana", person="dana"), SelfApprovalError, "dana submitted"),
        (session("deployer", "judy", person="judy"), ForbiddenError, "needs a decision in the role approver"),
        (session("approver", "nobody"), UnprovenIdentityError, "maps to no person"),
    ],
)
def test_who_may_not_decide_is_refused(world: PromotionWorld, by: Principal, error: type[AttestryError], why: str) -> None:
    world.ask()
    before = dict(world.meta.rows)
    for verdict in Verdict:
        with pytest.raises(error, match=why):
            world.decide(by, verdict)
    assert world.meta.rows == before


def test_who_maps_to_no_person_asks_for_nothing(world: PromotionWorld) -> None:
    with pytest.raises(UnprovenIdentityError):
        world.ask(session("deployer", "nobody"))
    assert rows_of(world) == []


def test_the_table_itself_refuses_the_asker_whatever_the_code_forgets(world: PromotionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ask()
    monkeypatch.setattr("attestry.usecases.decide_promotion.check_may_decide_promotion", lambda *_: "henry")
    with pytest.raises(ConflictError, match="being changed by others"):
        world.decide(session("approver", "henry", person="henry"))
    monkeypatch.setattr("attestry.usecases.decide_promotion.check_may_decide_promotion", lambda *_: "dana")
    with pytest.raises(ConflictError, match="being changed by others"):
        world.decide(session("approver", "dana", person="dana"))
    assert [r for r in rows_of(world) if "decision" in r] == []


def test_a_declared_conflict_of_interest_excludes_from_the_decision_and_from_its_completion(world: PromotionWorld) -> None:
    world.ask()
    world.decide(ERIN)
    declare_conflict(world.meta, MODEL, person="", reason="my own budget", by=ERIN, at=world.clock.now())
    with pytest.raises(ConflictOfInterestError):
        world.decide(GRACE)
    declare_conflict(world.meta, MODEL, person="", reason="my own budget", by=IVAN, at=world.clock.now())
    with pytest.raises(ConflictOfInterestError):
        world.decide(IVAN)
    assert world.head.promotions["production"]["state"] == "OPEN"


def test_order_and_own_signatures_hold_as_for_every_approval() -> None:
    require = [{"role": "validator"}, {"role": "approver"}]
    world = PromotionWorld().staged({"to": "production", "people": {"require": require, "in_order": True}, "signed": True})
    world.ask()
    with pytest.raises(UnsignedApprovalError, match=f"attestry approve {MODEL}@1 --promotion production"):
        world.decide(VERA)
    with pytest.raises(ApprovalOrderError, match="1 validator first"):
        world.decide(ERIN, signed=True)
    world.decide(VERA, signed=True)
    assert world.decide(ERIN, signed=True).complete
    world.place()
    world.sequence()
    verified = world.verify(world.version_bundle())
    assert "for production approved by erin, vera, asked for by henry" in str([s.detail for s in verified.steps])
    assert verified.verdict == "PROVEN", [(s.name, s.detail) for s in verified.steps]


def test_a_signature_over_the_versions_own_packet_approves_no_promotion(world: PromotionWorld) -> None:
    world.ask()
    of_version = SshPerson("erin").sign(str(world.head.packet["sha256"]))
    with pytest.raises((IntegrityError, ForbiddenError)):
        world.decide(ERIN, signature=of_version)
    with pytest.raises(ConflictError, match="names the packet"):
        world.decide(ERIN, packet_sha256=str(world.head.packet["sha256"]))


def test_a_held_versions_promotion_can_be_rejected_but_not_approved_or_asked_for(world: PromotionWorld) -> None:
    held = {"by": "alex", "reason": "look again", "at": "2026-01-01T00:00:00.000000Z"}
    key = version_key(MODEL, 1)
    world.meta.transact([Update(key, {"held": held})])
    with pytest.raises(HeldError):
        world.ask()
    world.meta.transact([Update(key, {"held": {}})])
    world.ask()
    world.meta.transact([Update(key, {"held": held})])
    with pytest.raises(HeldError):
        world.decide(ERIN)
    assert world.decide(ERIN, Verdict.REJECT).complete


class TestAttacks:
    """What serves for one environment, version or moment serves for no other."""

    def test_an_approval_for_one_environment_is_none_for_the_next(self) -> None:
        both = [{**TWO, "to": "preproduction"}, TWO]
        world = PromotionWorld().staged(*both, to=("preproduction", "production"))
        world.ask(environment="preproduction")
        for person in (ERIN, GRACE):
            world.decide(person, environment="preproduction")
        with pytest.raises(ConflictError, match=f"no promotion of {MODEL}@1 to production waits"):
            world.decide(IVAN, environment="production")
        with pytest.raises(ConflictError, match="nobody has asked for"):
            world.place("production")
        with pytest.raises(ConflictError, match="the next one is preproduction"):
            world.ask()
        world.place("preproduction")
        with pytest.raises(ConflictError, match="nobody has asked for"):
            world.place("production")

    def test_an_approval_of_one_version_is_none_for_the_one_after(self, world: PromotionWorld) -> None:
        world.approved()
        world.staged()
        assert world.head.number == 2
        with pytest.raises(ConflictError, match=f"takes {MODEL}@2 with an approval of its own alone"):
            world.place()
        version_one = load_version(world.meta, MODEL, 1)
        stolen = {"promotions": version_one.promotions, "rev": world.head.rev + 1}
        world.meta.transact([Update(version_key(MODEL, 2), stolen)])
        with pytest.raises(ConflictError, match=r"counts no more|are not there"):
            world.place()

    def test_decisions_that_are_copied_to_another_version_give_no_key(self, world: PromotionWorld) -> None:
        """Whoever writes rows by hand can copy everything but the events."""
        world.approved()
        one = load_version(world.meta, MODEL, 1)
        world.staged()
        two = world.head
        told = {**one.promotions["production"], "approval": two.opening, "since": two.deployed_at}
        writes: list[Any] = [Update(version_key(MODEL, 2), {"promotions": {"production": told}, "rev": two.rev + 1})]
        for row in rows_of(world):
            key = replace(promotion_key(MODEL, 2, "production", 1), sort=row["sk"])
            copied = {name: value for name, value in row.items() if name not in ("pk", "sk")}
            writes.append(Put(key, {**copied, "version_digest": two.version_digest}))
        world.meta.transact(writes)
        world.place()
        with pytest.raises(IntegrityError, match="the promotion of tumour-diagnosis@2 to production"):
            world.delegate()

    def test_a_policy_that_is_taken_out_of_the_head_gives_no_key(self, world: PromotionWorld) -> None:
        policy = dict(world.head.approval_policy)
        policy.pop("promotion")
        world.meta.transact([Update(version_key(MODEL, 1), {"approval_policy": policy})])
        world.place()
        with pytest.raises(ConflictError, match="the approvals that the policy"):
            world.delegate()

    def test_an_approval_that_is_written_by_hand_gives_no_key(self, world: PromotionWorld) -> None:
        world.ask()
        world.decide(ERIN)
        erin = next(r for r in rows_of(world) if r.get("person") == "erin")
        opened = world.head.promotions["production"]["opened"]
        principal = {**erin["principal"], "login": "ivan", "person": "ivan"}
        forged = {**erin, "person": "ivan", "principal": principal, "transition": int(erin["transition"]) + 1}
        head = {**world.head.promotions["production"], "state": "APPROVED"}
        world.meta.transact(
            [
                Put(promotion_key(MODEL, 1, "production", opened, "ivan"), {k: v for k, v in forged.items() if k not in ("pk", "sk")}),
                Update(version_key(MODEL, 1), {"promotions": {"production": head}}),
            ]
        )
        world.place()
        with pytest.raises(IntegrityError, match="the row of ivan has no transition"):
            world.delegate()

    def test_a_decision_after_the_version_was_replaced_counts_for_nothing(self, world: PromotionWorld) -> None:
        world.ask()
        world.decide(ERIN)
        first = world.head
        world.staged()
        one = load_version(world.meta, MODEL, 1)
        assert one.standing is Standing.ROLLBACK
        world.version = first
        with pytest.raises(ConflictError, match="does not stand deployed in staging any more"):
            world.decide(GRACE)

    def test_what_is_rolled_back_in_staging_is_asked_for_anew(self, world: PromotionWorld) -> None:
        world.approved()
        first = world.head
        world.staged()
        world.back(1, environment="staging")
        world.version = first
        assert world.head.standing is Standing.DEPLOYED
        with pytest.raises(ConflictError, match="does not stand deployed in staging any more as it did"):
            world.place()
        world.approved(ERIN, IVAN)
        world.place()
        assert standing_in(world, "production") == 1

    def test_of_two_who_ask_at_once_one_opens_it(self, world: PromotionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        """The other one reads before the first has written."""
        transact = world.meta.transact
        judy = session("deployer", "judy", person="judy")

        def first_judy(writes: Any) -> None:
            monkeypatch.setattr(world.meta, "transact", transact)
            world.ask(judy)
            transact(writes)

        monkeypatch.setattr(world.meta, "transact", first_judy)
        assert world.ask().promotions["production"]["asked_by"] == "judy"
        assert len(rows_of(world)) == 1

    def test_of_two_who_place_at_once_one_does_and_both_are_told_the_same(
        self, world: PromotionWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.approved()
        transact = world.meta.transact
        done: list[Any] = []

        def other_first(writes: Any) -> None:
            monkeypatch.setattr(world.meta, "transact", transact)
            done.append(world.place(number=1))
            transact(writes)

        monkeypatch.setattr(world.meta, "transact", other_first)
        second = world.place(number=1)
        assert (done[0].changed, second.changed, standing_in(world, "production")) == (True, False, 1)
        assert len([e for e in events(world) if e["kind"] == "version.deployed" and e["data"]["environment"] == "production"]) == 1

    def test_a_withdrawal_that_comes_between_stops_the_placing(self, world: PromotionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        world.approved()
        transact = world.meta.transact

        def withdrawn_first(writes: Any) -> None:
            monkeypatch.setattr(world.meta, "transact", transact)
            world.withdraw()
            transact(writes)

        monkeypatch.setattr(world.meta, "transact", withdrawn_first)
        with pytest.raises(ConflictError, match="is WITHDRAWN"):
            world.place(number=1)
        assert standing_in(world, "production") is None

    def test_a_decision_row_that_is_gone_stops_the_placing(self, world: PromotionWorld) -> None:
        world.approved()
        opened = world.head.promotions["production"]["opened"]
        del world.meta.rows[promotion_key(MODEL, 1, "production", opened, "grace")]
        with pytest.raises(ConflictError, match="are not there"):
            world.place()


class TestLapse:
    """An approval that ends."""

    @pytest.fixture
    def lapsing(self) -> PromotionWorld:
        return PromotionWorld().staged({**TWO, "valid_days": 30})

    def test_an_approval_that_has_ended_places_nothing_and_is_asked_for_again(self, lapsing: PromotionWorld) -> None:
        lapsing.approved()
        assert lapsing.head.promotions["production"]["until"] > lapsing.head.updated
        lapsing.clock.at += timedelta(days=31)
        with pytest.raises(ApprovalLapsedError, match="for production ended at"):
            lapsing.place()
        lapsing.approved(ERIN, IVAN)
        lapsing.place()
        assert standing_in(lapsing, "production") == 1

    def test_keys_end_with_the_approval_and_none_is_given_afterwards(self, lapsing: PromotionWorld) -> None:
        lapsing.approved()
        lapsing.place()
        lapsing.clock.at += timedelta(days=29, hours=23, minutes=50)
        until = lapsing.head.promotions["production"]["until"]
        grant = lapsing.delegate().grant
        assert grant.expires - grant.issued < 3600
        assert grant.expires <= datetime.fromisoformat(until).timestamp()
        lapsing.clock.at += timedelta(hours=1)
        with pytest.raises(ApprovalLapsedError):
            lapsing.delegate()

    def test_an_approval_given_before_another_one_ended_does_not_complete_with_it(self, lapsing: PromotionWorld) -> None:
        lapsing.ask()
        lapsing.decide(ERIN)
        lapsing.clock.at += timedelta(days=31)
        with pytest.raises(ConflictError, match="the approval of erin counts until"):
            lapsing.decide(GRACE)

    def test_the_version_leaves_the_environment_in_order_and_people_are_told(self, lapsing: PromotionWorld) -> None:
        lapsing.approved()
        lapsing.place()
        lapsing.clock.at += timedelta(days=20)
        assert sweep(lapsing).told == 1
        lapsing.clock.at += timedelta(days=11)
        done = sweep(lapsing)
        assert (done.lapsed, done.told, done.errors) == ((f"{MODEL}@1",), 1, ())
        head = lapsing.head
        assert (head.standing, head.status, head.approved, standing_in(lapsing, "production")) == (Standing.APPROVED, "FAILED", True, None)
        assert head.promotions["production"]["state"] == "LAPSED"
        assert sweep(lapsing) == replace(done, lapsed=(), told=0)
        assert_ledger_agrees(lapsing)
        with pytest.raises(ConflictError, match="is LAPSED; ask for it again"):
            lapsing.place()
        lapsing.approved(ERIN, IVAN)
        lapsing.place()
        assert standing_in(lapsing, "production") == 1
        lapsing.sequence()
        verified = lapsing.verify(lapsing.version_bundle())
        assert verified.verdict == "PROVEN", [(s.name, s.detail) for s in verified.steps]

    def test_what_still_stands_there_by_an_approval_that_has_ended_leaves_before_it_is_asked_for_again(
        self, lapsing: PromotionWorld
    ) -> None:
        """Otherwise the lapse would find another promotion than its own, and the version would stay, even if that is rejected."""
        lapsing.approved()
        lapsing.place()
        lapsing.clock.at += timedelta(days=31)
        with pytest.raises(ConflictError, match="by an approval that has ended, and leaves within minutes"):
            lapsing.ask()
        assert sweep(lapsing).lapsed == (f"{MODEL}@1",)
        assert lapsing.ask().promotions["production"]["state"] == "OPEN"
        lapsing.decide(ERIN, Verdict.REJECT)
        assert standing_in(lapsing, "production") is None

    def test_where_the_policy_says_so_what_is_kept_takes_the_place_first(self) -> None:
        world = PromotionWorld().staged()
        world.approved()
        world.place()
        world.staged({**TWO, "valid_days": 30, "on_lapse": "rollback"})
        world.approved()
        world.place()
        world.clock.at += timedelta(days=31)
        assert sweep(world).lapsed == (f"{MODEL}@2",)
        assert (standing_in(world, "production"), world.head.standing) == (1, Standing.APPROVED)
        assert world.meta.rows[pointer_key(MODEL, "production")].get("previous") is None

    def test_a_sweep_that_is_cut_off_anywhere_is_made_good_by_the_next(self, lapsing: PromotionWorld) -> None:
        lapsing.approved()
        lapsing.place()
        lapsing.clock.at += timedelta(days=31)
        rows, at = copy.deepcopy(lapsing.meta.rows), lapsing.clock.at
        for after in (False, True):
            n = 0
            while True:
                n += 1
                lapsing.meta.rows, lapsing.clock.at = copy.deepcopy(rows), at
                faults = lapsing.meta.faults
                faults.clear()
                (faults.fail_after if after else faults.fail_before)(n, error=Killed())
                told = len(lapsing.flow.notifier.messages)
                try:
                    sweep(lapsing)
                except Killed:
                    faults.clear()
                    sweep(lapsing)
                else:
                    break
                assert (lapsing.head.standing, standing_in(lapsing, "production")) == (Standing.APPROVED, None)
                assert len(lapsing.flow.notifier.messages) > told
            assert n > 5


def sweep(world: PromotionWorld) -> Any:
    def gate(asked: Any) -> bool:
        return tell_again(world.meta, world.flow.notifier, json.loads(json.dumps(asked)), None)

    return lapse_due(world.meta, world.flow.attestors["operate"], world.flow.notifier, gate, at=world.clock.now())


def test_a_rollback_to_what_was_approved_for_the_environment_needs_nobody_again(world: PromotionWorld) -> None:
    world.approved()
    world.place()
    world.staged()
    world.approved()
    world.place()
    assert standing_in(world, "production") == 2
    world.back()
    assert standing_in(world, "production") == 1
    assert world.delegate().grant.version.number == 1
    world.back(2)
    assert standing_in(world, "production") == 2


def test_an_environment_without_one_is_promoted_to_as_before() -> None:
    world = PromotionWorld()
    world.validate(edit=world.edit())
    world.open()
    world.approve()
    world.place("staging")
    assert "promotion" not in world.head.approval_policy
    with pytest.raises(ConflictError, match="has no approval of its own"):
        world.ask()
    world.place()
    assert standing_in(world, "production") == 1
    placed = [e for e in events(world) if e["kind"] == "version.deployed"][-1]
    assert "promotion" not in placed["data"]


def _promote(world: PromotionWorld) -> None:
    world.ask()
    for person in (ERIN, GRACE):
        world.decide(person)
    world.place()


def test_a_crash_at_any_call_leaves_a_state_from_which_a_retry_goes_on(world: PromotionWorld) -> None:
    """Asking, deciding and placing, cut off before and after each call to the table, the store and the keys."""
    rows, at, objects = copy.deepcopy(world.meta.rows), world.clock.at, copy.deepcopy(world.store.versions)
    faults = world.meta.faults
    for after in (False, True):
        n = 0
        while True:
            n += 1
            world.meta.rows, world.clock.at, world.store.versions = copy.deepcopy(rows), at, copy.deepcopy(objects)
            faults.clear()
            (faults.fail_after if after else faults.fail_before)(n, error=Killed())
            try:
                _promote(world)
            except Killed:
                faults.clear()
            else:
                break
            if standing_in(world, "production") is None:
                _again(world)
            assert standing_in(world, "production") == 1
            assert {r["person"] for r in rows_of(world) if "decision" in r} == {"erin", "grace"}
            assert len([r for r in rows_of(world) if "decision" not in r]) == 1
            assert_ledger_agrees(world)
        assert n > 20, "no call was cut off"


def test_people_are_told_of_a_promotion_wherever_asking_for_it_is_cut_off(world: PromotionWorld) -> None:
    """Nobody asks again: the sweep tells what the gate could not."""
    faults = world.meta.faults
    world.flow.notifier = notifier = MemoryNotifier(faults)
    rows, at, objects = copy.deepcopy(world.meta.rows), world.clock.at, copy.deepcopy(world.store.versions)
    opened = 0
    for after in (False, True):
        n = 0
        while True:
            n += 1
            world.meta.rows, world.clock.at, world.store.versions = copy.deepcopy(rows), at, copy.deepcopy(objects)
            notifier.messages.clear()
            faults.clear()
            (faults.fail_after if after else faults.fail_before)(n, error=Killed())
            try:
                world.ask()
            except Killed:
                faults.clear()
                world.clock.at += timedelta(minutes=10)
                sweep(world)
            else:
                break
            waits = "production" in world.head.promotions
            opened += waits
            assert len(notifier.messages) in ((1, 2) if waits else (0,))
            assert all(m["packet_sha256"] == world.head.promotions["production"]["packet"] for _, m in notifier.messages)
            assert world.meta.query(LAPSES) == []
        assert len(notifier.messages) == 1
        assert n > 10, "no call was cut off"
    assert opened > 5, "nothing was cut off behind the opening"


def test_of_a_promotion_that_ended_before_anybody_was_told_nobody_is_told(world: PromotionWorld) -> None:
    faults = world.meta.faults
    world.flow.notifier = MemoryNotifier(faults)
    faults.fail_before(1, method="notify", error=Killed())
    with pytest.raises(Killed):
        world.ask()
    world.withdraw()
    world.clock.at += timedelta(minutes=10)
    assert sweep(world).told == 0
    assert world.flow.notifier.messages == []
    assert world.meta.query(LAPSES) == []


def _again(world: PromotionWorld) -> None:
    """What the same people do when they got no answer: the same again."""
    if world.head.promotions.get("production", {}).get("state") != "APPROVED":
        world.ask()
        for person in (ERIN, GRACE):
            world.decide(person)
    world.place()
