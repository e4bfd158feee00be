"""Uploads the files of a model below the caller's own prefix, each digested, by presigned URLs that write exactly those bytes."""

from __future__ import annotations

from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from attestry.client.imports import find_files
from attestry.client.submit import upload_file
from attestry.domain.errors import AttestryError
from attestry_mlflow.address import registry_of


def upload_folder(address: str, folder: Path, told: str) -> str:
    """Return a new submission that holds a folder's files: for MLflow each call makes a version, the same files included.

    Args:
        address: the registry.
        folder: the model's folder, or one file.
        told: where the files come from.

    Raises:
        MlflowException: the registry refused, or does not answer.
    """
    client = registry_of(address)
    try:
        files = find_files(folder)
        grant = client.announce_import([{"name": f.name, "size": f.size, "sha256": f.sha256} for f in files])
        places = {str(upload["name"]): upload for upload in grant["uploads"]}
        for file in files:
            upload_file(client, file, places[file.name])
    except AttestryError as error:
        raise MlflowException(f"the files of {told} were not uploaded: {error.message}", INVALID_PARAMETER_VALUE) from error
    return str(grant["submission"])
