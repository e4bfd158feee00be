"""The script-mode contract of SageMaker: which variables and arguments a script is given.

See the SageMaker Training Toolkit, ENVIRONMENT_VARIABLES.md. Provided here: `SM_CHANNELS`, `SM_CHANNEL_<NAME>`, `SM_MODEL_DIR`,
`SM_OUTPUT_DIR`, `SM_OUTPUT_DATA_DIR`, `SM_INPUT_DIR`, `SM_HPS`, `SM_HP_<NAME>`, `SM_USER_ARGS`, `SM_NUM_CPUS`, `SM_NUM_GPUS`,
`SM_HOSTS`, `SM_CURRENT_HOST`, `SM_MODULE_NAME`; hyperparameters come as `--name value`, booleans as `true` and `false`, lists and
objects as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestry.sandbox.job import Job


@dataclass(frozen=True)
class Folders:
    """Where a job's files lie, all below `root`."""

    root: Path

    @property
    def source(self) -> Path:
        """The unpacked source; the script's working directory."""
        return self.root / "source"

    @property
    def input(self) -> Path:
        """Holds one folder for each channel."""
        return self.root / "input"

    @property
    def model(self) -> Path:
        """`SM_MODEL_DIR`."""
        return self.root / "model"

    @property
    def output(self) -> Path:
        """`SM_OUTPUT_DATA_DIR`."""
        return self.root / "output"

    @property
    def temporary(self) -> Path:
        """`TMPDIR` and `HOME` of the script."""
        return self.root / "tmp"

    @property
    def archives(self) -> Path:
        """Downloads and uploads on their way; the script is not told."""
        return self.root / "archives"

    def channel(self, name: str) -> Path:
        """Return the folder of a channel."""
        return self.input / name

    def writable(self) -> list[Path]:
        """Return the folders that the script may write to."""
        return [self.source, self.model, self.output, self.temporary]

    def make(self) -> None:
        """Make those that nothing else makes."""
        for folder in (self.input, self.model, self.output, self.temporary, self.archives):
            folder.mkdir(parents=True)


def script_environment(job: Job, folders: Folders, *, cpus: int, gpus: int) -> dict[str, str]:
    """Return the `SM_*` variables of a job."""
    variables = {
        "SM_CHANNELS": json.dumps(sorted(job.channels)),
        "SM_MODEL_DIR": str(folders.model),
        "SM_OUTPUT_DIR": str(folders.output),
        "SM_OUTPUT_DATA_DIR": str(folders.output),
        "SM_INPUT_DIR": str(folders.input),
        "SM_HPS": json.dumps(dict(job.arguments)),
        "SM_USER_ARGS": json.dumps(script_arguments(job.arguments)),
        "SM_NUM_CPUS": str(cpus),
        "SM_NUM_GPUS": str(gpus),
        "SM_HOSTS": '["algo-1"]',
        "SM_CURRENT_HOST": "algo-1",
        "SM_MODULE_NAME": job.entry_point.removesuffix(".py"),
    }
    variables |= {f"SM_CHANNEL_{name.upper()}": str(folders.channel(name)) for name in job.channels}
    variables |= {f"SM_HP_{re.sub(r'[^A-Z0-9]', '_', name.upper())}": argument_text(value) for name, value in job.arguments.items()}
    return variables


def script_arguments(arguments: Mapping[str, Any]) -> list[str]:
    """Return the hyperparameters as a command line."""
    return [part for name, value in arguments.items() for part in (f"--{name}", argument_text(value))]


def argument_text(value: Any) -> str:
    """Return one value as text: booleans as `true` and `false`, lists and objects as JSON, numbers in their shortest form."""
    return value if isinstance(value, str) else json.dumps(value)


def base_environment(folders: Folders, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that every script gets besides the contract's.

    Nothing of the worker's environment passes but the loader's path, which the interpreter needs on Lambda: so no credentials do.
    Hashing is fixed, so that the order of sets does not change from run to run.
    """
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folders.temporary),
        "TMPDIR": str(folders.temporary),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        # There is no shared memory for semaphores, neither on Lambda nor under Landlock: joblib is told, so that it uses threads and
        # does not warn.
        "JOBLIB_MULTIPROCESSING": "0",
    }
    if "LD_LIBRARY_PATH" in inherited:
        variables["LD_LIBRARY_PATH"] = inherited["LD_LIBRARY_PATH"]
    return variables
