"""Webhooks: which events they ask for, which addresses they may have, and what their rows say.

Rules:
- A URL is https, has a host, and neither credentials nor a fragment. Plain http is for the loopback address alone, and only where a
  setting of the embedded AWS allows it.
- Who is connected to is judged by the address, never by the name: only addresses that the internet routes to. Private, link-local
  (the metadata service), loopback, shared, multicast and reserved addresses are refused, and IPv6 addresses that carry an IPv4 one.
- A pattern is a name, or the beginning of one with `*` at its end. Patterns of models are asked only where an event is about a model;
  `*` alone also takes events that are about none.
- A name is never given a secret that it had before: the number goes on when it is added again.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

import rfc8785

from attestry.domain.errors import InvalidInputError

ADDED: Final = "webhook.added"
CHANGED: Final = "webhook.changed"
REMOVED: Final = "webhook.removed"
KINDS: Final = (ADDED, CHANGED, REMOVED)

MAX_URL: Final = 512
MAX_PATTERNS: Final = 20
OVERLAP: Final = timedelta(hours=24)
"""How long after a rotation the secret before signs as well."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_KIND_PATTERN = re.compile(r"\*|[a-z_]{1,40}(?:\.(?:\*|[a-z_]{1,40}))")
_MODEL_PATTERN = re.compile(r"\*|[a-z0-9][a-z0-9-]{0,62}\*?")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?\.?|\[[0-9a-f:.]+\]")
_CARRIERS = tuple(
    ipaddress.IPv6Network(net) for net in ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")
)
_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class State(StrEnum):
    """What a webhook is.

    Attributes:
        ACTIVE: it is told.
        DISABLED: its receiver said that it is gone for good (410).
        REMOVED: an admin took it away; the name remembers its secrets' numbers.
    """

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"
    REMOVED = "REMOVED"


@dataclass(frozen=True)
class Webhook:
    """A webhook.

    Attributes:
        name: its name, which is also its ID.
        url: where to.
        kinds: patterns of kinds of events.
        models: patterns of models.
        state: what it is.
        secret_number: counts its secrets from 1; the secret itself is nowhere.
        rotated: when the secret before it was replaced, RFC 3339; empty where none was.
        reason: why it was changed last.
        by: who did.
        changed: marks of the events that changed it, in order.
        mlflow: of one that MLflow's clients made and that is told in MLflow's words (`attestry.mlflow.webhooks`): `title`, `description`,
            `events`, `sealed` (its secret, encrypted; empty for none), `created`, `updated`; empty of every other.
    """

    name: str
    url: str
    kinds: tuple[str, ...]
    models: tuple[str, ...]
    state: State
    secret_number: int
    rotated: str
    reason: str
    by: str
    changed: tuple[str, ...] = ()
    mlflow: Mapping[str, Any] = field(default_factory=dict)

    def wants(self, kind: str, model: str) -> bool:
        """Return whether it is told events of a kind about a model; `model` is empty for events that are about none."""
        return self.state is State.ACTIVE and _fits(self.kinds, kind) and _fits(self.models, model)

    def signs_with(self, at: datetime) -> tuple[int, ...]:
        """Return the numbers of the secrets that sign at a time: the present one, and in the first day of it the one before."""
        if self.rotated and at < datetime.fromisoformat(self.rotated) + OVERLAP:
            return (self.secret_number, self.secret_number - 1)
        return (self.secret_number,)

    def facts(self) -> dict[str, Any]:
        """Return what an event tells of it.

        The ledger is read by every role, and URLs often hold what only their receiver should know: it tells host and digest.
        """
        return {
            "host": urlsplit(self.url).hostname or "",
            "url_sha256": hashlib.sha256(self.url.encode()).hexdigest(),
            **self._told(),
            **({"mlflow_sha256": mlflow_digest(self.mlflow)} if self.mlflow else {}),
        }

    def _told(self) -> dict[str, Any]:
        return {
            "kinds": list(self.kinds),
            "models": list(self.models),
            "state": self.state.value,
            "secret_number": self.secret_number,
            "rotated": self.rotated,
            "reason": self.reason,
        }

    def to_item(self) -> dict[str, Any]:
        """Return the row."""
        spoken = {"mlflow": dict(self.mlflow)} if self.mlflow else {}
        counted = {"changed": list(self.changed), "rev": len(self.changed)}
        return {"name": self.name, "url": self.url, "by": self.by, **self._told(), **counted, **spoken}

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Webhook:
        """Return the webhook that `to_item` wrote."""
        known = {name: item[name] for name in cls.__dataclass_fields__ if name in item}
        lists = {name: tuple(item[name]) for name in ("kinds", "models", "changed")}
        return cls(**{**known, **lists, "state": State(item["state"]), "secret_number": int(item["secret_number"])})

    def now(self, state: State, *, reason: str, by: str) -> Webhook:
        """Return it in another state."""
        return replace(self, state=state, reason=reason, by=by)


def mlflow_digest(spoken: Mapping[str, Any]) -> str:
    """Return the digest by which events name what a webhook is in MLflow's words; empty where it is nothing."""
    return hashlib.sha256(rfc8785.dumps(dict(spoken))).hexdigest() if spoken else ""


def _fits(patterns: Sequence[str], name: str) -> bool:
    return any(name == p or (p.endswith("*") and name.startswith(p[:-1])) for p in patterns)


def read_name(name: object) -> str:
    """Return a webhook's name.

    Raises:
        InvalidInputError: it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInputError.of("webhook", "name", "a webhook's name is 1 to 63 lower-case letters, digits and inner '-'")
    return name


def read_patterns(field: str, given: object) -> tuple[str, ...]:
    """Return the patterns of `kinds` or `models`; `*` where none are given.

    Raises:
        InvalidInputError: they are none.
    """
    if given is None:
        return ("*",)
    form = _KIND_PATTERN if field == "kinds" else _MODEL_PATTERN
    if not isinstance(given, list) or not given or len(given) > MAX_PATTERNS:
        raise InvalidInputError.of(field, "patterns", f"a list of 1 to {MAX_PATTERNS} patterns is needed")
    for one in given:
        if not isinstance(one, str) or not form.fullmatch(one):
            example = "`version.*` or `alias.set`" if field == "kinds" else "`credit-risk` or `credit-*`"
            raise InvalidInputError.of(field, "pattern", f"{str(one)!r:.80} is no pattern, as {example}")
    return tuple(dict.fromkeys(given))


@dataclass(frozen=True)
class Target:
    """Where a webhook's requests go.

    Attributes:
        secure: by https.
        host: name, or literal address without brackets.
        port: TCP port.
        path: path and query.
        netloc: host and port as they stand in the `Host` header.
    """

    secure: bool
    host: str
    port: int
    path: str
    netloc: str


def read_target(url: object, *, loopback: bool = False) -> Target:
    """Return where a URL leads; whether its address may be connected to is judged when it is.

    Args:
        url: the URL.
        loopback: http to the loopback address is allowed.

    Raises:
        InvalidInputError: it breaks a rule, see the module.
    """
    if not isinstance(url, str) or not _PRINTABLE.fullmatch(url) or len(url) > MAX_URL or "\\" in url:
        raise InvalidInputError.of("url", "url", f"a URL of at most {MAX_URL} printable ASCII characters is needed")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.netloc.rpartition("@")[2]
    except ValueError as error:
        raise InvalidInputError.of("url", "url", f"this is no URL: {error}") from error
    name = host.rpartition(":")[0] if port is not None else host
    if parts.username is not None or parts.password is not None:
        raise InvalidInputError.of("url", "no_credentials", "a URL carries no user name and no password")
    if "#" in url:
        raise InvalidInputError.of("url", "no_fragment", "a URL here has no fragment")
    near = loopback and parts.scheme == "http" and name.lower() in _LOOPBACK_NAMES
    if parts.scheme != "https" and not near:
        raise InvalidInputError.of("url", "https", "a webhook's URL begins with https://")
    if not _HOST.fullmatch(name.lower()) or port == 0:
        raise InvalidInputError.of("url", "host", "the URL names no host, or one that is no name in DNS and no address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    secure = parts.scheme == "https"
    return Target(secure, name.lower().strip("[]"), port or (443 if secure else 80), path, host.lower())


def require_public(address: str) -> Address:
    """Return an address that the internet routes to.

    Raises:
        InvalidInputError: it is another one, see the module's rules.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError as error:
        raise InvalidInputError.of("url", "address", f"{address!r:.60} is no address") from error
    carried = isinstance(found, ipaddress.IPv6Address) and any(found in net for net in _CARRIERS)
    inside = found.is_private or found.is_link_local or found.is_loopback or found.is_multicast or found.is_reserved or found.is_unspecified
    if carried or inside or not found.is_global or "%" in address:
        raise InvalidInputError.of("url", "public_address", f"{address} is no address of the internet; webhooks go nowhere else")
    return found


def require_loopback(address: str) -> Address:
    """Return a loopback address.

    Raises:
        InvalidInputError: it is another one.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if not found.is_loopback:
        raise InvalidInputError.of("url", "loopback_address", f"{address} is not the loopback address; http goes nowhere else")
    return found
