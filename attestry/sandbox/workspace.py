"""Folders of one worker process on a disk that it may share with others.

On Lambda a worker has its machine's /tmp to itself; on a developer's machine many workers share one. Each therefore works in a folder of
its own and holds a lock on it; folders whose lock is free belong to workers that died, and are removed.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

from attestry.sandbox.unpack import remove_tree

_LOCK = "worker.lock"


class Workspace:
    """A folder that only this process uses, until it ends.

    Args:
        parent: where to make it; default a folder of this user below the temporary directory.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent or _own_parent()
        remove_dead_workers(self._parent)
        self.root = Path(tempfile.mkdtemp(prefix="worker-", dir=self._parent))
        self._lock = os.open(self.root / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def folder(self, name: str) -> Path:
        """Return an empty folder's path: whatever was there is removed, and nothing is made."""
        path = self.root / name
        remove_tree(path)
        return path

    def shared(self, name: str) -> Path:
        """Return the path of a folder beside the workers' own, which all of them use."""
        return self._parent / name

    def close(self) -> None:
        """Remove everything of this process's own."""
        remove_tree(self.root)
        os.close(self._lock)


def has_machine_of_its_own() -> bool:
    """Return whether this is a Lambda function on AWS, where /tmp and all processes belong to one function alone."""
    return os.environ.get("LAMBDA_TASK_ROOT") == "/var/task" and "AWS_LAMBDA_RUNTIME_API" in os.environ


def remove_foreign_entries(temporary: Path, keep: Path) -> list[str]:
    """Remove everything in a temporary directory that is not on the way to `keep`; return the names that were there."""
    found = []
    for entry in sorted(temporary.iterdir()):
        if entry != keep and entry not in keep.parents:
            found.append(entry.name)
            remove_tree(entry)
    return found


def _own_parent() -> Path:
    path = Path(tempfile.gettempdir()) / f"attestry-{os.getuid()}"
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        status = path.lstat()
        # Somebody else may have put a folder or a link there first; whoever owns it could swap what lies in it.
        if path.is_symlink() or not path.is_dir() or status.st_uid != os.getuid() or status.st_mode & 0o022:
            return Path(tempfile.mkdtemp(prefix="attestry-"))
    return path


def remove_dead_workers(parent: Path | None = None) -> None:
    """Remove the folders of workers that ended; every new worker does so, and whoever stops the last one may."""
    parent = parent or _own_parent()
    for lock in parent.glob(f"worker-*/{_LOCK}"):
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(lock.parent)
        except OSError:
            continue
        finally:
            os.close(handle)
