"""Answers of the HTTP API (payload format 2.0), and errors as problem details (RFC 9457).

A problem's type is `urn:attestry:problem:<code>`; its instance `urn:attestry:request:<ID>` names the request in the log. Beside the members
of the standard stand ours: `code`, and of an input that breaks a rule `field`, `rule` and `line` of the first problem, with all of them in
`problems`.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from attestry.aws.preconditions import write_etag
from attestry.domain.errors import AttestryError, ForbiddenError, InvalidInputError, Problem, UnavailableError

PROBLEM: Final = "application/problem+json"
_HEADERS = {"content-type": "application/json", "cache-control": "no-store", "x-content-type-options": "nosniff"}
_MEMBERS = ("code", "field", "rule", "problems", "details")

logger = logging.getLogger(__name__)


class InternalError(AttestryError):
    """Something went wrong that nobody expected."""

    code = "internal"


@dataclass(frozen=True)
class Answer:
    """An answer of the API.

    Attributes:
        body: JSON-ready body.
        status: HTTP status.
        headers: headers beyond the usual ones.
        encoded: the body is JSON text already, to be sent as it stands because its bytes were signed.
        rev: revision of the record that the answer shows, of which its ETag is made; None where it has none.

    A body of bytes is sent as it is, as `application/octet-stream`.
    """

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    encoded: bool = False
    rev: int | None = None


def error_answer(error: AttestryError, request_id: str) -> Answer:
    """Return the answer for an error of the registry.

    What went wrong inside (status 500) is told to the log; the caller gets the code and the request's ID.
    """
    headers = {"content-type": PROBLEM}
    if error.status == 500:
        logger.error("%s: %s", error.code, error.message, exc_info=error, extra={"gateway_request_id": request_id})
        told = {"code": error.code, "message": f"the registry failed; its log tells more under request {request_id}"}
        return Answer(_problem(told, 500, request_id), 500, headers)
    if isinstance(error, UnavailableError):
        logger.warning("unavailable: %s", error.message, extra={"gateway_request_id": request_id})
    seconds = getattr(error, "retry_after_seconds", 1 if isinstance(error, UnavailableError) else None)
    if seconds is not None:
        headers["retry-after"] = str(seconds)
    return Answer(_problem(error.to_dict(), error.status, request_id), error.status, headers)


def shape(answer: Answer, request_id: str) -> dict[str, Any]:
    """Return an answer as the gateway takes it."""
    named = {"x-request-id": request_id} if request_id else {}
    if isinstance(answer.body, bytes):
        headers = {**_HEADERS, "content-type": "application/octet-stream", **named, **answer.headers}
        encoded = base64.b64encode(answer.body).decode()
        return {"statusCode": answer.status, "headers": headers, "body": encoded, "isBase64Encoded": True}
    body = answer.body if answer.encoded else json.dumps(answer.body, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    if not body.isascii():
        # Half a surrogate pair, which somebody may have sent in a name that an error repeats, is no UTF-8; the platform would fail on it.
        body = body.encode("utf-8", "replace").decode()
    headers = {**_HEADERS, **named, **answer.headers}
    if answer.rev is not None:
        headers["etag"] = write_etag(answer.rev, body)
    return {"statusCode": answer.status, "headers": headers, "body": body, "isBase64Encoded": False}


def relayed(told: Mapping[str, Any], status: int) -> AttestryError:
    """Return the error that another function of the registry answered with, as `AttestryError.to_dict` wrote it."""
    message, details = str(told.get("message", "")), told.get("details")
    if status == InvalidInputError.status:
        return InvalidInputError([Problem(p["field"], p["rule"], p["message"], p.get("line")) for p in told.get("problems", ())], message)
    error = ForbiddenError(message, details=details) if status == ForbiddenError.status else AttestryError(message, details=details)
    error.code, error.status = str(told.get("code", error.code)), status
    return error


def _problem(told: Mapping[str, Any], status: int, request_id: str) -> dict[str, Any]:
    code = str(told["code"])
    problem: dict[str, Any] = {
        "type": f"urn:attestry:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": told["message"],
        **({"instance": f"urn:attestry:request:{request_id}"} if request_id else {}),
        **{name: told[name] for name in _MEMBERS if name in told},
    }
    if problem.get("problems"):
        problem["line"] = problem["problems"][0].get("line")
    return problem
