"""Errors as MLflow's clients read them: `{"error_code": ..., "message": ...}`, with the status that MLflow's own server gives each code.

A client raises `RestException` with that code, and tells by it what to do: `register_model` goes on after RESOURCE_ALREADY_EXISTS, and
retries what has status 408, 429, 500, 502, 503 or 504. So no refusal of ours has one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attestry.domain.errors import (
    AttestryError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)

ABORTED: Final = "ABORTED"
ALREADY_EXISTS: Final = "RESOURCE_ALREADY_EXISTS"
CONFLICT: Final = "RESOURCE_CONFLICT"
ENDPOINT_NOT_FOUND: Final = "ENDPOINT_NOT_FOUND"
INTERNAL: Final = "INTERNAL_ERROR"
LIMITED: Final = "REQUEST_LIMIT_EXCEEDED"
INVALID: Final = "INVALID_PARAMETER_VALUE"
NOT_FOUND: Final = "RESOURCE_DOES_NOT_EXIST"
PERMISSION_DENIED: Final = "PERMISSION_DENIED"
UNAUTHENTICATED: Final = "UNAUTHENTICATED"
UNAVAILABLE: Final = "TEMPORARILY_UNAVAILABLE"

STATUS: Final[Mapping[str, int]] = {
    ABORTED: 409,
    ALREADY_EXISTS: 400,
    CONFLICT: 409,
    ENDPOINT_NOT_FOUND: 404,
    INTERNAL: 500,
    INVALID: 400,
    LIMITED: 429,
    NOT_FOUND: 404,
    PERMISSION_DENIED: 403,
    UNAUTHENTICATED: 401,
    UNAVAILABLE: 503,
}
"""Code to HTTP status."""

_OF_STATUS: Final = {401: UNAUTHENTICATED, 403: PERMISSION_DENIED, 404: NOT_FOUND, 409: CONFLICT, 429: LIMITED, 503: UNAVAILABLE}


class MlflowError(AttestryError):
    """A refusal in MLflow's words.

    Args:
        error_code: one of the codes above.
        message: the sentence that the client shows.
    """

    def __init__(self, error_code: str, message: str) -> None:
        super().__init__(message)
        self.code = error_code
        self.status = STATUS[error_code]


def invalid(message: str) -> MlflowError:
    """Return the refusal of a parameter's value."""
    return MlflowError(INVALID, message)


def missing(parameter: str) -> MlflowError:
    """Return the refusal of a request that lacks a parameter."""
    return invalid(f"Missing value for required parameter '{parameter}'.")


def no_model(name: str) -> MlflowError:
    """Return the answer for a model that is not there."""
    return MlflowError(NOT_FOUND, f"Registered Model with name={name} not found")


def no_version(name: str, number: int) -> MlflowError:
    """Return the answer for a version that is not there."""
    return MlflowError(NOT_FOUND, f"Model Version (name={name}, version={number}) not found")


def error_code(error: AttestryError) -> str:
    """Return the code of MLflow that an error of the registry has."""
    if isinstance(error, MlflowError):
        return error.code
    if isinstance(error, InvalidInputError):
        return INVALID
    if isinstance(error, NotFoundError):
        return NOT_FOUND
    if isinstance(error, ForbiddenError):
        return UNAUTHENTICATED if error.status == 401 else PERMISSION_DENIED
    if isinstance(error, UnavailableError):
        return UNAVAILABLE
    if isinstance(error, ConflictError):
        return ALREADY_EXISTS if error.code == "model_exists" else CONFLICT
    if error.status in _OF_STATUS:
        return _OF_STATUS[error.status]
    return INVALID if 400 <= error.status < 500 else INTERNAL


def error_body(error: AttestryError) -> tuple[int, dict[str, object]]:
    """Return status and body of the answer for an error; what went wrong inside is not told."""
    code = error_code(error)
    if code == INTERNAL:
        return 500, {"error_code": code, "message": "the registry failed; its log tells more"}
    return STATUS[code], {"error_code": code, "message": error.message}
