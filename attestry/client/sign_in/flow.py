"""Signing in and out: the authorization code with PKCE, in the browser of whoever sits here (RFC 8252, RFC 7636)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final

from attestry.client.errors import SignInError
from attestry.client.sign_in.held import HeldSignIns, SignIn
from attestry.client.sign_in.id_token import end_of, is_jwt, read_id_token
from attestry.client.sign_in.loopback import Loopback
from attestry.client.sign_in.provider import Granted, PublicClient
from attestry.client.sign_in.settings import ACCESS, ID, SignInSettings
from attestry.domain.errors import AttestryError

WAIT_SECONDS: Final = 300


def sign_in(settings: SignInSettings, held: HeldSignIns, show: Callable[[str], None], *, seconds: float = WAIT_SECONDS) -> SignIn:
    """Have somebody sign in, and keep who it was.

    Args:
        settings: for which registry, and where.
        held: where it is kept.
        show: given the address at which they sign in, opens it in a browser or tells it; called once the listener is there.
        seconds: how long to wait for them.

    Raises:
        SignInError: they did not, or what came back is not to be believed; nothing is kept then.
        UnavailableError: the provider does not answer.
    """
    client = PublicClient(settings.issuer, settings.client_id)
    state, nonce, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48)
    with Loopback(settings.port, state, settings.issuer, names_issuer=client.provider.names_itself) as loopback:
        where = loopback.redirect_uri
        show(client.authorization_url(redirect_uri=where, scopes=settings.scopes, state=state, nonce=nonce, verifier=verifier))
        code = loopback.wait(seconds)
    granted = client.exchange(code, verifier, where)
    made = _who(settings, client, granted, nonce)
    with held.locked():
        held.keep(made)
    return made


def renewed(before: SignIn) -> SignIn:
    """Return a sign-in with the tokens that its refresh token gave.

    Raises:
        SignInError: the provider gives no more, or they are another's.
        UnavailableError: the provider does not answer.
    """
    settings = before.settings
    client = PublicClient(settings.issuer, settings.client_id)
    granted = client.refresh(before.refresh)
    ends_at = _end(settings, granted)
    if settings.token_use == ID:
        who = read_id_token(granted.identity, issuer=settings.issuer, client_id=settings.client_id, key=client.key, now=time.time())
        if who.subject != before.subject:
            raise SignInError(f"{settings.issuer} gave the tokens of somebody else")
    # A provider that gives no other refresh token means the same one; Authlib has put it there.
    return SignIn(settings, before.subject, before.name, _bearer(settings, granted), granted.refresh, ends_at)


def sign_out(held: HeldSignIns, api_url: str) -> tuple[SignIn | None, bool]:
    """Revoke the refresh token for a registry where its provider can, and forget its tokens however that ends.

    Returns:
        Who was signed in, None where nobody was; and whether the provider has revoked the token.

    Raises:
        SignInError: what is kept cannot be read.
    """
    with held.locked():
        before = held.find(api_url)
        if before is None:
            return None, False
        try:
            # Revoked before it is forgotten: after a crash in between, it is still known here what is to be revoked.
            revoked = bool(before.refresh) and PublicClient(before.settings.issuer, before.settings.client_id).revoke(before.refresh)
        except AttestryError:
            revoked = False
        finally:
            held.drop(api_url)
    return before, revoked


def _who(settings: SignInSettings, client: PublicClient, granted: Granted, nonce: str) -> SignIn:
    who = read_id_token(
        granted.identity,
        issuer=settings.issuer,
        client_id=settings.client_id,
        key=client.key,
        now=time.time(),
        nonce=nonce,
        access_token=granted.access,
    )
    return SignIn(settings, who.subject, who.name, _bearer(settings, granted), granted.refresh, _end(settings, granted))


def _bearer(settings: SignInSettings, granted: Granted) -> str:
    token = granted.identity if settings.token_use == ID else granted.access
    if not is_jwt(token):
        hint = (
            "it may give one with other scopes, or sign in with --token id" if settings.token_use == ACCESS else "the scopes need `openid`"
        )
        raise SignInError(f"{settings.issuer} gave no {settings.token_use} token that a registry can check (a JWT): {hint}")
    return token


def _end(settings: SignInSettings, granted: Granted) -> int:
    if settings.token_use == ACCESS and granted.seconds is not None:
        # By this machine's clock, whatever the provider's says.
        return int(time.time()) + granted.seconds
    ends_at = end_of(_bearer(settings, granted))
    if ends_at is None:
        raise SignInError(f"{settings.issuer} does not say when its {settings.token_use} token ends")
    return ends_at
