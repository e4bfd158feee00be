"""The registry's own packages for evaluation: scikit-learn, numpy and pyarrow, from an archive built like every other environment.

The lock file is that of the examples, so that who begins with one of them waits for one environment to be built and not for two.

They are too large for a function's own archive. The archive is checked against its recorded digest, unpacked once for each process, and
put first on the import path, before anything of it is imported.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from attestry.domain.errors import IntegrityError, StageFailedError, UnavailableError
from attestry.ports import ObjectStore
from attestry.sandbox.errors import UnsafeArchiveError
from attestry.sandbox.unpack import unpack_zip
from attestry.sandbox.workspace import Workspace

LOCK = Path(__file__).with_name("requirements.lock")
_CHUNK = 1 << 20


def evaluation_lock() -> bytes:
    """Return the lock file of the registry's own evaluation environment."""
    return LOCK.read_bytes()


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
        archive = self._workspace.root / "evaluation.zip"
        folder = self._workspace.folder("evaluation")
        try:
            digest = hashlib.sha256()
            with store.open(f"environments/{identity}/environment.zip") as source, archive.open("wb") as target:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    target.write(chunk)
            if digest.hexdigest() != archive_sha256:
                raise IntegrityError(
                    f"environments/{identity}/environment.zip has SHA-256 {digest.hexdigest()}, recorded was {archive_sha256}"
                )
            unpack_zip(archive, folder)
        except UnsafeArchiveError as error:
            raise StageFailedError(f"the evaluation environment cannot be unpacked: {error}") from error
        finally:
            archive.unlink(missing_ok=True)
        sys.path.insert(0, str(folder))
        self._active = archive_sha256
