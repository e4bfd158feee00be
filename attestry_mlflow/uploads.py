"""Uploads the files of a model below the caller's own prefix, each digested, by presigned URLs that write exactly those bytes."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from attestry.client.imports import find_files
from attestry.client.submit import upload_file
from attestry.domain.errors import AttestryError
from attestry_mlflow.address import registry_of


def upload_folder(address: str, folder: Path, name: str, told: str) -> str:
    """Return the submission that holds a folder's files.

    The same files for the same model from the same place are the same submission, so that what was cut off goes on.

    Args:
        address: the registry.
        folder: the model's folder, or one file.
        name: the model's name.
        told: where the files come from.

    Raises:
        MlflowException: the registry refused, or does not answer.
    """
    client = registry_of(address)
    try:
        files = find_files(folder)
        key = sha256(json.dumps(["mlflow", name, told]).encode()).hexdigest()
        grant = client.announce_import([{"name": f.name, "size": f.size, "sha256": f.sha256} for f in files], key)
        places = {str(upload["name"]): upload for upload in grant["uploads"]}
        for file in files:
            upload_file(client, file, places[file.name])
    except AttestryError as error:
        raise MlflowException(f"the files of {told} were not uploaded: {error.message}", INVALID_PARAMETER_VALUE) from error
    return str(grant["submission"])
