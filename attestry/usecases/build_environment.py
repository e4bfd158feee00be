"""Build an environment: from a lock file to an archive that is written once, and read by every stage of every version that names it.

Rules:

- The ID names lock file, Python and platform; this builder makes only what its own interpreter can use.
- The first archive that is stored stands. The description is computed from the stored archive, so two builders that finish at once, or
  one that was cut off and tried again, write the same description.
- Registered code does not run here: wheels only, every file by its hash, options in the lock file refused.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from attestry.domain.environments import MAX_LOCK_BYTES, Requirement, environment_id, read_lock
from attestry.domain.errors import IntegrityError, InvalidInputError, StageFailedError, UnavailableError
from attestry.ports import ObjectStore, StoredObject
from attestry.sandbox.archive_environment import InstallError, compile_modules, install_packages, list_packages, write_archive

MAX_DESCRIPTION_BYTES = 1024 * 1024
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Platform:
    """What environments are built for: Python version without the patch, and platform, as in the environment's ID."""

    python: str
    name: str


class EnvironmentBuilder:
    """Builds environments into the store."""

    def __init__(self, store: ObjectStore, platform: Platform, *, seconds: float) -> None:
        """Prepare.

        Args:
            store: the model store; only `environments/` is touched.
            platform: what this process runs on.
            seconds: time limit of one installation.
        """
        self._store = store
        self._platform = platform
        self._seconds = seconds

    def build_all(self, wanted: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """Build what is not there yet, two at a time, and return the descriptions in order; see `build`.

        Args:
            wanted: each `{"id", "lock_sha256"}`.
        """
        unique = {item["id"]: item["lock_sha256"] for item in wanted}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            built = dict(zip(unique, pool.map(lambda item: self.build(*item), unique.items()), strict=True))
        return [built[item["id"]] for item in wanted]

    def build(self, identity: str, lock_sha256: str) -> dict[str, Any]:
        """Build one environment unless it is there, and return its description.

        Returns:
            `{"id", "lock_sha256", "archive_sha256", "size", "python", "platform", "packages": [{"name", "version"}], "key", "version_id"}`.

        Raises:
            InvalidInputError: the ID is not that of this lock file on this platform, or the lock file breaks a rule.
            IntegrityError: the stored lock file is another.
            StageFailedError: the packages cannot be installed.
        """
        if environment_id(lock_sha256, self._platform.python, self._platform.name) != identity:
            message = f"{identity} is not the ID of this lock file on Python {self._platform.python}, {self._platform.name}"
            raise InvalidInputError.of("environment.id", "derived", message)
        if (known := self._described(identity)) is not None:
            return known
        prefix = f"environments/{identity}/"
        lock = self._store.read(f"{prefix}requirements.lock", max_bytes=MAX_LOCK_BYTES)
        if hashlib.sha256(lock).hexdigest() != lock_sha256:
            raise IntegrityError(f"{prefix}requirements.lock is not the lock file that was registered")
        requirements = read_lock(lock)
        description = None
        if self._store.stat(f"{prefix}environment.zip") is None:
            description = self._install(requirements, identity, lock_sha256)
        description = description or self._describe(identity, lock_sha256)
        body = json.dumps(description, sort_keys=True, indent=1).encode()
        self._store.put_new(f"{prefix}environment.json", body, content_type="application/json", retain=True)
        return description

    def _described(self, identity: str) -> dict[str, Any] | None:
        key = f"environments/{identity}/environment.json"
        if self._store.stat(key) is None:
            return None
        description: dict[str, Any] = json.loads(self._store.read(key, max_bytes=MAX_DESCRIPTION_BYTES))
        return description

    def _install(self, requirements: Sequence[Requirement], identity: str, lock_sha256: str) -> dict[str, Any] | None:
        """Make and store the archive and return its description; None where another builder was first, whose archive stands."""
        with tempfile.TemporaryDirectory(prefix="attestry-build-") as temporary:
            folder, lock, archive = Path(temporary, "packages"), Path(temporary, "requirements.txt"), Path(temporary, "environment.zip")
            # Written anew from what was understood, so that nothing that was overlooked in the file reaches pip.
            lock.write_text("".join(f"{requirement.to_text()}\n" for requirement in requirements), encoding="utf-8")
            try:
                install_packages(lock, folder, seconds=self._seconds)
            except InstallError as error:
                raise StageFailedError(f"the environment cannot be built: {error}") from error
            compile_modules(folder)
            write_archive(folder, archive)
            with archive.open("rb") as body:
                try:
                    stored = self._store.put_new(
                        f"environments/{identity}/environment.zip", body, content_type="application/zip", retain=True
                    )
                except IntegrityError:
                    return None
                return _description(identity, lock_sha256, self._platform, stored, stored.sha256, list_packages(body))

    def _describe(self, identity: str, lock_sha256: str) -> dict[str, Any]:
        stored = self._store.stat(f"environments/{identity}/environment.zip")
        if stored is None:
            raise UnavailableError(f"the archive of environment {identity} is not there although it was written")
        with tempfile.TemporaryFile(prefix="attestry-archive-") as archive:
            with self._store.open(stored.key, stored.version_id) as source:
                digest = _copy(source, archive)
            packages = list_packages(archive)
        return _description(identity, lock_sha256, self._platform, stored, digest, packages)


def _description(
    identity: str, lock_sha256: str, platform: Platform, stored: StoredObject, archive_sha256: str, packages: list[dict[str, str]]
) -> dict[str, Any]:
    return {
        "id": identity,
        "lock_sha256": lock_sha256,
        "archive_sha256": archive_sha256,
        "size": stored.size,
        "python": platform.python,
        "platform": platform.name,
        "packages": packages,
        "key": stored.key,
        "version_id": stored.version_id,
    }


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        target.write(chunk)
    target.seek(0)
    return digest.hexdigest()
