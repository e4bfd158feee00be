"""Events about who may do what, and the rows that each was written with.

Each row lists the events that changed it, in order: what waits for the ledger is borne out by that list, and reconciliation finds by it
what is still on its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestry.access.rows import POLICIES_KEY, grant_key, placement_key
from attestry.domain.events import Event, timestamp
from attestry.ports import Key

GRANT_GIVEN: Final = "grant.given"
GRANT_WITHDRAWN: Final = "grant.withdrawn"
MODEL_PLACED: Final = "model.placed"
ACCESS_PUBLISHED: Final = "access.published"
ACCESS_SUBJECT: Final = "access"

ABOUT: Final[Mapping[str, str]] = {
    GRANT_GIVEN: "grant",
    GRANT_WITHDRAWN: "grant",
    MODEL_PLACED: "placement",
    ACCESS_PUBLISHED: "access",
}
"""Kind to what it is about."""


def grant_event_subject(subject: str) -> str:
    """Return the subject of the events about what somebody holds."""
    return f"grant/{subject}"


def placed_event_subject(model: str) -> str:
    """Return the subject of the events about where a model is placed."""
    return f"placed/{model}"


def row_of(event: Mapping[str, Any]) -> Key:
    """Return the key of the row that an event of a kind of `ABOUT` was written with."""
    kind, subject = str(event["kind"]), str(event["subject"])
    if kind == ACCESS_PUBLISHED:
        return POLICIES_KEY
    if kind == MODEL_PLACED:
        return placement_key(subject.removeprefix("placed/"))
    return grant_key(subject.removeprefix("grant/"))


def mark_of(event: Mapping[str, Any]) -> str:
    """Return what the row lists of an event: its time and ID, which is also the sort key under which it waits in the outbox."""
    return f"{event['at']}#{str(event['id'])[:32]}"


def mark(event: Event) -> str:
    """Return the same of an event that is being made."""
    return mark_of({"at": timestamp(event.at), "id": event.event_id})
