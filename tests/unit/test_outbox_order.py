"""Numbered events enter the ledger in the order of their numbers, however the clocks of the functions that wrote them differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.events import Event
from attestry.domain.principal import registry_principal
from attestry.usecases.outbox import Outbox
from attestry.usecases.records import outbox_put
from tests.fakes import FixedClock, MemoryMetaStore
from tests.unit.ledger_world import World, check

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MOVES = ("stage.started", "stage.succeeded", "version.approved", "version.deployed")


def move(model: str, number: int, skew: float, kind: str = "stage.started") -> Event:
    """The nth move of a version, written by a function whose clock is so many seconds off."""
    at = START + timedelta(seconds=number + skew)
    return Event(kind, f"{model}@1", number, at, registry_principal("test"), {"to": {"stage": "TRAINING"}})


def other(kind: str, subject: str, sequence: int, seconds: float) -> Event:
    return Event(kind, subject, sequence, START + timedelta(seconds=seconds), registry_principal("test"), {})


def taken(events: Sequence[Event], limit: int = 1000) -> list[dict[str, Any]]:
    meta = MemoryMetaStore()
    for event in events:
        meta.transact([outbox_put(event)])
    found = Outbox(meta, FixedClock(START)).take(limit, lambda: False, lambda _: b"")
    return [json.loads(raw) for raw in found.events]


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Moves of some versions, each by a function with a clock of its own, and other events between them."""
    made: list[Event] = []
    for model in draw(st.sets(st.sampled_from("abc"), min_size=1)):
        for number in range(1, draw(st.integers(1, 8)) + 1):
            made.append(move(model, number, draw(st.floats(-20, 20)), draw(st.sampled_from(MOVES))))
    for n in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["key.delegated", "key.sealed", "key.closed", "capture.set"]))
        made.append(other(kind, draw(st.sampled_from(["key/x", "key/y"])), 100 * n + 1, draw(st.floats(-20, 20))))
    return made


@given(histories())
def test_numbered_events_of_one_series_ascend_and_none_is_lost_or_made(history: list[Event]) -> None:
    events = taken(history)
    assert Counter(e["id"] for e in events) == Counter(e.event_id for e in history)
    last: dict[tuple[str, ...], int] = {}
    for event in events:
        series = (event["subject"],) if "@" in event["subject"] else (event["subject"], event["kind"])
        assert last.get(series, 0) < event["sequence"]
        last[series] = event["sequence"]


@given(histories())
def test_the_places_of_a_series_among_the_others_stay_as_the_clocks_gave_them(history: list[Event]) -> None:
    by_clock = [json.loads(raw) for _, raw in sorted((outbox_put(e).key.sort, e.canonical_bytes()) for e in history)]
    assert [(e["subject"], "@" in e["subject"] or e["kind"]) for e in taken(history)] == [
        (e["subject"], "@" in e["subject"] or e["kind"]) for e in by_clock
    ]


@given(histories(), st.integers(1, 5))
def test_what_does_not_fit_a_batch_comes_with_the_higher_numbers(history: list[Event], limit: int) -> None:
    events = taken(history, limit)
    assert len(events) == min(limit, len(history))
    for model in "abc":
        numbers = [e["sequence"] for e in events if e["subject"] == f"{model}@1"]
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_key_is_sealed_before_it_is_closed_although_it_is_closed_under_a_lower_number() -> None:
    history = [other("key.delegated", "key/x", 1, 0), other("key.sealed", "key/x", 21, 1), other("key.closed", "key/x", 1, 2)]
    assert [e["kind"] for e in taken(history)] == ["key.delegated", "key.sealed", "key.closed"]


def test_the_ledger_holds_moves_in_their_order_although_the_second_clock_was_behind() -> None:
    world = World()
    for event in (move("a", 1, 0), move("a", 2, 0, "stage.succeeded"), move("a", 3, -30, "version.approved")):
        world.meta.transact([outbox_put(event)])
        world.events[event.event_id] = event.canonical_bytes()
    world.run()
    leaves = [json.loads(leaf)["event"]["sequence"] for leaf in check(world).leaves]
    assert leaves == [1, 2, 3]
