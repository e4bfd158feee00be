"""What a server and all that it started cost: processor time and memory, from /proc (Linux)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, of those that it started, and of those of them that have ended, in seconds."""
    return sum(sum(_stat(one)[1:]) for one in tree(pid)) / _TICKS


def memory_mib(pid: int) -> float:
    """Return the memory of a process and of those that it started, in MiB; what several share is counted once (PSS)."""
    found = 0
    for one in tree(pid):
        with suppress(OSError):
            lines = (_PROC / str(one) / "smaps_rollup").read_text().splitlines()
            found += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return found / 1024


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it and live."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                children.setdefault(_stat(int(entry.name))[0], []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        left += children.get(one, [])
    return found


def _stat(pid: int) -> tuple[int, ...]:
    """Return a process's parent, and in ticks its time in user and system mode and that of its children that it has waited for."""
    try:
        # The name stands in parentheses and may hold anything.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0
    return int(fields[1]), *(int(field) for field in fields[11:15])


def variables_of(python: Path, further: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a program of another interpreter."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}", **further}
