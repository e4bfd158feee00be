"""Unpacked package environments, kept between jobs as long as they are provably what the archive held."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from attestry.sandbox.errors import UnsafeArchiveError
from attestry.sandbox.fetch import fetch_file
from attestry.sandbox.job import Input
from attestry.sandbox.shelf import Held, Shelf, is_possible
from attestry.sandbox.unpack import Inventory, differs_from_inventory, remove_tree, unpack_zip
from attestry.sandbox.workspace import Workspace

KEPT = 2


class EnvironmentCache:
    """Environments by the digest of their archive.

    A script may run as the same user as this process and could change files of an environment that the next script imports.
    So the digest of every file stays in this process's memory, and all files are read and compared before an environment is
    used again; one that differs in anything is removed and unpacked anew. This holds only if no script is running by then that
    could write to it: the caller ends them first, or runs them under Landlock.

    Where workers share a machine and Landlock is there, they share what one of them has unpacked (`attestry.sandbox.shelf`).

    Args:
        workspace: the worker's folders.
        alone: whether the worker shares nothing, although it might.
    """

    def __init__(self, workspace: Workspace, *, alone: bool = False) -> None:
        self._workspace = workspace
        self._inventories: dict[str, Inventory] = {}
        self._shelf = Shelf(workspace.shared("environments")) if is_possible() and not alone else None
        self._held: dict[str, Held] = {}

    def get(self, archive: Input, *, in_use: Collection[str] = ()) -> Path:
        """Return the folder of an environment, fetching and unpacking its archive if need be.

        Args:
            archive: the environment's archive.
            in_use: digests of archives whose folders have to stay.

        Raises:
            FetchError: the archive cannot be read, or is not the one named.
            UnsafeArchiveError: the archive breaks a rule.
        """
        folder = self._from_shelf(archive) or self._own(archive)
        for oldest in _beyond(self._inventories, {*in_use, archive.sha256}):
            del self._inventories[oldest]
            self._workspace.folder(f"environment-{oldest}")
        for oldest in _beyond(self._held, {*in_use, archive.sha256}):
            self._held.pop(oldest).release()
        return folder

    def _from_shelf(self, archive: Input) -> Path | None:
        """Return the shared folder; None where nothing is shared, or what is shared is not what was unpacked any more."""
        if self._shelf is None or archive.sha256 in self._inventories:
            return None
        held = self._held.pop(archive.sha256, None)
        if held is not None and differs_from_inventory(held.folder, held.inventory):
            held.release()
            held = None
        held = held or self._shelf.take(archive.sha256, lambda folder: _unpack(archive, folder))
        if held is None:
            return None
        self._held[archive.sha256] = held
        return held.folder

    def _own(self, archive: Input) -> Path:
        name = f"environment-{archive.sha256}"
        folder = self._workspace.root / name
        inventory = self._inventories.pop(archive.sha256, None)
        if inventory is None or not folder.is_dir() or differs_from_inventory(folder, inventory):
            inventory = _unpack(archive, self._workspace.folder(name))
        self._inventories[archive.sha256] = inventory
        return folder


def _beyond(kept: Collection[str], needed: Collection[str]) -> list[str]:
    """Return the oldest of the kept that are not needed and more than are kept."""
    return [sha256 for sha256 in kept if sha256 not in needed][: max(0, len(kept) - KEPT)]


def _unpack(archive: Input, folder: Path) -> Inventory:
    download = folder.with_name(f"{folder.name}.zip")
    remove_tree(download)
    try:
        fetch_file(archive, download)
        return unpack_zip(download, folder)
    except UnsafeArchiveError as error:
        remove_tree(folder)
        raise UnsafeArchiveError(f"environment: {error}") from error
    finally:
        remove_tree(download)
