"""How long each function's module takes to import, beside an empty interpreter and `import boto3`; every cold start waits for it.

The programs run one after the other, round by round, so a slower moment slows all of them. What counts is processor time, which other
programs on the machine move less than the clock. Bytecode is made in a first round that does not count; `predict` runs once more
without any, as on AWS, where an archive carries none and its folder cannot be written.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.result import Result, Spread, Table

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 4
EMPTY, BOTO3 = "an empty interpreter", "import boto3"
UNCOMPILED = "predict, without bytecode"


def run() -> Result:
    """Measure every function's module."""
    functions = sorted(path.stem for path in (ROOT / "lambdas").glob("*.py") if path.stem != "__init__")
    programs = {EMPTY: "pass", BOTO3: "import boto3", **{name: f"import lambdas.{name}" for name in functions}}
    with tempfile.TemporaryDirectory(prefix="attestry-bench-") as folder:
        compiled = {"PYTHONPYCACHEPREFIX": str(Path(folder, "compiled"))}
        nothing = {"PYTHONPYCACHEPREFIX": str(Path(folder, "none")), "PYTHONDONTWRITEBYTECODE": "1"}
        for program in programs.values():
            _milliseconds(program, compiled)
        measured: dict[str, list[float]] = {name: [] for name in (*programs, UNCOMPILED)}
        for _ in range(ROUNDS):
            for name, program in programs.items():
                measured[name].append(_milliseconds(program, compiled))
            measured[UNCOMPILED].append(_milliseconds(programs["predict"], nothing))
    spreads = {name: Spread.of(values) for name, values in measured.items()}
    empty, boto3 = spreads[EMPTY].median, spreads[BOTO3].median
    rows = tuple(
        (name, *spread.cells, round(spread.median / empty, 1), round((spread.median - empty) / (boto3 - empty), 2))
        for name, spread in spreads.items()
    )
    columns = ("program", "ms", "least", "greatest", "n", "x empty", "x boto3, beyond empty")
    notes = (
        "Processor time of the whole process, milliseconds. Clients of AWS services are made at the first request and not counted here.",
    )
    return Result("imports", (Table("Importing a function's module", columns, rows, notes),))


def _milliseconds(program: str, variables: Mapping[str, str]) -> float:
    """Run a program in a fresh interpreter without any other environment, and return its processor time."""
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", program], {**variables, "PYTHONPATH": str(ROOT)})
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{program!r} ended with {os.waitstatus_to_exitcode(status)}")
    return (usage.ru_utime + usage.ru_stime) * 1000
