"""Kill and retire: at once, in any stage, once, against deployments and decisions that run at the same time, and for good."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from attestry.domain.approvals import Verdict
from attestry.domain.errors import AttestryError, ConflictError, InvalidInputError, NotFoundError, UnavailableError
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.evidence.trusted_root import require_may_sign
from attestry.ports import Key, Put, Write
from attestry.usecases.attest import Attestor
from attestry.usecases.browse import current_pointer, list_versions, show_model
from attestry.usecases.decide import decide_approval
from attestry.usecases.deploy import begin_deployment, fail_deployment, roll_back, swap_pointer
from attestry.usecases.expiry import RETIREMENTS
from attestry.usecases.gate import open_approval, send_on
from attestry.usecases.judge import _deployed
from attestry.usecases.manual import Hand, retry_version
from attestry.usecases.operate import claim_submission
from attestry.usecases.recorded import check_recorded, event_of_transition
from attestry.usecases.records import load_version, pointer_key, stage_key
from attestry.usecases.revoke import Revocation, due_retirements, kill_version, retire_due, retire_version
from attestry.usecases.sweep import sweep
from tests.fakes import Faults, LocalSigner, MemoryFunctions, MemoryMetaStore, MemoryNotifier, MemoryObjectStore, MemoryPipeline
from tests.flow import Flow
from tests.versions import AT, ATTESTOR, ERIN, FRANK, make_approved, make_version, session

MODEL = "credit-risk"
HENRY = session("deployer", "henry", person="henry")
POINTER = pointer_key(MODEL, "production")


@pytest.fixture
def meta() -> MemoryMetaStore:
    return MemoryMetaStore()


def put_in_place(meta: MemoryMetaStore, number: int, *, rate: str = "1", at: datetime = AT) -> Any:
    return swap_pointer(meta, ATTESTOR, MODEL, number, environment="production", capture_rate=rate, by=ERIN, reason="approved", at=at)


def deployed(meta: MemoryMetaStore, *numbers: int) -> None:
    for number in numbers:
        make_approved(meta, number)
        put_in_place(meta, number)


def kill(meta: MemoryMetaStore, number: int, attestor: Attestor = ATTESTOR) -> Revocation:
    return kill_version(meta, attestor, MODEL, number, reason="it leaks training data", by=ERIN, at=AT)


def retire(meta: MemoryMetaStore, number: int, **changes: Any) -> Revocation:
    given = {"reason": "the next one is better", "by": ERIN, "at": AT, **changes}
    return retire_version(meta, ATTESTOR, MODEL, number, **given)


def rollback(meta: MemoryMetaStore, at: datetime = AT) -> Any:
    return roll_back(meta, ATTESTOR, MODEL, environment="production", by=ERIN, reason="back", at=at)


def standing(meta: MemoryMetaStore, number: int) -> Standing:
    return load_version(meta, MODEL, number).standing


def kinds(meta: MemoryMetaStore, number: int) -> list[str]:
    return [t["kind"] for t in meta.query(f"VERSION#{MODEL}#{number}", prefix="TRANSITION#")]


def assert_consistent(meta: MemoryMetaStore, numbers: Any) -> None:
    """Invariant 4, and that every transition has its event."""
    pointer = meta.rows.get(POINTER, {})
    standings = {n: standing(meta, n) for n in numbers}
    assert [n for n, s in standings.items() if s is Standing.DEPLOYED] == [n for n in [pointer.get("number")] if n is not None]
    assert [n for n, s in standings.items() if s is Standing.ROLLBACK] == [n for n in [pointer.get("previous")] if n is not None]
    for n in numbers:
        rows = meta.query(f"VERSION#{MODEL}#{n}", prefix="TRANSITION#")
        check_recorded(meta, [event_of_transition(MODEL, n, row) for row in rows])


def test_a_killed_version_leaves_its_place_and_says_who_why_and_when(meta: MemoryMetaStore) -> None:
    deployed(meta, 1, 2)
    revoked = kill(meta, 2)
    assert (revoked.vacated, revoked.rollback, revoked.changed) == (("production",), (("production", 1),), True)
    assert standing(meta, 2) is Standing.RETIRED
    assert_consistent(meta, (1, 2))
    with pytest.raises(NotFoundError, match=r"credit-risk@2 was killed at 2026-01-02T03:04:05\.000000Z by erin: it leaks training data"):
        current_pointer(meta, MODEL, "production")
    shown = show_model(meta, MODEL)["deployed"][0]
    assert (shown["number"], shown["vacant"]["reason"]) == (None, "it leaks training data")
    row = next(r for r in list_versions(meta, MODEL) if r["number"] == 2)
    assert row["retirement"] == {
        "kind": "version.killed",
        "by": "erin",
        "reason": "it leaks training data",
        "at": "2026-01-02T03:04:05.000000Z",
    }


def test_a_kill_is_an_event_with_its_attestation_that_operate_may_sign(meta: MemoryMetaStore) -> None:
    deployed(meta, 1)
    kill(meta, 1)
    events = [json.loads(r["event"]) for k, r in meta.rows.items() if k.partition == "OUTBOX"]
    event = next(e for e in events if e["kind"] == "version.killed")
    transition = meta.query(f"VERSION#{MODEL}#1", prefix="TRANSITION#", newest_first=True, limit=1)[0]
    assert (event["subject"], event["principal"]["person"], event["data"]["vacated"]) == ("credit-risk@1", "erin", ["production"])
    assert event["data"]["attestation"] == transition["attestation"]["sha256"]
    require_may_sign("operate", event["kind"], event["data"]["to"]["stage"])


def test_the_same_kill_again_changes_nothing(meta: MemoryMetaStore) -> None:
    deployed(meta, 1)
    kill(meta, 1)
    before = dict(meta.rows)
    assert kill(meta, 1).changed is False
    assert meta.rows == before


def test_after_a_kill_the_version_before_is_put_back_with_its_capture_rate(meta: MemoryMetaStore) -> None:
    for number, rate in ((1, "0.25"), (2, "1")):
        make_approved(meta, number)
        put_in_place(meta, number, rate=rate)
    kill(meta, 2)
    back = rollback(meta)
    assert (back.version.number, back.previous, back.changed) == (1, None, True)
    assert meta.rows[POINTER]["capture_rate"] == "0.25"
    assert "vacant" not in meta.rows[POINTER]
    assert_consistent(meta, (1, 2))
    with pytest.raises(NotFoundError, match="kept for rollback"):
        rollback(meta)


def test_after_a_kill_another_version_is_deployed_and_what_was_kept_stays_kept(meta: MemoryMetaStore) -> None:
    deployed(meta, 1, 2)
    kill(meta, 2)
    make_approved(meta, 3)
    assert put_in_place(meta, 3).previous == 1
    assert_consistent(meta, (1, 2, 3))
    assert rollback(meta).version.number == 1
    assert_consistent(meta, (1, 2, 3))


def test_a_killed_version_is_kept_for_rollback_no_more(meta: MemoryMetaStore) -> None:
    deployed(meta, 1, 2)
    assert kill(meta, 1).vacated == ()
    assert meta.rows[POINTER]["number"] == 2
    assert_consistent(meta, (1, 2))
    with pytest.raises(NotFoundError, match="kept for rollback"):
        rollback(meta)


def test_both_are_killed_and_nothing_is_left_to_roll_back_to(meta: MemoryMetaStore) -> None:
    deployed(meta, 1, 2)
    kill(meta, 2)
    kill(meta, 1)
    assert_consistent(meta, (1, 2))
    with pytest.raises(NotFoundError):
        rollback(meta)


def test_a_killed_version_is_never_deployed_rolled_back_to_retried_or_claimed_again(meta: MemoryMetaStore) -> None:
    deployed(meta, 1)
    kill(meta, 1)
    version = load_version(meta, MODEL, 1)
    for act in (
        lambda: put_in_place(meta, 1),
        lambda: begin_deployment(meta, ATTESTOR, version, by=ERIN, reason="again", at=AT),
        lambda: retry_version(Hand(meta, ATTESTOR, MemoryPipeline(), MemoryFunctions(), "gate", HENRY, "again", AT), MODEL, 1),
        lambda: claim_submission(meta, ATTESTOR, MODEL, 1, by=FRANK, at=AT),
    ):
        with pytest.raises(ConflictError):
            act()
    assert kinds(meta, 1)[-1] == "version.killed"


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("status", [Status.RUNNING, Status.SUCCEEDED, Status.FAILED])
def test_a_version_is_killed_in_any_stage_and_a_stage_that_runs_ends_failed(meta: MemoryMetaStore, stage: Stage, status: Status) -> None:
    make_version(meta, stage=stage, status=status)
    kill(meta, 1)
    version = load_version(meta, MODEL, 1)
    assert (version.standing, version.stage) == (Standing.RETIRED, stage)
    assert version.status is (Status.FAILED if status is Status.RUNNING else status)
    if status is Status.RUNNING:
        assert version.error == "killed by erin: it leaks training data"


def test_a_version_that_waits_for_approval_cannot_be_approved_after_its_kill(meta: MemoryMetaStore) -> None:
    make_version(meta, stage=Stage.APPROVAL, status=Status.RUNNING, token="t")
    kill(meta, 1)
    with pytest.raises(ConflictError, match="does not wait"):
        decide_approval(meta, ATTESTOR, MemoryObjectStore(), MODEL, 1, Verdict.APPROVE, reason="good", by=FRANK, at=AT)


def test_the_pipeline_that_waited_for_approval_is_sent_on_and_not_started_again(meta: MemoryMetaStore) -> None:
    pipeline = MemoryPipeline()
    version = make_version(meta, stage=Stage.APPROVAL, status=Status.RUNNING)
    pipeline.start(version.execution_id, {})
    token = pipeline.wait_for_token(version.execution_id)
    meta.rows[Key(f"VERSION#{MODEL}#1")]["token"] = token
    kill(meta, 1)
    assert send_on(meta, ATTESTOR, MemoryObjectStore(), pipeline, model=MODEL, number=1, at=AT) == "sent"
    assert load_version(meta, MODEL, 1).token == ""
    assert pipeline.waiting == {}


def test_an_approval_does_not_open_for_a_killed_version(meta: MemoryMetaStore) -> None:
    make_version(meta)
    kill(meta, 1)
    with pytest.raises(AttestryError):
        open_approval(meta, ATTESTOR, MemoryObjectStore(), MemoryPipeline(), MemoryNotifier(), model=MODEL, number=1, token="t", at=AT)
    assert kinds(meta, 1)[-1] == "version.killed"


def test_the_sweep_leaves_a_killed_version_alone(meta: MemoryMetaStore) -> None:
    pipeline, functions = MemoryPipeline(), MemoryFunctions({"gate": lambda event: None})
    make_approved(meta, 1)
    kill(meta, 1)
    counts = sweep(meta, functions, pipeline, gate_function="gate", at=AT + timedelta(hours=2))
    assert (counts["started"], counts["restarted"], counts["failed"]) == (0, 0, 0)
    assert pipeline.executions == {}


def test_a_deployment_in_progress_loses_against_a_kill(meta: MemoryMetaStore) -> None:
    deployed(meta, 1)
    version = begin_deployment(meta, ATTESTOR, make_approved(meta, 2), by=ERIN, reason="go", at=AT)
    kill(meta, version.number)
    with pytest.raises(ConflictError, match="killed"):
        put_in_place(meta, 2)
    fail_deployment(meta, ATTESTOR, MODEL, 2, by=ERIN, error="x", at=AT)
    assert standing(meta, 2) is Standing.RETIRED
    assert_consistent(meta, (1, 2))


def test_a_kill_between_the_reading_and_the_swap_of_a_deployment_wins(meta: MemoryMetaStore) -> None:
    deployed(meta, 1)
    make_approved(meta, 2)
    transact = meta.transact

    def after_a_kill(writes: Any) -> None:
        meta.transact = transact  # type: ignore[method-assign]
        kill(meta, 2)
        transact(writes)

    meta.transact = after_a_kill  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="killed"):
        put_in_place(meta, 2)
    assert_consistent(meta, (1, 2))


def test_a_deployment_between_the_reading_and_the_kill_is_killed_all_the_same(meta: MemoryMetaStore) -> None:
    deployed(meta, 1)
    make_approved(meta, 2)
    transact = meta.transact

    def after_a_deployment(writes: Any) -> None:
        meta.transact = transact  # type: ignore[method-assign]
        put_in_place(meta, 2)
        transact(writes)

    meta.transact = after_a_deployment  # type: ignore[method-assign]
    assert kill(meta, 2).vacated == ("production",)
    assert_consistent(meta, (1, 2))


def test_kills_deployments_and_rollbacks_at_once_leave_one_truth(meta: MemoryMetaStore) -> None:
    numbers = range(1, 9)
    for number in numbers:
        make_approved(meta, number)
    acts = [lambda n=n: put_in_place(meta, n) for n in numbers] + [lambda n=n: kill(meta, n) for n in (2, 4, 6)]
    acts += [lambda: rollback(meta)] * 4

    def attempt(act: Any) -> None:
        try:
            act()
        except AttestryError:
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, random.Random(3).sample(acts, len(acts))))
    for number in (2, 4, 6):
        kill(meta, number)
        assert standing(meta, number) is Standing.RETIRED
    assert_consistent(meta, numbers)


@pytest.mark.parametrize("kind", ["before", "after"])
@pytest.mark.parametrize("point", range(1, 7))
def test_a_kill_cut_off_at_any_call_is_done_by_a_retry(kind: str, point: int) -> None:
    faults = Faults()
    meta, store = MemoryMetaStore(faults), MemoryObjectStore(faults)
    attestor = Attestor(LocalSigner(faults=faults), store)
    deployed(meta, 1, 2)
    faults.clear()
    getattr(faults, f"fail_{kind}")(point)
    with pytest.raises(UnavailableError):
        kill(meta, 2, attestor)
    assert_consistent(meta, (1, 2))
    kill(meta, 2, attestor)
    assert standing(meta, 2) is Standing.RETIRED
    assert kinds(meta, 2).count("version.killed") == 1
    assert_consistent(meta, (1, 2))


def test_what_is_not_there_cannot_be_killed(meta: MemoryMetaStore) -> None:
    with pytest.raises(NotFoundError):
        kill(meta, 1)


def test_a_retired_version_leaves_with_its_reason_and_can_still_be_killed(meta: MemoryMetaStore) -> None:
    make_approved(meta, 1)
    assert retire(meta, 1).changed is True
    assert load_version(meta, MODEL, 1).retirement["kind"] == "version.retired"
    assert retire(meta, 1).changed is False
    assert kill(meta, 1).changed is True
    assert retire(meta, 1).changed is False
    assert kinds(meta, 1)[-2:] == ["version.retired", "version.killed"]


def test_what_stands_deployed_is_retired_only_when_that_is_said(meta: MemoryMetaStore) -> None:
    deployed(meta, 1)
    for on in (None, date(2026, 2, 1)):
        with pytest.raises(ConflictError, match="stands deployed"):
            retire(meta, 1, on=on)
    assert retire(meta, 1, even_if_deployed=True).vacated == ("production",)
    assert_consistent(meta, (1,))
    with pytest.raises(NotFoundError, match="retired"):
        current_pointer(meta, MODEL, "production")


def test_a_retirement_in_the_past_is_refused_and_one_today_is_now(meta: MemoryMetaStore) -> None:
    make_approved(meta, 1)
    with pytest.raises(InvalidInputError) as caught:
        retire(meta, 1, on=date(2026, 1, 1))
    assert caught.value.problems[0].field == "on"
    assert retire(meta, 1, on=date(2026, 1, 2)).version.standing is Standing.RETIRED


def test_a_scheduled_retirement_is_an_event_and_takes_place_on_its_day(meta: MemoryMetaStore) -> None:
    deployed(meta, 1)
    scheduled = retire(meta, 1, on=date(2026, 3, 1), even_if_deployed=True)
    assert (scheduled.version.standing, scheduled.version.retires_on) == (Standing.DEPLOYED, "2026-03-01")
    assert kinds(meta, 1)[-1] == "retirement.scheduled"
    require_may_sign("operate", "retirement.scheduled", "DEPLOYMENT")
    early, due = datetime.fromisoformat("2026-02-28T23:59:59+00:00"), datetime.fromisoformat("2026-03-01T00:00:00+00:00")
    assert due_retirements(meta, early) == []
    assert retire_due(meta, ATTESTOR, at=early) == ([], [])
    assert retire_due(meta, ATTESTOR, at=due) == (["credit-risk@1"], [])
    assert_consistent(meta, (1,))
    version = load_version(meta, MODEL, 1)
    assert (version.standing, version.retirement["reason"]) == (Standing.RETIRED, "the next one is better")
    assert [k for k in meta.rows if k.partition == RETIREMENTS] == []
    transition = meta.query(f"VERSION#{MODEL}#1", prefix="TRANSITION#", newest_first=True, limit=1)[0]
    assert (transition["data"]["set_by"], transition["data"]["on"]) == ("erin", "2026-03-01")
    assert retire_due(meta, ATTESTOR, at=due) == ([], [])


def test_a_date_is_moved_by_a_later_call_and_dropped_by_a_kill(meta: MemoryMetaStore) -> None:
    make_approved(meta, 1)
    retire(meta, 1, on=date(2026, 3, 1))
    assert retire(meta, 1, on=date(2026, 3, 1)).changed is False
    retire(meta, 1, on=date(2026, 4, 1))
    assert [r["on"] for r in meta.query(RETIREMENTS)] == ["2026-04-01"]
    kill(meta, 1)
    assert meta.query(RETIREMENTS) == []
    with pytest.raises(ConflictError, match="killed"):
        retire(meta, 1, on=date(2026, 5, 1))


def test_a_version_whose_day_has_come_is_not_deployed_though_nobody_has_retired_it_yet(meta: MemoryMetaStore) -> None:
    deployed(meta, 1, 2)
    retire(meta, 1, on=date(2026, 3, 1))
    later = datetime.fromisoformat("2026-03-01T00:00:00+00:00")
    with pytest.raises(ConflictError, match="2026-03-01"):
        rollback(meta, at=later)
    assert_consistent(meta, (1, 2))


def test_a_retirement_row_written_by_hand_retires_nothing(meta: MemoryMetaStore) -> None:
    deployed(meta, 1)
    row = {"model": MODEL, "number": 1, "on": "2026-01-01", "reason": "r", "set_by": "mallory", "set_at": "x"}
    meta.transact([Put(Key(RETIREMENTS, f"2026-01-01#{MODEL}#1"), row), Put(Key(RETIREMENTS, "2026-01-01#x#1"), {**row, "model": "x"})])
    retired, errors = retire_due(meta, ATTESTOR, at=AT)
    assert (retired, len(errors)) == ([], 2)
    assert standing(meta, 1) is Standing.DEPLOYED


def test_gates_compare_with_what_is_kept_while_nothing_is_deployed(meta: MemoryMetaStore) -> None:
    deployed(meta, 1, 2)
    kill(meta, 2)
    compared: Version | None = _deployed(meta, MODEL, "production")
    assert compared is not None
    assert compared.number == 1


def test_a_running_pipeline_of_a_killed_version_ends_at_its_next_record() -> None:
    flow = Flow()
    version = flow.register_example()
    flow.build_environments(version)
    flow.prepare(version, Stage.PROCESSING)
    result = flow.run(flow.head(version), Stage.PROCESSING)
    kill_version(flow.meta, flow.attestor, version.model, 1, reason="wrong data", by=ERIN, at=AT)
    before = set(flow.store.versions)
    outcome = flow.record(version, Stage.PROCESSING, result)
    assert (outcome["outcome"], "killed" in outcome["error"]) == ("FAILED", True)
    assert set(flow.store.versions) == before, "what the script made is not taken"
    row = flow.meta.rows[stage_key(version.model, 1, Stage.PROCESSING, 1)]
    assert (row["status"], "wrong data" in row["error"]) == ("FAILED", True)
    assert flow.record(version, Stage.PROCESSING, result)["outcome"] == "FAILED"
    for stage in (Stage.PROCESSING, Stage.TRAINING):
        with pytest.raises(ConflictError, match="its pipeline ends here"):
            flow.prepare(version, stage, 2)
        assert flow.record(version, stage, result, 2)["outcome"] == "FAILED"
    assert flow.head(version).standing is Standing.RETIRED


def test_a_version_killed_while_its_stage_is_being_recorded_is_not_moved_on() -> None:
    flow = Flow()
    version = flow.register_example()
    flow.build_environments(version)
    flow.prepare(version, Stage.PROCESSING)
    result = flow.run(flow.head(version), Stage.PROCESSING)
    transact = flow.meta.transact

    def after_a_kill(writes: Any) -> None:
        flow.meta.transact = transact  # type: ignore[method-assign]
        kill_version(flow.meta, flow.attestor, version.model, 1, reason="wrong data", by=ERIN, at=AT)
        transact(writes)

    flow.meta.transact = after_a_kill  # type: ignore[method-assign]
    with pytest.raises(ConflictError):
        flow.record(version, Stage.PROCESSING, result)
    assert flow.record(version, Stage.PROCESSING, result)["outcome"] == "FAILED"
    assert flow.head(version).standing is Standing.RETIRED


def staged(meta: MemoryMetaStore, number: int) -> None:
    make_approved(meta, number, deployment_environment="staging", promotes_to=("production",))
    swap_pointer(meta, ATTESTOR, MODEL, number, environment="staging", capture_rate="1", by=ERIN, reason="approved", at=AT)


def drill(meta: MemoryMetaStore, number: int) -> Revocation:
    return kill_version(meta, ATTESTOR, MODEL, number, reason="the quarterly drill", by=ERIN, at=AT, drill=True)


def test_a_drill_is_the_kill_itself_and_its_move_says_where_it_was_drilled(meta: MemoryMetaStore) -> None:
    deployed(meta, 1)
    staged(meta, 2)
    assert drill(meta, 2).vacated == ("staging",)
    assert standing(meta, 2) is Standing.RETIRED
    moved = meta.query(f"VERSION#{MODEL}#2", prefix="TRANSITION#")[-1]
    assert (moved["kind"], moved["data"]) == ("version.killed", {"vacated": ["staging"], "drill": "staging"})
    assert current_pointer(meta, MODEL, "production")["number"] == 1
    with pytest.raises(NotFoundError, match="the quarterly drill"):
        current_pointer(meta, MODEL, "staging")
    assert drill(meta, 2).changed is False


def test_a_drill_takes_nothing_out_of_use_that_production_knows(meta: MemoryMetaStore) -> None:
    deployed(meta, 1, 2)
    for number in (1, 2):
        with pytest.raises(ConflictError, match=f"credit-risk@{number} belongs to production, and a drill takes nothing out of use there"):
            drill(meta, number)
    assert (standing(meta, 1), standing(meta, 2)) == (Standing.ROLLBACK, Standing.DEPLOYED)


def test_a_version_that_was_promoted_while_the_drill_began_is_left_in_production(meta: MemoryMetaStore) -> None:
    staged(meta, 1)
    transact, promoted = meta.transact, list[int]()

    def promote_first(writes: Sequence[Write]) -> None:
        if not promoted:
            promoted.append(1)
            swap_pointer(meta, ATTESTOR, MODEL, 1, environment="production", capture_rate="1", by=ERIN, reason="promoted", at=AT)
        transact(writes)

    meta.transact = promote_first  # type: ignore[method-assign]  # what happens between the reading and the writing of the drill
    with pytest.raises(ConflictError, match="belongs to production"):
        drill(meta, 1)
    assert current_pointer(meta, MODEL, "production")["number"] == 1


def test_a_drill_of_what_serves_nowhere_shows_nothing_and_is_refused(meta: MemoryMetaStore) -> None:
    make_approved(meta, 1, deployment_environment="staging")
    with pytest.raises(ConflictError, match="a drill needs a version that stands deployed and answers"):
        drill(meta, 1)
    assert standing(meta, 1) is Standing.APPROVED


def test_a_kill_that_is_no_drill_does_not_say_so(meta: MemoryMetaStore) -> None:
    deployed(meta, 1)
    kill(meta, 1)
    assert "drill" not in meta.query(f"VERSION#{MODEL}#1", prefix="TRANSITION#")[-1]["data"]
