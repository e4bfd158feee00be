"""Audited acts that change nothing: what was denied, and who read what of predictions and data.

Rules:
- One row for each principal, act, object and outcome of a minute, written by one process alone: the same again counts up in the row, so a
  stranger who repeats makes no further rows. From the 16th on the row is written at every doubling, so they cost no writes either: the
  row's `count` is exact up to 16, and beyond it at least what it says and less than double.
- Of one principal and minute a process tells at most 20 denied and 1,000 allowed objects apart; what goes beyond is counted under `other`.
  Beyond 2,000 rows a minute it counts strangers together.
- The minute is when it happened, by the process's clock; rows are taken up by the ledger once their minute is over for good.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from attestry.domain.events import timestamp
from attestry.domain.principal import Principal

AUDIT: Final = "AUDIT"
OTHER: Final = "other"
MAX_ROWS: Final = 2_000
EXACT: Final = 16
MAX_TEXT: Final = 256
_STRANGERS: Final = Principal("other", "other", "", "", "", "other")


class Outcome(StrEnum):
    """How an act ended."""

    ALLOWED = "allowed"
    DENIED = "denied"


MAX_OBJECTS: Final = {Outcome.ALLOWED: 1_000, Outcome.DENIED: 20}


@dataclass(frozen=True)
class AuditedAct:
    """What somebody did or tried.

    Attributes:
        principal: who, with address and authentication method.
        act: what: a route, or a name such as `prediction.trace`.
        object: on what.
        outcome: whether they were let.
        reason: code of the error, where they were not.
    """

    principal: Principal
    act: str
    object: str
    outcome: Outcome
    reason: str = ""

    def __post_init__(self) -> None:
        for name in ("act", "object", "reason"):
            object.__setattr__(self, name, _plain(getattr(self, name)))

    @property
    def digest(self) -> str:
        """Return what tells the act apart from others of its minute."""
        who = self.principal
        parts = (who.subject, who.user_id, who.method, who.address, self.act, self.object, self.outcome.value, self.reason)
        return hashlib.sha256("\n".join(part.replace("\n", " ") for part in parts).encode()).hexdigest()


@dataclass(frozen=True)
class AuditRow:
    """A row to write: `sort` is its key in the partition AUDIT."""

    sort: str
    item: dict[str, Any]


@dataclass
class Tally:
    """What one process has counted in the present minute.

    Attributes:
        process: tells its rows from those of other processes.
    """

    process: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    _minute: str = ""
    _rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    _objects: dict[tuple[str, Outcome], int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, act: AuditedAct, at: datetime) -> AuditRow | None:
        """Count an act, and return the row to write; None where it need not be written again."""
        with self._lock:
            moment = timestamp(at)
            minute = moment[:16]
            if minute != self._minute:
                self._minute, self._rows, self._objects = minute, {}, {}
            counted = self._bounded(act)
            row = self._rows.setdefault(counted.digest, _new_row(counted, minute, moment))
            row["count"] += 1
            row["last"] = moment
            count = int(row["count"])
            if count > EXACT and count & (count - 1):
                return None
            return AuditRow(f"{minute}#{counted.digest[:32]}#{self.process}", dict(row))

    def _bounded(self, act: AuditedAct) -> AuditedAct:
        if act.digest in self._rows:
            return act
        who = (act.principal.subject, act.outcome)
        told_apart = self._objects.get(who, 0)
        if told_apart >= MAX_OBJECTS[act.outcome]:
            act = replace(act, act=OTHER, object=OTHER, reason="")
        if act.digest not in self._rows and len(self._rows) >= MAX_ROWS:
            return AuditedAct(_STRANGERS, OTHER, OTHER, act.outcome)
        self._objects[who] = told_apart + 1
        return act


def _new_row(act: AuditedAct, minute: str, moment: str) -> dict[str, Any]:
    return {
        "minute": minute,
        "principal": act.principal.to_item(),
        "act": act.act,
        "object": act.object,
        "outcome": act.outcome.value,
        "reason": act.reason,
        "count": 0,
        "first": moment,
        "last": moment,
    }


def _plain(text: str) -> str:
    """Return a text that any reader can be shown: printable, of bounded length. What a stranger sends ends up here."""
    cut = text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
    return "".join(c if c.isprintable() else "\ufffd" for c in cut)
