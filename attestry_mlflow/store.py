"""`attestry://` as a registry: MLflow's REST store, whose versions are made of files that the client itself copies in.

MLflow's servers read a version's files from where the tracking server keeps them. This registry reads nothing of others, so the client, who
may read them, does: it downloads them by MLflow's own means and uploads them under its own prefix. So tracking can be anywhere.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from mlflow.store.model_registry.rest_store import RestStore

from attestry_mlflow.address import join_files
from attestry_mlflow.artifacts import LIST, host_creds_of
from attestry_mlflow.uploads import upload_folder

UPLOADED = "attestry://uploads/"
_MAX_TOLD = 500


class RegistryStore(RestStore):
    """The registry that an address names.

    Args:
        store_uri: `attestry://` or `attestry://host[/path]`.
        tracking_uri: where the client's runs and logged models are.
    """

    def __init__(self, store_uri: str, tracking_uri: str | None = None) -> None:
        super().__init__(partial(host_creds_of, store_uri))
        self._address = store_uri
        self._tracking_uri = tracking_uri

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: list[Any] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Copy a model's files in, and make a version of them."""
        if not source.startswith(UPLOADED):
            source = self._copy_in(source, local_model_path)
        return super().create_model_version(name, source, run_id, tags, run_link, description, model_id=model_id)

    def get_model_version_download_uri(self, name: str, version: str | int) -> str:
        """Return where `attestry_mlflow.artifacts` finds a version's files."""
        uri = super().get_model_version_download_uri(name, version)
        _, found, path = uri.partition(f"{LIST}/")
        if not found:
            raise MlflowException(f"the registry told a place of files that this plugin does not know: {uri}", INTERNAL_ERROR)
        return join_files(self._address, path)

    def _copy_in(self, source: str, local: str | None) -> str:
        """Return the source that names the uploaded files."""
        if local is not None:
            return self._upload(source, Path(local))
        with tempfile.TemporaryDirectory() as folder:
            here = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=self._tracking_uri)
            return self._upload(source, Path(here))

    def _upload(self, source: str, folder: Path) -> str:
        told = source[:_MAX_TOLD]
        return f"{UPLOADED}{upload_folder(self._address, folder, told)}?from={quote(told, safe=':/@')}"
