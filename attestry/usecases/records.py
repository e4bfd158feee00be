"""Keys of the rows, and the writes that every move of a version is made of.

A move is one transaction: the head row under its optimistic lock, the immutable transition, and the event in the outbox. Before it there
is an attestation, signed by the function that moves and kept write-once, which transition and event name by its digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attestry.domain.errors import ConflictError, NotFoundError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal
from attestry.domain.stages import AFTER_END, APPROVED, Stage, Standing, Status, is_stopped_by_hold
from attestry.domain.version import Version, encode
from attestry.ports import ABSENT, Key, MetaStore, Put, Update, When, Write

if TYPE_CHECKING:
    from attestry.evidence.attestor import AttestationRef
    from attestry.evidence.predicates import MoveFacts, Predicate
    from attestry.usecases.attest import Attestor

MODELS = "MODELS"
OUTBOX = "OUTBOX"


def model_key(model: str) -> Key:
    """Return the key of the model's head row."""
    return Key(f"MODEL#{model}")


def pointer_key(model: str, environment: str) -> Key:
    """Return the key of the pointer to the deployed version of an environment."""
    return Key(f"MODEL#{model}", f"POINTER#{environment}")


def version_key(model: str, number: int) -> Key:
    """Return the key of a version's head row; its partition holds all that belongs to the version."""
    return Key(f"VERSION#{model}#{number}")


def transition_key(model: str, number: int, transition: int) -> Key:
    """Return the key of an immutable transition."""
    return Key(f"VERSION#{model}#{number}", f"TRANSITION#{transition:06d}")


def stage_key(model: str, number: int, stage: Stage, attempt: int) -> Key:
    """Return the key of the record of one run of a stage."""
    return Key(f"VERSION#{model}#{number}", f"STAGE#{stage.value}#{attempt:03d}")


def decision_key(version: Version, person: str) -> Key:
    """Return the key of one person's decision on a version, in the opening of its approval that it is in; a person decides once in each."""
    return approval_key(version.model, version.number, f"{person}{version.decided_under}")


def approval_key(model: str, number: int, person: str) -> Key:
    """Return the key of one person's decision in the first opening of the approval, see `decision_key`."""
    return Key(f"VERSION#{model}#{number}", f"APPROVAL#{person}")


def approving_persons(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return the persons of approvals, with the roles that they acted in."""
    return {str(row["person"]): tuple(row["principal"]["roles"]) for row in rows}


def candidate_key(digest: str) -> Key:
    """Return the key of a candidate."""
    return Key(f"CANDIDATE#{digest}")


def candidate_version_key(digest: str, number: int) -> Key:
    """Return the key of the note that a version was made of a candidate; a candidate has as many as it was refreshed, and one more."""
    return Key(f"CANDIDATE#{digest}", f"VERSION#{number:09d}")


def person_key(person: str) -> Key:
    """Return the key of a person."""
    return Key(f"PERSON#{person}")


def login_key(login: str) -> Key:
    """Return the key that maps a login to a person."""
    return Key(f"LOGIN#{login}")


def upload_key(object_key: str) -> Key:
    """Return the key of the record of who was given the right to upload an object."""
    return Key(f"UPLOAD#{object_key}")


def outbox_put(event: Event) -> Put:
    """Return the write that commits the event with the change that it tells of."""
    key = Key(OUTBOX, f"{timestamp(event.at)}#{event.event_id[:32]}")
    return Put(key, {"event": event.canonical_bytes(), "id": event.event_id}, ABSENT)


def load_version(store: MetaStore, model: str, number: int) -> Version:
    """Return the version's head.

    Raises:
        NotFoundError: no such version.
    """
    item = store.get(version_key(model, number))
    if item is None:
        raise NotFoundError(f"there is no version {model}@{number}")
    return Version.from_item(item)


def person_of(store: MetaStore, principal: Principal) -> Principal:
    """Return the principal with the person that its login maps to, if any."""
    row = store.get(login_key(principal.login))
    return principal.as_person(row["person"] if row else None)


@dataclass(frozen=True)
class Move:
    """A move of a version from one stage, status and standing to the next.

    Attributes:
        stage: the stage after the move.
        status: its status.
        standing: the standing after the move.
        kind: kind of the event, for example `stage.succeeded`.
        principal: who moves it.
        reason: why.
        at: when.
        evidence: SHA-256 of the record that the move rests on, or empty.
        data: further facts for the event.
        predicate: what its attestation says besides the move; None where there is nothing.
    """

    stage: Stage
    status: Status
    standing: Standing
    kind: str
    principal: Principal
    reason: str
    at: datetime
    evidence: str = ""
    data: Mapping[str, Any] | None = None
    predicate: Predicate | None = None


def move_writes(
    version: Version,
    move: Move,
    attestor: Attestor,
    changes: Mapping[str, Any] | None = None,
    *,
    differs: Mapping[str, Any] | None = None,
    lacks: Mapping[str, Any] | None = None,
) -> list[Write]:
    """Attest a move, and return its writes.

    The attestation is made here, before anything is committed. Where the writes are then refused, or their answer is lost and the move is
    tried again, it stays behind as an object that no event names (see `Attestor.attest`).

    Args:
        version: the head as it was read; the writes are refused if it has changed since.
        move: the move.
        attestor: signs with the key of the function that moves the version.
        changes: further attributes of the head that change with it.
        differs: attributes of the head that must not have these values: rules that the table itself enforces.
        lacks: attributes of the head that must not hold these values among others; the same.

    Raises:
        ConflictError: the version was killed or retired, after which `AFTER_END` alone may happen.
        HeldError: the version is held, and the move would begin, approve or deploy something.
        UnavailableError: the attestation could not be signed or kept; nothing was changed.
        InvalidInputError: the event would be larger than 4 KiB.
    """
    if version.standing is Standing.RETIRED and move.kind not in AFTER_END:
        raise ConflictError(f"{version.reference} was {version.out_of_use}")
    if is_stopped_by_hold(move.kind, version.standing, move.standing):
        version.require_not_held("goes no further")
    number = version.transition + 1
    at = timestamp(move.at)
    changes = dict(changes or {})
    head = {
        "stage": move.stage,
        "status": move.status,
        "standing": move.standing,
        "transition": number,
        "rev": version.rev + 1,
        "updated": at,
        **changes,
        "indexed": True,
    }
    # Here alone: what only reads rows, the signing path above all, starts without the formats of attestations.
    from attestry.domain.search_index import entries_of_version
    from attestry.evidence.predicates import MoveFacts
    from attestry.usecases.attest import attest_move
    from attestry.usecases.index_rows import index_writes

    facts = MoveFacts(
        model=version.model,
        number=version.number,
        transition=number,
        kind=move.kind,
        origin={"stage": version.stage.value, "status": version.status.value, "standing": version.standing.value},
        to={"stage": move.stage.value, "status": move.status.value, "standing": move.standing.value},
        principal=move.principal.to_item(),
        reason=move.reason,
        at=at,
        evidence=move.evidence,
        version_digest=str(changes.get("version_digest") or version.version_digest),
        data=encode(move.data or {}),
    )
    _event(facts, move.principal, move.at, "0" * 64).canonical_bytes()  # Nothing is signed for a move that cannot be told.
    if move.kind == APPROVED:
        # Whoever approves, and whatever was looked at before: the table itself refuses while demanded validation records do not stand.
        differs = {**(differs or {}), "unvalidated": True}
    after = Version.from_item({**version.to_item(), **encode(head)})
    return [
        Update(
            version_key(version.model, version.number),
            encode(head),
            When(exists=True, equals={"rev": version.rev}, differs=differs or {}, lacks=lacks or {}),
        ),
        *index_writes(entries_of_version(version) if version.indexed else (), entries_of_version(after)),
        *record_writes(after, facts, move.principal, move.at, attest_move(attestor, after, facts, move.predicate)),
    ]


def record_writes(version: Version, facts: MoveFacts, principal: Principal, at: datetime, attestation: AttestationRef) -> list[Write]:
    """Return the writes that record an attested move: the immutable transition, and the event in the outbox."""
    told = facts.to_dict()
    event = _event(facts, principal, at, attestation.sha256)
    transition = {
        "number": facts.transition,
        **{name: told[name] for name in ("from", "to", "kind", "principal", "reason", "at", "evidence", "version_digest", "data")},
        "attestation": attestation.to_item(),
    }
    return [Put(transition_key(version.model, version.number, facts.transition), transition), outbox_put(event)]


def _event(facts: MoveFacts, principal: Principal, at: datetime, attestation: str) -> Event:
    return Event(facts.kind, f"{facts.model}@{facts.number}", facts.transition, at, principal, facts.event_data(attestation))
