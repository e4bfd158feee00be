"""Keys of the rows, and the writes that every move of a version is made of.

A move is one transaction: the head row under its optimistic lock, the immutable transition, and the event in the outbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from attestry.domain.errors import NotFoundError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version, encode
from attestry.ports import ABSENT, Key, MetaStore, Put, Update, When, Write

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


def approval_key(model: str, number: int, person: str) -> Key:
    """Return the key of one person's decision; a person decides once."""
    return Key(f"VERSION#{model}#{number}", f"APPROVAL#{person}")


def candidate_key(digest: str) -> Key:
    """Return the key of a candidate."""
    return Key(f"CANDIDATE#{digest}")


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


def move_writes(
    version: Version, move: Move, changes: Mapping[str, Any] | None = None, *, differs: Mapping[str, Any] | None = None
) -> list[Write]:
    """Return the writes of a move.

    Args:
        version: the head as it was read; the writes are refused if it has changed since.
        move: the move.
        changes: further attributes of the head that change with it.
        differs: attributes of the head that must not have these values: rules that the table itself enforces.
    """
    number = version.transition + 1
    at = timestamp(move.at)
    head = {
        "stage": move.stage,
        "status": move.status,
        "standing": move.standing,
        "transition": number,
        "rev": version.rev + 1,
        "updated": at,
        **(changes or {}),
    }
    transition = {
        "number": number,
        "from": {"stage": version.stage, "status": version.status, "standing": version.standing},
        "to": {"stage": move.stage, "status": move.status, "standing": move.standing},
        "kind": move.kind,
        "principal": move.principal.to_item(),
        "reason": move.reason,
        "at": at,
        "evidence": move.evidence,
        "version_digest": str((changes or {}).get("version_digest") or version.version_digest),
        "data": dict(move.data or {}),
    }
    event = Event(
        move.kind,
        version.reference,
        number,
        move.at,
        move.principal,
        {**encode({k: transition[k] for k in ("from", "to", "reason", "evidence", "version_digest")}), **(move.data or {})},
    )
    return [
        Update(
            version_key(version.model, version.number), encode(head), When(exists=True, equals={"rev": version.rev}, differs=differs or {})
        ),
        Put(transition_key(version.model, version.number, number), encode(transition)),
        outbox_put(event),
    ]
