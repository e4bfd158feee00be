"""Revoke: kill a version at once, or retire it, now or on a date.

Rules:
- Killed or retired is RETIRED: nothing deploys, rolls back to, approves, delegates to or loads the version any more, and it makes no move
  but from retired to killed (`attestry.usecases.records.move_writes`). Both acts are attested, and events of the ledger.
- The version and every pointer that names it change in one transaction. What stood deployed leaves a vacant pointer that still knows what
  is kept for rollback; what was kept for rollback is kept no more.
- Every prediction reads the pointer, and none leaves more than 5 seconds after its reading (`attestry.usecases.freshness`); no key is
  delegated to a version that does not stand DEPLOYED. So a killed version answers nothing later than 5 seconds after the kill.
- A version can be killed in any stage. A stage that runs ends FAILED; the pipeline stops at its next record.
- A date set for retirement binds: from 00:00 UTC of that day on nothing is delegated to the version or deployed, and the sweep retires it.
- What was signed before stays what it is: receipts are sealed, traced and verified as ever.
- A drill is a kill like any other, of a version that serves in an environment made for that. It is refused for one that stands in
  production in whatever place, or that stands nowhere, and its move says where it was drilled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from attestry.domain.days import is_day
from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError, NotFoundError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal, registry_principal
from attestry.domain.stages import Standing, Status
from attestry.domain.version import Version
from attestry.ports import ABSENT, Delete, Item, Key, MetaStore, Put, When, Write
from attestry.usecases.attest import Attestor
from attestry.usecases.custody import note_work
from attestry.usecases.expiry import RETIREMENTS, retirement_key
from attestry.usecases.pointer import KILLED, RETIRED, kept_in, named_in, number_in, vacate
from attestry.usecases.records import Move, load_version, model_key, move_writes
from attestry.usecases.rollout_places import forget_rollouts

SCHEDULED = "retirement.scheduled"
TRIES = 8
MAX_DUE = 25
PRODUCTION = "production"


@dataclass(frozen=True)
class Revocation:
    """The outcome of a kill or a retirement.

    Attributes:
        version: the version after it.
        vacated: environments in which it stood deployed, and nothing does since.
        rollback: what is kept for rollback there, by environment.
        changed: False when it had been done before.
    """

    version: Version
    vacated: tuple[str, ...] = ()
    rollback: tuple[tuple[str, int], ...] = ()
    changed: bool = True


def kill_version(
    meta: MetaStore, attestor: Attestor, model: str, number: int, *, reason: str, by: Principal, at: datetime, drill: bool = False
) -> Revocation:
    """Take a version out of use at once, in whatever stage it is; the same again changes nothing.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        model: the model's name.
        number: the version's number.
        reason: why, checked.
        by: who.
        at: the time.
        drill: only as a drill, see above.

    Raises:
        NotFoundError: no such version.
        ConflictError: others kept changing the version or its pointer; or it is no version that a drill may kill.
    """
    return _revoke(meta, attestor, model, number, KILLED, {}, reason=reason, by=by, at=at, drill=drill)


def retire_version(
    meta: MetaStore,
    attestor: Attestor,
    model: str,
    number: int,
    *,
    reason: str,
    by: Principal,
    at: datetime,
    on: date | None = None,
    even_if_deployed: bool = False,
) -> Revocation:
    """Take a version out of use, now or on a date; the same again changes nothing.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        model: the model's name.
        number: the version's number.
        reason: why, checked.
        by: who.
        at: the time.
        on: the first day, in UTC, on which it may not be used any more; None for now. A later call moves the date.
        even_if_deployed: retire it although it stands deployed.

    Raises:
        InvalidInputError: the date lies in the past.
        NotFoundError: no such version.
        ConflictError: it stands deployed and `even_if_deployed` is not set, it is out of use already, or others kept changing it.
    """
    today = at.astimezone(UTC).date()
    if on is not None and on < today:
        raise InvalidInputError.of("on", "future", f"{on.isoformat()} lies in the past; without a date the version is retired now")
    version = load_version(meta, model, number)
    later = on is not None and on > today
    if version.standing is Standing.DEPLOYED and not even_if_deployed:
        raise ConflictError(
            f"{version.reference} stands deployed: deploy another version first, or say that it is to be retired all the same"
        )
    if on is not None and later:
        return _schedule(meta, attestor, model, number, on, reason=reason, by=by, at=at)
    return _revoke(meta, attestor, model, number, RETIRED, {"on": today.isoformat()}, reason=reason, by=by, at=at)


def due_retirements(meta: MetaStore, at: datetime, *, limit: int = MAX_DUE) -> list[Item]:
    """Return the scheduled retirements whose day has come, the oldest first."""
    rows = meta.query(RETIREMENTS, limit=limit)
    return [row for row in rows if str(row["on"]) <= at.astimezone(UTC).date().isoformat()]


def retire_due(meta: MetaStore, attestor: Attestor, *, at: datetime) -> tuple[list[str], list[str]]:
    """Retire the versions whose day has come, as their schedules ask for.

    Returns:
        The references of what was retired, and a sentence for each that could not be.
    """
    retired: list[str] = []
    errors: list[str] = []
    for row in due_retirements(meta, at):
        reference = f"{row['model']}@{row['number']}"
        facts = {"on": str(row["on"]), "set_by": str(row["set_by"]), "set_at": str(row["set_at"])}
        by = registry_principal("retirement-schedule")
        try:
            if load_version(meta, str(row["model"]), int(row["number"])).retires_on != row["on"]:
                raise ConflictError("a retirement is scheduled that the version does not know of")
            _revoke(meta, attestor, str(row["model"]), int(row["number"]), RETIRED, facts, reason=str(row["reason"]), by=by, at=at)
            retired.append(reference)
        except (ConflictError, NotFoundError) as error:
            errors.append(f"{reference}: {error.message}")
    return retired, errors


def _revoke(
    meta: MetaStore,
    attestor: Attestor,
    model: str,
    number: int,
    kind: str,
    facts: dict[str, Any],
    *,
    reason: str,
    by: Principal,
    at: datetime,
    drill: bool = False,
) -> Revocation:
    for _ in range(TRIES):
        version = load_version(meta, model, number)
        pointers = meta.query(model_key(model).partition, prefix="POINTER#")
        if version.standing is Standing.RETIRED and version.retirement.get("kind") in (kind, KILLED):
            return Revocation(version, changed=False)
        vacated = [p for p in pointers if number_in(p) == number]
        named = [p for p in pointers if number in named_in(p)]
        data = {**facts, "vacated": [str(p["environment"]) for p in vacated]}
        if drill:
            data["drill"] = _drilled_in(version, pointers)
        writes = _out_of_use(version, attestor, kind, data, reason=reason, by=by, at=at)
        writes += [vacate(p, version, kind=kind, by=by, reason=reason, at=at) for p in named]
        writes += [w for p in named for w in forget_rollouts(p, number)]
        try:
            meta.transact(writes)
        except ConditionFailedError:
            continue
        rollback = tuple((str(p["environment"]), kept) for p in vacated if (kept := kept_in(p)) is not None and kept != number)
        return Revocation(load_version(meta, model, number), tuple(data["vacated"]), rollback)
    raise ConflictError(f"{model}@{number} is being changed by others; try again")


def _drilled_in(version: Version, pointers: Sequence[Item]) -> str:
    """Return the environment in which a version may be killed as a drill.

    Raises:
        ConflictError: it serves nowhere, or production knows it.
    """
    places = [str(p["environment"]) for p in pointers if number_in(p) == version.number]
    known = [str(p["environment"]) for p in pointers if version.number in named_in(p)]
    if PRODUCTION in known or version.deployment_environment == PRODUCTION:
        raise ConflictError(f"{version.reference} belongs to {PRODUCTION}, and a drill takes nothing out of use there")
    if not places:
        raise ConflictError(f"{version.reference} stands {version.standing}; a drill needs a version that stands deployed and answers")
    return places[0]


def _out_of_use(
    version: Version, attestor: Attestor, kind: str, data: dict[str, Any], *, reason: str, by: Principal, at: datetime
) -> list[Write]:
    who = by.person or by.login
    status = Status.FAILED if version.status is Status.RUNNING else version.status
    move = Move(version.stage, status, Standing.RETIRED, kind, by, reason, at, data=data)
    changes: Item = {"retirement": {"kind": kind, "by": who, "reason": reason, "at": timestamp(at)}, "retires_on": ""}
    if status is not version.status:
        changes["error"] = f"{'killed' if kind == KILLED else 'retired'} by {who}: {reason}"
    # The locks of its retention class begin here; what class that is, the manifest says.
    writes = [*move_writes(version, move, attestor, changes), note_work(version, version.transition + 1, retain=True)]
    if version.retires_on:
        writes.append(Delete(_retirement_key(version), When()))
    return writes


def _schedule(
    meta: MetaStore, attestor: Attestor, model: str, number: int, on: date, *, reason: str, by: Principal, at: datetime
) -> Revocation:
    day = on.isoformat()
    for _ in range(TRIES):
        version = load_version(meta, model, number)
        if version.standing is Standing.RETIRED:
            raise ConflictError(f"{version.reference} was {version.out_of_use}")
        if version.retires_on == day:
            return Revocation(version, changed=False)
        if is_day(version.expires) and day > version.expires:
            raise ConflictError(f"the manifest of {version.reference} ends it on {version.expires}; a later end needs another version")
        facts = {"on": day, "before": version.retires_on}
        move = Move(version.stage, version.status, version.standing, SCHEDULED, by, reason, at, data=facts)
        writes = move_writes(version, move, attestor, {"retires_on": day})
        if version.retires_on:
            writes.append(Delete(_retirement_key(version), When()))
        row = {"model": model, "number": number, "on": day, "reason": reason, "set_by": by.person or by.login, "set_at": timestamp(at)}
        writes.append(Put(retirement_key(model, number, day), row, ABSENT))
        try:
            meta.transact(writes)
        except ConditionFailedError:
            continue
        return Revocation(load_version(meta, model, number))
    raise ConflictError(f"{model}@{number} is being changed by others; try again")


def _retirement_key(version: Version) -> Key:
    return retirement_key(version.model, version.number, version.retires_on)
