"""What the inference function needs to load a version: URLs that read exactly the recorded bytes, and nothing that grants more.

The inference function has no permissions; it checks the artifact manifest against the version digest and every file against the
artifact manifest, so a URL that leads elsewhere is refused there.
"""

from __future__ import annotations

from typing import Any

from attestry.domain.errors import ConflictError
from attestry.domain.version import Version
from attestry.ports import ObjectStore

URL_SECONDS = 15 * 60
NOT_SERVED = "not deployable here: no inference script and no locked environment came with it"
"""Why the built-in inference function does not serve an imported version."""


def load_request(store: ObjectStore, version: Version, *, deadline_seconds: int) -> dict[str, Any]:
    """Return the `load` part of an inference call.

    Args:
        store: the model store; presigning makes no call.
        version: a version whose TRAINING has ended.
        deadline_seconds: how long the call may take before it answers LOADING.

    Raises:
        ConflictError: the version has no frozen artifact yet, or was imported without what serving it would take.
    """
    if version.imported:
        raise ConflictError(f"{version.reference} is {NOT_SERVED}")
    if version.artifact is None or version.environment is None or version.environment.archive is None:
        raise ConflictError(f"{version.reference} has no frozen artifact yet")
    archive = version.environment.archive
    return {
        "artifact_manifest": {"url": store.presign_get(version.artifact.key, version.artifact.version_id, seconds=URL_SECONDS)},
        "files": [{"path": f.path, "url": store.presign_get(f.key, f.version_id, seconds=URL_SECONDS)} for f in version.frozen],
        "environment": {
            "url": store.presign_get(archive.key, archive.version_id, seconds=URL_SECONDS),
            "sha256": archive.sha256,
            "size": archive.size,
        },
        "entry_point": version.inference_script,
        "deadline_seconds": deadline_seconds,
    }
