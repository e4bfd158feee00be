"""Collect: move receipts and captured payloads from their expiring rows into batch objects in the version's folder, and seal each batch.

For each key there are, below `<version folder>/predictions/<key ID>/`:

- `delegation.jwt`: the delegation;
- `<first>-<last>.jsonl`: the receipts of a range of sequence numbers, an object per line: `sequence`, `at`, `receipt`;
- `<first>-<last>.private.ndjson`: what may have to be erased one day: salt, principal, captured request and output. It is not locked, and
  its name is one that the store's policy lets be deleted.

Rules:
- A batch is decided by a conditional write before its objects are written, and counted by another one after; whoever
  goes on after a crash writes the same objects with the same bytes. Of two collectors on one key one steps back.
- The transaction that counts a batch holds its seal, the event `key.sealed`: there is no batch without a seal, and none twice.
- Rows are immutable, and a key's receipts become durable in sequence, so what lies behind `collected` is complete.
- What a version stands as, or that it was killed, makes no difference: what was signed is sealed.
- A key is closed once nothing more can be acknowledged under it; its last number and its seals are then an event, and what it left over of
  the predictions that an approval allows is free again (`attestry.usecases.conditions`).
- A gap in the sequence is passed over, kept on record and reported, never hidden. So are rows that somebody deletes after their batch was
  decided: the batch goes on from its object where that is written, and else without them.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from attestry.domain.errors import AttestryError, ConditionFailedError, IntegrityError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import registry_principal
from attestry.evidence.digests import sha256_hex
from attestry.evidence.prediction_id import PredictionId
from attestry.evidence.seal import CLOSED, MAX_RECEIPTS, SEALED, Closing, Seal, batch_line, parse_batch, seal_root
from attestry.ports import Clock, Delete, Item, Key, MetaStore, ObjectStore, StoredObject, Update, When
from attestry.usecases.conditions import take_back
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

MAX_BATCH_RECEIPTS = MAX_RECEIPTS
MAX_BATCH_BYTES = 32 << 20
PAGE_ROWS = 500
"""Rows that are read at a time: a batch is cut at its bytes before much more than it is in memory."""

MAX_READ_BYTES = 4 * MAX_BATCH_BYTES
MAX_GAPS_KEPT = 20
RECEIPTS, PRIVATE = ".jsonl", ".private.ndjson"

_DAY = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]")
_RANGE = re.compile(r"([0-9]{12})-([0-9]{12})\.jsonl")
_PUBLIC_FIELDS = frozenset({"receipt", "at"})
_UNDECIDED: Item = {"batch_first": None, "batch_last": None}
_ROW_FIELDS = frozenset({"pk", "sk", "expires"})


@dataclass(frozen=True)
class Collected:
    """What a run of the collector did.

    Attributes:
        keys: open keys that were looked at.
        receipts: receipts that were moved and sealed.
        seals: seals that were made.
        closed: keys that were closed.
        gaps: gaps in sequences that were met.
        contended: keys that another collector was at work on.
        errors: one sentence for each key that could not be dealt with.
        finished: False when the time was up before all keys were looked at.
    """

    keys: int = 0
    receipts: int = 0
    seals: int = 0
    closed: int = 0
    gaps: int = 0
    contended: int = 0
    errors: tuple[str, ...] = ()
    finished: bool = True


@dataclass
class _Tally:
    """What has been done so far; it stands when a later step fails."""

    receipts: int = 0
    seals: int = 0
    closed: int = 0
    gaps: int = 0


@dataclass(frozen=True)
class _Batch:
    """Rows of receipts whose numbers follow one another."""

    rows: Sequence[Item]

    @property
    def first(self) -> int:
        return _sequence(self.rows[0])

    @property
    def last(self) -> int:
        return _sequence(self.rows[-1])


@dataclass(frozen=True)
class _Counts:
    """Of a batch: payloads that were captured, and receipts by the day (UTC) on which they were signed."""

    captured: int
    days: Counter[str]


class Collector:
    """Collects and seals the receipts of all open keys."""

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
        return Collected(keys, done.receipts, done.seals, done.closed, done.gaps, contended, tuple(errors), finished)

    def _collect_key(self, state: Item, end: float, done: _Tally) -> None:
        while True:
            at = self._clock.now()
            batch = self._read_batch(state)
            if state.get("batch_last") is not None and (batch is None or (batch.first, batch.last) != _decided(state)):
                state = self._go_on_without_rows(state, batch, at, done)
                continue
            if batch is None:
                done.closed += self._close_if_due(state, at)
                return
            # Counted before the move, whose answer may be lost: the next run would find the gap behind it.
            done.gaps += batch.first > int(state["collected"]) + 1
            state = self._move(state, batch, at)
            done.receipts += len(batch.rows)
            done.seals += 1
            if self._monotonic() >= end:
                return

    def _read_batch(self, state: Item) -> _Batch | None:
        """Return the run of receipts that comes next, or the one that was decided on before; None where there is none."""
        decided = state.get("batch_last")
        most = MAX_BATCH_RECEIPTS if decided is None else int(decided) - int(state["batch_first"]) + 1
        taken: list[Item] = []
        size, after = 0, int(state["collected"])
        while True:
            rows = self._meta.query(f"KEY#{state['kid']}", after=receipt_key(state["kid"], after).sort, limit=PAGE_ROWS)
            for row in rows:
                size += len(row["receipt"]) + len(row.get("request") or "") + len(row.get("output") or "")
                too_large = decided is None and size > MAX_BATCH_BYTES
                if taken and (len(taken) == most or too_large or _sequence(row) != _sequence(taken[-1]) + 1):
                    return _Batch(taken)
                taken.append(row)
            if len(rows) < PAGE_ROWS:
                return _Batch(taken) if taken else None
            after = _sequence(rows[-1])

    def _move(self, state: Item, batch: _Batch, at: datetime) -> Item:
        """Write the objects of one batch, seal it, and return the state after it."""
        kid, collected = str(state["kid"]), int(state["collected"])
        if state.get("batch_last") is None:
            undecided = When(exists=True, equals={"collected": collected, "batch_last": None})
            self._meta.transact([Update(open_key(kid), {"batch_first": batch.first, "batch_last": batch.last}, undecided)])
        base = f"{predictions_folder(state['folder'])}{kid}/"
        if collected == 0:
            token = str((self._meta.get(delegation_key(kid)) or {})["delegation"])
            self._store.put_new(f"{base}delegation.jwt", token.encode(), content_type="application/jwt", retain=True)
        name = f"{base}{batch.first:012d}-{batch.last:012d}"
        numbered = list(enumerate(batch.rows, start=batch.first))
        public = "".join([batch_line(n, row["at"], row["receipt"]) for n, row in numbered])
        private = "".join([_private_line(n, row) for n, row in numbered])
        stored = self._store.put_new(f"{name}{RECEIPTS}", public.encode(), content_type="application/jsonl", retain=True)
        self._store.put_new(f"{name}{PRIVATE}", private.encode(), content_type="application/x-ndjson")
        receipts = [str(row["receipt"]).encode() for row in batch.rows]
        captured = sum(row.get("captured") is True for row in batch.rows)
        days = Counter(_day(row["at"], at) for row in batch.rows)
        return self._seal(state, batch.first, receipts, _Counts(captured, days), stored, at)

    def _go_on_without_rows(self, state: Item, batch: _Batch | None, at: datetime, done: _Tally) -> Item:
        """Go on where rows of a decided batch are gone: seal the batch's object if it is written, or else decide anew."""
        first, last = _decided(state)
        name = f"{predictions_folder(state['folder'])}{state['kid']}/{first:012d}-{last:012d}{RECEIPTS}"
        version_id = _places(self._store, str(state["folder"]), str(state["kid"])).get(name)
        if version_id is None:
            decided = When(exists=True, equals={"collected": int(state["collected"]), "batch_last": last})
            self._meta.transact([Update(open_key(state["kid"]), _UNDECIDED, decided)])
            return {**state, **_UNDECIDED}
        raw = self._store.read(name, version_id, max_bytes=MAX_READ_BYTES)
        lines = parse_batch(raw)
        if [number for number, _ in lines] != list(range(first, last + 1)):
            raise IntegrityError(f"the batch {first} to {last} was decided; its rows are gone, and its object is not as it was written")
        captured = sum(row.get("captured") is True for row in batch.rows if _sequence(row) <= last) if batch else 0
        done.gaps += first > int(state["collected"]) + 1
        stored = StoredObject(name, version_id, len(raw), sha256_hex(raw))
        days = Counter({timestamp(at)[:10]: len(lines)})
        state = self._seal(state, first, [receipt for _, receipt in lines], _Counts(captured, days), stored, at)
        done.receipts += len(lines)
        done.seals += 1
        return state

    def _seal(self, state: Item, first: int, receipts: Sequence[bytes], counts: _Counts, stored: StoredObject, at: datetime) -> Item:
        kid, collected = str(state["kid"]), int(state["collected"])
        last = first + len(receipts) - 1
        model, number, root = str(state["model"]), int(state["number"]), seal_root(receipts)
        seal = Seal(kid, model, number, first, last, root, stored.key, stored.sha256, counts.captured)
        days = {**state.get("days", {})}
        for day, more in counts.days.items():
            days[day] = int(days.get(day, 0)) + more
        gap = [[collected + 1, first - 1]] if first > collected + 1 else []
        changes = {
            **_UNDECIDED,
            "collected": last,
            "count": int(state.get("count", 0)) + seal.count,
            "sealed": int(state.get("sealed", 0)) + 1,
            "gaps": [*state.get("gaps", []), *gap][:MAX_GAPS_KEPT],
            "days": days,
        }
        decided = When(exists=True, equals={"collected": collected, "batch_last": last})
        event = Event(SEALED, f"key/{kid}", first, at, registry_principal("collect"), seal.to_data())
        # Whole counts, not additions: the row is the same however often it is written.
        sealed = {"kid": kid, "model": model, "number": number, "standing": str(state.get("standing") or "DEPLOYED")}
        daily = [Update(sealed_key(day, model, kid), {**sealed, "count": days[day]}, When()) for day in counts.days]
        self._meta.transact([Update(open_key(kid), changes, decided), outbox_put(event), *daily])
        return {**state, **changes}

    def _close_if_due(self, state: Item, at: datetime) -> bool:
        if at.timestamp() <= int(state["exp"]) + CLOSE_AFTER.total_seconds():
            return False
        kid, last = str(state["kid"]), int(state["collected"])
        gaps = tuple((int(gap[0]), int(gap[1])) for gap in state.get("gaps", []))
        sums = int(state.get("count", 0)), gaps, int(state.get("sealed", 0))
        closing = Closing(kid, str(state["model"]), int(state["number"]), last, *sums).to_data()
        event = Event(CLOSED, f"key/{kid}", 1, at, registry_principal("collect"), closing)
        facts = {name: closing[name] for name in ("last", "count", "gaps", "sealed")}
        closed = Delete(open_key(kid), When(exists=True, equals={"collected": last, "batch_last": None}))
        kept = Update(delegation_key(kid), {"closed": timestamp(at), **facts})
        self._meta.transact([closed, kept, outbox_put(event), *take_back(self._meta, state, last, at)])
        return True


def sealed_key(day: str, model: str, kid: str) -> Key:
    """Return the key of the row that counts the sealed receipts of a key and a day (`YYYY-MM-DD`, UTC)."""
    return Key(f"SEALED#{day}", f"{model}#{kid}")


@dataclass(frozen=True)
class BatchPlace:
    """Where a batch of receipts lies.

    Attributes:
        key: object key.
        version_id: the version that was written first.
        first: number of its first receipt, which is the sequence of its seal's event.
        last: number of its last receipt.
    """

    key: str
    version_id: str
    first: int
    last: int


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
    places = _places(store, folder, prediction.kid)
    for batch in _batches(places, folder, prediction):
        public = _read_line(store, batch.key, places, prediction.sequence)
        if public is not None:
            private = _read_line(store, batch.key.removesuffix(RECEIPTS) + PRIVATE, places, prediction.sequence)
            return {**_restored(private or {}), **public}
    return None


def find_batches(store: ObjectStore, folder: str, prediction: PredictionId) -> list[BatchPlace]:
    """Return the batch objects whose range holds a prediction: one, unless somebody added objects around the registry."""
    return _batches(_places(store, folder, prediction.kid), folder, prediction)


def _places(store: ObjectStore, folder: str, kid: str) -> dict[str, str]:
    places: dict[str, str] = {}
    for entry in store.list_versions(f"{predictions_folder(folder)}{kid}/"):
        if not entry.is_delete_marker:
            places[entry.key] = entry.version_id  # newest first: what stays is the first, the one that was written here
    return places


def _batches(places: Mapping[str, str], folder: str, prediction: PredictionId) -> list[BatchPlace]:
    base = f"{predictions_folder(folder)}{prediction.kid}/"
    ranges = [(key, _RANGE.fullmatch(key.removeprefix(base))) for key in places]
    found = [BatchPlace(key, places[key], int(match[1]), int(match[2])) for key, match in ranges if match]
    return [batch for batch in found if batch.first <= prediction.sequence <= batch.last]


def _day(text: Any, at: datetime) -> str:
    """Return the day of a receipt's time; of a text that is none, today."""
    return str(text)[:10] if _DAY.fullmatch(str(text)[:10]) else timestamp(at)[:10]


def _decided(state: Item) -> tuple[int, int]:
    return int(state["batch_first"]), int(state["batch_last"])


def _sequence(row: Item) -> int:
    return int(str(row["sk"]).removeprefix("R#"))


def _private_line(sequence: int, row: Item) -> str:
    kept = {k: v for k, v in row.items() if k not in _PUBLIC_FIELDS and k not in _ROW_FIELDS and v is not None}
    texts = {k: v for k, v in kept.items() if not isinstance(v, bytes)}
    encoded = {f"{k}_base64": base64.b64encode(v).decode() for k, v in kept.items() if isinstance(v, bytes)}
    return _dump({**texts, **encoded, "sequence": sequence}) + "\n"


def _restored(line: Item) -> Item:
    return {k.removesuffix("_base64"): (base64.b64decode(v) if k.endswith("_base64") else v) for k, v in line.items()}


def _read_line(store: ObjectStore, key: str, places: Mapping[str, str], sequence: int) -> dict[str, Any] | None:
    if key not in places:
        return None
    wanted = f'"sequence":{sequence}'.encode()
    for line in store.read(key, places[key], max_bytes=MAX_READ_BYTES).splitlines():
        if wanted in line:
            entry: dict[str, Any] = json.loads(line)
            if entry.pop("sequence") == sequence:
                return entry
    return None


_dump = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
