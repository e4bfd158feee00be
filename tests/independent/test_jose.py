"""npm `jose` checks delegations and receipts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestry.evidence.compact_jws import decode_segment, encode_segment
from attestry.evidence.delegation import Delegation, issue
from attestry.evidence.receipt import ReceiptWriter
from attestry.evidence.version_urn import VersionUrn
from tests.fakes import FixedClock, LocalSigner
from tests.independent.nodetool import judge

VERSION = VersionUrn("credit-risk", 3, "ab" * 32)
AT = FixedClock().now()
REQUEST = b'{"instances":[{"age":41}]}'
OUTPUTS = (b"[0.1]", b'["\xc3\xa4", 1e-7, 12345678901234567890]', b'["' + b"x" * 5000 + b'"]')


@dataclass(frozen=True)
class Evidence:
    """A delegation and a receipt under it, with what a verifier trusts."""

    delegator: LocalSigner
    process: Ed25519PrivateKey
    delegation: Delegation
    receipt: str

    def case(self, kind: str = "receipt", **changes: Any) -> dict[str, Any]:
        return {
            "kind": kind,
            "token": self.receipt if kind == "receipt" else self.delegation.token,
            **({"delegation": self.delegation.token} if kind == "receipt" else {}),
            "delegator": jwk_of(self.delegator),
            "issuer": self.delegator.key_id,
            "audience": "production/credit-risk",
            "at": int(AT.timestamp()) + 60,
            **changes,
        }


def jwk_of(signer: LocalSigner) -> dict[str, str]:
    key = serialization.load_der_public_key(signer.public_key_der())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers = key.public_numbers()
    x, y = (encode_segment(n.to_bytes(32, "big")).decode() for n in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def make_evidence(delegator: LocalSigner | None = None, *, version: VersionUrn = VERSION, output: bytes = OUTPUTS[0]) -> Evidence:
    delegator, process = delegator or LocalSigner("arn:aws:kms:eu-central-1:1:key/d"), Ed25519PrivateKey.generate()
    public = process.public_key().public_bytes_raw()
    delegation = issue(delegator, version=version, environment="production", standing="DEPLOYED", public_key=public, now=AT)
    return Evidence(delegator, process, delegation, sign_receipt(process, delegation, version, output=output))


def sign_receipt(
    process: Ed25519PrivateKey, delegation: Delegation, version: VersionUrn = VERSION, *, output: bytes = OUTPUTS[0], seconds: int = 5
) -> str:
    writer = ReceiptWriter(process.sign, kid=delegation.kid, version=version)
    return writer.emit(sequence=1, time_ms=int(AT.timestamp() * 1000) + seconds * 1000, request=REQUEST, output=output).token


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return make_evidence()


def header_of(token: str) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(decode_segment(token.split(".")[0]))
    return header


def with_header(token: str, sign: Callable[[bytes], bytes] | None = None, **changes: Any) -> str:
    """Change the protected header; with `sign`, sign the result."""
    _, payload, signature = token.split(".")
    header = {name: value for name, value in {**header_of(token), **changes}.items() if value is not None}
    start = encode_segment(json.dumps(header, separators=(",", ":")).encode()).decode()
    if sign:
        signature = encode_segment(sign(f"{start}.{payload}".encode())).decode()
    return f"{start}.{payload}.{signature}"


def with_claims(token: str, sign: Callable[[bytes], bytes] | None = None, **changes: Any) -> str:
    """Change the payload; with `sign`, sign the result."""
    start, payload, signature = token.split(".")
    payload = encode_segment(json.dumps({**json.loads(decode_segment(payload)), **changes}).encode()).decode()
    if sign:
        signature = encode_segment(sign(f"{start}.{payload}".encode())).decode()
    return f"{start}.{payload}.{signature}"


def flip(token: str, segment: int) -> str:
    parts = token.split(".")
    raw = bytearray(decode_segment(parts[segment]))
    raw[len(raw) // 2] ^= 1
    parts[segment] = encode_segment(bytes(raw)).decode()
    return ".".join(parts)


def test_delegations_and_receipts_verify() -> None:
    made = [make_evidence(output=output) for output in OUTPUTS]
    cases = [e.case(kind) for e in made for kind in ("delegation", "receipt")]
    assert judge(cases) == [""] * len(cases)


def hmac_by_public_key(e: Evidence) -> dict[str, Any]:
    """Key confusion: the delegator's public key, which everybody has, as the secret of an HMAC."""
    pem = serialization.load_der_public_key(e.delegator.public_key_der()).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    token = with_header(e.delegation.token, lambda message: hmac.digest(pem, message, hashlib.sha256), alg="HS256")
    return e.case("delegation", token=token)


def receipt_hmac_by_public_key(e: Evidence) -> dict[str, Any]:
    public = e.process.public_key().public_bytes_raw()
    return e.case(token=with_header(e.receipt, lambda message: hmac.digest(public, message, hashlib.sha256), alg="HS256"))


def without_signature(token: str) -> str:
    return with_header(token, alg="none").rpartition(".")[0] + "."


def another_version(e: Evidence) -> dict[str, Any]:
    version = replace(VERSION, number=4)
    return e.case(token=sign_receipt(e.process, e.delegation, version))


def another_delegation(e: Evidence) -> dict[str, Any]:
    public = e.process.public_key().public_bytes_raw()
    second = issue(e.delegator, version=VERSION, environment="production", standing="DEPLOYED", public_key=public, now=AT)
    return e.case(delegation=second.token)


def another_process(e: Evidence) -> dict[str, Any]:
    return e.case(token=sign_receipt(Ed25519PrivateKey.generate(), e.delegation))


def after_expiry(e: Evidence) -> dict[str, Any]:
    return e.case(token=sign_receipt(e.process, e.delegation, seconds=3600))


def own_key_in_the_header(e: Evidence) -> dict[str, Any]:
    mallory = Ed25519PrivateKey.generate()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": encode_segment(mallory.public_key().public_bytes_raw()).decode()}
    return e.case(token=with_header(e.receipt, mallory.sign, jwk=jwk))


def self_made_delegation(e: Evidence) -> dict[str, Any]:
    mallory = make_evidence(LocalSigner(e.delegator.key_id))
    return e.case(token=mallory.receipt, delegation=mallory.delegation.token)


TAMPERED: dict[str, tuple[Callable[[Evidence], dict[str, Any]], str]] = {
    "a delegation with another payload": (
        lambda e: e.case("delegation", token=with_claims(e.delegation.token, standing="SHADOW")),
        "signature verification failed",
    ),
    "a delegation with another header": (
        lambda e: e.case("delegation", token=flip(e.delegation.token, 0)),
        "signature verification failed",
    ),
    "a delegation with another signature": (
        lambda e: e.case("delegation", token=flip(e.delegation.token, 2)),
        "signature verification failed",
    ),
    "a delegation without signature": (
        lambda e: e.case("delegation", token=without_signature(e.delegation.token)),
        "ERR_JOSE_ALG_NOT_ALLOWED",
    ),
    "a delegation whose HMAC key is the public key": (hmac_by_public_key, "ERR_JOSE_ALG_NOT_ALLOWED"),
    "a delegation of another type": (
        lambda e: e.case("delegation", token=with_header(e.delegation.token, e.delegator.sign_es256, typ="prediction+jws")),
        'unexpected "typ"',
    ),
    "a delegation that has expired": (lambda e: e.case("delegation", at=int((AT + timedelta(hours=1)).timestamp())), "ERR_JWT_EXPIRED"),
    "a delegation before its time": (lambda e: e.case("delegation", at=int((AT - timedelta(seconds=1)).timestamp())), '"nbf" claim'),
    "a delegation for another endpoint": (lambda e: e.case("delegation", audience="production/tumour-diagnosis"), '"aud" claim'),
    "a delegation by another key": (
        lambda e: e.case("delegation", delegator=jwk_of(LocalSigner("mallory"))),
        "signature verification failed",
    ),
    "a receipt with another payload": (lambda e: e.case(token=with_claims(e.receipt, output="[0.9]")), "signature verification failed"),
    "a receipt with another header": (lambda e: e.case(token=flip(e.receipt, 0)), "signature verification failed"),
    "a receipt with another signature": (lambda e: e.case(token=flip(e.receipt, 2)), "signature verification failed"),
    "a receipt without signature": (lambda e: e.case(token=without_signature(e.receipt)), "ERR_JOSE_ALG_NOT_ALLOWED"),
    "a receipt whose HMAC key is the public key": (receipt_hmac_by_public_key, "ERR_JOSE_ALG_NOT_ALLOWED"),
    "a receipt of another type": (lambda e: e.case(token=with_header(e.receipt, e.process.sign, typ="JWT")), "the token is no receipt"),
    "a delegation in place of a receipt": (lambda e: e.case(token=e.delegation.token), "ERR_JOSE_ALG_NOT_ALLOWED"),
    "a receipt that brings its own key": (own_key_in_the_header, "signature verification failed"),
    "a receipt for another version": (another_version, "speaks of another version"),
    "a receipt under another delegation of the same key": (another_delegation, "names another delegation"),
    "a receipt by another process": (another_process, "signature verification failed"),
    "a receipt signed after the delegation expired": (after_expiry, "outside the delegation's time"),
    "a receipt under a delegation of the attacker's own": (self_made_delegation, "signature verification failed"),
}
"""What was done to name it: how, and a part of the reason for which it is refused."""


def test_what_was_changed_forged_or_confused_is_refused_for_that_reason(evidence: Evidence) -> None:
    reasons = judge([evidence.case(), *(tamper(evidence) for tamper, _ in TAMPERED.values())])
    assert reasons[0] == ""
    wrong = {name: found for (name, (_, reason)), found in zip(TAMPERED.items(), reasons[1:], strict=True) if reason not in found}
    assert not wrong


def test_the_key_id_is_recomputed_by_the_verifier_and_equals_ours(evidence: Evidence) -> None:
    expected = base64.b32encode(hashlib.sha256(evidence.delegation.token.encode()).digest()).decode().rstrip("=").lower()
    assert header_of(evidence.receipt)["kid"] == expected == evidence.delegation.kid
