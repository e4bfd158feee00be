"""Signing keys of a process: sequence, rotation, abandonment, capture, and many threads at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.errors import ConflictError, IntegrityError, InvalidInputError, UnavailableError
from attestry.evidence.delegation import verify_delegation
from attestry.evidence.receipt import check_request, verify_receipt
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import Item
from attestry.usecases.group_signing import GroupSigner
from attestry.usecases.sign import FunctionDelegator, SigningKey, delegation_key, is_captured
from tests.deployed import ENVIRONMENT, MODEL, Scene, make_version

VERSION = VersionUrn(MODEL, 1, make_version(1).version_digest)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def key_of(scene: Scene) -> SigningKey:
    return scene.keys.key_for(VERSION, ENVIRONMENT)


def receipts(scene: Scene) -> dict[str, list[Item]]:
    """Return the receipt rows by key, in the order of their numbers; each verified."""
    found: dict[str, list[Item]] = {}
    for key in sorted((k for k in scene.meta.rows if k.sort.startswith("R#")), key=lambda k: (k.partition, k.sort)):
        kid, row = key.partition.removeprefix("KEY#"), scene.meta.rows[key]
        delegation = verify_delegation(scene.meta.rows[delegation_key(kid)]["delegation"], scene.signer.public_key_der())
        receipt = verify_receipt(row["receipt"], delegation)
        assert f"R#{receipt.prediction_id.sequence:012d}" == key.sort
        found.setdefault(kid, []).append(row)
    return found


def group_signer(scene: Scene, **changes: Any) -> GroupSigner:
    values: dict[str, Any] = {"meta": scene.meta, "store": scene.store, "keys": scene.keys, "model": MODEL}
    return GroupSigner(**{**values, "environment": ENVIRONMENT, "version_digest": VERSION.digest, **changes})


def test_a_key_numbers_its_predictions_from_one_without_gaps(scene: Scene) -> None:
    key = key_of(scene)
    assert [key.sign(b"", b"[1]").sequence for _ in range(3)] == [1, 2, 3]


def test_an_output_that_is_refused_takes_no_number(scene: Scene) -> None:
    key = key_of(scene)
    with pytest.raises(InvalidInputError):
        key.sign(b"", b"[NaN]")
    assert key.sign(b"", b"[1]").sequence == 1


def test_a_key_is_kept_for_its_version_and_rotated_after_45_minutes(scene: Scene) -> None:
    first = key_of(scene)
    scene.clock.advance(minutes=44, seconds=50)
    assert key_of(scene) is first
    scene.clock.advance(seconds=20)
    assert key_of(scene) is not first


def test_a_key_of_another_version_is_never_returned(scene: Scene) -> None:
    first = key_of(scene)
    scene.deploy(2)
    second = scene.keys.key_for(VersionUrn(MODEL, 2, make_version(2).version_digest), ENVIRONMENT)
    assert second is not first
    assert second.version.number == 2
    with pytest.raises(ConflictError):
        key_of(scene)


def test_a_delegation_for_another_version_than_was_asked_for_is_refused(scene: Scene) -> None:
    def answer(event: dict[str, Any]) -> dict[str, Any]:
        return scene.delegate({**event, "version_digest": None})

    scene.functions.handlers["delegate"] = answer
    scene.deploy(2)
    with pytest.raises(IntegrityError, match="not the one asked for"):
        key_of(scene)


def test_a_delegation_for_another_key_than_was_asked_for_is_refused(scene: Scene) -> None:
    first: dict[str, Any] = {}

    def answer(event: dict[str, Any]) -> dict[str, Any]:
        first.update(first or scene.delegate(event))
        return first

    scene.functions.handlers["delegate"] = answer
    key_of(scene).abandon()
    with pytest.raises(IntegrityError, match="not the one asked for"):
        key_of(scene)


@pytest.mark.parametrize("answer", [None, {}, {"error": "x"}, {"error": {"code": "unavailable", "message": "later"}}, {"delegation": 1}])
def test_a_delegator_that_gives_no_delegation_is_unavailable(scene: Scene, answer: Any) -> None:
    scene.functions.handlers["delegate"] = lambda event: answer
    with pytest.raises(UnavailableError):
        key_of(scene)


def test_after_its_delegation_has_expired_a_key_signs_nothing(scene: Scene) -> None:
    key = key_of(scene)
    scene.clock.advance(hours=1)
    with pytest.raises(UnavailableError):
        key.sign(b"", b"[1]")


def test_the_time_in_receipts_never_goes_back(scene: Scene) -> None:
    key = key_of(scene)
    delegation = verify_delegation(scene.meta.rows[delegation_key(key.kid)]["delegation"], scene.signer.public_key_der())
    times = []
    for seconds in (10, -5, -10, 20):
        scene.clock.advance(seconds=seconds)
        times.append(verify_receipt(key.sign(b"", b"[1]").receipt, delegation).time_ms)
    assert times == sorted(times)


@pytest.mark.parametrize("error", [UnavailableError("?"), RuntimeError("?"), KeyboardInterrupt()])
def test_a_key_whose_receipt_was_not_written_is_abandoned(scene: Scene, error: BaseException) -> None:
    key = key_of(scene)
    with pytest.raises(type(error)), key.recording():
        raise error
    with pytest.raises(UnavailableError):
        key.sign(b"", b"[1]")
    assert key_of(scene) is not key


def test_a_receipt_that_became_durable_after_the_key_may_be_closed_is_not_acknowledged(scene: Scene) -> None:
    key = key_of(scene)
    with pytest.raises(UnavailableError, match="too late"), key.recording():
        scene.clock.advance(minutes=61, seconds=1)


@given(st.decimals(0, 1, places=3))
def test_the_captured_share_follows_the_rate(rate: Any) -> None:
    hits = sum(is_captured(f"receipt {n}", str(rate)) for n in range(400))
    assert abs(hits / 400 - float(rate)) < 0.12


@pytest.mark.parametrize(("rate", "captured"), [("0", False), ("0.0", False), ("1", True), ("1.0", True)])
def test_a_rate_of_nothing_or_all_captures_nothing_or_all(rate: str, captured: bool) -> None:
    assert {is_captured(f"receipt {n}", rate) for n in range(50)} == {captured}


def test_a_signed_prediction_is_durable_with_what_is_needed_to_check_it(scene: Scene) -> None:
    signed = group_signer(scene).sign(b"\xff request", b"[0.5]", {"login": "ci"})
    (rows,) = receipts(scene).values()
    assert rows[0]["receipt"] == signed.receipt
    assert rows[0]["request"] == b"\xff request"
    assert rows[0]["principal"] == {"login": "ci"}
    delegation = verify_delegation(scene.meta.rows[delegation_key(signed.kid)]["delegation"], scene.signer.public_key_der())
    check_request(verify_receipt(signed.receipt, delegation), rows[0]["salt"], b"\xff request")


def test_a_large_captured_payload_lies_in_the_store_before_the_receipt_is_written(scene: Scene) -> None:
    body = b"x" * 200_000
    group_signer(scene).sign(body, b"[1]")
    (rows,) = receipts(scene).values()
    assert scene.store.read(rows[0]["payload"]["request"]["key"], max_bytes=1 << 20) == body
    assert "request" not in rows[0]
    calls = scene.faults.calls
    assert calls.index("MemoryObjectStore.put_new") < len(calls) - 1 - calls[::-1].index("MemoryMetaStore.transact")


def test_a_signer_without_a_store_says_that_a_large_payload_was_not_captured(scene: Scene) -> None:
    group_signer(scene, store=None).sign(b"x" * 200_000, b"[1]")
    (rows,) = receipts(scene).values()
    assert rows[0]["captured"] is False
    assert "too large" in rows[0]["not_captured"]


def test_threads_get_receipts_in_sequence_and_those_that_wait_commit_together(scene: Scene) -> None:
    signer = group_signer(scene)
    slow = scene.meta._apply
    first = threading.Event()

    def slowly(writes: Any) -> None:
        if not first.is_set():
            first.set()
            threading.Event().wait(0.2)
        slow(writes)

    scene.meta._apply = slowly  # type: ignore[method-assign]
    with ThreadPoolExecutor(40) as pool:
        signed = list(pool.map(lambda n: signer.sign(f"{n}".encode(), b"[1]"), range(200)))
    assert sorted(s.sequence for s in signed) == list(range(1, 201))
    (rows,) = receipts(scene).values()
    assert len(rows) == 200
    assert scene.faults.calls.count("MemoryMetaStore.transact") < 200


def test_one_bad_output_in_a_group_harms_no_other(scene: Scene) -> None:
    signer = group_signer(scene)

    def sign(n: int) -> object:
        try:
            return signer.sign(b"", b"[NaN]" if n % 5 == 0 else b"[1]").sequence
        except InvalidInputError:
            return None

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(sign, range(50)))
    assert [r is None for r in results] == [n % 5 == 0 for n in range(50)]
    assert sorted(r for r in results if r) == list(range(1, 41))  # type: ignore[type-var]


@pytest.mark.parametrize("after", [False, True])
def test_a_failed_write_is_not_acknowledged_and_its_key_signs_no_more(scene: Scene, after: bool) -> None:
    signer = group_signer(scene)
    signer.sign(b"", b"[1]")
    plan = scene.faults.fail_after if after else scene.faults.fail_before
    plan(method="MemoryMetaStore.transact")
    with pytest.raises(UnavailableError):
        signer.sign(b"", b"[2]")
    later = signer.sign(b"", b"[3]")
    assert later.sequence == 1
    assert sorted(len(rows) for rows in receipts(scene).values()) == ([1, 2] if after else [1, 1])


def test_a_process_that_has_loaded_another_version_than_stands_deployed_signs_nothing(scene: Scene) -> None:
    signer = group_signer(scene)
    signer.sign(b"", b"[1]")
    scene.deploy(2)
    with pytest.raises(ConflictError, match="not the version that is loaded"):
        signer.sign(b"", b"[1]")
    assert sum(len(rows) for rows in receipts(scene).values()) == 1


def test_the_signer_is_offered_by_the_package_without_importing_boto3() -> None:
    import subprocess
    import sys

    code = "import attestry, sys; attestry.PredictionSigner; assert not {'boto3', 'botocore', 'joserfc'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_function_delegator_asks_for_exactly_its_version(scene: Scene) -> None:
    FunctionDelegator(scene.functions, "delegate").delegate(
        environment=ENVIRONMENT, version=VERSION, jwk={"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}
    )
    name, payload, _ = scene.functions.called[0]
    assert (name, payload["version_digest"], payload["model"]) == ("delegate", VERSION.digest, MODEL)
