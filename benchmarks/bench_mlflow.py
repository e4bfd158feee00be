"""This registry and `mlflow server` side by side, under the same unmodified client of MLflow, at several numbers of versions in a model.

The servers run at the same time, and each operation is measured on one after the other, so that what else the machine does meets all of
them. Processor time is that of the server's whole tree of processes until it rests again: what it does behind the answers counts.
What is ours by itself: `benchmarks.mlflow_growth`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.embedded import EmbeddedRegistry
from benchmarks.mlflow_contestants import Attestry, Contestant, MlflowServer, idle_share, memory, settled_cpu
from benchmarks.mlflow_growth import Growth, model_of
from benchmarks.result import Cell, Result, Table, Target

SIZES = (100, 1_000, 10_000, 100_000)
BOTH_AT_MOST = 10_000
"""Models with more versions are for this registry alone."""

TIMES, SECONDS, AT_ONCE, WARM_UP = 60, 6.0, 8, 2
FEWER: Mapping[str, int] = {"full_scan": 3, "create_version": 12}
ACTS = (
    "create_model",
    "set_alias",
    "get_by_alias",
    "transition",
    "set_tag",
    "download_uri",
    "get_model",
    "get_version",
    "search_page",
    "full_scan",
    "create_version",
)
TENFOLD = ("set_alias", "transition", "set_tag", "download_uri", "get_model")
IN_PARALLEL = ("get_by_alias", "get_version", "set_tag")
NOTES = (
    "One client, one call after the other; a search page has 100 versions, a full scan pages of 1,000.",
    "create_version: the answer, not the freezing behind it, whose processor time is in `CPU ms`; MLflow's server looks at no files.",
    "CPU ms: of all processes of the server per call, until they rest, less what they take at rest; ours includes the emulated AWS.",
)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """One operation on one registry at one size.

    Attributes:
        calls: seconds of each call.
        cpu: processor time of the server per call, in seconds.
    """

    calls: tuple[float, ...]
    cpu: float

    @property
    def p50(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.calls)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The median and the 95th percentile in ms, calls a second, processor time in ms, and how many calls there were."""
        ordered = sorted(self.calls)
        p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
        rate = len(ordered) / sum(ordered)
        return round(self.p50 * 1000, 1), round(p95 * 1000, 1), round(rate, 1), round(self.cpu * 1000, 1), len(ordered)


@dataclass
class Race:
    """What was measured.

    Attributes:
        contestants: the registries; ours first.
        of: by act, size and name of the registry; None where a call failed.
    """

    contestants: Sequence[Contestant]
    of: dict[tuple[str, int, str], Measured | None] = field(default_factory=dict)
    parallel: dict[tuple[str, str], float] = field(default_factory=dict)
    memory: dict[tuple[int, str], float] = field(default_factory=dict)

    def ratio(self, act: str, size: int) -> float:
        """Return our median beside that of the fastest other; infinite where we failed, and 0 where they did."""
        ours, *others = (self.of.get((act, size, c.name)) for c in self.contestants)
        theirs = [other.p50 for other in others if other is not None]
        if ours is None:
            return float("inf")
        return round(ours.p50 / min(theirs), 3) if theirs else 0.0


def run(embedded: EmbeddedRegistry, folder: Path, say: Say, sizes: Sequence[int] = SIZES) -> Result:
    """Measure all, and judge."""
    with ExitStack() as ends:
        contestants: list[Contestant] = []
        for workers in (0, 1, None):
            own = _new(folder, f"mlflow-{workers}")
            made: Contestant = Attestry(embedded, own) if workers == 0 else MlflowServer(own, workers)
            ends.callback(made.close)
            contestants.append(made)
        race = Race(contestants)
        for size in sizes:
            measure(race, size, say)
        beside = [size for size in sizes if size <= BOTH_AT_MOST]
        measure_at_once(race, max(beside or sizes), say)
        growth = Growth.measure(embedded, [sizes[0], sizes[-1]], say)
    tables = (starts(race), *(table(race, size) for size in sizes), at_once(race), growth.table)
    targets = (*growth.targets, *(target for size in beside for target in _targets(race, size)))
    return Result("mlflow", tables, targets, {"calls": _facts(race)})


def measure(race: Race, size: int, say: Say) -> None:
    """Make a model with so many versions in each registry, and measure every operation on it."""
    model = model_of(size)
    taking_part = [c for c in race.contestants if size <= BOTH_AT_MOST or c is race.contestants[0]]
    for one in taking_part:
        say(f"filling {one.name} with {size} versions")
        one.fill(model, size)
    idle = {one.name: idle_share(one) for one in taking_part}
    for act in ACTS:
        for one in taking_part:
            say(f"{act} at {size} on {one.name}")
            race.of[act, size, one.name] = _measured(one, act, size, idle[one.name], say)
    for one in taking_part:
        race.memory[size, one.name] = memory(one)


def _measured(one: Contestant, act: str, size: int, idle: float, say: Say) -> Measured | None:
    times = FEWER.get(act, TIMES)
    order = {"act": act, "model": model_of(size), "versions": size, "seconds": SECONDS, "at_once": 1}
    try:
        one.client.carry_out({**order, "times": WARM_UP, "first": 0, "sources": one.sources(WARM_UP) if act == "create_version" else []})
        sources = one.sources(times) if act == "create_version" else []
        before, began = settled_cpu(one), time.monotonic()
        told = one.client.carry_out({**order, "times": times, "first": WARM_UP, "sources": sources})
    except RuntimeError as error:
        say(f"{one.name} failed: {error}")
        return None
    calls = tuple(told["calls"])
    used = settled_cpu(one) - before - idle * (time.monotonic() - began)
    return Measured(calls, max(0.0, used) / len(calls))


def measure_at_once(race: Race, size: int, say: Say) -> None:
    """Measure calls a second of several threads of one client."""
    for act in IN_PARALLEL:
        for one in race.contestants:
            say(f"{act}, {AT_ONCE} at once, on {one.name}")
            order = {"act": act, "model": model_of(size), "versions": size, "seconds": SECONDS, "at_once": AT_ONCE, "sources": []}
            try:
                # Without regard to the time: at the first calls at once processes of functions are begun.
                one.client.carry_out({**order, "times": WARM_UP * AT_ONCE, "first": 500})
                told = one.client.carry_out({**order, "times": TIMES * AT_ONCE, "first": 1000})
            except RuntimeError as error:
                say(f"{one.name} failed: {error}")
                continue
            race.parallel[act, one.name] = len(told["calls"]) / told["seconds"]


def table(race: Race, size: int) -> Table:
    """Return the operations at one size."""
    rows: list[tuple[Cell, ...]] = []
    for act in ACTS:
        for one in race.contestants:
            found = race.of.get((act, size, one.name))
            if (act, size, one.name) in race.of:
                cells = found.cells if found else ("failed", None, None, None, 0)
                rows.append((act, one.name, *cells, race.ratio(act, size) if one is race.contestants[0] else None))
    columns = ("operation", "registry", "p50 ms", "p95 ms", "ops/s", "CPU ms", "n", "x fastest other")
    return Table(f"A model with {size:,} versions", columns, tuple(rows), NOTES)


def starts(race: Race) -> Table:
    """Return how long each takes to start, and what memory it has."""
    sizes = list(dict.fromkeys(size for size, _ in race.memory))
    columns = ("registry", "start from nothing, s", "start again, s", *(f"MiB at {size:,}" for size in sizes))
    rows = tuple(
        (c.name, *(round(s, 1) for s in c.start_seconds), *(_rounded(race.memory.get((size, c.name))) for size in sizes))
        for c in race.contestants
    )
    note = "From nothing: ours synthesises, deploys and makes a demo root of trust, MLflow makes its tables. Memory: PSS of all processes."
    return Table("Starting, and memory", columns, rows, (note,))


def at_once(race: Race) -> Table:
    """Return calls a second of several threads."""
    rows = tuple((act, *(_rounded(race.parallel.get((act, c.name))) or "failed" for c in race.contestants)) for act in IN_PARALLEL)
    return Table(f"Calls a second, {AT_ONCE} threads of one client", ("operation", *(c.name for c in race.contestants)), rows)


def _targets(race: Race, size: int) -> Iterator[Target]:
    slower = sum(race.ratio(act, size) > 1 for act in ACTS)
    yield Target(f"operations in which mlflow server is faster at {size:,} versions", slower, 0)
    if size == BOTH_AT_MOST:
        for act in TENFOLD:
            yield Target(f"{act} at {size:,} versions, beside mlflow server", race.ratio(act, size), 0.1)


def _facts(race: Race) -> dict[str, Any]:
    return {
        f"{act} {size} {name}": {"ms": [round(c * 1000, 2) for c in found.calls], "cpu_ms": round(found.cpu * 1000, 2)}
        for (act, size, name), found in race.of.items()
        if found is not None
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _new(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made
