"""Walks over whole collections, a bounded read at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attestry.ports import Item, MetaStore

ROWS: Final = 100


def each_row(meta: MetaStore, collection: str, *, after: str = "") -> Iterator[Item]:
    """Yield the rows of a collection behind a place, 100 a read; who stops early has read no more than the page that is open."""
    place = after
    while True:
        rows = meta.list_collection(collection, after=place or None, limit=ROWS)
        yield from rows
        if len(rows) < ROWS:
            return
        place = str(rows[-1]["gsi_sk"])
