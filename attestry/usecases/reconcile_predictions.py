"""Reconcile predictions: archived receipts with their seals, and what was sealed with what the gateway says it answered.

Rules:
- Each batch object of a key has its seal in the ledger, lies on top as it was written, and holds exactly what was sealed; each seal has
  its batch. A closed key has the seals that its closing tells of.
- The gateway counts by itself. Of one day, it may not have answered more predictions with success than receipts were sealed. More receipts
  than answers are in order: processes of others sign without the gateway, and an answer can be lost after its receipt.
- Where the gateway's count is not to be had, that is said; it is never taken for equal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Protocol

from attestry.domain.errors import AttestryError, IntegrityError
from attestry.domain.stages import Standing
from attestry.evidence.leaf import event_id
from attestry.evidence.seal import CLOSED, SEALED, Closing, Seal, verify_batch, verify_closing
from attestry.ports import Item, Key, MetaStore, ObjectStore
from attestry.usecases.collect import MAX_READ_BYTES
from attestry.usecases.findings import Observed
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.reconcile_objects import compare_objects
from attestry.usecases.sign import delegation_key, predictions_folder

NOT_AVAILABLE: Final = "not available"
COVERED, UNSEALED = "every answer has its receipt", "answers without receipts"

_RANGE = re.compile(r"([0-9]{12})-([0-9]{12})\.jsonl")


class GatewayCounts(Protocol):
    """What the gateway counted, by itself."""

    def answered(self, day: date) -> int | None:
        """Return how many predictions it answered with success on a day (UTC), or None where it does not say.

        Raises:
            UnavailableError: it did not answer.
        """


@dataclass(frozen=True)
class DayCount:
    """The predictions of one day.

    Attributes:
        day: the day, UTC.
        sealed: sealed receipts by model.
        answered: what the gateway answered with success, of all models; None where it does not say.
    """

    day: date
    sealed: Mapping[str, int]
    answered: int | None

    @property
    def outcome(self) -> str:
        """Return what the comparison says."""
        if self.answered is None:
            return NOT_AVAILABLE
        return COVERED if self.answered <= sum(self.sealed.values()) else UNSEALED

    def to_item(self) -> Item:
        """Return the day as it is kept."""
        counts = {"sealed": dict(self.sealed), "receipts": sum(self.sealed.values()), "answered": self.answered}
        return {"day": self.day.isoformat(), **counts, "outcome": self.outcome}


def count_day(meta: MetaStore, gateway: GatewayCounts, day: date) -> DayCount:
    """Return the counts of a day."""
    sealed: Counter[str] = Counter()
    for row in meta.query(f"SEALED#{day.isoformat()}"):
        if row.get("standing") != Standing.SHADOW.value:  # nobody was given what a shadow predicts
            sealed[str(row["model"])] += int(row["count"])
    return DayCount(day, dict(sealed), gateway.answered(day))


def examine_day(counted: DayCount) -> list[Observed]:
    """Return whether answers have gone out without receipts."""
    if counted.outcome != UNSEALED:
        return []
    found = f"{sum(counted.sealed.values())} receipts for {counted.answered} answers"
    return [Observed("predictions.unsealed", f"predictions of {counted.day.isoformat()}", "a receipt for every answer", found)]


class KeyExaminer:
    """Examines the archived receipts of keys.

    Args:
        meta: the table.
        store: the model store.
        ledger: what the ledger says.
    """

    def __init__(self, meta: MetaStore, store: ObjectStore, ledger: LedgerBytes) -> None:
        self._meta = meta
        self._store = store
        self._ledger = ledger

    def keys_of(self, model: str, number: int) -> list[str]:
        """Return the IDs of the keys that signed for a version."""
        return [str(row["kid"]) for row in self._meta.list_collection(f"VERSION_KEYS#{model}#{number}")]

    def examine(self, kid: str) -> list[Observed]:
        """Return what is not as the registry left it, of what has entered the ledger.

        Raises:
            UnavailableError: a service did not answer.
        """
        row = self._meta.get(delegation_key(kid))
        if row is None:
            return []
        where = f"{delegation_key(kid).partition}/DELEGATION"
        delegated = self._ledger.find([event_id("key.delegated", f"key/{kid}", 1)])
        for leaf in delegated.values():
            told = {name: leaf.event["data"].get(name) for name in ("kid", "environment", "capture_rate")}
            if told != {name: row.get(name) for name in told}:
                return [Observed("delegation.changed", where, str(told), str({name: row.get(name) for name in told}))]
        base = f"{predictions_folder(str(row['folder']))}{kid}/"
        seals = self._seals(kid, base)
        observed = list(self._batches(base, seals))
        closed = self._ledger.find([event_id(CLOSED, f"key/{kid}", 1)])
        for leaf in closed.values():
            try:
                verify_closing(Closing.from_event(leaf.event), list(seals.values()))
            except IntegrityError as error:
                if not observed:
                    observed.append(Observed("seals.incomplete", where, "the seals that the closing tells of", error.message))
        return observed

    def _seals(self, kid: str, base: str) -> dict[str, Seal]:
        """Return the seals of a key by the objects that they name: those that objects lead to, and those that follow one another."""
        firsts = {1}
        for entry in self._store.list_versions(base):
            match = _RANGE.fullmatch(entry.key.removeprefix(base))
            if match:
                firsts |= {int(match[1]), int(match[2]) + 1}
        seals: dict[str, Seal] = {}
        looked: set[int] = set()
        while firsts - looked:
            ids = {event_id(SEALED, f"key/{kid}", first): first for first in firsts - looked}
            looked |= set(ids.values())
            for leaf in self._ledger.find(list(ids)).values():
                seal = Seal.from_event(leaf.event)
                seals[seal.object] = seal
                firsts.add(seal.last + 1)
        return seals

    def _batches(self, base: str, seals: Mapping[str, Seal]) -> Iterable[Observed]:
        written: dict[str, str] = {}
        for entry in self._store.list_versions(base):
            if not entry.is_delete_marker and _RANGE.fullmatch(entry.key.removeprefix(base)):
                written[entry.key] = entry.version_id  # newest first: what stays was written first
        recorded = {key: at for key, at in written.items() if key in seals}
        yield from compare_objects(self._store, base, {**dict.fromkeys(seals.keys() - written.keys(), ""), **recorded})
        for key, seal in seals.items():
            if key in recorded:
                try:
                    verify_batch(self._store.read(key, recorded[key], max_bytes=MAX_READ_BYTES), seal)
                except AttestryError as error:
                    yield Observed("receipts.changed", key, f"the receipts sealed under {seal.root.hex()}", error.message)
        for key in sorted(written.keys() - seals.keys()):
            if not self._is_fresh(base, key):
                yield Observed("receipts.unsealed", key, "a seal in the ledger", "none")

    def _is_fresh(self, base: str, key: str) -> bool:
        """Return whether the batch is being sealed, or its seal is on its way into the ledger."""
        kid = base.rstrip("/").rpartition("/")[2]
        match = _RANGE.fullmatch(key.removeprefix(base))
        if match is None:
            return False
        first, last = int(match[1]), int(match[2])
        state = self._meta.get(Key("KEYS", kid))
        if state and (state.get("batch_first"), state.get("batch_last")) == (first, last):
            return True
        wanted = event_id(SEALED, f"key/{kid}", first)[:32]
        waiting: list[dict[str, Any]] = self._meta.query("OUTBOX")
        return any(str(row["sk"]).endswith(f"#{wanted}") for row in waiting)
