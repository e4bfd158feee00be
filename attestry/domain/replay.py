"""Replay: what the table must hold if the ledger is right, from the events alone, and where it holds something else.

The rows are an index over the ledger. Replaying its events in order gives every version's transitions and standing, every decision, what is
deployed where, and who a login belongs to; what differs was changed around the registry, or lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attestry.domain.custody import custody_after
from attestry.domain.holds import held_after
from attestry.domain.promotion import DECIDED, REJECTED, promotions_after
from attestry.domain.stages import LAPSED, PROMOTION_LAPSED
from attestry.domain.validations import latest_of

DECISIONS = frozenset({"approval.given", "version.approved", "version.rejected"})
PROMOTION_DECISIONS = frozenset(DECIDED)
ARRIVALS = frozenset({"version.deployed", "version.rolled_back"})
DEPARTURES = frozenset({"version.killed", "version.retired", LAPSED, PROMOTION_LAPSED})
BEGINNINGS = {"version.canaried": "canary", "version.shadowed": "shadow"}
PLACINGS = ARRIVALS | BEGINNINGS.keys()
"""Moves that put a version somewhere: after them it may be delegated to."""

ROLLOUT_ENDS = frozenset({*DEPARTURES, *ARRIVALS, "rollout.halted", "rollout.ended"})
_STATE = ("stage", "status", "standing")
_OF_EVENT = ("kind", "at", "principal")
_OF_DATA = ("from", "to", "reason", "evidence", "version_digest")


@dataclass(frozen=True)
class Difference:
    """One thing in which the table differs from the ledger.

    Attributes:
        where: `tumour-diagnosis@3`, `tumour-diagnosis/production`, `person/erin`.
        what: the field or record.
        ledger: what the ledger says; None where it knows nothing of it.
        table: what the table says; None where it is not there.
    """

    where: str
    what: str
    ledger: Any
    table: Any

    def to_item(self) -> dict[str, Any]:
        """Return the difference as JSON."""
        return {"where": self.where, "what": self.what, "ledger": self.ledger, "table": self.table}


@dataclass
class Index:
    """What the events say.

    Attributes:
        transitions: reference of a version to its events by number.
        pointers: `(model, environment)` to the number deployed there, or None.
        rollouts: `(model, environment, "canary" or "shadow")` to the number that stands so there and its share (0 of a shadow).
        logins: login to person.
        events: how many events were replayed.
    """

    transitions: dict[str, dict[int, Mapping[str, Any]]] = field(default_factory=dict)
    pointers: dict[tuple[str, str], int | None] = field(default_factory=dict)
    rollouts: dict[tuple[str, str, str], tuple[int, int]] = field(default_factory=dict)
    logins: dict[str, str] = field(default_factory=dict)
    events: int = 0

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take in the next event of the ledger."""
        self.events += 1
        kind, subject, data = str(event["kind"]), str(event["subject"]), event["data"]
        if kind == "person.changed":
            for login in data.get("logins", ()):
                self.logins[str(login)] = subject.removeprefix("person/")
        elif "@" in subject and "to" in data:
            self.transitions.setdefault(subject, {})[int(event["sequence"])] = event
            self._move_pointer(kind, subject, data)

    def _move_pointer(self, kind: str, subject: str, data: Mapping[str, Any]) -> None:
        model, _, number = subject.partition("@")
        self._move_rollout(kind, model, int(number), data)
        if kind in ARRIVALS or kind in BEGINNINGS or kind in DEPARTURES:
            # A version stands in one place at a time.
            for place, deployed in self.pointers.items():
                if place[0] == model and deployed == int(number):
                    self.pointers[place] = None
        if kind in ARRIVALS:
            self.pointers[(model, str(data["environment"]))] = int(number)

    def _move_rollout(self, kind: str, model: str, number: int, data: Mapping[str, Any]) -> None:
        if kind in ROLLOUT_ENDS or kind in BEGINNINGS:
            self.rollouts = {place: who for place, who in self.rollouts.items() if (place[0], who[0]) != (model, number)}
        if kind in BEGINNINGS:
            self.rollouts[(model, str(data["environment"]), BEGINNINGS[kind])] = (number, int(data.get("share", 0)))
        elif kind == "rollout.advanced":
            self.rollouts[(model, str(data["environment"]), "canary")] = (number, int(data["share"]))


def replay(events: Iterable[Mapping[str, Any]]) -> Index:
    """Return what the events say, taken in the ledger's order."""
    index = Index()
    for event in events:
        index.apply(event)
    return index


def compare_version(index: Index, reference: str, head: Mapping[str, Any], transitions: Iterable[Mapping[str, Any]]) -> list[Difference]:
    """Return where the rows of a version differ from the ledger.

    Args:
        index: the replayed ledger.
        reference: `MODEL@N`.
        head: its head row, or what the API shows of it.
        transitions: its transition rows.
    """
    found: list[Difference] = []
    events = index.transitions.get(reference, {})
    rows = {int(t["number"]): t for t in transitions}
    for number in sorted(events.keys() | rows.keys()):
        what = f"transition {number}"
        if number not in rows:
            found.append(Difference(reference, what, events[number]["kind"], None))
        elif number not in events:
            found.append(Difference(reference, what, None, rows[number]["kind"]))
        else:
            found += _compare_transition(reference, what, events[number], rows[number])
    if events:
        last = events[max(events)]
        for name in _STATE:
            if head.get(name) != last["data"]["to"][name]:
                found.append(Difference(reference, name, last["data"]["to"][name], head.get(name)))
        if int(head.get("transition", 0)) != max(events):
            found.append(Difference(reference, "transition", max(events), head.get("transition")))
        moves = [{**e, "number": n, "reason": e["data"].get("reason")} for n, e in sorted(events.items())]
        custody = custody_after(moves)
        left = {"legal_hold": custody.legal_hold, "disposal": custody.disposal, "held": held_after(moves), "validations": latest_of(moves)}
        for name, told in {**left, "promotions": promotions_after(moves)}.items():
            if dict(head.get(name) or {}) != told:
                found.append(Difference(reference, name, told, head.get(name)))
        if (head.get("version_digest") or "") != (last["data"].get("version_digest") or ""):
            found.append(Difference(reference, "version_digest", last["data"].get("version_digest"), head.get("version_digest")))
    return found


def compare_approvals(index: Index, reference: str, approvals: Iterable[Mapping[str, Any]]) -> list[Difference]:
    """Return where the decisions on a version, and on its promotions, differ from those that the ledger tells of."""
    told = {
        int(number): (str(event["principal"].get("person") or event["principal"]["login"]), str(event["kind"]))
        for number, event in index.transitions.get(reference, {}).items()
        if event["kind"] in PROMOTION_DECISIONS or (event["kind"] in DECISIONS and event["data"]["to"]["stage"] == "APPROVAL")
    }
    rows = {int(a["transition"]): (str(a["person"]), str(a["decision"])) for a in approvals}
    found: list[Difference] = []
    for number in sorted(told.keys() | rows.keys()):
        person, kind = told.get(number, (None, None))
        by, decision = rows.get(number, (None, None))
        expected = None if kind is None else "reject" if kind in ("version.rejected", REJECTED) else "approve"
        if (person, expected) != (by, decision):
            found.append(Difference(reference, f"decision {number}", _said(person, expected), _said(by, decision)))
    return found


def compare_pointers(index: Index, model: str, pointers: Iterable[Mapping[str, Any]]) -> list[Difference]:
    """Return where what the table says is deployed differs from what the ledger says."""
    pointers = list(pointers)
    rows = {str(p["environment"]): p.get("number") for p in pointers}
    found = _compare_rollouts(index, model, pointers)
    told = {environment: number for (of, environment), number in index.pointers.items() if of == model}
    return found + [
        Difference(f"{model}/{environment}", "deployed version", told.get(environment), rows.get(environment))
        for environment in sorted(told.keys() | rows.keys())
        if told.get(environment) != (None if rows.get(environment) is None else int(rows[environment]))  # type: ignore[arg-type]
    ]


def _compare_rollouts(index: Index, model: str, pointers: Iterable[Mapping[str, Any]]) -> list[Difference]:
    told = {(where, what): who for (of, where, what), who in index.rollouts.items() if of == model}
    rows: dict[tuple[str, str], tuple[int, int]] = {}
    for pointer in pointers:
        for what in BEGINNINGS.values():
            there = pointer.get(what)
            if there:
                rows[(str(pointer["environment"]), what)] = (int(there["number"]), int(there.get("share", 0)))
    return [
        Difference(f"{model}/{where}", what, _placed(told.get((where, what))), _placed(rows.get((where, what))))
        for where, what in sorted(told.keys() | rows.keys())
        if told.get((where, what)) != rows.get((where, what))
    ]


def _placed(who: tuple[int, int] | None) -> str | None:
    return None if who is None else f"version {who[0]}, {who[1]} percent"


def compare_people(index: Index, logins: Mapping[str, str]) -> list[Difference]:
    """Return where the persons behind logins differ."""
    return [
        Difference(f"login/{login}", "person", index.logins.get(login), logins.get(login))
        for login in sorted(index.logins.keys() | logins.keys())
        if index.logins.get(login) != logins.get(login)
    ]


def _compare_transition(reference: str, what: str, event: Mapping[str, Any], row: Mapping[str, Any]) -> list[Difference]:
    data = event["data"]
    told = {**{name: event[name] for name in _OF_EVENT}, **{name: data.get(name) for name in _OF_DATA}, **_facts(data)}
    shown = {
        **{name: row.get(name) for name in (*_OF_EVENT, *_OF_DATA)},
        **dict(row.get("data") or {}),
        "attestation": (row.get("attestation") or {}).get("sha256"),
    }
    return [
        Difference(reference, f"{what}: {name}", told.get(name), shown.get(name))
        for name in sorted(told.keys() | shown.keys())
        if told.get(name) != shown.get(name)
    ]


def _facts(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in _OF_DATA}


def _said(person: str | None, decision: str | None) -> str | None:
    return None if person is None else f"{decision} by {person}"
