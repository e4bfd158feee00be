"""Reconcile policies: each edition with the event that put it in force, and the row that says which one is, with the last of them.

A policy that no collection lists any more, and one whose rows are gone, are found where the ledger is examined.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from attestry.domain.errors import AttestryError
from attestry.domain.policies import PUBLISHED, policy_subject
from attestry.evidence.leaf import event_id
from attestry.ports import Item, MetaStore
from attestry.usecases.findings import Observed
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.policies import COLLECTION, edition_key, event_of_edition, policy_key, read_row
from attestry.usecases.recorded import event_digest

_PREFIX: Final = "EDITION#"


class PolicyExaminer:
    """Examines policies.

    Args:
        meta: the table.
        ledger: what the ledger says.
    """

    def __init__(self, meta: MetaStore, ledger: LedgerBytes) -> None:
        self._meta = meta
        self._ledger = ledger

    def examine(self) -> list[Observed]:
        """Return what is not as it was published.

        Raises:
            UnavailableError: a service did not answer.
        """
        return [one for row in self._meta.list_collection(COLLECTION) for one in self._policy(str(row["name"]))]

    def _policy(self, name: str) -> list[Observed]:
        rows = self._meta.query(policy_key(name).partition, prefix=_PREFIX)
        observed = [*self._gaps(name, rows), *self._editions(name, rows)]
        return observed or list(self._head(name, rows[-1] if rows else None))

    def _gaps(self, name: str, rows: Sequence[Item]) -> Iterable[Observed]:
        """Yield editions that are missing: before the last row, and those beyond it that the ledger tells of."""
        there = {str(row["sk"]) for row in rows}
        last = max((int(sort.removeprefix(_PREFIX)) for sort in there), default=0)
        while self._ledger.find([following := event_id(PUBLISHED, policy_subject(name), last + 1)]).get(following):
            last += 1
        for number in range(1, last + 1):
            key = edition_key(name, number)
            if key.sort not in there:
                yield Observed("policy.edition_deleted", f"{key.partition}/{key.sort}", f"edition {number}", "nothing")

    def _editions(self, name: str, rows: Sequence[Item]) -> Iterable[Observed]:
        before = {int(row["number"]): str(row["sha256"]) for row in rows}
        events = {str(row["sk"]): event_of_edition(row, before.get(int(row["number"]) - 1, "")) for row in rows}
        told = self._ledger.digests(list(events.values()))
        for row in rows:
            key = edition_key(name, int(row["number"]))
            where, event = f"{key.partition}/{row['sk']}", events[str(row["sk"])]
            known = told.get(event.event_id)
            if known is None or key.sort != row["sk"]:
                yield Observed("policy.without_event", where, "an event that put the edition in force", "none")
            elif known != event_digest(event):
                yield Observed("policy.changed", where, f"what the event with SHA-256 {known} tells", "something else")
            else:
                try:
                    read_row(row)
                except AttestryError as error:
                    yield Observed("policy.changed", where, "the document with the digest that was published", error.message)

    def _head(self, name: str, last: Item | None) -> Iterable[Observed]:
        head = self._meta.get(policy_key(name))
        expected = {n: last[n] for n in ("name", "number", "sha256", "at")} if last else {}
        given = {n: (head or {}).get(n) for n in ("name", "number", "sha256", "at")}
        if head is not None and given != expected:
            what = "policy.set_back" if last else "policy.without_event"
            yield Observed(what, f"{policy_key(name).partition}/HEAD", str(expected or "an edition of it"), str(given))
