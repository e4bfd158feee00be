"""What an append to the ledger costs by the ledger's size: calls, bytes, and the sequencer's own time.

The real sequencer and the real witness work over ports in memory. A ledger of a million leaves is not built for it: an append needs no more
of one than its right edge, so the edge is made of random hashes beside the leaves of the last entry bundle, with a checkpoint that the
ledger's key signed. Both ledgers begin at the same place within a tile and are appended to in turns through one whole tile, so they differ
in size alone. A cold process reads the edge from the staged batch; a warm one remembers it.

Targets: calls, bytes and time of an append at a million leaves at most 1.2 times those at a thousand.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from attestry.domain.errors import NotFoundError
from attestry.evidence.ledger_batch import Batch, LogState
from attestry.evidence.note import Checkpoint, sign_note
from attestry.evidence.tlog import HASH_BYTES, TILE_WIDTH, RightEdge, leaf_hash
from attestry.ports import Put
from attestry.usecases.ledger_head import COMMIT, LIVE, Head, archive_key, staging_key
from attestry.usecases.sequence import Sequencer
from benchmarks.result import Cell, Result, Spread, Table, Target

# The ledger in memory belongs to the tests, which are not written for the strict checks of this package.
ledgers: Any = importlib.import_module("tests.unit.ledger_world")

SMALL = 1_000
LARGE = 1_000_000 - 1_000_000 % TILE_WIDTH + SMALL % TILE_WIDTH
"""A million, at the same place within the last tile as the small ledger."""

LEAVES = 4
APPENDS = TILE_WIDTH // LEAVES
LIMIT = 1.2
MEASURES = ("calls", "bytes", "ms")


@dataclass
class Meter:
    """What goes through the ports.

    Attributes:
        calls: by port and method.
        read: bytes that objects held which were read.
        written: bytes of objects that were written.
        seconds: processor time inside of the ports, the witness included: none of it is the sequencer's.
    """

    calls: Counter[str] = field(default_factory=Counter)
    read: int = 0
    written: int = 0
    seconds: float = 0.0

    def reset(self) -> None:
        """Forget what was measured."""
        self.calls.clear()
        self.read, self.written, self.seconds = 0, 0, 0.0

    def call(self, name: str, act: Callable[[], Any]) -> Any:
        """Perform one call."""
        began = time.thread_time()
        try:
            return act()
        finally:
            self.seconds += time.thread_time() - began
            self.calls[name] += 1


class Metered:
    """A port that is metered."""

    def __init__(self, port: Any, name: str, meter: Meter) -> None:
        self._port, self._name, self._meter = port, name, meter

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._port, attribute)
        if not callable(found) or attribute == "public_key":
            return found

        def act(*arguments: Any, **named: Any) -> Any:
            result = self._meter.call(f"{self._name}.{attribute}", lambda: found(*arguments, **named))
            if self._name == "store" and attribute in ("put_new", "put"):
                self._meter.written += len(arguments[1])
            elif self._name == "store" and attribute == "read":
                self._meter.read += len(result)
            return result

        return act


class Ledger:
    """A ledger of a size, and sequencers for it."""

    def __init__(self, size: int) -> None:
        self.world: Any = ledgers.World()
        self.meter = Meter()
        self._seed(size)
        self._warm = self._sequencer()
        self.append(warm=True)

    def append(self, *, warm: bool) -> dict[str, float]:
        """Append once, and return what it took."""
        self.world.add_events(LEAVES)
        sequencer = self._warm if warm else self._sequencer()
        self.meter.reset()
        began = time.thread_time()
        done = sequencer.run()
        spent = time.thread_time() - began - self.meter.seconds
        if done.appended != LEAVES or done.findings or done.lacking:
            raise RuntimeError(f"the append went wrong: {done}")
        if not warm:
            self._warm = sequencer
        return {"calls": self.meter.calls.total(), "bytes": self.meter.read + self.meter.written, "ms": spent * 1000}

    def _sequencer(self) -> Sequencer:
        world, meter = self.world, self.meter
        meta, store = Metered(world.meta, "table", meter), Metered(world.store, "store", meter)
        signer, witnesses = Metered(world.signer, "kms", meter), Metered(world.witnesses, "witnesses", meter)
        ports: dict[str, Any] = {"meta": meta, "store": store, "signer": signer, "witnesses": witnesses, "clock": world.clock}
        return Sequencer(**ports, origin=ledgers.ORIGIN)

    def _seed(self, size: int) -> None:
        """Make it a published ledger of which nothing is there but what the sequencer left at its last append."""
        start = size - LEAVES
        leaves = ledgers.synthetic_leaves(start % TILE_WIDTH + LEAVES)
        before = tuple(leaves[:-LEAVES])
        tiles: list[tuple[bytes, ...]] = [tuple(leaf_hash(leaf) for leaf in before)]
        while blocks := start >> 8 * len(tiles):
            tiles.append(tuple(_random_hash(len(tiles), n) for n in range(blocks % TILE_WIDTH)))
        batch = Batch(LogState(RightEdge(start, tuple(tiles)), before), tuple(leaves[-LEAVES:]))
        store = self.world.store
        for path, raw, full in batch.objects():
            store.put_new(f"ledger/{path}", raw, retain=full)
        for edge in (batch.before.edge, batch.after.edge):
            store.put_new(archive_key(edge.size), self._note(edge), retain=True)
        edge = batch.after.edge
        staging = staging_key(edge.size, edge.root(), LEAVES)
        store.put_new(staging, batch.to_bytes())
        store.put(LIVE, self._note(edge))
        head = Head(edge.size, edge.root(), self._note(edge).decode(), ledgers.SEEDED, staging, True, 1)
        self.world.meta.transact([Put(COMMIT, head.to_item())])

    def _note(self, edge: RightEdge) -> bytes:
        signer = self.world.signer
        text = Checkpoint(ledgers.ORIGIN, edge.size, edge.root()).to_text()
        return sign_note(text, ledgers.ORIGIN, signer.public_key(), signer.sign_ed25519)


def run() -> Result:
    """Append to a small and a large ledger in turns."""
    _require_missing_tiles(Ledger(LARGE))
    rows: list[tuple[Cell, ...]] = []
    targets = []
    for warm in (True, False):
        small, large = Ledger(SMALL), Ledger(LARGE)
        taken: dict[int, list[dict[str, float]]] = {SMALL: [], LARGE: []}
        gc.collect()
        gc.disable()
        try:
            for _ in range(APPENDS):
                taken[SMALL].append(small.append(warm=warm))
                taken[LARGE].append(large.append(warm=warm))
        finally:
            gc.enable()
        kind = "warm" if warm else "cold"
        figures = {size: _figures(found) for size, found in taken.items()}
        rows += [(f"{kind}, {size:,} leaves", *(round(figures[size][m], 2) for m in MEASURES)) for size in taken]
        for measure in MEASURES:
            ratio = round(figures[LARGE][measure] / figures[SMALL][measure], 3)
            targets.append(Target(f"an append ({kind}) at a million leaves, x at a thousand: {measure}", ratio, LIMIT))
    columns = ("an append", "calls", "bytes", "ms")
    notes = (
        f"{LEAVES} leaves each, {APPENDS} appends, through one whole tile: calls and bytes on average, milliseconds as median.",
        "Bytes of objects read and written. Milliseconds of the sequencer's own processor time: without the ports and the witness.",
        f"Calls by kind, warm: {_told(Ledger(SMALL))}.",
    )
    return Result("ledger", (Table("Appending to the ledger", columns, tuple(rows), notes),), tuple(targets))


def _figures(taken: list[dict[str, float]]) -> dict[str, float]:
    """Return averages of what is the same on every machine, and the median of what is not."""
    means = {name: sum(one[name] for one in taken) / len(taken) for name in ("calls", "bytes")}
    return {**means, "ms": Spread.of([one["ms"] for one in taken]).median}


def _told(ledger: Ledger) -> str:
    ledger.append(warm=True)
    return ", ".join(f"{number} {name}" for name, number in sorted(ledger.meter.calls.items()))


def _random_hash(level: int, number: int) -> bytes:
    return hashlib.sha256(f"{level} {number}".encode()).digest()[:HASH_BYTES]


def _require_missing_tiles(ledger: Ledger) -> None:
    """Make sure that the rest of the large ledger really is not there, so that an append cannot have read it."""
    try:
        ledger.world.store.read("ledger/tile/0/000", max_bytes=TILE_WIDTH * HASH_BYTES)
    except NotFoundError:
        return
    raise RuntimeError("the large ledger has tiles that it should not have")
