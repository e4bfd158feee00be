"""Telling the ledger outside: in order, at least once, nothing left out whatever is cut off, and nothing that the ledger does not hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from attestry.aws.event_bus import EventBridgeBus
from attestry.aws.settings import Settings
from attestry.aws.world import World as AwsWorld
from attestry.domain.errors import IntegrityError, UnavailableError
from attestry.domain.telling import SOURCE, Told, model_of
from attestry.evidence.leaf import Leaf
from attestry.ports import Key, Put, When
from attestry.usecases.ledger import LedgerReader
from attestry.usecases.tell import CHUNK, BusOutlet, Teller, cursor_key
from lambdas import sequence, tell
from tests.evidence_world import EvidenceWorld
from tests.fakes import Faults, MemoryFunctions
from tests.unit.ledger_world import ORIGIN, World


class Bus:
    """`attestry.ports.EventBus` that keeps what it takes."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.taken: list[Told] = []
        self.faults = faults or Faults()
        self.silent = False

    def put(self, told: Sequence[Told]) -> None:
        if self.silent:
            raise UnavailableError("the bus does not answer")
        self.faults.run("Bus.put", lambda: self.taken.extend(told))

    @property
    def indexes(self) -> list[int]:
        return [one.index for one in self.taken]


class Unasked:
    """A queue that nothing is sent to, because there are no webhooks."""

    def send(self, messages: Sequence[Any]) -> None:
        pytest.fail(f"{len(messages)} messages were sent")


@pytest.fixture
def ledger() -> World:
    world = World()
    world.add_events(7)
    world.run()
    return world


def teller(ledger: World, *buses: Bus, **changes: Any) -> Teller:
    return Teller(ledger.meta, ledger.store, [BusOutlet(bus, f"B{n}") for n, bus in enumerate(buses)], **changes)


def test_every_leaf_is_told_once_in_the_ledger_s_order_and_with_its_place(ledger: World) -> None:
    bus = Bus()
    assert teller(ledger, bus).run().told == {"B0": 7}
    leaves = [Leaf.parse(raw) for raw in LedgerReader(ledger.store).leaves(0, 7)]
    assert [(t.index, t.logged, t.event) for t in bus.taken] == [(n, leaf.logged, leaf.event) for n, leaf in enumerate(leaves)]
    assert teller(ledger, bus).run().told == {"B0": 0}
    ledger.add_events(2)
    ledger.run()
    teller(ledger, bus).run()
    assert bus.indexes == list(range(9))


def test_what_waits_in_the_outbox_is_not_told(ledger: World) -> None:
    bus = Bus()
    ledger.add_events(3)
    teller(ledger, bus).run()
    assert bus.indexes == list(range(7))


def test_before_the_ledger_has_begun_there_is_nothing_to_tell() -> None:
    assert teller(World(), Bus()).run().told == {}


def test_what_is_told_has_the_event_s_bytes_as_they_stand_in_the_leaf(ledger: World) -> None:
    bus = Bus()
    teller(ledger, bus).run()
    for told in bus.taken:
        leaf = Leaf.parse(LedgerReader(ledger.store).leaf(told.index, 7))
        assert leaf.event_bytes in told.detail_bytes()
        assert leaf.event_bytes in told.body()
        assert json.loads(told.body()) == {"type": told.kind, "timestamp": leaf.logged, "data": json.loads(told.detail_bytes())}


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_between_any_two_calls_repeats_and_never_leaves_anything_out(after: bool) -> None:
    for n in range(1, 30):
        world, faults = World(), Faults()
        world.seed(CHUNK * 2 + 60)
        world.meta.faults = world.store.faults = faults
        bus = Bus(faults)
        (faults.fail_after if after else faults.fail_before)(n, error=KeyboardInterrupt())
        try:
            teller(world, bus).run()
        except KeyboardInterrupt:
            faults.clear()
            teller(world, bus).run()
        else:
            assert n > 6, "every call of an undisturbed run was cut off once"
            break
        assert sorted(set(bus.indexes)) == list(range(CHUNK * 2 + 60))
        first_seen = list(dict.fromkeys(bus.indexes))
        assert first_seen == sorted(first_seen)
        assert len(bus.taken) <= CHUNK * 3 + 60
    else:
        pytest.fail("the run never ended unharmed")


def test_of_two_runs_at_once_one_moves_the_cursor_and_the_other_steps_back(ledger: World) -> None:
    other = Bus()

    class Overtaken(Bus):
        def put(self, told: Sequence[Told]) -> None:
            super().put(told)
            teller(ledger, other).run()

    bus = Overtaken()
    assert teller(ledger, bus).run().contended == ["B0"]
    assert bus.indexes == other.indexes == list(range(7))
    row = ledger.meta.get(cursor_key("B0"))
    assert row is not None
    assert (row["next"], row["rev"]) == (7, 1)


def test_an_outlet_that_does_not_answer_holds_up_no_other_and_is_told_later(ledger: World) -> None:
    silent, bus = Bus(), Bus()
    silent.silent = True
    done = teller(ledger, silent, bus).run()
    assert (done.errors, done.waiting, bus.indexes) == ({"B0": "the bus does not answer"}, {"B0": 7, "B1": 0}, list(range(7)))
    silent.silent = False
    teller(ledger, silent, bus).run()
    assert silent.indexes == bus.indexes == list(range(7))


def test_a_run_whose_time_is_up_ends_where_the_next_one_begins() -> None:
    world, bus = World(), Bus()
    world.seed(CHUNK + 5)
    ticks = iter(range(100))
    done = teller(world, bus, monotonic=lambda: float(next(ticks))).run(seconds=1.5)
    assert (done.told, done.waiting) == ({"B0": CHUNK}, {"B0": 5})
    teller(world, bus).run()
    assert bus.indexes == list(range(CHUNK + 5))


def test_a_ledger_that_was_set_back_is_not_told_anew(ledger: World) -> None:
    bus = Bus()
    ledger.meta._apply([Put(cursor_key("B0"), {"next": 9, "rev": 4}, When())])
    with pytest.raises(IntegrityError, match="9 leaves were told by B0, but 7 are published"):
        teller(ledger, bus).run()
    assert bus.taken == []


@pytest.mark.parametrize(
    ("kind", "subject", "data", "model"),
    [
        ("version.approved", "credit-risk@3", {}, "credit-risk"),
        ("capture.set", "credit-risk/production", {}, "credit-risk"),
        ("model.placed", "placed/credit-risk", {}, "credit-risk"),
        ("alias.set", "model/credit-risk/aliases", {}, "credit-risk"),
        ("conflict.declared", "conflict/credit-risk/erin", {"model": "credit-risk"}, "credit-risk"),
        ("key.delegated", "key/abc", {"version": f"urn:attestry:credit-risk:3:sha256:{'0' * 64}"}, "credit-risk"),
        ("key.sealed", "key/abc", {"model": "credit-risk"}, "credit-risk"),
        ("finding.opened", "finding/1", {"model": ""}, ""),
        ("person.changed", "person/dana@example.org", {}, ""),
        ("grant.given", "grant/login/arn:x@3", {}, ""),
        ("policy.published", "policy/standard", {}, ""),
        ("root.published", "root", {}, ""),
    ],
)
def test_an_event_names_the_model_that_it_is_about(kind: str, subject: str, data: dict[str, Any], model: str) -> None:
    assert model_of({"kind": kind, "subject": subject, "data": data}) == model


class Events:
    """EventBridge's PutEvents: takes at most ten, and refuses what it is told to, in an answer that is no error."""

    def __init__(self, *refused: set[int]) -> None:
        self.refused = list(refused)
        self.entries: list[list[dict[str, Any]]] = []

    def put_events(self, *, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 - boto3's name
        assert 0 < len(Entries) <= 10
        self.entries.append(Entries)
        bad = self.refused.pop(0) if self.refused else set()
        results = [{"ErrorCode": "ThrottlingException"} if n in bad else {"EventId": str(n)} for n in range(len(Entries))]
        return {"FailedEntryCount": len(bad), "Entries": results}


def told(count: int) -> list[Told]:
    return [Told(n, "2026-01-01T00:00:00.000000Z", {"id": f"{n:064x}", "kind": "version.approved"}) for n in range(count)]


def put(client: Events, count: int) -> None:
    EventBridgeBus(client, "attestry-events", sleep=lambda _: None).put(told(count))  # type: ignore[arg-type]


def test_the_bus_is_given_ten_at_a_time_in_order_as_documented() -> None:
    client = Events()
    put(client, 23)
    assert [len(batch) for batch in client.entries] == [10, 10, 3]
    entries = [entry for batch in client.entries for entry in batch]
    assert [json.loads(e["Detail"])["index"] for e in entries] == list(range(23))
    first = entries[0]
    assert (first["EventBusName"], first["Source"], first["DetailType"]) == ("attestry-events", SOURCE, "version.approved")
    assert first["Time"] == datetime.fromisoformat("2026-01-01T00:00:00+00:00")


def test_what_the_bus_refuses_within_an_answer_is_put_again_and_nothing_is_told_before_it() -> None:
    client = Events({1, 4}, {0})
    put(client, 12)
    assert [[json.loads(e["Detail"])["index"] for e in batch] for batch in client.entries] == [list(range(10)), [1, 4], [1], [10, 11]]


def test_a_bus_that_goes_on_refusing_is_an_error_and_the_rest_is_not_put() -> None:
    client = Events({3}, {0}, {0})
    with pytest.raises(UnavailableError, match="did not take 1 of 10 events: ThrottlingException"):
        put(client, 20)
    assert len(client.entries) == 3


def test_the_function_tells_what_stands_in_the_ledger_and_raises_where_an_outlet_is_silent(
    ledger: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aws, bus = AwsWorld(Settings({"ATTESTRY_PREFIX": "attestry", "ATTESTRY_DELIVERIES_URL": "q"})), Bus()
    aws.__dict__.update(meta=ledger.meta, store=ledger.store, bus=bus, deliveries=Unasked())
    monkeypatch.setattr(tell, "world", aws)
    bus.silent = True
    with pytest.raises(UnavailableError, match="BUS: the bus does not answer"):
        tell.handler({}, None)
    bus.silent = False
    assert tell.handler({"anything": 1}, None)["told"] == {"BUS": 7, "WEBHOOKS": 0}
    counted = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "EventsUntold" in line]
    assert [(c["EventsTold"], c["EventsUntold"]) for c in counted] == [([7.0], [1.0]), ([7.0], [0.0])]


@pytest.mark.parametrize("answers", [True, False])
def test_the_sequencer_wakes_who_tells_once_it_has_published_and_needs_no_answer(
    ledger: World, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    faults, functions = Faults(), MemoryFunctions()
    functions.faults = faults
    aws = AwsWorld(Settings({"ATTESTRY_LEDGER_ORIGIN": ORIGIN, "ATTESTRY_TELL_FUNCTION": "tell"}))
    ports = {"meta": ledger.meta, "store": ledger.store, "ledger_signer": ledger.signer, "witnesses": ledger.witnesses}
    aws.__dict__.update(ports, clock=ledger.clock, functions=functions)
    monkeypatch.setattr(sequence, "world", aws)
    sequence.sequencer.cache_clear()
    sequence.handler({}, None)
    assert functions.sent == []
    ledger.add_events(1)
    if not answers:
        faults.fail_before()
    assert sequence.handler({}, None)["appended"] == 1
    assert functions.sent == ([("tell", {})] if answers else [])
    sequence.sequencer.cache_clear()


def test_a_registry_s_whole_story_is_told() -> None:
    world, bus = EvidenceWorld(), Bus()
    world.deploy()
    world.seal()
    Teller(world.meta, world.store, [BusOutlet(bus)]).run()
    kinds = {told.kind for told in bus.taken}
    assert {"person.changed", "root.published", "candidate.registered", "version.approved", "version.deployed"} <= kinds
    assert {told.model for told in bus.taken if told.kind.startswith(("version.", "stage.", "candidate."))} == {"tumour-diagnosis"}
    assert Key("TOLD", "BUS") in world.meta.rows
