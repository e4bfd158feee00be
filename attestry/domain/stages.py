"""Stages, statuses and standings of a version, and which moves between them exist.

Rules:
- A version passes PROCESSING, TRAINING, VALIDATION, APPROVAL and DEPLOYMENT in this order; each ends SUCCEEDED, FAILED or REJECTED.
- A version that was made elsewhere passes IMPORTED in the place of the first three: nothing of it was processed, trained or judged here.
- FAILED can be tried again under the same number; REJECTED is final. No stage is ever skipped.
- PROCESSING or VALIDATION that has succeeded can be done again before the version is approved: the version goes back to the stage before.
- A held version begins nothing, and is neither approved nor put in place; what runs ends, and it can be rejected, killed and retired.
- Standing says what a version is to its users, and is changed by APPROVAL, by deployments, rollbacks and retirement alone.
"""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """A stage of the pipeline; its states in Step Functions carry these names. IMPORTED stands before the pipeline."""

    REGISTERED = "REGISTERED"
    IMPORTED = "IMPORTED"
    PROCESSING = "PROCESSING"
    TRAINING = "TRAINING"
    VALIDATION = "VALIDATION"
    APPROVAL = "APPROVAL"
    DEPLOYMENT = "DEPLOYMENT"


class Status(StrEnum):
    """How far a stage is."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"


class Standing(StrEnum):
    """What a version is to its users."""

    CANDIDATE = "CANDIDATE"
    APPROVED = "APPROVED"
    SHADOW = "SHADOW"
    CANARY = "CANARY"
    DEPLOYED = "DEPLOYED"
    ROLLBACK = "ROLLBACK"
    RETIRED = "RETIRED"
    REJECTED = "REJECTED"


APPROVED = "version.approved"
"""The move of a version that has all approvals."""

LAPSED = "approval.lapsed"
"""The move of a version whose approval has ended: back to before its approval, which can be opened again."""

PROMOTION_OPENED = "promotion.opened"
"""The move by which somebody asks for a promotion that people approve (`attestry.domain.promotion`)."""

PROMOTION_LAPSED = "promotion.lapsed"
"""The move of a version whose approval for an environment has ended: out of its place there."""

AFTER_END = frozenset(
    {
        "version.killed",
        "legal_hold.placed",
        "legal_hold.lifted",
        "disposal.requested",
        "disposal.confirmed",
        "version.disposed",
        "disposal.ended",
    }
)
"""The moves of a version that is out of use: a retired one can still be killed, and what it left is kept or disposed."""

PIPELINE = (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION, Stage.APPROVAL, Stage.DEPLOYMENT)
SCRIPT_STAGES = (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION)
REDOABLE = (Stage.PROCESSING, Stage.VALIDATION)
"""Stages that can be done again once they have succeeded; TRAINING freezes the version, whose bytes never change."""
DEPLOYABLE = frozenset({Standing.APPROVED, Standing.ROLLBACK, Standing.DEPLOYED})
"""Standings from which a version may be put in place; each implies an approval."""

IN_ROLLOUT = frozenset({Standing.CANARY, Standing.SHADOW})
"""Standings of a version that is on its way into place beside the deployed one; each implies an approval as well."""


_IN_USE = frozenset({Standing.SHADOW, Standing.CANARY, Standing.DEPLOYED})


def stage_after(stage: Stage) -> Stage | None:
    """Return the stage that follows; None behind the last."""
    if stage is Stage.IMPORTED:
        return Stage.APPROVAL
    order = (Stage.REGISTERED, *PIPELINE)
    return order[order.index(stage) + 1] if stage is not order[-1] else None


def is_stopped_by_hold(kind: str, origin: str, to: str) -> bool:
    """Return whether a held version must not make a move.

    Args:
        kind: kind of the move's event.
        origin: the standing before it.
        to: the standing after it.
    """
    if kind in ("stage.started", "approval.given", PROMOTION_OPENED, "promotion.given", "promotion.approved"):
        return True
    # Not judged by kind, so that a further way into use is stopped as well; what goes out of use may.
    return to != origin and (to in _IN_USE or (to == Standing.APPROVED and origin == Standing.CANDIDATE))


def stage_before(stage: Stage) -> Stage:
    """Return the stage that must have succeeded before this one may run."""
    order = (Stage.REGISTERED, *PIPELINE)
    return order[order.index(stage) - 1]


def may_begin(stage: Stage, at: Stage, status: Status) -> bool:
    """Return whether a version whose latest stage is `at` with `status` may begin `stage`.

    It may when the stage before has succeeded, when this stage failed or was cut off and is tried again, and never after a rejection.
    """
    if status is Status.REJECTED:
        return False
    if Stage.IMPORTED in (at, stage):
        return at is Stage.IMPORTED and stage is Stage.APPROVAL and status is Status.SUCCEEDED
    if at is stage:
        return status in (Status.RUNNING, Status.FAILED)
    return at is stage_before(stage) and status is Status.SUCCEEDED
