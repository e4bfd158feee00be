"""What both signed tokens of the registry, delegation and receipt, ask of a compact JWS beyond RFC 7515.

Rules:
- The algorithm is the verifier's choice, never the token's: exactly one is accepted per type of token, under exactly
  one `typ` (RFC 8725 sections 3.1 and 3.11).
- The protected header has exactly the members that its writer sets; nothing is looked up by what a header says.
- Each segment is the one base64url text of its bytes, and JSON names are unique, so that no two texts pass for the
  same token.
- joserfc checks the signature, before any claim is looked at.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.canonical import parse_strict

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OKPKey

MAX_TOKEN_BYTES = 64 * 1024


@dataclass(frozen=True)
class CompactParts:
    """Header and payload of a token, not verified unless the caller did.

    Attributes:
        header: the protected header.
        payload: the payload's bytes.
    """

    header: dict[str, Any]
    payload: bytes


def encode_segment(data: bytes) -> bytes:
    """Return base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decode_segment(text: str) -> bytes:
    """Return the bytes of a segment.

    Raises:
        InvalidInputError: the text is not the one base64url text of any bytes.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidInputError.of("", "base64url", "not base64url") from error
    if encode_segment(data).decode() != text:
        raise InvalidInputError.of("", "base64url", "not base64url in canonical form")
    return data


def read_unverified(token: str, *, name: str) -> CompactParts:
    """Take a token apart without believing it.

    Args:
        token: the compact form.
        name: what it should be, for the error.

    Raises:
        IntegrityError: it is none.
    """
    try:
        if len(token) > MAX_TOKEN_BYTES or token.count(".") != 2:
            raise InvalidInputError.of("", "compact", "not three segments of acceptable length")
        header, payload, signature = token.split(".")
        decode_segment(signature)
        parsed = parse_strict(decode_segment(header))
        if not isinstance(parsed, dict):
            raise InvalidInputError.of("", "header", "the header is no object")
        return CompactParts(parsed, decode_segment(payload))
    except InvalidInputError as error:
        raise IntegrityError(f"this is no {name}: {error.message}") from error


def verify(token: str, key: ECKey | OKPKey, *, name: str, header: dict[str, str]) -> dict[str, Any]:
    """Verify a token and return its claims.

    Args:
        token: the compact form.
        key: the public key.
        name: what it should be, for the error.
        header: the protected header that it must have, `alg` included.

    Raises:
        IntegrityError: the header differs, the signature does not hold, or the payload is no strict JSON object.
    """
    from joserfc import jws  # the signing path does without joserfc, which takes about 0.2 s to import
    from joserfc.errors import JoseError

    parts = read_unverified(token, name=name)
    if parts.header != header:
        raise IntegrityError(f"this is no {name}: its protected header is not the one that is written for this key")
    try:
        payload = jws.deserialize_compact(token, key, registry=jws.JWSRegistry(algorithms=[header["alg"]])).payload
    except (JoseError, ValueError) as error:
        raise IntegrityError(f"the signature of the {name} does not hold") from error
    try:
        claims = parse_strict(payload)
    except InvalidInputError as error:
        raise IntegrityError(f"the payload of the {name} is malformed: {error.message}") from error
    if not isinstance(claims, dict):
        raise IntegrityError(f"the payload of the {name} is no object")
    return claims


def require_types(claims: dict[str, Any], types: dict[str, type], *, name: str) -> None:
    """Check that the claims are exactly these, each of its type (an integer is no boolean).

    Raises:
        IntegrityError: a claim is missing, of another type, or unknown.
    """
    if set(claims) != set(types):
        raise IntegrityError(f"the {name} must have exactly the claims {', '.join(sorted(types))}")
    for claim, kind in types.items():
        if type(claims[claim]) is not kind:
            raise IntegrityError(f"the claim {claim} of the {name} is no {kind.__name__}")
