"""Hash a downloaded `frozen/` folder against the artifact manifest: a mebibyte at a time, whatever the size of a file."""

from __future__ import annotations

import os
from pathlib import Path

from attestry.domain.errors import IntegrityError
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.digests import digest_stream

ARTIFACT_MANIFEST = "artifact-manifest.json"


def check_folder(artifact: ArtifactManifest, folder: Path) -> str:
    """Check that a folder holds exactly the files of a version.

    Args:
        artifact: the version's artifact manifest, verified.
        folder: the downloaded `frozen/`; it may also be the folder of the listed files alone, without the artifact manifest.

    Returns:
        How many bytes in how many files were hashed.

    Raises:
        IntegrityError: a file is missing, added, a link, or of other bytes.
    """
    listed = {f.path: (f.size, f.sha256) for f in artifact.files}
    raw = artifact.to_bytes()
    found = _files_below(folder)
    missing = sorted(listed.keys() - found.keys())
    if missing:
        raise IntegrityError(f"{missing[0]} is missing" + _more(missing))
    added = sorted(found.keys() - listed.keys() - {ARTIFACT_MANIFEST})
    if added:
        raise IntegrityError(f"{added[0]} is no file of the version" + _more(added))
    if ARTIFACT_MANIFEST in found:
        listed[ARTIFACT_MANIFEST] = (len(raw), artifact.version_digest)
    for path, expected in sorted(listed.items()):
        with found[path].open("rb") as stream:
            actual = digest_stream(stream)
        if (actual.size, actual.sha256) != expected:
            raise IntegrityError(f"{path} has SHA-256 {actual.sha256}, {actual.size} bytes; the version's has {expected[1]}, {expected[0]}")
    return f"{sum(size for size, _ in listed.values())} bytes in {len(listed)} files hashed"


def _files_below(folder: Path) -> dict[str, Path]:
    """Return the files below a folder by their paths in it, with `/` between the parts."""
    found: dict[str, Path] = {}
    for base, folders, names in os.walk(folder):
        for name in (*folders, *names):
            place = Path(base, name)
            path = place.relative_to(folder).as_posix()
            if place.is_symlink():
                raise IntegrityError(f"{path} is a link")
            if name in names:
                if not place.is_file():
                    raise IntegrityError(f"{path} is no file")
                found[path] = place
    return found


def _more(paths: list[str]) -> str:
    return f", and {len(paths) - 1} more" if len(paths) > 1 else ""
