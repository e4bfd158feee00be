"""Bearer tokens: JWTs (RFC 7519) of configured issuers, checked before anything in them counts.

Rules:
- The issuer is found by `iss`, to the letter; the key by `kid` among that issuer's own. What a token says of keys (`jku`, `jwk`, `x5u`,
  `x5c`) is never used, and one with `crit` is refused, since nothing there is understood here.
- RS256 and ES256 alone, and only with a key of that kind: neither `none` nor a MAC with a public key for its secret.
- `exp`, `iss`, the audience and the login claim have to be there; `exp`, `nbf` and `iat` are judged with a minute's leeway. An end that is
  more than a day away is refused: whoever steals a token has it for that long.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from attestry.access.issuers import ALGORITHMS, MAX_LOGIN, Issuer, TokenHolder
from attestry.domain.errors import ForbiddenError, InvalidInputError
from attestry.evidence.canonical import parse_strict

LEEWAY_SECONDS: Final = 60
MAX_LIFE_SECONDS: Final = 24 * 3600
MAX_TOKEN_BYTES: Final = 16 * 1024
_KEY_TYPES: Final = {"RS256": "RSA", "ES256": "EC"}

Keys = Callable[[Issuer, str], Mapping[str, Any] | None]
"""Returns the JWK of an issuer with a key ID, or None."""


class TokenError(ForbiddenError):
    """A bearer token that does not count; the message says why, for logs and never for its bearer."""

    code = "invalid_token"
    status = 401


def read_token(header: str) -> str:
    """Return the token of an `Authorization` header.

    Raises:
        TokenError: it is no bearer token.
    """
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_BYTES or not token.isascii() or " " in token:
        raise TokenError("no bearer token")
    return token


def verify_token(token: str, issuers: Sequence[Issuer], keys: Keys, now: float) -> TokenHolder:
    """Check a token, and return whom it is of.

    Args:
        token: compact JWS.
        issuers: whose tokens count.
        keys: finds their keys.
        now: seconds since the epoch.

    Raises:
        TokenError: a rule is broken.
        UnavailableError: the issuer's keys could not be read.
    """
    header, claims = _part(token, 0), _part(token, 1)
    issuer = next((one for one in issuers if one.issuer == claims.get("iss")), None)
    if issuer is None:
        raise TokenError("a token of an issuer that is not configured")
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise TokenError(f"a token signed by {algorithm!r:.40}, which is not one of {', '.join(ALGORITHMS)}")
    if "crit" in header or not isinstance(kid, str) or not 0 < len(kid) <= MAX_LOGIN:
        raise TokenError("a token without the ID of its key, or with conditions that are not understood")
    jwk = keys(issuer, kid)
    if jwk is None:
        raise TokenError("a token of a key that its issuer does not publish")
    _check_signature(token, algorithm, jwk)
    _check_times(claims, now)
    _check_audience(issuer, claims)
    return _holder(issuer, claims)


def _part(token: str, index: int) -> dict[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        raise TokenError("a token that is no signed JWT")
    try:
        read = parse_strict(base64.urlsafe_b64decode(parts[index] + "=" * (-len(parts[index]) % 4)))
    except (binascii.Error, ValueError, InvalidInputError) as error:
        raise TokenError("a token that is no signed JWT") from error
    if not isinstance(read, dict):
        raise TokenError("a token that is no signed JWT")
    return read


def _check_signature(token: str, algorithm: str, jwk: Mapping[str, Any]) -> None:
    kind = _KEY_TYPES[algorithm]
    if jwk.get("kty") != kind or jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm) != algorithm:
        raise TokenError(f"a token signed by {algorithm} with a key that is not for it")
    public = {name: value for name, value in jwk.items() if name in ("kty", "n", "e", "crv", "x", "y")}
    try:
        key = RSAKey.import_key(public) if kind == "RSA" else ECKey.import_key(public)
        jws.deserialize_compact(token, key, algorithms=[algorithm])
    except (JoseError, ValueError) as error:
        raise TokenError("a token whose signature is not its issuer's") from error


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if "exp" not in times or any(type(value) not in (int, float) for value in times.values()):
        raise TokenError("a token without an end, or with times that are no numbers")
    if now >= times["exp"] + LEEWAY_SECONDS:
        raise TokenError("a token that has ended")
    if times["exp"] > now + MAX_LIFE_SECONDS + LEEWAY_SECONDS:
        raise TokenError("a token that lives for more than a day")
    if max(times.get("nbf", 0), times.get("iat", 0)) > now + LEEWAY_SECONDS:
        raise TokenError("a token from the future")


def _check_audience(issuer: Issuer, claims: Mapping[str, Any]) -> None:
    named = claims.get(issuer.audience_claim)
    audiences = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    if not {one for one in audiences if isinstance(one, str)} & set(issuer.audiences):
        raise TokenError("a token for another audience")
    if issuer.token_use and claims.get("token_use") != issuer.token_use:
        raise TokenError(f"a token that is no {issuer.token_use} token")


def _holder(issuer: Issuer, claims: Mapping[str, Any]) -> TokenHolder:
    subject, name = claims.get("sub"), claims.get(issuer.login_claim)
    if not all(isinstance(text, str) and 0 < len(text) <= MAX_LOGIN and text.isprintable() for text in (subject, name)):
        raise TokenError(f"a token without {issuer.login_claim}, or with one that is no printable text")
    groups = claims.get(issuer.groups_claim) if issuer.groups_claim else []
    listed = groups if isinstance(groups, list) else [groups]
    roles = tuple(sorted({issuer.roles[group] for group in listed if isinstance(group, str) and group in issuer.roles}))
    login = f"oidc:{issuer.alias}:{name}"
    return TokenHolder(issuer.alias, issuer.issuer, str(subject), login, roles, bool(issuer.roles), int(claims["exp"]) + LEEWAY_SECONDS)
