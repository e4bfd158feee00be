"""Conditions, enforced: whether a version may still serve under its approvals, and how many predictions are left.

Rules:
- The number of predictions that an approval allows is counted from the sequence numbers of keys. One row holds how many numbers are given
  out to keys; a delegation that gives out more is one transaction with that row, so the sum over all keys never exceeds the number.
- What a key has not used when it is closed goes back, in the transaction that closes it: a key signs nothing after that.
- A key gets a part of what is left, so that several processes serve side by side, and the last predictions need a delegation each few.
- The row belongs to one opening of the approval: a version that is approved again begins at 0. Where it is missing, nothing is given out.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from attestry.domain.conditions import Terms
from attestry.domain.errors import ApprovalLapsedError, IntegrityError
from attestry.domain.events import timestamp
from attestry.domain.version import Version
from attestry.ports import Item, Key, MetaStore, Put, Update, When, Write

LAPSES = "LAPSES"
"""Partition of what is to be done when an approval ends, by the time at which it is."""

PARTS = 8
LEAST = 20
"""A key is given an eighth of what is left, and 20 numbers at least where there are so many."""


def volume_key(model: str, number: int, opening: int) -> Key:
    """Return the key of the row that counts the predictions of one approval of a version; its partition holds nothing else."""
    return Key(f"VOLUME#{model}#{number}", f"OPENING#{opening:06d}")


def check_conditions(meta: MetaStore, version: Version, at: datetime) -> None:
    """Check that the approval of a version has not ended, by its date or its number of predictions.

    Args:
        meta: the table; read only where a number of predictions is set.
        version: the version.
        at: the time.

    Raises:
        ApprovalLapsedError: it has, with the condition.
    """
    terms = check_end(version, at)
    if terms.max_predictions is not None:
        left_of(version, meta.get(volume_key(version.model, version.number, version.opening)))


def check_end(version: Version, at: datetime) -> Terms:
    """Check that the end of a version's approval has not come; no call is made.

    Returns:
        Its terms.

    Raises:
        ApprovalLapsedError: it has.
    """
    terms = Terms.from_item(version.terms)
    if terms.has_ended(at):
        raise ApprovalLapsedError(f"the approval of {version.reference} ended at {terms.until}; it has to be approved again")
    return terms


def left_of(version: Version, row: Item | None) -> int:
    """Return how many predictions are not given out yet.

    Raises:
        ApprovalLapsedError: all have been made.
        IntegrityError: the row that counts them is gone.
    """
    if row is None:
        raise IntegrityError(f"what counts the predictions that the approval of {version.reference} allows is gone")
    most, given, used = int(row["max"]), int(row["given"]), int(row["used"])
    if used >= most:
        raise ApprovalLapsedError(
            f"{version.reference} has made the {most} predictions that its approval allows; it is to be approved again"
        )
    return most - given


def lapse_put(model: str, number: int, opening: int, due: str, what: str, environment: str = "") -> Put:
    """Return the write that has the sweep do something about an approval.

    Args:
        model: the model's name.
        number: the version's number.
        opening: number of the transition that opened the approval, or the promotion.
        due: when, RFC 3339.
        what: `notice`, `lapse` or `tell`; of a promotion `promotion_notice`, `promotion`, `promotion_tell` or `promotion_asked`.
        environment: of a promotion.
    """
    row: dict[str, Any] = {"model": model, "number": number, "opening": opening, "due": due, "what": what}
    row |= {"environment": environment} if environment else {}
    return Put(Key(LAPSES, f"{due}#{model}#{number}#{opening:06d}#{what}"), row, When())


def begin_terms(version: Version, terms: Terms, notice_days: int, at: datetime) -> list[Put]:
    """Return the writes that set up what the terms of an approval ask for: the count of its predictions, and its end in time.

    Args:
        version: the version, with its approval open.
        terms: its terms.
        notice_days: how many days before the end people are told.
        at: the time.
    """
    writes = begin_volume(version, version.opening, terms)
    if terms.until:
        early = timestamp(max(at, datetime.fromisoformat(terms.until) - timedelta(days=notice_days)))
        writes.append(lapse_put(version.model, version.number, version.opening, terms.until, "lapse"))
        if notice_days:
            writes.append(lapse_put(version.model, version.number, version.opening, early, "notice"))
    return writes


def promotion_lapses(version: Version, environment: str, opened: int, until: str, notice_days: int, at: datetime) -> list[Put]:
    """Return the writes that have the sweep tell of the end of a promotion's approval and take the version out; none without an end."""
    if not until:
        return []
    early = timestamp(max(at, datetime.fromisoformat(until) - timedelta(days=notice_days)))
    due = [(until, "promotion"), *([(early, "promotion_notice")] if notice_days else [])]
    return [lapse_put(version.model, version.number, opened, moment, what, environment) for moment, what in due]


def begin_volume(version: Version, opening: int, terms: Terms) -> list[Put]:
    """Return the write that begins the count of an approval; none where no number is set."""
    if terms.max_predictions is None:
        return []
    return [Put(volume_key(version.model, version.number, opening), {"max": terms.max_predictions, "given": 0, "used": 0})]


def give_out(meta: MetaStore, version: Version) -> tuple[int | None, list[Update]]:
    """Return how many receipts a further key of the version may sign, and the write that gives them out to it.

    Returns:
        None and no write where no number is set.

    Raises:
        ApprovalLapsedError: none is left.
        IntegrityError: the row that counts them is gone.
    """
    if Terms.from_item(version.terms).max_predictions is None:
        return None, []
    key = volume_key(version.model, version.number, version.opening)
    row = meta.get(key)
    left = left_of(version, row)
    if row is None or left < 1:
        most = row["max"] if row else 0
        raise ApprovalLapsedError(
            f"the {most} predictions that the approval of {version.reference} allows are given out to its keys; what these leave over is "
            f"free once they are closed"
        )
    part = min(left, max(LEAST, left // PARTS))
    same = {name: row[name] for name in ("max", "given", "used")}
    return part, [Update(key, {"given": int(row["given"]) + part}, When(exists=True, equals=same))]


def take_back(meta: MetaStore, state: dict[str, Any], last: int, at: datetime) -> list[Write]:
    """Return the writes that take back what a key that is closed has not used, and end the approval where all that it allows is made.

    Args:
        meta: the table.
        state: the key's row while it was open.
        last: the highest sequence number that it used.
        at: the time.
    """
    volume = state.get("volume")
    if not volume:
        return []
    key = volume_key(str(state["model"]), int(state["number"]), int(volume["opening"]))
    row = meta.get(key)
    if row is None:
        return []  # nothing is given out from a row that is gone
    same = {name: row[name] for name in ("max", "given", "used")}
    changes = {"given": int(row["given"]) - (int(volume["max"]) - last), "used": int(row["used"]) + last}
    writes: list[Write] = [Update(key, changes, When(exists=True, equals=same))]
    if changes["used"] >= int(row["max"]):
        writes.append(lapse_put(str(state["model"]), int(state["number"]), int(volume["opening"]), timestamp(at), "lapse"))
    return writes
