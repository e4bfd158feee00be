"""What the ledger itself says of an event, for who compares the table with it.

The index rows (`LEAF#<event ID>`) only lead there: what counts are the bytes in the published entry bundles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attestry.domain.errors import InvalidInputError, NotFoundError
from attestry.domain.events import Event
from attestry.evidence.digests import sha256_hex
from attestry.evidence.leaf import Leaf
from attestry.evidence.note import Checkpoint, parse_note
from attestry.ports import Item, Key, MetaStore, ObjectStore
from attestry.usecases.ledger import LedgerReader
from attestry.usecases.ledger_head import COMMIT, leaf_key
from attestry.usecases.recorded import waiting_key

_READ_ROWS = 100


class LedgerBytes:
    """Reads events where they were written: in the outbox while they wait, in the ledger afterwards.

    Args:
        meta: the table.
        store: the model store.
    """

    def __init__(self, meta: MetaStore, store: ObjectStore) -> None:
        self._meta = meta
        self.reader = LedgerReader(store)

    def size(self) -> int:
        """Return how many leaves the committed checkpoint says there are, which is signed; 0 before the ledger has begun."""
        row = self._meta.get(COMMIT)
        if row is None:
            return 0
        try:
            return Checkpoint.parse(parse_note(str(row.get("note")).encode())[0]).size
        except InvalidInputError:
            return int(row.get("size") or 0)

    def digests(self, events: Sequence[Event]) -> dict[str, str]:
        """Return event ID to SHA-256, hex, of the bytes that the outbox or the ledger holds, for events that are there."""
        waiting = self._rows([waiting_key(event) for event in events])
        places = self._rows([leaf_key(event.event_id) for event in events])
        # After the index rows: what they name is committed by then.
        size = self.size()
        found: dict[str, str] = {}
        for event in events:
            place, row = places.get(leaf_key(event.event_id)), waiting.get(waiting_key(event))
            leaf = self.leaf(event.event_id, place, size)
            if leaf is not None:
                found[event.event_id] = leaf.event_sha256
            elif row is not None and isinstance(row.get("event"), bytes):
                found[event.event_id] = sha256_hex(row["event"])
        return found

    def find(self, event_ids: Sequence[str]) -> dict[str, Leaf]:
        """Return event ID to leaf, for those that are in the ledger."""
        places = self._rows([leaf_key(event_id) for event_id in event_ids])
        size = self.size()
        leaves = {event_id: self.leaf(event_id, places.get(leaf_key(event_id)), size) for event_id in event_ids}
        return {event_id: leaf for event_id, leaf in leaves.items() if leaf is not None}

    def leaf(self, event_id: str, place: Mapping[str, object] | None, size: int) -> Leaf | None:
        """Return the leaf that an index row leads to; None where it leads nowhere, or to another event."""
        index = place.get("index") if place else None
        if not isinstance(index, int) or not 0 <= index < size:
            return None
        try:
            leaf = Leaf.parse(self.reader.leaf(index, size))
        except (NotFoundError, InvalidInputError):
            return None
        return leaf if leaf.event_id == event_id else None

    def _rows(self, keys: Sequence[Key]) -> dict[Key, Item]:
        found: dict[Key, Item] = {}
        for start in range(0, len(keys), _READ_ROWS):
            found |= self._meta.get_many(list(keys[start : start + _READ_ROWS]))
        return found
