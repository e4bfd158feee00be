"""Audited acts: what was denied and who read what; bounded rows, and their way into the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from attestry.aws.audit import AuditNotes
from attestry.aws.http import Request, read_request, serve
from attestry.aws.rate_limit import CallerShares
from attestry.domain.audit import AUDIT, MAX_OBJECTS, MAX_ROWS, AuditedAct, Outcome, Tally
from attestry.domain.errors import ForbiddenError, IntegrityError, InvalidInputError, UnavailableError, UnprovenIdentityError
from attestry.domain.principal import Principal
from attestry.evidence.audit_batch import read_batch
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.ports import Key, Put, Update, When
from attestry.usecases.audit import HEAD, drain_audit
from attestry.usecases.records import OUTBOX
from tests.fakes import Faults, FixedClock, Killed, MemoryMetaStore, MemoryObjectStore

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
LATER = NOW + timedelta(minutes=3)
ARN = "arn:aws:sts::123456789012:assumed-role/attestry-scientist/dana"
DANA = Principal(ARN, "AROA:dana", "aws:123456789012", "AWS_IAM SigV4", "192.0.2.7", "dana", ("scientist",))
DECISION = "POST /v1/models/{model}/versions/{number}/decision"


def act(on: str = "m@1", outcome: Outcome = Outcome.DENIED, who: Principal = DANA, **more: Any) -> AuditedAct:
    return AuditedAct(who, DECISION, on, outcome, **more)


def event_of(number: str = "1", user: str = ARN) -> dict[str, Any]:
    identity = {"userArn": user, "userId": "AROA:dana"}
    return {
        "version": "2.0",
        "routeKey": DECISION,
        "pathParameters": {"model": "m", "number": number},
        "requestContext": {"requestId": "r1", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": identity}},
    }


class Scene:
    """A table, a store, and one function that refuses."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.meta, self.store, self.clock = MemoryMetaStore(self.faults), MemoryObjectStore(self.faults), FixedClock(NOW)
        self.notes = self.process()

    def process(self) -> AuditNotes:
        return AuditNotes(self.meta, self.clock, account="123456789012", prefix="attestry")

    def refuse(self, number: str = "1", *, user: str = ARN, error: Exception | None = None, notes: AuditNotes | None = None) -> int:
        def route(_: Request) -> Any:
            raise error or ForbiddenError("no")

        answer = serve(event_of(number, user), None, {DECISION: route}, guard=None, on_denied=(notes or self.notes).denied)
        return int(answer["statusCode"])

    def rows(self) -> list[dict[str, Any]]:
        return [row for key, row in sorted(self.meta.rows.items(), key=lambda kv: kv[0].sort) if key.partition == AUDIT]

    def events(self) -> list[dict[str, Any]]:
        found = [parse_canonical(row["event"]) for key, row in self.meta.rows.items() if key.partition == OUTBOX]
        return sorted(found, key=lambda e: e["sequence"])

    def acts(self) -> list[dict[str, Any]]:
        """Everything that events name."""
        return [
            line
            for event in self.events()
            for line in read_batch(self.store.read(event["data"]["object"], max_bytes=10**7), event["data"]["sha256"])
        ]


@pytest.fixture(autouse=True)
def no_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger here calls more often than the gateway would let them within a second."""
    monkeypatch.setattr("attestry.aws.http.SHARES", CallerShares(rate=1e9, burst=1e9))


@pytest.fixture
def scene() -> Scene:
    return Scene()


# Noting down


@pytest.mark.parametrize("error", [ForbiddenError("no"), UnprovenIdentityError("who")])
def test_a_denied_attempt_is_noted_with_principal_address_method_and_reason(scene: Scene, error: ForbiddenError) -> None:
    assert scene.refuse("7", error=error) == 403
    (row,) = scene.rows()
    assert row["principal"] == DANA.to_item()
    assert (row["act"], row["object"], row["outcome"], row["reason"]) == (DECISION, "model=m, number=7", "denied", error.code)
    assert (row["count"], row["minute"]) == (1, "2026-03-01T12:00")


def test_an_answer_that_is_no_refusal_is_not_noted(scene: Scene) -> None:
    assert scene.refuse(error=InvalidInputError.of("x", "y", "z")) == 400
    assert scene.refuse(error=RuntimeError("bug")) == 500
    assert scene.rows() == []


@pytest.mark.parametrize("error", [UnavailableError("no answer"), RuntimeError("bug")])
def test_a_note_that_cannot_be_written_changes_nothing_but_the_log(
    scene: Scene, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    scene.faults.fail_before(error=error)
    assert scene.refuse() == 403
    assert "could not be noted down" in caplog.text


def test_a_note_that_is_lost_is_counted_for_the_alarm(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.faults.fail_before(error=UnavailableError("no answer"))
    assert scene.refuse() == 403
    counted = next(json.loads(line) for line in capsys.readouterr().out.splitlines() if "AuditNotesLost" in line)
    assert (counted["AuditNotesLost"], counted["service"], counted["deployment"]) == ([1.0], "audit", "attestry")
    scene.faults.clear()
    assert scene.refuse() == 403
    assert "AuditNotesLost" not in capsys.readouterr().out


def test_a_lost_note_that_cannot_be_counted_changes_nothing_but_the_log(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no metrics")

    monkeypatch.setattr("attestry.aws.metrics.count", broken)
    scene.faults.fail_before(error=UnavailableError("no answer"))
    assert scene.refuse() == 403
    assert "could not be counted" in caplog.text


def test_a_hook_that_fails_changes_nothing_but_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def route(_: Request) -> Any:
        raise ForbiddenError("no")

    def broken(*_: Any) -> None:
        raise RuntimeError("no settings")

    assert serve(event_of(), None, {DECISION: route}, guard=None, on_denied=broken)["statusCode"] == 403
    assert "could not be noted down" in caplog.text


def test_a_request_without_an_identity_is_answered_all_the_same(scene: Scene) -> None:
    event = event_of()
    event["requestContext"]["authorizer"] = {}

    def route(_: Request) -> Any:
        raise UnprovenIdentityError("no identity")

    assert serve(event, None, {DECISION: route}, guard=None, on_denied=scene.notes.denied)["statusCode"] == 403
    assert scene.rows() == []


def test_a_read_is_noted(scene: Scene) -> None:
    scene.notes.allowed(read_request(event_of()), "prediction.trace", "k-1")
    (row,) = scene.rows()
    assert (row["act"], row["object"], row["outcome"], row["principal"]["login"]) == ("prediction.trace", "k-1", "allowed", "dana")


def test_the_same_again_counts_up_in_one_row_and_soon_costs_no_write(scene: Scene) -> None:
    for _ in range(1_000):
        scene.refuse()
    (row,) = scene.rows()
    assert row["count"] == 512
    assert len(scene.faults.calls) == 16 + 5  # 32, 64, 128, 256, 512


def test_a_count_is_exact_up_to_sixteen() -> None:
    tally = Tally()
    rows = [tally.count(act(), NOW) for _ in range(16)]
    assert [row.item["count"] for row in rows if row] == list(range(1, 17))


def test_a_stranger_who_tries_many_objects_fills_a_bounded_number_of_rows(scene: Scene) -> None:
    for number in range(200):
        scene.refuse(str(number))
    rows = scene.rows()
    assert len(rows) == MAX_OBJECTS[Outcome.DENIED] + 1
    other = next(row for row in rows if row["object"] == "other")
    assert other["principal"]["login"] == "dana"
    assert 90 <= other["count"] <= 180


def test_what_one_stranger_does_leaves_room_for_the_others() -> None:
    tally = Tally()
    for number in range(100):
        tally.count(act(f"m@{number}"), NOW)
    row = tally.count(act("m@1", who=replace(DANA, subject="arn:erin", login="erin")), NOW)
    assert row is not None
    assert (row.item["object"], row.item["principal"]["login"]) == ("m@1", "erin")
    read = tally.count(act("k-1", Outcome.ALLOWED), NOW)
    assert read is not None
    assert read.item["object"] == "k-1"


def test_many_principals_fill_a_bounded_number_of_rows() -> None:
    tally = Tally()
    sorts = set()
    for number in range(MAX_ROWS + 500):
        row = tally.count(act(who=replace(DANA, subject=f"arn:{number}")), NOW)
        sorts |= {row.sort} if row else set()
    assert len(sorts) == MAX_ROWS + 1


def test_a_new_minute_begins_to_count_anew() -> None:
    tally = Tally()
    first, second = tally.count(act(), NOW), tally.count(act(), NOW + timedelta(minutes=1))
    assert first is not None
    assert second is not None
    assert first.sort != second.sort
    assert second.item["count"] == 1


def test_two_processes_never_write_the_same_row(scene: Scene) -> None:
    other = scene.process()
    scene.refuse()
    scene.refuse(notes=other)
    assert [row["count"] for row in scene.rows()] == [1, 1]


def test_what_a_stranger_sends_is_stored_as_plain_text_of_bounded_length() -> None:
    row = Tally().count(act("x\n\x1b[31m\u202e" + "y" * 5_000), NOW)
    assert row is not None
    assert row.item["object"].startswith("x\ufffd\ufffd[31m\ufffdyyy")
    assert len(row.item["object"]) == 256
    same = Tally().count(act("a", reason="b"), NOW)
    assert same is not None


def test_acts_that_differ_in_one_part_are_told_apart() -> None:
    acts = [act(), act("m@2"), act(reason="forbidden"), act(outcome=Outcome.ALLOWED), act(who=replace(DANA, address="192.0.2.8"))]
    assert len({a.digest for a in acts}) == len(acts)


# Into the ledger


def test_past_minutes_become_one_retained_object_and_one_event(scene: Scene) -> None:
    scene.refuse("1")
    scene.refuse("2")
    scene.refuse("2")
    drained = drain_audit(scene.meta, scene.store, LATER)
    assert drained is not None
    assert (drained.number, drained.count, drained.more) == (1, 2, False)
    (event,) = scene.events()
    assert (event["kind"], event["subject"], event["sequence"]) == ("audit.batch", "audit", 1)
    data = event["data"]
    assert data["object"] == f"ledger/audit/{data['sha256']}.jsonl"
    assert (data["count"], data["from"], data["to"]) == (2, "2026-03-01T12:00", "2026-03-01T12:00")
    assert scene.store.versions[data["object"]][0].retained
    assert sorted((line["object"], line["count"]) for line in scene.acts()) == [("model=m, number=1", 1), ("model=m, number=2", 2)]
    assert scene.rows() == []
    assert "pending" not in scene.meta.rows[HEAD]


def test_a_minute_that_may_still_be_written_is_left_alone(scene: Scene) -> None:
    scene.refuse()
    for at in (NOW, NOW + timedelta(seconds=89)):
        assert drain_audit(scene.meta, scene.store, at) is None
    assert scene.store.versions == {}
    assert drain_audit(scene.meta, scene.store, NOW + timedelta(seconds=90)) is not None


def test_nothing_makes_no_event(scene: Scene) -> None:
    assert drain_audit(scene.meta, scene.store, LATER) is None
    assert scene.meta.rows == {}


def test_a_thousand_rows_at_a_time(scene: Scene) -> None:
    tally = Tally()
    for number in range(1_300):
        row = tally.count(act(str(number), Outcome.ALLOWED, replace(DANA, subject=f"arn:{number % 3}")), NOW)
        assert row is not None
        scene.meta.transact([Put(Key(AUDIT, row.sort), row.item, When())])
    first = drain_audit(scene.meta, scene.store, LATER)
    second = drain_audit(scene.meta, scene.store, LATER)
    assert first is not None
    assert second is not None
    assert (first.count, first.more, second.count, second.more) == (1_000, True, 300, False)
    assert len({line["object"] for line in scene.acts()}) == 1_300
    assert scene.rows() == []
    assert drain_audit(scene.meta, scene.store, LATER) is None


@pytest.mark.parametrize("error", [UnavailableError("no answer"), Killed()])
@pytest.mark.parametrize("after", [False, True])
def test_after_a_crash_anywhere_every_act_is_in_the_ledger_once(error: BaseException, after: bool) -> None:
    points = 0
    for n in range(1, 40):
        scene = Scene()
        for number in range(130):
            scene.refuse(str(number), user=f"{ARN}{number % 13}")
        before = len(scene.rows())
        scene.faults.clear()
        (scene.faults.fail_after if after else scene.faults.fail_before)(n, error=error)
        try:
            drain_audit(scene.meta, scene.store, LATER)
            done = True
        except (Killed, UnavailableError):
            done = False
        scene.faults.clear()
        drain_audit(scene.meta, scene.store, LATER)
        assert scene.rows() == []
        assert len(scene.acts()) == before
        assert len({line["sk"] for line in scene.acts()}) == before
        assert len(scene.events()) == 1
        assert len(scene.store.versions) == 1
        points += 1
        if done:
            break
    assert points > 8


def test_a_row_that_is_written_once_more_meanwhile_is_taken_up_again(scene: Scene) -> None:
    for number in ("1", "2"):
        scene.refuse(number)
    late = scene.rows()[0]
    real = scene.meta.transact
    done: list[int] = []

    def meanwhile(writes: Any) -> None:
        real(writes)
        if not done:
            done.append(1)
            real([Update(Key(AUDIT, late["sk"]), {"count": 2})])

    scene.meta.transact = meanwhile  # type: ignore[method-assign]
    drain_audit(scene.meta, scene.store, LATER)
    assert [row["count"] for row in scene.rows()] == [2]
    drain_audit(scene.meta, scene.store, LATER)
    assert sorted(line["count"] for line in scene.acts() if line["sk"] == late["sk"]) == [1, 2]
    assert scene.rows() == []


@pytest.mark.parametrize(
    "planted",
    [{"count": b"bytes have no canonical form"}, {"note": "no count at all"}, {"count": 1, "note": "x" * 300_000}, {"count": 2**60}],
    ids=["bytes", "no count", "too large", "too large a number"],
)
def test_a_row_that_was_planted_by_hand_holds_nothing_up_and_is_told_by_its_digest(scene: Scene, planted: dict[str, Any]) -> None:
    scene.refuse()
    scene.meta.transact([Put(Key(AUDIT, "2026-01-01T00:00#planted"), planted)])
    at = NOW + timedelta(minutes=5)
    assert drain_audit(scene.meta, scene.store, at) is not None
    assert scene.rows() == []
    told = {act["sk"]: act for act in scene.acts()}
    assert len(told) == 2
    assert len(canonical_bytes(told["2026-01-01T00:00#planted"])) < 20_000
    assert drain_audit(scene.meta, scene.store, at) is None


def test_of_two_runs_at_once_one_takes_all(scene: Scene) -> None:
    scene.refuse()
    real: Callable[[Any], None] = scene.meta.transact
    done: list[int] = []

    def race(writes: Any) -> None:
        if not done:
            done.append(1)
            assert drain_audit(scene.meta, scene.store, LATER) is not None
        real(writes)

    scene.meta.transact = race  # type: ignore[method-assign]
    assert drain_audit(scene.meta, scene.store, LATER) is None
    assert len(scene.events()) == 1
    assert len(scene.acts()) == 1


def test_a_batch_that_was_changed_is_noticed(scene: Scene) -> None:
    scene.refuse()
    drained = drain_audit(scene.meta, scene.store, LATER)
    assert drained is not None
    sha256 = drained.object.rpartition("/")[2].removesuffix(".jsonl")
    data = scene.store.read(drained.object, max_bytes=10**6)
    assert json.loads(data)["principal"]["login"] == "dana"
    with pytest.raises(IntegrityError):
        read_batch(data.replace(b"dana", b"erin"), sha256)


def test_an_unfinished_run_over_a_changed_object_deletes_nothing(scene: Scene) -> None:
    scene.refuse()
    scene.faults.fail_before(1, method="read", error=Killed())
    with pytest.raises(Killed):
        drain_audit(scene.meta, scene.store, LATER)
    (key,) = scene.store.versions
    scene.store.tamper(key, b"{}\n")
    with pytest.raises(IntegrityError):
        drain_audit(scene.meta, scene.store, LATER)
    assert len(scene.rows()) == 1
