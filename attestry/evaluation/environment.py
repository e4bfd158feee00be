"""The registry's own packages for evaluation: scikit-learn, numpy and pyarrow, from an archive built like every other environment.

The lock file is that of the examples, so that who begins with one of them waits for one environment to be built and not for two.

They are too large for a function's own archive. The archive is checked against its recorded digest, unpacked once for each process (or
shared with others of this machine: `attestry.sandbox.shelf`), and put first on the import path, before anything of it is imported.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attestry.domain.environments import environment_id
from attestry.domain.errors import IntegrityError, NotFoundError, StageFailedError, UnavailableError
from attestry.ports import ObjectStore
from attestry.sandbox.errors import UnsafeArchiveError
from attestry.sandbox.shelf import Shelf, is_possible
from attestry.sandbox.unpack import Inventory, unpack_zip
from attestry.sandbox.workspace import Workspace

LOCK = Path(__file__).with_name("requirements.lock")
_CHUNK = 1 << 20
_MAX_DESCRIPTION_BYTES = 1 << 20


def evaluation_lock() -> bytes:
    """Return the lock file of the registry's own evaluation environment."""
    return LOCK.read_bytes()


def own_environment(store: ObjectStore, python: str, platform: str) -> Mapping[str, Any]:
    """Return `id` and `archive_sha256` of this environment, as its builder described it.

    Args:
        store: the model store.
        python: version without the patch.
        platform: what this process runs on.

    Raises:
        UnavailableError: it was not built yet.
    """
    identity = environment_id(hashlib.sha256(evaluation_lock()).hexdigest(), python, platform)
    try:
        described: dict[str, Any] = json.loads(store.read(f"environments/{identity}/environment.json", max_bytes=_MAX_DESCRIPTION_BYTES))
    except NotFoundError as error:
        raise UnavailableError(
            "the environment that statistics are computed in is not built yet; it is built with the first version that is trained here"
        ) from error
    return {"id": identity, "archive_sha256": str(described["archive_sha256"])}


class EvaluationEnvironment:
    """At most one unpacked environment in this process."""

    def __init__(self, workspace: Workspace | None = None) -> None:
        self._workspace = workspace
        self._active: str | None = None

    def activate(self, store: ObjectStore, identity: str, archive_sha256: str) -> None:
        """Make the packages of an environment importable; again is free.

        Args:
            store: holds `environments/<identity>/environment.zip`.
            identity: the environment's ID.
            archive_sha256: recorded digest of the archive, hex.

        Raises:
            IntegrityError: the archive is not the recorded one.
            UnavailableError: this process has another environment already, whose modules cannot be taken back.
        """
        if self._active == archive_sha256:
            return
        if self._active is not None:
            raise UnavailableError("this process evaluates with another environment; it has to be started anew")
        self._workspace = self._workspace or Workspace()

        def unpack(folder: Path) -> Inventory:
            return _fetch_and_unpack(store, identity, archive_sha256, folder)

        try:
            shared = Shelf(self._workspace.shared("environments")).take(archive_sha256, unpack) if is_possible() else None
            folder = shared.folder if shared else self._workspace.folder("evaluation")
            if shared is None:
                unpack(folder)
        except UnsafeArchiveError as error:
            raise StageFailedError(f"the evaluation environment cannot be unpacked: {error}") from error
        sys.path.insert(0, str(folder))
        self._active = archive_sha256


def _fetch_and_unpack(store: ObjectStore, identity: str, archive_sha256: str, folder: Path) -> Inventory:
    archive = folder.with_name(f"{folder.name}.zip")
    try:
        digest = hashlib.sha256()
        with store.open(f"environments/{identity}/environment.zip") as source, archive.open("wb") as target:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
        if digest.hexdigest() != archive_sha256:
            raise IntegrityError(f"environments/{identity}/environment.zip has SHA-256 {digest.hexdigest()}, recorded was {archive_sha256}")
        return unpack_zip(archive, folder)
    finally:
        archive.unlink(missing_ok=True)
