"""Who is signed in to a registry, for the way to it: the token, refreshed shortly before it ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

from attestry.client.errors import SignInError
from attestry.client.sign_in.held import HeldSignIns, SignIn
from attestry.domain.errors import UnavailableError

REFRESH_SECONDS: Final = 60
"""How long before a token ends the next one is asked for."""

PROFILE_VARIABLE: Final = "AWS_PROFILE"
TOKEN_VARIABLE: Final = "ATTESTRY_TOKEN"  # noqa: S105 - a variable's name


class SignedIn:
    """A sign-in that is used.

    Args:
        sign_in: as it was found.
        held: where it is kept.
        clock: seconds since the epoch.
    """

    def __init__(self, sign_in: SignIn, held: HeldSignIns, clock: Callable[[], float] = time.time) -> None:
        self.sign_in = sign_in
        self._held = held
        self._clock = clock
        self._guard = threading.Lock()

    def token(self) -> str:
        """Return the token for the registry.

        Processes that find it about to end come one after the other: the first has it refreshed, the others find what it kept. A provider
        that gives another refresh token each time, and ends a sign-in whose old one comes again, sees each once.

        Raises:
            SignInError: it has ended, or somebody signed out.
            UnavailableError: it has ended, and the provider does not answer.
        """
        with self._guard:
            if not self._is_fresh(self.sign_in):
                with self._held.locked():
                    self.sign_in = self._renewed()
            return self.sign_in.bearer

    def _renewed(self) -> SignIn:
        settings = self.sign_in.settings
        found = self._held.find(settings.api_url)
        if found is None:
            raise SignInError(f"you are signed out of {settings.api_url}: sign in again: attestry login")
        if (found.settings.issuer, found.subject) != (settings.issuer, self.sign_in.subject):
            raise SignInError(f"{found.name} has signed in to {settings.api_url} since: start again to act as they")
        if self._is_fresh(found):
            return found
        has_ended = found.ends_at <= self._clock()
        if not found.refresh:
            if has_ended:
                raise SignInError(f"your sign-in to {settings.api_url} has ended: sign in again: attestry login")
            return found
        try:
            made = self._refreshed(found)
        except UnavailableError:
            if has_ended:
                raise
            return found
        self._held.renew(made)
        return made

    def _refreshed(self, found: SignIn) -> SignIn:
        from attestry.client.sign_in.flow import renewed

        try:
            return renewed(found)
        except SignInError as error:
            raise SignInError(f"your sign-in could not be refreshed ({error.message}): sign in again: attestry login") from error

    def _is_fresh(self, sign_in: SignIn) -> bool:
        return sign_in.ends_at - self._clock() > REFRESH_SECONDS


def signed_in(api_url: str, held: HeldSignIns | None = None) -> SignedIn | None:
    """Return who is signed in to a registry, None where nobody is; errors as of `HeldSignIns.find`."""
    kept = held or HeldSignIns()
    found = kept.find(api_url)
    return SignedIn(found, kept) if found is not None else None


def ambient_sign_in(url: str = "") -> SignedIn | None:
    """Return the sign-in that counts where a program names neither a session nor a token.

    A token in `ATTESTRY_TOKEN` and a profile in `AWS_PROFILE` come before it: what the environment says is closer than what a file says.

    Args:
        url: address of the registry; by default the one that was signed in to last.

    Raises:
        SignInError: what is kept cannot be read.
    """
    if os.environ.get(TOKEN_VARIABLE) or os.environ.get(PROFILE_VARIABLE):
        return None
    held = HeldSignIns()
    address = url or next(reversed(held.signed_in()), "")
    return signed_in(address, held) if address else None
