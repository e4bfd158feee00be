"""Step of a verification: what was held, and what was disposed of a version, by its moves.

Rules:
- A disposal is asked for by one person and confirmed by another; objects are disposed between the confirmation and the end of the
  disposal alone.
- Nothing is disposed, and no disposal asked for or confirmed, while a legal hold stands; a hold ends the disposal that was under way.
- What was disposed is told in the report: its digests stay in the artifact manifest, and nothing that is gone is held against the version.
- Where moves are missing, what is there is judged by what is there alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from attestry.domain.custody import CONFIRMED, DISPOSED, ENDED, KINDS, LIFTED, REQUESTED, Custody
from attestry.domain.errors import IntegrityError
from attestry.evidence.case import Case, Entry

_STATES = {REQUESTED: ("", "requested", "ended"), CONFIRMED: ("requested",), DISPOSED: ("confirmed",), ENDED: ("confirmed",)}
"""Move of a disposal to the states in which it may be made."""


def check_custody(case: Case, entries: Sequence[Entry], *, gaps: bool) -> None:
    """Verify the moves about legal holds and disposals, and note what was disposed.

    Raises:
        IntegrityError: one of them breaks a rule of the module.
    """
    custody = Custody()
    for entry in entries:
        if entry.kind not in KINDS:
            continue
        where = f"move {entry.sequence} ({entry.kind})"
        _check_allowed(where, entry, custody)
        if not gaps:
            _check_order(where, entry, custody)
        if entry.kind == DISPOSED:
            case.notes.append(told_of(entry))
        try:
            custody = custody.after(_move(entry))
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{where} is not as the registry writes one: {error}") from error


def _check_allowed(where: str, entry: Entry, custody: Custody) -> None:
    """Check what contradicts the moves before, whatever may be missing among them."""
    person = entry.event["principal"]["person"]
    if custody.legal_hold and entry.kind != LIFTED:
        raise IntegrityError(f"{where} was made under the legal hold of {custody.legal_hold['by']}")
    if entry.kind == CONFIRMED and not person:
        raise IntegrityError(f"{where}: no person confirmed it")
    if entry.kind == CONFIRMED and custody.disposal.get("by") == person:
        raise IntegrityError(f"{where}: {person} both asked for the disposal and confirmed it")


def _check_order(where: str, entry: Entry, custody: Custody) -> None:
    """Check that a move follows on those that it needs, all of which are there."""
    if entry.kind in _STATES and custody.disposal.get("state", "") not in _STATES[entry.kind]:
        raise IntegrityError(f"{where} was made without what has to come before it")
    if entry.kind == LIFTED and not custody.legal_hold:
        raise IntegrityError(f"{where} ends a legal hold that does not stand")
    named = (entry.data.get("requested_by"), entry.data.get("confirmed_by"))
    if entry.kind in (DISPOSED, ENDED) and named != (custody.disposal["by"], custody.disposal["confirmed_by"]):
        raise IntegrityError(f"{where} names other persons than those who asked for it and confirmed it")


def told_of(entry: Entry) -> str:
    """Return the sentence about objects that were disposed."""
    data = entry.data
    return (
        f"DISPOSED on {entry.event['at'][:10]}: {data['objects']} objects, asked for by {data['requested_by']}, confirmed by "
        f"{data['confirmed_by']}; their digests are kept, in the list with SHA-256 {data['evidence']} ({entry.place})"
    )


def _move(entry: Entry) -> dict[str, object]:
    facts = {"number": entry.sequence, "principal": entry.event["principal"], "reason": entry.data["reason"], "at": entry.event["at"]}
    return {"kind": entry.kind, **facts, "data": entry.data}
