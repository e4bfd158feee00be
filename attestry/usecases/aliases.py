"""Aliases: names for versions of a model, such as `champion`, that move from version to version.

All aliases of a model are one row, so that whoever reads a page of models reads their aliases in the same round trip, and an alias that was
taken away leaves no row of its own behind. What is deployed is not told by an alias but by the pointer; moving an alias deploys nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from attestry.domain.catalogue import MAX_ALIASES, Alias, check_alias, identity_of
from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError, NotFoundError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.ports import Check, Item, MetaStore, When, Write
from attestry.usecases.catalogue_rows import (
    Change,
    aliases_key,
    aliases_subject,
    catalogue_key,
    labels_key,
    model_among,
    require_rev,
    tries,
    who,
)
from attestry.usecases.records import model_key, version_key

SET: Final = "alias.set"
DELETED: Final = "alias.deleted"
_NOT_DELETED = When(equals={"deleted": None})


@dataclass(frozen=True)
class Aliases:
    """All aliases of a model.

    Attributes:
        model: the model's identity.
        rev: counts the changes, from 1; 0 before the first.
        by_alias: alias to what it names.
    """

    model: str
    rev: int = 0
    by_alias: Mapping[str, Alias] = field(default_factory=dict)

    @classmethod
    def from_item(cls, model: str, row: Mapping[str, Any] | None) -> Aliases:
        """Return the aliases that a row tells of; without one, none."""
        row = row or {}
        told = {
            alias: Alias(model, alias, int(a["number"]), int(a["rev"]), str(a["at"]), str(a["by"]))
            for alias, a in sorted((row.get("aliases") or {}).items())
        }
        return cls(model, int(row.get("rev") or 0), told)

    def state(self) -> dict[str, Any]:
        """Return what the events tell of."""
        told = {a.alias: {"number": a.number, "rev": a.rev, "at": a.set_at, "by": a.set_by} for a in self.by_alias.values()}
        return {"model": self.model, "aliases": told}

    def of_version(self, number: int) -> tuple[str, ...]:
        """Return the aliases that name a version."""
        return self._by_number.get(number, ())

    @cached_property
    def _by_number(self) -> Mapping[int, tuple[str, ...]]:
        """Return version to aliases, worked out once for all versions that a search shows."""
        named: dict[int, tuple[str, ...]] = {}
        for alias in self.by_alias.values():
            named[alias.number] = (*named.get(alias.number, ()), alias.alias)
        return named


def set_alias(meta: MetaStore, model: str, alias: str, number: int, *, by: Principal, at: datetime, if_rev: int | None = None) -> Alias:
    """Let an alias name a version; the same again changes nothing.

    Args:
        meta: the table.
        model: name or identity.
        alias: see `attestry.domain.catalogue.check_alias`.
        number: the version.
        by: who.
        at: the time.
        if_rev: set it only if the alias is at this revision (`Alias.rev`); 0 for one that must not exist.

    Raises:
        InvalidInputError: an alias out of form, or too many of them.
        NotFoundError: no such model or version.
        RevisionError: the alias is at another revision.
        ConflictError: the model's aliases are being changed by many others.
    """
    check_alias(alias)
    model = identity_of(model)
    labels, head = labels_key(model, number), version_key(model, number)
    for _ in tries():
        rows = meta.get_many([aliases_key(model), catalogue_key(model), model_key(model), labels, head])
        _require_model(rows, model)
        if head not in rows or (rows.get(labels) or {}).get("deleted"):
            raise NotFoundError(f"there is no version {model}@{number}")
        aliases = Aliases.from_item(model, rows.get(aliases_key(model)))
        there = aliases.by_alias.get(alias)
        require_rev(f"the alias {alias} of {model}", there.rev if there else 0, if_rev)
        if there is not None and there.number == number:
            return there
        made = Alias(model, alias, number, aliases.rev + 1, timestamp(at), who(by))
        changed = replace(aliases, by_alias={**aliases.by_alias, alias: made})
        if len(changed.by_alias) > MAX_ALIASES:
            raise InvalidInputError.of("alias", "max_aliases", f"a model has at most {MAX_ALIASES} aliases")
        facts = {"alias": alias, "number": number, "previous": there.number if there else None}
        try:
            # Whoever deletes the version or the model meanwhile, deletes the aliases that they see.
            guards = [Check(catalogue_key(model), _NOT_DELETED), Check(labels, _NOT_DELETED)]
            meta.transact([*alias_writes(changed, SET, facts, by, at), *guards])
        except ConditionFailedError:
            continue
        return made
    raise ConflictError(f"the aliases of {model} are being changed by many others; try again")


def delete_alias(meta: MetaStore, model: str, alias: str, *, by: Principal, at: datetime, if_rev: int | None = None) -> None:
    """Take an alias away; one that is not there changes nothing.

    Raises:
        InvalidInputError: an alias out of form.
        NotFoundError: no such model.
        RevisionError: the alias is at another revision.
        ConflictError: the model's aliases are being changed by many others.
    """
    check_alias(alias)
    model = identity_of(model)
    for _ in tries():
        aliases = read_aliases(meta, model)
        there = aliases.by_alias.get(alias)
        require_rev(f"the alias {alias} of {model}", there.rev if there else 0, if_rev)
        if there is None:
            return
        changed = replace(aliases, by_alias={name: a for name, a in aliases.by_alias.items() if name != alias})
        try:
            meta.transact(alias_writes(changed, DELETED, {"alias": alias, "previous": there.number}, by, at))
        except ConditionFailedError:
            continue
        return
    raise ConflictError(f"the aliases of {model} are being changed by many others; try again")


def read_alias(meta: MetaStore, model: str, alias: str) -> Alias:
    """Return which version an alias names; one read where it names one.

    Raises:
        InvalidInputError: an alias out of form.
        NotFoundError: no such model, or it has no such alias.
    """
    check_alias(alias)
    found = read_aliases(meta, identity_of(model)).by_alias.get(alias)
    if found is None:
        raise NotFoundError(f"{model} has no alias {alias}")
    return found


def list_aliases(meta: MetaStore, model: str) -> list[Alias]:
    """Return a model's aliases in alphabetical order.

    Raises:
        NotFoundError: no such model.
    """
    return list(read_aliases(meta, identity_of(model)).by_alias.values())


def read_aliases(meta: MetaStore, model: str) -> Aliases:
    """Return all aliases of a model, by its identity.

    Raises:
        NotFoundError: no such model.
    """
    rows = meta.get_many([aliases_key(model), catalogue_key(model), model_key(model)])
    _require_model(rows, model)
    return Aliases.from_item(model, rows.get(aliases_key(model)))


def alias_writes(changed: Aliases, kind: str, facts: Mapping[str, Any], by: Principal, at: datetime) -> list[Write]:
    """Return the writes of a change of a model's aliases, whose revision is still that before the change."""
    subject = aliases_subject(changed.model)
    return Change(aliases_key(changed.model), changed.rev + 1, changed.state(), kind, subject, facts).writes(by, at)


def _require_model(rows: Mapping[Any, Item], model: str) -> None:
    found = model_among(rows, model)
    if found is None or found.deleted:
        raise NotFoundError(f"there is no model {model}")
