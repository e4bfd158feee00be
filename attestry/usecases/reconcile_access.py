"""Reconcile who may do what: rows of grants, of placed models, of added policies and of webhooks with the events that changed each.

A row that is gone is found where the ledger is examined: without it somebody would be let as if nothing had ever been granted to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attestry.access.events import (
    ACCESS_PUBLISHED,
    ACCESS_SUBJECT,
    GRANT_GIVEN,
    GRANT_WITHDRAWN,
    MODEL_PLACED,
    grant_event_subject,
    mark_of,
    placed_event_subject,
)
from attestry.access.rows import GRANTS, PLACED, POLICIES_KEY, access_policy_key, grant_key, placement_key
from attestry.access.scopes import Placement
from attestry.domain.webhooks import KINDS as WEBHOOK_KINDS
from attestry.domain.webhooks import mlflow_digest
from attestry.evidence.digests import sha256_hex
from attestry.evidence.leaf import event_id, parse_event
from attestry.ports import Item, Key, MetaStore
from attestry.usecases.findings import Observed
from attestry.usecases.grants import fold_grants, grants_item
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.records import OUTBOX
from attestry.usecases.webhooks import COLLECTION, fold_webhook, subject_of, webhook_key

Event = Mapping[str, Any]


@dataclass(frozen=True)
class _About:
    """A row, and what its events say of it.

    Attributes:
        what: `grant`, `placement`, `access` or `webhook`.
        key: of the row.
        subject: of its events.
        kinds: of its events.
        fold: the attributes of the row that follow from its events.
    """

    what: str
    key: Key
    subject: str
    kinds: tuple[str, ...]
    fold: Callable[[list[Event]], Mapping[str, Any]]


class AccessExaminer:
    """Examines who may do what.

    Args:
        meta: the table.
        ledger: what the ledger says.
    """

    def __init__(self, meta: MetaStore, ledger: LedgerBytes) -> None:
        self._meta = meta
        self._ledger = ledger

    def examine(self) -> list[Observed]:
        """Return what is not as the registry left it.

        Raises:
            UnavailableError: a service did not answer.
        """
        return [one for about in (*self._all(), *self._webhooks()) for one in self._row(about)]

    def _all(self) -> Iterable[_About]:
        yield _About("access", POLICIES_KEY, ACCESS_SUBJECT, (ACCESS_PUBLISHED,), _fold_policies)
        for row in self._meta.list_collection(GRANTS):
            subject = str(row["subject"])
            yield _About("grant", grant_key(subject), grant_event_subject(subject), (GRANT_GIVEN, GRANT_WITHDRAWN), _fold_of(subject))
        for row in self._meta.list_collection(PLACED):
            model = str(row["model"])
            yield _About("placement", placement_key(model), placed_event_subject(model), (MODEL_PLACED,), _fold_placement)

    def _webhooks(self) -> Iterable[_About]:
        for row in self._meta.list_collection(COLLECTION):
            name = str(row["name"])
            yield _About("webhook", webhook_key(name), subject_of(name), WEBHOOK_KINDS, fold_webhook)

    def _row(self, about: _About) -> Iterable[Observed]:
        row, where = self._meta.get(about.key), f"{about.key.partition}/{about.key.sort}"
        if row is None:
            return
        events = self._events(about, row)
        if not events:
            yield Observed(f"{about.what}.without_event", where, f"an event that tells of {about.subject}", "none")
            return
        expected = about.fold(events)
        wrong = [name for name, value in expected.items() if row.get(name) != value]
        if about.what == "webhook":
            # The event names the URL by its digest, since every role reads the ledger.
            told, digest = events[-1]["data"], mlflow_digest(row.get("mlflow") or {})
            row = {**row, "url": sha256_hex(str(row.get("url")).encode()), "mlflow": digest}
            expected = {**expected, "url": told["url_sha256"], "mlflow": told.get("mlflow_sha256", "")}
            wrong += [name for name in ("url", "mlflow") if row[name] != expected[name]]
        if wrong:
            told, given = str({n: expected[n] for n in wrong}), str({n: row.get(n) for n in wrong})
            yield Observed(f"{about.what}.changed", where, told, given)
        elif about.what == "access":
            yield from self._texts(events)

    def _events(self, about: _About, row: Item) -> list[Event]:
        """Read the events: those that the row counts, and those beyond, if it was set back."""
        changed = [str(at) for at in row.get("changed") or ()]
        found: list[Event] = []
        while True:
            number = len(found) + 1
            ids = [event_id(kind, about.subject, number) for kind in about.kinds]
            leaves = self._ledger.find(ids)
            event = next((leaves[known].event for known in ids if known in leaves), None)
            event = event or (self._waiting(ids, changed[number - 1]) if number <= len(changed) else None)
            if event is None:
                return found
            found.append(event)

    def _waiting(self, ids: Sequence[str], listed: str) -> Event | None:
        row = self._meta.get(Key(OUTBOX, listed)) if listed.partition("#")[2] in {known[:32] for known in ids} else None
        return parse_event(row["event"]) if row else None

    def _texts(self, events: Iterable[Event]) -> Iterable[Observed]:
        for event in events:
            data = event["data"]
            key = access_policy_key(str(data["name"]), int(data["number"]))
            row = self._meta.get(key)
            text = str(row.get("text")) if row else ""
            given = (sha256_hex(text.encode()) if text else "") if row else "nothing"
            if given != data["sha256"]:
                what = "access.text_changed" if row else "access.text_deleted"
                yield Observed(what, f"{key.partition}/{key.sort}", str(data["sha256"]), given)


def _fold_of(subject: str) -> Callable[[list[Event]], Mapping[str, Any]]:
    return lambda events: grants_item(fold_grants(subject, events))


def _fold_placement(events: list[Event]) -> Mapping[str, Any]:
    marks = [mark_of(event) for event in events]
    return {**Placement.from_item(events[-1]["data"]).to_item(), "changed": marks, "rev": len(marks)}


def _fold_policies(events: list[Event]) -> Mapping[str, Any]:
    marks = [mark_of(event) for event in events]
    policies = {str(e["data"]["name"]): {"number": int(e["data"]["number"]), "sha256": str(e["data"]["sha256"])} for e in events}
    return {"policies": policies, "changed": marks, "rev": len(marks)}
