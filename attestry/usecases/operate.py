"""Operate: deploy by hand, and claim a submission whose submitter is unproven."""

from __future__ import annotations

from datetime import datetime

from attestry.domain.errors import ConditionFailedError, ConflictError, ForbiddenError
from attestry.domain.principal import Principal
from attestry.domain.promotion import require_promoted
from attestry.domain.version import Version, encode
from attestry.ports import Functions, MetaStore
from attestry.usecases.attest import Attestor
from attestry.usecases.deploy import begin_deployment
from attestry.usecases.records import Move, load_version, move_writes
from attestry.usecases.rollout import plan_of


def request_deployment(
    meta: MetaStore,
    attestor: Attestor,
    functions: Functions,
    model: str,
    number: int,
    *,
    deploy_function: str,
    by: Principal,
    reason: str,
    at: datetime,
    strategy: str | None = None,
    environment: str | None = None,
) -> Version:
    """Begin to put an approved version in place; the deploy function warms it and swaps the pointer, or begins its rollout.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        functions: sends on.
        model: the model's name.
        number: the version's number.
        deploy_function: name of the deploy function.
        by: who.
        reason: why, checked.
        at: the time.
        strategy: `all-at-once`, whatever the manifest says; None for what that says.
        environment: where, for a promotion; None for where the version belongs.

    Raises:
        NotFoundError, ConflictError: see `begin_deployment` and `attestry.usecases.rollout.plan_of`.
    """
    version = load_version(meta, model, number)
    plan_of(version, strategy)
    require_promoted(version, environment or version.deployment_environment, at)
    version = begin_deployment(meta, attestor, version, by=by, reason=reason, at=at)
    message = {"model": model, "version": number, "attempt": version.attempt, "reason": reason, "principal": by.to_item()}
    further = {"strategy": strategy, "environment": environment}
    functions.send(deploy_function, {**message, **{name: value for name, value in further.items() if value is not None}})
    return version


def claim_submission(meta: MetaStore, attestor: Attestor, model: str, number: int, *, by: Principal, at: datetime) -> Version:
    """Make the person behind the caller the submitter of a version that was uploaded by hand under the caller's own prefix.

    Raises:
        ConflictError: the submitter is known already.
        ForbiddenError: the upload lies under another identity's prefix.
        UnprovenIdentityError: the caller maps to no person.
    """
    version = load_version(meta, model, number)
    person = by.require_person("claim a submission")
    if version.submitter_person == person:
        return version
    if version.submitter_person is not None:
        raise ConflictError(f"{version.reference} was submitted by {version.submitter_person}")
    if version.submitter.user_id != by.user_id:
        raise ForbiddenError(f"{version.reference} was uploaded under the prefix of {version.submitter.user_id}, not of {by.user_id}")
    move = Move(version.stage, version.status, version.standing, "submission.claimed", by, "the uploader has named themselves", at)
    try:
        meta.transact(move_writes(version, move, attestor, {"submitter": encode(by), "submitter_person": person}))
    except ConditionFailedError as error:
        raise ConflictError(f"{version.reference} was changed by somebody else at the same time; try again") from error
    return load_version(meta, model, number)
