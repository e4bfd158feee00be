"""Signing and verifying a prediction, beside the same library's raw Ed25519 in the same run.

The rounds of all measurements are interleaved, so that a slower or faster machine is slower or faster for all of them, and the best round
counts. `sign` targets at most twice `raw sign`.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc import jws
from joserfc.jwk import OKPKey

from attestry.aws.clock import SystemClock
from attestry.evidence.compact_jws import decode_segment, encode_segment
from attestry.evidence.delegation import issue, jwk_of, verify_delegation
from attestry.evidence.receipt import verify_receipt
from attestry.evidence.version_urn import VersionUrn
from attestry.usecases.sign import SigningKey

TARGET_SIGN_RATIO = 2.0
ROUNDS = 15
CALLS = 200
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


def run() -> dict[str, Any]:
    """Measure, and return microseconds per call, ratios to raw Ed25519, and whether the target is met."""
    micros = _measure(_measurements())
    rows = [
        {"what": name, "microseconds": round(value, 1), "ratio": round(value / micros[_baseline(name)], 2)}
        for name, value in micros.items()
    ]
    ratio = micros["sign prediction"] / micros["raw sign"]
    return {
        "benchmark": "signing",
        "library": "cryptography",
        "rows": rows,
        "sign_ratio": round(ratio, 2),
        "target": TARGET_SIGN_RATIO,
        "met": ratio <= TARGET_SIGN_RATIO,
    }


def main() -> None:
    """Print a table, and the same as JSON."""
    result = run()
    print(f"{'what':<34}{'µs':>8}{'x raw':>8}")
    for row in result["rows"]:
        print(f"{row['what']:<34}{row['microseconds']:>8.1f}{row['ratio']:>8.2f}")
    print(json.dumps(result))


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
        "sign by joserfc (claims ready)": lambda: jws.serialize_compact(header, payload, jose_key, algorithms=["Ed25519"]),
        "raw verify": lambda: public_key.verify(signature, message),
        "verify receipt": lambda: verify_receipt(receipt, delegation),
        "verify receipt and delegation": lambda: verify_receipt(receipt, verify_delegation(delegation.token, der)),
    }


def _measure(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    best = dict.fromkeys(calls, float("inf"))
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, call in calls.items():
                start = time.perf_counter()
                for _ in range(CALLS):
                    call()
                best[name] = min(best[name], (time.perf_counter() - start) / CALLS * 1e6)
    finally:
        gc.enable()
    return best


def _baseline(name: str) -> str:
    return "raw verify" if "verify" in name else "raw sign"


if __name__ == "__main__":
    main()
