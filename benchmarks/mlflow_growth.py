"""What MLflow's operations cost apart from the emulated gateway, Lambda and DynamoDB, and how that grows with a model's versions.

The same handler in this process over the real adapters, on the same table: its own processor time, its round trips, and the capacity that
they consume, at the least and at the largest number of versions in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from benchmarks.embedded import INVOCATION, EmbeddedRegistry
from benchmarks.result import Cell, Table, Target
from lambdas import mlflow

RUNS, WARM_UP, AT_MOST = 25, 2, 1.2
MODELS, VERSIONS = mlflow.MODELS, mlflow.VERSIONS

Say = Callable[[str], None]
Asked = tuple[str, Mapping[str, Any]]
Ask = Callable[[int, int], Asked]


def model_of(size: int) -> str:
    """Return the name of the model with so many versions."""
    return f"bench-{size}"


@dataclass(frozen=True)
class Cost:
    """What one operation costs without the gateway: medians of several calls.

    Attributes:
        round_trips: calls of AWS.
        read_units, write_units: DynamoDB's.
        seconds: the handler's own processor time.
    """

    round_trips: float
    read_units: float
    write_units: float
    seconds: float


@dataclass(frozen=True)
class Growth:
    """How the cost of operations grows with the number of versions.

    Attributes:
        sizes: the least and the largest number.
        of: by act and size.
    """

    sizes: Sequence[int]
    of: Mapping[tuple[str, int], Cost]

    @classmethod
    def measure(cls, embedded: EmbeddedRegistry, sizes: Sequence[int], say: Say) -> Growth:
        """Measure each operation at both sizes in turns."""
        of: dict[tuple[str, int], Cost] = {}
        with _world(embedded):
            for act, ask in _REQUESTS.items():
                say(f"{act} by itself")
                costs: dict[int, list[Cost]] = {size: [] for size in sizes}
                for index in range(RUNS):
                    for size in sizes:
                        costs[size].append(_cost(embedded, ask(size, index)))
                of |= {(act, size): _typical(found[WARM_UP:]) for size, found in costs.items()}
        return cls(sizes, of)

    def factor(self, act: str, measure: str) -> float:
        """Return by how much a measure is greater at the largest size."""
        few, many = (getattr(self.of[act, size], measure) for size in (self.sizes[0], self.sizes[-1]))
        return round(many / few, 2) if few else 1.0

    @property
    def table(self) -> Table:
        """The table."""
        few, many = self.sizes[0], self.sizes[-1]
        columns = (
            "operation",
            *(f"{what}, {size:,}" for size in (few, many) for what in ("calls", "read u.", "write u.", "own ms")),
            "x own ms",
        )
        rows: list[tuple[Cell, ...]] = []
        for act in dict.fromkeys(act for act, _ in self.of):
            costs = (self.of[act, size] for size in (few, many))
            cells = [cell for c in costs for cell in (c.round_trips, c.read_units, c.write_units, round(c.seconds * 1000, 2))]
            rows.append((act, *cells, self.factor(act, "seconds")))
        note = (
            "The handler in this process over the real adapters: calls of AWS, DynamoDB's units, and processor time, botocore's included."
        )
        return Table(f"What is ours, at {few:,} and at {many:,} versions", columns, tuple(rows), (note,))

    @property
    def targets(self) -> tuple[Target, ...]:
        """That no measure of any operation grows."""
        told = {"round_trips": "calls of AWS", "read_units": "read units", "write_units": "write units", "seconds": "own processor time"}
        acts = dict.fromkeys(act for act, _ in self.of)
        few, many = self.sizes[0], self.sizes[-1]
        return tuple(
            Target(
                f"MLflow's operations, {what} at {many:,} versions beside {few:,}, greatest",
                max(self.factor(a, m) for a in acts),
                AT_MOST,
            )
            for m, what in told.items()
        )


def _post(route: str, body: Callable[[int, int], Mapping[str, Any]]) -> Ask:
    return lambda size, index: (f"POST {route}", {"name": model_of(size), **body(size, index)})


def _get(route: str, query: Callable[[int, int], Mapping[str, Any]]) -> Ask:
    return lambda size, index: (f"GET {route}", {"name": model_of(size), **query(size, index)})


def _version(size: int, index: int) -> dict[str, str]:
    return {"version": str((index + 1) * 7919 % size + 1)}


_REQUESTS: Mapping[str, Ask] = {
    "create_model": _post(f"{MODELS}/create", lambda s, i: {"name": f"alone-{s}-{i}"}),
    "set_alias": _post(f"{MODELS}/alias", lambda s, i: {"alias": "champion", **_version(s, i)}),
    "get_by_alias": _get(f"{MODELS}/alias", lambda *_: {"alias": "champion"}),
    "transition": _post(f"{VERSIONS}/transition-stage", lambda s, i: {"stage": ("Archived", "None")[i % 2], **_version(s, i)}),
    "set_tag": _post(f"{VERSIONS}/set-tag", lambda s, i: {"key": "alone", "value": str(i), **_version(s, i)}),
    "download_uri": _get(f"{VERSIONS}/get-download-uri", _version),
    "get_model": _get(f"{MODELS}/get", lambda *_: {}),
    "get_version": _get(f"{VERSIONS}/get", _version),
    "search_page": lambda size, _: (f"GET {VERSIONS}/search", {"filter": f"name='{model_of(size)}'", "max_results": 100}),
}


def _cost(embedded: EmbeddedRegistry, asked: Asked) -> Cost:
    route, told = asked
    event = embedded.event(route, "dana", body=None if route.startswith("GET ") else told)
    if route.startswith("GET "):
        event["rawQueryString"] = urlencode(told)
    with embedded.calls.counting() as count:
        began = time.process_time()
        answer = mlflow.handler(event, INVOCATION)
        seconds = time.process_time() - began
    if answer["statusCode"] >= 300:
        raise RuntimeError(f"{route} was answered {answer['statusCode']}: {answer['body']:.500}")
    return Cost(count.round_trips, count.read_units, count.write_units, seconds)


def _typical(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(c, name) for c in costs) for name in ("round_trips", "read_units", "write_units", "seconds")))


@contextmanager
def _world(embedded: EmbeddedRegistry) -> Iterator[None]:
    """Let the function's module work with the embedded AWS."""
    before = mlflow.world
    vars(mlflow)["world"] = embedded.world("mlflow")
    try:
        yield
    finally:
        vars(mlflow)["world"] = before
