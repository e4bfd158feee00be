"""Operate: deploy by hand, try a failed version again, and claim a submission whose submitter is unproven."""

from __future__ import annotations

from datetime import datetime

from attestry.domain.errors import ConditionFailedError, ConflictError, ForbiddenError
from attestry.domain.principal import Principal
from attestry.domain.stages import Standing, Status
from attestry.domain.version import Version, encode
from attestry.ports import Functions, MetaStore, Pipeline
from attestry.usecases.attest import Attestor
from attestry.usecases.deploy import begin_deployment
from attestry.usecases.executions import start_again, start_next_attempt
from attestry.usecases.records import Move, load_version, move_writes, stage_key


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
) -> Version:
    """Begin to put an approved version in place; the deploy function warms it and swaps the pointer.

    Raises:
        NotFoundError, ConflictError: see `begin_deployment`.
    """
    version = begin_deployment(meta, attestor, load_version(meta, model, number), by=by, reason=reason, at=at)
    functions.send(
        deploy_function, {"model": model, "version": number, "attempt": version.attempt, "reason": reason, "principal": by.to_item()}
    )
    return version


def retry_version(meta: MetaStore, pipeline: Pipeline, model: str, number: int) -> Version:
    """Start the next attempt of a version whose latest stage failed; its number stays. The same again starts no other one.

    Raises:
        NotFoundError: no such version.
        ConflictError: the version did not fail, or it was killed or retired.
    """
    version = load_version(meta, model, number)
    if version.standing is Standing.RETIRED:
        raise ConflictError(f"{version.reference} was {version.out_of_use}; it is not tried again")
    if version.status is not Status.FAILED:
        raise ConflictError(f"{version.reference} is in {version.stage} {version.status}; only a failed version is tried again")
    if not start_again(meta, pipeline, version) and _has_failed(meta, version):
        # The execution that has failed is about to end.
        return start_next_attempt(meta, pipeline, version)
    return load_version(meta, model, number)


def _has_failed(meta: MetaStore, version: Version) -> bool:
    """Return whether it is the latest attempt that has failed; else that is the retry, started before."""
    row = meta.get(stage_key(version.model, version.number, version.stage, version.attempt))
    return row is not None and row["status"] == Status.FAILED.value


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
