"""The registered manifest of a version, read back and checked."""

from __future__ import annotations

import json

from attestry.domain.errors import IntegrityError
from attestry.domain.manifest import Manifest
from attestry.domain.version import Version
from attestry.evidence.digests import sha256_hex
from attestry.ports import ObjectStore


def load_manifest(store: ObjectStore, version: Version) -> Manifest:
    """Return the manifest whose digest is the version's candidate.

    Raises:
        IntegrityError: the stored bytes have another digest.
        NotFoundError: the recorded S3 version is gone.
    """
    raw = store.read(version.manifest.key, version.manifest.version_id, max_bytes=version.manifest.size)
    if sha256_hex(raw) != version.candidate:
        raise IntegrityError(f"the manifest of {version.reference} is not the one that was registered")
    return Manifest.from_mapping(json.loads(raw))
