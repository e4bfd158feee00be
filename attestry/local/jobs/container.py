"""A process in place of a container: the command of a job, confined to the job's own folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attestry.sandbox.processes import send

_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
_FILE_BYTES = 8 << 30
_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05

INTERPRETER = os.path.realpath(sys.executable)


@dataclass(frozen=True)
class Command:
    """What a container runs.

    Attributes:
        arguments: the command line; its program is the interpreter, whatever the request calls that.
        variables: the whole environment.
        folder: working directory.
        root: the job's folder: the only one that may be written.
        packages: folder of the packages in place of the image's.
        network: whether connections may be made; without, there is none at all.
        log: file that takes what it prints.
    """

    arguments: Sequence[str]
    variables: Mapping[str, str]
    folder: Path
    root: Path
    packages: Path
    network: bool
    log: Path


@dataclass(frozen=True)
class Ended:
    """How a container ended.

    Attributes:
        exit_code: of the command; negative for a signal.
        reason: `time` or `stop` where it was ended from outside, else empty.
    """

    exit_code: int
    reason: str = ""


@dataclass
class Container:
    """Runs one command to its end."""

    command: Command
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def run(self, seconds: float, stopped: Callable[[], bool]) -> Ended:
        """Run the command in the calling thread, which has to live as long as the command does.

        Args:
            seconds: its limit.
            stopped: asked again and again whether somebody wants it stopped.
        """
        with self.command.log.open("wb") as log:
            process = self._start(log.fileno())
        deadline = time.monotonic() + seconds
        while process.poll() is None:
            reason = "stop" if stopped() else "time" if time.monotonic() > deadline else ""
            if reason:
                self._end(process)
                return Ended(process.wait(), reason)
            time.sleep(_POLL_SECONDS)
        self._end(process)
        return Ended(process.wait())

    def _start(self, output: int) -> subprocess.Popen[bytes]:
        command = self.command
        process = subprocess.Popen(  # noqa: S603 (the command is confined before it is reached)
            [INTERPRETER, "-s", "-S", "-P", "-B", str(_BOOTSTRAP)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={"LANG": "C.UTF-8"},
            cwd=command.folder,
            start_new_session=True,
        )
        configuration = {
            "command": [INTERPRETER, *command.arguments[1:]],
            "variables": dict(command.variables),
            "readable": [str(command.packages)],
            "writable": [str(command.root)],
            "network": command.network,
            "file_bytes": _FILE_BYTES,
            "parent": os.getpid(),
        }
        if process.stdin is not None:
            with process.stdin as stream:
                stream.write(json.dumps(configuration).encode() + b"\n")
        return process

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        """Ask the session to end, and make it."""
        send(-process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        send(-process.pid, signal.SIGKILL)


def container_variables(root: Path, packages: Path, further: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a container: nothing of this process's, and the packages where an image has its own."""
    temporary = root / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(packages),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "JOBLIB_MULTIPROCESSING": "0",
        **further,
    }
