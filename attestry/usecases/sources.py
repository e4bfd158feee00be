"""The source archive of a submission: is it what the manifest says, and is everything in it that the manifest names?"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from attestry.domain.archive import inspect_archive, read_archive_file
from attestry.domain.environments import Requirement, read_lock
from attestry.domain.errors import InvalidInputError, NotFoundError, Problem
from attestry.domain.manifest import Manifest
from attestry.domain.version import FileRef
from attestry.evidence.digests import sha256_hex
from attestry.ports import ObjectStore

MAX_ARCHIVE_BYTES = 64 * 1024 * 1024
MAX_LOCK_BYTES = 4 * 1024 * 1024
MAX_DIFF_BYTES = 16 * 1024 * 1024
DIFF_NAME = "source.diff"


@dataclass(frozen=True)
class SourceFiles:
    """Where manifest, source archive, lock file and, of a dirty tree, the difference to the revision are kept."""

    manifest: FileRef
    archive: FileRef
    lock: FileRef
    diff: FileRef | None = None


@dataclass(frozen=True)
class CheckedSource:
    """An archive that has passed.

    Attributes:
        archive_version: S3 version of the archive that was read.
        lock: bytes of the lock file.
    """

    archive_version: str
    lock: bytes


def check_source(store: ObjectStore, folder: str, manifest: Manifest) -> CheckedSource:
    """Read the archive once and check digest, entries and the files that the manifest names.

    Args:
        store: the model store.
        folder: the upload folder, with a slash at the end.
        manifest: the manifest.

    Raises:
        InvalidInputError: with every problem.
    """
    key = folder + manifest.source.archive
    found = store.stat(key)
    if found is None:
        raise InvalidInputError.of(
            "source.archive", "present", f"{manifest.source.archive} is not in the upload folder; upload it before the manifest"
        )
    raw = store.read(key, found.version_id, max_bytes=MAX_ARCHIVE_BYTES)
    actual = sha256_hex(raw)
    if actual != manifest.source.sha256:
        raise InvalidInputError.of(
            "source.sha256", "digest", f"{manifest.source.archive} has SHA-256 {actual}; the manifest says {manifest.source.sha256}"
        )
    paths = {entry.path for entry in inspect_archive(io.BytesIO(raw), field="source.archive")}
    problems = [
        Problem(field, "in_archive", f"{path} is not in {manifest.source.archive}")
        for field, path in manifest.scripts.items()
        if path not in paths
    ]
    if problems:
        raise InvalidInputError(problems)
    return CheckedSource(found.version_id, _lock_of(raw, manifest))


def _lock_of(raw: bytes, manifest: Manifest) -> bytes:
    if manifest.environment.lock_file is None:
        raise InvalidInputError.of("environment.lock_file", "required", "stages on the executor 'lambda' need a lock file with hashes")
    lock = (
        read_archive_file(io.BytesIO(raw), manifest.environment.lock_file, max_bytes=MAX_LOCK_BYTES, field="environment.lock_file") or b""
    )
    _check_framework(read_lock(lock, field="environment.lock_file"), manifest)
    return lock


def _check_framework(pinned: Sequence[Requirement], manifest: Manifest) -> None:
    """Refuse a framework whose version is not the one that the lock file installs; one that is no package is taken as it is said."""
    framework = manifest.environment.framework
    versions = {r.version for r in pinned if _normal(r.name) == _normal(framework.name)}
    if versions and framework.version not in versions:
        found = " or ".join(sorted(versions))
        message = f"the lock file installs {framework.name} {found}, but the manifest says {framework.version}"
        raise InvalidInputError.of("environment.framework.version", "in_lock_file", message)


def _normal(name: str) -> str:
    """Return a package name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_diff(store: ObjectStore, folder: str, manifest: Manifest) -> bytes | None:
    """Return the difference between the archive and the revision, of a source that was submitted with uncommitted changes.

    Raises:
        InvalidInputError: it is not in the upload folder, or not what the manifest says.
    """
    if manifest.source.dirty is None:
        return None
    try:
        raw = store.read(folder + DIFF_NAME, max_bytes=MAX_DIFF_BYTES)
    except NotFoundError as error:
        raise InvalidInputError.of("source.dirty.diff_sha256", "present", f"{DIFF_NAME} is not in the upload folder") from error
    if sha256_hex(raw) != manifest.source.dirty.diff_sha256:
        raise InvalidInputError.of("source.dirty.diff_sha256", "digest", f"{DIFF_NAME} has SHA-256 {sha256_hex(raw)}")
    return raw
