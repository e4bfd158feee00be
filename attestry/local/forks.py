"""Processes of functions by fork: `python -m attestry.local.forks FD FOLDER` imports what the functions import, and forks one for each.

A process of a function that starts from nothing spends about a second of a CPU on imports, and a storm of requests starts dozens of them on
a laptop's few. Forked, each has the same modules at once, and everything else of its own: variables, working directory, standard streams.

Rules:
- What is imported before the fork is what the functions' modules import at their top, read from their source: never a function's module
  itself, so nothing is bound to an environment that is not the function's, and a function that lacks an import still fails.
- Functions that run or serve registered code start from nothing: no module of the registry is in their memory.
- The process has one thread, holds no credentials, and ends when the server does.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

FROM_NOTHING = frozenset({"lambdas.sandbox", "lambdas.inference", "lambdas.evaluate"})
"""The functions that run, serve, or read what registered code wrote; none of them shares a beginning with others."""


def _is_possible() -> bool:
    if not (hasattr(os, "pidfd_open") and hasattr(socket, "send_fds")):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # the kernel is older, or a container's filter lets nobody ask
        return False
    return True


POSSIBLE = _is_possible()
"""Whether this system can tell the end of a process that is nobody's child here; elsewhere every process starts from nothing."""

_LENGTH = struct.Struct("!I")
_LISTED_SECONDS = 2.0
_ENDED = 255
_KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR", "PYTHONPATH", "PYTHONPYCACHEPREFIX")


class Forked:
    """A forked process, as much of `subprocess.Popen` as the emulator asks for.

    Args:
        pid: its process ID.
        pidfd: descriptor of the process, which this closes.
        streams: the server's ends of its standard input, output and error.
    """

    def __init__(self, pid: int, pidfd: int, streams: tuple[int, int, int]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = pidfd
        self.stdin = os.fdopen(streams[0], "w", encoding="utf-8", buffering=1)
        self.stdout = os.fdopen(streams[1], encoding="utf-8", errors="replace")
        self.stderr = os.fdopen(streams[2], encoding="utf-8", errors="replace")
        weakref.finalize(self, os.close, pidfd)

    def poll(self) -> int | None:
        """Return None while the process lives, and 255 when it has ended, however it did."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process has ended.

        Raises:
            subprocess.TimeoutExpired: it lives on after so many seconds.
        """
        if self.returncode is None:
            ends = select.poll()
            ends.register(self._pidfd, select.POLLIN)
            if not ends.poll(None if timeout is None else max(0.0, timeout * 1000)):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = _ENDED
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)


class ForkServer:
    """The server's side of the process that forks.

    Args:
        functions: folder of the functions' modules.
    """

    def __init__(self, functions: Path) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (ourselves)
                [sys.executable, "-m", "attestry.local.forks", str(theirs.fileno()), str(functions)],
                pass_fds=[theirs.fileno()],
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                stdin=subprocess.DEVNULL,
            )

    def spawn(self, script: str, *, cwd: str, env: Mapping[str, str]) -> Forked:
        """Run a script in a process of its own.

        Args:
            script: path of the script.
            cwd: its working directory.
            env: all its variables.

        Raises:
            OSError: the process that forks has ended, or can fork no more.
        """
        order = json.dumps({"script": script, "cwd": cwd, "env": dict(env)}).encode()
        pipes = [os.pipe() for _ in range(3)]
        theirs, ours = [pipes[0][0], pipes[1][1], pipes[2][1]], (pipes[0][1], pipes[1][0], pipes[2][0])
        try:
            with self._lock:
                socket.send_fds(self._control, [_LENGTH.pack(len(order))], theirs)
                self._control.sendall(order)
                answer, given, _, _ = socket.recv_fds(self._control, _LENGTH.size, 1)
            if len(answer) < _LENGTH.size or not given:
                raise OSError("no process could be forked")
        except OSError:
            for end in ours:
                os.close(end)
            raise
        finally:
            for end in theirs:
                os.close(end)
        return Forked(_LENGTH.unpack(answer)[0], given[0], ours)

    def close(self) -> None:
        """End the process that forks; those that it has forked live on until their input ends."""
        self._control.close()
        self._process.wait()


def imported_by(functions: Path) -> list[str]:
    """Return the modules that the functions' modules import at their top, but for those functions that start from nothing."""
    names: dict[str, None] = {}
    for path in sorted(functions.glob("*.py")):
        if f"{functions.name}.{path.stem}" in FROM_NOTHING:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names.update(dict.fromkeys(alias.name for alias in node.names))
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names[node.module] = None
    return [name for name in names if name.partition(".")[0] != functions.name]


def serve(control: socket.socket) -> None:
    """Fork a process for each order, until nobody can give one any more."""
    while True:
        if not select.select([control], [], [], _LISTED_SECONDS)[0]:
            _collect()
            continue
        head, streams, _, _ = socket.recv_fds(control, _LENGTH.size, 3)
        if len(head) < _LENGTH.size:
            return
        order = json.loads(b"".join(_read(control, _LENGTH.unpack(head)[0])))
        try:
            pid = os.fork()
        except OSError:
            pid = -1
        if pid == 0:
            control.close()
            _become(order, streams)
        for stream in streams:
            os.close(stream)
        if pid < 0:
            control.sendall(_LENGTH.pack(0))
            continue
        # Before it can be collected, so that the number is still its own.
        pidfd = os.pidfd_open(pid)
        socket.send_fds(control, [_LENGTH.pack(pid)], [pidfd])
        os.close(pidfd)
        _collect()


def _read(control: socket.socket, size: int) -> Iterator[bytes]:
    while size > 0:
        part = control.recv(min(size, 1 << 16))
        if not part:
            raise EOFError("an order was cut off")
        size -= len(part)
        yield part


def _collect() -> None:
    """Let go of the processes that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _become(order: Mapping[str, Any], streams: Sequence[int]) -> NoReturn:
    """Be the process that was ordered, as far as a program can tell; never returns."""
    status = 1
    try:
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
            os.close(stream)
        sys.stdin, sys.stdout = open(0, encoding="utf-8", closefd=False), open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(order["env"])
        time.tzset()
        os.chdir(order["cwd"])
        script = str(order["script"])
        sys.argv, sys.path[0] = [script], str(Path(script).parent)
        runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # noqa: BLE001 (as the interpreter does with what nobody catches)
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(status)


def main() -> None:
    """Import, and fork until the server has ended."""
    descriptor, functions = int(sys.argv[1]), Path(sys.argv[2])
    for name in imported_by(functions):
        importlib.import_module(name)
    # What is there now lives for ever: looking through it again would only copy the pages.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=descriptor) as control:
        serve(control)


if __name__ == "__main__":
    main()
