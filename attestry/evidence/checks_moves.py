"""Steps of a verification: the moves of a version, each attested by the function that may make it.

Rules:

- The numbers run from 1 without a gap, each move begins where the one before ended, and each does what its kind says:
  nothing but an approval makes a version APPROVED (or gives that standing back to it), nothing but a deployment DEPLOYED.
- No stage is passed over: one begins behind the stage before it, or again where it had failed; one that is done again takes the version
  back to the stage before it.
- A version that was made elsewhere begins IMPORTED and goes on with its approval: it passes no stage in which something would be processed,
  trained or judged; and no other version is ever IMPORTED.
- Nothing is disposed before two persons have said so, and nothing while a legal hold stands (`attestry.evidence.checks_custody`).
- Nothing begins, is approved or put in place between a hold and the move that ends it.
- Each event names an attestation that is there; no attestation is there that no event names.
- An attestation counts by a key that the trusted root names, valid at the ledger time of the event, of a function that
  may make such a move at that stage; and it says what the event says.
- A move that is not there is missing, and so is whatever would follow from the moves: nothing is held against a version for what a bundle
  leaves out. What is there has to hold all the same.
- All events that name a version digest name the same, that of the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.errors import IntegrityError
from attestry.domain.holds import HELD, RESUMED
from attestry.domain.policies import named_editions, policy_subject
from attestry.domain.promotion import KINDS as PROMOTIONS
from attestry.domain.stages import (
    AFTER_END,
    LAPSED,
    PIPELINE,
    PROMOTION_LAPSED,
    REDOABLE,
    Stage,
    Status,
    is_stopped_by_hold,
    may_begin,
    stage_after,
)
from attestry.domain.validations import RECORDED
from attestry.evidence.case import Attested, Case, Entry
from attestry.evidence.checks_custody import check_custody
from attestry.evidence.checks_person_keys import person_subject
from attestry.evidence.digests import sha256_hex
from attestry.evidence.dsse import read_envelope, verify_envelope
from attestry.evidence.predicates import MoveFacts, check_attestation
from attestry.evidence.statement import Statement
from attestry.evidence.trusted_root import require_may_sign
from attestry.evidence.verdict import Found, MissingError, Outcome

REGISTERED: Final = "candidate.registered"
IMPORTED: Final = "version.imported"
FIRST: Final = (REGISTERED, IMPORTED)
"""What a version begins with."""

ENDS: Final = ("version.killed", "version.retired")
DEPLOYMENTS: Final = ("version.deployed", "version.rolled_back")
PLACINGS: Final = (*DEPLOYMENTS, "version.canaried", "version.shadowed")
"""Moves after which a version may be delegated to, in the environment that they name."""

_SAME: Final = None
_AFTER: Final[Mapping[str, tuple[str | None, str | None]]] = {
    REGISTERED: ("SUCCEEDED", "CANDIDATE"),
    IMPORTED: ("RUNNING", "CANDIDATE"),
    "stage.started": ("RUNNING", _SAME),
    "stage.succeeded": ("SUCCEEDED", _SAME),
    "stage.failed": ("FAILED", _SAME),
    "version.rejected": ("REJECTED", "REJECTED"),
    "approval.given": ("RUNNING", _SAME),
    "version.approved": ("SUCCEEDED", "APPROVED"),
    "version.deployed": ("SUCCEEDED", "DEPLOYED"),
    "version.rolled_back": ("SUCCEEDED", "DEPLOYED"),
    "version.canaried": ("SUCCEEDED", "CANARY"),
    "version.shadowed": ("SUCCEEDED", "SHADOW"),
    "rollout.advanced": (_SAME, _SAME),
    "rollout.halted": ("FAILED", "APPROVED"),
    "rollout.ended": ("SUCCEEDED", "APPROVED"),
    "version.replaced": (_SAME, "ROLLBACK"),
    "version.released": (_SAME, "APPROVED"),
    "version.killed": (_SAME, "RETIRED"),
    "version.retired": (_SAME, "RETIRED"),
    "retirement.scheduled": (_SAME, _SAME),
    "submission.claimed": (_SAME, _SAME),
    "version.reproduced": (_SAME, _SAME),
    **dict.fromkeys(sorted(AFTER_END - {"version.killed"}), (_SAME, _SAME)),
    RECORDED: (_SAME, _SAME),
    "version.held": (_SAME, _SAME),
    "version.resumed": (_SAME, _SAME),
    "stage.retried": ("FAILED", _SAME),
    "stage.reopened": ("SUCCEEDED", "CANDIDATE"),
    LAPSED: ("FAILED", "CANDIDATE"),
    **dict.fromkeys(sorted({*PROMOTIONS} - {PROMOTION_LAPSED}), (_SAME, _SAME)),
    PROMOTION_LAPSED: ("FAILED", "APPROVED"),
}
"""Kind of a move to the status and the standing after it."""

MOVES: Final = tuple(_AFTER)
"""The kinds of moves."""

_BEFORE: Final[Mapping[str, frozenset[str]]] = {
    "version.approved": frozenset({"CANDIDATE"}),
    "approval.given": frozenset({"CANDIDATE"}),
    "version.deployed": frozenset({"APPROVED", "ROLLBACK", "DEPLOYED", "CANARY", "SHADOW"}),
    "version.canaried": frozenset({"APPROVED", "ROLLBACK", "DEPLOYED"}),
    "version.shadowed": frozenset({"APPROVED", "ROLLBACK", "DEPLOYED"}),
    "rollout.advanced": frozenset({"CANARY"}),
    "rollout.halted": frozenset({"CANARY"}),
    "rollout.ended": frozenset({"SHADOW"}),
    "version.rolled_back": frozenset({"APPROVED", "ROLLBACK", "DEPLOYED", "CANARY", "SHADOW"}),
    "version.replaced": frozenset({"DEPLOYED", "ROLLBACK"}),
    "version.released": frozenset({"ROLLBACK"}),
    "stage.reopened": frozenset({"CANDIDATE"}),
    LAPSED: frozenset({"APPROVED", "ROLLBACK", "DEPLOYED", "CANARY", "SHADOW"}),
    **dict.fromkeys(PROMOTIONS, frozenset({"APPROVED", "ROLLBACK", "DEPLOYED", "CANARY", "SHADOW"})),
    **dict.fromkeys(("disposal.requested", "disposal.confirmed", "version.disposed", "disposal.ended"), frozenset({"RETIRED"})),
}
"""Kind of a move to the standings that it may begin at, where not any."""


def check_moves(case: Case) -> Found | str:
    """Verify the chain of moves and the attestation of each."""
    index = case.need_bundle().index
    allowed = {index.reference, _key_subject(case), *_signers(case), *_policies(case)}
    strangers = [e for e in case.entries if e.subject not in allowed]
    if strangers:
        raise IntegrityError(f"the bundle holds an event about {strangers[0].subject}")
    entries = sorted((e for e in case.entries if e.subject == index.reference), key=lambda e: e.sequence)
    if not entries:
        raise MissingError(f"no move of {index.reference} is in the bundle")
    missing = sorted(set(range(1, entries[-1].sequence + 1)) - {e.sequence for e in entries})
    if len({e.sequence for e in entries}) != len(entries):
        raise IntegrityError("two moves have the same number")
    _check_chain(entries, gaps=bool(missing))
    _check_origin(entries)
    check_custody(case, entries, gaps=bool(missing))
    _check_digests(entries, index.version_digest)
    absent = [e for e in entries if f"attestations/{e.data['attestation']}.json" not in case.need_bundle().files]
    first = entries[0] if entries[0].kind in FIRST else None
    # What is there is judged although something is not: a contradiction outweighs a gap.
    moves = tuple(_attested(case, e, str(first.data["candidate"])) for e in entries if e not in absent) if first else ()
    if missing:
        raise MissingError(f"move {missing[0]} of {index.reference} is not in the bundle")
    strange = sorted(set(case.need_bundle().names("attestations/")) - case.taken)
    if strange:
        raise IntegrityError(f"{strange[0]} is there, and no event names it")
    if absent:
        raise MissingError(f"the attestation of move {absent[0].sequence} ({absent[0].kind}) is not in the bundle")
    case.moves = moves
    _tell_ends(case, entries)
    pending = [e for e in entries if e.index is None]
    told = f"{len(entries)} moves, each attested by the function that may make it"
    if pending:
        return Found(Outcome.PENDING, f"{told}; {len(pending)} are not in the ledger yet, from {pending[0].kind} on")
    return told


def _tell_ends(case: Case, entries: list[Entry]) -> None:
    """Note that the version was revoked, as far as the bundle tells, and what it stands as."""
    size = case.checkpoint.size if case.checkpoint else 0
    for end in (e for e in entries if e.kind in ENDS):
        told = f"{end.kind} by {end.event['principal']['person'] or end.event['principal']['login']}: {end.data['reason']}"
        case.notes.append(f"REVOKED, as of checkpoint {size}: {told} ({end.place})")
    case.facts["standing_now"] = entries[-1].data["to"]["standing"]


def _attested(case: Case, entry: Entry, candidate: str) -> Attested:
    sha256 = str(entry.data["attestation"])
    data = case.need(f"attestations/{sha256}.json")
    if sha256_hex(data) != sha256:
        raise IntegrityError(f"attestations/{sha256}.json has another digest than its name")
    try:
        key = case.need_root().signer(read_envelope(data).keyid, entry.at)
        require_may_sign(key.name, entry.kind, entry.stage)
        statement = Statement.parse(verify_envelope(data, key.der))
        check_attestation(statement, entry.event, candidate=candidate)
    except IntegrityError as error:
        raise IntegrityError(f"move {entry.sequence} ({entry.kind}): {error.message}") from error
    return Attested(entry, statement, key.name)


def _check_chain(entries: list[Entry], *, gaps: bool) -> None:
    before: Entry | None = None
    held = False
    for entry in entries:
        move, _ = MoveFacts.from_event(entry.event)
        where = f"move {entry.sequence} ({entry.kind})"
        follows = before is not None and before.sequence + 1 == entry.sequence
        if (entry.sequence == 1) != (entry.kind in FIRST) or (entry.sequence == 1) != (move.origin is None):
            raise IntegrityError(f"{where} is no beginning, or no continuation")
        if before is not None and follows and dict(move.origin or {}) != dict(before.data["to"]):
            raise IntegrityError(f"{where} does not begin where move {before.sequence} ended")
        if (move.origin or {}).get("standing") == "RETIRED" and entry.kind not in AFTER_END:
            raise IntegrityError(f"{where} comes after the version had ended")
        if not follows and before is not None and not gaps:
            raise IntegrityError(f"{where} does not follow move {before.sequence}")
        _check_kind(where, entry.kind, move.origin or {}, move.to)
        _check_order(where, entry, move.origin or {})
        held = _held(where, entry, move.origin or {}, held=held)
        before = entry


def _check_kind(where: str, kind: str, origin: Mapping[str, Any], to: Mapping[str, Any]) -> None:
    if kind not in _AFTER:
        raise IntegrityError(f"{where}: no version moves like this")
    status, standing = _AFTER[kind]
    if kind in ENDS and origin.get("status") == "RUNNING":
        status = "FAILED"  # a stage that runs ends with the version
    expected = {"status": status or origin.get("status"), "standing": standing or origin.get("standing")}
    if set(to) != {"stage", "status", "standing"} or {k: to[k] for k in expected} != expected:
        raise IntegrityError(
            f"{where} leads to {to.get('status')}, {to.get('standing')}; it may lead to {' '.join(map(str, expected.values()))}"
        )
    if kind in _BEFORE and origin.get("standing") not in _BEFORE[kind]:
        raise IntegrityError(f"{where} cannot begin at {origin.get('standing')}")


def _check_order(where: str, entry: Entry, origin: Mapping[str, Any]) -> None:
    """Check that a move does not pass over a stage."""
    to = str(entry.data["to"]["stage"])
    if entry.kind in FIRST or (to == origin["stage"] and entry.kind not in ("stage.started", "stage.reopened")):
        return
    try:
        at, status, stage = Stage(origin["stage"]), Status(origin["status"]), Stage(to)
    except ValueError as error:
        raise IntegrityError(f"{where}: {error}") from error
    again = stage is Stage.DEPLOYMENT and at is stage
    if entry.kind == "stage.reopened":
        redone = stage_after(stage)
        frozen = redone is Stage.PROCESSING and bool(entry.data["version_digest"])
        reached = at in PIPELINE and redone in REDOABLE and PIPELINE.index(at) >= PIPELINE.index(redone)
        allowed = reached and not frozen and redone == entry.data.get("stage")
    elif entry.kind == LAPSED:
        allowed = stage is Stage.APPROVAL and at is Stage.DEPLOYMENT
    elif entry.kind in PLACINGS:
        allowed = stage is Stage.DEPLOYMENT
    else:
        allowed = again or may_begin(stage, at, status)
    if not allowed:
        raise IntegrityError(f"{where} leads from {at} {status} to {stage}: no stage is passed over")


def _held(where: str, entry: Entry, origin: Mapping[str, Any], *, held: bool) -> bool:
    """Check that a held version makes none of the moves that a hold stops, and return whether it is held afterwards."""
    if entry.kind in (HELD, RESUMED):
        return entry.kind == HELD
    if held and is_stopped_by_hold(entry.kind, str(origin.get("standing")), str(entry.data["to"]["standing"])):
        raise IntegrityError(f"{where} was made while the version was held")
    return held


def _check_origin(entries: list[Entry]) -> None:
    """Check that a version which was made elsewhere passes no stage of ours, and that no other one is IMPORTED."""
    if entries[0].sequence != 1:
        return
    imported = entries[0].kind == IMPORTED
    for entry in entries:
        stage = str(entry.data["to"]["stage"])
        if imported and stage not in ("IMPORTED", "APPROVAL", "DEPLOYMENT"):
            raise IntegrityError(f"move {entry.sequence} ({entry.kind}) leads to {stage}, and the version was made elsewhere")
        if not imported and stage == "IMPORTED":
            raise IntegrityError(f"move {entry.sequence} ({entry.kind}) leads to IMPORTED, and the version was made here")
        ends = entry.kind in ("stage.succeeded", "stage.failed") and stage == "IMPORTED"
        if ends and (entry.data["from"] or {}).get("status") != "RUNNING":
            raise IntegrityError(f"move {entry.sequence} ({entry.kind}) ends an import that had ended")


def _check_digests(entries: list[Entry], version_digest: str) -> None:
    named = {str(e.data["version_digest"]) for e in entries} - {""}
    if named and named != {version_digest}:
        raise IntegrityError(f"the moves name the version digest {', '.join(sorted(named))}, the bundle {version_digest or 'none'}")
    if version_digest and not named:
        raise MissingError("no move names the version digest: neither TRAINING nor an import has succeeded, as far as the bundle tells")


def _signers(case: Case) -> set[str]:
    """Return the subjects of the persons who signed with keys of their own."""
    names = case.need_bundle().names("signatures/")
    return {person_subject(name.removeprefix("signatures/").removesuffix(".sig").partition("#")[0]) for name in names}


def _policies(case: Case) -> set[str]:
    """Return the subjects of the policies that the first move names, and of those whose documents are there."""
    first = next((e for e in case.entries if e.subject == case.need_bundle().index.reference and e.kind in FIRST), None)
    named = [] if first is None else [edition.name for edition in named_editions(first.data)]
    there = [name.removeprefix("policies/").partition("#")[0] for name in case.need_bundle().names("policies/")]
    return {policy_subject(name) for name in (*named, *there)}


def _key_subject(case: Case) -> str:
    index = case.need_bundle().index
    return f"key/{index.subject.rpartition('-')[0]}" if index.kind == "prediction" else ""
