"""Files of versions: listed and handed out by the registry, read by presigned URLs, checked against the digests that were frozen."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import requests
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DATA_LOSS, INVALID_PARAMETER_VALUE, NOT_FOUND
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.utils.rest_utils import MlflowHostCreds, http_request, verify_rest_response

from attestry_mlflow.address import registry_of, split_files

LIST = "/api/2.0/mlflow-artifacts/artifacts"
PRESIGNED = "/api/2.0/mlflow-artifacts/presigned"
_CHUNK = 1024 * 1024
_SECONDS = (10, 120)


class RegistryFiles(ArtifactRepository):
    """The frozen files of one version, `attestry://[host]/models/<model>/<number>`; they can be read and never written."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        self._address, self._version = split_files(artifact_uri)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Return what lies in a folder; nothing for a file."""
        entries = self._ask(LIST, {"path": self._inside(path)})["files"]
        if path and [(e["path"], e["is_dir"]) for e in entries] == [(PurePosixPath(path).name, False)] and self._is_file(path):
            return []
        found = [FileInfo(f"{path}/{_name(e)}" if path else _name(e), e["is_dir"], e.get("file_size")) for e in entries]
        return sorted(found, key=lambda file: str(file.path))

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        """Fetch a file; nothing lies under its name before its digest is right."""
        told = self._ask(f"{PRESIGNED}/{self._inside(remote_file_path)}", {})
        target = Path(local_path)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".attestry-", delete=False) as file:
            try:
                digest = hashlib.sha256()
                # No session of MLflow's: a presigned URL takes no signature and no token along.
                with requests.get(told["url"], stream=True, timeout=_SECONDS) as answer:
                    answer.raise_for_status()
                    for chunk in answer.iter_content(_CHUNK):
                        digest.update(chunk)
                        file.write(chunk)
                if digest.hexdigest() != told["sha256"]:
                    raise MlflowException(f"{remote_file_path} of {self._version} is not the file that was frozen", DATA_LOSS)
                file.close()
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> NoReturn:
        """Refuse: a version's files never change."""
        raise self._never(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> NoReturn:
        """Refuse: a version's files never change."""
        raise self._never(local_dir, artifact_path)

    def delete_artifacts(self, artifact_path: str | None = None) -> NoReturn:
        """Refuse: a version's files never change."""
        raise self._never(artifact_path)

    def _never(self, *what: str | None) -> MlflowException:
        shown = " ".join(part for part in what if part)
        return MlflowException(f"{self._version} is a registered version, whose files never change: {shown}", INVALID_PARAMETER_VALUE)

    def _is_file(self, path: str) -> bool:
        parent = str(PurePosixPath(path).parent)
        entries = self._ask(LIST, {"path": self._inside("" if parent == "." else parent)})["files"]
        return any(e["path"] == PurePosixPath(path).name and not e["is_dir"] for e in entries)

    def _inside(self, path: str | None) -> str:
        plain = PurePosixPath(path or "")
        if plain.is_absolute() or ".." in plain.parts:
            raise MlflowException(f"{path} leads out of the version", NOT_FOUND)
        return str(PurePosixPath(self._version) / plain)

    def _ask(self, endpoint: str, query: dict[str, str]) -> dict[str, Any]:
        answer = http_request(host_creds_of(self._address), endpoint, "GET", params=query)
        told: dict[str, Any] = verify_rest_response(answer, endpoint).json()
        return told


def host_creds_of(address: str) -> MlflowHostCreds:
    """Return where a registry answers the credentials that the client has, and how requests to it are signed."""
    return MlflowHostCreds(host=registry_of(address).tree_url, auth="attestry")


def _name(entry: dict[str, Any]) -> str:
    """Return the name of an entry of a listing, which leads nowhere else."""
    name = str(entry["path"])
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise MlflowException(f"the registry listed {name!r}, which is no name of a file", INVALID_PARAMETER_VALUE)
    return name
