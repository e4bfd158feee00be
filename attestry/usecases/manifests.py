"""The manifest of a version, read back and checked: as it was registered, and with the data that the version is really made of."""

from __future__ import annotations

import json
from typing import Any

from attestry.domain.cause import with_inputs
from attestry.domain.errors import IntegrityError
from attestry.domain.manifest import Manifest
from attestry.domain.version import Version
from attestry.evidence.digests import sha256_hex
from attestry.ports import ObjectStore


def load_manifest(store: ObjectStore, version: Version) -> Manifest:
    """Return the manifest that the version is made by: the registered one, naming the data that a refresh was made of.

    Raises:
        IntegrityError: the stored bytes have another digest.
        NotFoundError: the recorded S3 version is gone.
        ConflictError: the version was imported, and has no manifest.
    """
    return with_inputs(load_registered_manifest(store, version), version.cause)


def load_registered_manifest(store: ObjectStore, version: Version) -> Manifest:
    """Return the manifest whose digest is the version's candidate.

    Raises:
        IntegrityError: the stored bytes have another digest.
        NotFoundError: the recorded S3 version is gone.
        ConflictError: the version was imported, and has no manifest.
    """
    return Manifest.from_mapping(load_registered_mapping(store, version))


def load_registered_mapping(store: ObjectStore, version: Version) -> dict[str, Any]:
    """Return the content of the registered manifest as it was written, without defaults; raises as `load_registered_manifest`."""
    version.require_made_here()
    raw = store.read(version.manifest.key, version.manifest.version_id, max_bytes=version.manifest.size)
    if sha256_hex(raw) != version.candidate:
        raise IntegrityError(f"the manifest of {version.reference} is not the one that was registered")
    mapping: dict[str, Any] = json.loads(raw)
    return mapping
