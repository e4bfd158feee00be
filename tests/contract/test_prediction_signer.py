"""`attestry.PredictionSigner` and the collector over the emulator's table and bucket."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import attestry
from attestry.aws.clock import SystemClock
from attestry.aws.meta_store import DynamoMetaStore
from attestry.aws.object_store import S3ObjectStore
from attestry.domain.errors import ConflictError, InvalidInputError
from attestry.evidence.delegation import verify_delegation
from attestry.evidence.receipt import check_request, verify_receipt
from attestry.ports import Put, When
from attestry.usecases.collect import Collector, find_receipt
from attestry.usecases.sign import delegation_key
from tests.deployed import MODEL, Scene, make_version


class Session:
    """A boto3 session on the emulator, whose Lambda client runs the delegate use case in process."""

    def __init__(self, scene: Scene, client_of: Callable[..., Any]) -> None:
        self._scene = scene
        self._client_of = client_of

    def client(self, service: str, *, config: Any) -> Any:
        return self if service == "lambda" else self._client_of(service)

    def invoke(self, **request: Any) -> dict[str, Any]:
        answer = self._scene.delegate(json.loads(request["Payload"]))
        return {"Payload": io.BytesIO(json.dumps(answer).encode())}


@pytest.fixture
def scene(client_of: Callable[..., Any], table: str, bucket: str) -> Scene:
    scene = Scene()
    rows = scene.meta.rows
    scene.meta = DynamoMetaStore(client_of("dynamodb"), table)  # type: ignore[assignment]
    scene.store = S3ObjectStore(client_of("s3"), bucket)  # type: ignore[assignment]
    scene.clock = SystemClock()  # type: ignore[assignment]
    scene.meta.transact([Put(key, row, When()) for key, row in rows.items()])
    return scene


def make(scene: Scene, client_of: Callable[..., Any], table: str, bucket: str, number: int = 1) -> attestry.PredictionSigner:
    digest = make_version(number).version_digest
    session: Any = Session(scene, client_of)
    return attestry.PredictionSigner(MODEL, version_digest=digest, session=session, table=table, store=bucket)


def test_receipts_of_many_threads_are_durable_and_collected(scene: Scene, client_of: Callable[..., Any], table: str, bucket: str) -> None:
    signer = make(scene, client_of, table, bucket)
    with ThreadPoolExecutor(8) as pool:
        signed = list(pool.map(lambda n: signer.sign(f"{n}".encode(), b"[0.5]", principal={"login": "ci"}), range(24)))
    assert sorted(s.sequence for s in signed) == list(range(1, 25))
    row = scene.meta.get(delegation_key(signed[0].kid))
    assert row is not None
    delegation = verify_delegation(row["delegation"], scene.signer.public_key_der())
    for n, one in enumerate(signed):
        check_request(verify_receipt(one.receipt, delegation), one.salt, f"{n}".encode())
    assert Collector(scene.meta, scene.store, SystemClock()).collect().receipts == 24
    found = find_receipt(scene.meta, scene.store, signed[0].prediction_id)
    assert found is not None
    assert found["receipt"] == signed[0].receipt


def test_a_version_that_does_not_stand_deployed_gets_no_receipt(
    scene: Scene, client_of: Callable[..., Any], table: str, bucket: str
) -> None:
    with pytest.raises(ConflictError):
        make(scene, client_of, table, bucket, number=2).sign(b"", b"[1]")


def test_a_large_captured_payload_goes_to_the_store(scene: Scene, client_of: Callable[..., Any], table: str, bucket: str) -> None:
    signed = make(scene, client_of, table, bucket).sign(b"x" * 150_000, b"[1]")
    row = find_receipt(scene.meta, scene.store, signed.prediction_id)
    assert row is not None
    assert scene.store.read(row["payload"]["request"]["key"], max_bytes=1 << 20) == b"x" * 150_000


@pytest.mark.parametrize(("model", "digest"), [("../x", "0" * 64), (MODEL, "x"), (MODEL, "A" * 64)])
def test_a_signer_for_nothing_that_can_be_a_version_is_refused(model: str, digest: str) -> None:
    with pytest.raises(InvalidInputError):
        attestry.PredictionSigner(model, version_digest=digest)
