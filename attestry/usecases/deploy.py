"""Deploy and roll back: put a version in place behind the pointer of an environment.

Rules:
- Only an approved version is put in place. A deployment finds its frozen files as they were recorded, and has it warm before the swap; a
  rollback does not wait for either, because it has to work at once: the inference function verifies every file when it loads it.
- The swap is one transaction: pointer, the version that comes, the one that goes (ROLLBACK, kept ready), and the one that was kept ready.
- Every prediction reads the pointer, so there is no moment with two versions or none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from attestry.domain.errors import ConditionFailedError, ConflictError, IntegrityError, NotFoundError, StageFailedError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.domain.stages import DEPLOYABLE, Stage, Standing, Status, may_begin
from attestry.domain.version import Version
from attestry.ports import ABSENT, Functions, MetaStore, ObjectStore, Put, When, Write
from attestry.usecases.records import Move, approval_key, load_version, move_writes, pointer_key, transition_key
from attestry.usecases.serving import load_request

TRIES = 8
WARM_CALL_SECONDS = 60


@dataclass(frozen=True)
class Deployment:
    """The outcome of a swap.

    Attributes:
        version: what stands DEPLOYED after it.
        previous: number of the version that is kept for rollback, or None.
        changed: False when the version was in place already.
    """

    version: Version
    previous: int | None
    changed: bool


def check_frozen_files(store: ObjectStore, version: Version) -> None:
    """Check that below `frozen/` there is exactly what was recorded: every file in its recorded S3 version, nothing else, nothing on top.

    Raises:
        IntegrityError: naming the files that differ.
    """
    recorded = {f.key: f.version_id for f in (*version.frozen, *((version.artifact,) if version.artifact else ()))}
    problems: list[str] = []
    seen: set[str] = set()
    prefix = f"{version.folder}/frozen/"
    for entry in store.list_versions(prefix):
        name = entry.key.removeprefix(prefix)
        if entry.key not in recorded:
            problems.append(f"{name} was added")
        elif entry.version_id == recorded[entry.key]:
            seen.add(entry.key)
            if not entry.is_latest:
                problems.append(f"{name} lies below a later version or delete marker")
        elif entry.is_latest:
            problems.append(f"{name} was deleted" if entry.is_delete_marker else f"{name} was changed")
    problems += [f"{key.removeprefix(prefix)} is missing" for key in recorded if key not in seen]
    if problems:
        raise IntegrityError(
            f"frozen files of {version.reference} are not as recorded: {'; '.join(sorted(set(problems)))}",
            details={"files": sorted(set(problems))},
        )


def warm(
    functions: Functions,
    store: ObjectStore,
    version: Version,
    *,
    inference: str,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Have the inference function load the version, verifying every file against the version digest.

    Raises:
        IntegrityError: a file differs from the artifact manifest.
        StageFailedError: the model does not load, or not in time.
    """
    deadline = clock() + seconds
    while True:
        payload = {
            "version_digest": version.version_digest,
            "instances": None,
            "load": load_request(store, version, deadline_seconds=WARM_CALL_SECONDS),
        }
        answer = functions.call(inference, payload, tenant=version.execution_id)
        status = answer.get("status")
        if status == "READY":
            return
        if status == "REFUSED":
            raise IntegrityError(f"{version.reference} was refused at load: {answer.get('error')}")
        if status == "FAILED":
            raise StageFailedError(f"{version.reference} does not load: {answer.get('error')}")
        if clock() > deadline:
            raise StageFailedError(f"{version.reference} was not loaded within {seconds:.0f} s")


def begin_deployment(meta: MetaStore, version: Version, *, by: Principal, reason: str, at: datetime) -> Version:
    """Record that the version is on its way into place, as stage DEPLOYMENT RUNNING; the same again changes nothing.

    Raises:
        ConflictError: the version is not approved, or moved meanwhile.
    """
    require_deployable(version)
    if version.stage is Stage.DEPLOYMENT and version.status is Status.RUNNING:
        return version
    again = version.stage is Stage.DEPLOYMENT and version.status is Status.SUCCEEDED
    if not again and not may_begin(Stage.DEPLOYMENT, version.stage, version.status):
        raise ConflictError(f"{version.reference} is in {version.stage} {version.status} and cannot be deployed")
    move = Move(Stage.DEPLOYMENT, Status.RUNNING, version.standing, "stage.started", by, reason, at)
    try:
        meta.transact(move_writes(version, move, {"error": ""}))
    except ConditionFailedError as error:
        raise ConflictError(f"{version.reference} was moved by somebody else at the same time; try again") from error
    return load_version(meta, version.model, version.number)


def require_deployable(version: Version) -> None:
    """Refuse a version that no approval stands behind.

    Raises:
        ConflictError: not approved, rejected or retired.
    """
    if not version.approved or version.standing not in DEPLOYABLE or not version.version_digest:
        raise ConflictError(f"{version.reference} stands {version.standing} and is not approved for deployment")


def swap_pointer(
    meta: MetaStore,
    model: str,
    number: int,
    *,
    environment: str,
    capture_rate: str,
    by: Principal,
    reason: str,
    at: datetime,
    kind: str = "version.deployed",
) -> Deployment:
    """Put an approved version in place in one transaction.

    Raises:
        ConflictError: not approved, or others kept changing the pointer.
    """
    for _ in range(TRIES):
        version = load_version(meta, model, number)
        require_deployable(version)
        pointer = meta.get(pointer_key(model, environment))
        if pointer and int(pointer["number"]) == number:
            if version.stage is Stage.DEPLOYMENT and version.status is not Status.SUCCEEDED:
                _finish(meta, version, by, reason, at)
            return Deployment(load_version(meta, model, number), pointer.get("previous"), changed=False)
        if _swap(meta, version, pointer, environment=environment, capture_rate=capture_rate, by=by, reason=reason, at=at, kind=kind):
            return Deployment(load_version(meta, model, number), int(pointer["number"]) if pointer else None, changed=True)
    raise ConflictError(f"the pointer of {model} in {environment} is being changed by others; try again")


def roll_back(meta: MetaStore, model: str, *, environment: str, by: Principal, reason: str, at: datetime) -> Deployment:
    """Put the version that is kept for rollback back in place.

    Raises:
        NotFoundError: nothing is deployed, or nothing is kept for rollback.
        ConflictError: see `swap_pointer`.
    """
    pointer = meta.get(pointer_key(model, environment))
    if pointer is None:
        raise NotFoundError(f"no version of {model} is deployed in {environment}")
    if pointer.get("previous") is None:
        raise NotFoundError(f"no earlier version of {model} is kept for rollback in {environment}")
    previous = int(pointer["previous"])
    rate = _last_rate(meta, model, previous, environment) or str(pointer["capture_rate"])
    return swap_pointer(
        meta, model, previous, environment=environment, capture_rate=rate, by=by, reason=reason, at=at, kind="version.rolled_back"
    )


def approvers_of(meta: MetaStore, version: Version) -> list[str]:
    """Return who approved the version: persons, or the registry's policy."""
    rows = meta.query(approval_key(version.model, version.number, "").partition, prefix="APPROVAL#")
    return sorted(str(r["person"]) for r in rows if r["decision"] == "approve")


def fail_deployment(meta: MetaStore, model: str, number: int, *, by: Principal, error: str, at: datetime) -> None:
    """Leave the version in DEPLOYMENT FAILED with its error; the pointer stays where it was."""
    version = load_version(meta, model, number)
    if version.stage is not Stage.DEPLOYMENT or version.status is not Status.RUNNING:
        return
    move = Move(Stage.DEPLOYMENT, Status.FAILED, version.standing, "stage.failed", by, error[:500], at)
    meta.transact(move_writes(version, move, {"error": error}))


def _finish(meta: MetaStore, version: Version, by: Principal, reason: str, at: datetime) -> None:
    move = Move(Stage.DEPLOYMENT, Status.SUCCEEDED, version.standing, "stage.succeeded", by, reason, at)
    meta.transact(move_writes(version, move))


def _swap(
    meta: MetaStore,
    version: Version,
    pointer: dict[str, Any] | None,
    *,
    environment: str,
    capture_rate: str,
    by: Principal,
    reason: str,
    at: datetime,
    kind: str,
) -> bool:
    facts = {"environment": environment, "capture_rate": capture_rate, "approved_by": approvers_of(meta, version)}
    arrive = Move(Stage.DEPLOYMENT, Status.SUCCEEDED, Standing.DEPLOYED, kind, by, reason, at, data=facts)
    writes: list[Write] = move_writes(version, arrive, {"deployed_at": timestamp(at), "error": ""})
    row = {
        "model": version.model,
        "environment": environment,
        "number": version.number,
        "version_digest": version.version_digest,
        "execution_id": version.execution_id,
        "folder": version.folder,
        "capture_rate": capture_rate,
        "at": timestamp(at),
        "by": by.to_item(),
        "previous": int(pointer["number"]) if pointer else None,
        "rev": int(pointer["rev"]) + 1 if pointer else 1,
    }
    key = pointer_key(version.model, environment)
    writes.append(Put(key, row, When(exists=True, equals={"rev": pointer["rev"]}) if pointer else ABSENT))
    if pointer:
        leaving = load_version(meta, version.model, int(pointer["number"]))
        leave = Move(
            leaving.stage, leaving.status, Standing.ROLLBACK, "version.replaced", by, f"replaced by {version.reference}: {reason}"[:500], at
        )
        writes += move_writes(leaving, leave)
        kept = pointer.get("previous")
        if kept is not None and int(kept) != version.number:
            writes += _release(meta, version.model, int(kept), by, version.reference, at)
    try:
        meta.transact(writes)
    except ConditionFailedError:
        return False
    return True


def _release(meta: MetaStore, model: str, number: int, by: Principal, reference: str, at: datetime) -> list[Write]:
    kept = load_version(meta, model, number)
    if kept.standing is not Standing.ROLLBACK:
        return []
    move = Move(
        kept.stage,
        kept.status,
        Standing.APPROVED,
        "version.released",
        by,
        f"no longer kept for rollback since {reference} was deployed",
        at,
    )
    return move_writes(kept, move)


def _last_rate(meta: MetaStore, model: str, number: int, environment: str) -> str | None:
    rows = meta.query(transition_key(model, number, 0).partition, prefix="TRANSITION#")
    for row in reversed(rows):
        facts = row.get("data") or {}
        if facts.get("environment") == environment and "capture_rate" in facts:
            return str(facts["capture_rate"])
    return None
