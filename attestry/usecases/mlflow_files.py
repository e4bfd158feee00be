"""The frozen files of a version, as MLflow's own HTTP artifact client lists and reads them, without any right on the bucket.

Rules:
- What is handed out is digested and compared with the recorded reference: a file that was changed is never handed out.
- Only files of `frozen/model/` are. A path is looked up among the recorded references, never joined into a key.
- A consumer is handed versions that are approved; who works on candidates, is handed candidates.
- The answer of a function has at most 6 MiB, so a larger file is not handed out here: the plugin and the native API give presigned URLs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.errors import ForbiddenError, IntegrityError, InvalidInputError, NotFoundError
from attestry.domain.names import find_broken_path_rule
from attestry.domain.principal import Principal
from attestry.domain.stages import Standing
from attestry.domain.version import FileRef
from attestry.evidence.digests import sha256_hex
from attestry.mlflow.errors import MlflowError
from attestry.ports import ObjectStore
from attestry.usecases.mlflow_changing import Desk
from attestry.usecases.mlflow_reading import APPROVED, Known

MODEL_FOLDER: Final = "model/"
ROUTE: Final = "/api/2.0/mlflow-artifacts/artifacts"
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
URL_SECONDS: Final = 15 * 60
_PREFIX: Final = "models"


def artifact_uri(api_url: str, known: Known) -> str:
    """Return where an unmodified client finds a version's files: this API, under the client's own credentials.

    Args:
        api_url: start of the API's URL.
        known: the version.

    Raises:
        MlflowError: its files are not frozen.
    """
    version, _ = known.require_version()
    _files(known)
    return f"{api_url.rstrip('/')}{ROUTE}/{_PREFIX}/{version.model}/{version.number}"


def find_files(desk: Desk, path: str) -> tuple[Known, str]:
    """Return the version that a path names, and the path within it.

    Args:
        desk: who asks, and where.
        path: `models/<model>/<number>[/<file or folder>]`.

    Raises:
        MlflowError: no such version.
        InvalidInputError: the path leads elsewhere.
        ForbiddenError: see `require_handed_to`.
    """
    broken = find_broken_path_rule(path)
    if broken is not None:
        raise InvalidInputError.of("path", broken.rule, broken.message)
    kind, _, rest = path.partition("/")
    model, _, rest = rest.partition("/")
    number, _, inner = rest.partition("/")
    if kind != _PREFIX or not model or not (number.isascii() and number.isdigit() and 0 < len(number) < 10):
        raise NotFoundError(f"{path[:120]!a} is no file of a version")
    known = desk.find(model, int(number))
    require_handed_to(desk.by, known)
    return known, inner


def require_handed_to(by: Principal, known: Known) -> None:
    """Refuse to hand out a version's files where it is out of use, or to somebody who only uses approved ones.

    Raises:
        ForbiddenError: the version was retired or killed; or its model is governed, it is not approved, and the caller is a consumer and
            nothing more.
    """
    version, _ = known.require_version()
    working = known.is_open or version.standing in APPROVED or not set(by.roles) <= {"consumer"}
    if version.standing is Standing.RETIRED or not working:
        raise ForbiddenError(f"{version.reference} stands {version.standing} and is not loaded: an approved version is")


def list_files(known: Known, folder: str) -> list[dict[str, Any]]:
    """Return what lies in a folder of a version: `path` (its name there), `is_dir`, and of a file `file_size`.

    A file's own path lists that file, as MLflow's server does.
    """
    files = _files(known)
    if folder in files:
        return [{"path": folder.rpartition("/")[2], "is_dir": False, "file_size": files[folder].size}]
    start = f"{folder}/" if folder else ""
    listed: dict[str, dict[str, Any]] = {}
    for path, file in sorted(files.items()):
        if path.startswith(start):
            name, _, below = path.removeprefix(start).partition("/")
            listed.setdefault(name, {"path": name, "is_dir": True} if below else {"path": name, "is_dir": False, "file_size": file.size})
    return list(listed.values())


def read_file(store: ObjectStore, known: Known, path: str) -> bytes:
    """Return a file of a version, compared with its recorded digest.

    Raises:
        MlflowError: no such file, or it is too large for an answer; the sentence says how to get it.
        IntegrityError: the bytes are not those that were frozen.
    """
    reference = known.require_version()[0].reference
    file = _files(known).get(path)
    if file is None:
        raise _no_file(known, path)
    if file.size > MAX_FILE_BYTES:
        raise MlflowError(
            "INVALID_PARAMETER_VALUE",
            f"{path} has {file.size} bytes; this way hands out files of at most {MAX_FILE_BYTES}. With the plugin (pip install "
            "'attestry[mlflow]', MLFLOW_REGISTRY_URI=attestry://) the client reads it from the store, and checks its digest itself",
        )
    data = store.read(file.key, file.version_id, max_bytes=MAX_FILE_BYTES)
    if sha256_hex(data) != file.sha256:
        raise IntegrityError(f"{path} of {reference} is not the file that was frozen")
    return data


def presign_file(store: ObjectStore, known: Known, path: str) -> dict[str, Any]:
    """Return a URL that reads a file of a version, with what to check it by: `url`, `headers`, `file_size`, `sha256`.

    Raises:
        MlflowError: no such file.
    """
    file = _files(known).get(path)
    if file is None:
        raise _no_file(known, path)
    url = store.presign_get(file.key, file.version_id, seconds=URL_SECONDS)
    return {"url": url, "headers": {}, "file_size": file.size, "sha256": file.sha256}


def _no_file(known: Known, path: str) -> MlflowError:
    return MlflowError("RESOURCE_DOES_NOT_EXIST", f"{known.require_version()[0].reference} has no file {path[:200]!a}")


def _files(known: Known) -> Mapping[str, FileRef]:
    """Return the files below `frozen/model/`, by their path there.

    Raises:
        MlflowError: nothing is frozen yet.
    """
    version, _ = known.require_version()
    if not version.version_digest:
        raise MlflowError("RESOURCE_DOES_NOT_EXIST", f"{version.reference} has no frozen files: it is in {version.stage} {version.status}")
    return {f.path.removeprefix(MODEL_FOLDER): f for f in version.frozen if f.path.startswith(MODEL_FOLDER)}
