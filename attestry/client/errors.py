"""What can go wrong between a client and the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attestry.domain.errors import AttestryError, Problem


class ApiError(AttestryError):
    """The registry answered with an error.

    Attributes:
        status: HTTP status.
        code: the registry's stable code, `forbidden` for what the gateway itself refused.
        problems: what was wrong with the input, by field and rule.
        request_id: names the request in the registry's log; empty where the answer has none.
        by_gateway: the gateway refused the request, before the registry saw it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        problems: Sequence[Problem] = (),
        details: Mapping[str, object] | None = None,
        request_id: str = "",
        by_gateway: bool = False,
    ) -> None:
        super().__init__(message, details=details)
        self.status = status
        self.code = code
        self.problems = tuple(problems)
        self.request_id = request_id
        self.by_gateway = by_gateway

    def naming_role(self, act: str, roles: Sequence[str]) -> ApiError:
        """Return the error with the role that the caller lacks, where the gateway refused an act without saying why."""
        if not (self.by_gateway and self.status == 403 and roles):
            return self
        message = f"to {act} needs the role {' or '.join(roles)}; use an AWS profile that acts in it: --profile NAME ({self.message})"
        details = {"roles": list(roles)}
        return ApiError(message, status=403, code=self.code, details=details, request_id=self.request_id, by_gateway=True)

    @classmethod
    def from_answer(cls, status: int, body: Any, request_id: str = "") -> ApiError:
        """Return the error that an answer carries: problem details (RFC 9457) from the registry, `{"message": ...}` from the gateway."""
        error = body if isinstance(body, dict) and "code" in body and "detail" in body else None
        if error is None:
            told = body.get("message") or body.get("Message") if isinstance(body, dict) else None
            code = {401: "forbidden", 403: "forbidden", 404: "not_found", 429: "unavailable"}.get(status, "gateway")
            message = str(told or f"the gateway answered {status}")
            return cls(message, status=status, code=code, request_id=request_id, by_gateway=True)
        problems = [_problem(p) for p in error.get("problems") or [] if isinstance(p, dict)]
        details = error.get("details")
        return cls(
            str(error["detail"]),
            status=status,
            code=str(error["code"]),
            problems=problems,
            details=details if isinstance(details, dict) else None,
            request_id=request_id,
        )

    def to_dict(self) -> dict[str, object]:
        """Return the error as the registry answered it, with the status."""
        body = {**super().to_dict(), "status": self.status}
        if self.problems:
            body["problems"] = [p.to_dict() for p in self.problems]
        if self.request_id:
            body["request_id"] = self.request_id
        return body


class EndpointError(AttestryError):
    """The registry's address or the caller's credentials are not known."""

    code = "endpoint"
    status = 400


class SignInError(AttestryError):
    """Nobody is signed in, or the identity provider or what came back from it is not to be believed."""

    code = "sign_in"
    status = 401


class SubmissionRefusedError(AttestryError):
    """The registry refused a submission.

    Attributes:
        submission: its ID.
        problems: what was wrong, by field, rule and line.
    """

    code = "refused"
    status = 400

    def __init__(self, submission: str, problems: Sequence[Problem]) -> None:
        self.submission = submission
        self.problems = tuple(problems)
        super().__init__(f"the registry refused submission {submission}", details={"submission": submission})

    def to_dict(self) -> dict[str, object]:
        """Return the error with its problems."""
        return {**super().to_dict(), "problems": [p.to_dict() for p in self.problems]}


def read_problems(entries: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Return the problems that a JSON document lists."""
    return [_problem(entry) for entry in entries]


def _problem(entry: Mapping[str, Any]) -> Problem:
    line = entry.get("line")
    return Problem(
        str(entry.get("field") or ""),
        str(entry.get("rule") or ""),
        str(entry.get("message") or ""),
        line if isinstance(line, int) else None,
    )
