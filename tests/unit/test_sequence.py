"""The sequencer: order, once, under crashes at any call, against administrators, and beside another sequencer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from attestry.aws.rows import unmarshal
from attestry.domain.events import MAX_EVENT_BYTES
from attestry.evidence.ledger_batch import MAX_BATCH_LEAVES
from attestry.evidence.note import Checkpoint
from attestry.evidence.tlog import RightEdge
from attestry.ports import Key
from attestry.usecases.ledger_head import COMMIT
from tests.unit.ledger_world import (
    ORIGIN,
    Process,
    Storm,
    World,
    another_content,
    check,
    check_all_is_there,
    settle,
)

SCENARIOS, ROUNDS = 72, 30


def blow(seed: int, *, size: int = 0, rounds: int = ROUNDS) -> Storm:
    world = World()
    if size:
        world.seed(size)
    storm = Storm(world, seed)
    try:
        storm.blow(rounds)
        settle(world)
        check_all_is_there(world)
        assert len(world.conflicts()) == storm.bad
    except BaseException as error:
        error.add_note(f"seed {seed}, size {size}, rounds {rounds}")
        raise
    return storm


@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2, 3))])
def test_two_sequencers_killed_thousands_of_times_lose_nothing_repeat_nothing_and_never_fork(part: int) -> None:
    storms = [blow(1000 * part + n) for n in range(SCENARIOS)]
    assert sum(s.deaths for s in storms) >= 2500
    assert sum(s.contended for s in storms) >= 20


@pytest.mark.parametrize(("size", "scenarios"), [(250, 6), (506, 6), (65530, 2), (131066, 1)])
def test_killed_sequencers_grow_a_ledger_across_the_edges_of_its_tiles(size: int, scenarios: int) -> None:
    storms = [blow(size + n, size=size) for n in range(scenarios)]
    assert all(check(s.world).leaves[size:] for s in storms)


@pytest.mark.long
@pytest.mark.parametrize("part", range(20))
def test_two_sequencers_killed_a_hundred_thousand_times(part: int) -> None:
    storms = [blow(10_000 + 1000 * part + n, size=random.Random(n).choice([0, 0, 0, 250, 506])) for n in range(150)]
    assert sum(s.deaths for s in storms) >= 5000


def test_every_call_of_an_append_may_fail_before_or_after_it_took_effect() -> None:
    calls = Process(random.Random(0), lambda: None)
    counted = World()
    counted.run()
    counted.add_events(3)
    counted.sequencer(calls).run()
    assert calls.calls > 10
    for kind in range(3):
        for number in range(1, calls.calls + 1):
            world = World()
            world.run()
            world.add_events(3)
            process = Process(Rigged(kind), lambda: None)
            process.dies_at = number
            with pytest.raises(BaseException):  # noqa: B017, PT011 - a kill, or a lost answer
                world.sequencer(process).run()
            settle(world)
            check_all_is_there(world)


class Rigged(random.Random):
    """Never gives way, and chooses one kind of death."""

    def __init__(self, kind: int) -> None:
        super().__init__(0)
        self.kind = kind

    def random(self) -> float:
        return 0.9

    def randrange(self, *_: Any) -> int:
        return self.kind


# What an append does


def test_the_first_run_signs_the_empty_ledger_and_publishes_it_witnessed() -> None:
    world = World()
    done = world.run()
    assert (done.size, done.appended, done.lacking) == (0, 0, {})
    assert world.live() == Checkpoint(ORIGIN, 0, RightEdge().root())
    check_all_is_there(world)


def test_events_become_leaves_in_the_order_of_the_outbox_with_one_time() -> None:
    world = World()
    for _ in range(5):
        world.add_events(1)
        world.clock.advance(seconds=1)
    done = world.run()
    leaves = [json.loads(leaf) for leaf in check(world).leaves]
    assert (done.appended, done.batches, done.size) == (5, 1, 5)
    assert [leaf["event"]["data"]["n"] for leaf in leaves] == [1, 2, 3, 4, 5]
    assert len({leaf["logged"] for leaf in leaves}) == 1
    check_all_is_there(world)


def test_more_events_than_a_batch_takes_make_several_batches() -> None:
    world = World()
    world.add_events(MAX_BATCH_LEAVES + 30)
    done = world.run()
    assert (done.appended, done.batches, done.finished) == (MAX_BATCH_LEAVES + 30, 2, True)
    check_all_is_there(world)


def test_a_run_whose_time_is_up_ends_with_the_batch_that_it_began() -> None:
    world = World()
    world.run()
    world.add_events(MAX_BATCH_LEAVES + 30)
    done = world.sequencer().run(seconds=-1)
    assert (done.batches, done.finished) == (1, False)
    settle(world)
    check_all_is_there(world)


def test_the_time_of_a_batch_is_never_before_the_last_one() -> None:
    world = World()
    world.add_events(1)
    world.run()
    world.clock.advance(hours=-5)
    world.add_events(1)
    world.run()
    first, second = (json.loads(leaf)["logged"] for leaf in check(world).leaves)
    assert first == second


def test_the_time_of_the_last_batch_is_the_leafs_and_not_what_the_row_says() -> None:
    for warm in (False, True):
        world = World()
        sequencer = world.sequencer()
        world.add_events(1)
        sequencer.run()
        world.meta.rows[COMMIT]["logged"] = "2999-01-01T00:00:00.000000Z"
        world.add_events(1)
        (sequencer if warm else world.sequencer()).run()
        assert all(json.loads(leaf)["logged"] < "2027" for leaf in check(world).leaves)


def test_an_idle_run_reads_three_times_and_writes_nothing() -> None:
    world = World()
    world.add_events(3)
    world.run()
    world.meta.faults.clear()
    world.store.faults.clear()
    world.run()
    assert world.meta.faults.calls == ["MemoryMetaStore.get", "MemoryMetaStore.query"]
    assert world.store.faults.calls == ["MemoryObjectStore.read"]


def calls_of_an_append(size: int, *, warm: bool) -> list[str]:
    world = World()
    world.seed(size)
    sequencer = world.sequencer()
    if warm:
        world.add_events(1)
    sequencer.run()
    world.add_events(3)
    for port in (world.meta, world.store):
        port.faults.clear()
    sequencer.run()
    return [*world.meta.faults.calls, *world.store.faults.calls]


@pytest.mark.parametrize("warm", [True, False])
def test_an_append_makes_as_many_calls_on_a_long_ledger_as_on_a_short_one(warm: bool) -> None:
    assert sorted(calls_of_an_append(65600, warm=warm)) == sorted(calls_of_an_append(300, warm=warm))


def test_a_sequencer_that_was_overtaken_between_reading_and_committing_steps_back() -> None:
    world = World()
    world.add_events(2)
    world.run()
    world.add_events(2)
    slow = world.sequencer()
    put_new = world.store.put_new

    def overtaken(key: str, *args: Any, **kwargs: Any) -> Any:
        world.store.put_new = put_new  # type: ignore[method-assign]  # from here on as it was
        assert world.run().appended == 2
        return put_new(key, *args, **kwargs)

    world.store.put_new = overtaken  # type: ignore[method-assign]  # the other one runs while this one stages
    done = slow.run()
    assert (done.appended, done.contended) == (0, True)
    world.store.versions = {k: v for k, v in world.store.versions.items() if "staging" not in k or k == world.meta.rows[COMMIT]["staging"]}
    check_all_is_there(world)


# Bad rows


def test_an_event_that_is_logged_already_is_dropped_and_not_logged_again() -> None:
    world = World()
    (raw,) = world.add_events(1)
    world.run()
    world.put_row(raw)
    done = world.run()
    assert (done.duplicates, done.appended) == (1, 0)
    settle(world)
    check_all_is_there(world)


@pytest.mark.parametrize("at_once", [True, False])
def test_another_content_under_a_logged_id_is_set_aside_and_reported(at_once: bool) -> None:
    world = World()
    (raw,) = world.add_events(1)
    if not at_once:
        world.run()
    world.put_row(another_content(raw, at="2027-01-01T00:00:00.000000Z"))
    done = world.run()
    assert done.conflicts == 1
    assert [row["event"] for row in world.conflicts()] == [another_content(raw, at="2027-01-01T00:00:00.000000Z")]
    settle(world)
    check_all_is_there(world)


def malformed_rows() -> dict[str, Callable[[World, bytes], Any]]:
    def change(world: World, raw: bytes, **fields: Any) -> None:
        event = {**json.loads(raw), **fields}
        world.put_row(json.dumps({k: v for k, v in event.items() if v != "gone"}, sort_keys=True, separators=(",", ":")).encode(), sk="0")

    return {
        "no event": lambda w, r: w.put_row(r, sk="0", event=None),
        "a text": lambda w, r: w.put_row(r, sk="0", event=r.decode()),
        "no JSON": lambda w, r: w.put_row(r, sk="0", event=b"\xff"),
        "a list": lambda w, r: w.put_row(r, sk="0", event=b"[]"),
        "spaces": lambda w, r: w.put_row(r, sk="0", event=r.replace(b":", b": ", 1)),
        "a name twice": lambda w, r: w.put_row(r, sk="0", event=r.replace(b'{"at"', b'{"a":1,"a":1,"at"')),
        "too long": lambda w, r: change(w, r, data={"x": "y" * MAX_EVENT_BYTES}),
        "the longest row": lambda w, r: w.put_row(r, sk="0" * 1000, event=b"x" * 390_000),
        "nested too deep": lambda w, r: w.put_row(r, sk="0", event=b"[" * 100_000),
        "another ID in the row": lambda w, r: w.put_row(r, id="0" * 64),
        "another ID in the event": lambda w, r: change(w, r, id="0" * 64),
        "the key of another event": lambda w, r: w.put_row(r, sk="0#" + "0" * 32),
        "another format": lambda w, r: change(w, r, format=2),
        "a field too many": lambda w, r: change(w, r, more=1),
        "a field too few": lambda w, r: change(w, r, principal="gone"),
        "a sequence that is no number": lambda w, r: change(w, r, sequence=True),
        "a newline in the kind": lambda w, r: change(w, r, kind="version.tested\nmodel@1", subject="1"),
        "a time that is none": lambda w, r: change(w, r, at="2026-13-01T00:00:00.000000Z"),
    }


@pytest.mark.parametrize("name", malformed_rows())
def test_a_row_that_is_no_event_is_set_aside_and_holds_up_nothing(name: str) -> None:
    world = World()
    (spare,) = World().add_events(1)
    malformed_rows()[name](world, spare)
    world.made = 1
    world.add_events(2)
    done = world.run()
    assert (done.malformed, done.appended) == (1, 2)
    assert len(world.conflicts()) == 1
    check_all_is_there(world)
    assert not world.outbox()


def test_a_number_that_no_row_of_ours_holds_does_not_stop_the_reading_of_rows() -> None:
    assert unmarshal({"N": "1.5"}) == "1.5"
    assert unmarshal({"N": "-12"}) == -12


def test_hundreds_of_bad_rows_before_the_good_ones_do_not_hide_them() -> None:
    world = World()
    for n in range(600):
        world.meta.rows[Key("OUTBOX", f"0{n:04d}")] = {"pk": "OUTBOX", "sk": f"0{n:04d}", "event": b"bad"}
    world.add_events(2)
    done = world.run()
    assert (done.malformed, done.appended) == (600, 2)
    check_all_is_there(world)


def test_an_outbox_row_that_is_changed_while_its_event_is_logged_is_kept_and_reported() -> None:
    world = World()
    world.run()
    (raw,) = world.add_events(1)
    process = Process(Rigged(0), lambda: None)
    sequencer = world.sequencer(process)

    def edit() -> None:
        world.put_row(another_content(raw))

    put = world.store.put
    world.store.put = lambda *a, **k: (edit(), put(*a, **k))[1]  # type: ignore[method-assign]  # somebody edits while it is published
    sequencer.run()
    world.store.put = put  # type: ignore[method-assign]
    done = world.run()
    assert done.conflicts == 1
    check_all_is_there(world)
