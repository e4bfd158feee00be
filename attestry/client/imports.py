"""Import and download: files that were made elsewhere become a version, and a version's files come back, each digest checked.

imported = import_model(client, Path("model/"), "churn", {"source": "runs:/8f0f/model"})
download_version(client, "churn", imported.number, Path("churn@1"))
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attestry.client.download import Downloaded, download_files
from attestry.client.submit import UploadFile, upload_file
from attestry.domain.errors import IntegrityError, InvalidInputError, UnavailableError
from attestry.domain.imports import check_files
from attestry.evidence.artifact_manifest import ArtifactManifest

if TYPE_CHECKING:
    from attestry.client.api import RegistryClient

ARTIFACT_MANIFEST: Final = "artifact-manifest.json"
FREEZE_SECONDS: Final = 900.0
_POLL_SECONDS = (0.3, 3.0)

Say = Callable[[str], None]
Advance = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Imported:
    """An import that was made.

    Attributes:
        model: the model's name.
        number: the version's number.
        submission: ID of the submission.
        files: how many files.
        bytes: their size.
        stage, status, standing: where the version is.
        version_digest: empty until its files are frozen.
        error: why it failed, or empty.
    """

    model: str
    number: int
    submission: str
    files: int
    bytes: int
    stage: str
    status: str
    standing: str
    version_digest: str
    error: str


def import_model(
    client: RegistryClient,
    path: Path,
    model: str,
    claims: Mapping[str, Any],
    *,
    key: str = "",
    say: Say | None = None,
    advance: Advance | None = None,
    timeout_seconds: float = FREEZE_SECONDS,
) -> Imported:
    """Upload a file or a folder, have a version made of it, and wait until its files are frozen.

    The same files for the same model with the same claims are the same import, however often this is called: what was cut off goes on.

    Args:
        client: the registry.
        path: a file, or a folder whose files are taken with their paths below it.
        model: the model's name.
        claims: `source`, `run`, `description` and `tags`, as far as there is something to say.
        key: tells apart two imports of the same files with the same claims.
        say: told each step, a sentence each.
        advance: told the name, the bytes done and the bytes in all of each upload.
        timeout_seconds: how long to wait until the files are frozen.

    Raises:
        InvalidInputError: there is no file, or one that breaks a rule.
        UnavailableError: it was imported, but its files are not frozen yet.
        ApiError, IntegrityError: see `attestry.client.submit.submit`.
    """
    tell = say or (lambda _: None)
    tell("digesting the files")
    files = find_files(path)
    told = json.dumps({"model": model, "claims": claims, "key": key}, sort_keys=True)
    announced = [{"name": f.name, "size": f.size, "sha256": f.sha256} for f in files]
    grant = client.announce_import(announced, hashlib.sha256(told.encode()).hexdigest())
    places = {upload["name"]: upload for upload in grant["uploads"]}
    tell(f"uploading {len(files)} files")
    for file in files:
        upload_file(client, file, places[file.name], advance)
    made = client.import_submission(model, str(grant["submission"]), claims)
    tell(f"{model}@{made['version']}: its files are frozen")
    version = _await_frozen(client, model, int(made["version"]), timeout_seconds)
    return Imported(
        model=model,
        number=int(made["version"]),
        submission=str(grant["submission"]),
        files=len(files),
        bytes=sum(f.size for f in files),
        **{name: str(version.get(name) or "") for name in ("stage", "status", "standing", "version_digest", "error")},
    )


def find_files(path: Path) -> list[UploadFile]:
    """Return what is to be uploaded of a path, digested.

    Raises:
        InvalidInputError: nothing is there; a link or something else that is no plain file; or names that break a rule.
    """
    if path.is_file() and not path.is_symlink():
        found = {path.name: path}
    elif path.is_dir():
        found = dict(sorted(_walk(path)))
    else:
        raise InvalidInputError.of("path", "present", f"there is no file or folder {path}")
    check_files([(name, place.stat().st_size) for name, place in found.items()])
    return [_digested(name, place) for name, place in found.items()]


def download_version(
    client: RegistryClient, model: str, number: int, folder: Path, *, version_digest: str = "", advance: Advance | None = None
) -> list[Downloaded]:
    """Fetch all frozen files of a version, each checked against the artifact manifest, and that against the version digest.

    Args:
        client: the registry.
        model: the model's name.
        number: the version's number.
        folder: made when it does not exist.
        version_digest: the digest that the caller knows of the version; by default what the registry says.
        advance: told about progress.

    Raises:
        IntegrityError: bytes, or the list of files, are not what the version digest covers.
        ApiError and the errors of `download_files`.
    """
    listed = client.files(model, number)
    expected = version_digest or str(listed["version_digest"])
    by_path = {str(f["path"]): f for f in listed["files"]}
    if ARTIFACT_MANIFEST not in by_path:
        raise IntegrityError(f"the registry lists no artifact manifest of {model}@{number}")
    first = download_files([by_path[ARTIFACT_MANIFEST]], folder, http=client.http)
    if first[0].sha256 != expected:
        raise IntegrityError(f"the artifact manifest of {model}@{number} has SHA-256 {first[0].sha256}; the version digest is {expected}")
    artifact = ArtifactManifest.from_bytes(first[0].path.read_bytes())
    if (artifact.model, artifact.number) != (model, number):
        raise IntegrityError(f"the artifact manifest is that of {artifact.model}@{artifact.number}")
    stated = {f.path: (f.size, f.sha256) for f in artifact.files}
    offered = {p: (int(f["size"]), str(f["sha256"])) for p, f in by_path.items() if p != ARTIFACT_MANIFEST}
    if stated != offered:
        wrong = sorted(p for p in {*stated, *offered} if stated.get(p) != offered.get(p))
        raise IntegrityError(f"the registry lists other files of {model}@{number} than its artifact manifest: {wrong[0]}")
    others = [by_path[path] for path in sorted(stated)]
    return [*first, *download_files(others, folder, http=client.http, advance=advance)]


def _walk(folder: Path) -> list[tuple[str, Path]]:
    """Return the plain files below a folder by their paths in it; what is no plain file is refused and never followed."""
    found: list[tuple[str, Path]] = []
    for place, folders, names in os.walk(folder, followlinks=False):
        for name in (*folders, *names):
            path = Path(place) / name
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise InvalidInputError.of("path", "plain_file", f"{path} is a link or no plain file; an import takes files as they are")
        found += [((Path(place) / name).relative_to(folder).as_posix(), Path(place) / name) for name in names]
    return found


def _digested(name: str, path: Path) -> UploadFile:
    with path.open("rb") as stream:
        return UploadFile(name, path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest(), path)


def _await_frozen(client: RegistryClient, model: str, number: int, timeout_seconds: float) -> Mapping[str, Any]:
    deadline, pause = time.monotonic() + timeout_seconds, _POLL_SECONDS[0]
    while True:
        version: Mapping[str, Any] = client.version(model, number)
        if version["stage"] != "IMPORTED" or version["status"] == "FAILED" or version["standing"] == "RETIRED":
            return version
        if time.monotonic() + pause > deadline:
            raise UnavailableError(f"{model}@{number} is imported, but was not frozen within {timeout_seconds:.0f} s; it goes on by itself")
        time.sleep(pause)
        pause = min(pause * 1.4, _POLL_SECONDS[1])
