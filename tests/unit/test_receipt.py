"""Receipts: what is emitted, what is accepted, and what is not."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.compact_jws import encode_segment
from attestry.evidence.delegation import Delegation, issue, jwk_of
from attestry.evidence.receipt import (
    MAX_INLINE_OUTPUT_BYTES,
    ReceiptWriter,
    check_output,
    check_request,
    unverified_prediction_id,
    verify_receipt,
)
from attestry.evidence.version_urn import VersionUrn
from tests.fakes import LocalSigner

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
VERSION = VersionUrn("credit-risk", 3, "ab" * 32)
SIGNER = LocalSigner()


def delegated(version: VersionUrn = VERSION) -> tuple[Ed25519PrivateKey, Delegation]:
    key = Ed25519PrivateKey.generate()
    public_key = key.public_key().public_bytes_raw()
    return key, issue(SIGNER, version=version, environment="production", standing="DEPLOYED", public_key=public_key, now=NOW)


KEY, DELEGATION = delegated()
WRITER = ReceiptWriter(KEY.sign, kid=DELEGATION.kid, version=VERSION)
REQUEST, OUTPUT = b'{"instances":[{"age":41}]}', b'[{"label":"good","probability":0.1}]'
EMITTED = WRITER.emit(sequence=7, time_ms=MS, request=REQUEST, output=OUTPUT)
TOKEN = EMITTED.token
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
OUTPUTS = st.lists(NUMBERS | st.text() | st.dictionaries(st.text(max_size=5), NUMBERS, max_size=3), max_size=40)


def decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "==")


def signed(header: dict[str, Any] | None = None, key: Ed25519PrivateKey = KEY, **claims: Any) -> str:
    """Return a token with a good signature over a changed header or changed claims (None removes)."""
    first, second, _ = TOKEN.split(".")
    whole = {**json.loads(decode(first)), **(header or {})}
    body = {k: v for k, v in {**json.loads(decode(second)), **claims}.items() if v is not None}
    text = b".".join(encode_segment(json.dumps(part).encode()) for part in (whole, body))
    return (text + b"." + encode_segment(key.sign(text))).decode()


@settings(deadline=None)
@given(st.integers(1, 10**12 - 1), st.binary(max_size=200), OUTPUTS)
def test_a_receipt_is_verified_as_it_was_emitted(sequence: int, request: bytes, output: list[Any]) -> None:
    text = json.dumps(output).encode()
    emitted = WRITER.emit(sequence=sequence, time_ms=MS, request=request, output=text)
    receipt = verify_receipt(emitted.token, DELEGATION)
    assert str(receipt.prediction_id) == emitted.prediction_id == f"{DELEGATION.kid}-{sequence}"
    assert receipt.version == VERSION
    assert receipt.output_sha256 == hashlib.sha256(text).hexdigest()
    assert receipt.output is None or receipt.output.encode() == text
    assert unverified_prediction_id(emitted.token) == receipt.prediction_id
    check_request(receipt, emitted.salt, request)
    check_output(receipt, text)


@settings(deadline=None)
@given(st.integers(1, 10**12 - 1), OUTPUTS)
def test_the_token_is_byte_for_byte_the_one_that_joserfc_makes(sequence: int, output: list[Any]) -> None:
    token = WRITER.emit(sequence=sequence, time_ms=MS, request=b"", output=json.dumps(output).encode()).token
    header, payload = (decode(part) for part in token.split(".")[:2])
    private_key = OKPKey.import_key({**jwk_of(KEY.public_key().public_bytes_raw()), "d": encode_segment(KEY.private_bytes_raw()).decode()})
    assert jws.serialize_compact(json.loads(header), payload, private_key, algorithms=["Ed25519"]) == token
    assert jws.deserialize_compact(token, OKPKey.import_key(jwk_of(DELEGATION.grant.public_key)), algorithms=["Ed25519"])


def test_the_text_that_was_emitted_is_signed_and_not_a_float_written_anew() -> None:
    text = b"[0.10000000000000000001, 1E2, 1.50, -0.0]"
    receipt = verify_receipt(WRITER.emit(sequence=1, time_ms=MS, request=b"", output=text).token, DELEGATION)
    assert receipt.output == text.decode()


@pytest.mark.parametrize(("size", "inline"), [(MAX_INLINE_OUTPUT_BYTES, True), (MAX_INLINE_OUTPUT_BYTES + 1, False)])
def test_an_output_of_more_than_4_kib_is_signed_by_its_digest(size: int, inline: bool) -> None:
    text = b'["' + b"x" * (size - 4) + b'"]'
    receipt = verify_receipt(WRITER.emit(sequence=1, time_ms=MS, request=b"", output=text).token, DELEGATION)
    assert (receipt.output is not None) is inline
    assert receipt.output_sha256 == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("output", [b"[NaN]", b"[Infinity]", b"[-Infinity]", b"[1e999]", b"", b"a,b\n1,2", b"\xff", b'{"a":1,"a":2}'])
def test_what_is_no_json_or_holds_nan_is_not_signed(output: bytes) -> None:
    with pytest.raises(InvalidInputError):
        WRITER.emit(sequence=1, time_ms=MS, request=b"", output=output)


def test_equal_requests_have_different_digests() -> None:
    digests = {
        verify_receipt(WRITER.emit(sequence=n, time_ms=MS, request=REQUEST, output=OUTPUT).token, DELEGATION).request_sha256
        for n in (1, 2, 3)
    }
    assert len(digests) == 3


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_every_changed_byte_of_a_receipt_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(TOKEN) - 1))
    other = data.draw(st.characters(min_codepoint=1, max_codepoint=255).filter(lambda c: c != TOKEN[at]))
    with pytest.raises(IntegrityError):
        verify_receipt(TOKEN[:at] + other + TOKEN[at + 1 :], DELEGATION)


def test_every_base64url_character_in_the_last_place_but_its_own_is_refused() -> None:
    for character in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        if character != TOKEN[-1]:
            with pytest.raises(IntegrityError):
                verify_receipt(TOKEN[:-1] + character, DELEGATION)


@pytest.mark.parametrize("changed", [TOKEN + "=", TOKEN + "\n", " " + TOKEN, TOKEN + ".", TOKEN[:-1], "", "..", "a.b.c"])
def test_another_text_for_a_receipt_is_refused(changed: str) -> None:
    with pytest.raises(IntegrityError):
        verify_receipt(changed, DELEGATION)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES256"},
        {"alg": "EdDSA"},
        {"alg": "Ed448"},
        {"typ": "JWT"},
        {"typ": "predkey+jwt"},
        {"kid": "a" * 52},
        {"b64": False, "crit": ["b64"]},
        {"jwk": jwk_of(bytes(32))},
    ],
    ids=str,
)
def test_another_header_is_refused_even_when_it_is_signed(header: dict[str, Any]) -> None:
    assert verify_receipt(signed(), DELEGATION)
    with pytest.raises(IntegrityError, match="protected header"):
        verify_receipt(signed(header), DELEGATION)


def test_the_public_key_does_not_serve_as_a_shared_secret() -> None:
    first, second, _ = TOKEN.split(".")
    header = {**json.loads(decode(first)), "alg": "HS256"}
    forged = jws.serialize_compact(header, decode(second), OctKey.import_key(DELEGATION.grant.public_key), algorithms=["HS256"])
    with pytest.raises(IntegrityError):
        verify_receipt(forged, DELEGATION)


def test_a_delegation_does_not_pass_for_a_receipt() -> None:
    with pytest.raises(IntegrityError):
        verify_receipt(DELEGATION.token, DELEGATION)


def test_the_receipt_of_another_key_is_refused() -> None:
    _, other = delegated()
    with pytest.raises(IntegrityError):
        verify_receipt(TOKEN, other)


def test_a_receipt_signed_by_another_key_in_this_keys_name_is_refused() -> None:
    key, _ = delegated()
    with pytest.raises(IntegrityError, match="signature"):
        verify_receipt(signed(key=key), DELEGATION)


@pytest.mark.parametrize(
    "claims",
    [
        {"version": str(VersionUrn("credit-risk", 4, "ab" * 32))},
        {"version": str(VersionUrn("credit-risk", 3, "cd" * 32))},
        {"version": "credit-risk@3"},
        {"prediction_id": "a" * 52 + "-7"},
        {"prediction_id": f"{DELEGATION.kid}-8"},
        {"sequence": 8},
        {"sequence": "7"},
        {"sequence": True},
        {"sequence": None},
        {"time_ms": MS - 1},
        {"time_ms": MS + 3_600_000},
        {"time_ms": float(MS)},
        {"request_sha256": "x"},
        {"output": None},
        {"output": ["x"]},
        {"output_sha256": "0" * 64},
        {"output": None, "output_sha256": "0" * 63},
        {"output": "x" * 4097},
        {"extra": 1},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_claims_that_break_a_rule_are_refused_even_when_they_are_signed(claims: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        verify_receipt(signed(**claims), DELEGATION)


def test_a_name_that_occurs_twice_in_the_payload_is_refused() -> None:
    first, second, _ = TOKEN.split(".")
    doubled = decode(second)[:-1] + b',"sequence":7}'
    text = first.encode() + b"." + encode_segment(doubled)
    with pytest.raises(IntegrityError, match="malformed"):
        verify_receipt((text + b"." + encode_segment(KEY.sign(text))).decode(), DELEGATION)


@pytest.mark.parametrize(
    ("salt", "request_bytes"),
    [(EMITTED.salt, REQUEST + b" "), ("00" * 16, REQUEST), ("zz", REQUEST), ("", REQUEST)],
    ids=("request", "salt", "no hex", "no salt"),
)
def test_another_request_does_not_match_the_receipt(salt: str, request_bytes: bytes) -> None:
    with pytest.raises(IntegrityError):
        check_request(verify_receipt(TOKEN, DELEGATION), salt, request_bytes)


def test_another_output_does_not_match_the_receipt() -> None:
    with pytest.raises(IntegrityError):
        check_output(verify_receipt(TOKEN, DELEGATION), OUTPUT + b" ")
