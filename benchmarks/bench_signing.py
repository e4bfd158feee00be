"""Signing and verifying a prediction, beside the same library's raw Ed25519 in the same run.

The rounds of all measurements are interleaved, so that a slower or faster machine is slower or faster for all of them; they are short, and
the best one counts, in processor time, so that other programs on the machine do not. `sign prediction` may take twice as long as `raw
sign`, and `receipt path` three times: what a warm prediction does beside AWS and the model, namely decode the pointer's row, judge whether
it is fresh, sign, and build the receipt's row. What the table's adapter then does for DynamoDB stands in a row of its own, not judged.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc import jws
from joserfc.jwk import OKPKey

from attestry.aws.clock import SystemClock
from attestry.aws.meta_store import DynamoMetaStore
from attestry.aws.rows import marshal_row, unmarshal_row
from attestry.domain.principal import identify
from attestry.evidence.compact_jws import decode_segment, encode_segment
from attestry.evidence.delegation import issue, jwk_of, verify_delegation
from attestry.evidence.receipt import verify_receipt
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import Item, Key, Put
from attestry.usecases.freshness import PointerWatch
from attestry.usecases.sign import Capture, SigningKey, receipt_put
from benchmarks.result import Result, Table, Target

TARGET_SIGN_RATIO = 2.0
TARGET_PATH_RATIO = 3.0
ROUNDS = 150
CALLS = 20
FEATURES = 30


class _Delegator:
    """A P-256 key in memory in the place of KMS, whose answer would take milliseconds."""

    key_id = "benchmark"

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def sign_es256(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def public_key_der(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(serialization.Encoding.DER, form)


def run() -> Result:
    """Measure, in microseconds of each call and as ratios to raw Ed25519."""
    micros = _measure(_measurements())
    rows = tuple((name, round(value, 1), round(value / micros[_baseline(name)], 2)) for name, value in micros.items())
    sign, path = (round(micros[name] / micros["raw sign"], 2) for name in ("sign prediction", "receipt path"))
    table = Table("Signing and verifying one prediction", ("what", "µs", "x raw Ed25519"), rows, ("Best round of each, interleaved.",))
    targets = (
        Target("signing a receipt, x raw Ed25519 sign", sign, TARGET_SIGN_RATIO),
        Target("the whole receipt path without AWS, x raw Ed25519 sign", path, TARGET_PATH_RATIO),
    )
    return Result("signing", (table,), targets, {"library": "cryptography"})


def _measurements() -> dict[str, Callable[[], object]]:
    private_key = Ed25519PrivateKey.generate()
    public_key = private_key.public_key()
    raw_public = public_key.public_bytes_raw()
    delegator = _Delegator()
    version = VersionUrn("tumour-diagnosis", 1, "0" * 64)
    delegation = issue(
        delegator, version=version, environment="production", standing="DEPLOYED", public_key=raw_public, now=datetime.now(UTC)
    )
    key = SigningKey(private_key, delegation, SystemClock())
    request = json.dumps({"instances": [{f"feature {n}": n / 7 for n in range(FEATURES)}]}).encode()
    output = b'[{"label": "benign", "probability": 0.9712345678901234}]'
    receipt = key.sign(request, output).receipt
    first, second, last = receipt.split(".")
    message, signature = f"{first}.{second}".encode(), decode_segment(last)
    header, payload = json.loads(decode_segment(first)), decode_segment(second)
    jose_key = OKPKey.import_key({**jwk_of(raw_public), "d": encode_segment(private_key.private_bytes_raw()).decode()})
    der = delegator.public_key_der()
    return {
        "raw sign": lambda: private_key.sign(message),
        "sign prediction": lambda: key.sign(request, output),
        **_receipt_paths(key, version, request, output),
        "sign by joserfc (claims ready)": lambda: jws.serialize_compact(header, payload, jose_key, algorithms=["Ed25519"]),
        "raw verify": lambda: public_key.verify(signature, message),
        "verify receipt": lambda: verify_receipt(receipt, delegation),
        "verify receipt and delegation": lambda: verify_receipt(receipt, verify_delegation(delegation.token, der)),
    }


def _receipt_paths(key: SigningKey, version: VersionUrn, request: bytes, output: bytes) -> dict[str, Callable[[], object]]:
    """Return what a warm prediction does beside AWS and the model, in the order of `attestry.usecases.predict`.

    Once up to the row that is to be written, and once with all that the table's adapter does to it before it hands it to boto3.
    """
    arn = "arn:aws:sts::123456789012:assumed-role/attestry-consumer/service"
    who = {"account": "123456789012", "prefix": "attestry", "method": "AWS_IAM SigV4", "address": "192.0.2.7"}
    by = identify(arn, "AROACONSUMER:service", **who).to_item()
    pointer = {
        "pk": f"MODEL#{version.model}",
        "sk": "POINTER#production",
        "model": version.model,
        "environment": "production",
        "number": version.number,
        "previous": None,
        "version_digest": version.digest,
        "execution_id": "tumour-diagnosis-1-1-000000000000",
        "folder": f"models/{version.model}/1-{'0' * 40}-tumour-diagnosis-1-1-000000000000",
        "capture_rate": "0.1",
        "rev": 7,
        "at": "2026-11-21T10:00:00.000000Z",
        "by": by,
    }
    answered = marshal_row(pointer)

    class Table:
        """Answers as DynamoDB's client, at once."""

        def get_item(self, **_: object) -> dict[str, Any]:
            return {"Item": answered}

        def put_item(self, **_: object) -> dict[str, Any]:
            return {}

    class Decoded:
        """Reads the pointer's row out of what DynamoDB answers, and no more."""

        def get(self, _: Key) -> Item:
            return unmarshal_row(answered)

    client, decoded = cast("Any", Table()), cast("Any", Decoded())
    meta = DynamoMetaStore(client, "table")

    def act(table: Any, write: Callable[[Put], object]) -> None:
        watch = PointerWatch(table, version.model, "production", time.monotonic)
        row = watch.read()
        watch.confirm(version.digest)
        signed = key.sign(request, output)
        capture = Capture(str(row["capture_rate"]), str(row["folder"]), None)
        with key.recording():
            write(receipt_put(signed, capture, request=request, output=output, principal=by))
        watch.confirm(version.digest)

    return {
        "receipt path": lambda: act(decoded, lambda put: put),
        "receipt path, with the table's adapter": lambda: act(meta, lambda put: meta.transact([put])),
    }


def _measure(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    best = dict.fromkeys(calls, float("inf"))
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, call in calls.items():
                start = time.thread_time()
                for _ in range(CALLS):
                    call()
                best[name] = min(best[name], (time.thread_time() - start) / CALLS * 1e6)
    finally:
        gc.enable()
    return best


def _baseline(name: str) -> str:
    return "raw verify" if "verify" in name else "raw sign"
