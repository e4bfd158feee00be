"""The sequencer: gives each event of the outbox its place in the ledger.

One append, step by step, and what a crash behind each leaves:

1. The commit row is read; it must be published, else step 5 is done for it first.
2. Up to 1,000 waiting events become leaves: a batch with one time, never before the last batch's.
3. The batch is staged as an object from which anyone can go on, and the new root is signed. A crash here leaves both unused.
4. The commit row is swapped, if it is still the one that was read. This is the commit: of two sequencers one gets it.
5. Tiles are published, then the checkpoint, cosigned where the witnesses answer; then index rows are written and outbox rows deleted,
   then the row is marked as published. A crash here is made good by the next run, from the staged batch: all of it can be done twice.

Rules:
- Nothing is believed that does not lead to the committed root, which the ledger's key has signed: not the row, the staged batch, the
  tiles, nor what a warm process remembers.
- Every leaf of a published head has its index row, and a batch is taken together only under a published head: so no event is appended
  twice.
- The number of calls of an append does not depend on the size of the ledger.
- The ledger begins once. Where the commit row is gone, or behind what is published, nothing is signed any more until a person has looked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from attestry.domain.errors import ConditionFailedError, IntegrityError, InvalidInputError, NotFoundError
from attestry.domain.events import timestamp
from attestry.evidence.leaf import Leaf, write_leaf
from attestry.evidence.ledger_batch import MAX_BATCH_LEAVES, MAX_STAGED_BYTES, Batch, LogState, check_staged, edge_reader, state_of
from attestry.evidence.note import Checkpoint, Verifier, open_note, sign_note
from attestry.evidence.tlog import TILE_WIDTH, read_edge
from attestry.ports import ABSENT, Clock, Delete, MetaStore, NoteSigner, ObjectStore, Put, Update, When, Witnesses
from attestry.usecases.ledger import LedgerReader
from attestry.usecases.ledger_head import ARCHIVE, COMMIT, FOLDER, Head, leaf_key, staging_key
from attestry.usecases.outbox import Outbox, Sorted, outbox_key
from attestry.usecases.publish import Live, Publisher

_UNFIT = (NotFoundError, IntegrityError, InvalidInputError)

PAIRS: Final = 50
"""Leaves whose index row and outbox row change in one transaction, which takes 100 writes."""


@dataclass
class Sequenced:
    """What a run did.

    Attributes:
        appended: leaves that were committed.
        batches: appends that they were committed in.
        replayed: whether an earlier run's append was finished.
        duplicates: outbox rows of events that were in the ledger already.
        conflicts: outbox rows of other contents under the ID of an event of the ledger.
        malformed: outbox rows that were no events.
        size: leaves of the ledger.
        root: its root in hex.
        lacking: names of witnesses without cosignature on the live checkpoint, with the reason.
        findings: what was not as the sequencer had left it, and was mended.
        contended: another sequencer was at work, and this one stepped back.
        finished: False when the time was up before the outbox was empty.
    """

    appended: int = 0
    batches: int = 0
    replayed: bool = False
    duplicates: int = 0
    conflicts: int = 0
    malformed: int = 0
    size: int = 0
    root: str = ""
    lacking: dict[str, str] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    contended: bool = False
    finished: bool = True

    def add(self, found: Sorted) -> None:
        """Count what became of outbox rows."""
        self.duplicates += found.duplicates
        self.conflicts += found.conflicts
        self.malformed += found.malformed


@dataclass(frozen=True)
class _Known:
    """What is known of the ledger, and leads to its committed root.

    Attributes:
        state: its right edge.
        logged: time of its last leaf; empty where it has none.
    """

    state: LogState
    logged: str


class Sequencer:
    """Appends to one ledger. A warm process keeps one, which remembers the ledger's right edge.

    Args:
        meta: the table.
        store: the model store.
        signer: the ledger's key.
        witnesses: who cosigns.
        clock: the time.
        origin: the ledger's identity, and the name of its key.
        former: keys that signed before the present one.
        monotonic: measures how long a run takes.
    """

    def __init__(
        self,
        meta: MetaStore,
        store: ObjectStore,
        signer: NoteSigner,
        witnesses: Witnesses,
        clock: Clock,
        origin: str,
        *,
        former: Sequence[Verifier] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meta = meta
        self._store = store
        self._signer = signer
        self._clock = clock
        self._origin = origin
        self._former = tuple(former)
        self._monotonic = monotonic
        self._publisher = Publisher(meta, store, witnesses, origin)
        self._outbox = Outbox(meta, clock)
        self._reader = LedgerReader(store)
        self._known: _Known | None = None

    def run(self, seconds: float = 40.0) -> Sequenced:
        """Append what waits, until nothing does or the time is up; another sequencer's work is stepped back from.

        Args:
            seconds: how long to take on; a batch that has begun is finished.

        Raises:
            IntegrityError: the ledger is not as the sequencer left it; nothing was signed.
            UnavailableError: a service did not answer; the next run goes on.
        """
        end = self._monotonic() + seconds
        done = Sequenced()
        try:
            self._run(done, lambda: self._monotonic() >= end)
        except ConditionFailedError:
            done.contended = True
        return done

    def _run(self, done: Sequenced, is_over: Callable[[], bool]) -> None:
        live = self._read_live(done)
        head = self._open(live, done)
        while True:
            found = self._outbox.take(MAX_BATCH_LEAVES, is_over, partial(self._reader.leaf, size=head.size))
            done.add(found)
            if found.events:
                head = self._append(head, found.events, done)
            if found.forged:
                done.findings.append(f"{found.forged} index rows named no leaf of their event; the ledger does not bear them out")
            if not found.more:
                break
            if is_over():
                done.finished = False
                break
        if not done.batches and not done.replayed:
            head = self._freshen(head, live, done)

    @property
    def _verifiers(self) -> tuple[Verifier, ...]:
        return (Verifier.of(self._origin, self._signer.public_key()), *self._former)

    def _read_live(self, done: Sequenced) -> Live | None:
        try:
            return self._publisher.read_live(self._verifiers)
        except IntegrityError as error:
            done.findings.append(f"{error.message}; it was written again")
            return None

    def _open(self, live: Live | None, done: Sequenced) -> Head:
        """Return the head, published. The live checkpoint was read before it, so that it can never be ahead of it."""
        row = self._meta.get(COMMIT)
        head = self._begin() if row is None else Head.from_item(row, self._origin, self._verifiers)
        if live and (live.checkpoint.size > head.size or (live.checkpoint.size == head.size and live.text != head.text)):
            raise IntegrityError(
                f"{live.checkpoint.size} leaves are published, but {head.size} are on record: the row of the ledger's head was set back",
                details={"published": live.checkpoint.size, "committed": head.size},
            )
        done.size, done.root = head.size, head.root.hex()
        if head.published:
            return head
        done.replayed = True
        return self._finish(head, self._staged(head) if head.size else Batch(LogState(), ()), live, done)

    def _begin(self) -> Head:
        """Commit the empty ledger."""
        if next(iter(self._store.list_versions(ARCHIVE)), None) is not None:
            if self._meta.get(COMMIT) is not None:
                raise ConditionFailedError("another sequencer began the ledger")
            raise IntegrityError("the row of the ledger's head is gone, though checkpoints are published")
        empty = LogState().edge
        logged = timestamp(self._clock.now())
        head = Head(0, empty.root(), self._sign(0, empty.root()), logged, "", False, 1)
        self._meta.transact([Put(COMMIT, head.to_item(), ABSENT)])
        return head

    def _sign(self, size: int, root: bytes) -> str:
        text = Checkpoint(self._origin, size, root).to_text()
        return sign_note(text, self._origin, self._signer.public_key(), self._signer.sign_ed25519).decode()

    def _append(self, head: Head, events: Sequence[bytes], done: Sequenced) -> Head:
        known = self._known_of(head)
        logged = max(timestamp(self._clock.now()), known.logged)
        batch = Batch(known.state, tuple(write_leaf(event, logged) for event in events))
        edge = batch.after.edge
        root = edge.root()
        staging = staging_key(edge.size, root, len(events))
        self._store.put_new(staging, batch.to_bytes())
        note = self._sign(edge.size, root)
        committed = Head(edge.size, root, note, logged, staging, False, head.rev + 1, head.witnessed)
        unchanged = When(exists=True, equals={"rev": head.rev, "published": True})
        self._meta.transact([Update(COMMIT, committed.to_item(), unchanged)])
        done.appended += len(events)
        done.batches += 1
        done.size, done.root = committed.size, root.hex()
        return self._finish(committed, batch, None, done)

    def _finish(self, head: Head, batch: Batch, live: Live | None, done: Sequenced) -> Head:
        """Do what follows the commit of a batch; every step may have been done before."""
        for path, raw, full in batch.objects():
            self._store.put_new(f"{FOLDER}{path}", raw, retain=full)
        cosigned = self._publisher.cosign(head, live, batch.read_tile(self._reader.read_tile))
        done.lacking = cosigned.lacking
        self._publisher.archive(head, cosigned.note, self._verifiers)
        self._publisher.show(head, cosigned.note, live)
        self._index(batch)
        self._known = _Known(batch.after, Leaf.parse(batch.leaves[-1]).logged if batch.leaves else "")
        return self._mark(head, cosigned.witnessed)

    def _index(self, batch: Batch) -> None:
        """Write where each event lies, and delete its outbox row, if it is still the row of that event."""
        first = batch.before.edge.size
        for start in range(0, len(batch.leaves), PAIRS):
            leaves = [Leaf.parse(raw) for raw in batch.leaves[start : start + PAIRS]]
            puts = [
                Put(leaf_key(leaf.event_id), {"index": first + start + n, "sha256": leaf.event_sha256, "logged": leaf.logged}, When())
                for n, leaf in enumerate(leaves)
            ]
            deletes = [Delete(outbox_key(leaf.event), When(exists=True, equals={"event": leaf.event_bytes})) for leaf in leaves]
            try:
                self._meta.transact([*puts, *deletes])
            except ConditionFailedError:
                rows = self._meta.get_many([d.key for d in deletes])
                left = [d for d in deletes if rows.get(d.key, {}).get("event") == d.when.equals["event"]]
                self._meta.transact([*puts, *left])

    def _mark(self, head: Head, witnessed: dict[str, int]) -> Head:
        marked = replace(head, published=True, rev=head.rev + 1, witnessed=witnessed)
        changes = {"published": True, "rev": marked.rev, "witnessed": dict(witnessed)}
        self._meta.transact([Update(COMMIT, changes, When(exists=True, equals={"rev": head.rev}))])
        return marked

    def _freshen(self, head: Head, live: Live | None, done: Sequenced) -> Head:
        """Have the live checkpoint show the head with all cosignatures, where a crash or a silent witness left it otherwise."""
        shown = live is not None and live.text == head.text
        if shown and not self._publisher.lacking(head, live):
            return head
        known = self._remembered(head)
        read_tile = edge_reader(known.state.edge, self._reader.read_tile) if known else self._reader.read_tile
        cosigned = self._publisher.cosign(head, live, read_tile)
        done.lacking = cosigned.lacking
        self._publisher.show(head, cosigned.note, live)
        return self._mark(head, cosigned.witnessed) if cosigned.witnessed != head.witnessed else head

    def _remembered(self, head: Head) -> _Known | None:
        edge = self._known.state.edge if self._known else None
        return self._known if edge and edge.size == head.size and edge.root() == head.root else None

    def _known_of(self, head: Head) -> _Known:
        """Return what an append needs of the ledger: remembered, from the last staged batch, or from what is published."""
        if head.size == 0:
            return _Known(LogState(), "")
        if known := self._remembered(head):
            return known
        try:
            batch = self._staged(head)
            return _Known(batch.after, Leaf.parse(batch.leaves[-1]).logged)
        except IntegrityError:
            edge = read_edge(self._reader.read_tile, head.size)
        last = head.size - 1
        entries = tuple(self._reader.leaves(head.size - head.size % TILE_WIDTH, head.size))
        return _Known(state_of(edge, entries, head.root), Leaf.parse(self._reader.leaf(last, head.size)).logged)

    def _staged(self, head: Head) -> Batch:
        """Return the batch that led to a head, of whichever version of its object does.

        Raises:
            IntegrityError: none does, or there is no such object.
        """
        try:
            return self._read_staged(head, None)
        except _UNFIT as error:
            for entry in self._store.list_versions(head.staging):
                if entry.key == head.staging and not entry.is_delete_marker:
                    try:
                        return self._read_staged(head, entry.version_id)
                    except _UNFIT:
                        continue
            raise IntegrityError(f"the object {head.staging} is not the batch that was committed") from error

    def _read_staged(self, head: Head, version_id: str | None) -> Batch:
        raw = self._store.read(head.staging, version_id, max_bytes=MAX_STAGED_BYTES)
        batch = check_staged(Batch.parse(raw), head.size, head.root)
        before = batch.before.edge
        if before.size:
            # A batch that begins too late leads to the same root, and would leave tiles and index rows out.
            note = open_note(self._reader.checkpoint(before.size)[1], self._verifiers)
            if Checkpoint.parse(note.text) != Checkpoint(self._origin, before.size, before.root()):
                raise IntegrityError(f"the batch in {head.staging} does not begin where the ledger stood")
        return batch
