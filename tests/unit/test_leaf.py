"""Leaves and entry bundles: written one way, and read only that way."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.errors import InvalidInputError
from attestry.domain.events import MAX_EVENT_BYTES, Event
from attestry.domain.principal import registry_principal
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.leaf import MAX_LEAF_BYTES, Leaf, event_id, parse_event, read_bundle, write_bundle, write_leaf
from attestry.evidence.ledger_batch import Batch, LogState
from tests.fakes import FixedClock

LOGGED = "2026-01-02T03:04:06.000000Z"
EVENT = Event("stage.succeeded", "credit-risk@3", 7, FixedClock().now(), registry_principal("gate"), {"reason": "grüßt \u2028", "n": 1})
RAW = EVENT.canonical_bytes()


def test_a_leaf_is_the_event_as_it_stands_with_the_time_of_its_batch() -> None:
    data = write_leaf(RAW, LOGGED)
    assert data == canonical_bytes({"event": json.loads(RAW), "logged": LOGGED})
    leaf = Leaf.parse(data)
    assert (leaf.event_bytes, leaf.logged, leaf.event_id) == (RAW, LOGGED, EVENT.event_id)
    assert leaf.event["kind"] == "stage.succeeded"
    assert leaf.event_sha256 == hashlib.sha256(RAW).hexdigest()


def test_the_id_is_the_one_that_the_event_has() -> None:
    assert event_id("stage.succeeded", "credit-risk@3", 7) == EVENT.event_id == parse_event(RAW)["id"]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d[:-1],
        lambda d: d + b"\n",
        lambda d: b" " + d,
        lambda d: d.replace(b',"logged"', b', "logged"'),
        lambda d: d.replace(b"000000Z", b"00000Z"),
        lambda d: d.replace(b'03:04:06.000000Z"}', b'03:04:06.000000z"}'),
        lambda d: d.replace(b'03:04:06.000000Z"}', b'25:04:06.000000Z"}'),
        lambda d: d[:-1] + b',"more":1}',
        lambda d: b'{"event":{},"logged":"' + LOGGED.encode() + b'"}',
        lambda d: b'{"logged":"' + LOGGED.encode() + b'"}',
        lambda d: b"",
        lambda d: b"{}",
        lambda d: d.replace(b'"sequence":7', b'"sequence":8'),
        lambda d: d.replace(b'"sequence":7', b'"sequence":7.0'),
        lambda d: d.replace(b'"sequence":7', b'"sequence":true'),
        lambda d: d.replace(b"credit-risk@3", b"credit-risk@4"),
        lambda d: d.replace(b'"format":1', b'"format":2'),
        lambda d: d.replace("ü".encode(), b"\\u00fc"),
    ],
)
def test_what_the_registry_would_not_have_written_is_no_leaf(change: object) -> None:
    data = write_leaf(RAW, LOGGED)
    changed = change(data)  # type: ignore[operator]
    assert changed != data
    with pytest.raises(InvalidInputError):
        Leaf.parse(changed)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_leaf_or_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        Leaf.parse(data)


@pytest.mark.parametrize(
    "logged", ["", "now", "2026-01-02T03:04:06Z", "2026-01-02T03:04:06.000000+00:00", "2026-02-30T03:04:06.000000Z", LOGGED + "\n"]
)
def test_a_leaf_is_not_written_with_a_time_of_another_form(logged: str) -> None:
    with pytest.raises(InvalidInputError):
        write_leaf(RAW, logged)


def test_the_longest_event_makes_a_leaf_of_the_stated_length_at_most() -> None:
    def event(length: int) -> Event:
        return Event("a.b", "s", 1, FixedClock().now(), registry_principal("gate"), {"x": "y" * length})

    spare = MAX_EVENT_BYTES - len(event(0).canonical_bytes())
    longest = event(spare).canonical_bytes()
    assert len(longest) == MAX_EVENT_BYTES
    assert len(write_leaf(longest, LOGGED)) <= MAX_LEAF_BYTES
    with pytest.raises(InvalidInputError, match="4096"):
        parse_event(longest.replace(b"yy", b"yyy", 1))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20))
def test_bundles_are_read_as_they_were_written(leaves: list[bytes]) -> None:
    data = write_bundle(leaves)
    assert read_bundle(data, len(leaves)) == tuple(leaves)
    for count in (len(leaves) + 1, len(leaves) - 1):
        if count >= 0:
            with pytest.raises(InvalidInputError):
                read_bundle(data, count)


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x00", b"\x00\x05abc", b"\x00\x01ab", b"\x00\x01a\x00"])
def test_a_bundle_that_is_cut_or_longer_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read_bundle(data, 1)


def test_a_staged_batch_is_read_as_it_was_written_and_leads_to_the_same_objects() -> None:
    leaves = [n.to_bytes(2, "big") for n in range(700)]
    state = Batch(LogState(), tuple(leaves[:300])).after
    batch = Batch(state, tuple(leaves[300:]))
    read = Batch.parse(batch.to_bytes())
    assert (read.before, read.leaves, read.objects()) == (batch.before, batch.leaves, batch.objects())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}\n",
        b'{"format":1,"leaves":0,"size":0}\n',
        b'{"format":2,"leaves":1,"size":0}\n\x00\x01a',
        b'{"format":1,"leaves":1001,"size":0}\n',
        b'{"format":1,"leaves":1,"size":-1}\n\x00\x01a',
        b'{"format":1,"leaves":true,"size":0}\n\x00\x01a',
        b'{"format":1,"leaves":1,"size":0}\n\x00\x01ab',
        b'{"format": 1,"leaves":1,"size":0}\n\x00\x01a',
        b'{"format":1,"leaves":1,"size":9223372036854775807}\n\x00\x01a',
    ],
)
def test_what_is_no_staged_batch_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        Batch.parse(data)
