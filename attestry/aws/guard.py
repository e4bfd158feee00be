"""The gate of every API function: who calls, what it is, and whether policies let it. Deny by default."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from attestry.access.actions import ACTIONS, Resource
from attestry.access.callers import caller_of
from attestry.access.reader import AccessReader
from attestry.access.warrant import Warrant
from attestry.ports import Clock, MetaStore

if TYPE_CHECKING:
    from attestry.aws.http import Named, Request


class Guard:
    """The gate of one process.

    Args:
        meta: the table.
        clock: the time.
        account: the registry's account.
        prefix: prefix of the registry's role names.
    """

    def __init__(self, meta: MetaStore, clock: Clock, *, account: str, prefix: str) -> None:
        self._reader = AccessReader(meta)
        self._clock = clock
        self._account = account
        self._prefix = prefix

    def admit(self, request: Request, named: Named | None = None) -> Request:
        """Return the request with its caller and with what they may do.

        Args:
            request: the request.
            named: what it names; the request goes on to read through the table there.

        Raises:
            ForbiddenError: the gateway has authenticated nobody, the route is no known action, or policies deny it.
            IntegrityError: a policy is not what was published.
            UnavailableError: the table did not answer.
        """
        at = self._clock.now()
        caller = caller_of(request.context, account=self._account, prefix=self._prefix, now=at.timestamp())
        table, expected = (named.table, named.model) if named else (None, None)
        warrant = Warrant.for_route(self._reader, caller, request.route, at, table=table, expected=expected)
        context = {"alias": request.parameters["alias"]} if "alias" in request.parameters else {}
        principal = warrant.admit(_model(request), **context)
        return replace(request, principal=principal, warrant=warrant, table=table)


def _model(request: Request) -> str | None:
    resource = ACTIONS[request.route].resource
    if resource is Resource.MODEL:
        return request.parameters["model"]
    return request.query.get("model") or None if resource is Resource.NAMED else None
