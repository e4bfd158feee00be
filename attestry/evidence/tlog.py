"""The Merkle tree of a log: RFC 6962 hashes, C2SP tiles, and RFC 9162 proofs.

    edge, tiles = RightEdge().append([leaf_hash(leaf) for leaf in leaves])      # tiles to store, by coordinates
    proof = inclusion_proof(read_tile, index, edge.size)
    verify_inclusion(leaf_hash(leaves[index]), index, edge.size, proof, edge.root())

Rules:
- Leaves and nodes are hashed with different first bytes, so that neither passes for the other.
- A tile holds up to 256 consecutive hashes; at level L each is the root of 256^L leaves. An append touches the right edge alone, so
  its cost does not grow with the log.
- A proof has exactly the hashes that index and sizes ask for, each of 32 bytes; anything else is refused.
- Proofs are made of whatever tiles are read: who makes one checks it against the root before it counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from attestry.domain.errors import IntegrityError, InvalidInputError

HASH_BYTES: Final = 32
TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

ReadTile = Callable[[int, int, int], bytes]
"""Returns the hashes of a tile: level, index, width."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes; of none, the hash of nothing."""
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        # An odd one out moves up as it stands: the same tree as RFC 6962's split at the largest power of two.
        odd = level[-1:] if len(level) % 2 else []
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)] + odd
    return level[0]


def audit_path(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Return the inclusion proof of a leaf in a tree whose leaf hashes are all at hand."""
    return _inclusion(lambda low, high: tree_root(hashes[low:high]), index, len(hashes))


@dataclass(frozen=True)
class Tile:
    """Coordinates of a tile.

    Attributes:
        level: 0 for leaf hashes.
        index: its number within the level.
        width: number of hashes, 256 in a full one.
    """

    level: int
    index: int
    width: int

    @property
    def path(self) -> str:
        """Return the path below the log's prefix: `tile/0/x001/067.p/12`."""
        return f"tile/{self.level}/{_tile_number(self.index, self.width)}"

    @property
    def entries_path(self) -> str:
        """Return the path of the entry bundle beside a tile of level 0."""
        return f"tile/entries/{_tile_number(self.index, self.width)}"


def tile_at(level: int, index: int, size: int) -> Tile:
    """Return a tile as it is in a tree of this size."""
    width = min(TILE_WIDTH, (size >> TILE_HEIGHT * max(level, 0)) - index * TILE_WIDTH)
    if level < 0 or index < 0 or width < 1:
        raise InvalidInputError.of("tile", "range", f"a tree of {size} leaves has no tile {index} at level {level}")
    return Tile(level, index, width)


@dataclass(frozen=True)
class RightEdge:
    """All of a tree that an append needs: the partial tile of each level, which may be empty.

    Attributes:
        size: number of leaves.
        tiles: hashes of the partial tiles, level 0 first.
    """

    size: int = 0
    tiles: tuple[tuple[bytes, ...], ...] = ()

    def __post_init__(self) -> None:
        level = 0
        while self.size >> TILE_HEIGHT * level:
            level += 1
        widths = [(self.size >> TILE_HEIGHT * n) % TILE_WIDTH for n in range(level)]
        if [len(t) for t in self.tiles] != widths or any(len(h) != HASH_BYTES for t in self.tiles for h in t):
            raise InvalidInputError.of("edge", "shape", f"this is not the right edge of a tree of {self.size} leaves")

    def root(self) -> bytes:
        """Return the root of the tree."""
        return self._root

    @cached_property
    def _root(self) -> bytes:
        right: list[bytes] = []
        for tile in self.tiles:
            hashes = [*tile, *right]
            right = [tree_root(hashes)] if hashes else []
        return right[0] if right else EMPTY_ROOT

    def append(self, leaf_hashes: Sequence[bytes]) -> tuple[RightEdge, dict[Tile, bytes]]:
        """Return the edge after these leaves, and the tiles that are new or wider."""
        tiles: dict[Tile, bytes] = {}
        edges: list[tuple[bytes, ...]] = []
        size, level, added = self.size + len(leaf_hashes), 0, list(leaf_hashes)
        while size >> TILE_HEIGHT * level:
            hashes = [*(self.tiles[level] if level < len(self.tiles) else ()), *added]
            first = (self.size >> TILE_HEIGHT * level) // TILE_WIDTH
            parts = [hashes[i : i + TILE_WIDTH] for i in range(0, len(hashes), TILE_WIDTH)]
            if added:
                tiles.update({Tile(level, first + n, len(p)): b"".join(p) for n, p in enumerate(parts)})
            edges.append(tuple(parts[-1]) if parts and len(parts[-1]) < TILE_WIDTH else ())
            added = [tree_root(p) for p in parts if len(p) == TILE_WIDTH]
            level += 1
        return RightEdge(size, tuple(edges)), tiles


def read_edge(read_tile: ReadTile, size: int) -> RightEdge:
    """Return the right edge of the tree of this size, as its tiles tell it; its root is what makes it true."""
    tiles: list[tuple[bytes, ...]] = []
    while blocks := size >> TILE_HEIGHT * len(tiles):
        width = blocks % TILE_WIDTH
        raw = _read(read_tile, Tile(len(tiles), blocks // TILE_WIDTH, width)) if width else b""
        tiles.append(split_hashes(raw))
    return RightEdge(size, tuple(tiles))


def split_hashes(raw: bytes) -> tuple[bytes, ...]:
    """Return the hashes that lie one behind the other in a tile."""
    return tuple(raw[i : i + HASH_BYTES] for i in range(0, len(raw), HASH_BYTES))


def inclusion_proof(read_tile: ReadTile, index: int, size: int) -> list[bytes]:
    """Return the proof that leaf `index` is in the tree of `size` leaves (RFC 9162 section 2.1.3.1)."""
    return _inclusion(_range_hash(read_tile, size), index, size)


def consistency_proof(read_tile: ReadTile, old: int, new: int) -> list[bytes]:
    """Return the proof that the tree of `old` leaves is a prefix of that of `new` (RFC 9162 section 2.1.4.1).

    It is empty where there is nothing to prove: `old` is 0 or `new`.
    """
    if not 0 <= old <= new:
        raise InvalidInputError.of("old", "range", f"a tree of {new} leaves has no prefix of {old}")
    return _consistency(_range_hash(read_tile, new), old, new) if 0 < old < new else []


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf hash is in a tree (RFC 9162 section 2.1.3.2).

    Raises:
        IntegrityError: the proof does not show it.
    """
    if not 0 <= index < size:
        raise IntegrityError(f"a tree of {size} leaves has no leaf {index}")
    _check_hashes(proof, leaf, root)
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise IntegrityError("the inclusion proof is too long")
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    if last or found != root:
        raise IntegrityError(f"the inclusion proof of leaf {index} does not lead to the root of the {size} leaves")


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check that one tree is a prefix of another (RFC 9162 section 2.1.4.2).

    Raises:
        IntegrityError: the proof does not show it.
    """
    _check_hashes(proof, old_root, new_root)
    if not 0 <= old <= new or (old == 0 and old_root != EMPTY_ROOT) or (old == new and old_root != new_root):
        raise IntegrityError(f"the tree of {old} leaves is not a prefix of that of {new}")
    if old in (0, new):
        if proof:
            raise IntegrityError("the consistency proof is too long")
        return
    # A tree of a power of two leaves is a node of the new one, and then the first hash of the path.
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    if not path:
        raise IntegrityError("the consistency proof is too short")
    before = after = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise IntegrityError("the consistency proof is too long")
        if place & 1 or place == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        place, last = place >> 1, last >> 1
    if last or before != old_root or after != new_root:
        raise IntegrityError(f"the tree of {old} leaves is not a prefix of that of {new}")


_RangeHash = Callable[[int, int], bytes]
"""Returns the root over the leaves from the first number up to, not with, the second."""


def _inclusion(hash_of: _RangeHash, index: int, size: int) -> list[bytes]:
    if not 0 <= index < size:
        raise InvalidInputError.of("index", "range", f"a tree of {size} leaves has no leaf {index}")
    low, high, proof = 0, size, list[bytes]()
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(hash_of(middle, high))
            high = middle
        else:
            proof.append(hash_of(low, middle))
            low = middle
    return proof[::-1]


def _consistency(hash_of: _RangeHash, old: int, new: int) -> list[bytes]:
    low, high, proof = 0, new, list[bytes]()
    while high != old:
        middle = low + _split(high - low)
        if old <= middle:
            proof.append(hash_of(middle, high))
            high = middle
        else:
            proof.append(hash_of(low, middle))
            low = middle
    # The old tree itself is known to whoever checks, a subtree of it is not.
    return [*([hash_of(low, high)] if low else []), *proof[::-1]]


def _range_hash(read_tile: ReadTile, size: int) -> _RangeHash:
    @lru_cache(maxsize=64)
    def tile(level: int, index: int) -> tuple[bytes, ...]:
        return split_hashes(_read(read_tile, tile_at(level, index, size)))

    def hash_of(low: int, high: int) -> bytes:
        count = high - low
        if count & (count - 1):
            middle = low + _split(count)
            return node_hash(hash_of(low, middle), hash_of(middle, high))
        level = (count.bit_length() - 1) // TILE_HEIGHT
        first, width = low >> TILE_HEIGHT * level, count >> TILE_HEIGHT * level
        start = first % TILE_WIDTH
        return tree_root(tile(level, first // TILE_WIDTH)[start : start + width])

    return hash_of


def _split(count: int) -> int:
    """Return the largest power of two below a count of at least two."""
    return 1 << (count - 1).bit_length() - 1


def _read(read_tile: ReadTile, tile: Tile) -> bytes:
    raw = read_tile(tile.level, tile.index, tile.width)
    if len(raw) != tile.width * HASH_BYTES:
        raise IntegrityError(f"{tile.path} has {len(raw)} bytes, not {tile.width * HASH_BYTES}")
    return raw


def _check_hashes(proof: Sequence[bytes], *hashes: bytes) -> None:
    if any(len(h) != HASH_BYTES for h in (*proof, *hashes)):
        raise IntegrityError("a hash in the proof does not have 32 bytes")


def _tile_number(index: int, width: int) -> str:
    parts = [f"{index % 1000:03d}"]
    while index := index // 1000:
        parts.append(f"x{index % 1000:03d}")
    return "/".join(reversed(parts)) + (f".p/{width}" if width < TILE_WIDTH else "")
