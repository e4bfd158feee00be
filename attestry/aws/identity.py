"""The caller of an API request, as the gate has let them in."""

from __future__ import annotations

from attestry.aws.http import Request
from attestry.aws.settings import Settings
from attestry.domain.errors import UnprovenIdentityError
from attestry.domain.principal import Principal


def caller(request: Request, _settings: Settings) -> Principal:
    """Return the principal of the request, with their person and the roles that count on what is asked for.

    Raises:
        UnprovenIdentityError: the request passed no gate.
    """
    if request.principal is None:
        raise UnprovenIdentityError("the request passed no gate, so nobody knows whose it is")
    return request.principal
