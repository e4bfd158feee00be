"""Leaves of the ledger: an event and when it was logged, and the bundles that leaves are stored in.

Rules:
- A leaf is the canonical JSON `{"event":<event>,"logged":"<time>"}`; the event's bytes are those of the outbox, as they stand.
- `logged` is the time of the batch, the same for all its leaves, and never decreases along the log.
- What reads a leaf computes the event's ID anew and refuses a leaf that the registry would not have written byte for byte.
- An entry bundle is C2SP tlog-tiles': leaves one behind the other, each after its length as two big-endian bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestry.domain.errors import InvalidInputError
from attestry.domain.events import MAX_EVENT_BYTES
from attestry.evidence.canonical import parse_canonical

MAX_LEAF_BYTES: Final = MAX_EVENT_BYTES + 64
MAX_BUNDLE_BYTES: Final = 256 * (MAX_LEAF_BYTES + 2)

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_START, _MIDDLE, _END = b'{"event":', b',"logged":"', b'"}'
_TIME_CHARACTERS = 27
_LENGTH_BYTES = 2
_FIELDS = frozenset({"format", "id", "kind", "subject", "sequence", "at", "principal", "data"})


@dataclass(frozen=True)
class Leaf:
    """A leaf, read strictly.

    Attributes:
        event: the event.
        event_bytes: its canonical bytes.
        logged: RFC 3339 time in UTC with microseconds.
        event_id: the event's ID, computed from what it says.
    """

    event: Mapping[str, Any]
    event_bytes: bytes
    logged: str
    event_id: str

    @classmethod
    def parse(cls, data: bytes) -> Leaf:
        """Return the leaf that these bytes are.

        Raises:
            InvalidInputError: they are none, to the byte.
        """
        tail = len(_MIDDLE) + _TIME_CHARACTERS + len(_END)
        event_bytes, logged = data[len(_START) : -tail], data[-tail + len(_MIDDLE) : -len(_END)]
        text = logged.decode("ascii", "replace")
        event = parse_event(event_bytes)
        if write_leaf(event_bytes, text) != data:
            raise InvalidInputError.of("leaf", "form", 'a leaf is {"event":EVENT,"logged":"TIME"}')
        return cls(event, event_bytes, text, event["id"])

    @property
    def event_sha256(self) -> str:
        """Return the SHA-256 of the event's bytes in hex."""
        return hashlib.sha256(self.event_bytes).hexdigest()


def write_leaf(event: bytes, logged: str) -> bytes:
    """Return the leaf of an event.

    Args:
        event: the event's canonical bytes.
        logged: RFC 3339 time in UTC with microseconds.

    Raises:
        InvalidInputError: no such time.
    """
    _check_time("logged", logged)
    return _START + event + _MIDDLE + logged.encode() + _END


def parse_event(data: bytes) -> dict[str, Any]:
    """Return the event that these bytes are.

    Raises:
        InvalidInputError: they are none, to the byte: too long, not canonical, other fields, or another ID than what it says gives.
    """
    if len(data) > MAX_EVENT_BYTES:
        raise InvalidInputError.of("event", "size", f"the event takes {len(data)} bytes; the limit is {MAX_EVENT_BYTES}")
    event = parse_canonical(data)
    if not isinstance(event, dict) or set(event) != _FIELDS or event["format"] != 1:
        raise InvalidInputError.of("event", "fields", "an event of format 1 has other fields")
    kind, subject, sequence = event["kind"], event["subject"], event["sequence"]
    typed = isinstance(kind, str) and isinstance(subject, str) and isinstance(event["principal"], dict) and isinstance(event["data"], dict)
    if not typed or type(sequence) is not int or "\n" in kind + subject:
        raise InvalidInputError.of("event", "type", "a field of the event has another type")
    _check_time("at", event["at"])
    if event["id"] != event_id(kind, subject, sequence):
        raise InvalidInputError.of("event.id", "id", "the event's ID is not that of its kind, subject and sequence")
    return event


def event_id(kind: str, subject: str, sequence: int) -> str:
    """Return the ID of an event, as `attestry.domain.events.Event` has it."""
    return hashlib.sha256(f"{kind}\n{subject}\n{sequence}".encode()).hexdigest()


def write_bundle(leaves: Iterable[bytes]) -> bytes:
    """Return leaves as an entry bundle."""
    return b"".join(len(leaf).to_bytes(_LENGTH_BYTES, "big") + leaf for leaf in leaves)


def read_bundle(data: bytes, count: int) -> tuple[bytes, ...]:
    """Return the leaves of an entry bundle.

    Args:
        data: the bundle.
        count: how many leaves it must hold.

    Raises:
        InvalidInputError: it holds more, fewer, or something else.
    """
    leaves: list[bytes] = []
    place = 0
    while len(leaves) < count:
        end = place + _LENGTH_BYTES + int.from_bytes(data[place : place + _LENGTH_BYTES], "big")
        leaf = data[place + _LENGTH_BYTES : end]
        if end > len(data) or not leaf:
            break
        leaves.append(leaf)
        place = end
    if len(leaves) != count or place != len(data):
        raise InvalidInputError.of("bundle", "entries", f"the bundle does not hold exactly {count} entries")
    return tuple(leaves)


def _check_time(field: str, text: object) -> None:
    try:
        if isinstance(text, str) and _TIME.fullmatch(text):
            datetime.fromisoformat(text)
            return
    except ValueError:
        pass
    raise InvalidInputError.of(field, "time", "a time is RFC 3339 in UTC with microseconds")
