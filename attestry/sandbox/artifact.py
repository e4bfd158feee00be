"""What the artifact manifest says must be loaded: read strictly enough to check files by it, without knowing the registry.

The caller's word counts for nothing but the version digest: which files there are, how large they are and what they hash to, and which
environment archive belongs to them, comes from the document whose SHA-256 is that digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestry.sandbox.errors import BadJobError, TamperedFileError, UnsafeArchiveError
from attestry.sandbox.job import Input
from attestry.sandbox.paths import check_distinct, check_relative_path

MAX_MANIFEST_BYTES = 4 << 20
SOURCE = "source.tar.gz"
MANIFEST = "manifest.json"
MODEL = "model/"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Frozen:
    """What a version is made of, as far as serving needs it.

    Attributes:
        files: path to size in bytes and SHA-256 in hex.
        environment_sha256: digest of the environment's archive, hex.
    """

    files: Mapping[str, tuple[int, str]]
    environment_sha256: str

    def input(self, path: str, url: str) -> Input:
        """Return a frozen file as something to fetch, checked by this document.

        Raises:
            TamperedFileError: the document does not list it.
        """
        if path not in self.files:
            raise TamperedFileError(f"{path} is not a file of this version")
        size, sha256 = self.files[path]
        return Input(path, url, size, sha256)


def read_artifact_manifest(document: bytes, version_digest: str) -> Frozen:
    """Return what an artifact manifest says.

    Raises:
        TamperedFileError: its SHA-256 is not the version digest.
        BadJobError: it has not the form of an artifact manifest.
    """
    digest = hashlib.sha256(document).hexdigest()
    if digest != version_digest:
        raise TamperedFileError(f"artifact-manifest.json has SHA-256 {digest}, the version digest is {version_digest}")
    try:
        body = json.loads(document)
        files = {check_relative_path(f["path"]): (_size(f["size"]), _sha256(f["sha256"])) for f in body["files"]}
        check_distinct(files)
        return Frozen(files, _sha256(body["environment"]["archive_sha256"]))
    except (ValueError, KeyError, TypeError, UnsafeArchiveError) as error:
        raise BadJobError(f"artifact-manifest.json is not an artifact manifest: {error}") from error


def check_entry_point(manifest: Path, entry_point: str) -> None:
    """Check that the frozen manifest names this inference script.

    Raises:
        TamperedFileError: it names another.
        BadJobError: it is not there or cannot be read.
    """
    try:
        named = json.loads(manifest.read_bytes())["validation"]["script"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadJobError(f"{MANIFEST} names no inference script") from error
    if named != entry_point:
        raise TamperedFileError(f"the inference script is {named!r} by {MANIFEST}, not {entry_point!r}")


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a size is no number of bytes")
    return value


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError("a digest is no SHA-256 in hex")
    return value
