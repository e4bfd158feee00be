"""What the pipeline costs beyond the scripts: one execution of the example, by state, beside the same scripts run by hand.

The times are those of the execution's own history, and of what the sandbox says about a run. A script run by hand has the same
arguments, inputs and folders, on the interpreter and packages of this environment; its time is the median of several runs right after
the execution.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.embedded import EmbeddedRegistry, FirstVersion
from benchmarks.result import Cell, Result, Spread, Table

STAGES = ("PROCESSING", "TRAINING", "VALIDATION")
RUNS = 3
PREDICT = """
import json, os, pandas, inference
frame = pandas.read_parquet(os.environ["SM_CHANNEL_HOLDOUT"]).drop(columns=os.environ["LABEL"])
answer = inference.predict_fn(frame, inference.model_fn(os.environ["SM_MODEL_DIR"]))
json.dump(answer.to_dict("list"), open(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], "predictions.json"), "w"))
"""


@dataclass(frozen=True)
class StageTime:
    """Where the seconds of a stage went.

    Attributes:
        stage: its name.
        states: seconds of the states that prepare, run, evaluate and record it.
        sandbox: the run, as the sandbox claims it: environment, inputs, script, outputs.
        script: the script by hand.
    """

    stage: str
    states: tuple[float, float, float, float]
    sandbox: float
    script: float

    @property
    def wall(self) -> float:
        """From the first state of the stage to the first of the next."""
        return sum(self.states)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The table's row."""
        seconds = (*self.states, self.wall, self.sandbox, self.script, self.wall - self.script)
        return self.stage, *(round(value, 2) for value in seconds), round(self.wall / self.script, 2)


def run(registry: EmbeddedRegistry) -> Result:
    """Run the example once, and measure."""
    first = registry.first_version
    entered = _entered(registry, first)
    opened = datetime.fromisoformat(first.version["transitions"][-1]["at"])
    by_hand = _run_by_hand(registry, first.version)
    following = dict(zip(STAGES, ("Prepare TRAINING", "Prepare VALIDATION", "APPROVAL"), strict=True))
    times = [
        StageTime(stage, _states_of(entered, stage, following[stage]), _claimed(first.version, stage), by_hand[stage]) for stage in STAGES
    ]
    around = {
        "upload and registration": (entered["Read input"] - first.submitted).total_seconds(),
        "environments (once per lock file)": (entered["Prepare PROCESSING"] - entered["Read input"]).total_seconds(),
        "opening the approval": (opened - entered["APPROVAL"]).total_seconds(),
    }
    whole = (opened - first.submitted).total_seconds()
    return Result("pipeline", (_stages(times), _whole(whole, around, times)), facts={"seconds": whole, "states": _states(entered)})


def _states_of(entered: Mapping[str, datetime], stage: str, following: str) -> tuple[float, float, float, float]:
    """Return the seconds of the states of a stage; TRAINING has none that evaluates."""
    recorded = entered[f"Record {stage}"]
    evaluated = entered.get(f"Evaluate {stage}", recorded)
    at = (entered[f"Prepare {stage}"], entered[stage], evaluated, recorded, entered[following])
    prepare, run_, evaluate, record = ((after - before).total_seconds() for before, after in pairwise(at))
    return prepare, run_, evaluate, record


def _stages(times: Sequence[StageTime]) -> Table:
    states = [sum(parts) for parts in zip(*(t.states for t in times), strict=True)]
    total = StageTime(
        "all three", (states[0], states[1], states[2], states[3]), sum(t.sandbox for t in times), sum(t.script for t in times)
    )
    columns = ("stage", "prepare", "run", "evaluate", "record", "wall", "sandbox claims", "script by hand", "overhead", "x by hand")
    return Table(
        "Stages of one execution (seconds)",
        columns,
        tuple(t.cells for t in (*times, total)),
        (
            "The first run in a worker fetches and unpacks the environment, and so does the first evaluation: PROCESSING has both.",
            "The rest of the overhead is the check of the unpacked environment and the start of a confined process, whatever the script.",
        ),
    )


def _whole(whole: float, around: Mapping[str, float], times: Sequence[StageTime]) -> Table:
    parts = {**around, "the stages": sum(t.wall for t in times)}
    rows = [(name, round(seconds, 2), round(seconds / whole, 2)) for name, seconds in parts.items()]
    return Table(
        "From the submission to the approval (seconds)",
        ("part", "wall", "share"),
        (*rows, ("submission to approval", round(whole, 2), 1.0)),
    )


def _entered(registry: EmbeddedRegistry, first: FirstVersion) -> dict[str, datetime]:
    """Return when each state was entered first."""
    client = registry.stack.session("root").client("stepfunctions")
    pages = client.get_paginator("get_execution_history").paginate(executionArn=first.execution_arn)
    entered: dict[str, datetime] = {}
    for page in pages:
        for event in page["events"]:
            if "stateEnteredEventDetails" in event:
                entered.setdefault(event["stateEnteredEventDetails"]["name"], event["timestamp"])
    return entered


def _states(entered: Mapping[str, datetime]) -> list[dict[str, Any]]:
    begun = min(entered.values())
    return [{"state": name, "at": round((at - begun).total_seconds(), 3)} for name, at in entered.items()]


def _record(version: Mapping[str, Any], stage: str) -> dict[str, Any]:
    row = next(s for s in version["stages"] if s["stage"] == stage)
    record: dict[str, Any] = json.loads(row["record"])
    return record


def _claimed(version: Mapping[str, Any], stage: str) -> float:
    claimed = _record(version, stage)["claimed"]
    begun, ended = (datetime.fromisoformat(claimed[name]) for name in ("started", "ended"))
    return (ended - begun).total_seconds()


def _run_by_hand(registry: EmbeddedRegistry, version: Mapping[str, Any]) -> dict[str, float]:
    """Run the scripts of the stages outside the registry, one after the other, several times."""
    seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory(prefix="attestry-bench-") as folder:
            for stage, start in _scripts(registry, version, Path(folder)).items():
                began = time.perf_counter()
                start()
                seconds[stage].append(time.perf_counter() - began)
    return {stage: Spread.of(values).median for stage, values in seconds.items()}


def _scripts(registry: EmbeddedRegistry, version: Mapping[str, Any], folder: Path) -> dict[str, Callable[[], None]]:
    data, model, output = folder / "data", folder / "model", folder / "output"
    for made in (data, model, output):
        made.mkdir()
    label = str(_record(version, "TRAINING")["parameters"]["label"])
    channels = {"SOURCE": registry.project / "data", "TRAIN": data / "train", "HOLDOUT": data / "holdout"}
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "LABEL": label,
        "SM_MODEL_DIR": str(model),
        **{f"SM_CHANNEL_{name}": str(path) for name, path in channels.items()},
    }

    def script(stage: str, into: Path) -> Callable[[], None]:
        record = _record(version, stage)
        arguments = [part for name, value in record["parameters"].items() for part in (f"--{name}", str(value))]
        return lambda: _python([record["code"]["script"], *arguments], registry.project, {**variables, "SM_OUTPUT_DATA_DIR": str(into)})

    return {
        "PROCESSING": script("PROCESSING", data),
        "TRAINING": script("TRAINING", output),
        "VALIDATION": lambda: _python(["-c", PREDICT], registry.project, {**variables, "SM_OUTPUT_DATA_DIR": str(output)}),
    }


def _python(arguments: list[str], folder: Path, variables: Mapping[str, str]) -> None:
    subprocess.run([sys.executable, *arguments], cwd=folder, env=dict(variables), check=True, capture_output=True)
