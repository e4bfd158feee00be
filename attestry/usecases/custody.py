"""Custody: legal holds on what a version left, and the locks that its retention class asks for.

CUSTODY/<model>@<9 digits>     model, number, hold (`ON`, `OFF` or none), retain, dispose, after, passed, serial

Rules:
- A legal hold is a move of the version, in one transaction with the row by which the locks of its objects follow. From that moment on the
  registry disposes nothing of the version; S3 refuses as well, object by object, as far as the locks have come.
- Locks are set in one pass over the version's objects, which goes on behind the key that it came to. It takes up again where somebody
  changes what is to be set, because the row counts that (`serial`).
- While a hold stands, the pass is repeated every day: a version that serves goes on writing.
- The lock of a retention class begins when the version goes out of use (`attestry.usecases.revoke` leaves the row). It is never shorter or
  weaker than the one that an object has, and leaves out what may have to be erased for the sake of a person.
- What the class is, is read from the manifest whose digest the candidate is, not from the head of the version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from attestry.domain.custody import (
    LIFTED,
    LIFTERS,
    PLACED,
    PLACERS,
    is_erasable,
    require_role,
    retention_over,
    version_prefix,
)
from attestry.domain.days import beginning_of
from attestry.domain.errors import ConditionFailedError, ConflictError, ForbiddenError, IntegrityError
from attestry.domain.events import timestamp
from attestry.domain.manifest_record import Manifest
from attestry.domain.manifest_sections import Retention
from attestry.domain.principal import Principal
from attestry.domain.stages import Standing
from attestry.domain.version import Version
from attestry.evidence.digests import sha256_hex
from attestry.ports import Delete, Item, Key, MetaStore, ObjectCustody, ObjectStore, Update, When, Write
from attestry.usecases.attest import Attestor
from attestry.usecases.records import Move, load_version, move_writes

CUSTODY: Final = "CUSTODY"
TRIES: Final = 8
STEP: Final = 100
"""Objects between two notes of how far a pass came."""

AGAIN: Final = timedelta(hours=24)
MAX_DUE: Final = 25


@dataclass(frozen=True)
class Keeper:
    """What it takes to keep and to dispose.

    Attributes:
        meta: the table.
        store: the model store.
        objects: the locks of its objects.
        attestor: signs with the acting function's key.
    """

    meta: MetaStore
    store: ObjectStore
    objects: ObjectCustody
    attestor: Attestor


@dataclass
class Attended:
    """What was done about a version's objects.

    Attributes:
        version: the version after it.
        changed: whether a move was made.
        complete: whether nothing is left to do for now.
        locked: locks that were set.
        disposed: objects that were deleted.
        left: objects that a lock keeps for now.
        left_until: the day on which the first of them may go; empty where none is left.
    """

    version: Version
    changed: bool = True
    complete: bool = True
    locked: int = 0
    disposed: int = 0
    left: int = 0
    left_until: str = field(default="")


def custody_key(model: str, number: int) -> Key:
    """Return the key of the row that says what is to be done about the objects of a version."""
    return Key(CUSTODY, f"{model}@{number:09d}")


def note_work(version: Version, serial: int, **work: Any) -> Update:
    """Return the write that has the objects of a version attended to, from the beginning.

    Args:
        version: the version.
        serial: number of the transition that it is due to.
        work: `hold`, `retain`, `dispose`.
    """
    told = {"model": version.model, "number": version.number, **work, "after": "", "passed": "", "serial": serial}
    return Update(custody_key(version.model, version.number), told, When())


def place_legal_hold(keeper: Keeper, model: str, number: int, *, by: Principal, reason: str, at: datetime) -> Attended:
    """Have nothing of a version disposed until the hold is lifted; one that stands stays as it is. It ends a disposal that is under way.

    Raises:
        NotFoundError: no such version.
        ForbiddenError, UnprovenIdentityError: the caller acts in no role that may, or maps to no person.
        ConflictError: others kept changing the version.
    """
    person = require_role("place a legal hold on", PLACERS, by, f"{model}@{number}")

    def writes(version: Version) -> list[Write] | None:
        if version.legal_hold:
            return None
        stopped: Item = {} if version.disposal.get("state") == "ended" else {"disposal": {}}
        changes = {"legal_hold": {"by": person, "reason": reason, "at": timestamp(at)}, **stopped}
        moved = move_writes(version, _still(version, PLACED, by, reason, at), keeper.attestor, changes)
        return [*moved, note_work(version, version.transition + 1, hold="ON", dispose=False)]

    return _act(keeper, model, number, writes)


def lift_legal_hold(keeper: Keeper, model: str, number: int, *, by: Principal, reason: str, at: datetime) -> Attended:
    """End a legal hold; where none stands, nothing is done.

    Raises:
        NotFoundError: no such version.
        ForbiddenError, UnprovenIdentityError: the caller acts in no role that may, maps to no person, or submitted the version.
        ConflictError: others kept changing the version.
    """
    person = require_role("lift the legal hold of", LIFTERS, by, f"{model}@{number}")

    def writes(version: Version) -> list[Write] | None:
        if not version.legal_hold:
            return None
        if person == version.submitter_person:
            raise ForbiddenError(f"{person} submitted {version.reference}; another person lifts its legal hold")
        facts = {"placed_by": version.legal_hold["by"], "placed_at": version.legal_hold["at"]}
        moved = move_writes(version, _still(version, LIFTED, by, reason, at, facts), keeper.attestor, {"legal_hold": {}})
        return [*moved, note_work(version, version.transition + 1, hold="OFF")]

    return _act(keeper, model, number, writes)


def due_custody(meta: MetaStore, at: datetime, *, limit: int = MAX_DUE) -> list[Item]:
    """Return the rows of versions whose objects are to be attended to."""
    before = timestamp(at - AGAIN)
    return [row for row in meta.query(CUSTODY) if row.get("dispose") or str(row.get("passed") or "") < before][:limit]


def lock_objects(keeper: Keeper, row: Item, *, at: datetime, enough: Callable[[], bool]) -> tuple[bool, int]:
    """Set the locks that a row asks for on every object of its version, in one pass that goes on where it stopped.

    Args:
        keeper: the ports.
        row: the row, see the module.
        at: the time.
        enough: whether to stop for now.

    Returns:
        Whether the pass came to its end, and how many locks were set.

    Raises:
        ConflictError: what is to be set was changed meanwhile.
        IntegrityError: the manifest is not that of the candidate.
    """
    model, number = str(row["model"]), int(row["number"])
    version = load_version(keeper.meta, model, number)
    hold = bool(version.legal_hold) if row.get("hold") else None
    retain = _lock_of_class(keeper, version, at) if row.get("retain") else None
    if hold is None and retain is None:
        return True, 0
    after, done, key = str(row.get("after") or ""), 0, ""
    for entry in keeper.store.list_versions(version_prefix(model, number)):
        if entry.is_delete_marker or entry.key <= after:
            continue
        if entry.key != key and done and done % STEP == 0:
            _note_progress(keeper.meta, row, {"after": key})
            if enough():
                return False, done
        key, done = entry.key, done + 1
        if hold is not None:
            keeper.objects.set_legal_hold(entry.key, entry.version_id, on=hold)
        if retain is not None and not is_erasable(entry.key, model, number):
            _retain(keeper.objects, entry.key, entry.version_id, *retain)
    return True, done


def settle_row(keeper: Keeper, row: Item, *, at: datetime) -> None:
    """Note that the locks are set: the row of a hold that stands is taken up again in a day, every other one goes.

    Raises:
        ConflictError: what is to be set was changed meanwhile.
    """
    key, unchanged = custody_key(str(row["model"]), int(row["number"])), When(exists=True, equals={"serial": row["serial"]})
    stays = row.get("hold") == "ON"
    write = Update(key, {"after": "", "passed": timestamp(at), "retain": False}, unchanged) if stays else Delete(key, unchanged)
    try:
        keeper.meta.transact([write])
    except ConditionFailedError as error:
        raise ConflictError(f"{row['model']}@{row['number']} was changed while its objects were locked; it is gone on with") from error


def retention_of(store: ObjectStore, version: Version) -> Retention | None:
    """Return the retention class that the manifest of a version names; None where it names none.

    Raises:
        NotFoundError: the manifest is not there.
        IntegrityError: it is not that of the candidate.
    """
    if version.imported:
        return None  # What was made elsewhere has no manifest that could name one.
    data = store.read(version.manifest.key, version.manifest.version_id, max_bytes=version.manifest.size)
    if sha256_hex(data) != version.candidate:
        raise IntegrityError(f"the manifest of {version.reference} is not the one of its candidate")
    return Manifest.from_mapping(json.loads(data)).retention


def _lock_of_class(keeper: Keeper, version: Version, at: datetime) -> tuple[str, datetime] | None:
    if version.standing is not Standing.RETIRED:
        return None
    retention = retention_of(keeper.store, version)
    if retention is None:
        return None
    until = beginning_of(retention_over(retention, str(version.retirement["at"])))
    return (retention.mode.upper(), until) if until > at else None


def _retain(objects: ObjectCustody, key: str, version_id: str, mode: str, until: datetime) -> None:
    lock = objects.lock_of(key, version_id)
    if lock is None:
        return
    stronger = "COMPLIANCE" if "COMPLIANCE" in (mode, lock.mode) else mode
    if lock.retained_until < timestamp(until) or lock.mode != stronger:
        objects.retain(key, version_id, mode=stronger, until=max(until, _time(lock.retained_until) or until))


def _time(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _note_progress(meta: MetaStore, row: Item, changes: Item) -> None:
    key = custody_key(str(row["model"]), int(row["number"]))
    try:
        meta.transact([Update(key, changes, When(exists=True, equals={"serial": row["serial"]}))])
    except ConditionFailedError as error:
        raise ConflictError(f"{row['model']}@{row['number']} was changed while its objects were locked; it is gone on with") from error


def _still(version: Version, kind: str, by: Principal, reason: str, at: datetime, data: Item | None = None) -> Move:
    return Move(version.stage, version.status, version.standing, kind, by, reason, at, data=data or {})


def _act(keeper: Keeper, model: str, number: int, writes: Callable[[Version], list[Write] | None]) -> Attended:
    for _ in range(TRIES):
        version = load_version(keeper.meta, model, number)
        made = writes(version)
        if made is None:
            return Attended(version, changed=False)
        try:
            keeper.meta.transact(made)
        except ConditionFailedError:
            continue
        return Attended(load_version(keeper.meta, model, number))
    raise ConflictError(f"{model}@{number} is being changed by others; try again")
