"""The rows of the catalogue, and how a change of one is committed.

CATALOGUE#<model>/HEAD                  the model as people describe it
CATALOGUE#<identity of a name>/NAME     where a name leads that a model was given by renaming
CATALOGUE#<model>/ALIASES               alias to version, all of a model
CATALOGUE#<model>/LABELS#<9 digits>     description and tags of a version
CATALOGUE#<model>/ANNOTATION#<9 digits>#<9 digits>     remarks on a version

They have partitions of their own, so that the function which writes them can touch neither a pointer nor a version's head.

Rules:
- A change is one transaction: the row at the next revision, under the condition that it still has the one that was read; its event; and
  its entries in the index. Who was overtaken reads again. A row is never removed, so revisions, which number the events, never come twice.
- An event tells what changed, and the SHA-256 of the whole row's state after it. So the latest event alone says what a row must be.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from attestry.domain.catalogue import Labels, RegisteredModel, identity_of
from attestry.domain.errors import ModelExistsError, NotFoundError, RevisionError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal
from attestry.domain.search_index import entries_of_labels, entries_of_model
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.digests import sha256_hex
from attestry.ports import ABSENT, Check, Item, Key, MetaStore, Put, When, Write
from attestry.usecases.index_rows import index_writes
from attestry.usecases.records import model_key, outbox_put, version_key

COLLECTION: Final = "CATALOGUE"
"""Models of the catalogue, by identity, those without a version too."""

TRIES: Final = 24
SHOWN_VALUE: Final = 256
"""Characters of a value that an event carries; of a longer one it has the digest."""

_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.25


def catalogue_key(model: str) -> Key:
    """Return the key of a model's row in the catalogue."""
    return Key(f"CATALOGUE#{model}")


def name_key(name: str) -> Key:
    """Return the key of the row that says which model has a name by renaming."""
    return Key(f"CATALOGUE#{identity_of(name)}", "NAME")


def aliases_key(model: str) -> Key:
    """Return the key of the row of a model's aliases."""
    return Key(f"CATALOGUE#{model}", "ALIASES")


def labels_key(model: str, number: int) -> Key:
    """Return the key of a version's description and tags."""
    return Key(f"CATALOGUE#{model}", f"LABELS#{number:09d}")


def annotation_key(model: str, number: int, sequence: int) -> Key:
    """Return the key of a remark."""
    return Key(f"CATALOGUE#{model}", f"ANNOTATION#{number:09d}#{sequence:09d}")


def model_subject(model: str) -> str:
    """Return the subject of events about a model's entry."""
    return f"model/{model}"


def aliases_subject(model: str) -> str:
    """Return the subject of events about a model's aliases."""
    return f"model/{model}/aliases"


def labels_subject(model: str, number: int) -> str:
    """Return the subject of events about what people say about a version."""
    return f"model/{model}/version/{number}"


def annotations_subject(model: str, number: int) -> str:
    """Return the subject of the remarks on a version."""
    return f"model/{model}/version/{number}/annotations"


def state_digest(state: Mapping[str, Any]) -> str:
    """Return SHA-256, hex, of the canonical form of a row's state."""
    return sha256_hex(canonical_bytes(dict(state)))


def who(by: Principal) -> str:
    """Return the person behind a principal, or the login where there is none."""
    return by.person or by.login


@dataclass(frozen=True)
class Change:
    """A change of a row of the catalogue.

    Attributes:
        key: the row.
        rev: its revision after the change.
        state: what the row says after it.
        kind: kind of the event.
        subject: its subject; its sequence is the revision.
        facts: what it tells of the change.
    """

    key: Key
    rev: int
    state: Mapping[str, Any]
    kind: str
    subject: str
    facts: Mapping[str, Any]

    def writes(self, by: Principal, at: datetime, further: Mapping[str, Any] | None = None) -> list[Write]:
        """Return the write of the row and that of its event.

        Args:
            by: who changes it.
            at: the time.
            further: attributes of the row beyond its state.

        Raises:
            InvalidInputError: the event would be larger than 4 KiB.
        """
        item = {**_without_false(self.state), **(further or {}), "rev": self.rev, "kind": self.kind, "updated": timestamp(at)}
        when = When(exists=True, equals={"rev": self.rev - 1}) if self.rev > 1 else ABSENT
        told = {**self.facts, "state": state_digest(self.state)}
        return [Put(self.key, item, when), outbox_put(Event(self.kind, self.subject, self.rev, at, by, told))]


def told_value(value: str) -> dict[str, str]:
    """Return a value as an event tells it: itself, or its digest where it is long."""
    if len(value.encode()) <= SHOWN_VALUE and value.isprintable():
        return {"value": value}
    return {"value_sha256": sha256_hex(value.encode())}


def tries() -> Iterator[int]:
    """Yield the tries of a change; between them a pause of random length, so that many writers of one row do not meet again."""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)))  # noqa: S311 - spreads tries, keeps no secret
        yield attempt


def require_rev(what: str, rev: int, if_rev: int | None) -> None:
    """Refuse a change of a record that is not at the revision which the caller has seen.

    Raises:
        RevisionError: it is at another.
    """
    if if_rev is not None and if_rev != rev:
        raise RevisionError(f"{what} is at revision {rev}, not {if_rev}; read it again", details={"rev": rev})


def load_model(meta: MetaStore, name: str) -> RegisteredModel:
    """Return a model by its identity, or by a name that is or gives its identity; see `read_model` for names that were changed.

    Raises:
        NotFoundError: no such model, or it was deleted.
    """
    model = find_model(meta, name)
    if model is None or model.deleted:
        raise NotFoundError(f"there is no model {name}")
    return model


def find_model(meta: MetaStore, name: str) -> RegisteredModel | None:
    """Return a model, a deleted one too, or None; one round trip."""
    model = identity_of(name)
    return model_among(meta.get_many([catalogue_key(model), model_key(model)]), model)


def model_among(rows: Mapping[Key, Item], model: str) -> RegisteredModel | None:
    """Return a model by its row of the catalogue or, where it has none, by the head that its versions gave it."""
    row = rows.get(catalogue_key(model)) or rows.get(model_key(model))
    return RegisteredModel.from_item(row) if row else None


def name_is_free(rows: Mapping[Key, Item], model: str) -> Check:
    """Return the condition under which a model's first version takes its name, which another model may have been given by renaming.

    Args:
        rows: rows that were read, that of the name (`name_key`) among them if it is there.
        model: the identity of a model that has no version yet, which is the name that it will have.

    Raises:
        ModelExistsError: another model has the name.
    """
    led = rows.get(name_key(model))
    if led is not None:
        message = f"the model {led['model']} was given the name {model}; a model of that identity would be another one of the same name"
        raise ModelExistsError(message, details={"name": model})
    return Check(name_key(model), ABSENT)


def load_labels(meta: MetaStore, name: str, number: int) -> tuple[Labels, Item]:
    """Return what people say about a version, and the row of its head; one round trip.

    Raises:
        NotFoundError: no such version, or it was deleted from the catalogue.
    """
    model = identity_of(name)
    rows = meta.get_many([labels_key(model, number), version_key(model, number)])
    head = rows.get(version_key(model, number))
    labels = Labels.from_item(model, number, rows.get(labels_key(model, number)))
    if head is None or labels.deleted:
        raise NotFoundError(f"there is no version {model}@{number}")
    return labels, head


def model_writes(
    before: RegisteredModel | None,
    after: RegisteredModel,
    kind: str,
    facts: Mapping[str, Any],
    by: Principal,
    at: datetime,
    further: Mapping[str, Any] | None = None,
) -> list[Write]:
    """Return the writes of a change of a model's row.

    Args:
        before: the model as it was read, or None.
        after: as it is to be; its revision one higher.
        kind: kind of the event.
        facts: what it tells.
        by: who.
        at: the time.
        further: attributes of the row beyond its state.
    """
    change = Change(catalogue_key(after.model), after.rev, after.state(), kind, model_subject(after.model), facts)
    listed = {} if after.deleted else {"gsi_pk": COLLECTION, "gsi_sk": after.model}
    # What has no row yet has no entries either.
    indexed = index_writes(entries_of_model(before) if before is not None and before.rev else (), entries_of_model(after))
    return [*change.writes(by, at, {**listed, **(further or {})}), *indexed]


def labels_writes(
    before: Labels, after: Labels, head: Mapping[str, Any], kind: str, facts: Mapping[str, Any], by: Principal, at: datetime
) -> list[Write]:
    """Return the writes of a change of what people say about a version.

    Args:
        before: the labels as they were read.
        after: as they are to be.
        head: the row of the version's head.
        kind: kind of the event.
        facts: what it tells.
        by: who.
        at: the time.
    """
    key, subject = labels_key(after.model, after.number), labels_subject(after.model, after.number)
    change = Change(key, before.rev + 1, after.state(), kind, subject, {"number": after.number, **facts})
    created = str(head["created"])
    entries = entries_of_labels(replace(after, updated_at=timestamp(at)), created)
    return [*change.writes(by, at), *index_writes(entries_of_labels(before, created), entries)]


def _without_false(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state as a row holds it: what is false is absent, so that conditions can ask for its absence."""
    return {name: value for name, value in state.items() if value is not False}
