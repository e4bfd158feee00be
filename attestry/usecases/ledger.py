"""The ledger, read: checkpoints, tiles, leaves, and proofs that are made of them.

    reader = LedgerReader(store)
    checkpoint, note = reader.checkpoint()
    leaf = reader.leaf(index, checkpoint.size)
    proof = reader.inclusion_proof(index, checkpoint.size)

Rules:
- Nothing that is returned is believed by being returned: who needs it proven checks the note's signature and the proof
  (`attestry.evidence.note`, `attestry.evidence.tlog`).
- What is served to readers is what C2SP tlog-tiles publishes, and nothing else of the store.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from attestry.domain.errors import InvalidInputError
from attestry.evidence.leaf import MAX_BUNDLE_BYTES, read_bundle
from attestry.evidence.note import MAX_NOTE_BYTES, Checkpoint, parse_note
from attestry.evidence.tlog import HASH_BYTES, TILE_WIDTH, Tile, consistency_proof, inclusion_proof, tile_at
from attestry.ports import MetaStore, ObjectStore
from attestry.usecases.ledger_head import FOLDER, LIVE, archive_key, leaf_key

_WIDTH = r"(?:\.p/(?:[1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?"
_NUMBER = r"(?:x[0-9]{3}/){0,6}[0-9]{3}"
_SERVED: Final = re.compile(
    rf"checkpoint|checkpoints/[0-9]{{12}}|tile/(?:[0-9]|[1-5][0-9]|6[0-3])/{_NUMBER}{_WIDTH}|tile/entries/{_NUMBER}{_WIDTH}"
)


class LedgerReader:
    """Reads what is published.

    Args:
        store: the model store.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._bundle = lru_cache(maxsize=8)(self._read_bundle)

    def checkpoint(self, size: int | None = None) -> tuple[Checkpoint, bytes]:
        """Return the live checkpoint, or the archived one of a size, and the note that it was read from.

        Raises:
            NotFoundError: there is none.
            InvalidInputError: what is there is none.
        """
        note = self._store.read(LIVE if size is None else archive_key(size), max_bytes=MAX_NOTE_BYTES)
        return Checkpoint.parse(parse_note(note)[0]), note

    def read_tile(self, level: int, index: int, width: int) -> bytes:
        """Return the hashes of a tile.

        Raises:
            NotFoundError: there is no such tile.
        """
        return self._store.read(FOLDER + Tile(level, index, width).path, max_bytes=TILE_WIDTH * HASH_BYTES)

    def leaf(self, index: int, size: int) -> bytes:
        """Return a leaf of the ledger of `size` leaves.

        Raises:
            InvalidInputError: it has no such leaf.
            NotFoundError: the bundle is not there.
        """
        if not 0 <= index < size:
            raise InvalidInputError.of("index", "range", f"a ledger of {size} leaves has no leaf {index}")
        return self._bundle(tile_at(0, index // TILE_WIDTH, size))[index % TILE_WIDTH]

    def leaves(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the leaves from `start` up to `stop`, which is the size of a checkpoint."""
        for number in range(start // TILE_WIDTH, -(-stop // TILE_WIDTH)):
            bundle = self._bundle(tile_at(0, number, stop))
            yield from bundle[max(0, start - number * TILE_WIDTH) :]

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the hashes that lead from a leaf to the root of `size` leaves."""
        return inclusion_proof(self.read_tile, index, size)

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """Return the hashes that show that `old` leaves are a prefix of `new`."""
        return consistency_proof(self.read_tile, old, new)

    def _read_bundle(self, tile: Tile) -> tuple[bytes, ...]:
        return read_bundle(self._store.read(FOLDER + tile.entries_path, max_bytes=MAX_BUNDLE_BYTES), tile.width)


def find_leaf(meta: MetaStore, event_id: str) -> int | None:
    """Return the index of an event's leaf, or None while it waits in the outbox or never was."""
    row = meta.get(leaf_key(event_id))
    return None if row is None else int(row["index"])


def find_leaves(meta: MetaStore, event_ids: list[str]) -> Mapping[str, int]:
    """Return event ID to index of its leaf, for those that are in the ledger."""
    rows = meta.get_many([leaf_key(e) for e in event_ids])
    return {e: int(rows[leaf_key(e)]["index"]) for e in event_ids if leaf_key(e) in rows}


def read_file(store: ObjectStore, path: str) -> dict[str, Any]:
    """Return a published file of the ledger.

    Args:
        store: the model store.
        path: path below the ledger's prefix: `checkpoint`, `checkpoints/<12 digits>`, `tile/<level>/<number>`, `tile/entries/<number>`.

    Returns:
        `path`, `size`, and the bytes as base64 in `content`.

    Raises:
        InvalidInputError: no path of a published file.
        NotFoundError: there is no such file.
    """
    if not _SERVED.fullmatch(path) or not path.isascii():
        raise InvalidInputError.of("path", "ledger_path", "the path is `checkpoint`, `checkpoints/SIZE` or one of C2SP tlog-tiles")
    raw = store.read(FOLDER + path, max_bytes=max(MAX_BUNDLE_BYTES, MAX_NOTE_BYTES))
    return {"path": path, "size": len(raw), "content": base64.b64encode(raw).decode()}
