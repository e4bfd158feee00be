"""Unpacked package environments, kept between jobs as long as they are provably what the archive held."""

from __future__ import annotations

from pathlib import Path

from attestry.sandbox.errors import UnsafeArchiveError
from attestry.sandbox.fetch import fetch_file
from attestry.sandbox.job import Input
from attestry.sandbox.unpack import Inventory, differs_from_inventory, remove_tree, unpack_zip
from attestry.sandbox.workspace import Workspace

KEPT = 2


class EnvironmentCache:
    """Environments by the digest of their archive.

    A script may run as the same user as this process and could change files of an environment that the next script imports.
    So the digest of every file stays in this process's memory, and all files are read and compared before an environment is
    used again; one that differs in anything is removed and unpacked anew. This holds only if no script is running by then:
    the caller ends them first.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._inventories: dict[str, Inventory] = {}

    def get(self, archive: Input) -> Path:
        """Return the folder of an environment, fetching and unpacking its archive if need be.

        Raises:
            FetchError: the archive cannot be read, or is not the one named.
            UnsafeArchiveError: the archive breaks a rule.
        """
        name = f"environment-{archive.sha256}"
        folder = self._workspace.root / name
        inventory = self._inventories.pop(archive.sha256, None)
        if inventory is None or not folder.is_dir() or differs_from_inventory(folder, inventory):
            inventory = unpack_environment(archive, self._workspace.folder(name))
        self._inventories[archive.sha256] = inventory
        for oldest in list(self._inventories)[:-KEPT]:
            del self._inventories[oldest]
            self._workspace.folder(f"environment-{oldest}")
        return folder


def unpack_environment(archive: Input, folder: Path) -> Inventory:
    """Fetch an environment's archive and unpack it into a new folder.

    Raises:
        FetchError: the archive cannot be read, or is not the one named.
        UnsafeArchiveError: the archive breaks a rule.
    """
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
