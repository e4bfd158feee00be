"""Collect: every receipt ends in the version's folder, and under a seal, once, whatever fails in between."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestry.domain.errors import InvalidInputError
from attestry.domain.stages import Standing
from attestry.evidence.delegation import verify_delegation
from attestry.evidence.digests import sha256_hex
from attestry.evidence.prediction_id import PredictionId
from attestry.evidence.receipt import verify_receipt
from attestry.evidence.seal import Closing, Seal, parse_batch, prove_receipt, verify_batch, verify_closing, verify_sealed
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import Delete, Put, When
from attestry.usecases import collect
from attestry.usecases.collect import CLOSE_AFTER, Collector, find_batches, find_receipt
from attestry.usecases.group_signing import GroupSigner
from attestry.usecases.sign import OPEN_KEYS, delegation_key, open_key, receipt_key
from tests.deployed import ENVIRONMENT, MODEL, Scene, make_version
from tests.fakes import Killed

FOLDER = f"{make_version(1).folder}/predictions/"


@pytest.fixture
def scene() -> Scene:
    return Scene()


def sign(scene: Scene, count: int) -> list[str]:
    signer = GroupSigner(
        meta=scene.meta,
        store=scene.store,
        keys=scene.keys,
        model=MODEL,
        environment=ENVIRONMENT,
        version_digest=make_version(1).version_digest,
    )
    return [signer.sign(f'{{"n":{n}}}'.encode(), b"[1]", {"login": "ci"}).prediction_id for n in range(count)]


def signer_version() -> VersionUrn:
    return VersionUrn(MODEL, 1, make_version(1).version_digest)


def collector(scene: Scene, **changes: Any) -> Collector:
    return Collector(scene.meta, scene.store, scene.clock, **changes)


def kid_of(ids: list[str]) -> str:
    return ids[0].partition("-")[0]


def objects(scene: Scene) -> list[str]:
    return sorted(key.removeprefix(FOLDER) for key in scene.store.versions)


def expire_rows(scene: Scene) -> None:
    scene.meta._apply([Delete(k) for k in list(scene.meta.rows) if k.sort.startswith("R#")])


def archived_numbers(scene: Scene) -> list[int]:
    """Return the sequence numbers in all receipt objects, each receipt verified."""
    numbers = []
    for key, versions in scene.store.versions.items():
        if key.endswith(".jsonl"):
            kid = key.split("/")[-2]
            delegation = verify_delegation(scene.meta.rows[delegation_key(kid)]["delegation"], scene.signer.public_key_der())
            assert len(versions) == 1
            for line in versions[0].body.splitlines():
                entry = json.loads(line)
                assert verify_receipt(entry["receipt"], delegation).prediction_id.sequence == entry["sequence"]
                numbers.append(entry["sequence"])
    return sorted(numbers)


def events(scene: Scene, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(r["event"]) for k, r in scene.meta.rows.items() if k.partition == "OUTBOX"]
    return sorted((e for e in found if e["kind"] == kind), key=lambda e: e["sequence"])


def seals(scene: Scene) -> list[Seal]:
    """Return the seals of all events, each checked against its batch object."""
    found = [Seal.from_event(event) for event in events(scene, "key.sealed")]
    for seal in found:
        raw = scene.store.versions[seal.object][0].body
        assert sha256_hex(raw) == seal.object_sha256
        verify_batch(raw, seal)
    return found


def close(scene: Scene) -> Closing:
    """Close the one key, check its seals against its closing, and return this."""
    scene.clock.advance(hours=2)
    collector(scene).collect()
    (event,) = events(scene, "key.closed")
    closing = Closing.from_event(event)
    verify_closing(closing, seals(scene))
    return closing


def test_receipts_are_moved_in_batches_named_by_their_range(scene: Scene) -> None:
    ids = sign(scene, 3)
    assert collector(scene).collect().receipts == 3
    sign_more = sign(scene, 2)
    assert collector(scene).collect().receipts == 2
    kid = kid_of(ids + sign_more)
    assert objects(scene) == [
        f"{kid}/000000000001-000000000003.jsonl",
        f"{kid}/000000000001-000000000003.private.ndjson",
        f"{kid}/000000000004-000000000005.jsonl",
        f"{kid}/000000000004-000000000005.private.ndjson",
        f"{kid}/delegation.jwt",
    ]
    assert archived_numbers(scene) == [1, 2, 3, 4, 5]


def test_receipts_are_locked_and_what_may_have_to_be_erased_is_not(scene: Scene) -> None:
    sign(scene, 1)
    collector(scene).collect()
    for key, (stored,) in scene.store.versions.items():
        assert stored.retained is (".private." not in key)
        if ".private." not in key and key.endswith(".jsonl"):
            assert json.loads(stored.body).keys() == {"sequence", "at", "receipt"}


def test_a_collected_prediction_is_found_as_it_was_once_its_row_has_expired(scene: Scene) -> None:
    ids = sign(scene, 3)
    before = [find_receipt(scene.meta, scene.store, i) for i in ids]
    collector(scene).collect()
    expire_rows(scene)
    for row, prediction_id in zip(before, ids, strict=True):
        assert row is not None
        assert find_receipt(scene.meta, scene.store, prediction_id) == {k: v for k, v in row.items() if k not in ("pk", "sk", "expires")}


def test_an_object_laid_over_a_batch_is_not_what_is_read(scene: Scene) -> None:
    ids = sign(scene, 1)
    collector(scene).collect()
    expire_rows(scene)
    before = find_receipt(scene.meta, scene.store, ids[0])
    for key in list(scene.store.versions):
        scene.store.put(key, b'{"sequence":1,"receipt":"forged","at":""}\n')
    assert find_receipt(scene.meta, scene.store, ids[0]) == before


def test_a_prediction_that_was_never_made_is_not_found(scene: Scene) -> None:
    ids = sign(scene, 1)
    collector(scene).collect()
    assert find_receipt(scene.meta, scene.store, f"{kid_of(ids)}-2") is None
    assert find_receipt(scene.meta, scene.store, str(PredictionId("a" * 52, 1))) is None
    with pytest.raises(InvalidInputError):
        find_receipt(scene.meta, scene.store, "../x")


def test_after_its_erasure_a_payload_is_gone_and_the_receipt_stays(scene: Scene) -> None:
    ids = sign(scene, 1)
    collector(scene).collect()
    expire_rows(scene)
    for key in [k for k in scene.store.versions if ".private." in k]:
        del scene.store.versions[key]
    row = find_receipt(scene.meta, scene.store, ids[0])
    assert row is not None
    assert row.keys() == {"receipt", "at"}


def test_a_binary_request_survives_the_way_through_the_batch(scene: Scene) -> None:
    signer = GroupSigner(
        meta=scene.meta,
        store=scene.store,
        keys=scene.keys,
        model=MODEL,
        environment=ENVIRONMENT,
        version_digest=make_version(1).version_digest,
    )
    prediction_id = signer.sign(b"\x00\xff", b"[1]").prediction_id
    collector(scene).collect()
    expire_rows(scene)
    row = find_receipt(scene.meta, scene.store, prediction_id)
    assert row is not None
    assert row["request"] == b"\x00\xff"


def test_every_batch_is_sealed_and_each_receipt_has_its_proof(scene: Scene) -> None:
    ids = sign(scene, 3)
    assert collector(scene).collect().seals == 1
    ids += sign(scene, 2)
    collector(scene).collect()
    first, second = seals(scene)
    assert [(s.first, s.last, s.captured, s.model, s.number) for s in (first, second)] == [(1, 3, 3, MODEL, 1), (4, 5, 2, MODEL, 1)]
    for prediction_id in ids:
        prediction = PredictionId.parse(prediction_id)
        (place,) = find_batches(scene.store, make_version(1).folder, prediction)
        seal = next(s for s in (first, second) if s.covers(prediction))
        assert (place.key, place.first, place.last) == (seal.object, seal.first, seal.last)
        receipts = [receipt for _, receipt in parse_batch(scene.store.read(place.key, place.version_id, max_bytes=1 << 20))]
        index = prediction.sequence - seal.first
        verify_sealed(receipts[index], prediction, prove_receipt(receipts, index), seal)


def test_what_is_not_captured_is_sealed_and_counted_all_the_same() -> None:
    scene = Scene(capture_rate="0")
    sign(scene, 5)
    collector(scene).collect()
    assert [(s.count, s.captured) for s in seals(scene)] == [(5, 0)]
    assert close(scene).count == 5


def test_a_seal_and_the_count_of_its_batch_are_one_transaction(scene: Scene) -> None:
    kid = kid_of(sign(scene, 2))
    scene.faults.clear()
    scene.faults.fail_before(2, method="transact")
    collector(scene).collect()
    assert seals(scene) == []
    assert scene.meta.rows[open_key(kid)]["collected"] == 0
    collector(scene).collect()
    assert [s.count for s in seals(scene)] == [2]
    assert scene.meta.rows[open_key(kid)]["sealed"] == 1


def test_what_a_process_signed_before_it_died_is_sealed_and_its_key_closed(scene: Scene) -> None:
    acknowledged = sign(scene, 7)
    scene.faults.fail_after(method="transact", error=Killed())
    with pytest.raises(Killed):
        sign(scene, 1)
    closing = close(scene)
    assert (closing.last, closing.count, closing.sealed, closing.gaps) == (8, 8, 1, ())
    assert archived_numbers(scene)[: len(acknowledged)] == [PredictionId.parse(i).sequence for i in acknowledged]


@pytest.mark.parametrize("standing", [Standing.RETIRED, Standing.ROLLBACK])
def test_sealing_goes_on_when_the_version_no_longer_serves(scene: Scene, standing: Standing) -> None:
    sign(scene, 2)
    scene.change_version(1, standing=standing)
    assert collector(scene).collect().receipts == 2
    assert close(scene).count == 2


def test_a_key_that_signed_nothing_is_closed_without_a_seal(scene: Scene) -> None:
    scene.keys.key_for(signer_version(), ENVIRONMENT)
    closing = close(scene)
    assert (closing.last, closing.count, closing.sealed) == (0, 0, 0)


def test_rows_deleted_after_their_batch_was_written_are_sealed_from_its_object(scene: Scene) -> None:
    kid = kid_of(sign(scene, 4))
    scene.faults.clear()
    scene.faults.fail_before(2, method="transact", error=Killed())
    with pytest.raises(Killed):
        collector(scene).collect()
    scene.meta._apply([Delete(receipt_key(kid, n)) for n in (1, 3)])
    assert collector(scene).collect().receipts == 4
    assert close(scene).count == 4
    assert archived_numbers(scene) == [1, 2, 3, 4]


def test_rows_deleted_before_their_batch_was_written_are_gaps(scene: Scene) -> None:
    kid = kid_of(sign(scene, 4))
    scene.faults.clear()
    scene.faults.fail_after(1, method="transact", error=Killed())
    with pytest.raises(Killed):
        collector(scene).collect()
    scene.meta._apply([Delete(receipt_key(kid, n)) for n in (1, 3)])
    outcome = collector(scene).collect()
    assert (outcome.receipts, outcome.gaps) == (2, 2)
    assert close(scene).gaps == ((1, 1), (3, 3))


def test_all_rows_of_a_decided_batch_deleted_do_not_keep_the_key_open(scene: Scene) -> None:
    sign(scene, 2)
    scene.faults.clear()
    scene.faults.fail_after(1, method="transact", error=Killed())
    with pytest.raises(Killed):
        collector(scene).collect()
    expire_rows(scene)
    assert close(scene).count == 0


def test_an_object_laid_over_a_batch_is_not_what_is_sealed(scene: Scene) -> None:
    kid = kid_of(sign(scene, 2))
    scene.faults.clear()
    scene.faults.fail_before(2, method="transact", error=Killed())
    with pytest.raises(Killed):
        collector(scene).collect()
    name = next(k for k in scene.store.versions if k.endswith("2.jsonl"))
    scene.store.put(name, scene.store.versions[name][0].body.replace(b".", b"_"))
    scene.meta._apply([Delete(receipt_key(kid, 1))])
    collector(scene).collect()
    assert [s.count for s in seals(scene)] == [2]


def test_a_row_that_is_no_receipt_stays_one_line_and_does_not_stop_the_others(scene: Scene) -> None:
    kid = kid_of(sign(scene, 3))
    row = scene.meta.rows[receipt_key(kid, 2)]
    scene.meta._apply([Put(receipt_key(kid, 2), {**row, "receipt": 'x","sequence":9}\n{"at":"', "at": '"'}, When())])
    collector(scene).collect()
    (seal,) = seals(scene)
    assert [n for n, _ in parse_batch(scene.store.versions[seal.object][0].body)] == [1, 2, 3]


def test_batches_end_at_their_bytes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "MAX_BATCH_BYTES", 3000)
    sign(scene, 10)
    assert collector(scene).collect().receipts == 10
    assert len(seals(scene)) > 2
    assert close(scene).count == 10


@pytest.mark.parametrize("page", [1, 2, 3, 5])
def test_a_batch_is_read_in_pages(scene: Scene, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(collect, "PAGE_ROWS", page)
    monkeypatch.setattr(collect, "MAX_BATCH_RECEIPTS", 4)
    kid = kid_of(sign(scene, 11))
    scene.meta._apply([Delete(receipt_key(kid, 6))])
    assert collector(scene).collect().receipts == 10
    assert [(s.first, s.last) for s in seals(scene)] == [(1, 4), (5, 5), (7, 10), (11, 11)]


def test_a_key_is_closed_when_nothing_more_can_be_acknowledged_and_its_count_is_an_event(scene: Scene) -> None:
    kid = kid_of(sign(scene, 4))
    scene.clock.advance(hours=1, seconds=CLOSE_AFTER.total_seconds() - 1)
    assert collector(scene).collect().closed == 0
    scene.clock.advance(seconds=2)
    assert collector(scene).collect().closed == 1
    assert open_key(kid) not in scene.meta.rows
    row = scene.meta.rows[delegation_key(kid)]
    assert (row["last"], row["count"], row["gaps"]) == (4, 4, [])
    events = [json.loads(r["event"]) for k, r in scene.meta.rows.items() if k.partition == "OUTBOX"]
    assert [e["data"]["last"] for e in events if e["kind"] == "key.closed"] == [4]
    assert collector(scene).collect() == collect.Collected()


def test_a_missing_number_is_reported_and_what_comes_after_is_not_lost(scene: Scene) -> None:
    kid = kid_of(sign(scene, 5))
    scene.meta._apply([Delete(receipt_key(kid, 1)), Delete(receipt_key(kid, 3))])
    assert collector(scene).collect().gaps == 2
    assert archived_numbers(scene) == [2, 4, 5]
    assert scene.meta.rows[open_key(kid)]["gaps"] == [[1, 1], [3, 3]]
    scene.clock.advance(hours=2)
    collector(scene).collect()
    assert scene.meta.rows[delegation_key(kid)]["gaps"] == [[1, 1], [3, 3]]


@pytest.mark.parametrize("after", [False, True])
def test_a_gap_is_counted_also_when_what_follows_fails(scene: Scene, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    monkeypatch.setattr(collect, "MAX_BATCH_RECEIPTS", 1)
    kid = kid_of(sign(scene, 3))
    scene.meta._apply([Delete(receipt_key(kid, 1))])
    (scene.faults.fail_after if after else scene.faults.fail_before)(4 if not after else 2, method="transact")
    collected = collector(scene).collect()
    assert (collected.gaps, len(collected.errors)) == (1, 1)
    assert collector(scene).collect().errors == ()
    assert archived_numbers(scene) == [2, 3]


def test_many_receipts_go_in_several_batches(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "MAX_BATCH_RECEIPTS", 4)
    sign(scene, 10)
    assert collector(scene).collect().receipts == 10
    assert sum(o.endswith("jsonl") and "private" not in o for o in objects(scene)) == 3
    assert archived_numbers(scene) == list(range(1, 11))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(1, 13))
def test_a_crash_between_any_two_calls_is_made_good_by_the_next_run(scene: Scene, call: int, after: bool) -> None:
    ids = sign(scene, 2)
    scene.faults.clear()
    (scene.faults.fail_after if after else scene.faults.fail_before)(call, error=Killed())
    try:
        collector(scene).collect()
    except Killed:
        ids += sign(scene, 2)
    scene.faults.clear()
    scene.clock.advance(hours=2)
    collector(scene).collect()
    assert archived_numbers(scene) == list(range(1, len(ids) + 1))
    assert not [k for k in scene.meta.rows if k.partition == OPEN_KEYS]
    row = scene.meta.rows[delegation_key(kid_of(ids))]
    assert (row["last"], row["count"]) == (len(ids), len(ids))
    (event,) = events(scene, "key.closed")
    verify_closing(Closing.from_event(event), seals(scene))


def test_of_two_collectors_on_one_key_one_steps_back(scene: Scene) -> None:
    sign(scene, 2)
    put_new = scene.store.put_new
    inner: list[collect.Collected] = []

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        scene.store.put_new = put_new  # type: ignore[method-assign]
        inner.append(collector(scene).collect())
        return put_new(*args, **kwargs)

    scene.store.put_new = meanwhile  # type: ignore[method-assign]
    outer = collector(scene).collect()
    assert inner[0].receipts + outer.receipts == 2
    assert outer.contended == 1
    assert archived_numbers(scene) == [1, 2]


def test_the_trouble_of_one_key_does_not_hold_up_the_others(scene: Scene) -> None:
    first = sign(scene, 1)
    scene.keys.key_for(scene.keys._keys[MODEL, ENVIRONMENT, "DEPLOYED"].version, ENVIRONMENT).abandon()
    second = sign(scene, 1)
    troubled = min(kid_of(first), kid_of(second))
    scene.store.put(f"{FOLDER}{troubled}/000000000001-000000000001.jsonl", b"something else")
    outcome = collector(scene).collect()
    assert outcome.receipts == 1
    assert len(outcome.errors) == 1
    assert troubled in outcome.errors[0]


def test_a_run_ends_when_its_time_is_up(scene: Scene) -> None:
    sign(scene, 1)
    times = iter(range(0, 1000, 30))
    outcome = collector(scene, monotonic=lambda: next(times)).collect(seconds=10)
    assert outcome.finished is False
