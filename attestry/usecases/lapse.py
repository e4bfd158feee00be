"""Lapse: take a version out of service when its approval has ended, and say so before, then and afterwards.

Rules:
- The move `approval.lapsed` leads to APPROVAL FAILED, standing CANDIDATE, with the condition that ended as the error. The version is not
  approved any more: nothing deploys, rolls back to or delegates to it. `attestry retry` opens its approval again, with a packet of its own.
- The version and every pointer that names it change in one transaction. Where the policy says `rollback`, the version that is kept for
  that is put in place first, so that there is no moment with none; where none is kept, or it is not approved any more, the place is vacant.
- Signing ends with the approval by itself: a delegation never lasts longer, and none is given afterwards. What is done here later by some
  minutes changes what the version stands as, not what it may do.
- The approval for one environment alone ends in that environment (`attestry.usecases.lapse_promotion`).
- Of a promotion that people were not told of, the gate tells them: it has the ways to decide in the AWS console, which nobody else needs.
- What is due stands in the partition LAPSES, by its time. The row of a lapse goes with the move, and leaves one that says that people are
  to be told, so that a crash in between tells them later, not never.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.conditions import Terms
from attestry.domain.errors import ApprovalLapsedError, AttestryError, ConditionFailedError, ConflictError
from attestry.domain.events import timestamp
from attestry.domain.principal import registry_principal
from attestry.domain.stages import LAPSED, Stage, Standing, Status
from attestry.domain.version import Version
from attestry.ports import Delete, Item, Key, MetaStore, Notifier, When, Write
from attestry.usecases.attest import Attestor
from attestry.usecases.conditions import LAPSES, check_conditions, lapse_put
from attestry.usecases.lapse_promotion import COMPONENT, lapse_promotion, message_of, promotion_in_force, put_back
from attestry.usecases.pointer import named_in, number_in, vacate
from attestry.usecases.promotion_notice import ASKED, asked_again
from attestry.usecases.records import Move, load_version, model_key, move_writes
from attestry.usecases.rollout_places import forget_rollouts

TRIES = 8
MAX_DUE = 25

AskGate = Callable[[Mapping[str, Any]], bool]
"""Given the event that the gate's function takes, returns whether anybody was told."""


@dataclass(frozen=True)
class Lapsed:
    """What was done.

    Attributes:
        lapsed: references of the versions that were taken out of service.
        told: how many notifications were sent.
        errors: a sentence for each that could not be.
    """

    lapsed: tuple[str, ...]
    told: int
    errors: tuple[str, ...]


def due_lapses(meta: MetaStore, at: datetime, *, limit: int = MAX_DUE) -> list[Item]:
    """Return what is due about approvals that end, the oldest first."""
    return [row for row in meta.query(LAPSES, limit=limit) if str(row["due"]) <= timestamp(at)]


def lapse_due(meta: MetaStore, attestor: Attestor, notifier: Notifier, ask_gate: AskGate, *, at: datetime) -> Lapsed:
    """Tell of approvals that end soon, and take out of service the versions whose approvals have ended; one's trouble stops no other.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        notifier: tells people.
        ask_gate: has the gate tell of a promotion that waits, and waits for its answer.
        at: the time.
    """
    lapsed: list[str] = []
    errors: list[str] = []
    told = 0
    for row in due_lapses(meta, at):
        try:
            version = load_version(meta, str(row["model"]), int(row["number"]))
            if row["what"] == ASKED:
                told += 1 if not row.get("told") and ask_gate(asked_again(row)) else 0
                _forget(meta, row)
                continue
            if str(row["what"]).startswith("promotion"):
                row, done = _of_promotion(meta, attestor, version, row, at)
                lapsed += [version.reference] if done else []
                told += _tell_of_promotion(notifier, load_version(meta, version.model, version.number), row)
                _forget(meta, row)
                continue
            if row["what"] == "lapse" and _is_about(version, row) and _lapse(meta, attestor, version, row, at):
                lapsed.append(version.reference)
                row, version = _told_row(row, at), load_version(meta, version.model, version.number)
            if row["what"] == "tell" or (row["what"] == "notice" and _is_about(version, row)):
                notifier.notify(*_message(version, row))
                told += 1
            _forget(meta, row)
        except AttestryError as error:
            errors.append(f"{row['model']}@{row['number']}: {error.message}")
    return Lapsed(tuple(lapsed), told, tuple(errors))


def _of_promotion(meta: MetaStore, attestor: Attestor, version: Version, row: Item, at: datetime) -> tuple[Item, bool]:
    """Take a version out of an environment whose approval has ended, where that is due; return what is left to do, and whether it was."""
    if row["what"] != "promotion":
        return row, False
    tell = {**row, "what": "promotion_tell", "due": timestamp(at)}
    left = lapse_put(version.model, version.number, int(row["opening"]), str(tell["due"]), "promotion_tell", str(row["environment"]))
    done = lapse_promotion(meta, attestor, version, row, at, Delete(_key(row), When()), left)
    return (tell if done else row), done


def _tell_of_promotion(notifier: Notifier, version: Version, row: Item) -> int:
    """Tell people what a row about a promotion says that they are to be told, if it still is so; return how many notices went out."""
    due = row["what"] == "promotion_tell" or (row["what"] == "promotion_notice" and promotion_in_force(version, row))
    notice = message_of(version, row) if due else None
    if notice is None:
        return 0
    notifier.notify(*notice)
    return 1


def _is_about(version: Version, row: Item) -> bool:
    """Return whether the approval that a row is about is still the one in force; a later one has rows of its own."""
    return version.approved and version.opening == int(row["opening"]) and version.standing is not Standing.RETIRED


def _lapse(meta: MetaStore, attestor: Attestor, version: Version, row: Item, at: datetime) -> bool:
    """Make the move; False where the version has left by another way meanwhile.

    Raises:
        ConflictError: the approval has not ended, by what the version's head says; or others kept changing it.
    """
    why = _why(meta, version, at)
    if ApprovalPolicy.from_item(version.approval_policy).on_lapse == "rollback":
        put_back(meta, attestor, version, why, at)
    for _ in range(TRIES):
        version = load_version(meta, version.model, version.number)
        if not _is_about(version, row):
            return False
        pointers = meta.query(model_key(version.model).partition, prefix="POINTER#")
        try:
            meta.transact(_writes(version, attestor, pointers, row, why, at))
        except ConditionFailedError:
            continue
        return True
    raise ConflictError(f"{version.reference} is being changed by others; try again")


def _why(meta: MetaStore, version: Version, at: datetime) -> str:
    try:
        check_conditions(meta, version, at)
    except ApprovalLapsedError as error:
        return error.message
    raise ConflictError("an end of its approval is due that the version does not know of")


def _writes(version: Version, attestor: Attestor, pointers: Sequence[Item], row: Item, why: str, at: datetime) -> list[Write]:
    by, terms = registry_principal(COMPONENT), Terms.from_item(version.terms)
    vacated = [str(p["environment"]) for p in pointers if number_in(p) == version.number]
    ended = {"until": terms.until} if terms.has_ended(at) else {"max_predictions": terms.max_predictions}
    data = {"opened": version.opening, **ended, "vacated": vacated}
    move = Move(Stage.APPROVAL, Status.FAILED, Standing.CANDIDATE, LAPSED, by, why, at, data=data)
    named = [p for p in pointers if version.number in named_in(p)]
    tell = _told_row(row, at)
    return [
        *move_writes(version, move, attestor, {"approved": False, "terms": {}, "error": why}),
        *(vacate(p, version, kind=LAPSED, by=by, reason=why, at=at) for p in named),
        *(write for p in named for write in forget_rollouts(p, version.number)),
        Delete(_key(row), When()),
        lapse_put(version.model, version.number, version.opening, str(tell["due"]), "tell"),
    ]


def _told_row(row: Item, at: datetime) -> Item:
    """Return the row that a lapse leaves behind: that people are to be told."""
    return {**row, "what": "tell", "due": timestamp(at)}


def _key(row: Item) -> Key:
    return Key(LAPSES, f"{row['due']}#{row['model']}#{row['number']}#{int(row['opening']):06d}#{row['what']}")


def _forget(meta: MetaStore, row: Item) -> None:
    meta.transact([Delete(_key(row), When())])


def _message(version: Version, row: Item) -> tuple[str, dict[str, Any]]:
    facts = {"model": version.model, "version": version.number, "standing": version.standing.value}
    again = f"attestry retry {version.reference} --reason TEXT opens its approval again"
    if row["what"] == "notice":
        until = Terms.from_item(version.terms).until
        return f"the approval of {version.reference} ends at {until}", {**facts, "until": until, "then": f"it leaves service; {again}"}
    return f"the approval of {version.reference} has lapsed", {**facts, "why": version.error, "then": again}
