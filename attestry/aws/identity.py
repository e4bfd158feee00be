"""The caller of an API request, from what the gateway authenticated."""

from __future__ import annotations

from attestry.aws.http import Request
from attestry.aws.settings import Settings
from attestry.domain.principal import Principal, principal_from_request_context


def caller(request: Request, settings: Settings) -> Principal:
    """Return the principal of the request.

    Raises:
        UnprovenIdentityError: the request carries no IAM identity.
    """
    return principal_from_request_context(request.context, account=settings.account, prefix=settings.prefix)
