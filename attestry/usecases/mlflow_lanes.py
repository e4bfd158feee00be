"""The index as searches of MLflow's clients read it: models and versions in the order of a lane, each judged by its own rows.

What is read: for every so many entries one query of each partition, one batch of rows for the models that the entries lead to, each model
once in a search, and one for the versions. See `attestry.domain.search_index` for lanes and entries.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

from attestry.domain.catalogue import RegisteredModel
from attestry.domain.errors import InvalidInputError
from attestry.domain.search_index import CREATED, NAME, UPDATED, Lane, current_places, model_places
from attestry.mlflow import ordering
from attestry.mlflow.errors import MlflowError
from attestry.mlflow.places import Place
from attestry.ports import Item, MetaStore
from attestry.usecases.aliases import Aliases
from attestry.usecases.catalogue_rows import aliases_key, catalogue_key, model_among
from attestry.usecases.mlflow_reading import Found, Known, find, load_versions
from attestry.usecases.records import model_key

LANES: Final = {ordering.NAME: NAME, ordering.CREATED: CREATED, ordering.UPDATED: UPDATED}
"""MLflow's keys, and the orders of lanes that they are read in; `version_number` has none."""

FEW: Final = 200
"""Versions that are gathered and sorted; where a condition leaves more, a lane is read that has the order."""

_BATCH: Final = 50
_QUERY: Final = 100
_LEAST: Final = 8
_MODELS_A_BATCH: Final = 33

Readable = Callable[[list[str]], list[str]]
T = TypeVar("T")
Subject = tuple[str, int]


class Models:
    """The models that a search meets, each read once.

    Args:
        meta: the table.
        readable: leaves those of some models, by their identities, which the caller may read.
        wanted: whether a model can have a part in the answer.
    """

    def __init__(self, meta: MetaStore, readable: Readable, wanted: Callable[[RegisteredModel], bool]) -> None:
        self._meta, self._readable, self._wanted = meta, readable, wanted
        self._met: dict[str, Known | None] = {}

    def meet(self, identities: Iterable[str]) -> dict[str, Known]:
        """Return those of some models that are there, wanted, and the caller's to read; by identity."""
        asked = list(dict.fromkeys(identities))
        new = [identity for identity in asked if identity not in self._met]
        for start in range(0, len(new), _MODELS_A_BATCH):
            some = new[start : start + _MODELS_A_BATCH]
            rows = self._meta.get_many([key for i in some for key in (catalogue_key(i), model_key(i), aliases_key(i))])
            self._met |= dict.fromkeys(some)
            there = {i: model for i in some if (model := model_among(rows, i)) is not None and not model.deleted and self._wanted(model)}
            for identity in self._readable(list(there)):
                aliases, head = Aliases.from_item(identity, rows.get(aliases_key(identity))), rows.get(model_key(identity))
                self._met[identity] = Known(there[identity], aliases, int(head["next"]) - 1 if head else 0)
        return {identity: known for identity in asked if (known := self._met[identity]) is not None}

    def named(self, names: Iterable[str]) -> list[Known]:
        """Return those of some models that are there, wanted, and the caller's to read; by name in MLflow, one round trip each."""
        found: list[Known] = []
        for name in dict.fromkeys(names):
            try:
                known = find(self._meta, name)
            except (MlflowError, InvalidInputError):
                continue
            identity = known.model.model
            if self._wanted(known.model) and self._readable([identity]):
                self._met[identity] = known
                found.append(known)
        return found


def models_in(
    meta: MetaStore, models: Models, lane: Lane, *, descending: bool, after: str | None, before: str | None, wanted: int
) -> Iterator[tuple[str, Known | None]]:
    """Yield the places of a lane of models, and at each the model that lies there, or None.

    Args:
        meta: the table.
        models: the models of the search.
        lane: the lane.
        descending: from its end.
        after: only places that sort behind this one.
        before: only places that sort before this one.
        wanted: how many the caller will take, as a rule.
    """
    entries = _entries(meta, [lane], descending=descending, after=after, before=before, wanted=wanted)
    for some in batches(entries, min(_BATCH, wanted)):
        met = models.meet(str(row["model"]) for row in some)
        for row in some:
            place, known = str(row["sk"]), met.get(str(row["model"]))
            yield place, known if known is not None and model_places(known.model)[lane.order] == place else None


def versions_in(
    meta: MetaStore, models: Models, lanes: Sequence[Lane], *, descending: bool, after: str | None, wanted: int
) -> Iterator[tuple[str, Found | None]]:
    """Yield the places of lanes of versions, which have one order, merged, and at each the version that lies there, or None.

    Args:
        meta: the table.
        models: the models of the search.
        lanes: the lanes.
        descending: from their end.
        after: only places that come behind this one, in the order in which they are read.
        wanted: how many the caller will take, as a rule.
    """
    bounds = (None, after) if descending else (after, None)
    entries = _entries(meta, lanes, descending=descending, after=bounds[0], before=bounds[1], wanted=wanted)
    read: dict[Subject, Found] = {}
    for some in batches(entries, min(_BATCH, wanted)):
        subjects = [_subject(row) for row in some]
        read |= _load(meta, models, [subject for subject in subjects if subject not in read])
        for row, subject in zip(some, subjects, strict=True):
            place, found = str(row["sk"]), read.get(subject)
            yield place, found if found is not None and place_of(found, lanes[0].order) == place else None


def few_in(meta: MetaStore, models: Models, lane: Lane) -> list[Found] | None:
    """Return the versions of a lane that lies in one partition, in no order; None where it has more than `FEW`."""
    (partition,) = lane.partitions()
    rows = meta.query(partition, limit=FEW + 1)
    return None if len(rows) > FEW else list(_load(meta, models, [_subject(row) for row in rows]).values())


def few_models_in(meta: MetaStore, models: Models, lane: Lane) -> list[Known] | None:
    """Return the models of a lane, in no order; None where it has more than `FEW`."""
    (partition,) = lane.partitions()
    rows = meta.query(partition, limit=FEW + 1)
    return None if len(rows) > FEW else list(models.meet(str(row["model"]) for row in rows).values())


def place_of(found: Found, order: str) -> str:
    """Return the place of a version in a lane of an order."""
    return current_places(found.outline, found.labels)[order]


def versions_at(meta: MetaStore, places: Iterable[tuple[Place, Known | None, int]], size: int) -> Iterator[tuple[Place, Found | None]]:
    """Yield places, and at each the version that lies there, or None.

    Args:
        meta: the table.
        places: each with the model and the number of the version; None or 0 where none lies there.
        size: how many to read at a time.
    """
    for some in batches(places, size):
        wanted = [(known, number) for _, known, number in some if known is not None and number]
        there = _by_subject(load_versions(meta, wanted))
        yield from ((place, None if known is None else there.get((known.model.model, number))) for place, known, number in some)


def _by_subject(found: Iterable[Found]) -> dict[Subject, Found]:
    return {(one.outline.model, one.outline.number): one for one in found}


def _load(meta: MetaStore, models: Models, subjects: Sequence[Subject]) -> dict[Subject, Found]:
    """Return those versions that are there, and the caller's to read."""
    met = models.meet(model for model, _ in subjects)
    wanted = [(met[model], number) for model, number in dict.fromkeys(subjects) if model in met]
    return _by_subject(load_versions(meta, wanted))


def _subject(row: Item) -> Subject:
    return str(row["model"]), int(row.get("number") or 0)


def _entries(
    meta: MetaStore, lanes: Sequence[Lane], *, descending: bool, after: str | None, before: str | None, wanted: int
) -> Iterator[Item]:
    """Yield the entries of lanes in the order of their places."""
    partitions = [partition for lane in lanes for partition in lane.partitions()]
    # Of several partitions each has about its share of what is wanted, some more; where it falls short, it is asked again.
    share = wanted if len(partitions) == 1 else max(_LEAST, 2 * wanted // len(partitions))
    runs = (_run(meta, partition, after, before, descending=descending, size=min(_QUERY, share)) for partition in partitions)
    return heapq.merge(*runs, key=lambda row: str(row["sk"]), reverse=descending)


def _run(meta: MetaStore, partition: str, after: str | None, before: str | None, *, descending: bool, size: int) -> Iterator[Item]:
    while True:
        rows = meta.query(partition, after=after, before=before, newest_first=descending, limit=size)
        yield from rows
        if len(rows) < size:
            return
        last = str(rows[-1]["sk"])
        after, before = (after, last) if descending else (last, before)


def batches(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield things, so many at a time."""
    rest = iter(things)
    while some := list(islice(rest, size)):
        yield some
