"""How long each function's module takes to import; every cold start waits for it.

Each program runs in a fresh interpreter that sees what the function's archive holds and nothing else: the packages of its lock file, our
two packages, the standard library. The programs run one after the other, round by round, so a slower moment slows all of them; what counts
is processor time, of which the least is taken: other programs on the machine can only add to it. Bytecode is made in a first round that
does not count; `predict` runs once more without any, as on AWS, where an archive may carry none and its folder cannot be written.

The floor of a program is the same process with the standard library and the Ed25519 library alone: all modules of the standard library that
the program imports, and the key type that signs. Target: the signing path, which is what makes delegations and receipts without the SDK of
AWS, at most twice its floor. The whole functions stand beside theirs and are not judged: the SDK alone is more than the floor.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.result import Cell, Result, Spread, Table, Target

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "lambdas" / "requirements.lock"
OWN_LOCKS = {"sign_artifact": ROOT / "lambdas" / "sign_artifact.requirements.lock"}
OURS = ("attestry", "lambdas")
SIGNING_PATH = {"predict": "attestry.usecases.predict", "delegate": "attestry.usecases.delegate"}
ROUNDS, SIGNING_ROUNDS, SLOW_ROUNDS = 2, 12, 1
LIMIT = 2.0
EMPTY, SDK, ED25519 = "an empty interpreter", "botocore's session", "Ed25519 of the library"
UNCOMPILED = "predict, without bytecode"
SIGNER = "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey"
STANDARD = """
import os, sys
before = set(sys.modules)
import {module}
import importlib.util, json
found = [n for n in sys.modules if n not in before and n.partition(".")[0] in sys.stdlib_module_names]

def is_there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False

print(json.dumps([n for n in found if is_there(n) and not n.startswith("_sysconfigdata")]))
"""


@dataclass(frozen=True)
class Program:
    """A program to run.

    Attributes:
        code: Python.
        packages: the folder of what it may import.
        rounds: how often it is measured.
        compiled: whether bytecode is kept.
    """

    code: str
    packages: Path
    rounds: int = ROUNDS
    compiled: bool = True


def run() -> Result:
    """Measure every function's module, and the signing path more often."""
    functions = sorted(path.stem for path in (ROOT / "lambdas").glob("*.py") if path.stem != "__init__")
    with tempfile.TemporaryDirectory(prefix="attestry-bench-") as folder:
        places = {lock: _packages(lock, Path(folder, lock.stem)) for lock in (LOCK, *OWN_LOCKS.values())}
        usual = places[LOCK]
        programs = {EMPTY: Program("pass", usual), SDK: Program("import botocore.session", usual), ED25519: Program(SIGNER, usual)}
        for name in functions:
            programs[name] = Program(f"import lambdas.{name}", places[OWN_LOCKS.get(name, LOCK)])
        for name, module in SIGNING_PATH.items():
            programs[_path(name)] = Program(f"import {module}", usual, SIGNING_ROUNDS)
            programs[_floor(_path(name))] = Program(_floor_of(module, usual), usual, SIGNING_ROUNDS)
            programs[_floor(name)] = Program(_floor_of(f"lambdas.{name}", usual), usual)
        programs[UNCOMPILED] = Program(programs["predict"].code, usual, SLOW_ROUNDS, compiled=False)
        spreads = _measure(programs, Path(folder))
    rows = tuple(_row(name, spreads) for name in spreads)
    columns = ("program", "ms, least", "median", "greatest", "n", "x empty", "x its floor")
    notes = (
        "Processor time of the whole process, milliseconds. Clients of AWS services are made at the first request and not counted here.",
        "Floor: the same process with the standard library and the Ed25519 library alone.",
    )
    targets = tuple(
        Target(f"importing the signing path of {name}, x standard library and Ed25519", _of_floor(_path(name), spreads), LIMIT)
        for name in SIGNING_PATH
    )
    return Result("imports", (Table("Importing a function's module", columns, rows, notes),), targets)


def _path(function: str) -> str:
    return f"{function}, signing path"


def _floor(name: str) -> str:
    return f"{name}, floor"


def _row(name: str, spreads: Mapping[str, Spread]) -> tuple[Cell, ...]:
    median, least, greatest, count = spreads[name].cells
    ratio = _of_floor(name, spreads) if _floor(name) in spreads else None
    return name, least, median, greatest, count, round(least / min(spreads[EMPTY].values), 1), ratio


def _of_floor(name: str, spreads: Mapping[str, Spread]) -> float:
    return round(min(spreads[name].values) / min(spreads[_floor(name)].values), 2)


def _packages(lock: Path, folder: Path) -> Path:
    """Lay out what an archive holds: links to the packages of its lock file, and to ours."""
    folder.mkdir()
    for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(encoding="utf-8"), re.MULTILINE):
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for other Pythons or platforms
        for top in {
            file.parts[0] for file in distribution.files or () if not file.parts[0].endswith((".dist-info", ".pth", "__pycache__"))
        }:
            if top != ".." and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    for name in OURS:
        (folder / name).symlink_to(ROOT / name)
    return folder


def _floor_of(module: str, packages: Path) -> str:
    """Return the program that imports what a module imports of the standard library, and the key type that signs."""
    command = [sys.executable, "-S", "-B", "-c", STANDARD.format(module=module)]
    done = subprocess.run(command, env={"PYTHONPATH": str(packages)}, capture_output=True, text=True, check=True)
    return "\n".join([*(f"import {name}" for name in json.loads(done.stdout)), SIGNER])


def _measure(programs: Mapping[str, Program], folder: Path) -> dict[str, Spread]:
    compiled = {"PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    nothing = {"PYTHONPYCACHEPREFIX": str(folder / "none"), "PYTHONDONTWRITEBYTECODE": "1"}
    for program in programs.values():
        if program.compiled:
            _milliseconds(program, compiled)
    measured: dict[str, list[float]] = {name: [] for name in programs}
    for index in range(max(program.rounds for program in programs.values())):
        for name, program in programs.items():
            if index < program.rounds:
                measured[name].append(_milliseconds(program, compiled if program.compiled else nothing))
    return {name: Spread.of(values) for name, values in measured.items()}


def _milliseconds(program: Program, variables: Mapping[str, str]) -> float:
    """Run a program in a fresh interpreter without any other environment or packages, and return its processor time."""
    command = [sys.executable, "-S", "-c", program.code]
    process = os.posix_spawn(sys.executable, command, {**variables, "PYTHONPATH": str(program.packages)})
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{program.code[:200]!r} ended with {os.waitstatus_to_exitcode(status)}")
    return (usage.ru_utime + usage.ru_stime) * 1000
