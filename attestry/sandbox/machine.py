"""What machine this is, from /proc and /dev."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe_machine(*, memory_mib: int | None = None) -> dict[str, object]:
    """Return the machine as the answer of a job names it.

    Args:
        memory_mib: configured memory; without it, that of the machine.
    """
    return {
        "cpu_count": cpu_count(),
        "memory_mib": memory_mib or total_memory_mib(),
        "gpu_count": gpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory_mib() -> int:
    """Return the machine's memory in MiB, 0 where unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    except (ValueError, OSError):
        return 0


def gpu_count() -> int:
    """Return the number of NVIDIA GPUs that have a device node."""
    return sum(path.name.removeprefix("nvidia").isdigit() for path in Path("/dev").glob("nvidia*"))
