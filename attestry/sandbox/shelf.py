"""Unpacked environments that the workers of one machine share.

On Lambda every worker has a machine of its own, and nothing is shared. On a laptop dozens of workers would each fetch and unpack the same
half gigabyte. Here the first one unpacks an archive, and the others use what it unpacked.

Rules:
- An environment is shared only where the kernel keeps registered code from writing to it (`is_possible`: Landlock, from the version that
  knows truncation). Elsewhere each worker has its own.
- Beside the folder stands the inventory of what was unpacked, written last. Whoever takes an environment reads every file and compares.
- A lock for each environment: held alone while it is unpacked or removed, and shared by everybody who uses it, for as long as they do. A
  process that dies lets go of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attestry.sandbox import confine
from attestry.sandbox.unpack import Inventory, differs_from_inventory, remove_tree
from attestry.sandbox.workspace import has_machine_of_its_own

__all__ = ["Held", "Shelf", "is_possible"]

KEPT = 4
"""So many environments stay when nobody uses them."""

_TRUNCATE_SINCE = 3
_TRIES = 100
_PAUSE_SECONDS = 0.05


def is_possible() -> bool:
    """Return whether workers share this machine, and registered code can change nothing that it may read."""
    return not has_machine_of_its_own() and confine.landlock_version() >= _TRUNCATE_SINCE


@dataclass(frozen=True)
class Held:
    """An environment that stays as long as it is held.

    Attributes:
        folder: its packages.
        inventory: digest of each file.
        lock: descriptor of the shared lock.
    """

    folder: Path
    inventory: Inventory
    lock: int

    def release(self) -> None:
        """Let it go."""
        os.close(self.lock)


class Shelf:
    """The shared environments below a folder.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder

    def take(self, sha256: str, unpack: Callable[[Path], Inventory]) -> Held | None:
        """Return the environment of an archive, unpacked if it is not there, and as it was unpacked.

        Args:
            sha256: the archive's digest.
            unpack: unpacks the archive into a folder that is not there.

        Returns:
            What the caller has to release; None where what is there is not what was unpacked and somebody is using it.

        Raises:
            FetchError, UnsafeArchiveError: `unpack` raised them.
        """
        folder, lock = self._folder / f"environment-{sha256}", self._open_lock(sha256)
        try:
            for _ in range(_TRIES):
                fcntl.flock(lock, fcntl.LOCK_SH)  # waits while it is being unpacked
                inventory = self._intact(sha256, folder)
                if inventory is not None:
                    os.utime(lock)
                    self._prune(sha256)
                    held, lock = Held(folder, inventory, lock), -1
                    return held
                if _alone(lock):
                    self._unpack(sha256, folder, unpack)
                elif folder.is_dir() and self._inventory_of(sha256).exists():
                    return None
                else:
                    fcntl.flock(lock, fcntl.LOCK_UN)
                    time.sleep(_PAUSE_SECONDS)
            return None
        finally:
            if lock >= 0:
                os.close(lock)

    def _unpack(self, sha256: str, folder: Path, unpack: Callable[[Path], Inventory]) -> None:
        """Unpack, where nobody else can look; the inventory comes last, so half an environment has none."""
        described = self._inventory_of(sha256)
        if self._intact(sha256, folder) is not None:
            return  # somebody else was a moment earlier
        described.unlink(missing_ok=True)
        remove_tree(folder)
        inventory = unpack(folder)
        written = described.with_suffix(".tmp")
        written.write_text(json.dumps(inventory), encoding="utf-8")
        written.replace(described)

    def _intact(self, sha256: str, folder: Path) -> Inventory | None:
        try:
            inventory: Inventory = json.loads(self._inventory_of(sha256).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return inventory if folder.is_dir() and differs_from_inventory(folder, inventory) is None else None

    def _prune(self, keep: str) -> None:
        """Remove what was taken longest ago and is held by nobody."""
        locks = sorted(self._folder.glob("*.lock"), key=lambda path: path.stat().st_mtime, reverse=True)
        there = [path.stem for path in locks if self._inventory_of(path.stem).exists()]
        for sha256 in there[KEPT:]:
            if sha256 == keep:
                continue
            lock = self._open_lock(sha256)
            try:
                if _alone(lock):
                    self._inventory_of(sha256).unlink(missing_ok=True)
                    remove_tree(self._folder / f"environment-{sha256}")
            finally:
                os.close(lock)

    def _open_lock(self, sha256: str) -> int:
        return os.open(self._folder / f"{sha256}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def _inventory_of(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.json"


def _alone(lock: int) -> bool:
    """Take the lock alone if nobody else holds it."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
