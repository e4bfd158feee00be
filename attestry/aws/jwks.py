"""Keys of identity providers: their JWKS documents, fetched and kept for a while.

Rules:
- A document is read anew after ten minutes, and when a token names a key that is not in it (keys are rotated), but then at most twice a
  minute, so that whoever makes up key IDs makes no requests.
- While an issuer does not answer, what was read before goes on to count for an hour; one that never answered is asked every 5 seconds.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from attestry.access.issuers import Issuer
from attestry.domain.errors import UnavailableError

KEPT_SECONDS: Final = 600.0
AGAIN_SECONDS: Final = 30.0
STALE_SECONDS: Final = 3600.0
FAILED_SECONDS: Final = 5.0
TIMEOUT_SECONDS: Final = 3.0
MAX_BYTES: Final = 256 * 1024

Fetch = Callable[[str], bytes]

logger = logging.getLogger(__name__)


@dataclass
class _Kept:
    """An issuer's keys by ID, when they were read, and when it was last tried."""

    keys: Mapping[str, Mapping[str, Any]]
    read: float
    tried: float


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: the keys of an issuer come from where the deployment says, and from nowhere else."""

    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        """Refuse it."""
        return


def fetch(url: str) -> bytes:
    """Return a document.

    Raises:
        UnavailableError: it cannot be read, or is too large.
    """
    if urlsplit(url).scheme not in ("https", "http"):
        raise UnavailableError(f"{url} is no web address")
    try:
        with build_opener(_NoRedirect()).open(Request(url), timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - its scheme is checked
            data: bytes = answer.read(MAX_BYTES + 1)
    except (OSError, URLError, ValueError) as error:
        raise UnavailableError(f"{url} cannot be read: {type(error).__name__}") from error
    if len(data) > MAX_BYTES:
        raise UnavailableError(f"{url} has more than {MAX_BYTES} bytes")
    return data


class IssuerKeys:
    """The keys of issuers, as one process has read them.

    Args:
        read: fetches a document.
        monotonic: seconds.
    """

    def __init__(self, read: Fetch = fetch, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._monotonic = monotonic
        self._kept: dict[str, _Kept] = {}
        self._failed: dict[str, float] = {}
        self._lock = threading.Lock()

    def find(self, issuer: Issuer, kid: str) -> Mapping[str, Any] | None:
        """Return the JWK with a key ID, or None.

        Raises:
            UnavailableError: the issuer does not answer, and nothing that was read before counts any more.
        """
        if issuer.jwks is not None:
            return _by_id(issuer.jwks).get(kid)
        with self._lock:
            kept, now = self._kept.get(issuer.issuer), self._monotonic()
            fresh = kept is not None and now - kept.read < KEPT_SECONDS
            if kept is None or (now - kept.tried >= AGAIN_SECONDS and (not fresh or kid not in kept.keys)):
                kept = self._refresh(issuer, kept, now)
            return kept.keys.get(kid)

    def _refresh(self, issuer: Issuer, kept: _Kept | None, now: float) -> _Kept:
        if now - self._failed.get(issuer.issuer, -FAILED_SECONDS) < FAILED_SECONDS:
            raise UnavailableError(f"the keys of {issuer.alias} could not be read a moment ago")
        try:
            keys = _by_id(self._document(issuer.jwks_uri or self._discover(issuer)))
        except UnavailableError:
            if kept is None or now - kept.read >= STALE_SECONDS:
                self._failed[issuer.issuer] = now
                raise
            logger.warning("keys of an issuer could not be read; those of before count", extra={"issuer": issuer.alias})
            kept.tried = now
            return kept
        self._kept[issuer.issuer] = _Kept(keys, now, now)
        return self._kept[issuer.issuer]

    def _discover(self, issuer: Issuer) -> str:
        """Return where an issuer's keys are (OpenID Connect Discovery 1.0)."""
        told = self._document(f"{issuer.issuer.rstrip('/')}/.well-known/openid-configuration")
        place, url = urlsplit(issuer.issuer), told.get("jwks_uri")
        if told.get("issuer") != issuer.issuer or not isinstance(url, str) or urlsplit(url).scheme != place.scheme:
            raise UnavailableError(f"the discovery document of {issuer.alias} is of another issuer, or names keys on no secure address")
        return url

    def _document(self, url: str) -> Mapping[str, Any]:
        try:
            read = json.loads(self._read(url))
        except ValueError as error:
            raise UnavailableError(f"{url} is no JSON") from error
        if not isinstance(read, dict):
            raise UnavailableError(f"{url} is no JSON object")
        return read


def _by_id(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    listed = document.get("keys")
    keys = listed if isinstance(listed, list) else []
    return {str(key["kid"]): key for key in keys if isinstance(key, dict) and "kid" in key}
