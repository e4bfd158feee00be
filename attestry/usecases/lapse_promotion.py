"""Lapse of a promotion: take a version out of an environment when the approval that this one asked for has ended, and say so.

Rules:
- The move `promotion.lapsed` leads to DEPLOYMENT FAILED, standing APPROVED: the version's own approval stands. Nothing puts it in that
  environment, rolls back to it or delegates to it there, before its promotion is asked for and approved again.
- Version and pointer change in one transaction; where the environment's policy says `rollback`, what is kept for that comes in place first.
- A version that has not come to the environment, or has left it, needs no move: its approval counts no more by its date.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from attestry.domain.errors import ConditionFailedError, ConflictError, IntegrityError, NotFoundError
from attestry.domain.events import shorten, timestamp
from attestry.domain.principal import registry_principal
from attestry.domain.promotion import LAPSED, Promotion, State, policy_for, promotion_of, promotions_after
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.ports import Item, MetaStore, Write
from attestry.usecases.attest import Attestor
from attestry.usecases.deploy import roll_back
from attestry.usecases.pointer import kept_in, named_in, number_in, vacate
from attestry.usecases.records import Move, load_version, model_key, move_writes
from attestry.usecases.rollout_places import forget_rollouts

TRIES: Final = 8
COMPONENT: Final = "approval-expiry"
"""What acts, as a principal of the registry."""

_PLACED: Final = (Standing.DEPLOYED, Standing.ROLLBACK, Standing.CANARY, Standing.SHADOW)


def promotion_in_force(version: Version, row: Item) -> Promotion | None:
    """Return the promotion that a row about its end is about, where the version stands by it; None else."""
    environment = str(row["environment"])
    found = promotion_of(version, environment)
    same = found is not None and found.state is State.APPROVED and found.opened == int(row["opening"])
    return found if same and version.deployment_environment == environment and version.standing in _PLACED else None


def lapse_promotion(meta: MetaStore, attestor: Attestor, version: Version, row: Item, at: datetime, *further: Write) -> bool:
    """Make the move; False where the version does not stand by this approval, or not any more.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        version: the version.
        row: what says that the end is due: `environment`, `opening`.
        at: the time.
        further: writes of the same transaction.

    Raises:
        ConflictError: the approval has not ended, by what the version's head says; or others kept changing it.
    """
    found = promotion_in_force(version, row)
    if found is None:
        return False
    if not found.until or found.until > timestamp(at):
        raise ConflictError("an end of its approval for an environment is due that the version does not know of")
    why = f"the approval of {version.reference} for {found.environment} ended at {found.until}"
    policy = policy_for(version, found.environment)
    if policy is not None and policy.on_lapse == "rollback":
        put_back(meta, attestor, version, why, at)
    for _ in range(TRIES):
        version = load_version(meta, version.model, version.number)
        if promotion_in_force(version, row) is None:
            return False
        pointers = meta.query(model_key(version.model).partition, prefix="POINTER#")
        try:
            meta.transact([*_writes(version, attestor, found, pointers, why, at), *further])
        except ConditionFailedError:
            continue
        return True
    raise ConflictError(f"{version.reference} is being changed by others; try again")


def put_back(meta: MetaStore, attestor: Attestor, version: Version, why: str, at: datetime) -> None:
    """Put what is kept for rollback in the place of the version, wherever it stands; what cannot be put there leaves the place as it is."""
    for pointer in meta.query(model_key(version.model).partition, prefix="POINTER#"):
        kept = kept_in(pointer)
        if number_in(pointer) != version.number or kept is None:
            continue
        what: dict[str, Any] = {"environment": str(pointer["environment"]), "reason": shorten(f"the approval lapsed: {why}"), "at": at}
        try:
            roll_back(meta, attestor, version.model, by=registry_principal(COMPONENT), to=kept, **what)
        except (ConflictError, NotFoundError, IntegrityError):
            continue


def message_of(version: Version, row: Item) -> tuple[str, dict[str, Any]]:
    """Return what people are told before an approval for an environment ends, or once the version has left it."""
    environment = str(row["environment"])
    facts = {"model": version.model, "version": version.number, "environment": environment, "standing": version.standing.value}
    again = f"attestry promote {version.reference} --to {environment} --reason TEXT asks for it again"
    if row["what"] == "promotion_notice":
        found = promotion_of(version, environment)
        until = found.until if found else ""
        then = f"it leaves {environment}; {again}, afterwards"
        return f"the approval of {version.reference} for {environment} ends at {until}", {**facts, "until": until, "then": then}
    return f"the approval of {version.reference} for {environment} has lapsed", {**facts, "why": version.error, "then": again}


def _writes(version: Version, attestor: Attestor, promotion: Promotion, pointers: list[Item], why: str, at: datetime) -> list[Write]:
    by = registry_principal(COMPONENT)
    named = [p for p in pointers if version.number in named_in(p)]
    vacated = [str(p["environment"]) for p in named if number_in(p) == version.number]
    data = {"environment": promotion.environment, "opened": promotion.opened, "until": promotion.until, "vacated": vacated}
    after = promotions_after([{"kind": LAPSED, "number": version.transition + 1, "data": data}], version.promotions)
    move = Move(Stage.DEPLOYMENT, Status.FAILED, Standing.APPROVED, LAPSED, by, why, at, promotion.packet, data)
    return [
        *move_writes(version, move, attestor, {"promotions": after, "error": why}),
        *(vacate(p, version, kind=LAPSED, by=by, reason=why, at=at) for p in named),
        *(write for p in named for write in forget_rollouts(p, version.number)),
    ]
