"""The rows of the index: what a change of a model or a version has to write so that it is found as what it is by then."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from attestry.domain.search_index import Entry
from attestry.ports import Delete, Key, MetaStore, Put, When, Write

INDEX: Final = "INDEX#"
MAX_WRITES: Final = 100
_EITHER_WAY = When()


def entry_key(entry: Entry) -> Key:
    """Return the key of an entry."""
    return Key(entry.partition, entry.place)


def index_writes(before: Collection[Entry], after: Collection[Entry]) -> list[Write]:
    """Return the writes that bring the index from one state of a subject to the next; the same again does no harm."""
    old, new = frozenset(before), frozenset(after)
    gone: list[Write] = [Delete(entry_key(entry), _EITHER_WAY) for entry in sorted(old - new)]
    return gone + [Put(entry_key(entry), entry_item(entry), _EITHER_WAY) for entry in sorted(new - old)]


def entry_item(entry: Entry) -> dict[str, str | int]:
    """Return what an entry's row says: where it leads."""
    return {"model": entry.model, **({"number": entry.number} if entry.number else {})}


def commit(meta: MetaStore, writes: Sequence[Write]) -> None:
    """Apply writes in one transaction; where they are too many, entries that lead nowhere any more are removed in a second one.

    Between the two, and where the second fails for good, such an entry leads to something that a search then finds not to match.

    Raises:
        ConditionFailedError: a condition did not hold; nothing took effect.
        UnavailableError: the outcome is unknown.
    """
    later = [write for write in writes if isinstance(write, Delete) and write.key.partition.startswith(INDEX)]
    if len(writes) <= MAX_WRITES:
        meta.transact(writes)
        return
    meta.transact([write for write in writes if write not in later])
    for start in range(0, len(later), MAX_WRITES):
        meta.transact(later[start : start + MAX_WRITES])
