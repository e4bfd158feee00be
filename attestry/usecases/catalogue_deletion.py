"""Delete versions and models from the catalogue: for open models alone, and never what is in use.

What is deleted is no longer found, tagged, labelled or named by an alias. Its moves, files and events stay: they are evidence.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from attestry.domain.catalogue import Labels, RegisteredModel, identity_of
from attestry.domain.errors import ConditionFailedError, ConflictError, NotFoundError, UnavailableError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.domain.search_index import entries_of_version
from attestry.domain.stages import Standing
from attestry.domain.version import Version
from attestry.ports import Check, Delete, MetaStore, When, Write
from attestry.usecases import aliases as named
from attestry.usecases.catalogue_rows import (
    aliases_key,
    catalogue_key,
    labels_key,
    labels_writes,
    model_among,
    model_writes,
    name_key,
    require_rev,
    tries,
)
from attestry.usecases.index_rows import commit, index_writes
from attestry.usecases.records import model_key, version_key

MODEL_DELETED: Final = "model.deleted"
VERSION_DELETED: Final = "version.deleted"
IN_USE: Final = frozenset({Standing.DEPLOYED, Standing.ROLLBACK, Standing.CANARY, Standing.SHADOW})
MAX_VERSIONS: Final = 200
"""Versions that one call deletes with their model; with more, it is called again and goes on."""


def delete_version(meta: MetaStore, model: str, number: int, *, by: Principal, at: datetime, if_rev: int | None = None) -> None:
    """Delete a version of an open model from the catalogue, with the aliases that name it; one that was deleted stays so.

    Args:
        meta: the table.
        model: name or identity.
        number: the version.
        by: who.
        at: the time.
        if_rev: delete it only if its labels are at this revision.

    Raises:
        NotFoundError: no such model or version.
        ModelModeError: the model is governed.
        ConflictError: the version is in use, or is being changed by many others.
        RevisionError: its labels are at another revision.
    """
    model = identity_of(model)
    own = (labels_key(model, number), version_key(model, number), catalogue_key(model), model_key(model), aliases_key(model))
    for _ in tries():
        rows = meta.get_many(own)
        found, head = model_among(rows, model), rows.get(version_key(model, number))
        if found is None or head is None:
            raise NotFoundError(f"there is no version {model}@{number}")
        labels, version = Labels.from_item(model, number, rows.get(labels_key(model, number))), Version.from_item(head)
        if labels.deleted:
            return
        found.require_open("its versions are not deleted")
        require_rev(version.reference, labels.rev, if_rev)
        if version.standing in IN_USE:
            raise ConflictError(f"{version.reference} is in use: it stands {version.standing.value}; retire it before you delete it")
        gone = replace(labels, description="", tags={}, deleted=True)
        writes = labels_writes(labels, gone, head, VERSION_DELETED, {"standing": version.standing.value}, by, at)
        writes.append(Check(version_key(model, number), When(exists=True, equals={"rev": version.rev})))
        writes += index_writes(entries_of_version(version), ())
        held = named.Aliases.from_item(model, rows.get(aliases_key(model)))
        writes += _without_aliases(held, held.of_version(number), by, at) or [_unchanged(held)]
        try:
            commit(meta, writes)
        except ConditionFailedError:
            continue
        return
    raise ConflictError(f"{model}@{number} is being changed by many others; try again")


def delete_model(meta: MetaStore, name: str, *, by: Principal, at: datetime, if_rev: int | None = None) -> None:
    """Delete an open model from the catalogue, with its versions and aliases; one that was deleted stays so.

    Args:
        meta: the table.
        name: name or identity.
        by: who.
        at: the time.
        if_rev: delete it only if it is at this revision.

    Raises:
        NotFoundError: no such model.
        ModelModeError: it is governed.
        ConflictError: a version of it is in use, or it is being changed by many others.
        RevisionError: it is at another revision.
        UnavailableError: it has so many versions that some are left; called again, it goes on.
    """
    model = identity_of(name)
    for _ in tries():
        rows = meta.get_many([catalogue_key(model), model_key(model), aliases_key(model)])
        found, head = model_among(rows, model), rows.get(model_key(model))
        if found is None:
            raise NotFoundError(f"there is no model {name}")
        if found.deleted:
            return
        found.require_open("it is not deleted")
        require_rev(name, found.rev, if_rev)
        last = int(head["next"]) - 1 if head else 0
        _delete_versions(meta, found, last, by, at)
        aliases = named.Aliases.from_item(model, meta.get(aliases_key(model)))
        gone = replace(found, description="", tags={}, rev=found.rev + 1, updated_at=timestamp(at), deleted=True)
        writes = model_writes(found, gone, MODEL_DELETED, {"name": found.name, "versions": last}, by, at)
        writes += _without_aliases(aliases, tuple(aliases.by_alias), by, at) or [_unchanged(aliases)]
        # A version that was registered meanwhile is not left behind.
        writes.append(Check(model_key(model), When(equals={"next": int(head["next"]) if head else None})))
        if identity_of(found.name) != model:
            writes.append(Delete(name_key(found.name), When()))
        try:
            commit(meta, writes)
        except ConditionFailedError:
            continue
        return
    raise ConflictError(f"{name} is being changed by many others; try again")


def _delete_versions(meta: MetaStore, model: RegisteredModel, last: int, by: Principal, at: datetime) -> None:
    gone = {int(str(row["sk"])[-9:]) for row in meta.query(catalogue_key(model.model).partition, prefix="LABELS#") if row.get("deleted")}
    left = [number for number in range(1, last + 1) if number not in gone]
    for number in left[:MAX_VERSIONS]:
        delete_version(meta, model.model, number, by=by, at=at)
    if len(left) > MAX_VERSIONS:
        raise UnavailableError(f"{MAX_VERSIONS} of {len(left)} versions of {model.name} were deleted; ask again for the rest")


def _without_aliases(aliases: named.Aliases, gone: tuple[str, ...], by: Principal, at: datetime) -> list[Write]:
    """Return the writes that take aliases away; none where there are none to take."""
    if not gone:
        return []
    left = replace(aliases, by_alias={alias: a for alias, a in aliases.by_alias.items() if alias not in gone})
    facts = {"aliases": sorted(gone)[:20], "count": len(gone)}
    return named.alias_writes(left, named.DELETED, facts, by, at)


def _unchanged(aliases: named.Aliases) -> Check:
    """Return the condition that the aliases are what was read: whoever sets one now comes before, and is seen, or after, and is refused."""
    return Check(aliases_key(aliases.model), When(equals={"rev": aliases.rev or None}))
