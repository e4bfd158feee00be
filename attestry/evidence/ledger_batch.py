"""A batch of leaves and what the log needs to take it up: the staging object, from which an append can be finished by anyone.

    batch = Batch(state, leaves)
    staged = batch.to_bytes()                      # written before the commit
    Batch.parse(staged).after.edge.root()          # equals the committed root, or the object is not the one that was committed
    batch.objects()                                # tiles and entry bundles to publish

Rules:
- Everything that is published follows from the right edge before the batch and from the leaves, and the root after it commits to
  both. A staging object is therefore believed when its root is the committed one.
- That root does not say where the batch begins. Who publishes from a staging object checks that the ledger stood at `before` once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.evidence.leaf import MAX_BUNDLE_BYTES, read_bundle, write_bundle
from attestry.evidence.note import MAX_SIZE
from attestry.evidence.tlog import HASH_BYTES, TILE_HEIGHT, TILE_WIDTH, ReadTile, RightEdge, Tile, leaf_hash, split_hashes

MAX_BATCH_LEAVES: Final = 1000
MAX_STAGED_BYTES: Final = 8 * TILE_WIDTH * HASH_BYTES + MAX_BUNDLE_BYTES * (2 + MAX_BATCH_LEAVES // TILE_WIDTH)

_FORMAT: Final = 1


@dataclass(frozen=True)
class LogState:
    """All that an append needs of the log so far.

    Attributes:
        edge: the hashes of the partial tiles.
        entries: the leaves of the partial entry bundle.

    Raises:
        IntegrityError: on creation, when the leaves are not those of the hashes.
    """

    edge: RightEdge = field(default_factory=RightEdge)
    entries: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        expected = self.edge.tiles[0] if self.edge.tiles else ()
        if tuple(leaf_hash(leaf) for leaf in self.entries) != expected:
            raise IntegrityError("the leaves of the last entry bundle are not those of the last tile")


@dataclass(frozen=True)
class Batch:
    """Leaves to append.

    Attributes:
        before: the log before.
        leaves: the leaves, in order.
    """

    before: LogState
    leaves: tuple[bytes, ...]

    @cached_property
    def _appended(self) -> tuple[RightEdge, dict[Tile, bytes]]:
        return self.before.edge.append([leaf_hash(leaf) for leaf in self.leaves])

    @cached_property
    def after(self) -> LogState:
        """Return the log after the batch."""
        edge = self._appended[0]
        entries = (*self.before.entries, *self.leaves)
        return LogState(edge, entries[len(entries) - edge.size % TILE_WIDTH :])

    @property
    def tiles(self) -> dict[Tile, bytes]:
        """Return the tiles that the batch makes or widens."""
        return self._appended[1]

    def objects(self) -> list[tuple[str, bytes, bool]]:
        """Return what is to be published: path below the log's prefix, bytes, and whether it is full and stays as it is for ever.

        Entry bundles come first, so that no published hash lacks its leaf.
        """
        entries = (*self.before.entries, *self.leaves)
        first = self.before.edge.size // TILE_WIDTH
        objects: list[tuple[str, bytes, bool]] = []
        for start in range(0, len(entries), TILE_WIDTH) if self.leaves else ():
            part = entries[start : start + TILE_WIDTH]
            tile = Tile(0, first + start // TILE_WIDTH, len(part))
            objects.append((tile.entries_path, write_bundle(part), len(part) == TILE_WIDTH))
        return objects + [(tile.path, raw, tile.width == TILE_WIDTH) for tile, raw in self.tiles.items()]

    def read_tile(self, elsewhere: ReadTile) -> ReadTile:
        """Return a reader of the tree after the batch, which reads elsewhere only what the batch does not tell."""
        return edge_reader(self.after.edge, elsewhere, self.tiles)

    def to_bytes(self) -> bytes:
        """Return the staging object: a line of JSON, the hashes of the edge, and the leaves as an entry bundle."""
        head = {"format": _FORMAT, "leaves": len(self.leaves), "size": self.before.edge.size}
        hashes = b"".join(h for tile in self.before.edge.tiles for h in tile)
        return canonical_bytes(head) + b"\n" + hashes + write_bundle((*self.before.entries, *self.leaves))

    @classmethod
    def parse(cls, data: bytes) -> Batch:
        """Return the batch of a staging object.

        Raises:
            InvalidInputError: it is none.
            IntegrityError: its parts contradict each other.
        """
        line, _, rest = data.partition(b"\n")
        head = parse_canonical(line)
        if not isinstance(head, dict) or set(head) != {"format", "leaves", "size"} or head["format"] != _FORMAT:
            raise InvalidInputError.of("staging", "head", "this is no staging object of format 1")
        size, count = head["size"], head["leaves"]
        if type(size) is not int or type(count) is not int or not 0 <= size <= MAX_SIZE or not 1 <= count <= MAX_BATCH_LEAVES:
            raise InvalidInputError.of("staging", "head", "the numbers of the staging object are out of range")
        tiles: list[tuple[bytes, ...]] = []
        while blocks := size >> TILE_HEIGHT * len(tiles):
            length = blocks % TILE_WIDTH * HASH_BYTES
            tiles.append(split_hashes(rest[:length]))
            rest = rest[length:]
        edge = RightEdge(size, tuple(tiles))
        leaves = read_bundle(rest, size % TILE_WIDTH + count)
        return cls(LogState(edge, leaves[: size % TILE_WIDTH]), leaves[size % TILE_WIDTH :])


def edge_reader(edge: RightEdge, elsewhere: ReadTile, tiles: dict[Tile, bytes] | None = None) -> ReadTile:
    """Return a reader of tiles that knows a tree's right edge, and reads elsewhere what it does not.

    Args:
        edge: the right edge.
        elsewhere: reads the other tiles.
        tiles: further tiles that are known.
    """
    known = dict(tiles or {})
    for level, hashes in enumerate(edge.tiles):
        if hashes:
            known[Tile(level, (edge.size >> TILE_HEIGHT * level) // TILE_WIDTH, len(hashes))] = b"".join(hashes)

    def read(level: int, index: int, width: int) -> bytes:
        found = known.get(Tile(level, index, width))
        return elsewhere(level, index, width) if found is None else found

    return read


def check_staged(batch: Batch, size: int, root: bytes) -> Batch:
    """Return the batch if it leads to a committed head.

    Raises:
        IntegrityError: it does not.
    """
    if batch.after.edge.size != size or batch.after.edge.root() != root:
        raise IntegrityError(f"the staging object does not lead to the committed root of {size} leaves")
    return batch


def state_of(edge: RightEdge, entries: Sequence[bytes], root: bytes) -> LogState:
    """Return the state that an edge and the leaves beside it make up, if they have this root.

    Raises:
        IntegrityError: they do not.
    """
    if edge.root() != root:
        raise IntegrityError(f"the published tiles do not lead to the committed root of {edge.size} leaves")
    return LogState(edge, tuple(entries))
