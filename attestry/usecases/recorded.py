"""Recorded: whether a row says what its event said when both were written.

A transition's event is made anew from the row, and has to be the bytes that wait in the outbox or the leaf that the index of the ledger
names by its digest. A row that somebody changed or inserted by hand gives other bytes, or an event that nobody ever wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from attestry.domain.approvals import Verdict
from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal
from attestry.domain.promotion import Promotion, promotions_after
from attestry.domain.stages import LAPSED, PROMOTION_OPENED
from attestry.domain.version import Version
from attestry.evidence.digests import sha256_hex
from attestry.evidence.leaf import event_id
from attestry.evidence.predicates import RESERVED, MoveFacts
from attestry.ports import Item, Key, MetaStore
from attestry.usecases.ledger_head import leaf_key
from attestry.usecases.pointer import KILLED, RETIRED
from attestry.usecases.records import OUTBOX, transition_key

DECISIONS: Mapping[str, tuple[str, ...]] = {
    Verdict.APPROVE.value: ("approval.given", "version.approved"),
    Verdict.REJECT.value: ("version.rejected",),
}
"""Decision to the kinds of transition that it is written with."""

PROMOTION_DECISIONS: Mapping[str, tuple[str, ...]] = {
    Verdict.APPROVE.value: ("promotion.given", "promotion.approved"),
    Verdict.REJECT.value: ("promotion.rejected",),
}
"""The same of a decision on a promotion."""

_ENDED = (KILLED, RETIRED, LAPSED)
_SHARED = ("reason", "principal", "at", "evidence", "version_digest")


def event_of_transition(model: str, number: int, row: Mapping[str, Any]) -> Event:
    """Return the event that was written with a transition.

    Args:
        model: the model's name.
        number: the version's number.
        row: the transition's row.

    Raises:
        IntegrityError: the row is not one that the registry writes.
    """
    try:
        facts = MoveFacts(
            model=model,
            number=number,
            transition=int(row["number"]),
            kind=str(row["kind"]),
            origin=row["from"],
            to=row["to"],
            principal=row["principal"],
            reason=row["reason"],
            at=str(row["at"]),
            evidence=row["evidence"],
            version_digest=row["version_digest"],
            data=row["data"],
        )
        data = facts.event_data(str(row["attestation"]["sha256"]))
        at = datetime.fromisoformat(facts.at)
        return Event(facts.kind, f"{model}@{number}", facts.transition, at, Principal.from_item(row["principal"]), data)
    except (KeyError, TypeError, ValueError, InvalidInputError) as error:
        raise IntegrityError(f"the transition {row.get('sk')} of {model}@{number} is not as the registry writes one: {error}") from error


def waiting_key(event: Event) -> Key:
    """Return the key under which an event waits for the ledger."""
    return Key(OUTBOX, f"{timestamp(event.at)}#{event.event_id[:32]}")


def recorded_digests(meta: MetaStore, events: Sequence[Event]) -> dict[str, str]:
    """Return event ID to SHA-256, hex, of the bytes that were written under it, for those that were; two reads."""
    # In this order: the sequencer takes an event out of the outbox only once its leaf is in the index.
    waiting = meta.get_many([waiting_key(event) for event in events]) if events else {}
    kept = meta.get_many([leaf_key(event.event_id) for event in events]) if events else {}
    digests: dict[str, str] = {}
    for event in events:
        leaf, row = kept.get(leaf_key(event.event_id)), waiting.get(waiting_key(event))
        if leaf is not None:
            digests[event.event_id] = str(leaf["sha256"])
        elif row is not None and isinstance(row.get("event"), bytes):
            digests[event.event_id] = sha256_hex(row["event"])
    return digests


def check_recorded(meta: MetaStore, events: Sequence[Event]) -> None:
    """Check that events are, byte for byte, among those that the registry wrote.

    Raises:
        IntegrityError: one was never written, or otherwise.
    """
    recorded = recorded_digests(meta, events)
    for event in events:
        if event.event_id not in recorded:
            raise IntegrityError(f"{event.kind} of {event.subject} stands in a row, but no event tells of it")
        if recorded[event.event_id] != event_digest(event):
            raise IntegrityError(f"{event.kind} of {event.subject} stands in a row otherwise than its event tells it")


def event_digest(event: Event) -> str:
    """Return SHA-256, hex, of an event's bytes; of what no event can say, an empty text."""
    try:
        return sha256_hex(event.canonical_bytes())
    except (InvalidInputError, ValueError, TypeError):
        return ""


def check_approvals(meta: MetaStore, version: Version, approvals: Sequence[Item]) -> None:
    """Check that every approval was recorded as it stands: row, transition and event agree, on the packet that the version names.

    And that the version was not killed or retired: a head that says otherwise, its latest move taken back included, was changed by hand.

    Args:
        meta: the table.
        version: the version.
        approvals: the rows of approvals that are to count.

    Raises:
        IntegrityError: one was inserted or changed, or the version has been taken out of use.
    """
    keys = {int(row["transition"]): transition_key(version.model, version.number, int(row["transition"])) for row in approvals}
    latest, leaves = _ends(version)
    transitions = meta.get_many(list({*keys.values(), *latest, *leaves}))
    if any(key in transitions for key in leaves) or any(transitions.get(key, {}).get("kind") in _ENDED for key in latest):
        raise IntegrityError(f"{version.reference} was killed or retired, or its approval has lapsed, but its head does not say so")
    events: list[Event] = []
    for row in approvals:
        moved = transitions.get(keys[int(row["transition"])])
        problem = decision_problem(version, row, moved)
        if problem or moved is None:
            raise IntegrityError(f"the approval of {version.reference} by {row['person']} {problem}")
        events.append(event_of_transition(version.model, version.number, moved))
    check_recorded(meta, events)


def check_promotion(meta: MetaStore, version: Version, promotion: Promotion, opening: Item, approvals: Sequence[Item]) -> None:
    """Check that a promotion was asked for and approved as its rows say: row, transition and event agree, on the packet that it names.

    Args:
        meta: the table.
        version: the version.
        promotion: the promotion, by the version's head.
        opening: the row that was written when it was asked for.
        approvals: the rows of approvals that are to count.

    Raises:
        IntegrityError: one of them was inserted or changed.
    """
    rows = [opening, *approvals]
    keys = [transition_key(version.model, version.number, int(row["transition"])) for row in rows]
    transitions = meta.get_many(list(dict.fromkeys(keys)))
    about = f"the promotion of {version.reference} to {promotion.environment}"
    events: list[Event] = []
    for row, key in zip(rows, keys, strict=True):
        moved = transitions.get(key)
        problem = opening_problem(promotion, row, moved) if row is opening else promotion_problem(promotion, row, moved)
        if problem or moved is None:
            raise IntegrityError(f"{about}: the row of {row.get('person') or row.get('asked_by')} {problem}")
        events.append(event_of_transition(version.model, version.number, moved))
    check_recorded(meta, events)


def opening_problem(promotion: Promotion, row: Mapping[str, Any], moved: Mapping[str, Any] | None) -> str:
    """Return in what the row of a promotion differs from the transition that opened it; empty where in nothing."""
    if moved is None or moved.get("kind") != PROMOTION_OPENED:
        return "has no transition"
    facts: Mapping[str, Any] = moved.get("data") or {}
    told = (moved["number"], moved["evidence"], moved["at"], moved["version_digest"])
    same = told == tuple(row.get(n) for n in ("transition", "evidence", "at", "version_digest"))
    named = (facts["environment"], facts["asked_by"], facts["policy_sha256"])
    if not same or named != tuple(row.get(n) for n in ("environment", "asked_by", "policy_digest")):
        return "is not what its transition tells"
    if (row["transition"], row["environment"]) != (promotion.opened, promotion.environment):
        return "is of another promotion"
    made = promotions_after([moved])[promotion.environment]
    differing = {n for n, value in promotion.to_item().items() if made[n] != value} - {"state", "until"}
    return "is not what the version's head says of it" if differing else ""


def promotion_problem(promotion: Promotion, row: Mapping[str, Any], moved: Mapping[str, Any] | None) -> str:
    """Return in what the row of a decision on a promotion differs from its transition; empty where in nothing."""
    problem = _row_problem(row, moved, PROMOTION_DECISIONS)
    if problem:
        return problem
    named = (promotion.environment, promotion.opened, promotion.packet)
    return "" if named == (row.get("environment"), row.get("opened"), row.get("evidence")) else "was given on another promotion"


def _ends(version: Version) -> tuple[list[Key], list[Key]]:
    """Return where the end of a version would be recorded: as its latest move or the one after it, and as an event of the ledger."""
    numbers = (version.transition, version.transition + 1)
    ids = [event_id(kind, version.reference, number) for kind in _ENDED for number in numbers]
    return [transition_key(version.model, version.number, number) for number in numbers], [leaf_key(id_) for id_ in ids]


def decision_problem(version: Version, row: Mapping[str, Any], moved: Mapping[str, Any] | None) -> str:
    """Return in what the row of a decision differs from the transition that it was written with; empty where in nothing.

    Args:
        version: the version.
        row: the decision's row.
        moved: the row of the transition that it names, or None.
    """
    problem = _row_problem(row, moved, DECISIONS)
    if problem:
        return problem
    if row["evidence"] != version.packet.get("sha256", "") and not _was_before(row, version):
        return "was given on another packet than the version names"
    return ""


def _row_problem(row: Mapping[str, Any], moved: Mapping[str, Any] | None, kinds: Mapping[str, tuple[str, ...]]) -> str:
    if moved is None or moved.get("kind") not in kinds.get(str(row.get("decision")), ()):
        return "has no transition"
    facts: Mapping[str, Any] = moved.get("data") or {}
    told = {name: row.get(name) for name in facts if name not in RESERVED and name != "signature"}
    same = told == {name: facts[name] for name in told} and facts.get("person") == row.get("person")
    same = same and ("console" in row) == ("console" in facts)
    if not same or any(row.get(name) != moved.get(name) for name in _SHARED) or facts.get("decision") != row.get("decision"):
        return "is not what its transition tells"
    return ""


def _was_before(row: Mapping[str, Any], version: Version) -> bool:
    """Return whether a decision belongs to an earlier opening of the approval, which had another packet."""
    opened = row.get("opened")
    return bool(version.packet.get("again")) and isinstance(opened, int) and opened < version.opening
