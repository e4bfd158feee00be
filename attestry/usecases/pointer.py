"""The pointer: which versions stand in an environment: deployed, as its canary, as its shadow; or why none is deployed.

Besides the deployed version the row may name a canary and a shadow, `{number, version_digest, execution_id, folder, capture_rate, plan,
begun, since, ...}` each; an environment has one of either at most (`attestry.usecases.rollout`).

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
from attestry.domain.stages import LAPSED, PROMOTION_LAPSED, Standing
from attestry.domain.version import Version
from attestry.ports import Item, Update, When
from attestry.usecases.records import pointer_key

KILLED, RETIRED = "version.killed", "version.retired"
PROMOTED = "promotion"
"""Why a place is vacant whose version has gone on to the next environment; no event of its own, but the deployment there."""

ROLLOUTS = {Standing.CANARY: "canary", Standing.SHADOW: "shadow"}
"""Standing to the attribute of the pointer that names who has it."""


_ACTS = {KILLED: "killed", RETIRED: "retired", PROMOTED: "promoted", LAPSED: "taken out of service", PROMOTION_LAPSED: "taken out of it"}


def number_in(pointer: Mapping[str, Any] | None) -> int | None:
    """Return the number of the version that the pointer names; None where there is no pointer, or a vacant one."""
    number = pointer.get("number") if pointer else None
    return None if number is None else int(number)


def kept_in(pointer: Mapping[str, Any] | None) -> int | None:
    """Return the number of the version that is kept for rollback, or None."""
    previous = pointer.get("previous") if pointer else None
    return None if previous is None else int(previous)


def rollout_in(pointer: Mapping[str, Any] | None, standing: Standing) -> Mapping[str, Any]:
    """Return what a pointer says of its canary or its shadow; empty where there is none."""
    told: Mapping[str, Any] = (pointer or {}).get(ROLLOUTS[standing]) or {}
    return told


def place_in(pointer: Mapping[str, Any], standing: str) -> Mapping[str, Any]:
    """Return who has a standing by a pointer: `number`, `version_digest`, `execution_id`, `folder`, `capture_rate`; empty where nobody has.

    Args:
        pointer: the pointer's row.
        standing: DEPLOYED, CANARY or SHADOW.
    """
    if standing == Standing.DEPLOYED:
        return pointer if number_in(pointer) is not None else {}
    return rollout_in(pointer, Standing(standing)) if standing in ROLLOUTS else {}


def named_in(pointer: Mapping[str, Any]) -> frozenset[int]:
    """Return the numbers of all versions that a pointer names, in whatever place."""
    places = (number_in(pointer), kept_in(pointer), *(rollout_in(pointer, s).get("number") for s in ROLLOUTS))
    return frozenset(int(number) for number in places if number is not None)


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
    act = _ACTS.get(str(told.get("kind")), "retired")
    return f"{pointer['model']}@{told.get('number')} was {act} at {told.get('at')} by {told.get('by')}: {told.get('reason')}"


def vacate(pointer: Item, version: Version, *, kind: str, by: Principal, reason: str, at: datetime) -> Update:
    """Return the write that takes a version off a pointer: from its place, from what is kept for rollback, from both, or from a rollout.

    Args:
        pointer: the row as it was read; the write is refused if it has changed since.
        version: the version that leaves.
        kind: `version.killed`, `version.retired`, `approval.lapsed`, `promotion.lapsed`, or that it was promoted.
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
    changes |= {name: None for standing, name in ROLLOUTS.items() if rollout_in(pointer, standing).get("number") == version.number}
    when = When(exists=True, equals={"rev": pointer["rev"]})
    return Update(pointer_key(version.model, str(pointer["environment"])), changes, when)
