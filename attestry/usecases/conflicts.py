"""Conflicts of interest on a model: declared by the person or by an admin for them, withdrawn by an admin alone.

The row of a person and a model stays, with what was said last; each change is an event of the ledger in the same transaction. A decision
takes part in the row by a condition, so that nobody decides past a declaration that is made at the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from attestry.domain.conflicts import DECLARED, FRESH_EYES, Conflict
from attestry.domain.errors import ConditionFailedError, ConflictError, ForbiddenError, NotFoundError
from attestry.domain.events import Event, timestamp
from attestry.domain.paging import WHOLE, Page
from attestry.domain.principal import Principal, person_id
from attestry.domain.version import Version
from attestry.ports import ABSENT, Check, Item, Key, MetaStore, Put, When
from attestry.usecases.records import model_key, outbox_put, person_key, version_key

LOOK_BACK = 50
"""How many versions back the last approved one is looked for."""


@dataclass(frozen=True)
class Declaration:
    """A conflict of interest of a person on a model.

    Attributes:
        model: the model's name.
        person: who has it.
        active: whether it stands; False once it is withdrawn.
        reason: what was said last.
        by: who said that.
        at: when, RFC 3339.
    """

    model: str
    person: str
    active: bool
    reason: str
    by: str
    at: str

    @classmethod
    def from_item(cls, row: Mapping[str, Any]) -> Declaration:
        """Return the declaration that a row tells of."""
        return cls(row["model"], row["person"], bool(row.get("active")), row["reason"], row["by"], row["at"])


def conflict_key(model: str, person: str) -> Key:
    """Return the key of what is declared about a person and a model."""
    return Key(f"CONFLICT#{model}", person)


def declare_conflict(
    meta: MetaStore, model: str, *, person: str, reason: str, by: Principal, at: datetime, withdraw: bool = False
) -> Declaration:
    """Record that a person has a conflict of interest on a model, or has it no more; the same again changes nothing.

    Args:
        meta: the table.
        model: the model's name.
        person: who has it; empty for the caller.
        reason: why, checked.
        by: the authenticated principal.
        at: the time.
        withdraw: that it is no more.

    Raises:
        UnprovenIdentityError: the caller maps to no person.
        ForbiddenError: who is no admin speaks for somebody else, or withdraws.
        NotFoundError: no such model or person.
        ConflictError: it was changed by somebody else at the same time.
    """
    own = by.require_person("declare a conflict of interest")
    about = person_id(person) if person else own
    if (about != own or withdraw) and "admin" not in by.roles:
        raise ForbiddenError("a person declares own conflicts of interest; those of others, and that one is no more, an admin records")
    if withdraw and about == own:
        raise ForbiddenError("nobody withdraws their own conflict of interest; another admin does")
    if meta.get(model_key(model)) is None:
        raise NotFoundError(f"there is no model {model}")
    if meta.get(person_key(about)) is None and about != own:
        raise NotFoundError(f"there is no person {about}")
    key = conflict_key(model, about)
    row = meta.get(key)
    if bool(row and row.get("active")) is not withdraw:
        if row is None:
            raise NotFoundError(f"{about} has declared no conflict of interest on {model}")
        return Declaration.from_item(row)
    rev = int(row["rev"]) + 1 if row else 1
    kind = "conflict.withdrawn" if withdraw else "conflict.declared"
    item: Item = {"model": model, "person": about, "reason": reason, "by": own, "at": timestamp(at), "rev": rev}
    item |= {} if withdraw else {"active": True}
    event = Event(kind, f"conflict/{model}/{about}", rev, at, by, {"model": model, "person": about, "reason": reason})
    when = When(exists=True, equals={"rev": rev - 1}) if row else ABSENT
    try:
        meta.transact([Put(key, item, when), outbox_put(event)])
    except ConditionFailedError as error:
        raise ConflictError(f"the conflict of {about} on {model} was changed at the same time; try again") from error
    return Declaration.from_item(item)


def conflicts_of(meta: MetaStore, model: str, page: Page = WHOLE) -> list[Declaration]:
    """Return what is declared on a model, by person, what was withdrawn included; by default all of it, else of a page and one more."""
    return [Declaration.from_item(row) for row in meta.query(conflict_key(model, "").partition, after=page.after, limit=page.ahead)]


def require_none(model: str, persons: set[str]) -> list[Check]:
    """Return the conditions under which persons have no conflict on a model when a decision is written."""
    return [Check(conflict_key(model, person), When(equals={"active": None})) for person in sorted(persons)]


def conflicts_at_opening(meta: MetaStore, version: Version, *, fresh_eyes: bool) -> list[dict[str, str]]:
    """Return who does not decide on a version by what is known when its approval opens; for the packet.

    Args:
        meta: the table.
        version: the version.
        fresh_eyes: whether who approved the version before does not decide.
    """
    found = [
        Conflict(d.person, DECLARED, f"declared by {d.by} at {d.at}: {d.reason}") for d in conflicts_of(meta, version.model) if d.active
    ]
    if fresh_eyes:
        found += [Conflict(person, FRESH_EYES, f"approved {before} before") for before, person in _approved_before(meta, version)]
    return [conflict.to_item() for conflict in found]


def _approved_before(meta: MetaStore, version: Version) -> list[tuple[str, str]]:
    """Return who approved this version the last times, or else the last version before it that somebody approved."""
    numbers = range(version.number, max(0, version.number - LOOK_BACK), -1)
    for number in numbers:
        rows = meta.query(version_key(version.model, number).partition, prefix="APPROVAL#")
        persons = sorted({str(r["person"]) for r in rows if r["decision"] == "approve" and r["principal"]["person"]})
        if persons and (number == version.number or not any(r["decision"] == "reject" for r in rows)):
            return [(f"{version.model}@{number}", person) for person in persons]
    return []
