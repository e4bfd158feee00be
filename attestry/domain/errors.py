"""The errors of the registry: one small tree, one sentence each.

Every error names what a caller did wrong or what the world refused. `code` is stable and part of the API; `status` is the HTTP
status that the API answers with. Foreign errors are wrapped at the ports and never leak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input.

    Attributes:
        field: dotted path of the field, for example `training.hyperparameters.depth`; empty for the whole input.
        rule: short name of the rule, for example `required` or `no_aliases`.
        message: the sentence for a person.
        line: line in the source text, counted from 1, where known.
    """

    field: str
    rule: str
    message: str
    line: int | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the problem as JSON-ready mapping."""
        return {"field": self.field, "rule": self.rule, "message": self.message, "line": self.line}


class AttestryError(Exception):
    """Base of all errors that the registry raises on purpose."""

    code = "error"
    status = 500

    def __init__(self, message: str, *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details or {})

    def to_dict(self) -> dict[str, object]:
        """Return the body that the API answers with under `error`."""
        body: dict[str, object] = {"code": self.code, "message": self.message}
        if self.details:
            body["details"] = self.details
        return body


class InvalidInputError(AttestryError):
    """The input breaks a rule; nothing was changed."""

    code = "invalid_input"
    status = 400

    def __init__(self, problems: Sequence[Problem], message: str | None = None) -> None:
        self.problems = tuple(problems)
        super().__init__(message or "; ".join(_sentence(p) for p in self.problems))

    @classmethod
    def of(cls, field: str, rule: str, message: str) -> InvalidInputError:
        """Return the error for one problem."""
        return cls([Problem(field, rule, message)])

    def to_dict(self) -> dict[str, object]:
        """Return the body, with field and rule of the first problem on top and all problems under `problems`."""
        body = super().to_dict()
        if self.problems:
            body["field"] = self.problems[0].field
            body["rule"] = self.problems[0].rule
        body["problems"] = [p.to_dict() for p in self.problems]
        return body


class NotFoundError(AttestryError):
    """What was named does not exist."""

    code = "not_found"
    status = 404


class ConflictError(AttestryError):
    """The state of the record does not allow the move, or somebody else moved first."""

    code = "conflict"
    status = 409


class HeldError(ConflictError):
    """The version is held: it begins nothing until somebody releases it."""

    code = "held"


class ModelExistsError(ConflictError):
    """A model of that name is there already."""

    code = "model_exists"


class ModelModeError(ConflictError):
    """The model is governed; what was asked for is for open models alone."""

    code = "governed"


class RevisionError(ConflictError):
    """The record is not at the revision that the caller has seen; read it again, and decide anew."""

    code = "revision"


class ForbiddenError(AttestryError):
    """The principal may not do this."""

    code = "forbidden"
    status = 403


class SelfApprovalError(ForbiddenError):
    """The approver is the person who submitted the candidate."""

    code = "self_approval"


class UnsignedApprovalError(ForbiddenError):
    """The policy asks for the approver's own signature, and there is none."""

    code = "unsigned_approval"


class UnprovenIdentityError(ForbiddenError):
    """The login maps to no person, or the submitter of the candidate is unproven."""

    code = "unproven_identity"


class ApprovalLapsedError(ConflictError):
    """The approval of a version, or a condition of it, has ended; the version is approved again before it serves."""

    code = "approval_lapsed"


class OutsideConditionsError(ForbiddenError):
    """A request lies outside of what the version is approved for."""

    code = "outside_conditions"


class PreconditionFailedError(AttestryError):
    """The record is not at the revision that the request's If-Match names; nothing was changed."""

    code = "precondition_failed"
    status = 412


class KeyReusedError(AttestryError):
    """An idempotency key was sent with another request before; nothing was changed."""

    code = "idempotency_key_reused"
    status = 422


class InProgressError(ConflictError):
    """The same request is being answered at this moment; come back after `retry_after_seconds`."""

    code = "in_progress"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TooManyRequestsError(AttestryError):
    """The caller asks for more than its share; come back after `retry_after_seconds`."""

    code = "too_many_requests"
    status = 429

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class IntegrityError(AttestryError):
    """Bytes differ from what was recorded."""

    code = "integrity"
    status = 409


class NotReadyError(AttestryError):
    """The version is still loading; try again after `retry_after_seconds`."""

    code = "not_ready"
    status = 503

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message, details={"retry_after_seconds": retry_after_seconds})
        self.retry_after_seconds = retry_after_seconds


class PredictionFailedError(AttestryError):
    """The version's own code failed on the request, or answered what is no prediction."""

    code = "prediction_failed"
    status = 502


class StageFailedError(AttestryError):
    """A stage of the pipeline failed for a reason that lies in the candidate."""

    code = "stage_failed"
    status = 409


class ConditionFailedError(AttestryError):
    """A conditional write was refused; nothing of its transaction took effect.

    Attributes:
        failed: indexes into the transaction's writes whose conditions did not hold.
    """

    code = "condition_failed"
    status = 409

    def __init__(self, message: str, failed: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.failed = tuple(failed)


class UnavailableError(AttestryError):
    """A service did not answer, or answered that it is overloaded; a retry may succeed."""

    code = "unavailable"
    status = 503


def _sentence(problem: Problem) -> str:
    where = f"line {problem.line}: " if problem.line is not None else ""
    field = f"{problem.field}: " if problem.field else ""
    return f"{where}{field}{problem.message} [{problem.rule}]"
