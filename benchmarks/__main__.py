"""Run the benchmarks: `python -m benchmarks [--json FILE] [--only NAME ...] [--versions N ...]`; ends with 1 if a target is missed."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Drawn

from benchmarks import (
    bench_calls,
    bench_cost,
    bench_evidence,
    bench_handlers,
    bench_imports,
    bench_ledger,
    bench_mlflow,
    bench_pipeline,
    bench_signing,
)
from benchmarks.embedded import EmbeddedRegistry
from benchmarks.result import Cell, Result, Table, Target

ON_REGISTRY = ("pipeline", "calls", "mlflow")
ALONE: Mapping[str, Callable[[], Result]] = {
    "imports": bench_imports.run,
    "handlers": bench_handlers.run,
    "signing": bench_signing.run,
    "evidence": bench_evidence.run,
    "ledger": bench_ledger.run,
    "cost": bench_cost.run,
}
"""Benchmarks that need no registry."""

NAMES = (*ON_REGISTRY, *ALONE)


class Benchmarks:
    """The benchmarks, and the registry that some of them share."""

    def __init__(self, folder: Path, say: Callable[[str], None], versions: Sequence[int] = bench_mlflow.SIZES) -> None:
        self._folder = folder
        self._say = say
        self._versions = sorted(set(versions))

    @cached_property
    def registry(self) -> EmbeddedRegistry:
        """The embedded registry, started when it is first needed."""
        return EmbeddedRegistry(self._folder, self._say)

    def close(self) -> None:
        """Stop the registry if it runs."""
        if "registry" in vars(self):
            self.registry.close()
            del self.registry

    def run(self, name: str) -> Result:
        """Run one benchmark; those that need no registry have the machine without it."""
        if name in ALONE:
            self.close()
        self._say(f"measuring {name}")
        if name == "pipeline":
            return bench_pipeline.run(self.registry)
        if name == "calls":
            return bench_calls.run(self.registry)
        if name == "mlflow":
            return bench_mlflow.run(self.registry, self._folder, self._say, self._versions)
        return ALONE[name]()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for, print it, and judge the targets."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write one JSON document to this file")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    told = f"versions of the models that `mlflow` measures; above {bench_mlflow.BOTH_AT_MOST} without mlflow server"
    parser.add_argument("--versions", nargs="+", type=int, default=bench_mlflow.SIZES, metavar="N", help=told)
    options = parser.parse_args(arguments)
    sizes = sorted(set(options.versions))
    if len(sizes) < 2 or sizes[0] < 1:
        parser.error("--versions takes at least two different numbers: what is ours is measured at the least beside the greatest")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    started = time.monotonic()
    say: Callable[[str], None] = lambda text: print(f"[{time.monotonic() - started:5.0f} s] {text}", file=sys.stderr)  # noqa: E731
    # Ended from outside it must not leave the registry running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="attestry-bench-", ignore_cleanup_errors=True) as folder:
        benchmarks = Benchmarks(Path(folder), say, sizes)
        try:
            # Handlers write logs and metrics to where Lambda reads them: their own standard output.
            with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
                results = [benchmarks.run(name) for name in NAMES if name in options.only]
        finally:
            benchmarks.close()
    for result in results:
        for table in result.tables:
            draw(console, table)
    targets = [target for result in results for target in result.targets]
    draw(console, judged(targets))
    if options.json:
        options.json.write_text(json.dumps(document(results, time.monotonic() - started), indent=2) + "\n", encoding="utf-8")
    return 0 if all(target.is_met for target in targets) else 1


def judged(targets: Sequence[Target]) -> Table:
    """Return the targets as a table."""
    rows = tuple((t.what, t.value, t.limit, "met" if t.is_met else "MISSED") for t in targets)
    return Table("Targets", ("target", "measured", "at most", ""), rows)


def document(results: Sequence[Result], seconds: float) -> dict[str, Any]:
    """Return everything as one JSON document."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "benchmarks": {result.name: result.to_dict() for result in results},
        "met": all(target.is_met for result in results for target in result.targets),
    }


def draw(console: Console, table: Table) -> None:
    """Print a table."""
    drawn = Drawn(title=table.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(table.columns):
        drawn.add_column(column, justify="left" if index == 0 else "right")
    for row in table.rows:
        drawn.add_row(*(text_of(cell) for cell in row))
    console.print()
    console.print(drawn)
    for note in table.notes:
        console.print(note, style="dim")


def text_of(cell: Cell) -> str:
    """Return a cell as text."""
    if isinstance(cell, float):
        return f"{cell:.0f}" if cell.is_integer() else f"{cell:.2f}"
    return "" if cell is None else str(cell)


if __name__ == "__main__":
    sys.exit(main())
