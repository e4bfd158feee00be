"""Reconcile persons: rows of persons, logins and SSH keys with the events that gave, or took, each.

A login's row has its login for a key, so one that was planted for nobody's list is not found by itself: it is found once somebody decides
by it, since a decision's login has to be one that an event gave to the person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attestry.domain.errors import InvalidInputError
from attestry.evidence.checks_person_keys import CHANGED, person_subject
from attestry.evidence.leaf import event_id, parse_event
from attestry.evidence.ssh_signature import SshKey
from attestry.ports import Item, Key, MetaStore
from attestry.usecases.findings import Observed
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.people import PEOPLE, ssh_key_key
from attestry.usecases.records import OUTBOX, login_key, person_key


@dataclass
class _Told:
    """What the events of a person say."""

    logins: list[str] = field(default_factory=list)
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    times: list[str] = field(default_factory=list)

    def take(self, event: Mapping[str, Any]) -> None:
        data: Mapping[str, Any] = event["data"]
        self.logins += data.get("logins", ())
        self.keys |= data.get("validity", {})
        self.times.append(str(event["at"]))

    def as_row(self) -> dict[str, Any]:
        """Return the attributes of the row that follow from the events."""
        return {
            "rev": len(self.times),
            "changed": self.times,
            "logins": self.logins,
            "ssh_keys": sorted(f for f, valid in self.keys.items() if "end" not in valid),
            "ssh_keys_added": {f: valid["start"] for f, valid in self.keys.items()},
            "ssh_keys_withdrawn": {f: valid["end"] for f, valid in self.keys.items() if "end" in valid},
        }


class PeopleExaminer:
    """Examines persons.

    Args:
        meta: the table.
        ledger: what the ledger says.
    """

    def __init__(self, meta: MetaStore, ledger: LedgerBytes) -> None:
        self._meta = meta
        self._ledger = ledger

    def examine(self) -> list[Observed]:
        """Return what is not as the registry left it; a person whose row is gone is found where the ledger is examined.

        Raises:
            UnavailableError: a service did not answer.
        """
        return [one for row in self._meta.list_collection(PEOPLE) for one in self._person(str(row["person"]))]

    def _person(self, person: str) -> list[Observed]:
        key = person_key(person)
        row, where = self._meta.get(key), f"{key.partition}/{key.sort}"
        if row is None:
            return []
        told = self._told(person, row)
        if not told.times:
            return [Observed("person.without_event", where, f"an event that tells of {person}", "none")]
        expected, given = told.as_row(), {**{n: row.get(n) for n in told.as_row()}, "ssh_keys": _fingerprints(row.get("ssh_keys") or ())}
        wrong = [name for name, value in expected.items() if given[name] != value]
        if wrong:
            return [Observed("person.changed", where, str({n: expected[n] for n in wrong}), str({n: given[n] for n in wrong}))]
        return list(self._owned(person, told))

    def _told(self, person: str, row: Item) -> _Told:
        """Read the events of a person: those that the row counts, and those beyond, if it was set back."""
        told, subject = _Told(), person_subject(person)
        changed = [str(at) for at in row.get("changed") or ()]
        count = max(int(row.get("rev") or 0), len(changed))
        ids = {n: event_id(CHANGED, subject, n) for n in range(1, count + 2)}
        leaves = self._ledger.find(list(ids.values()))
        while ids[max(ids)] in leaves:
            further = max(ids) + 1
            ids[further] = event_id(CHANGED, subject, further)
            leaves |= self._ledger.find([ids[further]])
        for n, known in sorted(ids.items()):
            if known in leaves:
                told.take(leaves[known].event)
                continue
            waiting = self._meta.get(Key(OUTBOX, f"{changed[n - 1]}#{known[:32]}")) if n <= len(changed) else None
            if waiting is None:
                break
            told.take(parse_event(waiting["event"]))
        return told

    def _owned(self, person: str, told: _Told) -> Iterable[Observed]:
        wanted = {login_key(login): ("login", login) for login in told.logins}
        wanted |= {ssh_key_key(fingerprint): ("ssh_key", fingerprint) for fingerprint in told.keys}
        rows = _read(self._meta, list(wanted))
        for key, (kind, _) in wanted.items():
            row = rows.get(key)
            if row is None or row.get("person") != person:
                what = f"{kind}.deleted" if row is None else f"{kind}.changed"
                yield Observed(what, f"{key.partition}/{key.sort}", person, str((row or {}).get("person", "nothing")))


def examine_deciders(meta: MetaStore, reference: str, approvals: Iterable[Mapping[str, Any]]) -> Iterable[Observed]:
    """Yield decisions that were made by a login which the person's row does not list; the row is compared with its events by itself.

    Args:
        meta: the table.
        reference: where the decisions stand, for the finding.
        approvals: rows of decisions that hold.
    """
    by_people = [a for a in approvals if a.get("principal", {}).get("person")]
    rows = _read(meta, [person_key(str(a["principal"]["person"])) for a in by_people])
    for approval in by_people:
        login, person = str(approval["principal"]["login"]), str(approval["principal"]["person"])
        if login not in (rows.get(person_key(person)) or {}).get("logins", ()):
            yield Observed(
                "decision.login", f"{reference}/{approval['sk']}", f"a login of {person}", f"{login}, which no event gave to them"
            )


def _fingerprints(keys: Iterable[Any]) -> list[str]:
    found = []
    for text in keys:
        try:
            found.append(SshKey.parse(str(text)).fingerprint)
        except InvalidInputError:
            found.append(str(text))
    return sorted(found)


def _read(meta: MetaStore, keys: Sequence[Key]) -> dict[Key, Item]:
    found: dict[Key, Item] = {}
    for start in range(0, len(keys), 100):
        found |= meta.get_many(list(dict.fromkeys(keys[start : start + 100])))
    return found
