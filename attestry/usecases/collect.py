"""Collect: move receipts and captured payloads from their expiring rows into batch objects in the version's folder.

For each key there are, below `<version folder>/predictions/<key ID>/`:

- `delegation.jwt`: the delegation;
- `<first>-<last>.jsonl`: the receipts of a range of sequence numbers, an object per line: `sequence`, `at`, `receipt`;
- `<first>-<last>.private.ndjson`: what may have to be erased one day: salt, principal, captured request and output. It
  is not locked, and its name is one that the store's policy lets be deleted.

Rules:
- A batch is decided by a conditional write before its objects are written, and counted by another one after; whoever
  goes on after a crash writes the same objects with the same bytes. Of two collectors on one key one steps back.
- Rows are immutable, and a key's receipts become durable in sequence, so what lies behind `collected` is complete.
- A key is closed once nothing more can be acknowledged under it; its last number is then an event.
- A gap in the sequence is passed over, kept on record and reported, never hidden.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from attestry.domain.errors import AttestryError, ConditionFailedError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import registry_principal
from attestry.evidence.prediction_id import PredictionId
from attestry.ports import Clock, Delete, Item, MetaStore, ObjectStore, Update, When
from attestry.usecases.records import outbox_put
from attestry.usecases.sign import (
    ACKNOWLEDGE_WITHIN,
    OPEN_KEYS,
    delegation_key,
    open_key,
    predictions_folder,
    receipt_key,
)

CLOSE_AFTER = ACKNOWLEDGE_WITHIN + timedelta(minutes=4)
"""How long after its delegation's expiry a key is closed; the difference allows for clocks that differ."""

MAX_BATCH_RECEIPTS = 1000
MAX_BATCH_BYTES = 32 << 20
MAX_READ_BYTES = 4 * MAX_BATCH_BYTES
MAX_GAPS_KEPT = 20
RECEIPTS, PRIVATE = ".jsonl", ".private.ndjson"

_RANGE = re.compile(r"([0-9]{12})-([0-9]{12})\.jsonl")
_PUBLIC_FIELDS = frozenset({"receipt", "at"})
_ROW_FIELDS = frozenset({"pk", "sk", "expires"})


@dataclass(frozen=True)
class Collected:
    """What a run of the collector did.

    Attributes:
        keys: open keys that were looked at.
        receipts: receipts that were moved.
        closed: keys that were closed.
        gaps: gaps in sequences that were met.
        contended: keys that another collector was at work on.
        errors: one sentence for each key that could not be dealt with.
        finished: False when the time was up before all keys were looked at.
    """

    keys: int = 0
    receipts: int = 0
    closed: int = 0
    gaps: int = 0
    contended: int = 0
    errors: tuple[str, ...] = ()
    finished: bool = True


@dataclass
class _Tally:
    """What has been done so far; it stands when a later step fails."""

    receipts: int = 0
    closed: int = 0
    gaps: int = 0


@dataclass(frozen=True)
class _Batch:
    first: int
    last: int
    rows: list[Item]
    gap: list[int] | None


class Collector:
    """Collects the receipts of all open keys."""

    def __init__(self, meta: MetaStore, store: ObjectStore, clock: Clock, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._meta = meta
        self._store = store
        self._clock = clock
        self._monotonic = monotonic

    def collect(self, *, seconds: float = 40.0) -> Collected:
        """Go through the open keys until all are done or the time is up; one key's trouble does not hold up the others.

        Args:
            seconds: how long to take on; a batch that has begun is finished.
        """
        end = self._monotonic() + seconds
        keys = contended = 0
        done = _Tally()
        errors: list[str] = []
        finished = True
        for row in self._meta.query(OPEN_KEYS):
            if self._monotonic() >= end:
                finished = False
                break
            keys += 1
            try:
                self._collect_key(row, end, done)
            except ConditionFailedError:
                contended += 1
            except AttestryError as error:
                errors.append(f"key {row['kid']}: {error.message}")
        return Collected(keys, done.receipts, done.closed, done.gaps, contended, tuple(errors), finished)

    def _collect_key(self, state: Item, end: float, done: _Tally) -> None:
        while True:
            at = self._clock.now()
            after = receipt_key(state["kid"], int(state["collected"])).sort
            limit = max(MAX_BATCH_RECEIPTS, int(state.get("batch_last") or 0) - int(state["collected"]))
            rows = self._meta.query(f"KEY#{state['kid']}", after=after, limit=limit)
            if not rows:
                done.closed += self._close_if_due(state, at)
                return
            batch = _next_batch(state, rows)
            # Counted before the move, whose answer may be lost: the next run would find the gap behind it.
            done.gaps += batch.gap is not None
            state = self._move(state, batch)
            done.receipts += len(batch.rows)
            if self._monotonic() >= end:
                return

    def _move(self, state: Item, batch: _Batch) -> Item:
        """Write the objects of one batch, and return the state after it."""
        kid, collected = str(state["kid"]), int(state["collected"])
        key = open_key(kid)
        if state.get("batch_last") is None:
            undecided = When(exists=True, equals={"collected": collected, "batch_last": None})
            self._meta.transact([Update(key, {"batch_last": batch.last}, undecided)])
        base = f"{predictions_folder(state['folder'])}{kid}/"
        if collected == 0:
            token = str((self._meta.get(delegation_key(kid)) or {})["delegation"])
            self._store.put_new(f"{base}delegation.jwt", token.encode(), content_type="application/jwt", retain=True)
        name = f"{base}{batch.first:012d}-{batch.last:012d}"
        public = _lines((_sequence(r), {f: r[f] for f in _PUBLIC_FIELDS}) for r in batch.rows)
        private = _lines((_sequence(r), _private(r)) for r in batch.rows)
        self._store.put_new(f"{name}{RECEIPTS}", public, content_type="application/jsonl", retain=True)
        self._store.put_new(f"{name}{PRIVATE}", private, content_type="application/x-ndjson")
        gaps = [*state.get("gaps", []), *([batch.gap] if batch.gap else [])][:MAX_GAPS_KEPT]
        count = int(state.get("count", 0)) + len(batch.rows)
        changes = {"collected": batch.last, "batch_last": None, "count": count, "gaps": gaps}
        decided = When(exists=True, equals={"collected": collected, "batch_last": batch.last})
        self._meta.transact([Update(key, changes, decided)])
        return {**state, **changes}

    def _close_if_due(self, state: Item, at: datetime) -> bool:
        if at.timestamp() <= int(state["exp"]) + CLOSE_AFTER.total_seconds():
            return False
        kid, last = str(state["kid"]), int(state["collected"])
        facts = {"last": last, "count": int(state.get("count", 0)), "gaps": list(state.get("gaps", []))}
        event = Event(
            kind="key.closed",
            subject=f"key/{kid}",
            sequence=1,
            at=at,
            principal=registry_principal("collect"),
            data={"kid": kid, "model": state["model"], "number": int(state["number"]), **facts},
        )
        self._meta.transact(
            [
                Delete(open_key(kid), When(exists=True, equals={"collected": last, "batch_last": None})),
                Update(delegation_key(kid), {"closed": timestamp(at), **facts}),
                outbox_put(event),
            ]
        )
        return True


def find_receipt(meta: MetaStore, store: ObjectStore, prediction_id: str) -> Item | None:
    """Return what is kept of a prediction, in the form of its row: from the row or, once expired, from its batch.

    Args:
        meta: the table.
        store: the model store.
        prediction_id: `<key ID>-<sequence>`.

    Raises:
        InvalidInputError: no prediction ID.
    """
    prediction = PredictionId.parse(prediction_id)
    row_key, delegated = receipt_key(prediction.kid, prediction.sequence), delegation_key(prediction.kid)
    found = meta.get_many([row_key, delegated])
    if row_key in found:
        return found[row_key]
    if delegated not in found:
        return None
    return find_collected(store, str(found[delegated]["folder"]), prediction)


def find_collected(store: ObjectStore, folder: str, prediction: PredictionId) -> Item | None:
    """Return what the batch objects hold of a prediction, in the form of its row, or None.

    Args:
        store: the model store.
        folder: the version's folder.
        prediction: the prediction.
    """
    base = f"{predictions_folder(folder)}{prediction.kid}/"
    places: dict[str, str] = {}
    for entry in store.list_versions(base):
        if not entry.is_delete_marker:
            places[entry.key] = entry.version_id  # newest first: what stays is the first, the one that was written here
    for key in places:
        match = _RANGE.fullmatch(key.removeprefix(base))
        if match is None or not int(match[1]) <= prediction.sequence <= int(match[2]):
            continue
        public = _read_line(store, key, places, prediction.sequence)
        if public is not None:
            private = _read_line(store, key.removesuffix(RECEIPTS) + PRIVATE, places, prediction.sequence)
            return {**_restored(private or {}), **public}
    return None


def _next_batch(state: Item, rows: list[Item]) -> _Batch:
    """Return the run of receipts without a gap that comes next, or the one that was decided on before."""
    first, expected = _sequence(rows[0]), int(state["collected"]) + 1
    decided = state.get("batch_last")
    taken: list[Item] = []
    size = 0
    for row in rows:
        size += len(row["receipt"]) + len(row.get("request") or "") + len(row.get("output") or "")
        if decided is not None and _sequence(row) > int(decided):
            break
        if decided is None and taken and (_sequence(row) != _sequence(taken[-1]) + 1 or size > MAX_BATCH_BYTES):
            break
        taken.append(row)
    gap = [expected, first - 1] if first > expected else None
    return _Batch(first, _sequence(taken[-1]), taken, gap)


def _sequence(row: Item) -> int:
    return int(str(row["sk"]).removeprefix("R#"))


def _private(row: Item) -> Item:
    kept = {k: v for k, v in row.items() if k not in _PUBLIC_FIELDS and k not in _ROW_FIELDS and v is not None}
    return {
        (f"{k}_base64" if isinstance(v, bytes) else k): (base64.b64encode(v).decode() if isinstance(v, bytes) else v)
        for k, v in kept.items()
    }


def _restored(line: Item) -> Item:
    return {k.removesuffix("_base64"): (base64.b64decode(v) if k.endswith("_base64") else v) for k, v in line.items()}


def _lines(entries: Iterable[tuple[int, Item]]) -> bytes:
    lines = [json.dumps({"sequence": n, **entry}, sort_keys=True, separators=(",", ":")) for n, entry in entries]
    return "".join(f"{line}\n" for line in lines).encode()


def _read_line(store: ObjectStore, key: str, places: Mapping[str, str], sequence: int) -> dict[str, Any] | None:
    if key not in places:
        return None
    for line in store.read(key, places[key], max_bytes=MAX_READ_BYTES).splitlines():
        entry: dict[str, Any] = json.loads(line)
        if entry.pop("sequence") == sequence:
            return entry
    return None
