"""The table as a change meets it whose rows were read a moment ago, to decide whether it is let, or together with what decides that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attestry.ports import Item, Key, MetaStore, Write


class ReadAhead:
    """A `MetaStore` that answers the first read of each of some rows from memory.

    For changes whose writes are conditional on what they read, so that a row which has changed meanwhile fails the condition; the next
    try reads it from the table. After a write nothing is answered from memory any more.

    Args:
        meta: the table.
        rows: what was read; None for a row that was not there.
    """

    def __init__(self, meta: MetaStore, rows: Mapping[Key, Item | None]) -> None:
        self._meta = meta
        self._rows = dict(rows)

    def get(self, key: Key) -> Item | None:
        """See `MetaStore.get`."""
        return self._rows.pop(key) if key in self._rows else self._meta.get(key)

    def get_many(self, keys: Sequence[Key], *, only: Sequence[str] = ()) -> dict[Key, Item]:
        """See `MetaStore.get_many`; where one row has to be read, all are, so that they are of one moment."""
        if not all(key in self._rows for key in keys):
            return self._meta.get_many(keys, only=only)
        known = {key: self._rows.pop(key) for key in dict.fromkeys(keys)}
        return {key: row for key, row in known.items() if row is not None}

    def query(self, partition: str, **how: Any) -> list[Item]:
        """See `MetaStore.query`."""
        return self._meta.query(partition, **how)

    def list_collection(self, collection: str, **how: Any) -> list[Item]:
        """See `MetaStore.list_collection`."""
        return self._meta.list_collection(collection, **how)

    def transact(self, writes: Sequence[Write]) -> None:
        """See `MetaStore.transact`."""
        self._rows.clear()
        self._meta.transact(writes)


class ReadAlong(ReadAhead):
    """A `ReadAhead` whose rows are read with the first read of several others: one round trip for both, and one moment.

    For a request that names what it is about: what decides who may, and what it acts on, are read together. Nothing of the latter is
    looked at before the decision.

    Args:
        meta: the table.
        along: the rows that the first read of several takes along.
    """

    def __init__(self, meta: MetaStore, along: Sequence[Key]) -> None:
        super().__init__(meta, {})
        self._along = tuple(along)

    def get_many(self, keys: Sequence[Key], *, only: Sequence[str] = ()) -> dict[Key, Item]:
        """See `MetaStore.get_many`; the rows that are taken along are whole."""
        along, self._along = [key for key in self._along if key not in keys], ()
        if not along:
            return super().get_many(keys, only=only)
        found = self._meta.get_many([*keys, *along])
        self._rows |= {key: found.get(key) for key in along}
        return {key: found[key] for key in keys if key in found}

    def transact(self, writes: Sequence[Write]) -> None:
        """See `MetaStore.transact`."""
        self._along = ()
        super().transact(writes)
