"""Bring data: files of one's own go to the registry, for a refresh that is asked for afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from attestry.client.api import RegistryClient
from attestry.client.submit import UploadFile, upload_file
from attestry.domain.errors import InvalidInputError


def bring_data(client: RegistryClient, files: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Upload files and return where each lies, as a request for a refresh tells it.

    Args:
        client: the registry.
        files: name of a source in the manifest to the file that takes its place.

    Raises:
        InvalidInputError: a file is not there, or two have one name.
        ApiError, UnavailableError, IntegrityError: see `attestry.client.submit.submit`.
    """
    if not files:
        return {}
    found: dict[str, UploadFile] = {}
    for source, path in files.items():
        if not path.is_file():
            raise InvalidInputError.of(f"data.{source}", "present", f"there is no file {path}")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        found[source] = UploadFile(f"data/{source}/{path.name}", path.stat().st_size, digest, path)
    grant = client.announce_upload([{"name": f.name, "size": f.size, "sha256": f.sha256} for f in found.values()])
    places = {upload["name"]: upload for upload in grant["uploads"]}
    for file in found.values():
        upload_file(client, file, places[file.name])
    return {source: {"submission": str(grant["submission"]), "name": file.name} for source, file in found.items()}
