"""Searches of MLflow's clients: filter, order and page, over models of the catalogue and over the versions of a model.

A cursor is the sort key of the last entry of a page, so that a page goes on behind it whatever was added or deleted meanwhile.

Versions of one model by number, which is also what is given where no order is asked for, are read from the cursor on and no further than
the page needs. Other orders, and versions of several models, are read whole before they are put in order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from attestry.domain.catalogue import RegisteredModel
from attestry.mlflow.entities import ShownModel, ShownVersion
from attestry.mlflow.errors import MlflowError, invalid
from attestry.mlflow.filters import Condition, matches_number, matches_text
from attestry.mlflow.ordering import CREATED, NAME, NUMBER, UPDATED, Order
from attestry.mlflow.requests import Search
from attestry.ports import MetaStore
from attestry.usecases.aliases import Aliases
from attestry.usecases.catalogue_rows import COLLECTION, aliases_key
from attestry.usecases.mlflow_reading import Known, find, versions_of

READ_AT_MOST: Final = 2000
"""Versions that one page is looked for among: one with fewer than were asked for, or none, may have a token to go on by."""

_BATCH: Final = 50

Place = list[str | int]
Readable = Callable[[list[str]], list[str]]


def search_models(meta: MetaStore, asked: Search, readable: Readable) -> tuple[list[ShownModel], str]:
    """Return a page of models and the cursor behind it, empty at the end; by name where no order is asked for.

    Args:
        meta: the table.
        asked: the search.
        readable: leaves those of some models, by their identities, which the caller may read.
    """
    if asked.filter.nothing:
        return [], ""
    models = _readable(meta, readable)
    kept = [m for m in models if all(_model_meets(m, c) for c in asked.filter.conditions)]
    page, cursor = _page(kept, asked, _model_value, ())
    keys = [aliases_key(m.model) for m in page]
    rows = {key: row for start in range(0, len(keys), 100) for key, row in meta.get_many(keys[start : start + 100]).items()}
    known = [Known(m, Aliases.from_item(m.model, rows.get(aliases_key(m.model))), 0) for m in page]
    return [one.show() for one in known], cursor


def search_versions(meta: MetaStore, asked: Search, readable: Readable) -> tuple[list[ShownVersion], str]:
    """Return a page of versions and the cursor behind it, empty at the end.

    Where no order is asked for: of one model, named by `=`, the newest first; else those changed last first.

    Args:
        meta: the table.
        asked: the search.
        readable: leaves those of some models, by their identities, which the caller may read.
    """
    if asked.filter.nothing:
        return [], ""
    name, ascending = _one_name(asked.filter.conditions), _by_number(asked.order)
    if name is not None and ascending is not None:
        return _walk(meta, name, asked, readable, ascending=ascending)
    found: list[ShownVersion] = []
    for known in _models_of(meta, asked.filter.conditions, readable):
        numbers = range(known.last, 0, -1)
        found += [v.show_version() for v in versions_of(meta, known, numbers)]
    kept = [v for v in found if all(_version_meets(v, c) for c in asked.filter.conditions)]
    return _page(kept, asked, _version_value, (Order(UPDATED, ascending=False),))


def _walk(meta: MetaStore, name: str, asked: Search, readable: Readable, *, ascending: bool) -> tuple[list[ShownVersion], str]:
    """Return a page of a model's versions by number, reading no more of them than it takes."""
    try:
        known = find(meta, name)
    except MlflowError:
        return [], ""
    if not readable([known.model.model]):
        return [], ""
    numbers = _numbers(known.last, asked, ascending=ascending)
    wanted = numbers[:READ_AT_MOST]
    size = min(_BATCH, asked.limit) if len(asked.filter.conditions) == 1 else _BATCH
    page: list[ShownVersion] = []
    for start in range(0, len(wanted), size):
        for one in versions_of(meta, known, wanted[start : start + size]):
            version = one.show_version()
            if all(_version_meets(version, c) for c in asked.filter.conditions):
                page.append(version)
            if len(page) == asked.limit:
                return page, _after(version.number, numbers)
    return page, _after(wanted[-1], numbers) if wanted else ""


def _after(number: int, numbers: range) -> str:
    """Return the cursor behind a number; empty behind the last."""
    return json.dumps([number]) if number != numbers[-1] else ""


def _numbers(last: int, asked: Search, *, ascending: bool) -> range:
    """Return the numbers that a search has left to look at, in its order."""
    low, high = 1, last
    for condition in asked.filter.conditions:
        if condition.kind == "attribute" and condition.key == NUMBER and isinstance(condition.value, int):
            value = condition.value
            low = max(low, {"=": value, ">=": value, ">": value + 1}.get(condition.comparator, low))
            high = min(high, {"=": value, "<=": value, "<": value - 1}.get(condition.comparator, high))
    if asked.cursor:
        after = _read_place(asked.cursor, (Order(NUMBER),))[0].value
        low, high = (max(low, int(after) + 1), high) if ascending else (low, min(high, int(after) - 1))
    return range(low, high + 1) if ascending else range(high, low - 1, -1)


def _one_name(conditions: Sequence[Condition]) -> str | None:
    """Return the name of the one model whose versions may meet the conditions."""
    named = (c.value for c in conditions if c.kind == "attribute" and c.key == "name" and c.comparator == "=")
    return next((value for value in named if isinstance(value, str)), None)


def _by_number(order: Sequence[Order]) -> bool | None:
    """Return whether the versions of one model are wanted by ascending number; None where they are wanted in another order."""
    told = [o for o in order if o.key != NAME]
    if not told:
        return False
    return told[0].ascending if told[0].key == NUMBER else None


def _models_of(meta: MetaStore, conditions: Sequence[Condition], readable: Readable) -> Iterable[Known]:
    """Yield the models whose versions may meet the conditions."""
    named = [c for c in conditions if c.kind == "attribute" and c.key == "name"]
    exact = _one_name(conditions)
    if exact is not None:
        names: Iterable[str] = [exact]
    else:
        names = [m.name for m in _readable(meta, readable) if all(matches_text(m.name, c.comparator, c.value) for c in named)]
    for name in names:
        try:
            known = find(meta, name)
        except MlflowError:
            continue
        if readable([known.model.model]):
            yield known


def _readable(meta: MetaStore, readable: Readable) -> list[RegisteredModel]:
    """Return the models of the catalogue that the caller may read."""
    models = {str(row["model"]): RegisteredModel.from_item(row) for row in meta.list_collection(COLLECTION)}
    return [models[model] for model in readable(list(models))]


def _model_meets(model: RegisteredModel, condition: Condition) -> bool:
    if condition.kind == "tag":
        tag = model.tags.get(condition.key)
        return tag is not None and matches_text(tag, condition.comparator, condition.value)
    return matches_text(model.name, condition.comparator, condition.value)


def _version_meets(version: ShownVersion, condition: Condition) -> bool:
    if condition.kind == "tag":
        tag = version.tags.get(condition.key)
        return tag is not None and matches_text(tag, condition.comparator, condition.value)
    if condition.key == NUMBER:
        return matches_number(version.number, condition.comparator, condition.value)
    text = {"name": version.name, "run_id": version.run_id, "source_path": version.source}[condition.key]
    return matches_text(text, condition.comparator, condition.value)


def _page(found: list[Any], asked: Search, value: Callable[[Any, str], str | int], default: tuple[Order, ...]) -> tuple[list[Any], str]:
    """Return a page in order, and the cursor behind it."""
    orders = list(asked.order or default)
    orders += [tie for tie in (Order(NAME), Order(NUMBER, ascending=False)) if tie.key not in {o.key for o in orders}]
    placed = sorted(((tuple(_Ranked(value(one, o.key), o.ascending) for o in orders), one) for one in found), key=lambda pair: pair[0])
    if asked.cursor:
        after = _read_place(asked.cursor, orders)
        placed = [pair for pair in placed if pair[0] > after]
    page = placed[: asked.limit]
    if len(placed) <= asked.limit:
        return [one for _, one in page], ""
    return [one for _, one in page], json.dumps([ranked.value for ranked in page[-1][0]])


class _Ranked:
    """A value that comes earlier the smaller it is, or the larger."""

    def __init__(self, value: str | int, ascending: bool) -> None:
        self.value = value
        self._ascending = ascending

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ranked) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __lt__(self, other: _Ranked) -> bool:
        first, second = (self.value, other.value) if self._ascending else (other.value, self.value)
        return bool(first < second)  # type: ignore[operator]  # values of one key are of one type


def _read_place(cursor: str, orders: Sequence[Order]) -> tuple[_Ranked, ...]:
    try:
        values: Place = json.loads(cursor)
        if len(values) != len(orders) or any(type(v) is not (int if o.key == NUMBER else str) for v, o in zip(values, orders, strict=True)):
            raise ValueError("another place")
    except (ValueError, TypeError) as error:
        raise invalid("Invalid page token, it is none that this registry gave") from error
    return tuple(_Ranked(value, order.ascending) for value, order in zip(values, orders, strict=True))


def _model_value(model: RegisteredModel, key: str) -> str | int:
    values: dict[str, str | int] = {NAME: model.name, CREATED: model.created_at, UPDATED: model.updated_at, NUMBER: 0}
    return values[key]


def _version_value(version: ShownVersion, key: str) -> str | int:
    values: dict[str, str | int] = {NAME: version.name, CREATED: version.created, UPDATED: version.updated, NUMBER: version.number}
    return values[key]
