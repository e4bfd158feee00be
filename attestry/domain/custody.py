"""Custody: how long what a version left is kept, what may not be touched, and what may be deleted in the end.

Rules:
- The period of a retention class begins when the version goes out of use; before that nothing of it is disposed.
- A legal hold stops every disposal, one that was asked for or confirmed included: after the hold it has to be asked for anew.
- Payload alone is disposed: frozen files, prepared data, predictions of the hold-out, captured requests and outputs. Artifact manifest,
  manifest, records, logs, receipts and evidence stay, so that what is gone keeps its digest and its proof.
- Only what lies in the version's own folders is disposed. Source data (`datasets/<sha256>/`) belong to every version that reads them.
- One person asks for a disposal, and another one confirms it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from attestry.domain.errors import ConflictError, ForbiddenError
from attestry.domain.manifest_sections import Retention
from attestry.domain.principal import Principal

PLACED: Final = "legal_hold.placed"
LIFTED: Final = "legal_hold.lifted"
REQUESTED: Final = "disposal.requested"
CONFIRMED: Final = "disposal.confirmed"
DISPOSED: Final = "version.disposed"
ENDED: Final = "disposal.ended"
KINDS: Final = frozenset({PLACED, LIFTED, REQUESTED, CONFIRMED, DISPOSED, ENDED})
"""Moves that change neither stage, status nor standing; a version that is out of use can still make them."""

PLACERS: Final = ("approver", "validator", "auditor", "admin")
LIFTERS: Final = ("admin",)
REQUESTERS: Final = ("admin",)
CONFIRMERS: Final = ("approver",)
"""Who runs the registry asks, who answers for versions confirms: neither can delete anything without the other."""

_PAYLOAD = re.compile(
    r"frozen/(?!artifact-manifest\.json$|manifest\.json$).+"
    r"|stages/PROCESSING/[0-9]+/data/.+"
    r"|stages/VALIDATION/[0-9]+/predictions\.json"
    r"|predictions/payloads/.+"
    r"|predictions/.+\.private\.ndjson"
)
_ERASABLE = re.compile(r"predictions/payloads/.+|predictions/.+\.private\.ndjson")


@dataclass(frozen=True)
class Custody:
    """What the moves of a version make of it.

    Attributes:
        legal_hold: `by` (person), `reason`, `at`; empty where there is none.
        disposal: `state` (`requested`, `confirmed`, `ended`), `by`, `reason`, `at`, `request` (number of the transition that asked); once
            confirmed also `confirmed_by`, `confirmed_at`, `confirmation` and `objects`, how many were disposed; once ended `ended_at`,
            `left` and `left_until`. Empty where none was asked for, or a legal hold has stopped it.
    """

    legal_hold: Mapping[str, Any] = field(default_factory=dict)
    disposal: Mapping[str, Any] = field(default_factory=dict)

    def after(self, move: Mapping[str, Any]) -> Custody:
        """Return what stands after a move that has `kind`, `number`, `principal`, `reason`, `at` and `data`."""
        kind, who, data = str(move["kind"]), str(move["principal"].get("person")), move["data"]
        told = {"by": who, "reason": str(move["reason"]), "at": str(move["at"])}
        if kind == PLACED:
            return Custody(told, self.disposal if self.disposal.get("state") == "ended" else {})
        if kind == LIFTED:
            return Custody({}, self.disposal)
        if kind == REQUESTED:
            return Custody(self.legal_hold, {"state": "requested", **told, "request": int(move["number"])})
        if kind == CONFIRMED:
            confirmed = {"confirmed_by": who, "confirmed_at": told["at"], "confirmation": int(move["number"]), "objects": 0}
            return Custody(self.legal_hold, {**self.disposal, "state": "confirmed", **confirmed})
        if kind == DISPOSED:
            return Custody(self.legal_hold, {**self.disposal, "objects": int(self.disposal.get("objects", 0)) + int(data["objects"])})
        if kind == ENDED:
            ended = {"state": "ended", "ended_at": told["at"], "left": int(data["left"]), "left_until": str(data["left_until"])}
            return Custody(self.legal_hold, {**self.disposal, **ended})
        return self


def custody_after(moves: Iterable[Mapping[str, Any]]) -> Custody:
    """Return what stands after some moves, in order; see `Custody.after`."""
    custody = Custody()
    for move in moves:
        if move["kind"] in KINDS:
            custody = custody.after(move)
    return custody


def version_prefix(model: str, number: int) -> str:
    """Return what the keys of all objects of a version begin with, and those of no other version.

    A version has more than one folder where an earlier attempt was cut off while it froze; each begins with the number and a hyphen.
    """
    return f"models/{model}/{number}-"


def is_payload(key: str, model: str, number: int) -> bool:
    """Return whether an object of the version is payload: gone, it leaves the proof whole."""
    return _matches(_PAYLOAD, key, model, number)


def is_erasable(key: str, model: str, number: int) -> bool:
    """Return whether an object may have to be erased before its time, for the sake of a person: it is never locked by a class."""
    return _matches(_ERASABLE, key, model, number)


def _matches(pattern: re.Pattern[str], key: str, model: str, number: int) -> bool:
    prefix = version_prefix(model, number)
    if not key.startswith(prefix):
        return False
    return pattern.fullmatch(key.removeprefix(prefix).partition("/")[2]) is not None


def retention_over(retention: Retention | None, retired_at: str) -> str:
    """Return the first day (UTC, `YYYY-MM-DD`) on which the retention of a version is over.

    Args:
        retention: the class that its manifest names; None for none, and the day is that on which it went out of use.
        retired_at: when it went out of use, RFC 3339 in UTC.
    """
    day = date.fromisoformat(retired_at[:10])
    if retention is None:
        return day.isoformat()
    last = 28 if (day.month, day.day) == (2, 29) else day.day
    return day.replace(year=day.year + retention.years, day=last).isoformat()


def require_role(act: str, roles: tuple[str, ...], by: Principal, reference: str) -> str:
    """Return the person behind the caller, who acts in one of the roles.

    Raises:
        ForbiddenError: the caller acts in none of them.
        UnprovenIdentityError: the caller maps to no person.
    """
    if not set(by.roles) & set(roles):
        raise ForbiddenError(
            f"to {act} {reference} takes the role {' or '.join(roles)}; {by.login} acts as {' and '.join(by.roles) or 'none'}",
            details={"roles": list(roles), "login": by.login, "acts_as": list(by.roles)},
        )
    return by.require_person(f"{act} a version")


def require_confirmer(person: str, disposal: Mapping[str, Any], submitter: str | None, reference: str) -> None:
    """Refuse who may not confirm a disposal that was asked for.

    Raises:
        ConflictError: none was asked for.
        ForbiddenError: the person asked for it, or submitted the version.
    """
    if disposal.get("state") not in ("requested", "confirmed"):
        raise ConflictError(f"nobody has asked for a disposal of {reference}; an admin does, by `attestry dispose`")
    if person == disposal["by"]:
        raise ForbiddenError(f"{person} asked for the disposal of {reference}; another person confirms it")
    if person == submitter:
        raise ForbiddenError(f"{person} submitted {reference}; another person confirms its disposal")
