"""Catalogue: create, describe, rename and delete models; tag and label models and versions. Aliases: `attestry.usecases.aliases`.

Rules:
- A model that is created here and a model that came by a submitted manifest are one: the catalogue's row joins the head that numbers the
  versions, whichever was there first. Of a model that has versions and no row yet the row is made with its first change.
- The same change again changes nothing and writes no event. Creating is the exception: the name is taken, unless the same principal asks
  for the same model with the same idempotency key.
- Deleting is for open models. It takes something out of the catalogue: aliases, tags and search. Numbers are not used again, and files,
  moves and events stay. A version that is in use is not deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from attestry.domain.catalogue import (
    Labels,
    Mode,
    ModelSubject,
    RegisteredModel,
    Subject,
    VersionSubject,
    check_description,
    check_mode,
    check_name,
    check_tag,
    check_tags,
    identity_of,
)
from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError, ModelExistsError, NotFoundError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.evidence.digests import sha256_hex
from attestry.ports import ABSENT, Check, Delete, MetaStore, Put, When
from attestry.usecases.aliases import delete_alias, list_aliases, read_alias, set_alias
from attestry.usecases.catalogue_deletion import delete_model, delete_version
from attestry.usecases.catalogue_rows import (
    catalogue_key,
    find_model,
    labels_writes,
    load_labels,
    load_model,
    model_among,
    model_writes,
    name_key,
    require_rev,
    told_value,
    tries,
    who,
)
from attestry.usecases.index_rows import commit
from attestry.usecases.records import model_key

__all__ = [
    "change_labels",
    "change_model",
    "create_model",
    "delete_alias",
    "delete_model",
    "delete_tag",
    "delete_version",
    "describe_model",
    "list_aliases",
    "read_alias",
    "read_labels",
    "read_model",
    "rename_model",
    "set_alias",
    "set_tag",
    "tag_version",
]

CREATED: Final = "model.created"
CHANGED: Final = "model.changed"
RENAMED: Final = "model.renamed"
TAG_SET: Final = "tag.set"
TAG_DELETED: Final = "tag.deleted"
LABELLED: Final = "version.labelled"

_OF_MANIFEST = ("owner", "team", "purpose", "risk_tier", "labels")

Step = tuple[RegisteredModel, str, dict[str, Any]]
"""A model after a change, the kind of the event, and its facts."""


def create_model(
    meta: MetaStore,
    name: str,
    *,
    by: Principal,
    at: datetime,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    mode: str = Mode.GOVERNED.value,
    key: str | None = None,
) -> RegisteredModel:
    """Create a model without versions.

    Args:
        meta: the table.
        name: see `attestry.domain.catalogue.check_name`.
        by: who.
        at: the time.
        description: text.
        tags: key to value.
        mode: `open` or `governed`.
        key: idempotency key: the same call by the same login with the same key returns what the first one made.

    Raises:
        InvalidInputError: a name, description, tag or mode out of form.
        ModelExistsError: a model has the name, or had it before it was renamed.
    """
    identity = identity_of(name)
    tags, description, mode = check_tags(tags or {}), check_description(description), check_mode(mode)
    token = sha256_hex(f"{by.login}\n{key}".encode()) if key else ""
    for _ in tries():
        rows = meta.get_many([catalogue_key(identity), name_key(name), model_key(identity)])
        there = model_among(rows, identity)
        alive = there if there is not None and not there.deleted else None
        if alive is not None and token and (rows.get(catalogue_key(identity)) or {}).get("token") == token:
            asked = replace(alive, name=name, description=description, tags=tags, mode=mode)
            if asked == alive:
                return alive
        if name_key(name) in rows or alive is not None:
            raise ModelExistsError(f"there is a model {name} already", details={"name": name})
        rev = there.rev + 1 if there else 1
        model = RegisteredModel(name, description, tags, mode, timestamp(at), timestamp(at), rev, identity, who(by))
        facts = {"name": name, "mode": mode, **({"tags": sorted(tags)[:20]} if tags else {})}
        try:
            writes = model_writes(there, model, CREATED, facts, by, at, {"token": token} if token else None)
            commit(meta, [*writes, Check(name_key(name), ABSENT)])
        except ConditionFailedError:
            continue
        return model
    raise _overtaken(name)


def describe_model(meta: MetaStore, model: str, *, by: Principal, at: datetime) -> RegisteredModel:
    """Bring a model's row in line with what its latest manifest says of it; make the row where there is none.

    Args:
        meta: the table.
        model: the identity of a model that has versions.
        by: who submitted the manifest.
        at: the time.

    Raises:
        NotFoundError: the model has no version.
        ConflictError: it is being changed by many others.
    """
    for _ in tries():
        rows = meta.get_many([catalogue_key(model), model_key(model)])
        head, row = rows.get(model_key(model)), rows.get(catalogue_key(model))
        if head is None:
            raise NotFoundError(f"there is no model {model}")
        said = RegisteredModel.from_item(head)
        there = RegisteredModel.from_item(row) if row else None
        base = there if there is not None and not there.deleted else replace(said, rev=there.rev if there else 0, created_by=who(by))
        manifest = {name: getattr(said, name) for name in _OF_MANIFEST}
        changed = sorted(name for name, value in manifest.items() if getattr(base, name) != value)
        if base is there and not changed:
            return base
        described = replace(base, **manifest, rev=base.rev + 1, updated_at=timestamp(at))
        kind: str = CHANGED if base is there else CREATED
        facts: dict[str, Any] = {"changed": changed} if base is there else {"name": base.name, "mode": base.mode}
        try:
            commit(meta, model_writes(there, described, kind, facts, by, at))
        except ConditionFailedError:
            continue
        return described
    raise _overtaken(model)


def read_model(meta: MetaStore, name: str) -> RegisteredModel:
    """Return the model that has a name; a name that it no longer has leads nowhere, its identity always does.

    Raises:
        NotFoundError: no such model.
        InvalidInputError: no name.
    """
    identity = identity_of(name)
    rows = meta.get_many([catalogue_key(identity), name_key(name), model_key(identity)])
    renamed = rows.get(name_key(name))
    if renamed and renamed.get("name") == name and renamed.get("model"):
        found = find_model(meta, str(renamed["model"]))
    else:
        found = model_among(rows, identity)
    if found is None or found.deleted or name not in (found.name, found.model):
        raise NotFoundError(f"there is no model {name}")
    return found


def change_model(
    meta: MetaStore, name: str, *, by: Principal, at: datetime, description: str | None = None, if_rev: int | None = None
) -> RegisteredModel:
    """Change a model's description.

    Args:
        meta: the table.
        name: name or identity.
        by: who.
        at: the time.
        description: text; None leaves it.
        if_rev: change it only if the model is at this revision.

    Raises:
        NotFoundError: no such model.
        RevisionError: it is at another revision.
        InvalidInputError: the text is too long.
        ConflictError: it is being changed by many others.
    """
    if description is not None:
        check_description(description)

    def describe(model: RegisteredModel) -> Step:
        changed = model if description is None else replace(model, description=description)
        return changed, CHANGED, {"changed": ["description"]}

    return _change_model(meta, name, describe, by, at, if_rev)


def rename_model(meta: MetaStore, name: str, new_name: str, *, by: Principal, at: datetime, if_rev: int | None = None) -> RegisteredModel:
    """Give an open model another name; its identity, in references, folders and events, stays.

    Raises:
        NotFoundError: no such model.
        ModelModeError: it is governed.
        ModelExistsError: another model has the name, or had it before it was renamed.
        RevisionError: it is at another revision.
    """
    check_name(new_name)
    for _ in tries():
        model = read_model(meta, name)
        require_rev(name, model.rev, if_rev)
        if model.name == new_name:
            return model
        model.require_open("its name is fixed")
        taken = meta.get_many([catalogue_key(identity_of(new_name)), name_key(new_name), model_key(identity_of(new_name))])
        other = model_among(taken, identity_of(new_name))
        if name_key(new_name) in taken or (other is not None and other.model != model.model):
            raise ModelExistsError(f"there is a model {new_name} already", details={"name": new_name})
        renamed = replace(model, name=new_name, rev=model.rev + 1, updated_at=timestamp(at))
        writes = model_writes(model, renamed, RENAMED, {"from": model.name, "to_name": new_name}, by, at)
        if identity_of(new_name) != model.model:
            writes.append(Put(name_key(new_name), {"name": new_name, "model": model.model}, ABSENT))
            writes.append(Check(catalogue_key(identity_of(new_name)), ABSENT))
            writes.append(Check(model_key(identity_of(new_name)), ABSENT))
        if identity_of(model.name) != model.model:
            writes.append(Delete(name_key(model.name), When()))
        try:
            commit(meta, writes)
        except ConditionFailedError:
            continue
        return renamed
    raise _overtaken(name)


def set_tag(meta: MetaStore, subject: Subject, key: str, value: str, *, by: Principal, at: datetime, if_rev: int | None = None) -> None:
    """Set a tag of a model or of a version; the same again changes nothing.

    Raises:
        NotFoundError: no such model or version.
        InvalidInputError: key or value out of form, or too many tags.
        RevisionError: the subject is at another revision.
        ConflictError: it is being changed by many others.
    """
    if isinstance(subject, VersionSubject):
        tag_version(meta, subject, key, value, by=by, at=at, if_rev=if_rev)
        return
    tagged, told = _tagging(key, value)
    _change_model(meta, subject.name, lambda model: (replace(model, tags=tagged(model.tags)), *told), by, at, if_rev)


def tag_version(
    meta: MetaStore, subject: VersionSubject, key: str, value: str, *, by: Principal, at: datetime, if_rev: int | None = None
) -> Labels:
    """Set a tag of a version as `set_tag` does, and return what people say about the version by then."""
    tagged, told = _tagging(key, value)
    name, number = subject.name, subject.number
    return _change_labels(meta, name, number, lambda labels: replace(labels, tags=tagged(labels.tags)), told, by, at, if_rev)


def delete_tag(meta: MetaStore, subject: Subject, key: str, *, by: Principal, at: datetime, if_rev: int | None = None) -> None:
    """Take a tag away from a model or a version; one that is not there changes nothing.

    Raises:
        NotFoundError: no such model or version.
        RevisionError: the subject is at another revision.
        ConflictError: it is being changed by many others.
    """

    def untagged(tags: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in tags.items() if name != key}

    told = TAG_DELETED, {"key": key}
    if isinstance(subject, ModelSubject):
        _change_model(meta, subject.name, lambda model: (replace(model, tags=untagged(model.tags)), *told), by, at, if_rev)
    else:
        name, number = subject.name, subject.number
        _change_labels(meta, name, number, lambda labels: replace(labels, tags=untagged(labels.tags)), told, by, at, if_rev)


def read_labels(meta: MetaStore, model: str, number: int) -> Labels:
    """Return what people say about a version.

    Raises:
        NotFoundError: no such version, or it was deleted.
    """
    return load_labels(meta, model, number)[0]


def change_labels(
    meta: MetaStore,
    model: str,
    number: int,
    *,
    by: Principal,
    at: datetime,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
    if_rev: int | None = None,
) -> Labels:
    """Change the description of a version, or all of its tags at once.

    Args:
        meta: the table.
        model: name or identity.
        number: the version's number.
        by: who.
        at: the time.
        description: text; None leaves it.
        tags: all tags that it is to have; None leaves them.
        if_rev: change them only if they are at this revision.

    Raises:
        NotFoundError: no such version.
        InvalidInputError: text or tags out of form.
        RevisionError: the labels are at another revision.
        ConflictError: they are being changed by many others.
    """
    text = None if description is None else check_description(description)
    whole = None if tags is None else check_tags(tags)
    changed = [name for name, value in (("description", text), ("tags", whole)) if value is not None]

    def label(labels: Labels) -> Labels:
        return replace(labels, description=labels.description if text is None else text, tags=labels.tags if whole is None else dict(whole))

    return _change_labels(meta, model, number, label, (LABELLED, {"changed": changed}), by, at, if_rev)


def _tagging(key: str, value: str) -> tuple[Callable[[Mapping[str, str]], dict[str, str]], tuple[str, dict[str, Any]]]:
    """Return what a tag makes of a subject's tags, and the event's kind and facts."""
    check_tag(key, value)
    return lambda tags: check_tags({**tags, key: value}), (TAG_SET, {"key": key, **told_value(value)})


def _change_model(
    meta: MetaStore, name: str, change: Callable[[RegisteredModel], Step], by: Principal, at: datetime, if_rev: int | None
) -> RegisteredModel:
    for _ in tries():
        model = load_model(meta, name)
        require_rev(name, model.rev, if_rev)
        changed, kind, facts = change(model)
        if changed == model:
            return model
        changed = replace(changed, rev=model.rev + 1, updated_at=timestamp(at))
        try:
            commit(meta, model_writes(model, changed, kind, facts, by, at))
        except ConditionFailedError:
            continue
        return changed
    raise _overtaken(name)


def _change_labels(
    meta: MetaStore,
    name: str,
    number: int,
    change: Callable[[Labels], Labels],
    told: tuple[str, dict[str, Any]],
    by: Principal,
    at: datetime,
    if_rev: int | None,
) -> Labels:
    if number < 1:
        raise InvalidInputError.of("number", "number", "versions are numbered from 1")
    for _ in tries():
        labels, head = load_labels(meta, name, number)
        require_rev(f"{labels.model}@{number}", labels.rev, if_rev)
        changed = change(labels)
        if changed == labels:
            return labels
        try:
            commit(meta, labels_writes(labels, changed, head, *told, by, at))
        except ConditionFailedError:
            continue
        return replace(changed, rev=labels.rev + 1, updated_at=timestamp(at))
    raise _overtaken(f"{name}@{number}")


def _overtaken(what: str) -> ConflictError:
    return ConflictError(f"{what} is being changed by many others; try again")
