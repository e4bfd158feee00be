"""Rollouts: begin, advance, halt and finish, each in one transaction, and what the minute's look makes of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.errors import AttestryError, ConflictError, NotFoundError, UnavailableError
from attestry.domain.replay import compare_pointers, compare_version, replay
from attestry.domain.rollout import Plan
from attestry.domain.stages import Stage, Standing, Status
from attestry.evidence.canonical import parse_canonical
from attestry.usecases.attest import Attestor
from attestry.usecases.canary_counts import failure_put
from attestry.usecases.deploy import roll_back, swap_pointer
from attestry.usecases.records import OUTBOX, load_version, pointer_key
from attestry.usecases.revoke import kill_version
from attestry.usecases.rollout import advance_rollout, begin_rollout, finish_rollout, halt_rollout, is_at_once, plan_of
from attestry.usecases.rollout_places import PARTITION
from attestry.usecases.rollout_request import change_rollout
from attestry.usecases.rollout_watch import watch_rollouts
from lambdas import deploy
from tests.fakes import Faults, FixedClock, Killed, LocalSigner, MemoryAlarms, MemoryMetaStore, MemoryObjectStore
from tests.versions import AT, ATTESTOR, ERIN, make_approved, make_version

MODEL = "credit-risk"
CANARY = Plan("canary", (5, 50), 10, 0).to_item()
SHADOW = Plan("shadow", minutes=30).to_item()
TOLD: dict[str, Any] = {"environment": "production", "by": ERIN, "reason": "approved", "at": AT}


@pytest.fixture
def meta() -> MemoryMetaStore:
    meta = MemoryMetaStore()
    make_approved(meta, 1)
    swap_pointer(meta, ATTESTOR, MODEL, 1, capture_rate="1", **TOLD)
    make_approved(meta, 2, strategy=CANARY)
    make_approved(meta, 3, strategy=SHADOW)
    return meta


def standings(meta: MemoryMetaStore, *numbers: int) -> list[str]:
    return [load_version(meta, MODEL, n).standing.value for n in numbers or (1, 2, 3)]


def pointer(meta: MemoryMetaStore, environment: str = "production") -> dict[str, Any]:
    return meta.rows[pointer_key(MODEL, environment)]


def assert_ledger_agrees(meta: MemoryMetaStore) -> None:
    """The events, replayed, give the pointers and the versions' states."""
    events = [parse_canonical(row["event"]) for row in meta.query(OUTBOX)]
    order = sorted(events, key=lambda e: (e["at"], str(e["subject"]), int(e["sequence"])))
    index = replay(order)
    pointers = [row for key, row in meta.rows.items() if key.sort.startswith("POINTER#")]
    for number in (1, 2, 3):
        rows = meta.query(f"VERSION#{MODEL}#{number}", prefix="TRANSITION#")
        head = load_version(meta, MODEL, number).to_item()
        assert compare_version(index, f"{MODEL}@{number}", head, rows) == []
    assert {d.where for d in compare_pointers(index, MODEL, pointers)} == set()


def later(minutes: float) -> dict[str, Any]:
    return {**TOLD, "at": AT + timedelta(minutes=minutes)}


def wake(monkeypatch: pytest.MonkeyPatch, meta: MemoryMetaStore, event: dict[str, Any], *, seconds: float) -> dict[str, Any]:
    """Hand the deploy function an event, so long after the rollout began."""
    world = World(Settings({}))
    clock = FixedClock(AT + timedelta(seconds=seconds))
    world.__dict__.update(meta=meta, attestor=ATTESTOR, alarms=MemoryAlarms(), clock=clock)
    monkeypatch.setattr(deploy, "world", world)
    return deploy.handler(event, None)


def test_a_canary_stands_beside_the_deployed_version_with_its_first_share(meta: MemoryMetaStore) -> None:
    done = begin_rollout(meta, ATTESTOR, MODEL, 2, **later(1))
    assert done.changed
    assert standings(meta) == ["DEPLOYED", "CANARY", "APPROVED"]
    assert (pointer(meta)["number"], pointer(meta)["canary"]["number"], pointer(meta)["canary"]["share"]) == (1, 2, 5)
    assert [row["sk"] for row in meta.query(PARTITION)] == [f"{MODEL}#production"]
    assert_ledger_agrees(meta)


def test_a_canary_and_a_shadow_may_stand_there_together_and_two_of_one_kind_may_not(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 2, **later(1))
    begin_rollout(meta, ATTESTOR, MODEL, 3, **later(2))
    assert standings(meta) == ["DEPLOYED", "CANARY", "SHADOW"]
    make_approved(meta, 4, strategy=CANARY)
    with pytest.raises(ConflictError, match="credit-risk@2 is the canary in production"):
        begin_rollout(meta, ATTESTOR, MODEL, 4, **later(3))


def test_a_canary_advances_by_its_steps_and_is_put_in_place_after_the_last(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 2, **later(1))
    assert advance_rollout(meta, ATTESTOR, MODEL, **later(12)).pointer["canary"]["share"] == 50
    assert_ledger_agrees(meta)
    with pytest.raises(ConflictError, match="last step"):
        advance_rollout(meta, ATTESTOR, MODEL, **later(24))
    assert finish_rollout(meta, ATTESTOR, MODEL, **later(25)).previous == 1
    assert standings(meta) == ["ROLLBACK", "DEPLOYED", "APPROVED"]
    assert "canary" not in pointer(meta)
    assert meta.query(PARTITION) == []
    assert_ledger_agrees(meta)


def test_a_step_that_was_left_already_is_not_left_again(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 2, **later(1))
    assert advance_rollout(meta, ATTESTOR, MODEL, expected_step=0, **later(12)).changed
    assert not advance_rollout(meta, ATTESTOR, MODEL, expected_step=0, **later(12)).changed
    assert pointer(meta)["canary"]["step"] == 1


def test_a_halted_canary_goes_back_to_approved_with_the_reason_and_may_be_tried_again(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 2, **later(1))
    halt_rollout(meta, ATTESTOR, MODEL, environment="production", by=ERIN, reason="too many refusals", at=AT + timedelta(minutes=2))
    version = load_version(meta, MODEL, 2)
    assert (version.stage, version.status, version.standing) == (Stage.DEPLOYMENT, Status.FAILED, Standing.APPROVED)
    assert version.error == "the canary was halted: too many refusals"
    assert (pointer(meta)["number"], "canary" in pointer(meta)) == (1, False)
    assert_ledger_agrees(meta)
    begin_rollout(meta, ATTESTOR, MODEL, 2, **later(3))
    assert standings(meta, 2) == ["CANARY"]


def test_an_ended_shadow_stands_approved_and_waits_for_somebody(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 3, **later(1))
    halt_rollout(meta, ATTESTOR, MODEL, **later(40))
    version = load_version(meta, MODEL, 3)
    assert (version.status, version.standing, version.error) == (Status.SUCCEEDED, Standing.APPROVED, "")
    assert_ledger_agrees(meta)


def test_to_end_the_shadow_by_its_number_leaves_the_canary_beside_it_where_it_is(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 2, **later(1))
    begin_rollout(meta, ATTESTOR, MODEL, 3, **later(2))
    assert change_rollout(meta, ATTESTOR, MODEL, "halt", number=3, **later(3)).number == 3
    assert standings(meta) == ["DEPLOYED", "CANARY", "APPROVED"]
    assert change_rollout(meta, ATTESTOR, MODEL, "halt", number=2, **later(4)).number == 2
    assert standings(meta) == ["DEPLOYED", "APPROVED", "APPROVED"]
    assert_ledger_agrees(meta)


def test_a_shadow_that_convinced_is_put_in_place_by_finishing_it(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 3, **later(1))
    finish_rollout(meta, ATTESTOR, MODEL, **later(40))
    assert standings(meta) == ["ROLLBACK", "APPROVED", "DEPLOYED"]
    assert_ledger_agrees(meta)


@pytest.mark.parametrize("standing", [Standing.CANDIDATE, Standing.REJECTED])
def test_nothing_is_rolled_out_without_an_approval(meta: MemoryMetaStore, standing: Standing) -> None:
    make_version(meta, number=4, stage=Stage.APPROVAL, standing=standing, strategy=CANARY)
    with pytest.raises(ConflictError, match="not approved"):
        begin_rollout(meta, ATTESTOR, MODEL, 4, **later(1))


def test_a_version_in_a_rollout_is_not_deployed_past_it(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 2, **later(1))
    with pytest.raises(ConflictError, match="stands CANARY"):
        swap_pointer(meta, ATTESTOR, MODEL, 2, capture_rate="1", **{**later(2), "environment": "staging"})


def test_the_first_version_of_an_environment_comes_at_once_and_one_beside_a_vacant_place_does_not(meta: MemoryMetaStore) -> None:
    version = load_version(meta, MODEL, 2)
    assert is_at_once(meta, version, plan_of(version), "staging")
    assert not is_at_once(meta, version, plan_of(version), "production")
    assert is_at_once(meta, version, plan_of(version, "all-at-once"), "production")
    kill_version(meta, ATTESTOR, MODEL, 1, reason="it harms", by=ERIN, at=AT)
    assert not is_at_once(meta, version, plan_of(version), "production")
    with pytest.raises(ConflictError, match="nothing is deployed in production"):
        begin_rollout(meta, ATTESTOR, MODEL, 2, **later(1))
    with pytest.raises(ConflictError, match="no settings for the strategy 'shadow'"):
        plan_of(version, "shadow")


@pytest.mark.parametrize("number", [2, 3])
def test_a_kill_takes_a_version_out_of_its_rollout_too(meta: MemoryMetaStore, number: int) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, number, **later(1))
    killed = kill_version(meta, ATTESTOR, MODEL, number, reason="it harms", by=ERIN, at=AT + timedelta(minutes=2))
    assert killed.vacated == ()
    assert pointer(meta)["number"] == 1
    assert not {"canary", "shadow"} & set(pointer(meta))
    assert meta.query(PARTITION) == []
    assert_ledger_agrees(meta)


def test_a_rollback_halts_the_canary_and_ends_the_shadow(meta: MemoryMetaStore) -> None:
    make_approved(meta, 4)
    swap_pointer(meta, ATTESTOR, MODEL, 4, capture_rate="1", **TOLD)
    begin_rollout(meta, ATTESTOR, MODEL, 2, **later(1))
    begin_rollout(meta, ATTESTOR, MODEL, 3, **later(1))
    roll_back(meta, ATTESTOR, MODEL, **later(2))
    assert standings(meta, 1, 2, 3, 4) == ["DEPLOYED", "APPROVED", "APPROVED", "ROLLBACK"]
    assert meta.query(PARTITION) == []


def test_what_is_not_there_is_neither_advanced_nor_halted_nor_finished(meta: MemoryMetaStore) -> None:
    for verb in (advance_rollout, halt_rollout, finish_rollout):
        with pytest.raises(NotFoundError):
            verb(meta, ATTESTOR, MODEL, **TOLD)


def test_a_promotion_leaves_the_environment_before(meta: MemoryMetaStore) -> None:
    make_approved(meta, 4, deployment_environment="staging", promotes_to=("production",))
    swap_pointer(meta, ATTESTOR, MODEL, 4, capture_rate="1", **{**TOLD, "environment": "staging"})
    swap_pointer(meta, ATTESTOR, MODEL, 4, capture_rate="1", **later(5))
    assert pointer(meta)["number"] == 4
    assert "number" not in pointer(meta, "staging")
    assert pointer(meta, "staging")["vacant"]["kind"] == "promotion"
    assert load_version(meta, MODEL, 4).deployment_environment == "production"
    following = load_version(meta, MODEL, 2)
    assert is_at_once(meta, following, plan_of(following), "staging")
    assert_ledger_agrees(meta)


# The minute's look


def look(meta: MemoryMetaStore, minutes: float, alarms: MemoryAlarms | None = None) -> dict[str, int]:
    return watch_rollouts(meta, ATTESTOR, alarms or MemoryAlarms(), at=AT + timedelta(minutes=minutes))


def fail(meta: MemoryMetaStore, count: int, minutes: float) -> None:
    version = load_version(meta, MODEL, 2)
    meta.transact([failure_put(version, "predict_fn raised", AT + timedelta(minutes=minutes)) for _ in range(count)])


def test_a_canary_goes_its_way_by_itself_when_nothing_fails(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 2, **TOLD)
    assert look(meta, 9)["advance"] == 0
    assert look(meta, 10)["advance"] == 1
    assert look(meta, 11)["finish"] == 0
    assert look(meta, 20)["finish"] == 1
    assert standings(meta) == ["ROLLBACK", "DEPLOYED", "APPROVED"]
    last = meta.query(f"VERSION#{MODEL}#2", prefix="TRANSITION#")[-1]
    assert last["principal"]["login"] == "attestry:rollout"
    assert_ledger_agrees(meta)


def test_a_canary_that_fails_halts_itself_at_the_next_look(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 2, **{**TOLD, "reason": "approved"})
    fail(meta, 1, 0.2)
    assert look(meta, 1)["halt"] == 1
    assert standings(meta) == ["DEPLOYED", "APPROVED", "APPROVED"]
    assert "1 of 1 requests failed" in load_version(meta, MODEL, 2).error
    assert look(meta, 2)["seen"] == 0


def test_the_row_of_a_failure_wakes_the_look_that_halts_the_canary(meta: MemoryMetaStore, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 2, **TOLD)
    fail(meta, 1, 0.2)
    event = {"Records": [{"eventName": "INSERT", "dynamodb": {"Keys": {"pk": {"S": f"CANARY#{MODEL}#2"}}}}]}
    assert wake(monkeypatch, meta, event, seconds=20)["halt"] == 1
    assert standings(meta) == ["DEPLOYED", "APPROVED", "APPROVED"]
    assert wake(monkeypatch, meta, event, seconds=21)["seen"] == 0


def test_a_record_is_no_order_whatever_it_says(meta: MemoryMetaStore, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 2, **TOLD)
    forged = {"Records": [{"model": MODEL, "version": 3}], "model": MODEL, "version": 3, "principal": ERIN.to_item()}
    assert wake(monkeypatch, meta, forged, seconds=20)["halt"] == 0
    assert standings(meta) == ["DEPLOYED", "CANARY", "APPROVED"]


def test_failures_of_an_earlier_step_do_not_count_in_the_next(meta: MemoryMetaStore) -> None:
    make_approved(meta, 4, strategy=Plan("canary", (5, 50), 10, 0, minimum_errors=2).to_item())
    begin_rollout(meta, ATTESTOR, MODEL, 4, **TOLD)
    version = load_version(meta, MODEL, 4)
    meta.transact([failure_put(version, "once", AT + timedelta(minutes=1))])
    assert look(meta, 10)["advance"] == 1
    meta.transact([failure_put(version, "once more", AT + timedelta(minutes=11))])
    assert look(meta, 12)["halt"] == 0
    meta.transact([failure_put(version, "and again", AT + timedelta(minutes=12))])
    assert look(meta, 13)["halt"] == 1


@pytest.mark.parametrize(("states", "halted"), [({"orders-refused": "OK"}, 0), ({"orders-refused": "ALARM"}, 1), ({}, 1)])
def test_an_alarm_of_cloudwatch_halts_a_canary_and_so_does_one_that_is_gone(
    meta: MemoryMetaStore, states: dict[str, str], halted: int
) -> None:
    make_approved(meta, 4, strategy=Plan("canary", (5,), 10, 0, alarms=("orders-refused",)).to_item())
    begin_rollout(meta, ATTESTOR, MODEL, 4, **TOLD)
    alarms = MemoryAlarms()
    alarms.known = states
    assert look(meta, 1, alarms)["halt"] == halted


def test_beside_a_vacant_place_a_canary_is_halted_but_never_put_in_place_by_itself(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 2, **TOLD)
    kill_version(meta, ATTESTOR, MODEL, 1, reason="it harms", by=ERIN, at=AT)
    assert look(meta, 1000)["advance"] == 0
    finish_rollout(meta, ATTESTOR, MODEL, **later(1001))
    assert standings(meta, 2) == ["DEPLOYED"]


def test_a_shadow_ends_by_itself(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 3, **TOLD)
    assert look(meta, 29)["end"] == 0
    assert look(meta, 30)["end"] == 1
    assert standings(meta, 3) == ["APPROVED"]


def test_the_trouble_of_one_rollout_does_not_hold_up_the_others(meta: MemoryMetaStore) -> None:
    begin_rollout(meta, ATTESTOR, MODEL, 2, **TOLD)
    begin_rollout(meta, ATTESTOR, MODEL, 3, **TOLD)
    troubled: list[str] = []
    meta.faults.fail_before(method="transact")
    done = watch_rollouts(
        meta, ATTESTOR, MemoryAlarms(), at=AT + timedelta(minutes=30), on_trouble=lambda where, why: troubled.append(where)
    )
    assert (done["failed"], done["end"], troubled) == (1, 1, [f"{MODEL}/production"])
    assert look(meta, 31)["advance"] == 1


# Crashes before and after every call


def world() -> tuple[Faults, MemoryMetaStore, Attestor]:
    faults = Faults()
    meta, store, signer = MemoryMetaStore(faults), MemoryObjectStore(faults), LocalSigner("local:rollout", faults)
    attestor = Attestor(signer, store)
    make_approved(meta, 1)
    swap_pointer(meta, attestor, MODEL, 1, capture_rate="1", **TOLD)
    make_approved(meta, 2, strategy=CANARY)
    make_approved(meta, 3, strategy=SHADOW)
    return faults, meta, attestor


ACTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "begin": (lambda m, a: None, lambda m, a: begin_rollout(m, a, MODEL, 2, **later(2))),
    "begin shadow": (lambda m, a: begin_rollout(m, a, MODEL, 2, **later(1)), lambda m, a: begin_rollout(m, a, MODEL, 3, **later(2))),
    "advance": (
        lambda m, a: begin_rollout(m, a, MODEL, 2, **later(1)),
        lambda m, a: advance_rollout(m, a, MODEL, expected_step=0, **later(12)),
    ),
    "halt": (lambda m, a: begin_rollout(m, a, MODEL, 2, **later(1)), lambda m, a: halt_rollout(m, a, MODEL, number=2, **later(3))),
    "finish": (lambda m, a: begin_rollout(m, a, MODEL, 2, **later(1)), lambda m, a: finish_rollout(m, a, MODEL, number=2, **later(30))),
    "look": (
        lambda m, a: begin_rollout(m, a, MODEL, 2, **later(1)),
        lambda m, a: _whole(watch_rollouts(m, a, MemoryAlarms(), at=AT + timedelta(minutes=12))),
    ),
}


def _whole(done: dict[str, int]) -> None:
    if done["failed"]:
        raise UnavailableError("a rollout could not be moved")


@pytest.mark.parametrize("error", [UnavailableError("injected fault: no answer"), Killed()], ids=["no answer", "killed"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("act", ACTS)
def test_a_crash_at_any_call_leaves_a_state_from_which_a_retry_goes_on(act: str, after: bool, error: BaseException) -> None:
    prepare, do = ACTS[act]
    _, whole, attestor = world()
    prepare(whole, attestor)
    do(whole, attestor)
    expected = (standings(whole), _without_attestation(pointer(whole)))
    for n in range(1, 100):
        faults, meta, attestor = world()
        prepare(meta, attestor)
        faults.clear()
        (faults.fail_after if after else faults.fail_before)(n, error=error)
        try:
            do(meta, attestor)
        except (AttestryError, Killed):
            faults.clear()
            do(meta, attestor)
            assert (standings(meta), _without_attestation(pointer(meta))) == expected
            assert_ledger_agrees(meta)
        else:
            assert faults._planned, "the fault was swallowed"
            assert n > 3
            return
    raise AssertionError("it never ended")


def _without_attestation(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("pk", "sk")}
