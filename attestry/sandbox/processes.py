"""Finds and ends every process that a script left, through /proc.

It relies on the worker being a subreaper (`confine.shield_worker`): an orphan, even one that forked twice and opened a session of its
own, is then handed to the worker and stays its descendant. Without /proc (not Linux) only the process group of a
child that is still running is ended.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def descendants(root: int, *, sparing: Collection[int] = ()) -> list[int]:
    """Return the process IDs below a process, but for the trees under `sparing`."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    queue = [root]
    while queue:
        for pid in children.get(queue.pop(), ()):
            if pid not in sparing:
                found.append(pid)
                queue.append(pid)
    return found


def end_descendants(root: int, *, sparing: Collection[int] = (), seconds: float = 5.0) -> bool:
    """Kill all that is below a process until nothing is left.

    All are stopped before any is killed, so that a tree which forks faster than it is read comes to a halt.

    Args:
        root: the process; usually this one.
        sparing: process IDs that stay, with their descendants.
        seconds: how long to try.

    Returns:
        whether nothing is left.
    """
    deadline = time.monotonic() + seconds
    while left := descendants(root, sparing=sparing):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in left:
                send(pid, number)
        for pid in left:
            _reap(pid)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def send(pid: int, number: int) -> None:
    """Send a signal to a process, or, negative, to a process group; one that is gone is fine."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def private_memory(pids: Collection[int]) -> int:
    """Return the bytes of memory that these processes hold and do not share with files, in all."""
    total = 0
    for pid in pids:
        try:
            fields = (_PROC / str(pid) / "statm").read_text().split()
        except OSError:
            continue
        total += (int(fields[1]) - int(fields[2])) * _PAGE
    return total


def _parents() -> Iterator[tuple[int, int]]:
    if not _PROC.is_dir():
        return
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue
        # The name stands in parentheses and may hold anything, so the fields are counted from the last one.
        yield int(entry.name), int(text.rpartition(")")[2].split()[1])


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
