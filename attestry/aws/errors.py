"""Errors of AWS in the registry's own words: wrapped at the ports, never leaked."""

from __future__ import annotations

from botocore.exceptions import BotoCoreError, ClientError

from attestry.domain.errors import AttestryError, UnavailableError

_BUSY = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "KMSInternalException",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "403", "AuthorizationError", "UnauthorizedOperation"})


class AccessRefusedError(AttestryError):
    """AWS refused what the registry's own role tried: the deployment lacks a permission; no caller can mend it."""

    code = "access_refused"
    status = 500


class ServiceError(AttestryError):
    """AWS answered with an error that no retry will change."""

    code = "service_error"
    status = 500


class ConfigurationError(AttestryError):
    """The function's environment lacks a setting, or holds one that cannot be read."""

    code = "configuration"
    status = 500


def error_code(error: ClientError) -> str:
    """Return the code of the service's answer."""
    return str(error.response.get("Error", {}).get("Code", ""))


def http_status(error: ClientError) -> int:
    """Return the HTTP status of the service's answer, 0 where there was none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def translate(error: BotoCoreError | ClientError, act: str) -> AttestryError:
    """Return the registry's error for one of AWS.

    Args:
        error: what botocore raised.
        act: what was tried, as a verb phrase with its object: `read object models/...`.
    """
    if not isinstance(error, ClientError):
        return UnavailableError(f"could not {act}: {type(error).__name__}: {error}")
    code, message = error_code(error), error.response.get("Error", {}).get("Message", "")
    if code in _DENIED:
        return AccessRefusedError(f"could not {act}: the registry's own role is not allowed to ({error.operation_name})")
    if code in _BUSY or http_status(error) >= 500:
        return UnavailableError(f"could not {act}: {code}: {message}")
    return ServiceError(f"could not {act}: {code}: {message}")
