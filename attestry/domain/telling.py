"""What is told outside: an event with its place in the ledger, and which model it is about.

Rules:
- Nothing is told that is not a leaf of the published ledger, so whoever is told can check it there by its index.
- The same event is told in the same words to everybody: as the detail on the bus, and as the `data` of a webhook's body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import rfc8785

SOURCE: Final = "attestry"
"""The source of events on the bus."""

_URN = re.compile(r"urn:attestry:([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?):")
_NAMED_IN_DATA: Final = ("key.sealed", "key.closed", "finding.opened", "finding.closed", "conflict.declared", "conflict.withdrawn")


@dataclass(frozen=True)
class Told:
    """An event as it is told.

    Attributes:
        index: number of its leaf, from 0.
        logged: when the ledger took it in, RFC 3339 in UTC.
        event: the event, as it stands in the leaf.
    """

    index: int
    logged: str
    event: Mapping[str, Any]

    @property
    def event_id(self) -> str:
        """Return the event's ID, which is also the ID by which a receiver knows that it was told before."""
        return str(self.event["id"])

    @property
    def kind(self) -> str:
        """Return the event's kind."""
        return str(self.event["kind"])

    @property
    def model(self) -> str:
        """Return the name of the model that the event is about; empty where it is about none."""
        return model_of(self.event)

    def detail(self) -> dict[str, Any]:
        """Return what is told: `id`, `index`, `logged`, `event`."""
        return {"id": self.event_id, "index": self.index, "logged": self.logged, "event": dict(self.event)}

    def detail_bytes(self) -> bytes:
        """Return what is told as canonical JSON (RFC 8785), in which the event's bytes are those of the leaf."""
        return rfc8785.dumps(self.detail())

    def body(self) -> bytes:
        """Return the body of a webhook: `type`, `timestamp` and `data`, as Standard Webhooks advises, in canonical JSON."""
        return rfc8785.dumps({"type": self.kind, "timestamp": self.logged, "data": self.detail()})


def model_of(event: Mapping[str, Any]) -> str:
    """Return the name of the model that an event is about; empty where it is about the registry, a person, the root or the policies."""
    kind, subject, data = str(event["kind"]), str(event["subject"]), event["data"]
    if kind in _NAMED_IN_DATA:
        return str(data.get("model") or "")
    if kind == "key.delegated":
        urn = _URN.match(str(data.get("version", "")))
        return urn[1] if urn else ""
    first, _, rest = subject.partition("/")
    if kind == "capture.set":
        return first
    if first in ("model", "placed") and rest:
        return rest.partition("/")[0]
    return subject.rpartition("@")[0] if "/" not in subject else ""
