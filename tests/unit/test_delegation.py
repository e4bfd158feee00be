"""Delegations: what is accepted, and what is not."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.compact_jws import encode_segment
from attestry.evidence.delegation import (
    Delegation,
    issue,
    jwk_of,
    key_id,
    public_key_of,
    read_unverified_delegation,
    verify_delegation,
)
from attestry.evidence.version_urn import VersionUrn
from tests.fakes import LocalSigner

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
VERSION = VersionUrn("credit-risk", 3, "ab" * 32)
SIGNER = LocalSigner("arn:aws:kms:eu-central-1:123456789012:key/delegator")
DER = SIGNER.public_key_der()


def make(**changes: Any) -> Delegation:
    public_key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    values = {"version": VERSION, "environment": "production", "standing": "DEPLOYED", "public_key": public_key, "now": NOW}
    return issue(SIGNER, **{**values, **changes})


TOKEN = make().token


def signed(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return a token with a good signature of the delegator over a changed header or changed claims (None removes)."""
    first, second, _ = TOKEN.split(".")
    whole = {**json.loads(decode(first)), **(header or {})}
    body = {k: v for k, v in {**json.loads(decode(second)), **claims}.items() if v is not None}
    text = b".".join(encode_segment(json.dumps(part).encode()) for part in (whole, body))
    return (text + b"." + encode_segment(SIGNER.sign_es256(text))).decode()


def decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "==")


def test_a_delegation_is_verified_as_it_was_issued() -> None:
    delegation = make()
    assert verify_delegation(delegation.token, DER, now=NOW) == delegation
    assert read_unverified_delegation(delegation.token) == delegation


def test_a_delegation_is_a_jwt_that_joserfc_accepts() -> None:
    key = ECKey.import_key(DER_TO_PEM)
    token = jwt.decode(TOKEN, key, algorithms=["ES256"])
    assert token.header["typ"] == "predkey+jwt"
    assert token.claims["sub"] == str(VERSION)
    assert token.claims["aud"] == "production/credit-risk"
    assert token.claims["exp"] - token.claims["iat"] == 3600


def test_the_key_id_is_the_digest_of_the_token() -> None:
    assert len(key_id(TOKEN)) == 52
    assert key_id(TOKEN) != key_id(make().token)


@pytest.mark.parametrize("second", [-1, 3600])
def test_a_delegation_is_valid_for_its_hour_only(second: int) -> None:
    with pytest.raises(IntegrityError, match="not valid at this time"):
        verify_delegation(TOKEN, DER, now=NOW.replace(microsecond=0) + timedelta(seconds=second))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_changed_byte_of_a_delegation_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(TOKEN) - 1))
    other = data.draw(st.characters(min_codepoint=1, max_codepoint=255).filter(lambda c: c != TOKEN[at]))
    with pytest.raises(IntegrityError):
        verify_delegation(TOKEN[:at] + other + TOKEN[at + 1 :], DER)


@pytest.mark.parametrize("cut", [0, 1, 10, len(TOKEN) - 1])
def test_a_part_of_a_delegation_is_refused(cut: int) -> None:
    for changed in (TOKEN[:cut], TOKEN + TOKEN[:cut] + ".", TOKEN + "=", " " + TOKEN, TOKEN + "\n"):
        with pytest.raises(IntegrityError):
            verify_delegation(changed, DER)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES384"},
        {"alg": "Ed25519"},
        {"typ": "JWT"},
        {"typ": "prediction+jws"},
        {"kid": "other"},
        {"crit": ["b64"], "b64": False},
        {"jwk": {"kty": "EC"}},
    ],
    ids=str,
)
def test_another_header_is_refused_even_when_it_is_signed(header: dict[str, Any]) -> None:
    assert verify_delegation(signed(), DER)
    with pytest.raises(IntegrityError, match="protected header"):
        verify_delegation(signed(header), DER)


def test_a_delegation_without_signature_is_refused() -> None:
    first, second, _ = TOKEN.split(".")
    none = encode_segment(json.dumps({**json.loads(decode(first)), "alg": "none"}).encode()).decode()
    for token in (f"{first}.{second}.", f"{none}.{second}."):
        with pytest.raises(IntegrityError):
            verify_delegation(token, DER)


def test_the_public_key_does_not_serve_as_a_shared_secret() -> None:
    first, second, _ = TOKEN.split(".")
    header = encode_segment(json.dumps({**json.loads(decode(first)), "alg": "HS256"}).encode()).decode()
    for secret in (DER, DER_TO_PEM):
        mac = hmac.digest(secret, f"{header}.{second}".encode(), "sha256")
        with pytest.raises(IntegrityError):
            verify_delegation(f"{header}.{second}.{encode_segment(mac).decode()}", DER)


def test_a_delegation_by_another_key_is_refused() -> None:
    with pytest.raises(IntegrityError):
        verify_delegation(TOKEN, LocalSigner().public_key_der())


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(NOW.timestamp()) + 3601},
        {"exp": int(NOW.timestamp())},
        {"exp": None},
        {"exp": float(int(NOW.timestamp()) + 60)},
        {"exp": True},
        {"nbf": 0},
        {"iat": int(NOW.timestamp()) + 10},
        {"sub": "urn:attestry:other:3:sha256:" + "ab" * 32},
        {"sub": "credit-risk@3"},
        {"aud": "production/other"},
        {"aud": "/credit-risk"},
        {"aud": "a/b/credit-risk"},
        {"aud": ["production/credit-risk"]},
        {"standing": "CANDIDATE"},
        {"standing": "RETIRED"},
        {"cnf": {}},
        {"cnf": {"jwk": {"kty": "OKP", "crv": "X25519", "x": "A" * 43}}},
        {"cnf": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}}},
        {"cnf": {"jwk": {**jwk_of(bytes(32)), "d": "A" * 43}}},
        {"cnf": {"jwk": jwk_of(bytes(32)), "kid": "x"}},
        {"iss": ""},
        {"jti": None},
        {"extra": 1},
    ],
    ids=str,
)
def test_claims_that_break_a_rule_are_refused_even_when_they_are_signed(claims: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        verify_delegation(signed(**claims), DER)


@pytest.mark.parametrize(
    "changes",
    [{"lifetime_seconds": 3601}, {"lifetime_seconds": 0}, {"standing": "APPROVED"}, {"environment": "a/b"}, {"public_key": b"short"}],
    ids=str,
)
def test_a_delegation_that_breaks_a_rule_is_not_issued(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        make(**changes)


def test_a_private_key_is_not_taken_for_a_public_one() -> None:
    with pytest.raises(InvalidInputError, match="ed25519"):
        public_key_of({**jwk_of(bytes(32)), "d": "A" * 43})


def _pem() -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

    return load_der_public_key(DER).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


DER_TO_PEM = _pem()
