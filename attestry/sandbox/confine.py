"""Takes rights away from the calling process for good, before a stranger's code runs in it.

What the kernel offers differs, so each measure is applied where it exists and what was applied is returned by name:

- `rlimits`: no core dumps, bounded file size, data segment, open files.
- `no_new_privs` and `no_capabilities`: nothing can be regained by running another program, and a superuser is one no more.
- `landlock:<version>`: files are read only where programs, libraries and the job lie, and written only in the job's own folders;
  from version 4 no TCP, from version 6 no signals to, and always no inspection of, processes outside. See the kernel's
  Documentation/userspace-api/landlock.rst. AWS Lambda's kernel does not have it; there the function has a machine of its own.
- `death_signal`: the process is killed when the thread that started it ends.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION_3 = 0x20080522

_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_ADD_RULE = 445
_SYS_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_VERSION_FLAG = 1
_LANDLOCK_RULE_PATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_TCP = 0b11
_SCOPES = 0b11

SYSTEM_READABLE = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/var/lang",
    "/nix/store",
    "/proc",
    "/sys",
    "/dev",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/ssl",
    "/etc/pki",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/os-release",
    "/etc/mime.types",
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/magic",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


RESERVED_BYTES = 4 << 30
"""What a process may reserve beyond the memory it may use: numerical libraries map buffers for each thread and touch few of them."""


@dataclass(frozen=True)
class Limits:
    """Resource limits of one process.

    Attributes:
        file_bytes: largest file it may write.
        data_bytes: private memory it may ask for; None for no limit.
        processes: processes and threads of the user; None for no limit. It counts all of the user's, so it is for machines of one's own.
    """

    file_bytes: int
    data_bytes: int | None = None
    processes: int | None = None


def confine(limits: Limits, *, readable: Iterable[str], writable: Iterable[str], parent: int, network: bool = False) -> list[str]:
    """Apply all measures to this process and return their names.

    Args:
        limits: resource limits.
        readable: folders and files that may be read besides those of the system.
        writable: folders that may be written, and read.
        parent: process ID of the one that started this one; if it is gone already, the process ends.
        network: whether it may connect; for what has to fetch its own inputs.
    """
    set_limits(limits)
    applied = ["rlimits"]
    if sys.platform != "linux":
        return applied
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1):
        applied.append("no_new_privs")
    if _drop_capabilities():
        applied.append("no_capabilities")
    if version := _restrict_files(readable, writable, network=network):
        applied.append(f"landlock:{version}")
    if _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL):
        applied.append("death_signal")
    if os.getppid() != parent:
        os._exit(1)
    return applied


def set_limits(limits: Limits) -> None:
    """Set the resource limits, hard, never above what is in force."""
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: 1024,
        resource.RLIMIT_DATA: limits.data_bytes,
        resource.RLIMIT_NPROC: limits.processes,
    }
    for kind, value in wanted.items():
        if value is None:
            continue
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (bound, bound))
        except (ValueError, OSError):  # not every kernel takes every limit, and the others still hold
            continue


def shield_worker() -> None:
    """Close this process's memory and environment to others of the same user, and adopt the orphans of its children.

    The first is PR_SET_DUMPABLE: /proc/<pid>/environ, /proc/<pid>/mem and ptrace are refused from then on. The second is
    PR_SET_CHILD_SUBREAPER: a daemon that a script forks stays findable as a descendant.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_DUMPABLE, 0)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def landlock_version() -> int:
    """Return the version of Landlock's interface, 0 where there is none."""
    if sys.platform != "linux":
        return 0
    version = _libc().syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION_FLAG)
    return max(0, int(version))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int, third: int = 0) -> bool:
    zero = ctypes.c_ulong(0)
    return int(_libc().prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(third), zero, zero)) == 0


def _drop_capabilities() -> bool:
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(_LAST_CAPABILITY + 1):
        _prctl(_PR_CAPBSET_DROP, capability)
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION_3, 0))
    nothing = ctypes.create_string_buffer(struct.pack("6I", 0, 0, 0, 0, 0, 0))
    try:
        return int(_libc().capset(header, nothing)) == 0
    except AttributeError:  # a C library that does not export it
        return False


def _restrict_files(readable: Iterable[str], writable: Iterable[str], *, network: bool) -> int:
    version = landlock_version()
    if version < 1:
        return 0
    # Rights by version: 13 with version 1, then REFER, TRUNCATE (3) and IOCTL_DEV (5).
    handled = (1 << (13 if version == 1 else 14 if version == 2 else 15 if version < 5 else 16)) - 1
    net = _TCP if version >= 4 and not network else 0
    attributes = struct.pack("QQQ", handled, net, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    libc = _libc()
    ruleset = libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return 0
    try:
        for path in (*SYSTEM_READABLE, *readable):
            _allow(libc, ruleset, path, _READ & handled)
        for path in _DEVICES:
            _allow(libc, ruleset, path, (_READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV) & handled)
        for path in _gpu_devices():
            _allow(libc, ruleset, path, (_READ_FILE | _WRITE_FILE | _IOCTL_DEV) & handled)
        for path in writable:
            _allow(libc, ruleset, path, handled & ~_IOCTL_DEV)
        if libc.syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
            return 0
    finally:
        os.close(ruleset)
    return version


def _gpu_devices() -> list[str]:
    return [f"/dev/{name}" for name in os.listdir("/dev") if name.startswith("nvidia")]  # noqa: PTH208 (pathlib would double the start-up time)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):  # noqa: PTH112 (as above)
            rights &= _ON_FILES
        libc.syscall(_SYS_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH, struct.pack("=Qi", rights, handle), 0)
    finally:
        os.close(handle)
