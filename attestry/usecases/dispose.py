"""Dispose: delete what a version that is out of use has left, once its retention is over, and keep digests and proof.

Rules:
- An admin asks, an approver who is another person and did not submit the version confirms. Both are moves of the version. Each is refused
  while the version is in use, its retention runs, or a legal hold stands.
- What is deleted follows from what lies below the version's own folders (`attestry.domain.custody.is_payload`); no row names it. So no
  row that somebody changed leads to objects of other versions or to source data, and the function has no right to delete those.
- The confirmation counts by its attestation, signed with this function's own key: rows and outbox alone delete nothing.
- Objects go in lists of at most 500. A list is written, named by a move with its digest (`version.disposed`), and only then are its objects
  deleted: whatever crashes in between, what is gone stands in a list, and the next run deletes what is left of the last list first.
- Between a few deletions the head is read again: a legal hold stops what is under way.
- What a lock of S3 keeps is left, and said: once that is over, a disposal can be asked for anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, Final

from attestry.domain.custody import (
    CONFIRMED,
    CONFIRMERS,
    DISPOSED,
    ENDED,
    REQUESTED,
    REQUESTERS,
    custody_after,
    is_payload,
    require_confirmer,
    require_role,
    retention_over,
    version_prefix,
)
from attestry.domain.days import beginning_of
from attestry.domain.errors import AttestryError, ConditionFailedError, ConflictError, IntegrityError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal, registry_principal
from attestry.domain.stages import Standing
from attestry.domain.version import FileRef, Version
from attestry.evidence.digests import digest_stream, sha256_hex
from attestry.evidence.predicates import read_move
from attestry.ports import Item, ListedVersion
from attestry.usecases.custody import Attended, Keeper, custody_key, lock_objects, note_work, retention_of, settle_row
from attestry.usecases.disposed import list_key, read_list, write_list
from attestry.usecases.records import Move, load_version, move_writes, version_key

COMPONENT: Final = "disposal"
LIST_OBJECTS: Final = 500
LOOK: Final = 50
"""Deletions between two looks at whether a legal hold was placed."""

TRIES: Final = 8


class StoppedError(ConflictError):
    """A legal hold was placed, or the disposal is not one any more."""


def request_disposal(keeper: Keeper, model: str, number: int, *, by: Principal, reason: str, at: datetime) -> Attended:
    """Ask for the disposal of what a version has left; the same person asking again changes nothing.

    Raises:
        NotFoundError: no such version.
        ForbiddenError, UnprovenIdentityError: the caller acts in no role that may, or maps to no person.
        ConflictError: the version is in use, its retention runs, a legal hold stands, another disposal is under way, or others kept
            changing the version.
    """
    person = require_role("ask for the disposal of", REQUESTERS, by, f"{model}@{number}")
    for _ in range(TRIES):
        version = load_version(keeper.meta, model, number)
        facts = _require_disposable(keeper, version, at)
        if version.disposal.get("state") == "confirmed" or (_is_asked(version) and version.disposal["by"] == person):
            return Attended(version, changed=False)
        transition = version.transition + 1
        asked = {"state": "requested", "by": person, "reason": reason, "at": timestamp(at), "request": transition}
        move = Move(version.stage, version.status, version.standing, REQUESTED, by, reason, at, data=facts)
        try:
            keeper.meta.transact(move_writes(version, move, keeper.attestor, {"disposal": asked}))
        except ConditionFailedError:
            continue
        return Attended(load_version(keeper.meta, model, number))
    raise ConflictError(f"{model}@{number} is being changed by others; try again")


def confirm_disposal(keeper: Keeper, model: str, number: int, *, by: Principal, reason: str, at: datetime) -> Attended:
    """Confirm the disposal that somebody else has asked for; from here on objects are deleted.

    Raises:
        NotFoundError: no such version.
        ForbiddenError, UnprovenIdentityError: the caller acts in no role that may, maps to no person, asked for it or submitted it.
        ConflictError: nobody has asked, the version is in use, its retention runs, a legal hold stands, or others kept changing it.
    """
    person = require_role("confirm the disposal of", CONFIRMERS, by, f"{model}@{number}")
    for _ in range(TRIES):
        version = load_version(keeper.meta, model, number)
        _require_disposable(keeper, version, at)
        require_confirmer(person, version.disposal, version.submitter_person, version.reference)
        if version.disposal["state"] == "confirmed":
            return Attended(version, changed=False, complete=False)
        transition = version.transition + 1
        confirmed = {"state": "confirmed", "confirmed_by": person, "confirmed_at": timestamp(at), "confirmation": transition, "objects": 0}
        facts = {"requested_by": version.disposal["by"], "request": version.disposal["request"]}
        move = Move(version.stage, version.status, version.standing, CONFIRMED, by, reason, at, data=facts)
        changes = {"disposal": {**version.disposal, **confirmed}}
        try:
            work = note_work(version, transition, dispose=True)
            keeper.meta.transact([*move_writes(version, move, keeper.attestor, changes), work])
        except ConditionFailedError:
            continue
        return Attended(load_version(keeper.meta, model, number), complete=False)
    raise ConflictError(f"{model}@{number} is being changed by others; try again")


def attend(keeper: Keeper, row: Item, *, at: datetime, enough: Callable[[], bool]) -> Attended:
    """Do what a row of CUSTODY asks for, for as long as there is time: set locks, delete what was confirmed.

    Args:
        keeper: the ports.
        row: the row, see `attestry.usecases.custody`.
        at: the time.
        enough: whether to stop for now.

    Raises:
        ConflictError: what is asked for was changed meanwhile; the row is taken up again.
        IntegrityError: what was recorded does not bear out that anything may be deleted.
    """
    done = Attended(load_version(keeper.meta, str(row["model"]), int(row["number"])), changed=False)
    done.complete, done.locked = lock_objects(keeper, row, at=at, enough=enough)
    if done.complete and row.get("dispose"):
        _dispose(keeper, done, at, enough)
    if done.complete:
        settle_row(keeper, row, at=at)
    done.version = load_version(keeper.meta, str(row["model"]), int(row["number"]))
    return done


def attend_version(keeper: Keeper, model: str, number: int, *, at: datetime, enough: Callable[[], bool]) -> Attended:
    """Do what is to be done about the objects of one version; nothing where there is nothing."""
    row = keeper.meta.get(custody_key(model, number))
    return attend(keeper, row, at=at, enough=enough) if row else Attended(load_version(keeper.meta, model, number), changed=False)


def attend_all(keeper: Keeper, rows: list[Item], *, at: datetime, enough: Callable[[], bool]) -> tuple[list[str], list[str]]:
    """Attend to versions one after the other; return the references of those that are done, and a sentence for each that could not be."""
    done: list[str] = []
    errors: list[str] = []
    for row in rows:
        if enough():
            break
        try:
            if attend(keeper, row, at=at, enough=enough).complete:
                done.append(f"{row['model']}@{row['number']}")
        except AttestryError as error:
            errors.append(f"{row['model']}@{row['number']}: {error.message}")
    return done, errors


def _is_asked(version: Version) -> bool:
    return version.disposal.get("state") == "requested"


def _require_disposable(keeper: Keeper, version: Version, at: datetime) -> dict[str, Any]:
    """Return the facts about the retention that is over."""
    if version.legal_hold:
        told = f"{version.legal_hold['by']} since {version.legal_hold['at']}: {version.legal_hold['reason']}"
        raise ConflictError(f"{version.reference} is under the legal hold of {told}", details={"legal_hold": dict(version.legal_hold)})
    if version.standing is not Standing.RETIRED:
        raise ConflictError(f"{version.reference} stands {version.standing}; what is not killed or retired is not disposed")
    retention = retention_of(keeper.store, version)
    over = retention_over(retention, str(version.retirement["at"]))
    if beginning_of(over) > at:
        name = f"the retention class {retention.name}" if retention else "no class"
        raise ConflictError(f"{version.reference} is retained until {over} by {name}", details={"retained_until": over})
    return {"retained_until": over, "retention": retention.name if retention else ""}


def _dispose(keeper: Keeper, done: Attended, at: datetime, enough: Callable[[], bool]) -> None:
    version = done.version
    if version.disposal.get("state") != "confirmed":
        return
    confirmation = _require_confirmed(keeper, version)
    _require_disposable(keeper, version, at)
    facts = {name: version.disposal[name] for name in ("confirmed_by", "confirmation")} | {"requested_by": version.disposal["by"]}
    begun = [t for t in _moves(keeper, version) if t["kind"] == DISPOSED and int(t["number"]) > int(confirmation["number"])]
    if begun:
        done.disposed += _delete(keeper, version, read_list(keeper.store, version.reference, begun[-1]))
    payload = (
        entry
        for entry in keeper.store.list_versions(version_prefix(version.model, version.number))
        if not entry.is_delete_marker and is_payload(entry.key, version.model, version.number)
    )
    free = _free(keeper, payload, done, timestamp(at))
    while named := list(islice(free, LIST_OBJECTS)):
        _record_list(keeper, version, named, facts, at)
        done.disposed += _delete(keeper, version, named)
        if enough():
            done.complete = False
            return
    _end(keeper, version, done, facts, at)


def _free(keeper: Keeper, payload: Iterator[ListedVersion], done: Attended, now: str) -> Iterator[FileRef]:
    """Yield what no lock keeps, digested; count what is left."""
    for entry in payload:
        lock = keeper.objects.lock_of(entry.key, entry.version_id)
        if lock is None:
            continue
        if lock.legal_hold or lock.retained_until > now:
            done.left += 1
            day = lock.retained_until[:10]
            done.left_until = min(filter(None, (done.left_until, day)), default="")
            continue
        sha256 = lock.sha256
        if not sha256:
            with keeper.store.open(entry.key, entry.version_id) as stream:
                sha256 = digest_stream(stream).sha256
        yield FileRef(entry.key, entry.key, entry.version_id, entry.size, sha256)


def _record_list(keeper: Keeper, version: Version, named: list[FileRef], facts: Item, at: datetime) -> None:
    document = write_list(version, named)
    for _ in range(TRIES):
        current = _require_going_on(keeper, version)
        kept = keeper.store.put_new(list_key(current.folder, sha256_hex(document)), document, content_type="application/json", retain=True)
        told = {**facts, "objects": len(named), "bytes": sum(o.size for o in named), "list": kept.key, "list_version": kept.version_id}
        move = Move(
            current.stage,
            current.status,
            current.standing,
            DISPOSED,
            registry_principal(COMPONENT),
            str(current.disposal["reason"]),
            at,
            evidence=kept.sha256,
            data=told,
        )
        disposal = {**current.disposal, "objects": int(current.disposal["objects"]) + len(named)}
        try:
            keeper.meta.transact(move_writes(current, move, keeper.attestor, {"disposal": disposal}))
        except ConditionFailedError:
            continue
        return
    raise ConflictError(f"{version.reference} is being changed by others; try again")


def _delete(keeper: Keeper, version: Version, named: list[FileRef]) -> int:
    deleted = 0
    for index, file in enumerate(named):
        if index % LOOK == 0:
            _require_going_on(keeper, version)
        if not is_payload(file.key, version.model, version.number):
            raise IntegrityError(f"{file.key} stands in a list of {version.reference}, and is not what is disposed of it")
        deleted += keeper.objects.delete_version(file.key, file.version_id)
    return deleted


def _end(keeper: Keeper, version: Version, done: Attended, facts: Item, at: datetime) -> None:
    for _ in range(TRIES):
        current = _require_going_on(keeper, version)
        left = {"left": done.left, "left_until": done.left_until}
        told = {**facts, "objects": int(current.disposal["objects"]), **left}
        by, reason = registry_principal(COMPONENT), str(current.disposal["reason"])
        move = Move(current.stage, current.status, current.standing, ENDED, by, reason, at, data=told)
        disposal = {**current.disposal, "state": "ended", "ended_at": timestamp(at), **left}
        try:
            keeper.meta.transact(move_writes(current, move, keeper.attestor, {"disposal": disposal}))
        except ConditionFailedError:
            continue
        return
    raise ConflictError(f"{version.reference} is being changed by others; try again")


def _require_going_on(keeper: Keeper, version: Version) -> Version:
    """Return the version as it is, of which the confirmed disposal still stands."""
    current = load_version(keeper.meta, version.model, version.number)
    same = current.disposal.get("confirmation") == version.disposal["confirmation"] and current.disposal.get("state") == "confirmed"
    if current.legal_hold or not same:
        raise StoppedError(f"the disposal of {version.reference} was stopped")
    return current


def _require_confirmed(keeper: Keeper, version: Version) -> Item:
    """Return the move that confirmed the disposal, as its attestation bears it out.

    Raises:
        IntegrityError: the rows do not agree, or this function never signed it.
    """
    moves = _moves(keeper, version)
    if dict(custody_after(moves).disposal) != dict(version.disposal) or custody_after(moves).legal_hold:
        raise IntegrityError(f"the moves of {version.reference} do not say that its disposal was confirmed")
    row = next(t for t in moves if int(t["number"]) == int(version.disposal["confirmation"]))
    named = row["attestation"]
    told, _ = read_move(keeper.attestor.open_own(str(named["sha256"]), str(named["key"]), str(named["version_id"])))
    said = (told["model"], told["number"], told["kind"], told["transition"], told["version_digest"])
    if said != (version.model, version.number, CONFIRMED, int(row["number"]), version.version_digest):
        raise IntegrityError(f"the attestation that move {row['number']} of {version.reference} names is of another move")
    people = (told["data"]["requested_by"], told["principal"]["person"])
    if people != (version.disposal["by"], version.disposal["confirmed_by"]) or people[0] == people[1]:
        raise IntegrityError(f"the confirmation of the disposal of {version.reference} names other persons than the rows")
    return row


def _moves(keeper: Keeper, version: Version) -> list[Item]:
    return keeper.meta.query(version_key(version.model, version.number).partition, prefix="TRANSITION#")
