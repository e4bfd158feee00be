"""Roll out: bring a version into place by steps, beside the one that is deployed.

Rules:
- A canary or a shadow needs the same approvals as a deployment; it is named in the pointer, and stands CANARY or SHADOW. An environment
  has one of each at most.
- Begin, advance, halt and finish are one transaction each: the pointer under its revision, the version's move, and its event.
- A canary that is halted goes back to APPROVED, in DEPLOYMENT FAILED with the reason: callers stay on the deployed version, and the version
  can be tried again. It is not rejected; that only approvers can do.
- A shadow never puts itself in place: when its time is over it stands APPROVED, and somebody deploys it.
- What comes into an environment for the first time, or after a promotion, comes at once: there is nobody to share with. Where the place is
  vacant since what stood there was killed or retired, a canary or shadow is refused: nobody puts in place what was to be tried first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from attestry.domain.errors import ConditionFailedError, ConflictError, NotFoundError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.domain.rollout import ALL_AT_ONCE, CANARY, STRATEGIES, Plan
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.ports import Item, MetaStore, Update, When, Write
from attestry.usecases.attest import Attestor
from attestry.usecases.conditions import check_conditions
from attestry.usecases.deploy import Deployment, approvers_of, deployment_predicate, leave_elsewhere, require_deployable, swap_pointer
from attestry.usecases.endpoint_rows import served_writes
from attestry.usecases.expiry import expiry_of
from attestry.usecases.pointer import PROMOTED, ROLLOUTS, kept_in, number_in, rollout_in, vacancy
from attestry.usecases.promotion_rows import grounds_of
from attestry.usecases.records import Move, load_version, move_writes, pointer_key
from attestry.usecases.rollout_places import forget_rollouts, keep_rollout, leave_writes

ADVANCED = "rollout.advanced"
BEGINNINGS = {Standing.CANARY: "version.canaried", Standing.SHADOW: "version.shadowed"}
TRIES = 8


@dataclass(frozen=True)
class Rollout:
    """The outcome of a move.

    Attributes:
        version: the version after it.
        pointer: the environment's pointer after it.
        changed: False when it had been done before.
    """

    version: Version
    pointer: Item
    changed: bool = True


def plan_of(version: Version, strategy: str | None = None) -> Plan:
    """Return how a version is rolled out: as its manifest says, or all at once where somebody wants that.

    Raises:
        ConflictError: another strategy than that is wanted, and the manifest does not say how it goes.
    """
    plan = Plan.from_item(version.strategy)
    if strategy is None or strategy == plan.strategy:
        return plan
    if strategy == ALL_AT_ONCE:
        return Plan()
    known = " and ".join(STRATEGIES)
    raise ConflictError(f"the manifest of {version.reference} has no settings for the strategy {strategy!r} (of {known})")


def is_at_once(meta: MetaStore, version: Version, plan: Plan, environment: str) -> bool:
    """Return whether a version comes into place at once.

    It does when that is planned, when it is the first one there, when the one before has gone on to the next environment, and when it has
    stood there before.
    """
    pointer = meta.get(pointer_key(version.model, environment))
    if plan.strategy == ALL_AT_ONCE or pointer is None or version.number in (number_in(pointer), kept_in(pointer)):
        return True
    return number_in(pointer) is None and pointer["vacant"]["kind"] == PROMOTED


def begin_rollout(
    meta: MetaStore,
    attestor: Attestor,
    model: str,
    number: int,
    *,
    environment: str,
    by: Principal,
    reason: str,
    at: datetime,
) -> Rollout:
    """Let an approved version stand as canary or shadow beside the deployed one, as its manifest plans it; the same again changes nothing.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        model: the model's name.
        number: the version's number.
        environment: where, for example `production`.
        by: who.
        reason: why, checked.
        at: the time.

    Raises:
        NotFoundError: no such version.
        ConflictError: not approved, not planned so, nothing is deployed there, another rollout goes on there, or the pointer keeps moving.
    """
    for _ in range(TRIES):
        version, pointer = load_version(meta, model, number), meta.get(pointer_key(model, environment))
        plan = Plan.from_item(version.strategy)
        standing = Standing.CANARY if plan.strategy == CANARY else Standing.SHADOW
        if plan.strategy == ALL_AT_ONCE:
            raise ConflictError(f"the manifest of {version.reference} plans no rollout")
        there = rollout_in(pointer, standing)
        if pointer is not None and there.get("number") == number:
            return Rollout(version, pointer, changed=False)
        require_deployable(version, at)
        check_conditions(meta, version, at)
        grounds = grounds_of(meta, version, environment, at)
        _require_room(pointer, version, standing, environment)
        assert pointer is not None  # noqa: S101 - narrows: `_require_room` refuses what is not there
        place = _place(version, plan, standing, at)
        ends, dated, retirement = expiry_of(version, at)
        facts: dict[str, Any] = {
            **ends,
            "environment": environment,
            "capture_rate": version.capture_rate,
            "approved_by": approvers_of(meta, version),
            "plan": plan.to_item(),
        }
        facts |= {"share": place["share"], "step": 0} if standing is Standing.CANARY else {}
        facts |= grounds.facts if grounds else {}
        predicate = deployment_predicate(meta, version, pointer, grounds)
        move = Move(Stage.DEPLOYMENT, Status.SUCCEEDED, standing, BEGINNINGS[standing], by, reason, at, data=facts, predicate=predicate)
        writes = move_writes(version, move, attestor, {"deployment_environment": environment, "error": "", **dated})
        writes += [*retirement, *served_writes(meta, version, environment)]
        writes += leave_elsewhere(meta, version, environment, by=by, reason=reason, at=at)
        writes += [_point(pointer, standing, place), keep_rollout(model, environment), *(grounds.conditions if grounds else ())]
        if _commit(meta, writes):
            return _done(meta, model, number, environment)
    raise ConflictError(f"the pointer of {model} in {environment} is being changed by others; try again")


def advance_rollout(
    meta: MetaStore,
    attestor: Attestor,
    model: str,
    *,
    environment: str,
    by: Principal,
    reason: str,
    at: datetime,
    expected_step: int | None = None,
    number: int | None = None,
) -> Rollout:
    """Raise the share of the canary to that of its next step.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        model: the model's name.
        environment: where.
        by: who.
        reason: why, checked.
        at: the time.
        expected_step: the step that it is to leave; where it has left it already, nothing changes.
        number: the version that is meant; None for whichever is the canary.

    Raises:
        NotFoundError: there is no canary there.
        ConflictError: another version is the canary, the last step is reached, or the pointer keeps moving.
    """
    for _ in range(TRIES):
        pointer, told = _require_rollout(meta, model, environment, Standing.CANARY)
        if number is not None and int(told["number"]) != number:
            raise ConflictError(f"{model}@{told['number']} is the canary in {environment}, not {model}@{number}")
        version = load_version(meta, model, int(told["number"]))
        step, plan = int(told["step"]) + 1, Plan.from_item(told["plan"])
        if expected_step is not None and expected_step != step - 1:
            return Rollout(version, pointer, changed=False)
        if step >= len(plan.steps):
            raise ConflictError(f"{version.reference} is at its last step; finish it: attestry rollout {model} finish")
        facts = {"environment": environment, "share": plan.steps[step], "step": step, "from_share": int(told["share"])}
        move = Move(version.stage, version.status, version.standing, ADVANCED, by, reason, at, data=facts)
        place = {**told, "share": plan.steps[step], "step": step, "since": timestamp(at)}
        if _commit(meta, [*move_writes(version, move, attestor), _point(pointer, Standing.CANARY, place)]):
            return _done(meta, model, version.number, environment)
    raise ConflictError(f"the pointer of {model} in {environment} is being changed by others; try again")


def halt_rollout(
    meta: MetaStore,
    attestor: Attestor,
    model: str,
    *,
    environment: str,
    by: Principal,
    reason: str,
    at: datetime,
    standing: Standing | None = None,
    number: int | None = None,
) -> Rollout:
    """Halt the canary, or end the shadow; callers stay on the deployed version.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        model: the model's name.
        environment: where.
        by: who.
        reason: why, checked.
        at: the time.
        standing: CANARY or SHADOW; None for the canary, or the shadow where there is no canary.
        number: the version that is meant; where another one or none stands there, nothing changes.

    Raises:
        NotFoundError: there is no rollout there.
        ConflictError: the pointer keeps moving.
    """
    for _ in range(TRIES):
        where = standing if number is None else _where_is(meta, model, environment, standing, number)
        if number is not None and where is None:
            version = load_version(meta, model, number)
            return Rollout(version, meta.get(pointer_key(model, environment)) or {}, changed=False)
        pointer, told = _require_rollout(meta, model, environment, where)
        if number is not None and int(told["number"]) != number:
            continue  # it left between the two readings
        where = _standing_of(pointer, told)
        left = int(told["number"])
        writes = leave_writes(meta, attestor, pointer, where, by=by, reason=reason, at=at)
        writes += [_point(pointer, where, None), *forget_rollouts(pointer, left)]
        if _commit(meta, writes):
            return _done(meta, model, left, environment)
    raise ConflictError(f"the pointer of {model} in {environment} is being changed by others; try again")


def finish_rollout(
    meta: MetaStore,
    attestor: Attestor,
    model: str,
    *,
    environment: str,
    by: Principal,
    reason: str,
    at: datetime,
    number: int | None = None,
) -> Deployment:
    """Put the canary, or the shadow where there is no canary, in place of the deployed version.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        model: the model's name.
        environment: where.
        by: who.
        reason: why, checked.
        at: the time.
        number: the version that is meant; where it is deployed already, nothing changes.

    Raises:
        NotFoundError: there is no rollout there.
        ConflictError: another version is rolled out, its approvals do not hold, or the pointer keeps moving.
    """
    pointer = meta.get(pointer_key(model, environment))
    if number is not None and number_in(pointer) == number:
        return Deployment(load_version(meta, model, number), kept_in(pointer), changed=False)
    _, told = _require_rollout(meta, model, environment, None)
    if number is not None and int(told["number"]) != number:
        raise ConflictError(f"{model}@{told['number']} is rolled out in {environment}, not {model}@{number}")
    rate = str(told["capture_rate"])
    return swap_pointer(meta, attestor, model, int(told["number"]), environment=environment, capture_rate=rate, by=by, reason=reason, at=at)


def _require_room(pointer: Item | None, version: Version, standing: Standing, environment: str) -> None:
    at_once = f"or put it in place at once: attestry deploy {version.reference} --strategy all-at-once"
    if pointer is None:
        raise ConflictError(f"no version of {version.model} was ever deployed in {environment}; the first one comes into place at once")
    if number_in(pointer) is None:
        raise ConflictError(
            f"nothing is deployed in {environment} beside which {version.reference} could stand: {vacancy(pointer)}; {at_once}"
        )
    if version.number in (number_in(pointer), kept_in(pointer)):
        raise ConflictError(f"{version.reference} has stood deployed in {environment}; {at_once}")
    told = rollout_in(pointer, standing)
    if told:
        raise ConflictError(
            f"{version.model}@{told['number']} is the {ROLLOUTS[standing]} in {environment}; finish or halt it first, {at_once}"
        )


def _place(version: Version, plan: Plan, standing: Standing, at: datetime) -> dict[str, Any]:
    place = {
        "number": version.number,
        "version_digest": version.version_digest,
        "execution_id": version.execution_id,
        "folder": version.folder,
        "capture_rate": version.capture_rate,
        "approval": version.opening,
        "plan": plan.to_item(),
        "begun": timestamp(at),
        "since": timestamp(at),
    }
    return {**place, "share": plan.steps[0], "step": 0} if standing is Standing.CANARY else place


def _point(pointer: Mapping[str, Any], standing: Standing, place: Mapping[str, Any] | None) -> Update:
    """Return the write that names a version in a rollout's place, or nobody."""
    key = pointer_key(str(pointer["model"]), str(pointer["environment"]))
    changes: Item = {ROLLOUTS[standing]: None if place is None else dict(place), "rev": int(pointer["rev"]) + 1}
    return Update(key, changes, When(exists=True, equals={"rev": pointer["rev"]}))


def _require_rollout(meta: MetaStore, model: str, environment: str, standing: Standing | None) -> tuple[Item, Mapping[str, Any]]:
    pointer = meta.get(pointer_key(model, environment))
    for wanted in ROLLOUTS if standing is None else (standing,):
        if pointer is not None and (told := rollout_in(pointer, wanted)):
            return pointer, told
    what = "canary or shadow" if standing is None else ROLLOUTS[standing]
    raise NotFoundError(f"{model} has no {what} in {environment}")


def _standing_of(pointer: Mapping[str, Any], told: Mapping[str, Any]) -> Standing:
    return next(standing for standing in ROLLOUTS if rollout_in(pointer, standing) == told)


def _where_is(meta: MetaStore, model: str, environment: str, standing: Standing | None, number: int) -> Standing | None:
    """Return what a version is rolled out as in an environment; None where it is not, or as something else than is meant."""
    pointer = meta.get(pointer_key(model, environment))
    wanted = ROLLOUTS if standing is None else (standing,)
    return next((one for one in wanted if rollout_in(pointer, one).get("number") == number), None)


def _commit(meta: MetaStore, writes: list[Write]) -> bool:
    try:
        meta.transact(writes)
    except ConditionFailedError:
        return False
    return True


def _done(meta: MetaStore, model: str, number: int, environment: str) -> Rollout:
    return Rollout(load_version(meta, model, number), meta.get(pointer_key(model, environment)) or {})
