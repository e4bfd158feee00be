"""Request a transition: by the name of the stage or standing that somebody wants, routed to the use case that may lead there, or refused.

Rules:
- Nothing is moved here: each route ends in the use case that the same act has anywhere else, with its role, its gates and its record.
- No stage is passed over. What is asked for lies one step ahead, or behind; else the refusal names the step that comes first.
- A decision is made on a packet that a person has read, so it is not asked for by a name: `attestry approve` and `attestry reject`.
"""

from __future__ import annotations

from typing import Final

from attestry.domain.errors import ConflictError, InvalidInputError
from attestry.domain.operations import Operation, require_role
from attestry.domain.stages import PIPELINE, Stage, Standing, Status, may_begin, stage_after
from attestry.domain.version import Version
from attestry.usecases.executions import go_on
from attestry.usecases.manual import Acted, Hand, hold_version, redo_stage, release_version, retry_version
from attestry.usecases.operate import request_deployment
from attestry.usecases.records import load_version
from attestry.usecases.revoke import retire_version

HOLD: Final = "HELD"
RELEASE: Final = "RELEASED"
WANTED: Final = tuple(dict.fromkeys([*(s.value for s in PIPELINE), *(s.value for s in Standing), HOLD, RELEASE]))
"""What can be asked for: stages, standings, and the two ends of a hold."""

_REFUSED: Final = {
    Standing.CANDIDATE: "nothing goes back to being a CANDIDATE: what is approved stays approved until it is retired or killed",
    Standing.APPROVED: "an approval is a decision on the packet of the version: attestry approve",
    Standing.REJECTED: "a rejection is a decision on the packet of the version: attestry reject",
    Standing.ROLLBACK: "a version is kept for rollback when another one takes its place: attestry deploy",
    Standing.SHADOW: "a version stands SHADOW by a deployment with that strategy: attestry deploy",
    Standing.CANARY: "a version stands CANARY by a deployment with that strategy: attestry deploy",
}


def read_wanted(value: object) -> str:
    """Return a checked name of a stage or standing.

    Raises:
        InvalidInputError: none that can be asked for.
    """
    if not isinstance(value, str) or value.upper() not in WANTED:
        raise InvalidInputError.of("to", "enum", f"what is wanted is one of {', '.join(WANTED)}")
    return value.upper()


def request_transition(hand: Hand, model: str, number: int, to: str, *, deploy_function: str, attempt: int | None = None) -> Acted:
    """Have a version moved towards a stage or standing, by the use case that may.

    Args:
        hand: who, and why.
        model: the model's name.
        number: the version's number.
        to: one of `WANTED`.
        deploy_function: name of the function that deploys.
        attempt: see `redo_stage`.

    Raises:
        InvalidInputError: nothing that can be asked for.
        NotFoundError: no such version.
        ConflictError: a stage or gate would be passed over, or the use case refuses; the sentence names the rule.
        ForbiddenError, UnprovenIdentityError: the caller may not do what leads there.
    """
    wanted = read_wanted(to)
    version = load_version(hand.meta, model, number)
    if wanted == HOLD:
        return hold_version(hand, model, number)
    if wanted == RELEASE:
        return release_version(hand, model, number)
    if wanted in (Stage.DEPLOYMENT, Standing.DEPLOYED):
        return _deploy(hand, version, deploy_function)
    if wanted == Standing.RETIRED:
        require_role(Operation.RETIRE, hand.by, version.reference)
        done = retire_version(hand.meta, hand.attestor, model, number, reason=hand.reason, by=hand.by, at=hand.at)
        return Acted(done.version, done.changed)
    if wanted in PIPELINE:
        return _run(hand, version, Stage(wanted), attempt)
    if version.standing == wanted:
        return Acted(version, changed=False)
    raise ConflictError(f"{version.reference} stands {version.standing}; {_REFUSED[Standing(wanted)]} {version.reference}")


def _run(hand: Hand, version: Version, stage: Stage, attempt: int | None) -> Acted:
    """Try a stage that failed again, have one that succeeded done again, or start what should run and does not."""
    if version.stage is stage and version.status is Status.FAILED:
        return retry_version(hand, version.model, version.number)
    if version.stage is stage and version.status is Status.RUNNING:
        return Acted(version, changed=False)
    if version.stage in PIPELINE and PIPELINE.index(version.stage) >= PIPELINE.index(stage):
        return redo_stage(hand, version.model, version.number, stage, attempt=attempt)
    _check_next(version, stage)
    version.require_not_held("begins no stage")
    require_role(Operation.RETRY, hand.by, version.reference)
    if version.imported:
        hand.open_import(version)
        return Acted(version, changed=True)
    started = go_on(hand.meta, hand.pipeline, version)
    return Acted(load_version(hand.meta, version.model, version.number), started)


def _deploy(hand: Hand, version: Version, deploy_function: str) -> Acted:
    require_role(Operation.DEPLOY, hand.by, version.reference)
    if not version.approved and version.standing is Standing.CANDIDATE:
        _check_next(version, Stage.DEPLOYMENT)
    begun = request_deployment(
        hand.meta,
        hand.attestor,
        hand.functions,
        version.model,
        version.number,
        deploy_function=deploy_function,
        by=hand.by,
        reason=hand.reason,
        at=hand.at,
    )
    return Acted(begun, changed=begun.transition != version.transition)


def _check_next(version: Version, stage: Stage) -> None:
    """Refuse to pass over a stage."""
    if may_begin(stage, version.stage, version.status):
        return
    first = stage_after(version.stage) if version.status is Status.SUCCEEDED else version.stage
    raise ConflictError(
        f"no stage is passed over: {version.reference} is in {version.stage} {version.status}, so {first} comes before {stage}",
        details={"stage": version.stage.value, "status": version.status.value, "first": first.value if first else None},
    )
