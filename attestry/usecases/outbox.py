"""The outbox, read by the sequencer: which waiting events are to be appended, and what becomes of the rows that are not.

Rules:
- A row is an event's own bytes under the key that they give. Anything else is set aside and reported; it never holds up the rest.
- An event that is in the ledger already is dropped. Another content under its ID is set aside, since only one of them can be true. That
  it is there is read in the ledger itself: an index row alone, which somebody may have written by hand, makes no event disappear.
- Rows come by the clocks of the functions that wrote them, which differ. What is numbered goes by its numbers: moves of one version, and
  events of one kind about one subject, take each other's places until they ascend. Everything else stays where it is.
- An event of a kind that changes a row of its own is appended only where that row bears it out (`attestry.usecases.borne_out`).
- What is set aside is kept as a row of the partition CONFLICT: the reason, the outbox key, and the first 4 KiB of what was there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from attestry.domain.errors import InvalidInputError, NotFoundError
from attestry.domain.events import MAX_EVENT_BYTES, timestamp
from attestry.evidence.leaf import Leaf, parse_event
from attestry.ports import Clock, Delete, Item, Key, MetaStore, Put, When
from attestry.usecases.borne_out import find_unborne
from attestry.usecases.ledger_head import leaf_key
from attestry.usecases.records import OUTBOX

CONFLICTS: Final = "CONFLICT"
PAGE_ROWS: Final = 250
"""Rows of one query: of the largest that a table holds, 100 MB."""

ReadLeaf = Callable[[int], bytes]
"""Returns the leaf of an index, as it is published."""

_DELETES = 100


@dataclass
class Sorted:
    """What became of the rows that were looked at.

    Attributes:
        events: bytes of the events to append, in order.
        duplicates: rows of events that were in the ledger already; deleted.
        conflicts: rows of other contents under a logged event's ID, and events that no row bears out; set aside.
        malformed: rows that are no event; set aside.
        forged: index rows that the ledger does not bear out; written again when their event is appended.
        more: whether further rows wait.
    """

    events: list[bytes] = field(default_factory=list)
    duplicates: int = 0
    conflicts: int = 0
    malformed: int = 0
    forged: int = 0
    more: bool = False


@dataclass(frozen=True)
class _Waiting:
    sort: str
    event: bytes
    event_id: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.event).hexdigest()


class Outbox:
    """The rows of events that were committed and wait for their place in the ledger."""

    def __init__(self, meta: MetaStore, clock: Clock) -> None:
        self._meta = meta
        self._clock = clock

    def take(self, limit: int, is_over: Callable[[], bool], read_leaf: ReadLeaf) -> Sorted:
        """Return up to `limit` events to append, oldest first and numbered ones in order, and clear away the rows that are none.

        Args:
            limit: how many.
            is_over: tells that no time is left; what was found until then is returned.
            read_leaf: reads the ledger.
        """
        found = Sorted()
        after: str | None = None
        taken: set[str] = set()
        while True:
            rows = self._meta.query(OUTBOX, after=after, limit=PAGE_ROWS)
            self._sort(rows, taken, found, read_leaf)
            full = len(found.events) >= limit
            if len(rows) < PAGE_ROWS or full or is_over():
                found.more = found.more or full or len(rows) == PAGE_ROWS
                found.events = _in_order(found.events)[:limit]
                return found
            after = rows[-1]["sk"]

    def _sort(self, rows: list[Item], taken: set[str], found: Sorted, read_leaf: ReadLeaf) -> None:
        waiting: list[_Waiting] = []
        for row in rows:
            try:
                waiting.append(_read(row))
            except InvalidInputError as error:
                self._set_aside(f"malformed#{_digest(row['sk'].encode())[:32]}", row, error.message)
                found.malformed += 1
        logged = self._meta.get_many([leaf_key(w.event_id) for w in waiting]) if waiting else {}
        unborne = find_unborne(self._meta, [json.loads(w.event) for w in waiting if leaf_key(w.event_id) not in logged])
        known: list[_Waiting] = []
        for one in waiting:
            index_row = logged.get(leaf_key(one.event_id))
            leaf = _leaf_of(index_row, one.event_id, read_leaf) if index_row else None
            found.forged += index_row is not None and leaf is None
            if leaf is None and one.event_id in taken:
                # Whatever it says, the first is being appended; the next look finds it logged.
                found.more = True
            elif leaf is None and one.event_id in unborne:
                why = unborne[one.event_id]
                self._set_aside(f"unborne#{one.event_id}#{one.sha256[:16]}", {"sk": one.sort, "event": one.event}, why)
                found.conflicts += 1
            elif leaf is None:
                taken.add(one.event_id)
                found.events.append(one.event)
            elif leaf.event_bytes == one.event:
                known.append(one)
            else:
                why = f"the event is in the ledger with other bytes ({leaf.event_sha256})"
                self._set_aside(f"{one.event_id}#{one.sha256[:16]}", {"sk": one.sort, "event": one.event}, why)
                found.conflicts += 1
        for start in range(0, len(known), _DELETES):
            part = known[start : start + _DELETES]
            self._meta.transact([Delete(Key(OUTBOX, w.sort), When(exists=True, equals={"event": w.event})) for w in part])
        found.duplicates += len(known)

    def _set_aside(self, name: str, row: Item, why: str) -> None:
        there = row.get("event")
        raw = there if isinstance(there, bytes) else repr(there).encode()
        kept = {
            "reason": why[:500],
            "outbox": row["sk"],
            "event": raw[:MAX_EVENT_BYTES],
            "sha256": _digest(raw),
            "found": timestamp(self._clock.now()),
        }
        # A row that was changed since it was read is looked at again.
        same: dict[str, Any] = {"event": there} if isinstance(there, bytes) else {}
        self._meta.transact([Put(Key(CONFLICTS, name), kept, When()), Delete(Key(OUTBOX, row["sk"]), When(exists=True, equals=same))])


def _in_order(events: list[bytes]) -> list[bytes]:
    """Return the events with those of one series in ascending order, on the places that the series has."""
    series: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for place, raw in enumerate(events):
        event = json.loads(raw)
        series.setdefault(_series(event), []).append((int(event["sequence"]), place))
    ordered = list(events)
    for numbered in series.values():
        for (_, place), (_, source) in zip(numbered, sorted(numbered), strict=True):
            ordered[place] = events[source]
    return ordered


def _series(event: Any) -> tuple[str, ...]:
    """Return what an event is numbered within: all moves of a version go by one number, other events by one for each kind."""
    subject, kind = str(event["subject"]), str(event["kind"])
    return (subject,) if "@" in subject and "to" in event["data"] else (subject, kind)


def outbox_key(event: Any) -> Key:
    """Return the key under which an event waits."""
    return Key(OUTBOX, f"{event['at']}#{event['id'][:32]}")


def _read(row: Item) -> _Waiting:
    raw = row.get("event")
    if not isinstance(raw, bytes):
        raise InvalidInputError.of("event", "type", "the row holds no event")
    event = parse_event(raw)
    if row.get("id") != event["id"] or outbox_key(event).sort != row["sk"]:
        raise InvalidInputError.of("id", "id", "the row's key or ID is not that of its event")
    return _Waiting(row["sk"], raw, event["id"])


def _leaf_of(row: Item, event_id: str, read_leaf: ReadLeaf) -> Leaf | None:
    """Return the leaf that an index row names, if it is that event's."""
    index = row.get("index")
    if type(index) is not int:
        return None
    try:
        leaf = Leaf.parse(read_leaf(index))
    except (InvalidInputError, NotFoundError):
        return None
    return leaf if leaf.event_id == event_id else None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
