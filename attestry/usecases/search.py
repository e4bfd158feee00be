"""Search: pages of models and of versions, at a cost that does not depend on how many there are.

A page reads entries of one lane, and what they lead to: for every 100 entries one read of the lane (of a lane in shards, one of each), and
one batch of rows per 100 rows. What those rows say is what counts, so an entry that was overtaken shows nothing that is not so.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from attestry.domain.catalogue import Alias, Labels, RegisteredModel
from attestry.domain.search import (
    MAX_LOOKED_AT,
    Is,
    Order,
    Plan,
    Query,
    matches_model,
    matches_version,
    plan,
    write_cursor,
)
from attestry.domain.search_index import (
    CREATED,
    METRIC,
    MODELS,
    VERSIONS,
    Lane,
    current_places,
    metrics_of,
    number_place,
    version_place,
)
from attestry.domain.version import Version
from attestry.ports import Item, Key, MetaStore
from attestry.usecases.aliases import Aliases
from attestry.usecases.catalogue_rows import aliases_key, catalogue_key, labels_key
from attestry.usecases.records import version_key

_CHUNK: Final = 100
_EARLIER: Final = 5


@dataclass(frozen=True)
class ModelHit:
    """A model that was found, with its aliases."""

    model: RegisteredModel
    aliases: tuple[Alias, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return {**self.model.to_dict(), "aliases": {a.alias: a.number for a in self.aliases}}


@dataclass(frozen=True)
class VersionHit:
    """A version that was found, with what people say about it and the aliases that name it."""

    version: Version
    labels: Labels
    aliases: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON."""
        version = self.version
        return {
            "model": version.model,
            "number": version.number,
            "stage": version.stage.value,
            "status": version.status.value,
            "standing": version.standing.value,
            "created": version.created,
            "updated": max(version.updated, self.labels.updated_at),
            "version_digest": version.version_digest,
            "submitter_person": version.submitter_person,
            "metrics": dict(version.metrics),
            "traits": dict(version.traits),
            "description": self.labels.description,
            "tags": dict(self.labels.tags),
            "aliases": list(self.aliases),
        }


@dataclass(frozen=True)
class Page:
    """A page of results.

    Attributes:
        results: what was found, in order.
        cursor: for the next page; None where there is none.
        looked_at: how many entries were looked at.
    """

    results: tuple[ModelHit | VersionHit, ...] = ()
    cursor: str | None = None
    looked_at: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the page as JSON."""
        return {"results": [hit.to_dict() for hit in self.results], "cursor": self.cursor}


@dataclass(frozen=True)
class _Place:
    sort: str
    model: str
    number: int = field(default=0)


Judge = Callable[[Sequence[_Place], Lane], Mapping[_Place, ModelHit | VersionHit]]
Readable = Callable[[list[str]], Iterable[str]]
"""Leaves those of some models, by name, which the caller may read."""


def all_readable(models: list[str]) -> Iterable[str]:
    """Leave all models: the caller may read each."""
    return models


def search_models(meta: MetaStore, query: Query, readable: Readable = all_readable) -> Page:
    """Return a page of the models that meet a query and that the caller may read.

    Raises:
        InvalidInputError: the query is out of form, or would need a scan (rule `needs_scan`).
    """
    return _page(meta, query, MODELS, readable, lambda places, _lane: _judge_models(meta, query, places))


def search_versions(meta: MetaStore, query: Query, readable: Readable = all_readable) -> Page:
    """Return a page of the versions that meet a query, of models that the caller may read.

    Raises:
        InvalidInputError: the query is out of form, or would need a scan (rule `needs_scan`).
    """
    return _page(meta, query, VERSIONS, readable, lambda places, lane: _judge_versions(meta, query, places, lane))


def earlier_like(meta: MetaStore, version: Version) -> list[Version]:
    """Return earlier versions of the same experiment (`attestry.usecases.traits`), the oldest first, at most five.

    Versions that were made of the same candidate, by a refresh or to reproduce another, are meant to be alike, and not told.
    """
    experiment = version.traits.get("experiment")
    if not experiment:
        return []
    query = Query((Is("experiment", str(experiment)),), Order(CREATED), max_results=_EARLIER * 2)
    found = [hit.version for hit in search_versions(meta, query).results if isinstance(hit, VersionHit)]
    return [v for v in found if v.candidate != version.candidate and (v.created, v.model, v.number) < _made(version)][:_EARLIER]


def _has_place(lane: Lane, place: _Place, version: Version, labels: Labels) -> bool:
    """Return whether a version's own rows put it where an entry lies; one that was overtaken, or planted, lies elsewhere."""
    if lane.order == METRIC:
        value = metrics_of(version).get(lane.value.removeprefix(f"{version.model}/"))
        return value is not None and place.sort == f"{number_place(value)}#{version_place(version.model, version.number)}"
    return place.sort == current_places(version, labels)[lane.order]


def tell_alike(version: Version, other: Version) -> dict[str, Any]:
    """Return what is told of an earlier version of the same experiment, as JSON."""
    return {
        "model": other.model,
        "number": other.number,
        "standing": other.standing.value,
        "created": other.created,
        "metrics": dict(other.metrics),
        "same_code": other.source is not None and version.source is not None and other.source.sha256 == version.source.sha256,
    }


def _made(version: Version) -> tuple[str, str, int]:
    return (version.created, version.model, version.number)


def _page(meta: MetaStore, query: Query, kind: str, readable: Readable, judge: Judge) -> Page:
    planned = plan(query, kind)
    results: list[ModelHit | VersionHit] = []
    looked_at, last, seen = 0, "", ""  # seen: the last place of what the caller may read, since a cursor can be read by who gets it
    for chunk in _chunks(meta, planned, min(_CHUNK, query.max_results + 1)):
        may = set(readable(list(dict.fromkeys(place.model for place in chunk))))
        found = judge([place for place in chunk if place.model in may], planned.lane)
        for place in chunk:
            if len(results) == query.max_results and place in found:
                return Page(tuple(results), write_cursor(query, kind, seen), looked_at)
            looked_at, last = looked_at + 1, place.sort
            seen = last if place.model in may else seen
            if place in found:
                results.append(found[place])
        if looked_at >= MAX_LOOKED_AT:
            return Page(tuple(results), write_cursor(query, kind, seen or last), looked_at)
    return Page(tuple(results), None, looked_at)


def _chunks(meta: MetaStore, planned: Plan, size: int) -> Iterator[list[_Place]]:
    """Yield the places of a lane in its order, some at a time; a lane's partitions are merged."""
    partitions, at = planned.lane.partitions(), planned
    while True:
        rows = [_read(meta, partition, at, size) for partition in partitions]
        merged = heapq.merge(*rows, key=lambda place: place.sort.encode(), reverse=planned.descending)
        chunk = [place for place, _ in zip(merged, range(size), strict=False)]
        if chunk:
            yield chunk
        if len(chunk) < size:
            return
        last = chunk[-1].sort
        at = replace(at, before=last) if planned.descending else replace(at, after=last)


def _read(meta: MetaStore, partition: str, at: Plan, size: int) -> list[_Place]:
    rows = meta.query(partition, after=at.after, before=at.before, newest_first=at.descending, limit=size)
    return [_Place(str(row["sk"]), str(row["model"]), int(row.get("number") or 0)) for row in rows]


def _judge_models(meta: MetaStore, query: Query, places: Sequence[_Place]) -> dict[_Place, ModelHit | VersionHit]:
    rows = _rows(meta, [key for place in places for key in (catalogue_key(place.model), aliases_key(place.model))])
    found: dict[_Place, ModelHit | VersionHit] = {}
    for place in places:
        row = rows.get(catalogue_key(place.model))
        if row is None or not matches_model(query.conditions, model := RegisteredModel.from_item(row)):
            continue
        aliases = Aliases.from_item(place.model, rows.get(aliases_key(place.model)))
        found[place] = ModelHit(model, tuple(aliases.by_alias.values()))
    return found


def _judge_versions(meta: MetaStore, query: Query, places: Sequence[_Place], lane: Lane) -> dict[_Place, ModelHit | VersionHit]:
    own = [key for place in places for key in (version_key(place.model, place.number), labels_key(place.model, place.number))]
    rows = _rows(meta, [*own, *dict.fromkeys(aliases_key(place.model) for place in places)])
    found: dict[_Place, ModelHit | VersionHit] = {}
    for place in places:
        head = rows.get(version_key(place.model, place.number))
        if head is None:
            continue
        version = Version.from_item(head)
        labels = Labels.from_item(place.model, place.number, rows.get(labels_key(place.model, place.number)))
        if matches_version(query.conditions, version, labels) and _has_place(lane, place, version, labels):
            aliases = Aliases.from_item(place.model, rows.get(aliases_key(place.model)))
            found[place] = VersionHit(version, labels, aliases.of_version(place.number))
    return found


def _rows(meta: MetaStore, keys: Sequence[Key]) -> dict[Key, Item]:
    found: dict[Key, Item] = {}
    unique = list(dict.fromkeys(keys))
    for start in range(0, len(unique), _CHUNK):
        found |= meta.get_many(unique[start : start + _CHUNK])
    return found
