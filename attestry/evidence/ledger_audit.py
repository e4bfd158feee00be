"""The whole ledger, checked from its published files alone: every leaf, every tile, every signature.

    audit = audit_ledger(read, log_keys, witness_keys, since=remembered_checkpoint)

Rules:
- The checkpoint counts if the ledger's key signed it. A cosignature counts if a witness's key made it; a wrong one by a known key voids
  the checkpoint.
- The tree is built anew from the leaves. Each tile that the size asks for is there and equals what the leaves give.
- Each leaf is one that the registry writes, to the byte; times never decrease, and no event is there twice.
- A checkpoint from before is a prefix: the first leaves have its root. A ledger that is shorter than it was has been cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from attestry.domain.errors import IntegrityError, InvalidInputError, NotFoundError
from attestry.evidence.leaf import Leaf, read_bundle
from attestry.evidence.note import Checkpoint, Note, Verifier, open_note
from attestry.evidence.tlog import EMPTY_ROOT, TILE_HEIGHT, TILE_WIDTH, RightEdge, Tile, leaf_hash, tile_at

ReadFile = Callable[[str], bytes]
"""Returns a published file by its path below the ledger's prefix; raises NotFoundError where there is none."""

CHECKPOINT: Final = "checkpoint"


class LedgerBrokenError(IntegrityError):
    """The ledger is not what it claims to be.

    Attributes:
        step: which check it failed: `checkpoint`, `since`, `entries`, `leaf`, `tile`, `root`; `policies` by who visits the leaves.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}", details={"step": step, "reason": reason})
        self.step = step
        self.reason = reason


@dataclass(frozen=True)
class LedgerAudit:
    """What was found of a ledger that holds.

    Attributes:
        checkpoint: its head.
        note: the signed checkpoint as it was read.
        logged: time of the last leaf, empty where there is none.
        witnesses: name of each witness that cosigned the head, and when, in POSIX seconds.
        since: size of the earlier checkpoint that it was shown to extend, or None.
        files: number of tiles and entry bundles that were compared.
    """

    checkpoint: Checkpoint
    note: bytes
    logged: str
    witnesses: tuple[tuple[str, int], ...]
    since: int | None
    files: int


@dataclass
class _Walk:
    """How far the leaves have been read."""

    edge: RightEdge = field(default_factory=RightEdge)
    logged: str = ""
    seen: set[bytes] = field(default_factory=set)
    files: int = 0


def audit_ledger(
    read: ReadFile,
    log_keys: Sequence[Verifier],
    witness_keys: Sequence[Verifier] = (),
    *,
    since: bytes | None = None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
    visit: Callable[[Leaf], None] = lambda _leaf: None,
) -> LedgerAudit:
    """Check a ledger from its first leaf to its checkpoint; memory holds a bundle and 32 bytes a leaf.

    Args:
        read: reads its files.
        log_keys: keys that may sign its checkpoints.
        witness_keys: keys that may cosign them.
        since: a checkpoint that somebody kept from before.
        advance: told how many leaves of how many are done.
        visit: given each leaf, in order, before the signature over all of them has been compared: what it made of them counts once
            this returns.

    Raises:
        LedgerBrokenError: what does not hold, and at which step.
    """
    note = _file(read, CHECKPOINT, "checkpoint")
    opened, checkpoint = _open(note, log_keys, witness_keys, "checkpoint")
    earlier = None if since is None else _open(since, log_keys, witness_keys, "since")[1]
    if earlier is not None:
        _check_not_cut(earlier, checkpoint)
    walk = _Walk()
    for number in range(-(-checkpoint.size // TILE_WIDTH)):
        _take_bundle(read, walk, tile_at(0, number, checkpoint.size), earlier, visit)
        advance(walk.edge.size, checkpoint.size)
    for level, hashes in enumerate(walk.edge.tiles):
        if hashes:
            # A partial tile above the lowest level is wider with each full one below: only the last is there for sure.
            _check_tile(
                read, walk, tile_at(level, (checkpoint.size >> TILE_HEIGHT * level) // TILE_WIDTH, checkpoint.size), b"".join(hashes)
            )
    if walk.edge.root() != checkpoint.root:
        raise LedgerBrokenError("root", f"the {checkpoint.size} leaves do not have the root that the checkpoint signs")
    cosigned = ((s.name, s.timestamp or 0) for s in opened.verified if any(s.is_by(w) for w in witness_keys))
    return LedgerAudit(checkpoint, note, walk.logged, tuple(cosigned), earlier.size if earlier else None, walk.files)


def _open(note: bytes, log_keys: Sequence[Verifier], witness_keys: Sequence[Verifier], step: str) -> tuple[Note, Checkpoint]:
    try:
        opened = open_note(note, [*log_keys, *witness_keys])
        checkpoint = Checkpoint.parse(opened.text)
    except (IntegrityError, InvalidInputError) as error:
        raise LedgerBrokenError(step, error.message) from error
    signed = [key for key in log_keys if opened.signed_by(key)]
    if not signed:
        raise LedgerBrokenError(step, "no key of the ledger signed the checkpoint")
    if any(key.name != checkpoint.origin for key in signed):
        raise LedgerBrokenError(step, f"the checkpoint is of {checkpoint.origin}, signed by the key of another ledger")
    return opened, checkpoint


def _check_not_cut(earlier: Checkpoint, checkpoint: Checkpoint) -> None:
    if earlier.origin != checkpoint.origin:
        raise LedgerBrokenError("since", f"the earlier checkpoint is of {earlier.origin}, not of {checkpoint.origin}")
    if earlier.size > checkpoint.size:
        raise LedgerBrokenError("since", f"the ledger had {earlier.size} leaves and shows {checkpoint.size}: it was cut off, or set back")
    if earlier.size == 0 and earlier.root != EMPTY_ROOT:
        raise LedgerBrokenError("since", "the earlier checkpoint of no leaves has another root than that of nothing")


def _take_bundle(read: ReadFile, walk: _Walk, tile: Tile, earlier: Checkpoint | None, visit: Callable[[Leaf], None]) -> None:
    raw = _file(read, tile.entries_path, "entries")
    try:
        leaves = read_bundle(raw, tile.width)
    except InvalidInputError as error:
        raise LedgerBrokenError("entries", f"{tile.entries_path}: {error.message}") from error
    for index, leaf in enumerate(leaves, start=walk.edge.size):
        visit(_check_leaf(leaf, index, walk))
    hashes = [leaf_hash(leaf) for leaf in leaves]
    if earlier is not None and walk.edge.size < earlier.size <= walk.edge.size + len(hashes):
        prefix, _ = walk.edge.append(hashes[: earlier.size - walk.edge.size])
        if prefix.root() != earlier.root:
            raise LedgerBrokenError("since", f"the first {earlier.size} leaves are not those of then: the past was rewritten")
    walk.edge, tiles = walk.edge.append(hashes)
    walk.files += 1
    for made, expected in tiles.items():
        if made.width == TILE_WIDTH:
            _check_tile(read, walk, made, expected)


def _check_tile(read: ReadFile, walk: _Walk, tile: Tile, expected: bytes) -> None:
    if _file(read, tile.path, "tile") != expected:
        raise LedgerBrokenError("tile", f"{tile.path} is not what the leaves give")
    walk.files += 1


def _check_leaf(data: bytes, index: int, walk: _Walk) -> Leaf:
    try:
        leaf = Leaf.parse(data)
    except InvalidInputError as error:
        raise LedgerBrokenError("leaf", f"leaf {index}: {error.message}") from error
    if leaf.logged < walk.logged:
        raise LedgerBrokenError("leaf", f"leaf {index} was logged at {leaf.logged}, behind one of {walk.logged}")
    event_id = bytes.fromhex(leaf.event_id)
    if event_id in walk.seen:
        raise LedgerBrokenError("leaf", f"leaf {index}: the event {leaf.event_id} is there twice")
    walk.seen.add(event_id)
    walk.logged = leaf.logged
    return leaf


def _file(read: ReadFile, path: str, step: str) -> bytes:
    try:
        return read(path)
    except NotFoundError as error:
        raise LedgerBrokenError(step, f"{path} is missing") from error
