"""The source archive of a submission: is it what the manifest says, and is everything in it that the manifest names?"""

from __future__ import annotations

import io
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from attestry.domain.archive import inspect_archive, read_archive_file
from attestry.domain.environments import Requirement, read_lock
from attestry.domain.errors import InvalidInputError, NotFoundError, Problem
from attestry.domain.manifest import Component, Manifest
from attestry.domain.manifest_schema import suggest
from attestry.domain.version import FileRef
from attestry.evidence.digests import sha256_hex
from attestry.ports import ObjectStore

MAX_ARCHIVE_BYTES = 64 * 1024 * 1024
MAX_LOCK_BYTES = 4 * 1024 * 1024
MAX_DIFF_BYTES = 16 * 1024 * 1024
DIFF_NAME = "source.diff"

_FRAMEWORKS = ("catboost", "jax", "keras", "lightgbm", "scikit-learn", "statsmodels", "tensorflow", "torch", "xgboost")
_PACKAGES = {**{name: name for name in _FRAMEWORKS}, "sklearn": "scikit-learn"}
"""What a well-known framework is imported as, or called, to its package."""


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
    """Refuse a framework that the lock file does not install, and an algorithm of a package that it does not install, or not so.

    An algorithm that comes from no package that is known here, such as code of the archive or the method's name, is taken as it is said.
    """
    environment = manifest.environment
    versions: dict[str, set[str]] = {}
    for requirement in pinned:
        versions.setdefault(_normal(requirement.name), set()).add(requirement.version)
    problems = list(_unlike(versions, environment.framework, _normal(environment.framework.name), "environment.framework"))
    package = _package_of(environment.algorithm.name, versions)
    if package:
        problems += _unlike(versions, environment.algorithm, package, "environment.algorithm")
    if problems:
        raise InvalidInputError(problems)


def _unlike(versions: Mapping[str, set[str]], stated: Component, package: str, field: str) -> Iterator[Problem]:
    """Yield how a component differs from what the lock file installs."""
    if package not in versions:
        hint = suggest(package, sorted(versions))
        message = f"{stated.name} comes from the package {package}, which the lock file does not install{hint or '; pin it there'}"
        if _normal(stated.name) == package:
            message = f"the lock file installs no package {stated.name}{hint or '; name one that it pins, as it is written there'}"
        yield Problem(f"{field}.name", "framework_in_lock", message)
    elif stated.version not in versions[package]:
        found = " or ".join(sorted(versions[package]))
        yield Problem(
            f"{field}.version", "in_lock_file", f"the lock file installs {package} {found}, but the manifest says {stated.version}"
        )


def _package_of(algorithm: str, pinned: Container[str]) -> str | None:
    """Return the package that an algorithm such as `xgboost.XGBClassifier` comes from, or None where that cannot be told."""
    module = algorithm.partition(".")[0]
    package = _PACKAGES.get(module.lower(), _normal(module))
    return package if package in pinned or module.lower() in _PACKAGES else None


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
