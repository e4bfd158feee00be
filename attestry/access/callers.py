"""The caller of a request, as the gateway's authorizer tells it: an IAM identity, or the holder of a bearer token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attestry.access.issuers import TokenHolder
from attestry.access.standing import Caller
from attestry.domain.errors import UnprovenIdentityError
from attestry.domain.principal import principal_from_request_context


def caller_of(context: Mapping[str, Any], *, account: str, prefix: str, now: float) -> Caller:
    """Return the caller of a request.

    Args:
        context: the gateway's request context (payload format 2.0).
        account: the registry's account.
        prefix: prefix of the registry's role names.
        now: seconds since the epoch.

    Raises:
        UnprovenIdentityError: the gateway authenticated nobody, in both ways at once, or by a token that has ended since.
    """
    authorizer = context.get("authorizer") or {}
    told = authorizer.get("lambda")
    if told is None:
        return Caller(principal_from_request_context(context, account=account, prefix=prefix))
    if authorizer.get("iam") or not isinstance(told, Mapping):
        raise UnprovenIdentityError("the request carries two identities")
    address = str((context.get("http") or {}).get("sourceIp", ""))
    return TokenHolder.from_context(told, now=now).caller(address)
