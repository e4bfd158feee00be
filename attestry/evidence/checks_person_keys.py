"""Whether an approver's SSH key was theirs when they signed: judged by the events of the person, at the ledger time of the decision.

Rules:

- A key counts from the event that registered it to the event that withdrew it. A decision names the person's revision at which its key was
  looked up (`person_rev`), and was committed on the condition that this was the latest; so all events up to it have to be in the bundle.
- A withdrawal that was logged earlier than the decision ends the key for it, whatever revision the decision names. Within one batch, whose
  leaves are of one time, the revision decides.
- A later withdrawal changes nothing about what was signed before. It is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.errors import IntegrityError
from attestry.evidence.case import Case, Entry
from attestry.evidence.verdict import MissingError

CHANGED: Final = "person.changed"


def person_subject(person: str) -> str:
    """Return the subject of the events about a person."""
    return f"person/{person}"


def check_key(case: Case, person: str, recorded: Mapping[str, Any], decision: Entry) -> None:
    """Check that a key was registered for a person, and not withdrawn, when they decided.

    Args:
        case: the case, with its events.
        person: the person.
        recorded: what the decision says of the signature: `fingerprint`, `person_rev`.
        decision: the decision.

    Raises:
        MissingError: events of the person are not in the bundle, or not in the ledger yet.
        IntegrityError: the key was not theirs then.
    """
    fingerprint, revision = str(recorded["fingerprint"]), int(recorded.get("person_rev", 1))
    changes = sorted(case.events(CHANGED, person_subject(person)), key=lambda e: e.sequence)
    last = max([revision, *(e.sequence for e in changes)])
    absent = sorted(set(range(1, last + 1)) - {e.sequence for e in changes})
    if absent:
        raise MissingError(f"{CHANGED} {absent[0]} of {person} is not in the bundle, so it is not shown whose the key {fingerprint} was")
    added = next((e for e in changes if fingerprint in e.data.get("ssh_keys", ())), None)
    if added is None or ("person_rev" in recorded and added.sequence > revision):
        raise IntegrityError(f"the key {fingerprint} was not registered for {person} when the decision was made")
    if added.index is None and decision.index is not None:
        raise MissingError(f"the event that registered {fingerprint} for {person} is not in the ledger yet")
    if _is_earlier(decision, added):
        raise IntegrityError(f"the key {fingerprint} was registered for {person} at {added.at}, after the decision was logged")
    withdrawn = next((e for e in changes if fingerprint in e.data.get("withdrawn", ())), None)
    if withdrawn is None:
        return
    if ("person_rev" in recorded and withdrawn.sequence <= revision) or _is_earlier(withdrawn, decision):
        raise IntegrityError(f"the key {fingerprint} of {person} had been withdrawn before they decided: {withdrawn.place}")
    case.notes.append(f"the key {fingerprint} of {person} was withdrawn after this decision: {withdrawn.place}")


def _is_earlier(one: Entry, other: Entry) -> bool:
    """Return whether the ledger had the one before it had the other; leaves of one batch are of one time."""
    if one.index is None or other.index is None:
        return one.index is not None
    return one.at < other.at
