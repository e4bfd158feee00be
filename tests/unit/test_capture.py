"""Capture: who set which rate when, in one transaction with the pointer that the serving processes read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestry.domain.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from attestry.usecases.capture import CaptureRate, read_rate, set_capture_rate
from attestry.usecases.deploy import roll_back, swap_pointer
from attestry.usecases.records import pointer_key
from attestry.usecases.revoke import kill_version
from tests.deployed import BODY, principal
from tests.fakes import MemoryMetaStore
from tests.versions import AT, ATTESTOR, ERIN, make_approved

MODEL = "credit-risk"
POINTER = pointer_key(MODEL, "production")


@pytest.fixture
def meta() -> MemoryMetaStore:
    meta = MemoryMetaStore()
    for number in (1, 2):
        make_approved(meta, number)
        swap_pointer(meta, ATTESTOR, MODEL, number, environment="production", capture_rate="1.0", by=ERIN, reason="first", at=AT)
    return meta


def set_rate(meta: MemoryMetaStore, rate: str, environment: str = "production") -> CaptureRate:
    return set_capture_rate(meta, MODEL, environment, rate, reason="costs", by=ERIN, at=AT)


def events(meta: MemoryMetaStore) -> list[dict[str, Any]]:
    found = [json.loads(r["event"]) for k, r in meta.rows.items() if k.partition == "OUTBOX"]
    return sorted((e for e in found if e["kind"] == "capture.set"), key=lambda e: e["sequence"])


@pytest.mark.parametrize(
    ("given", "read"), [(0, "0"), (1, "1"), (1.0, "1"), ("0.10", "0.1"), (0.000001, "0.000001"), ("-0", "0"), ("1e-3", "0.001")]
)
def test_a_rate_is_read_as_text_without_needless_digits(given: Any, read: str) -> None:
    assert read_rate(given) == read


@pytest.mark.parametrize("given", [None, True, "x", "", -0.1, 1.1, "NaN", "Infinity", "0.0000001", [], "1" * 30, 10**30])
def test_a_rate_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_rate(given)
    assert caught.value.problems[0].field == "rate"


def test_a_rate_and_its_event_are_one_transaction(meta: MemoryMetaStore) -> None:
    rev = meta.rows[POINTER]["rev"]
    assert set_rate(meta, "0.25") == CaptureRate(2, "0.25", "1.0", changed=True)
    pointer = meta.rows[POINTER]
    assert (pointer["capture_rate"], pointer["rev"], pointer["capture"]["by"]) == ("0.25", rev + 1, "erin")
    (event,) = events(meta)
    assert (event["subject"], event["sequence"], event["principal"]["person"]) == ("credit-risk/production", rev + 1, "erin")
    assert event["data"] == {"rate": "0.25", "previous": "1.0", "number": 2, "reason": "costs"}


def test_the_same_rate_again_changes_nothing(meta: MemoryMetaStore) -> None:
    assert set_rate(meta, "1").changed is False
    assert events(meta) == []


@pytest.mark.parametrize("after", [False, True])
def test_a_lost_answer_leaves_pointer_and_event_together(meta: MemoryMetaStore, after: bool) -> None:
    (meta.faults.fail_after if after else meta.faults.fail_before)(method="transact")
    with pytest.raises(UnavailableError):
        set_rate(meta, "0.5")
    set_rate(meta, "0.5")
    assert len(events(meta)) == 1


def test_of_two_at_once_both_are_recorded_in_turn(meta: MemoryMetaStore) -> None:
    transact = meta.transact

    def after_another(writes: Any) -> None:
        meta.transact = transact  # type: ignore[method-assign]
        set_rate(meta, "0.1")
        transact(writes)

    meta.transact = after_another  # type: ignore[method-assign]
    set_rate(meta, "0.2")
    assert [(e["data"]["previous"], e["data"]["rate"]) for e in events(meta)] == [("1.0", "0.1"), ("0.1", "0.2")]


def test_a_pointer_that_never_stands_still_is_a_conflict(meta: MemoryMetaStore) -> None:
    transact = meta.transact

    def always_moved(writes: Any) -> None:
        meta.rows[POINTER]["rev"] += 1
        transact(writes)

    meta.transact = always_moved  # type: ignore[method-assign]
    with pytest.raises(ConflictError):
        set_rate(meta, "0.2")


def test_where_nothing_is_deployed_there_is_no_rate_to_set(meta: MemoryMetaStore) -> None:
    with pytest.raises(NotFoundError):
        set_rate(meta, "0.2", "staging")
    kill_version(meta, ATTESTOR, MODEL, 2, reason="r", by=ERIN, at=AT)
    with pytest.raises(NotFoundError, match="killed"):
        set_rate(meta, "0.2")


def test_a_rollback_brings_back_the_rate_that_the_version_had_when_it_left(meta: MemoryMetaStore) -> None:
    set_rate(meta, "0.25")
    left = int(meta.rows[POINTER]["number"])
    for expected, to in (("1.0", None), ("0.25", left)):
        roll_back(meta, ATTESTOR, MODEL, environment="production", by=ERIN, reason="back", at=AT, to=to)
        assert meta.rows[POINTER]["capture_rate"] == expected


def test_every_receipt_carries_the_rate_that_applied_to_it() -> None:
    from tests.deployed import ENVIRONMENT, Scene

    scene = Scene(capture_rate="1")
    predictor = scene.predictor()
    predictor.predict(MODEL, ENVIRONMENT, BODY, principal("gil"))
    set_capture_rate(scene.meta, MODEL, ENVIRONMENT, "0", reason="costs", by=ERIN, at=AT)
    predictor.predict(MODEL, ENVIRONMENT, BODY, principal("gil"))
    rows = [scene.meta.rows[k] for k in sorted(scene.meta.rows, key=lambda k: k.sort) if k.sort.startswith("R#")]
    assert [(r["rate"], r["captured"]) for r in rows] == [("1", True), ("0", False)]
