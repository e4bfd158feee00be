"""The copy of the artifact manifest in the table: who traces has it with the version's other rows, and need not ask the store for it.

VERSION#<model>#<number>/ARTIFACT     data (the bytes)

Rules:
- It is believed for its digest alone, which has to be the version digest. That the object itself lies in the store, on top and in its
  recorded S3 version, is what the listing of `frozen/` shows.
- A document above `MAX_COPY_BYTES` has no copy, and a version without one is read from the store.
"""

from __future__ import annotations

from typing import Any, Final

from attestry.domain.errors import IntegrityError, NotFoundError
from attestry.domain.version import Version
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.digests import sha256_hex
from attestry.ports import Item, Key, ObjectStore, Put

MAX_ARTIFACT_MANIFEST_BYTES: Final = 4 * 1024 * 1024
MAX_COPY_BYTES: Final = 64 * 1024
"""A quarter of what DynamoDB gives of a partition in one answer would be gone with four times as much."""

SORT: Final = "ARTIFACT"


def artifact_key(model: str, number: int) -> Key:
    """Return the key of the copy."""
    return Key(f"VERSION#{model}#{number}", SORT)


def copy_puts(model: str, number: int, data: bytes) -> list[Put]:
    """Return the write that keeps a copy; none where the document is too large for one."""
    return [Put(artifact_key(model, number), {"data": data})] if len(data) <= MAX_COPY_BYTES else []


def copy_among(rows: list[Item]) -> bytes | None:
    """Return the copy among the rows of a version, or None."""
    data: Any = next((row.get("data") for row in rows if row["sk"] == SORT), None)
    return data if isinstance(data, bytes) else None


def load_artifact(store: ObjectStore, version: Version, copy: bytes | None = None) -> tuple[ArtifactManifest, bytes]:
    """Return the artifact manifest of a version with its bytes, from the copy where one is given, else from the store.

    Raises:
        NotFoundError: the version has none, or the store has it no more.
        IntegrityError: it has another digest than the version.
    """
    artifact = version.artifact
    if artifact is None:
        raise NotFoundError(f"{version.reference} has no artifact manifest")
    data = copy if copy is not None else store.read(artifact.key, artifact.version_id, max_bytes=MAX_ARTIFACT_MANIFEST_BYTES)
    if sha256_hex(data) != version.version_digest:
        raise IntegrityError("the artifact manifest has another digest than the version")
    return ArtifactManifest.from_bytes(data), data
