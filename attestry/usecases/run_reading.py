"""Development runs, read: one of them, a page of a lane, a metric's history; and the versions that were made of one.

Rules:
- A page is full of runs that the caller may read, as far as there are any among those that it looks at; its cursor names one of them, or a
  time, and never a run that the caller may not read.
- What a lane leads to is read from the runs themselves, which are as they are; lanes follow a moment later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from attestry.domain.catalogue import identity_of
from attestry.domain.errors import InvalidInputError
from attestry.domain.paging import Page
from attestry.domain.run_points import NOT_FINITE, Point, points_of
from attestry.domain.runs import Run, RunState
from attestry.domain.search_index import CREATED, VERSIONS, Lane
from attestry.ports import Item, MetaStore
from attestry.usecases.records import version_key
from attestry.usecases.run_rows import (
    LANES,
    environment_key,
    experiment_lane,
    load_run,
    owner_lane,
    place_of,
    points_key,
    run_key,
)

LOOKED_AT: Final = 1_000
"""Runs that a page of a list looks at, of which too few to fill it are the caller's to read or meet the conditions."""

BATCHES_READ: Final = 50
"""Batches of points that a page of a metric's history looks at."""

SHOWN_METRICS: Final = 20
"""Last values of metrics that a list shows of a run, the first by name."""

MAX_VERSIONS: Final = 100
_PLACE = re.compile(r"[1-9][0-9]{0,8}\.(-1|[0-9]{1,4})")
_READ: Final = 25
_BATCHES: Final = 10

Readable = Callable[[list[str]], list[str]]
"""Leaves those of some models, by name, which the caller may read; an experiment lies where the model of its name does."""


@dataclass(frozen=True)
class Wanted:
    """Which runs a list is asked for.

    Attributes:
        experiment, owner: those of one, where given.
        state: those in a state, where given.
    """

    experiment: str = ""
    owner: str = ""
    state: RunState | None = None

    @property
    def lane(self) -> str:
        """Return the lane to read: the narrower one, of an experiment before that of an owner."""
        if self.experiment:
            return experiment_lane(self.experiment)
        return owner_lane(self.owner) if self.owner else LANES

    def takes(self, run: Run) -> bool:
        """Return whether a run meets all conditions."""
        if self.experiment and run.experiment != self.experiment:
            return False
        return (not self.owner or run.owner == self.owner) and self.state in (None, run.state)


def read_state(text: str) -> RunState | None:
    """Return the state that a list is asked for; None where the text is empty.

    Raises:
        InvalidInputError: there is no such state.
    """
    if text and text not in tuple(RunState):
        raise InvalidInputError.of("state", "enum", f"the state is one of {', '.join(RunState)}")
    return RunState(text) if text else None


def list_runs(meta: MetaStore, wanted: Wanted, page: Page, readable: Readable) -> tuple[list[dict[str, Any]], str | None]:
    """Return the runs of a page and one more, the newest first.

    Args:
        meta: the table.
        wanted: which ones.
        page: the page.
        readable: see `Readable`.

    Returns:
        The runs, and the place to go on from where the reading ended before the page was full; else None.
    """
    found: list[dict[str, Any]] = []
    after, looked_at, may = page.after, 0, dict[str, bool]()
    while True:
        entries = meta.list_collection(wanted.lane, after=after, limit=_READ, newest_first=True)
        _learn(may, {str(entry["experiment"]) for entry in entries}, readable)
        found += [brief(run) for run in _runs_of(meta, entries) if may[run.experiment] and wanted.takes(run)]
        if len(entries) < _READ or (page.ahead is not None and len(found) >= page.ahead):
            return found[: page.ahead], None
        after, looked_at = str(entries[-1]["gsi_sk"]), looked_at + len(entries)
        if looked_at >= LOOKED_AT:
            # `g` sorts behind every ID, so that the time of a run that may not be read is told, and the run is not.
            return found, str(found[-1]["place"]) if found else f"{after.partition('#')[0]}#g"


def _learn(may: dict[str, bool], experiments: Collection[str], readable: Readable) -> None:
    """Find out of experiments that are not known yet whether the caller may read their runs."""
    lies = {experiment: identity_of(experiment) for experiment in experiments if experiment not in may}
    let = set(readable(sorted(set(lies.values())))) if lies else set()
    may.update({experiment: model in let for experiment, model in lies.items()})


def _runs_of(meta: MetaStore, entries: Sequence[Item]) -> Iterator[Run]:
    """Yield the runs that entries lead to; an entry that says another experiment than its run does was planted."""
    rows = meta.get_many([run_key(str(entry["run"])) for entry in entries])
    for entry in entries:
        row = rows.get(run_key(str(entry["run"])))
        if row is not None and row["experiment"] == entry["experiment"]:
            yield Run.from_item(row)


def brief(run: Run) -> dict[str, Any]:
    """Return a run as lists show it, with its `place`."""
    names = sorted(run.last)[:SHOWN_METRICS]
    return {**_told(run), "metrics": {name: _last(run.last[name]) for name in names}, "place": place_of(run)}


def show_run(meta: MetaStore, run: Run) -> dict[str, Any]:
    """Return all that is known of a run but its points."""
    row = meta.get(environment_key(run.run)) or {}
    return {
        **_told(run),
        "error": run.error,
        "parameters": dict(run.parameters),
        "tags": dict(run.tags),
        "environment": dict(row.get("environment") or {}),
        "source": dict(run.source),
        "files": {name: dict(file) for name, file in run.files.items()},
        "metrics": {name: _last(last) for name, last in sorted(run.last.items())},
        "digests": {"start": run.start, "metrics": run.metrics, "record": run.record_digest if run.closed else ""},
        "graded": "claimed",
        "rev": run.rev,
    }


def versions_of(meta: MetaStore, run: str, readable: Readable) -> list[dict[str, Any]]:
    """Return the versions that were imported from a run, the oldest first, at most 100: those that the caller may read.

    Args:
        meta: the table.
        run: its ID.
        readable: leaves those of some models whose versions the caller may read.
    """
    (partition,) = Lane(VERSIONS, "run", run, CREATED).partitions()
    entries = [(str(row["model"]), int(row["number"])) for row in meta.query(partition, limit=MAX_VERSIONS)]
    may = set(readable(sorted({model for model, _ in entries}))) if entries else set()
    heads = meta.get_many([version_key(model, number) for model, number in entries if model in may])
    there = [(model, number) for model, number in entries if model in may and version_key(model, number) in heads]
    # An entry that was planted is not borne out by the version's own head.
    borne = [(m, n) for m, n in there if (heads[version_key(m, n)].get("traits") or {}).get("run") == run]
    return [{"model": model, "number": number} for model, number in borne]


def metric_history(meta: MetaStore, run: Run, name: str, page: Page) -> tuple[list[dict[str, Any]], str | None]:
    """Return the points of a metric on a page and one more, in the order in which they were logged, each with its `place`.

    Returns:
        The points, and the place to go on from where the reading ended before the page was full; else None.

    Raises:
        InvalidInputError: the run has no such metric, or the place is none of such a list.
    """
    if name not in run.last:
        raise InvalidInputError.of("metric", "known", f"run {run.run} has no such metric")
    number, index = _read_place(page.after or "1.-1")
    found: list[dict[str, Any]] = []
    for first in range(number, number + BATCHES_READ, _BATCHES):
        numbers = range(first, min(first + _BATCHES, run.batches + 1))
        rows = meta.get_many([points_key(run.run, n) for n in numbers]) if numbers else {}
        for n in numbers:
            begin, points = index + 1 if n == number else 0, points_of(str(rows[points_key(run.run, n)]["points"]))
            found += [_shown(p, f"{n}.{at}") for at, p in enumerate(points) if p.name == name and at >= begin]
        if first + _BATCHES > run.batches or (page.ahead is not None and len(found) >= page.ahead):
            return found[: page.ahead], None
    return found, f"{number + BATCHES_READ}.-1"


def _shown(point: Point, place: str) -> dict[str, Any]:
    return {"value": point.number, "step": point.step, "at": point.at, "place": place}


def _read_place(place: str) -> tuple[int, int]:
    """Return the batch and the index in it behind which a page goes on; a cursor holds whatever its maker put into it."""
    if not _PLACE.fullmatch(place):
        raise InvalidInputError.of("cursor", "cursor", "the cursor leads to no place of a metric's history")
    batch, _, point = place.partition(".")
    return int(batch), int(point)


def find_run(meta: MetaStore, run: str) -> Run:
    """Return a run.

    Raises:
        NotFoundError: there is none.
    """
    return load_run(meta, run)[0]


def _told(run: Run) -> dict[str, Any]:
    names = ("run", "experiment", "owner", "begun", "ended", "created", "closed", "points", "batches")
    return {**{name: getattr(run, name) for name in names}, "state": run.state.value}


def _last(point: Mapping[str, Any]) -> dict[str, Any]:
    value = str(point["value"])
    return {**point, "value": value if value in NOT_FINITE else float(value)}
