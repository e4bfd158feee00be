"""Annotate: remarks of people on a version, or on one of its moves. They are read beside the record and never change it.

A remark is one row and one event that carries its digest. The same remark on the same move by the same login, sent again right away, is
the one that is there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from attestry.domain.catalogue import Annotation, check_annotation, identity_of
from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError, NotFoundError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal
from attestry.evidence.digests import sha256_hex
from attestry.ports import ABSENT, MetaStore, Put
from attestry.usecases.catalogue_rows import annotation_key, annotations_subject, load_labels, state_digest, tries, who
from attestry.usecases.records import outbox_put, transition_key

ANNOTATED: Final = "version.annotated"


def annotate(meta: MetaStore, model: str, number: int, text: str, *, by: Principal, at: datetime, transition: int = 0) -> Annotation:
    """Write a remark.

    Args:
        meta: the table.
        model: name or identity.
        number: the version.
        text: the remark, at most 2,000 characters.
        by: who.
        at: the time.
        transition: number of the move that it is about; 0 for the version as a whole.

    Raises:
        InvalidInputError: the text is out of form.
        NotFoundError: no such version or move.
        ConflictError: many others remark on it at the same time.
    """
    text, model = check_annotation(text), identity_of(model)
    if type(transition) is not int or not 0 <= transition < 10**6:
        raise InvalidInputError.of("transition", "number", "the number of a move of the version, or 0 for the version as a whole")
    for _ in tries():
        load_labels(meta, model, number)
        if transition and meta.get(transition_key(model, number, transition)) is None:
            raise NotFoundError(f"{model}@{number} has no transition {transition}")
        latest = _read(meta, model, number, newest_first=True, limit=1)
        if latest and _same(latest[0], text, transition, by):
            return latest[0]
        sequence = latest[0].sequence + 1 if latest else 1
        made = Annotation(model, number, sequence, transition, text, who(by), timestamp(at))
        told = {"number": number, "transition": transition, "text_sha256": sha256_hex(text.encode()), "state": state_digest(made.to_dict())}
        row = {**made.to_dict(), "login": by.login}
        event = Event(ANNOTATED, annotations_subject(model, number), sequence, at, by, told)
        try:
            meta.transact([Put(annotation_key(model, number, sequence), row, ABSENT), outbox_put(event)])
        except ConditionFailedError:
            continue
        return made
    raise ConflictError(f"many others remark on {model}@{number}; try again")


def list_annotations(meta: MetaStore, model: str, number: int, *, after: int = 0, limit: int = 100) -> list[Annotation]:
    """Return remarks on a version, the oldest first.

    Args:
        meta: the table.
        model: name or identity.
        number: the version.
        after: only remarks with a greater sequence.
        limit: at most so many.

    Raises:
        NotFoundError: no such version.
    """
    model = identity_of(model)
    load_labels(meta, model, number)
    first, last = annotation_key(model, number, after), annotation_key(model, number, 10**9 - 1)
    rows = meta.query(first.partition, after=first.sort, before=f"{last.sort}~", limit=limit)
    return [annotation_of(row) for row in rows]


def annotation_of(row: dict[str, Any]) -> Annotation:
    """Return the remark that a row tells of."""
    names = ("number", "sequence", "transition")
    numbers = {name: int(row[name]) for name in names}
    return Annotation(str(row["model"]), **numbers, text=str(row["text"]), by=str(row["by"]), at=str(row["at"]))


def _read(meta: MetaStore, model: str, number: int, *, newest_first: bool, limit: int) -> list[Annotation]:
    key = annotation_key(model, number, 0)
    rows = meta.query(key.partition, prefix=key.sort[:-9], newest_first=newest_first, limit=limit)
    return [annotation_of(row) for row in rows]


def _same(one: Annotation, text: str, transition: int, by: Principal) -> bool:
    return (one.text, one.transition, one.by) == (text, transition, who(by))
