"""Delegations: the short-lived certificates that let one serving process sign for one version.

A delegation is a JWT (RFC 7519), ES256, `typ=predkey+jwt`, by the registry's delegator key. Its claims:

| claim | value |
|---|---|
| iss | the delegator key (its ARN on AWS) |
| sub | the version: `urn:attestry:<model>:<number>:sha256:<version digest>` |
| aud | the endpoint: `<environment>/<model>` |
| standing | what the version is there: DEPLOYED, CANARY or SHADOW |
| cnf.jwk | the Ed25519 public key of the process (RFC 7800, RFC 8037) |
| iat, nbf, exp | seconds since 1970; at most one hour |
| jti | random |
| max | only where the approval sets a number of predictions: the highest sequence number that the key may sign |
| segments | only where the approval sets them: feature to the list of values that a request may have |

The *key ID* is SHA-256 of the delegation's compact form in lower-case base32, so a receipt names not only a key, but
what the key was allowed to. `kid` in the delegation's own header is the RFC 7638 thumbprint of the delegator key.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.canonical import canonical_bytes, parse_strict
from attestry.evidence.compact_jws import decode_segment, encode_segment, read_unverified, require_types, verify
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import Signer

if TYPE_CHECKING:
    from joserfc.jwk import ECKey

TYPE = "predkey+jwt"
ALGORITHM = "ES256"
MAX_LIFETIME_SECONDS = 3600
STANDINGS = ("DEPLOYED", "CANARY", "SHADOW")
ED25519_BYTES = 32

_ENVIRONMENT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_TEXTS = ("iss", "sub", "aud", "standing", "jti")
_CONDITIONS: dict[str, type] = {"max": int, "segments": dict}
"""Claims that are there only where the approval has such conditions."""

_CLAIMS: dict[str, type] = {**dict.fromkeys(_TEXTS, str), "cnf": dict, **dict.fromkeys(("iat", "nbf", "exp"), int)}


@dataclass(frozen=True)
class Grant:
    """What a delegation says.

    Attributes:
        issuer: the delegator key.
        version: the version that may be signed for.
        environment: where, for example `production`.
        standing: what the version is there.
        public_key: Ed25519 public key of the process, 32 bytes.
        issued: seconds since 1970.
        not_before: seconds since 1970.
        expires: seconds since 1970, at most an hour after `not_before`.
        token_id: random.
        max_receipts: the highest sequence number that may be signed, or None for no limit.
        segments: feature to the values that a request may have; empty for any.
    """

    issuer: str
    version: VersionUrn
    environment: str
    standing: str
    public_key: bytes
    issued: int
    not_before: int
    expires: int
    token_id: str
    max_receipts: int | None = None
    segments: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Delegation:
    """A grant and the token that proves it.

    Attributes:
        token: the compact JWT.
        grant: what it says.
    """

    token: str
    grant: Grant

    @property
    def kid(self) -> str:
        """Return the key ID."""
        return key_id(self.token)


def key_id(token: str) -> str:
    """Return the ID of a delegation's key: lower-case base32 of SHA-256 over the token's bytes, 52 characters."""
    return base64.b32encode(hashlib.sha256(token.encode("ascii")).digest()).decode().rstrip("=").lower()


def jwk_of(public_key: bytes) -> dict[str, str]:
    """Return the JWK (RFC 8037) of an Ed25519 public key of 32 bytes."""
    return {"kty": "OKP", "crv": "Ed25519", "x": encode_segment(public_key).decode()}


def public_key_of(jwk: Mapping[str, Any]) -> bytes:
    """Return the 32 bytes of an Ed25519 public key.

    Raises:
        InvalidInputError: not exactly the public JWK of an Ed25519 key; a private part is refused too.
    """
    kind = (jwk.get("kty"), jwk.get("crv"))
    if set(jwk) != {"kty", "crv", "x"} or kind != ("OKP", "Ed25519") or not isinstance(jwk["x"], str):
        raise InvalidInputError.of("jwk", "ed25519", "not the public JWK of an Ed25519 key (kty OKP, crv Ed25519, x)")
    key = decode_segment(jwk["x"])
    if len(key) != ED25519_BYTES:
        raise InvalidInputError.of("jwk.x", "ed25519", "an Ed25519 public key has 32 bytes")
    return key


def issue(
    signer: Signer,
    *,
    version: VersionUrn,
    environment: str,
    standing: str,
    public_key: bytes,
    now: datetime,
    lifetime_seconds: int = MAX_LIFETIME_SECONDS,
    max_receipts: int | None = None,
    segments: Mapping[str, Sequence[str]] | None = None,
) -> Delegation:
    """Sign a delegation.

    Args:
        signer: the delegator key.
        version: the version that may be signed for.
        environment: where.
        standing: what the version is there.
        public_key: Ed25519 public key of the process, 32 bytes.
        now: the time, UTC.
        lifetime_seconds: at most 3,600.
        max_receipts: the highest sequence number that may be signed; None for no limit.
        segments: feature to the values that a request may have; None for any.

    Raises:
        InvalidInputError: a value has not the form that the delegation needs.
    """
    from joserfc import jws

    start = int(now.timestamp())
    grant = Grant(
        issuer=signer.key_id,
        version=version,
        environment=environment,
        standing=standing,
        public_key=public_key,
        issued=start,
        not_before=start,
        expires=start + lifetime_seconds,
        token_id=secrets.token_hex(16),
        max_receipts=max_receipts,
        segments={name: tuple(values) for name, values in (segments or {}).items()},
    )
    try:
        _check(grant)
    except IntegrityError as error:
        raise InvalidInputError.of("delegation", "delegation", error.message) from error
    key = _delegator_key(signer.public_key_der())
    claims = canonical_bytes(_claims(grant))
    token = jws.serialize_compact(_header(key), claims, key, registry=_signing_registry(signer))
    return Delegation(token, grant)


def verify_delegation(token: str, delegator_public_key: bytes, *, now: datetime | None = None) -> Delegation:
    """Verify a delegation.

    Args:
        token: the compact JWT.
        delegator_public_key: SubjectPublicKeyInfo in DER of the delegator key that the verifier trusts.
        now: when given, the delegation must be valid at this time.

    Raises:
        IntegrityError: not a delegation by this key, a claim breaks a rule, or not valid at `now`.
    """
    key = _delegator_key(delegator_public_key)
    grant = _grant_of(verify(token, key, name="delegation", header=_header(key)))
    if now is not None and not grant.not_before <= now.timestamp() < grant.expires:
        raise IntegrityError("the delegation is not valid at this time")
    return Delegation(token, grant)


def read_unverified_delegation(token: str) -> Delegation:
    """Return what a delegation says without verifying it: for the process that asked the delegator itself for it.

    Raises:
        IntegrityError: not of the form of a delegation.
    """
    parts = read_unverified(token, name="delegation")
    try:
        claims = parse_strict(parts.payload)
    except InvalidInputError as error:
        raise IntegrityError(f"this is no delegation: {error.message}") from error
    if not isinstance(claims, dict):
        raise IntegrityError("this is no delegation: the payload is no object")
    return Delegation(token, _grant_of(claims))


def _grant_of(claims: dict[str, Any]) -> Grant:
    require_types(claims, {**_CLAIMS, **{n: t for n, t in _CONDITIONS.items() if n in claims}}, name="delegation")
    environment, _, model = claims["aud"].partition("/")
    try:
        version = VersionUrn.parse(claims["sub"])
        if set(claims["cnf"]) != {"jwk"} or not isinstance(claims["cnf"]["jwk"], dict):
            raise IntegrityError("the claim cnf of the delegation must hold one jwk")
        public_key = public_key_of(claims["cnf"]["jwk"])
    except InvalidInputError as error:
        raise IntegrityError(f"the delegation is malformed: {error.message}") from error
    if model != version.model:
        raise IntegrityError("the delegation names the endpoint of another model")
    grant = Grant(
        issuer=claims["iss"],
        version=version,
        environment=environment,
        standing=claims["standing"],
        public_key=public_key,
        issued=claims["iat"],
        not_before=claims["nbf"],
        expires=claims["exp"],
        token_id=claims["jti"],
        max_receipts=claims.get("max"),
        segments=_read_segments(claims["segments"]) if "segments" in claims else {},
    )
    _check(grant)
    return grant


def _read_segments(claim: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    if not claim or not all(isinstance(v, list) and v and all(isinstance(t, str) for t in v) for v in claim.values()):
        raise IntegrityError("the claim segments of the delegation gives features and the texts that each may be")
    return {name: tuple(values) for name, values in claim.items()}


def _claims(grant: Grant) -> dict[str, Any]:
    conditions: dict[str, Any] = {} if grant.max_receipts is None else {"max": grant.max_receipts}
    if grant.segments:
        conditions["segments"] = {name: list(values) for name, values in grant.segments.items()}
    return {
        **conditions,
        "iss": grant.issuer,
        "sub": str(grant.version),
        "aud": f"{grant.environment}/{grant.version.model}",
        "standing": grant.standing,
        "cnf": {"jwk": jwk_of(grant.public_key)},
        "iat": grant.issued,
        "nbf": grant.not_before,
        "exp": grant.expires,
        "jti": grant.token_id,
    }


def _check(grant: Grant) -> None:
    if _ENVIRONMENT.fullmatch(grant.environment) is None:
        raise IntegrityError("the delegation names no environment")
    if grant.standing not in STANDINGS:
        raise IntegrityError(f"no version that is {grant.standing} may be signed for")
    if not 0 < grant.expires - grant.not_before <= MAX_LIFETIME_SECONDS or grant.issued > grant.not_before:
        raise IntegrityError("a delegation lasts at most an hour and starts when it is issued or later")
    if grant.max_receipts is not None and grant.max_receipts < 1:
        raise IntegrityError("a delegation that limits the receipts of its key allows one or more")
    if len(grant.public_key) != ED25519_BYTES or not grant.issuer or not grant.token_id:
        raise IntegrityError("the delegation lacks key, issuer or token ID")


def _header(key: ECKey) -> dict[str, str]:
    return {"alg": ALGORITHM, "typ": TYPE, "kid": key.thumbprint()}


def _delegator_key(der: bytes) -> ECKey:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key
    from joserfc.jwk import ECKey

    key = load_der_public_key(der)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IntegrityError("the delegator key is no P-256 key")
    return ECKey.import_key(key)


def _signing_registry(signer: Signer) -> Any:
    """Return a registry whose only algorithm is ES256 by the port: no process holds the delegator's private key."""
    from joserfc.jwa import JWSAlgModel
    from joserfc.jws import JWSRegistry

    class PortES256(JWSAlgModel):
        name = ALGORITHM
        description = "ES256 by a signing service"
        key_type = "EC"

        def sign(self, msg: bytes, key: Any) -> bytes:  # noqa: ARG002 - joserfc's signature
            return signer.sign_es256(msg)

        def verify(self, msg: bytes, sig: bytes, key: Any) -> bool:
            raise NotImplementedError("verification uses joserfc's own ES256")

    registry = JWSRegistry(algorithms=[ALGORITHM])
    registry.algorithms = {ALGORITHM: PortES256()}
    return registry
