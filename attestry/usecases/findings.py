"""Findings: what reconciliation saw that the registry did not do, opened when it is seen, closed when it is gone.

FINDINGS#<model>#<number>/FINDING#<id>     what, where, expected, found, unit, opened, closed; while it is open in the collection FINDINGS

Rules:
- A finding is its kind and its place; seen again it stays the one that is open, whatever the bytes there are by now.
- Opening and closing are events, each in one transaction with the row.
- What opened a finding closes it: the same unit of work, once it looks at the same place again and does not see it any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestry.domain.errors import ConditionFailedError
from attestry.domain.events import Event, shorten, timestamp
from attestry.domain.paging import WHOLE, Page
from attestry.domain.principal import registry_principal
from attestry.ports import ABSENT, Item, Key, MetaStore, Put, Update, When
from attestry.usecases.records import outbox_put

OPENED, CLOSED = "finding.opened", "finding.closed"
COLLECTION: Final = "FINDINGS"
REGISTRY: Final = ""
"""In the place of a model's name: what concerns the registry as a whole."""

MAX_TEXT = 300
_SHOWN = ("id", "what", "where", "expected", "found", "model", "number", "opened")


@dataclass(frozen=True)
class Observed:
    """Something that the registry did not do.

    Attributes:
        what: its kind, for example `transition.changed`.
        where: the row or object.
        expected: what ought to be there.
        found: what is.
    """

    what: str
    where: str
    expected: str
    found: str

    @property
    def id(self) -> str:
        """Return its ID: of the kind and the place."""
        return hashlib.sha256(f"{self.what}\n{self.where}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Scope:
    """What a unit of work looks at, and where its findings are kept.

    Attributes:
        unit: name of the unit of work.
        model: the model's name; empty for the registry as a whole.
        number: the version's number; 0 for the model as a whole.
    """

    unit: str
    model: str = REGISTRY
    number: int = 0

    @property
    def partition(self) -> str:
        """Return the partition of its findings."""
        return f"FINDINGS#{self.model}#{self.number}"


@dataclass(frozen=True)
class Settled:
    """How many findings were opened and closed."""

    opened: int = 0
    closed: int = 0


def settle(meta: MetaStore, scope: Scope, observed: Sequence[Observed], at: datetime) -> Settled:
    """Bring the findings of a unit of work in line with what it has seen."""
    rows = {str(row["sk"]).removeprefix("FINDING#"): row for row in meta.query(scope.partition, prefix="FINDING#")}
    seen = {one.id: one for one in observed}
    opened = sum(_open(meta, scope, one, rows.get(one.id), at) for one in seen.values())
    gone = [row for id_, row in rows.items() if id_ not in seen and row.get("unit") == scope.unit and not row.get("closed")]
    return Settled(opened, sum(_close(meta, scope, row, at) for row in gone))


def list_findings(meta: MetaStore, page: Page = WHOLE) -> list[dict[str, Any]]:
    """Return the open findings of a page and one more, the oldest first; by default all of them."""
    rows = meta.list_collection(COLLECTION, after=page.after, limit=page.ahead)
    return [{name: row.get(name) for name in _SHOWN} for row in rows]


def place_of(finding: Mapping[str, Any]) -> str:
    """Return a finding's place among all that are open."""
    return f"{finding['opened']}#{finding['id']}"


def findings_of(meta: MetaStore, model: str, number: int) -> list[dict[str, Any]]:
    """Return the open findings about a version, strongly consistent."""
    rows = meta.query(Scope("", model, number).partition, prefix="FINDING#")
    return [{name: row.get(name) for name in _SHOWN} for row in rows if not row.get("closed")]


def _open(meta: MetaStore, scope: Scope, one: Observed, row: Item | None, at: datetime) -> bool:
    if row is not None and not row.get("closed"):
        return False
    told = {"what": one.what, "where": one.where, "expected": shorten(one.expected, MAX_TEXT), "found": shorten(one.found, MAX_TEXT)}
    item = {
        **told,
        "id": one.id,
        "unit": scope.unit,
        "model": scope.model,
        "number": scope.number,
        "opened": timestamp(at),
        "gsi_pk": COLLECTION,
        "gsi_sk": f"{timestamp(at)}#{one.id}",
    }
    when = ABSENT if row is None else When(exists=True, equals={"closed": row["closed"]})
    facts = {**told, "model": scope.model, "number": scope.number}
    return _write(meta, Put(_key(scope, one.id), item, when), OPENED, one.id, facts, at)


def _close(meta: MetaStore, scope: Scope, row: Item, at: datetime) -> bool:
    # Without its index keys the row leaves the collection of what is open.
    changes = {"closed": timestamp(at), "gsi_pk": None, "gsi_sk": None}
    when = When(exists=True, equals={"opened": row["opened"], "closed": None})
    facts = {name: row[name] for name in ("what", "where", "expected", "found", "opened", "model", "number")}
    return _write(meta, Update(_key(scope, str(row["id"])), changes, when), CLOSED, str(row["id"]), facts, at)


def _write(meta: MetaStore, write: Put | Update, kind: str, id_: str, facts: dict[str, Any], at: datetime) -> bool:
    # The second of the act numbers the event: a row that was deleted by hand does not make two events of one ID.
    event = Event(kind, f"finding/{id_}", int(at.timestamp()), at, registry_principal("reconcile"), facts)
    try:
        meta.transact([write, outbox_put(event)])
    except ConditionFailedError:
        return False
    return True


def _key(scope: Scope, id_: str) -> Key:
    return Key(scope.partition, f"FINDING#{id_}")
