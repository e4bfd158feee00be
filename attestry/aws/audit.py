"""Notes down audited acts as rows, for the functions that serve the API.

A note that cannot be written is logged and counted, for an alarm, and changes nothing else: neither the answer nor the error that is being
answered.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from attestry.access.callers import caller_of
from attestry.domain.audit import AUDIT, AuditedAct, Outcome, Tally
from attestry.domain.errors import AttestryError
from attestry.ports import Clock, Key, MetaStore, Put, When

if TYPE_CHECKING:
    from attestry.aws.http import Request

SERVICE: Final = "audit"
"""The metric's dimension `service`: whichever function lost the note, one alarm watches."""

logger = logging.getLogger(__name__)


class AuditNotes:
    """The audited acts of one process.

    Args:
        meta: the table.
        clock: the time.
        account: the registry's account.
        prefix: prefix of the registry's role names.
    """

    def __init__(self, meta: MetaStore, clock: Clock, *, account: str, prefix: str) -> None:
        self._meta = meta
        self._clock = clock
        self._account = account
        self._prefix = prefix
        self._tally = Tally()

    def allowed(self, request: Request, act: str, on: str) -> None:
        """Note that the caller was given something to read.

        Args:
            request: the request.
            act: name of the act, for example `prediction.trace`.
            on: what was read.
        """
        self._note(request, act, on, Outcome.ALLOWED, "")

    def denied(self, request: Request, error: AttestryError) -> None:
        """Note that the caller was refused."""
        named = dict(request.parameters)
        if request.warrant is not None and request.warrant.model:
            # A route may name its model in the body or the query, or not at all; the gate was asked about it.
            named.setdefault("model", request.warrant.model)
        on = ", ".join(f"{name}={value}" for name, value in sorted(named.items()))
        self._note(request, request.route, on, Outcome.DENIED, error.code)

    def note(self, act: AuditedAct) -> None:
        """Note an act of somebody whom the caller has identified, see `attestry.ports.Auditor`."""
        try:
            row = self._tally.count(act, self._clock.now())
            if row is not None:
                # The row is this process's own, so there is nothing to be lost by writing over it.
                self._meta.transact([Put(Key(AUDIT, row.sort), row.item, When())])
        except Exception:
            logger.exception("an audited act could not be noted down", extra={"act": act.act, "outcome": act.outcome.value})
            self._count_lost()

    def _note(self, request: Request, act: str, on: str, outcome: Outcome, reason: str) -> None:
        try:
            now = self._clock.now().timestamp()
            principal = request.principal or caller_of(request.context, account=self._account, prefix=self._prefix, now=now).principal
        except Exception:
            logger.exception("an audited act could not be noted down", extra={"act": act, "outcome": outcome.value})
            self._count_lost()
            return
        self.note(AuditedAct(principal, act, on, outcome, reason))

    def _count_lost(self) -> None:
        try:
            # Here alone: what notes acts down answers requests, and most processes never lose a note.
            from attestry.aws.metrics import Count, count

            count({Count.AUDIT_NOTES_LOST: 1}, deployment=self._prefix, service=SERVICE)
        except Exception:
            logger.exception("a lost note could not be counted")
