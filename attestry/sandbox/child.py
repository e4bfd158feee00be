"""Starts a confined child process and watches over it until it, and all that it started, is gone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attestry.sandbox import confine
from attestry.sandbox.log import BoundedLog
from attestry.sandbox.processes import descendants, end_descendants, private_memory, send

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_MEMORY_EVERY = 0.25
_DISK_EVERY = 2.0
_DRAIN_SECONDS = 1.0
_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")


@dataclass(frozen=True)
class Child:
    """What to run.

    Attributes:
        mode: `script`, `predict` or `serve`.
        source: the unpacked source, the working directory.
        packages: the unpacked environment.
        entry_point: path of the script within the source.
        arguments: its command line.
        variables: its environment.
        readable: what it may read besides the system, source and packages.
        writable: what it may write.
        limits: its resource limits.
        extra: what the mode needs besides.
        pass_fds: descriptors that it inherits.
    """

    mode: str
    source: Path
    packages: Path
    entry_point: str
    arguments: Sequence[str]
    variables: Mapping[str, str]
    readable: Sequence[Path]
    writable: Sequence[Path]
    limits: confine.Limits
    extra: Mapping[str, Any] = field(default_factory=dict)
    pass_fds: Sequence[int] = ()


@dataclass(frozen=True)
class Watch:
    """When to end a child.

    Attributes:
        deadline: on the monotonic clock, in seconds.
        memory_bytes: private memory of the child and all it started; None for no limit.
        folders: folders whose files are counted.
        folder_bytes: limit of their size together.
    """

    deadline: float
    memory_bytes: int | None = None
    folders: Sequence[Path] = ()
    folder_bytes: int = sys.maxsize


@dataclass(frozen=True)
class Ending:
    """How a child ended.

    Attributes:
        exit_code: of the script; negative for a signal.
        stopped: why it was ended by the watch, `time`, `memory` or `disk`; None if it ended by itself.
        clean: whether no process of it is left.
    """

    exit_code: int
    stopped: str | None
    clean: bool


def start(child: Child) -> tuple[subprocess.Popen[bytes], int]:
    """Start a child in a session of its own and return it with the descriptor that its output arrives on.

    Its standard output and error are one new pipe, its standard input is empty, and it inherits nothing of this process's environment.
    The calling thread has to live as long as the child: the kernel ends the child with the thread that started it.
    """
    reader, writer = os.pipe()
    with contextlib.suppress(OSError):  # the default size works as well, only slower
        fcntl.fcntl(reader, _F_SETPIPE_SZ, _PIPE_BYTES)
    environment = {
        name: value for name, value in child.variables.items() if name in {"LD_LIBRARY_PATH", "LANG"} or name.startswith("PYTHON")
    }
    try:
        process = subprocess.Popen(  # noqa: S603 (the arguments are ours)
            [sys.executable, "-s", "-S", "-P", "-B", str(_BOOTSTRAP)],
            stdin=subprocess.PIPE,
            stdout=writer,
            stderr=writer,
            env=environment,
            cwd=child.source,
            start_new_session=True,
            close_fds=True,
            pass_fds=tuple(child.pass_fds),
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    if process.stdin is not None:
        try:
            with process.stdin as stream:
                stream.write(_configuration(child))
        except BrokenPipeError:  # it died at once; its exit code and output tell why
            pass
    os.set_blocking(reader, False)
    return process, reader


def run(child: Child, watch: Watch, log: BoundedLog, *, sparing: Collection[int] = ()) -> Ending:
    """Run a child to its end.

    Args:
        child: what to run.
        watch: when to end it.
        log: takes its output.
        sparing: processes below this one that do not belong to the child.
    """
    return attend(*start(child), watch, log, sparing=sparing)


def attend(process: subprocess.Popen[bytes], reader: int, watch: Watch, log: BoundedLog, *, sparing: Collection[int] = ()) -> Ending:
    """Stay with a process that leads a session of its own until it has ended; nothing that it started outlives it.

    Args:
        process: the process.
        reader: descriptor that its output arrives on, not blocking; closed at the end.
        watch: when to end it.
        log: takes its output.
        sparing: processes below this one that do not belong to it.
    """
    try:
        stopped = _wait(process, reader, watch, log, sparing)
    finally:
        if process.returncode is None:
            send(-process.pid, signal.SIGKILL)
        process.wait()
        clean = end_descendants(os.getpid(), sparing=sparing)
        drain(reader, log, seconds=_DRAIN_SECONDS)
        os.close(reader)
    return Ending(process.returncode, stopped, clean)


def drain(reader: int, log: BoundedLog, *, seconds: float) -> bool:
    """Read what a pipe holds into the log, for at most so long; return whether the pipe has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            chunk = os.read(reader, _PIPE_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            return True
        log.write(chunk)
    return False


def _configuration(child: Child) -> bytes:
    document = {
        "mode": child.mode,
        "source": str(child.source),
        "packages": str(child.packages),
        "entry_point": child.entry_point,
        "arguments": list(child.arguments),
        "variables": dict(child.variables),
        "readable": [str(path) for path in (child.source, child.packages, *child.readable)],
        "writable": [str(path) for path in child.writable],
        "limits": asdict(child.limits),
        "parent": os.getpid(),
        **child.extra,
    }
    return json.dumps(document).encode() + b"\n"


def _wait(process: subprocess.Popen[bytes], reader: int, watch: Watch, log: BoundedLog, sparing: Collection[int]) -> str | None:
    ended = _pidfd(process.pid)
    check = _checks(watch, sparing)
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        if ended is not None:
            selector.register(ended, selectors.EVENT_READ)
        try:
            while process.poll() is None:
                left = watch.deadline - time.monotonic()
                if left <= 0:
                    return "time"
                for key, _ in selector.select(min(left, _MEMORY_EVERY if ended is not None else 0.05)):
                    if key.fd == reader and not _read_once(reader, log):
                        selector.unregister(reader)
                if reason := check():
                    return reason
        finally:
            if ended is not None:
                os.close(ended)
    return None


def _read_once(reader: int, log: BoundedLog) -> bool:
    try:
        chunk = os.read(reader, _PIPE_BYTES)
    except BlockingIOError:
        return True
    log.write(chunk)
    return bool(chunk)


def _pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _checks(watch: Watch, sparing: Collection[int]) -> Callable[[], str | None]:
    due = {"memory": time.monotonic() + _MEMORY_EVERY, "disk": time.monotonic() + _DISK_EVERY}

    def check() -> str | None:
        now = time.monotonic()
        if watch.memory_bytes is not None and now >= due["memory"]:
            due["memory"] = now + _MEMORY_EVERY
            if private_memory(descendants(os.getpid(), sparing=sparing)) > watch.memory_bytes:
                return "memory"
        if watch.folders and now >= due["disk"]:
            due["disk"] = now + _DISK_EVERY
            if _size(watch.folders, watch.folder_bytes) > watch.folder_bytes:
                return "disk"
        return None

    return check


def _size(folders: Sequence[Path], enough: int) -> int:
    total = 0
    for folder in folders:
        for path, _, names in os.walk(folder):
            for name in names:
                try:
                    total += os.lstat(os.path.join(path, name)).st_blocks * 512  # noqa: PTH118 (called for every file, every 2 s)
                except OSError:
                    continue
            if total > enough:
                return total
    return total
