"""Events: the canonical record of each state change, written to the outbox in the same transaction as the change.

Rules:
- An event's bytes are RFC 8785 canonical JSON, at most 4 KiB, and are a leaf of the ledger as they stand.
- An event names evidence by digest; it never carries the evidence.
- The event ID is derived from what the event says happened, so that a retried use case writes the same event once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import rfc8785

from attestry.domain.errors import InvalidInputError
from attestry.domain.principal import Principal

MAX_EVENT_BYTES = 4096

MAX_REASON_BYTES = 1200
"""What a reason may take in an event's canonical form: the rest is room for principal, facts and digests."""


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        kind: what happened, in the past tense: `candidate.registered`, `stage.succeeded`, `version.deployed`.
        subject: what it happened to: `tumour-diagnosis@3`, `key/<kid>`.
        sequence: number of the event within its subject and kind, for what can happen more than once.
        at: when, UTC.
        principal: who.
        data: the facts: texts, integers, booleans, and lists and mappings of them. Digests of evidence go here.
    """

    kind: str
    subject: str
    sequence: int
    at: datetime
    principal: Principal
    data: Mapping[str, Any]

    @property
    def event_id(self) -> str:
        """Return the stable ID: SHA-256 over kind, subject and sequence."""
        return hashlib.sha256(f"{self.kind}\n{self.subject}\n{self.sequence}".encode()).hexdigest()

    def canonical_bytes(self) -> bytes:
        """Return the RFC 8785 bytes.

        Raises:
            InvalidInputError: more than 4 KiB.
        """
        raw = rfc8785.dumps(
            {
                "format": 1,
                "id": self.event_id,
                "kind": self.kind,
                "subject": self.subject,
                "sequence": self.sequence,
                "at": timestamp(self.at),
                "principal": self.principal.to_item(),
                "data": dict(self.data),
            }
        )
        if len(raw) > MAX_EVENT_BYTES:
            raise InvalidInputError.of("event", "size", f"the event {self.kind} takes {len(raw)} bytes; the limit is {MAX_EVENT_BYTES}")
        return raw


def timestamp(at: datetime) -> str:
    """Return RFC 3339 in UTC with microseconds: texts of equal length that sort as the times do."""
    if at.tzinfo is not UTC and at.utcoffset() != timedelta(0):
        raise ValueError("a time in UTC is needed")
    return at.isoformat(timespec="microseconds")[:-6] + "Z"  # "+00:00" has six characters


def shorten(text: str, limit: int = MAX_REASON_BYTES) -> str:
    """Return the text, cut at the end where its canonical JSON would take more bytes than an event has room for.

    Characters count as what they take: a control character is six bytes of JSON, a lone surrogate has no form and becomes `?`.
    """
    clean = text.encode("utf-8", "replace").decode("utf-8")
    if len(rfc8785.dumps(clean)) <= limit:
        return clean
    low, high = 0, min(len(clean), limit)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(rfc8785.dumps(clean[:middle] + "…")) <= limit else (low, middle - 1)
    return clean[:low] + "…"
