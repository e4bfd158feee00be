"""Expiry: the end that a manifest sets for its version, `deployment.expires`, made a retirement when the version is first put in place.

A day is known from the start, and nothing is deployed from it on. A number of days counts from the first time in place, as whatever it
stands there. The move that puts the version in place names the day, and the sweep retires it then like any that people scheduled.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attestry.domain.days import end_of
from attestry.domain.events import timestamp
from attestry.domain.version import Version
from attestry.ports import ABSENT, Key, Put, Write

RETIREMENTS = "RETIREMENTS"
SET_BY = "attestry:manifest"
REASON = "the manifest sets this end"


def retirement_key(model: str, number: int, day: str) -> Key:
    """Return the key of the row by which the sweep finds a version that is to be retired on a day."""
    return Key(RETIREMENTS, f"{day}#{model}#{number}")


def expiry_of(version: Version, at: datetime) -> tuple[Mapping[str, str], Mapping[str, Any], list[Write]]:
    """Return what a move that puts a version in place adds where its manifest sets an end: facts, changes of the head, and writes.

    Where the version has a day of retirement already, by its manifest or by people, that stays.

    Args:
        version: the version, in front of the move.
        at: the time of the move.
    """
    if not version.expires:
        return {}, {}, []
    day = end_of(version.expires, at)
    changes: dict[str, Any] = {"expires": day}
    if version.retires_on:
        return {}, changes, []
    row = {"model": version.model, "number": version.number, "on": day, "reason": REASON, "set_by": SET_BY, "set_at": timestamp(at)}
    return {"retires_on": day}, {**changes, "retires_on": day}, [Put(retirement_key(version.model, version.number, day), row, ABSENT)]
