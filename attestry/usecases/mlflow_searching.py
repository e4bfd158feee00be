"""Searches of MLflow's clients: filter, order and page, over models of the catalogue and over versions, of one model or of several.

Rules:
- A page reads what comes next in its order and no further than it needs, from an index in that order; it never reads everything.
- A page looks at `READ_AT_MOST` things at most. One that ends there may hold fewer than were asked for, or none, and has a cursor.
- What a filter leaves few of (a run's versions, those with a tag) is gathered and sorted, whatever the order.
- By number over several models there is no index. So many versions as a page may look at are gathered and sorted; of more it is refused.
- A cursor is a place (`attestry.mlflow.places`), so that a page goes on behind it whatever was added or deleted meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeVar

from attestry.domain.catalogue import RegisteredModel
from attestry.domain.search_index import CREATED as BY_CREATION
from attestry.domain.search_index import MODELS, VERSIONS, Lane, model_places, pair
from attestry.domain.search_index import NAME as BY_NAME
from attestry.mlflow.entities import ShownModel, ShownVersion
from attestry.mlflow.errors import invalid
from attestry.mlflow.filters import Condition, matches_number, matches_text
from attestry.mlflow.ordering import NAME, NUMBER, Order
from attestry.mlflow.places import Place, Sorting, write_cursor
from attestry.mlflow.requests import Search
from attestry.ports import MetaStore
from attestry.usecases.mlflow_lanes import LANES, Models, Readable, few_in, few_models_in, models_in, place_of, versions_at, versions_in
from attestry.usecases.mlflow_outline import AT_ONCE
from attestry.usecases.mlflow_reading import RUN_TAG, SOURCE_TAG, Found, Known

__all__ = ["READ_AT_MOST", "Readable", "search_models", "search_versions"]

READ_AT_MOST: Final = 2000
"""Models or versions that one page is looked for among: one with fewer than were asked for, or none, may have a token to go on by."""

_LABELS_TRIED: Final = 3
_PREFIX: Final = 200
_TAG_OF: Final = {"run_id": RUN_TAG, "source_path": SOURCE_TAG}
_ONE_BY_ONE: Final = Sorting((Order(NAME), Order(NUMBER, ascending=False)))

T = TypeVar("T")
Shown = TypeVar("Shown", ShownModel, ShownVersion)
Step = tuple[Place, T | None]
"""What a page looks at next: the place, and what lies there that may have a part in the answer."""


def search_models(meta: MetaStore, asked: Search, readable: Readable) -> tuple[list[ShownModel], str]:
    """Return a page of models and the cursor behind it, empty at the end; by name where no order is asked for.

    Args:
        meta: the table.
        asked: the search.
        readable: leaves those of some models, by their identities, which the caller may read.

    Raises:
        MlflowError: a page token that is none.
    """
    if asked.filter.nothing:
        return [], ""
    conditions, sorting = asked.filter.conditions, Sorting.of_models(asked.order)
    models = Models(meta, readable, lambda model: all(_model_meets(model, c) for c in conditions))
    walk = _Walk(meta, models, asked, sorting, sorting.read_cursor(asked.cursor), _named(models, conditions))
    return _page(walk.models_in_order(), asked.limit, Known.show, lambda _: True)


def search_versions(meta: MetaStore, asked: Search, readable: Readable) -> tuple[list[ShownVersion], str]:
    """Return a page of versions and the cursor behind it, empty at the end.

    Where no order is asked for: of one model, named by `=`, the newest first; else those changed last first.

    Args:
        meta: the table.
        asked: the search.
        readable: leaves those of some models, by their identities, which the caller may read.

    Raises:
        MlflowError: a page token that is none; or an order by number over more versions of several models than a page looks at.
    """
    if asked.filter.nothing:
        return [], ""
    conditions = asked.filter.conditions
    names = [c for c in conditions if c.kind == "attribute" and c.key == NAME]
    models = Models(meta, readable, lambda model: all(matches_text(model.name, c.comparator, c.value) for c in names))
    sorting = Sorting.of_versions(asked.order, one_model=len(_names(conditions) or ()) == 1)
    walk = _Walk(meta, models, asked, sorting, sorting.read_cursor(asked.cursor), _named(models, conditions))
    steps, last = walk.versions_in_order()
    # By its name a model was chosen already, once for all of its versions.
    further = [c for c in conditions if c not in names]
    return _page(steps, asked.limit, Found.show_version, lambda version: all(_version_meets(version, c) for c in further), last)


@dataclass(frozen=True)
class _Walk:
    """The way of a search through the index.

    Attributes:
        meta: the table.
        models: the models that it meets.
        asked: the search.
        sorting: its order.
        cursor: the place that it goes on behind.
        of: the models that its filter names, as far as they are there; None where it names none.
    """

    meta: MetaStore
    models: Models
    asked: Search
    sorting: Sorting
    cursor: Place
    of: list[Known] | None

    def models_in_order(self) -> Iterable[Step[Known]]:
        """Return the models that come behind the cursor."""
        order, first = LANES[self.sorting.first.key], self.sorting.first
        if self.of is not None:
            return self._sorted(((model_places(known.model)[order],), known) for known in self.of)
        lane = Lane(MODELS, "all", "", order)
        tags = [Lane(MODELS, "tag", value, BY_NAME) for value in self._tags()]
        if tags and order == BY_NAME:
            lane = tags[0]
        elif tags and (few := few_models_in(self.meta, self.models, tags[0])) is not None:
            return self._sorted(((model_places(known.model)[order],), known) for known in few)
        after, before = _prefix(self.asked.filter.conditions) if order == BY_NAME else (None, None)
        if self.cursor:
            place = str(self.cursor[0])
            after, before = (max(place, after or place), before) if first.ascending else (after, min(place, before or place))
        found = models_in(
            self.meta, self.models, lane, descending=not first.ascending, after=after, before=before, wanted=self.asked.limit + 1
        )
        return (((place,), known) for place, known in found)

    def versions_in_order(self) -> tuple[Iterable[Step[Found]], Place]:
        """Return the versions that come behind the cursor; and the last place, where it is known beforehand."""
        first, nowhere = self.sorting.first, ()
        if self.of == []:
            return [], nowhere
        for value in self._tags()[:_LABELS_TRIED]:
            few = few_in(self.meta, self.models, Lane(VERSIONS, "tag", value, BY_CREATION))
            if few is not None:
                return self._sorted((self._place(found), found) for found in few), nowhere
        if first.key == NAME:
            return self._by_model(), nowhere
        if first.key != NUMBER:
            return (((place,), found) for place, found in self._by_time(first, self._lanes(LANES[first.key]), self.cursor)), nowhere
        if self.of is None or len(self.sorting.orders) > 1:
            return self._gathered(), nowhere
        known, numbers = self.of[0], self._numbers(self.of[0], first, self.cursor)
        steps = versions_at(self.meta, (((number,), known, number) for number in numbers), self._batch(self.asked.limit))
        return steps, (numbers[-1],) if numbers else nowhere

    def _by_model(self) -> Iterator[Step[Found]]:
        """Return the versions of one model after the other."""
        order = self.sorting.orders[1]
        if order.key == NUMBER:
            return versions_at(self.meta, self._numbered(order), self._batch(self.asked.limit + 1))
        return self._timed(order)

    def _numbered(self, order: Order) -> Iterator[tuple[Place, Known | None, int]]:
        for place, known in self._models_from_cursor():
            if known is not None:
                behind = self.cursor[1:] if place == self.cursor[:1] else ()
                yield from (((*place, number), known, number) for number in self._numbers(known, order, behind))
            yield place, None, 0

    def _timed(self, order: Order) -> Iterator[Step[Found]]:
        for place, known in self._models_from_cursor():
            if known is not None:
                behind = self.cursor[1:] if place == self.cursor[:1] else ()
                lane = Lane(VERSIONS, "model", known.model.model, LANES[order.key])
                yield from (((*place, inner), one) for inner, one in self._by_time(order, [lane], behind))
            yield place, None

    def _models_from_cursor(self) -> Iterator[Step[Known]]:
        """Yield the models by name: first that in the middle of which a page has ended, then those behind it."""
        name = Sorting(self.sorting.orders[:1])
        if len(self.cursor) > 1:
            place = str(self.cursor[0])
            identity = place.rpartition("\t")[2]
            known = self.models.meet([identity]).get(identity)
            if known is not None and model_places(known.model)[BY_NAME] == place:
                yield (place,), known
        every = replace(self.asked, filter=replace(self.asked.filter, conditions=_of_names(self.asked.filter.conditions)))
        yield from replace(self, sorting=name, cursor=self.cursor[:1], asked=every).models_in_order()

    def _by_time(self, order: Order, lanes: Sequence[Lane], behind: Place) -> Iterator[tuple[str, Found | None]]:
        after = str(behind[0]) if behind else None
        return versions_in(self.meta, self.models, lanes, descending=not order.ascending, after=after, wanted=self.asked.limit + 1)

    def _batch(self, wanted: int) -> int:
        """Return how many versions to read at a time: as many as the page takes, where every one that is read is shown."""
        shown = all(c.kind == "attribute" and c.key in (NAME, NUMBER) for c in self.asked.filter.conditions)
        return wanted if shown else AT_ONCE

    def _gathered(self) -> Iterable[Step[Found]]:
        """Return the versions of several models in an order that no index has.

        Raises:
            MlflowError: they are more than a page looks at.
        """
        every = list(islice(replace(self, sorting=_ONE_BY_ONE, cursor=())._by_model(), READ_AT_MOST + 1))
        if len(every) > READ_AT_MOST:
            raise invalid(
                f"Versions of several models are ordered by 'version_number' first where they are {READ_AT_MOST} at most, and these are "
                "more: name one model in the filter, or order by 'name' or a timestamp first"
            )
        return self._sorted((self._place(found), found) for _, found in every if found is not None)

    def _sorted(self, found: Iterable[Step[T]]) -> list[Step[T]]:
        """Return what comes behind the cursor, sorted."""
        behind = [step for step in found if self.sorting.is_behind(step[0], self.cursor)]
        return sorted(behind, key=lambda step: self.sorting.rank(step[0]))

    def _place(self, found: Found) -> Place:
        """Return the place of a version."""
        values: dict[str, str | int] = {NUMBER: found.outline.number, NAME: model_places(found.known.model)[BY_NAME]}
        return tuple(values[o.key] if o.key in values else place_of(found, LANES[o.key]) for o in self.sorting.orders)

    def _lanes(self, order: str) -> list[Lane]:
        """Return the lanes that together hold, in an order by time, all versions that may meet the filter."""
        tags = self._tags()
        if tags and order == BY_CREATION:
            return [Lane(VERSIONS, "tag", tags[0], BY_CREATION)]
        if self.of is not None:
            return [Lane(VERSIONS, "model", known.model.model, order) for known in self.of]
        return [Lane(VERSIONS, "all", "", order)]

    def _tags(self) -> list[str]:
        """Return the lanes' values of tags that what meets the filter must have; of a version, run and source are tags."""
        tags: list[str] = []
        for condition in self.asked.filter.conditions:
            key = condition.key if condition.kind == "tag" else _TAG_OF.get(condition.key, "")
            if key and condition.comparator == "=":
                tags.append(pair(key, str(condition.value)))
        return tags

    def _numbers(self, known: Known, order: Order, behind: Place) -> range:
        """Return the numbers of a model's versions that are left to look at, in their order."""
        low, high = 1, known.last
        for condition in self.asked.filter.conditions:
            if condition.kind == "attribute" and condition.key == NUMBER and isinstance(condition.value, int):
                value = condition.value
                low = max(low, {"=": value, ">=": value, ">": value + 1}.get(condition.comparator, low))
                high = min(high, {"=": value, "<=": value, "<": value - 1}.get(condition.comparator, high))
        if behind:
            after = int(behind[0])
            low, high = (max(low, after + 1), high) if order.ascending else (low, min(high, after - 1))
        return range(low, high + 1) if order.ascending else range(high, low - 1, -1)


def _page(
    steps: Iterable[Step[T]], limit: int, show: Callable[[T], Shown], meets: Callable[[Shown], bool], last: Place = ()
) -> tuple[list[Shown], str]:
    """Return a page of what is met, and the cursor behind it.

    Args:
        steps: what is looked at, in order.
        limit: how many the page has at most.
        show: what is shown of it.
        meets: whether it belongs to the answer.
        last: the last place, where it is known; else it is looked whether anything follows.
    """
    page: list[Shown] = []
    seen: Place = ()  # the last place of what the caller may read: a cursor tells of others only where there was nothing else
    for looked_at, (place, found) in enumerate(steps, start=1):
        shown = show(found) if found is not None else None
        if shown is not None and meets(shown):
            if len(page) == limit:
                return page, write_cursor(seen)
            page.append(shown)
        seen = place if found is not None else seen
        if last and (place == last or len(page) == limit):
            return page, write_cursor(() if place == last else place)
        if looked_at >= READ_AT_MOST:
            return page, write_cursor(seen or place)
    return page, ""


def _names(conditions: Sequence[Condition]) -> tuple[str, ...] | None:
    """Return the names of models that a filter asks for by `=` or IN; None where it names none."""
    for condition in conditions:
        if condition.kind == "attribute" and condition.key == NAME and condition.comparator in ("=", "IN"):
            return condition.value if isinstance(condition.value, tuple) else (str(condition.value),)
    return None


def _named(models: Models, conditions: Sequence[Condition]) -> list[Known] | None:
    names = _names(conditions)
    return None if names is None else models.named(names)


def _of_names(conditions: Sequence[Condition]) -> tuple[Condition, ...]:
    """Return the conditions that models are chosen by where versions are searched."""
    return tuple(c for c in conditions if c.kind == "attribute" and c.key == NAME)


def _prefix(conditions: Sequence[Condition]) -> tuple[str | None, str | None]:
    """Return between which places the names lie that a LIKE lets."""
    for condition in conditions:
        if condition.kind == "attribute" and condition.key == NAME and condition.comparator == "LIKE":
            known = str(condition.value).replace("_", "%").split("%")[0][:_PREFIX]
            if known:
                return known, known + "\U0010ffff"
    return None, None


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
    text = {"run_id": version.run_id, "source_path": version.source}[condition.key]
    return matches_text(text, condition.comparator, condition.value)
