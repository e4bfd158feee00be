"""Which registry an address names."""

from __future__ import annotations

from functools import cache
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from attestry.client.api import RegistryClient

SCHEME = "attestry"
MODELS = "/models/"


@cache
def registry_of(address: str) -> RegistryClient:
    """Return the client of the registry that `attestry://[host[/path]]` names; one per address and process.

    Raises:
        MlflowException: it is no such address.
    """
    parts = urlsplit(address)
    if parts.scheme != SCHEME or parts.query or parts.fragment:
        raise MlflowException(f"{address} is no registry: write attestry://, or attestry://host", INVALID_PARAMETER_VALUE)
    return RegistryClient(api_url=f"https://{parts.netloc}{parts.path.rstrip('/')}" if parts.netloc else None)


def split_files(uri: str) -> tuple[str, str]:
    """Return the registry's address and `models/<model>/<number>` of where a version's files are.

    Raises:
        MlflowException: it is no such place.
    """
    start, found, version = uri.rpartition(MODELS) if uri.count(MODELS) == 1 else uri.partition(MODELS)
    if not found or not uri.startswith(f"{SCHEME}:") or version.strip("/").count("/") != 1:
        raise MlflowException(f"{uri} names no version's files", INVALID_PARAMETER_VALUE)
    address = start if start.startswith(f"{SCHEME}://") else f"{SCHEME}://"
    return address, f"models/{version.strip('/')}"


def join_files(address: str, version: str) -> str:
    """Return where the files of a version are, by the registry's address and `models/<model>/<number>`."""
    parts = urlsplit(address)
    return f"{SCHEME}://{parts.netloc}{parts.path.rstrip('/')}/{version}"
