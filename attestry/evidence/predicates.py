"""Predicates: what the attestation of a move of a version says, and whether it says what the event says.

| move | predicate |
|---|---|
| PROCESSING or TRAINING has succeeded | SLSA provenance v1 |
| VALIDATION has succeeded or rejected | in-toto test-result v0.1 |
| a decision of people or of the policy, on a promotion too | `urn:attestry:predicate:approval:v1` |
| the files of a version that was made elsewhere are frozen | `urn:attestry:predicate:import:v1` |
| a version's recipe was run again | `urn:attestry:predicate:reproduction:v1` |
| a version was put in place, as canary or shadow too | `urn:attestry:predicate:deployment:v1` |
| every other move | `urn:attestry:predicate:transition:v1` |

Rules:
- Each attestation carries the whole move: predicates of ours at their top, beside `content` for what only they say; predicates of others
  in the extension field `attestry_move`, which their readers pass over.
- The move is the event without the digest of its own attestation; `check_attestation` requires that the two are equal.
- The subject is the version (its URN and version digest) from the success of TRAINING, or of IMPORTED, on. Before, it is the candidate; for
  the success of PROCESSING it is the data sets that it made, the training set first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.domain.promotion import DECIDED
from attestry.domain.stages import Stage
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.digests import sha256_hex
from attestry.evidence.statement import Statement, Subject
from attestry.evidence.version_urn import VersionUrn

PROVENANCE: Final = "https://slsa.dev/provenance/v1"
TEST_RESULT: Final = "https://in-toto.io/attestation/test-result/v0.1"
TRANSITION: Final = "urn:attestry:predicate:transition:v1"
APPROVAL: Final = "urn:attestry:predicate:approval:v1"
DEPLOYMENT: Final = "urn:attestry:predicate:deployment:v1"
IMPORT: Final = "urn:attestry:predicate:import:v1"
REPRODUCTION: Final = "urn:attestry:predicate:reproduction:v1"

MOVE_FIELD: Final = "attestry_move"
CANDIDATE: Final = "candidate"
"""Name of the subject before there is a version digest."""

_OURS = frozenset({TRANSITION, APPROVAL, DEPLOYMENT, IMPORT, REPRODUCTION})
_EVENT_FIELDS = frozenset({"format", "id", "kind", "subject", "sequence", "at", "principal", "data"})
_EVENT_DATA = ("from", "to", "reason", "evidence", "version_digest")
RESERVED: Final = frozenset({*_EVENT_DATA, "attestation"})
"""Names in an event's data that no fact of a move may take."""

_REFERENCE = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)@([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Predicate:
    """What a move says besides itself.

    Attributes:
        type: URI of the predicate's type; the one that `predicate_type` gives for the move.
        content: of a predicate of ours, what goes under `content`; of another, its fields.
        subjects: what it is about; empty for what the rules above give.
    """

    type: str
    content: Mapping[str, Any] = field(default_factory=dict)
    subjects: tuple[Subject, ...] = ()


@dataclass(frozen=True)
class MoveFacts:
    """A move of a version, as event and attestation both tell it.

    Attributes:
        model: the model.
        number: the version.
        transition: number of the transition.
        kind: kind of the event.
        origin: stage, status and standing before; None for the first.
        to: stage, status and standing after.
        principal: who moved it, as `Principal.to_item` has it.
        reason: why.
        at: RFC 3339 time.
        evidence: SHA-256 of what the move rests on, or empty.
        version_digest: the version digest after the move, or empty.
        data: further facts.
    """

    model: str
    number: int
    transition: int
    kind: str
    origin: Mapping[str, str] | None
    to: Mapping[str, str]
    principal: Mapping[str, Any]
    reason: str
    at: str
    evidence: str
    version_digest: str
    data: Mapping[str, Any]

    def __post_init__(self) -> None:
        taken = RESERVED & set(self.data)
        if taken:
            raise InvalidInputError.of("data", "reserved", f"a fact of a move cannot be named {', '.join(sorted(taken))}")

    def to_dict(self) -> dict[str, Any]:
        """Return the move as predicates carry it."""
        return {
            "model": self.model,
            "number": self.number,
            "transition": self.transition,
            "kind": self.kind,
            "from": dict(self.origin) if self.origin is not None else None,
            "to": dict(self.to),
            "principal": dict(self.principal),
            "reason": self.reason,
            "at": self.at,
            "evidence": self.evidence,
            "version_digest": self.version_digest,
            "data": dict(self.data),
        }

    def event_data(self, attestation: str) -> dict[str, Any]:
        """Return the data of the event, which names the attestation by its SHA-256."""
        told = self.to_dict()
        return {**{name: told[name] for name in _EVENT_DATA}, **self.data, "attestation": attestation}

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> tuple[MoveFacts, str]:
        """Return the move that an event tells of, and the SHA-256 of its attestation.

        Args:
            event: the event as it was parsed from canonical JSON.

        Raises:
            InvalidInputError: not the event of a move.
        """
        data = event.get("data")
        reference = _REFERENCE.fullmatch(str(event.get("subject")))
        if set(event) != _EVENT_FIELDS or not isinstance(data, Mapping) or reference is None or not set(data) >= RESERVED:
            raise InvalidInputError.of("event", "fields", "not the event of a move of a version")
        facts = {name: value for name, value in data.items() if name not in RESERVED}
        move = cls(
            model=reference[1],
            number=int(reference[2]),
            transition=event["sequence"],
            kind=event["kind"],
            origin=data["from"],
            to=data["to"],
            principal=event["principal"],
            reason=data["reason"],
            at=event["at"],
            evidence=data["evidence"],
            version_digest=data["version_digest"],
            data=facts,
        )
        return move, str(data["attestation"])


def predicate_type(kind: str, stage: str) -> str:
    """Return the type of predicate that attests a move of this kind into this stage."""
    if kind == "stage.succeeded" and stage in (Stage.PROCESSING, Stage.TRAINING):
        return PROVENANCE
    if kind == "stage.succeeded" and stage == Stage.IMPORTED:
        return IMPORT
    if kind in ("stage.succeeded", "version.rejected") and stage == Stage.VALIDATION:
        return TEST_RESULT
    if kind in ("approval.given", "version.approved", "version.rejected", *DECIDED):
        return APPROVAL
    if kind == "version.reproduced":
        return REPRODUCTION
    return DEPLOYMENT if kind in ("version.deployed", "version.rolled_back", "version.canaried", "version.shadowed") else TRANSITION


def state_move(move: MoveFacts, predicate: Predicate | None, *, candidate: str) -> Statement:
    """Return the statement that attests a move.

    Args:
        move: the move.
        predicate: what else it says; None where the type is one of ours and there is nothing more to say.
        candidate: the candidate's digest, the subject while there is no version digest.

    Raises:
        InvalidInputError: a predicate of a type that this move is not attested by, or one that is missing.
    """
    expected = predicate_type(move.kind, str(move.to["stage"]))
    said = predicate or Predicate(expected)
    if said.type != expected or (predicate is None and expected not in _OURS):
        raise InvalidInputError.of("predicate", "type", f"{move.kind} at {move.to['stage']} needs {expected}, not {said.type}")
    told = move.to_dict()
    body = {**told, "content": dict(said.content)} if said.type in _OURS else {**said.content, MOVE_FIELD: told}
    return Statement(said.subjects or _subjects(move, candidate), said.type, body)


def read_move(statement: Statement) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the move that a statement carries, and what it says besides.

    Raises:
        InvalidInputError: a predicate of a type that attests no move, or one that carries none.
    """
    body = dict(statement.predicate)
    if statement.predicate_type in (PROVENANCE, TEST_RESULT):
        move = body.pop(MOVE_FIELD, None)
        content = body
    elif statement.predicate_type in _OURS:
        content = body.pop("content", None)
        move = body
    else:
        raise InvalidInputError.of("predicateType", "known", f"{statement.predicate_type} attests no move of a version")
    if not isinstance(move, dict) or not isinstance(content, dict):
        raise InvalidInputError.of("predicate", "fields", "the predicate carries no move")
    return move, content


def check_attestation(statement: Statement, event: Mapping[str, Any], *, candidate: str) -> None:
    """Check that a verified statement attests exactly the move that an event of the ledger tells of.

    Args:
        statement: what the envelope holds, its signature verified.
        event: the event that names the envelope, as parsed from canonical JSON.
        candidate: digest of the version's candidate, from its first event.

    Raises:
        InvalidInputError: not the event of a move, or not a statement about one.
        IntegrityError: of another type, about another move or subject, or it contradicts itself.
    """
    move, _ = MoveFacts.from_event(event)
    told, content = read_move(statement)
    expected = predicate_type(move.kind, str(move.to["stage"]))
    if statement.predicate_type != expected:
        raise IntegrityError(f"{move.kind} is attested by {statement.predicate_type}, not by {expected}")
    if told != move.to_dict():
        differing = sorted(k for k in told.keys() | move.to_dict().keys() if told.get(k, ...) != move.to_dict().get(k, ...))
        raise IntegrityError(f"the attestation and the event of {move.kind} differ in {', '.join(differing)}")
    if statement.subjects != _subjects(move, candidate):
        raise IntegrityError(f"the attestation of {move.kind} is about {', '.join(s.name for s in statement.subjects)}, something else")
    if expected == PROVENANCE:
        _require_record(content, move)
    if expected == IMPORT and content.get("record") != move.evidence:
        raise IntegrityError("the attestation of the import names another record than the event")
    if expected == REPRODUCTION and sha256_hex(canonical_bytes(content)) != move.evidence:
        raise IntegrityError("the comparison that is attested is not the one that the event names")
    if expected == TEST_RESULT and content.get("result") != ("PASSED" if move.kind == "stage.succeeded" else "FAILED"):
        raise IntegrityError(f"the test result says {content.get('result')}, the event says {move.kind}")


def _subjects(move: MoveFacts, candidate: str) -> tuple[Subject, ...]:
    if move.kind == "stage.succeeded" and move.to["stage"] == Stage.PROCESSING:
        return dataset_subjects(move.data.get("outputs"))
    if move.version_digest:
        return (Subject(str(VersionUrn(move.model, move.number, move.version_digest)), move.version_digest),)
    return (Subject(CANDIDATE, candidate),)


def dataset_subjects(outputs: Any) -> tuple[Subject, ...]:
    """Return the data sets that PROCESSING made as subjects `dataset/<name>`, the training set first.

    Raises:
        InvalidInputError: not a mapping of names to digests with `training` among them.
    """
    if not isinstance(outputs, Mapping) or "training" not in outputs:
        raise InvalidInputError.of("data.outputs", "required", "PROCESSING made no training set")
    names = ["training", *sorted(name for name in outputs if name != "training")]
    return tuple(Subject(f"dataset/{name}", outputs[name]) for name in names)


def _require_record(content: Mapping[str, Any], move: MoveFacts) -> None:
    details = content.get("runDetails")
    byproducts: Sequence[Any] = details.get("byproducts", []) if isinstance(details, Mapping) else []
    records = [b.get("digest") for b in byproducts if isinstance(b, Mapping) and b.get("name") == "record"]
    if records != [{"sha256": move.evidence}]:
        raise IntegrityError("the provenance names another record of the stage than the event")
