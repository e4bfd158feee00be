"""Seals: a receipt's place under its root, the lines of a batch, the closing of a key; and what forges them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.prediction_id import PredictionId
from attestry.evidence.seal import (
    MAX_RECEIPTS,
    Closing,
    ReceiptProof,
    Seal,
    batch_line,
    parse_batch,
    prove_receipt,
    seal_root,
    verify_batch,
    verify_closing,
    verify_sealed,
)

KID = "a" * 52
AT = "2026-01-02T03:04:05.000000Z"


def receipts_of(count: int, first: int = 1) -> list[bytes]:
    return [f"head.{n}.signature-{n}".encode() for n in range(first, first + count)]


def seal_of(receipts: list[bytes], first: int = 1, **changes: Any) -> Seal:
    last = first + len(receipts) - 1
    name = f"models/m/1-x/predictions/{KID}/{first:012d}-{last:012d}.jsonl"
    return replace(Seal(KID, "m", 1, first, last, seal_root(receipts), name, "ab" * 32, 0), **changes)


def event_of(data: dict[str, Any], kind: str = "key.sealed", sequence: int = 1) -> dict[str, Any]:
    return {"kind": kind, "subject": f"key/{KID}", "sequence": sequence, "data": data}


def batch_of(receipts: list[bytes], first: int = 1) -> bytes:
    return "".join(batch_line(n, AT, r.decode()) for n, r in enumerate(receipts, start=first)).encode()


def root_by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + root_by_definition(leaves[:k]) + root_by_definition(leaves[k:])).digest()


@given(st.integers(1, 80))
def test_the_root_is_that_of_the_rfc(count: int) -> None:
    assert seal_root(receipts_of(count)) == root_by_definition(receipts_of(count))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 10**9), st.data())
def test_every_receipt_is_proven_at_its_own_place_and_no_other(count: int, first: int, data: st.DataObject) -> None:
    receipts = receipts_of(count, first)
    seal = seal_of(receipts, first)
    index = data.draw(st.integers(0, count - 1))
    proof = prove_receipt(receipts, index)
    assert ReceiptProof.parse(proof.to_bytes()) == proof
    verify_sealed(receipts[index], PredictionId(KID, first + index), proof, seal)
    for prediction, shown in (
        (PredictionId(KID, first + index + 1), proof),
        (PredictionId(KID, first + index), replace(proof, index=index + 1)),
    ):
        with pytest.raises(IntegrityError):
            verify_sealed(receipts[index], prediction, shown, seal)
    with pytest.raises(IntegrityError):
        verify_sealed(receipts[index] + b"x", PredictionId(KID, first + index), proof, seal)


def test_a_seal_of_another_key_proves_nothing() -> None:
    receipts = receipts_of(3)
    with pytest.raises(IntegrityError, match="does not cover"):
        verify_sealed(receipts[0], PredictionId("b" * 51 + "a", 1), prove_receipt(receipts, 0), seal_of(receipts))


def test_an_inner_node_does_not_pass_for_a_receipt() -> None:
    """Second preimage: the two hashes below a node, offered as one leaf of a smaller tree."""
    receipts = receipts_of(4)
    seal = seal_of(receipts)
    left = b"".join(hashlib.sha256(b"\x00" + r).digest() for r in receipts[:2])
    right = root_by_definition(receipts[2:])
    with pytest.raises(IntegrityError):
        verify_sealed(left, PredictionId(KID, 1), ReceiptProof(0, 2, (right,)), seal)
    assert root_by_definition([left]) != root_by_definition(receipts[:2])


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"hashes":[],"index":0,"size":1} ',
        b'{"index":0,"hashes":[],"size":1}',
        b'{"hashes":["AB"],"index":0,"size":1}',
        b'{"hashes":[],"index":true,"size":1}',
        b'{"hashes":[],"index":0,"size":1,"root":1}',
        b"[]",
        b"\xff",
    ],
)
def test_a_proof_is_read_only_as_it_is_written(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        ReceiptProof.parse(raw)


def test_there_is_no_proof_for_a_receipt_that_is_not_there() -> None:
    for index in (-1, 2):
        with pytest.raises(IndexError):
            prove_receipt(receipts_of(2), index)


def test_a_seal_is_read_from_its_event_as_it_was_written() -> None:
    seal = seal_of(receipts_of(5, 11), 11, captured=3)
    assert seal.count == 5
    assert Seal.from_event(event_of(seal.to_data(), sequence=11)) == seal


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 4},
        {"final": True},
        {"root": "AB" * 32},
        {"root": "ab"},
        {"first": 2},
        {"last": 4},
        {"first": 0},
        {"captured": 6},
        {"captured": -1},
        {"captured": True},
        {"number": 0},
        {"kid": "b" * 51 + "a"},
        {"object": f"models/m/1-x/predictions/{KID}/000000000001-000000000006.jsonl"},
        {"object_sha256": "x"},
        {"extra": 1},
        {"count": None},
    ],
    ids=str,
)
def test_a_seal_that_contradicts_itself_or_its_event_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        Seal.from_event(event_of({**seal_of(receipts_of(5)).to_data(), **changes}))


def test_a_seal_is_not_read_from_another_event() -> None:
    data = seal_of(receipts_of(5)).to_data()
    for event in (
        event_of(data, sequence=2),
        event_of(data, kind="key.closed"),
        {**event_of(data), "subject": "key/other"},
        {**event_of(data), "data": None},
        {},
    ):
        with pytest.raises(IntegrityError):
            Seal.from_event(event)


def test_no_seal_covers_more_than_its_limit() -> None:
    with pytest.raises(IntegrityError):
        seal_of(receipts_of(MAX_RECEIPTS + 1))


def test_a_batch_is_read_as_it_was_written_and_its_lines_are_json() -> None:
    receipts = receipts_of(12, 5)
    raw = batch_of(receipts, 5)
    assert parse_batch(raw) == list(enumerate(receipts, start=5))
    assert json.loads(raw.splitlines()[0]) == {"at": AT, "receipt": receipts[0].decode(), "sequence": 5}
    verify_batch(raw, seal_of(receipts, 5))


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_what_a_serving_process_wrote_into_its_row_cannot_make_another_line(receipt: str, at: str) -> None:
    raw = batch_line(1, at, receipt).encode()
    assert raw.count(b"\n") == 1
    assert parse_batch(raw) == [(1, receipt.encode())]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[:-1],
        lambda raw: raw.replace(b"head.2", b"head.9"),
        lambda raw: b"".join(sorted(raw.splitlines(keepends=True), reverse=True)),
        lambda raw: b"".join(raw.splitlines(keepends=True)[:-1]),
        lambda raw: raw + raw.splitlines(keepends=True)[-1],
        lambda raw: raw.replace(b'{"at"', b'{ "at"', 1),
        lambda raw: raw.replace(b'"sequence":2', b'"sequence":2,"x":1'),
        lambda raw: raw.replace(b"head.1", b"head\\u002e1"),
        lambda raw: raw.replace(b"head.1", b"\\ud800"),
        lambda raw: b"\xff" + raw,
        lambda raw: b"null\n",
        lambda raw: b"",
    ],
)
def test_a_batch_that_was_changed_is_not_what_was_sealed(spoil: Any) -> None:
    receipts = receipts_of(3)
    with pytest.raises(IntegrityError):
        verify_batch(spoil(batch_of(receipts)), seal_of(receipts))


def closing(**changes: Any) -> Closing:
    return replace(Closing(KID, "m", 1, 9, 7, ((4, 5),), 2), **changes)


SEALS = [seal_of(receipts_of(3)), seal_of(receipts_of(4, 6), 6)]


def test_a_closed_key_is_complete_with_its_seals_and_gaps() -> None:
    verify_closing(closing(), SEALS[::-1])
    verify_closing(Closing(KID, "m", 1, 0, 0, (), 0), [])
    assert Closing.from_event(event_of(closing().to_data(), "key.closed")) == closing()


@pytest.mark.parametrize(
    ("told", "seals"),
    [
        (closing(), SEALS[:1]),
        (closing(), [*SEALS, SEALS[0]]),
        (closing(), [SEALS[0], replace(SEALS[1], model="other")]),
        (closing(), [SEALS[0], seal_of(receipts_of(7, 3), 3)]),
        (closing(gaps=()), SEALS),
        (closing(gaps=((4, 4),)), SEALS),
        (closing(count=9), SEALS),
        (closing(last=10), SEALS),
        (closing(sealed=3), SEALS),
        (Closing(KID, "m", 1, 0, 0, (), 0), SEALS),
    ],
)
def test_a_seal_that_is_dropped_added_or_moved_shows(told: Closing, seals: list[Seal]) -> None:
    with pytest.raises(IntegrityError):
        verify_closing(told, seals)


@pytest.mark.parametrize(
    "changes", [{"final": False}, {"gaps": [[1]]}, {"gaps": [["1", 2]]}, {"gaps": {}}, {"sealed": "2"}, {"count": True}, {"x": 1}], ids=str
)
def test_a_closing_is_read_only_as_it_is_written(changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        Closing.from_event(event_of({**closing().to_data(), **changes}, "key.closed"))
    with pytest.raises(IntegrityError):
        Closing.from_event(event_of(closing().to_data(), "key.closed", sequence=2))
