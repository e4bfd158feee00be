"""Promotion: from one environment to the next, in the order that the manifest names, none left out.

A version stands in one environment at a time: a promotion is a deployment there, by the strategy of the manifest, and the place before is
vacant from the same transaction on. It needs what every deployment needs; no environment takes a version that is not approved.

Where the environment has an approval of its own, the first `promote` asks for it, and the next one, once it is given, puts the version in
place (`attestry.usecases.open_promotion`, `decide_promotion`). Until then it can be withdrawn.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from attestry.domain.errors import ConditionFailedError, ConflictError
from attestry.domain.principal import Principal
from attestry.domain.promotion import WITHDRAWN, State, policy_for, promotion_of, promotions_after, require_promoted
from attestry.domain.stages import DEPLOYABLE, Standing
from attestry.domain.version import Version
from attestry.ports import MetaStore
from attestry.usecases.attest import Attestor
from attestry.usecases.records import Move, load_version, move_writes

TRIES: Final = 8


def next_environment(version: Version) -> str | None:
    """Return the environment that a version may be promoted to from where it is, or None."""
    order = (version.deployment_environment, *version.promotes_to)
    place = max(i for i, name in enumerate(order) if name == version.deployment_environment)
    return order[place + 1] if place + 1 < len(order) else None


def check_promotion(version: Version, to: str, at: datetime) -> None:
    """Refuse a promotion that leaves out an environment, or of a version that does not stand deployed where it is.

    A version that belongs to the environment may be promoted to it again where no approval of that environment counts for it any more.

    Raises:
        ConflictError: with the rule.
    """
    if to == version.deployment_environment and policy_for(version, to) is not None:
        if not version.approved or version.standing not in DEPLOYABLE:
            raise ConflictError(f"{version.reference} stands {version.standing}; only what is approved is promoted")
        if _is_promoted(version, to, at):
            raise ConflictError(f"{version.reference} is approved for {to}, where it belongs: attestry deploy, or attestry rollback --to")
        if version.standing is not Standing.APPROVED:
            # Asked for in its place, it would stand there without an approval, whatever is decided: its lapse belongs to the one before.
            raise ConflictError(
                f"{version.reference} stands {version.standing} in {to} by an approval that has ended, and leaves within minutes; ask then"
            )
        return
    following = next_environment(version)
    if to != following:
        may = f"the next one is {following}" if following else "there is none after it"
        raise ConflictError(f"{version.reference} belongs to {version.deployment_environment}, and is not promoted to {to}: {may}")
    if version.standing is not Standing.DEPLOYED:
        raise ConflictError(
            f"{version.reference} stands {version.standing}; only what stands deployed in {version.deployment_environment} is promoted"
        )


def is_waiting(version: Version, to: str) -> bool:
    """Return whether a promotion is asked for already, and waits for decisions."""
    found = promotion_of(version, to)
    return found is not None and found.state is State.OPEN and not found.why_not(version)


def has_to_be_asked(version: Version, to: str, at: datetime) -> bool:
    """Return whether a promotion, which `check_promotion` lets pass, needs an approval first that is not there."""
    return not _is_promoted(version, to, at)


def withdraw_promotion(
    meta: MetaStore, attestor: Attestor, model: str, number: int, *, environment: str, by: Principal, reason: str, at: datetime
) -> Version:
    """Withdraw a promotion that waits for its approval, or has it and was not made yet; the same again changes nothing.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        model: the model's name.
        number: the version's number.
        environment: where to.
        by: the authenticated principal, with its person.
        reason: why, checked.
        at: the time.

    Raises:
        NotFoundError: no such version.
        UnprovenIdentityError: the caller maps to no person.
        ConflictError: there is none to withdraw, the version stands in the environment already, or others kept changing it.
    """
    by.require_person("withdraw a promotion")
    for _ in range(TRIES):
        version = load_version(meta, model, number)
        found = promotion_of(version, environment)
        if found is not None and found.state is State.WITHDRAWN:
            return version
        if found is None or found.state not in (State.OPEN, State.APPROVED):
            raise ConflictError(f"there is no promotion of {version.reference} to {environment} to withdraw")
        if found.state is State.APPROVED and version.deployment_environment == environment:
            raise ConflictError(f"{version.reference} has come to {environment}: take it back by attestry rollback, kill or retire")
        data = {"environment": environment, "opened": found.opened}
        move = Move(version.stage, version.status, version.standing, WITHDRAWN, by, reason, at, found.packet, data)
        after = promotions_after([{"kind": WITHDRAWN, "number": version.transition + 1, "data": data}], version.promotions)
        try:
            meta.transact(move_writes(version, move, attestor, {"promotions": after}))
        except ConditionFailedError:
            continue
        return load_version(meta, model, number)
    raise ConflictError(f"{model}@{number} is being changed by others; try again")


def _is_promoted(version: Version, to: str, at: datetime) -> bool:
    try:
        require_promoted(version, to, at)
    except ConflictError:
        return False
    return True
