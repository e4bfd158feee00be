"""What a benchmark gives back: tables to read, targets to be judged, and both as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: what is in it.
        columns: names of the columns; the first names the row.
        rows: cells by column.
        notes: sentences that a reader needs to understand the numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the table with a mapping per row."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}


@dataclass(frozen=True)
class Target:
    """A limit that the project has set itself.

    Attributes:
        what: what is limited.
        value: what was measured.
        limit: the most that is allowed.
    """

    what: str
    value: float
    limit: float

    @property
    def is_met(self) -> bool:
        """Whether it holds."""
        return self.value <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Return the target as JSON."""
        return {"what": self.what, "value": self.value, "limit": self.limit, "met": self.is_met}


@dataclass(frozen=True)
class Result:
    """What one benchmark measured.

    Attributes:
        name: name of the benchmark.
        tables: for people.
        targets: what is judged.
        facts: further numbers, for the JSON document.
    """

    name: str
    tables: tuple[Table, ...]
    targets: tuple[Target, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON."""
        return {
            "benchmark": self.name,
            "tables": [table.to_dict() for table in self.tables],
            "targets": [target.to_dict() for target in self.targets],
            **self.facts,
        }


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing, all in the same unit."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one measurement."""
        return cls(tuple(values))

    @property
    def median(self) -> float:
        """The middle, which a noisy neighbour moves least."""
        return statistics.median(self.values)

    @property
    def cells(self) -> tuple[float, float, float, int]:
        """Median, least, greatest and number, rounded for a table."""
        return round(self.median, 2), round(min(self.values), 2), round(max(self.values), 2), len(self.values)
