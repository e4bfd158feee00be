"""Deploy and roll back: put a version in place behind the pointer of an environment.

Rules:
- Only an approved version is put in place. A deployment finds its frozen files as they were recorded, and has it warm before the swap; a
  rollback does not wait for either, because it has to work at once: the inference function verifies every file when it loads it.
- The swap is one transaction: pointer, the version that comes, the one that goes (ROLLBACK, kept ready), and the one that was kept ready.
- Every prediction reads the pointer, so there is no moment with two versions; with none only before the first deployment, or after what
  stood there was killed or retired, which leaves a vacant pointer (`attestry.usecases.pointer`).
- A version whose day of retirement has come is not put in place.
- A swap ends what is rolled out beside it: its own rollout by success, any other by halting it.
- A version that SageMaker serves is put in place only while its variant is there; so is a rollback, which makes none.
- An environment that has an approval of its own takes what it has approved alone; the rows of those decisions are conditions of the swap.
- A version stands in one environment at a time: what comes into place in one leaves the others in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from attestry.domain.cause import is_reproduction
from attestry.domain.errors import ConditionFailedError, ConflictError, NotFoundError
from attestry.domain.events import shorten, timestamp
from attestry.domain.principal import Principal
from attestry.domain.stages import DEPLOYABLE, IN_ROLLOUT, Stage, Standing, Status, may_begin
from attestry.domain.version import Version
from attestry.evidence.predicates import DEPLOYMENT, Predicate
from attestry.ports import ABSENT, Item, MetaStore, Put, When, Write
from attestry.usecases.attest import Attestor
from attestry.usecases.conditions import check_conditions
from attestry.usecases.endpoint_rows import served_writes
from attestry.usecases.expiry import expiry_of
from attestry.usecases.pointer import PROMOTED, ROLLOUTS, kept_in, named_in, number_in, rollout_in, vacate
from attestry.usecases.promotion_rows import Grounds, grounds_of
from attestry.usecases.records import Move, approval_key, load_version, model_key, move_writes, pointer_key, transition_key
from attestry.usecases.rollout_places import forget_rollouts, leave_writes
from attestry.usecases.serving import NOT_SERVED

TRIES = 8
MAX_ERROR = 2000
ROLLED_BACK = "version.rolled_back"


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


def begin_deployment(meta: MetaStore, attestor: Attestor, version: Version, *, by: Principal, reason: str, at: datetime) -> Version:
    """Record that the version is on its way into place, as stage DEPLOYMENT RUNNING; the same again changes nothing.

    Raises:
        ConflictError: the version is not approved, or moved meanwhile.
    """
    require_deployable(version, at)
    check_conditions(meta, version, at)
    if version.stage is Stage.DEPLOYMENT and version.status is Status.RUNNING:
        return version
    again = version.stage is Stage.DEPLOYMENT and version.status is Status.SUCCEEDED
    if not again and not may_begin(Stage.DEPLOYMENT, version.stage, version.status):
        raise ConflictError(f"{version.reference} is in {version.stage} {version.status} and cannot be deployed")
    move = Move(Stage.DEPLOYMENT, Status.RUNNING, version.standing, "stage.started", by, reason, at)
    try:
        meta.transact(move_writes(version, move, attestor, {"error": ""}))
    except ConditionFailedError as error:
        raise ConflictError(f"{version.reference} was moved by somebody else at the same time; try again") from error
    return load_version(meta, version.model, version.number)


def require_deployable(version: Version, at: datetime) -> None:
    """Refuse a version that no approval stands behind, or that is out of use.

    Raises:
        ConflictError: not approved, rejected, killed or retired, or to be retired on a day that has come.
        HeldError: somebody holds it.
    """
    if version.standing is Standing.RETIRED:
        raise ConflictError(f"{version.reference} was {version.out_of_use}; it is not deployed again")
    version.require_not_held("is not deployed")
    if version.is_due(at):
        raise ConflictError(f"{version.reference} was to be out of use from {version.ends_on} on, and is not deployed again")
    if version.standing in IN_ROLLOUT:
        raise ConflictError(f"{version.reference} stands {version.standing}; `attestry rollout {version.model}` finishes or halts it")
    if is_reproduction(version.cause):
        raise ConflictError(f"{version.reference} was made to reproduce another version and is never deployed")
    if version.imported and version.approved:
        raise ConflictError(f"{version.reference} is {NOT_SERVED}")
    if not version.approved or version.standing not in DEPLOYABLE or not version.version_digest:
        raise ConflictError(f"{version.reference} stands {version.standing} and is not approved for deployment")


def swap_pointer(
    meta: MetaStore,
    attestor: Attestor,
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
        pointer = meta.get(pointer_key(model, environment))
        here = version.standing in ROLLOUTS and rollout_in(pointer, version.standing).get("number") == number
        require_deployable(replace(version, standing=Standing.APPROVED) if here else version, at)
        check_conditions(meta, version, at)
        grounds = grounds_of(meta, version, environment, at)
        if pointer and number_in(pointer) == number:
            if version.stage is Stage.DEPLOYMENT and version.status is not Status.SUCCEEDED:
                _finish(meta, attestor, version, by, reason, at)
            return Deployment(load_version(meta, model, number), kept_in(pointer), changed=False)
        told: dict[str, Any] = {"environment": environment, "capture_rate": capture_rate, "by": by, "reason": reason, "at": at}
        swapped = _swap(meta, attestor, version, pointer, grounds, kind=kind, **told)
        if swapped:
            return Deployment(load_version(meta, model, number), _kept_after(pointer, number), changed=True)
    raise ConflictError(f"the pointer of {model} in {environment} is being changed by others; try again")


def roll_back(
    meta: MetaStore, attestor: Attestor, model: str, *, environment: str, by: Principal, reason: str, at: datetime, to: int | None = None
) -> Deployment:
    """Put the version that is kept for rollback, or another approved one of that environment, back in place.

    With `to` the same again changes nothing. Without, a rollback right after a rollback is refused: asked for twice, it would put back what
    was just found to be wrong.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        model: the model's name.
        environment: where, for example `production`.
        by: who.
        reason: why, checked.
        at: the time.
        to: number of the version that the caller wants back in place; None for whichever is kept.

    Raises:
        NotFoundError: nothing was deployed, nothing is kept for rollback, or there is no version `to`.
        ConflictError: the last move there was a rollback and `to` is not given, or `to` belongs to another environment; see also
            `swap_pointer`.
    """
    pointer = meta.get(pointer_key(model, environment))
    if pointer is None:
        raise NotFoundError(f"no version of {model} is deployed in {environment}")
    previous = kept_in(pointer)
    if to is not None and number_in(pointer) == to:
        return Deployment(load_version(meta, model, to), previous, changed=False)
    if to is None and None not in (previous, number_in(pointer)) and pointer.get("kind") == ROLLED_BACK:
        raise ConflictError(
            f"{model}@{number_in(pointer)} was put back in place in {environment} at {pointer['at']}; name the version that a further "
            f"rollback is to lead to: --to {previous}"
        )
    wanted = previous if to is None else to
    if wanted is None:
        raise NotFoundError(f"no earlier version of {model} is kept for rollback in {environment}")
    rate = _rate_of_return(meta, pointer, model, wanted, environment)
    return swap_pointer(
        meta,
        attestor,
        model,
        wanted,
        environment=environment,
        capture_rate=rate,
        by=by,
        reason=reason,
        at=at,
        kind=ROLLED_BACK,
    )


def approvers_of(meta: MetaStore, version: Version) -> list[str]:
    """Return who approved the version: persons, or the registry's policy."""
    return sorted(str(r["person"]) for r in _approvals(meta, version))


def fail_deployment(meta: MetaStore, attestor: Attestor, model: str, number: int, *, by: Principal, error: str, at: datetime) -> None:
    """Leave the version in DEPLOYMENT FAILED with its error; the pointer stays where it was."""
    version = load_version(meta, model, number)
    if version.stage is not Stage.DEPLOYMENT or version.status is not Status.RUNNING:
        return
    move = Move(Stage.DEPLOYMENT, Status.FAILED, version.standing, "stage.failed", by, shorten(error), at)
    meta.transact(move_writes(version, move, attestor, {"error": shorten(error, MAX_ERROR)}))


def _finish(meta: MetaStore, attestor: Attestor, version: Version, by: Principal, reason: str, at: datetime) -> None:
    move = Move(Stage.DEPLOYMENT, Status.SUCCEEDED, version.standing, "stage.succeeded", by, reason, at)
    meta.transact(move_writes(version, move, attestor))


def _swap(
    meta: MetaStore,
    attestor: Attestor,
    version: Version,
    pointer: dict[str, Any] | None,
    grounds: Grounds | None,
    *,
    environment: str,
    capture_rate: str,
    by: Principal,
    reason: str,
    at: datetime,
    kind: str,
) -> bool:
    ends, dated, retirement = expiry_of(version, at)
    facts = {"environment": environment, "capture_rate": capture_rate, "approved_by": approvers_of(meta, version), **ends}
    facts |= grounds.facts if grounds else {}
    predicate = deployment_predicate(meta, version, pointer, grounds)
    arrive = Move(Stage.DEPLOYMENT, Status.SUCCEEDED, Standing.DEPLOYED, kind, by, reason, at, data=facts, predicate=predicate)
    changes = {"deployed_at": timestamp(at), "deployment_environment": environment, "error": "", **dated}
    writes: list[Write] = [*move_writes(version, arrive, attestor, changes), *retirement, *served_writes(meta, version, environment)]
    writes += grounds.conditions if grounds else []
    row = {
        "kind": kind,
        "model": version.model,
        "environment": environment,
        "number": version.number,
        "version_digest": version.version_digest,
        "execution_id": version.execution_id,
        "folder": version.folder,
        "capture_rate": capture_rate,
        "approval": version.opening,
        "at": timestamp(at),
        "by": by.to_item(),
        "previous": _kept_after(pointer, version.number),
        "previous_rate": _rate_kept(pointer, version.number),
        "rev": int(pointer["rev"]) + 1 if pointer else 1,
    }
    key = pointer_key(version.model, environment)
    writes.append(Put(key, row, When(exists=True, equals={"rev": pointer["rev"]}) if pointer else ABSENT))
    writes += _make_room(meta, attestor, version, pointer, by=by, reason=reason, at=at)
    writes += leave_elsewhere(meta, version, environment, by=by, reason=reason, at=at)
    try:
        meta.transact(writes)
    except ConditionFailedError:
        return False
    return True


def _make_room(
    meta: MetaStore, attestor: Attestor, version: Version, pointer: dict[str, Any] | None, *, by: Principal, reason: str, at: datetime
) -> list[Write]:
    """Return the moves of the versions that a swap sends on: the one in place, the one kept for rollback, and other rollouts."""
    writes: list[Write] = []
    why = shorten(f"replaced by {version.reference}: {reason}")
    going, kept = number_in(pointer), kept_in(pointer)
    if going is not None:
        leaving = load_version(meta, version.model, going)
        leave = Move(leaving.stage, leaving.status, Standing.ROLLBACK, "version.replaced", by, why, at)
        writes += move_writes(leaving, leave, attestor)
        if kept is not None and kept != version.number:
            writes += _release(meta, attestor, version.model, kept, by, version.reference, at)
    if pointer is None:
        return writes
    numbers: list[int] = []
    for standing in ROLLOUTS:
        number = rollout_in(pointer, standing).get("number")
        numbers += [int(number)] if number is not None else []
        if number is not None and int(number) != version.number:
            why = f"{version.reference} was put in place"
            writes += leave_writes(meta, attestor, pointer, standing, by=by, reason=why, at=at)
    return [*writes, *forget_rollouts(pointer, *numbers)]


def leave_elsewhere(meta: MetaStore, version: Version, environment: str, *, by: Principal, reason: str, at: datetime) -> list[Write]:
    """Return the writes that take a version off the pointers of all environments but the one that it comes to."""
    pointers = meta.query(model_key(version.model).partition, prefix="POINTER#")
    others = [p for p in pointers if p["environment"] != environment and version.number in named_in(p)]
    left: list[Write] = [vacate(p, version, kind=PROMOTED, by=by, reason=reason, at=at) for p in others]
    return [*left, *(w for p in others for w in forget_rollouts(p, version.number))]


def _rate_of_return(meta: MetaStore, pointer: Mapping[str, Any], model: str, number: int, environment: str) -> str:
    """Return the capture rate that a version had when it left, and refuse one that was never to stand here.

    Raises:
        NotFoundError: there is no such version.
        ConflictError: it belongs to another environment.
    """
    if number == kept_in(pointer) and pointer.get("previous_rate"):
        return str(pointer["previous_rate"])
    version = load_version(meta, model, number)
    if version.deployment_environment != environment:
        raise ConflictError(f"{version.reference} belongs to {version.deployment_environment}, not to {environment}; promote it")
    return _last_rate(meta, model, number, environment) or str(pointer["capture_rate"])


def _kept_after(pointer: Mapping[str, Any] | None, number: int) -> int | None:
    """Return what is kept for rollback once `number` is in place: what stood there; of a vacant pointer, what it keeps already."""
    leaving, kept = number_in(pointer), kept_in(pointer)
    return leaving if leaving is not None else kept if kept != number else None


def _rate_kept(pointer: Mapping[str, Any] | None, number: int) -> str | None:
    """Return the capture rate that applied when what is kept for rollback stood deployed."""
    if pointer is None or _kept_after(pointer, number) is None:
        return None
    rate = pointer["capture_rate"] if number_in(pointer) is not None else pointer.get("previous_rate")
    return None if rate is None else str(rate)


def _approvals(meta: MetaStore, version: Version) -> list[Item]:
    rows = meta.query(approval_key(version.model, version.number, "").partition, prefix="APPROVAL#")
    return [r for r in rows if r["decision"] == "approve" and r.get("evidence", "") == version.packet.get("sha256", "")]


def deployment_predicate(meta: MetaStore, version: Version, pointer: Mapping[str, Any] | None, grounds: Grounds | None = None) -> Predicate:
    """Return what the attestation of a deployment says: what comes, on whose approvals, and what it replaces."""
    approvals = [
        {name: row[name] for name in ("person", "version_digest", "policy_digest", "transition", "evidence")}
        for row in sorted(_approvals(meta, version), key=lambda r: str(r["person"]))
    ]
    content = {
        "artifact_manifest": version.artifact.to_item() if version.artifact else None,
        "approvals": approvals,
        "previous": number_in(pointer),
        "pointer_rev": int(pointer["rev"]) + 1 if pointer else 1,
        **(grounds.content if grounds else {}),
    }
    return Predicate(DEPLOYMENT, content)


def _release(meta: MetaStore, attestor: Attestor, model: str, number: int, by: Principal, reference: str, at: datetime) -> list[Write]:
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
    return move_writes(kept, move, attestor)


def _last_rate(meta: MetaStore, model: str, number: int, environment: str) -> str | None:
    rows = meta.query(transition_key(model, number, 0).partition, prefix="TRANSITION#")
    for row in reversed(rows):
        facts = row.get("data") or {}
        if facts.get("environment") == environment and "capture_rate" in facts:
            return str(facts["capture_rate"])
    return None
