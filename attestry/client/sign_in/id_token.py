"""The ID token of a sign-in: who it was (OpenID Connect Core 1.0, section 3.1.3.7).

It is checked as the registry checks bearer tokens (`attestry.access.tokens`), and besides: it answers this very sign-in (`nonce`), is for
this client alone (`azp`), and belongs to the access token that came with it (`at_hash`, where it has one).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError

from attestry.access.issuers import Issuer
from attestry.access.tokens import MAX_TOKEN_BYTES, TokenError, verify_token
from attestry.client.errors import SignInError
from attestry.client.sign_in.provider import words
from attestry.domain.errors import InvalidInputError
from attestry.evidence.canonical import parse_strict

_NAMES: Final = ("preferred_username", "email", "name", "cognito:username", "sub")


@dataclass(frozen=True)
class Identity:
    """Who signed in.

    Attributes:
        subject: `sub`, which the issuer gives to nobody else.
        name: the first of their names that the token has, for people to read.
        ends_at: when the token ends, in seconds since the epoch.
    """

    subject: str
    name: str
    ends_at: int


def read_id_token(
    token: str,
    *,
    issuer: str,
    client_id: str,
    key: Callable[[str], Mapping[str, Any] | None],
    now: float,
    nonce: str = "",
    access_token: str = "",
) -> Identity:
    """Check an ID token, and return whom it is of.

    Args:
        token: compact JWS.
        issuer: whose it has to be.
        client_id: for which client.
        key: returns the issuer's JWK of an ID.
        now: seconds since the epoch.
        nonce: what it has to answer; empty for a token that a refresh gave, which answers nothing.
        access_token: what came with it.

    Raises:
        SignInError: a rule is broken.
        UnavailableError: the issuer's keys could not be read.
    """
    if not token or len(token) > MAX_TOKEN_BYTES:
        raise SignInError(f"{issuer} gave no ID token: the scopes have to hold `openid`")
    # An alias names an issuer in the registry's logins; here none is made.
    expected = Issuer("sign-in", issuer, (client_id,))
    try:
        holder = verify_token(token, [expected], lambda _issuer, kid: key(kid), now)
    except TokenError as error:
        raise SignInError(f"the ID token of {issuer} does not count: {error.message}") from error
    claims = _claims(token)
    if nonce and not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise SignInError(f"the ID token of {issuer} does not count: it answers another sign-in (nonce)")
    audience = claims.get("aud")
    if claims.get("azp", client_id) != client_id or (isinstance(audience, list) and len(audience) > 1 and "azp" not in claims):
        raise SignInError(f"the ID token of {issuer} does not count: it was given to another client (azp)")
    if access_token and "at_hash" in claims and claims["at_hash"] != _half_digest(access_token):
        raise SignInError(f"the ID token of {issuer} does not count: it belongs to another access token (at_hash)")
    name = next(words(claims[name]) for name in _NAMES if isinstance(claims.get(name), str) and claims[name])
    return Identity(holder.subject, name, int(claims["exp"]))


def end_of(token: str) -> int | None:
    """Return when a JWT says that it ends, in seconds since the epoch; None where it is no JWT or does not say.

    Nothing is verified: whoever takes the token decides, and this says when it is worth to ask for another one.
    """
    try:
        ends = _claims(token).get("exp")
    except ValueError:
        return None
    return int(ends) if isinstance(ends, (int, float)) else None


def is_jwt(token: str) -> bool:
    """Return whether a token is one that a registry could check."""
    try:
        return bool(_claims(token))
    except ValueError:
        return False


def _claims(token: str) -> dict[str, Any]:
    """Return what a JWT says, unverified, or what one that was verified says.

    Raises:
        ValueError: it is none.
    """
    try:
        claims = parse_strict(jws.extract_compact(token.encode()).payload)
    except (JoseError, InvalidInputError) as error:
        raise ValueError("no JWT") from error
    return claims if isinstance(claims, dict) else {}


def _half_digest(token: str) -> str:
    """Return `at_hash`: the left half of the SHA-256, for RS256 and ES256 alike."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()[:16]).rstrip(b"=").decode()
