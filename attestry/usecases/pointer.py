"""The pointer: which version stands deployed in an environment, or why none does.

A pointer names a version (`number`), or is vacant since the version that it named was killed or retired. A vacant one keeps its revision
and what is kept for rollback (`previous`), so that a rollback works at once; it tells who emptied it, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attestry.domain.errors import NotFoundError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.domain.version import Version
from attestry.ports import Item, Update, When
from attestry.usecases.records import pointer_key

KILLED, RETIRED = "version.killed", "version.retired"


def number_in(pointer: Mapping[str, Any] | None) -> int | None:
    """Return the number of the version that the pointer names; None where there is no pointer, or a vacant one."""
    number = pointer.get("number") if pointer else None
    return None if number is None else int(number)


def kept_in(pointer: Mapping[str, Any] | None) -> int | None:
    """Return the number of the version that is kept for rollback, or None."""
    previous = pointer.get("previous") if pointer else None
    return None if previous is None else int(previous)


def require_deployed(pointer: Item | None, model: str, environment: str) -> Item:
    """Return the pointer if it names a version.

    Raises:
        NotFoundError: nothing is deployed there, with the reason where something was.
    """
    if pointer is not None and number_in(pointer) is not None:
        return pointer
    why = f": {vacancy(pointer)}" if pointer else ""
    raise NotFoundError(f"no version of {model} is deployed in {environment}{why}")


def vacancy(pointer: Mapping[str, Any]) -> str:
    """Return the sentence that tells why a pointer is vacant: `X@3 was killed at ... by ...: reason`."""
    told = pointer.get("vacant") or {}
    act = "killed" if told.get("kind") == KILLED else "retired"
    return f"{pointer['model']}@{told.get('number')} was {act} at {told.get('at')} by {told.get('by')}: {told.get('reason')}"


def vacate(pointer: Item, version: Version, *, kind: str, by: Principal, reason: str, at: datetime) -> Update:
    """Return the write that takes a version off a pointer: from its place, from what is kept for rollback, or from both.

    Args:
        pointer: the row as it was read; the write is refused if it has changed since.
        version: the version that leaves.
        kind: `version.killed` or `version.retired`.
        by: who.
        reason: why.
        at: when.
    """
    changes: Item = {"rev": int(pointer["rev"]) + 1}
    if kept_in(pointer) == version.number:
        changes["previous"] = None
    if number_in(pointer) == version.number:
        told = {"number": version.number, "kind": kind, "at": timestamp(at), "by": by.person or by.login, "reason": reason}
        changes |= {"number": None, "version_digest": None, "execution_id": None, "folder": None}
        changes |= {"vacant": told, "at": timestamp(at), "by": by.to_item()}
    when = When(exists=True, equals={"rev": pointer["rev"]})
    return Update(pointer_key(version.model, str(pointer["environment"])), changes, when)
