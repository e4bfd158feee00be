"""Submit: a manifest with its source and data goes to the registry and becomes a version.

The order is that of the registry's rules: everything that the manifest names is there before the manifest is.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from attestry.client.api import RegistryClient
from attestry.client.errors import SubmissionRefusedError, read_problems
from attestry.client.source import PackedSource, pack_source
from attestry.domain.archive import inspect_archive
from attestry.domain.errors import IntegrityError, InvalidInputError, Problem, UnavailableError
from attestry.domain.manifest import ManifestDocument, complete_manifest, read_manifest

MANIFEST_NAMES: Final = ("manifest.yaml", "manifest.yml", "manifest.json")
UPLOADED_MANIFEST: Final = "manifest.json"
DIFF_NAME: Final = "source.diff"
REGISTRATION_SECONDS: Final = 180

_MAX_MANIFEST_BYTES = 256 * 1024
_POLL_SECONDS = (0.3, 2.0)
_UPLOAD_TRIES = 4
_UPLOAD_PAUSE = 0.5

Say = Callable[[str], None]
Advance = Callable[[str, int, int], None]


@dataclass(frozen=True)
class UploadFile:
    """A file to upload: its name below the submission's folder, and its bytes or where they are."""

    name: str
    size: int
    sha256: str
    content: bytes | Path


@dataclass(frozen=True)
class PreparedSubmission:
    """A submission before it leaves.

    Attributes:
        files: in the order of their upload, the manifest last.
        mapping: the completed manifest.
        source: the packed source.
    """

    files: tuple[UploadFile, ...]
    mapping: Mapping[str, Any]
    source: PackedSource


@dataclass(frozen=True)
class Submitted:
    """A registered submission.

    Attributes:
        submission: its ID.
        model: the model's name.
        version: the version's number.
        candidate: the candidate's ID.
        created: False when the same candidate was registered before.
        revision: the source's commit.
        dirty: whether uncommitted changes were packed.
        unproven: whether the submitter maps to no person yet, so that nobody can approve the version.
    """

    submission: str
    model: str
    version: int
    candidate: str
    created: bool
    revision: str
    dirty: bool
    unproven: bool


def prepare_submission(path: Path, *, allow_dirty: bool = False) -> PreparedSubmission:
    """Read the manifest, pack its source and digest its data; nothing is sent.

    Args:
        path: the manifest, or the folder that holds it.
        allow_dirty: accept uncommitted changes, and keep their difference.

    Raises:
        InvalidInputError: the manifest breaks a rule, or names a file that is not there.
        DirtyTreeError, GitError: see `pack_source`.
    """
    manifest = find_manifest(path)
    draft = _read_draft(manifest)
    folder = manifest.parent
    data = _data_files(draft, folder)
    stated = draft.mapping.get("source", {}).get("revision")
    source = pack_source(folder, revision=stated, leave_out=[f.name for f in data], allow_dirty=allow_dirty)
    mapping = complete_manifest(
        draft.mapping,
        revision=source.revision,
        author=source.author,
        repository=source.repository,
        archive_sha256=source.sha256,
        data_sha256s={f.name: f.sha256 for f in data},
        diff_sha256=source.diff_sha256,
    )
    raw = json.dumps(mapping, ensure_ascii=False, indent=2).encode()
    document = read_manifest(raw)
    _check_scripts(document, source)
    files = [_of_bytes(document.manifest.source.archive, source.archive)]
    if source.diff is not None:
        files.append(_of_bytes(DIFF_NAME, source.diff))
    return PreparedSubmission((*files, *data, _of_bytes(UPLOADED_MANIFEST, raw)), mapping, source)


def submit(
    client: RegistryClient,
    path: Path,
    *,
    allow_dirty: bool = False,
    say: Say | None = None,
    advance: Advance | None = None,
    timeout_seconds: float = REGISTRATION_SECONDS,
) -> Submitted:
    """Upload a candidate and wait until it is registered.

    Args:
        client: the registry.
        path: the manifest, or the folder that holds it.
        allow_dirty: accept uncommitted changes, and keep their difference.
        say: told each step, a sentence each.
        advance: told the name, the bytes done and the bytes in all of each upload.
        timeout_seconds: how long to wait for the registration.

    Raises:
        SubmissionRefusedError: the registry refused it; with every problem.
        UnavailableError: it was uploaded, but its outcome is not known yet.
        ApiError, IntegrityError and the errors of `prepare_submission`.
    """
    tell = say or (lambda _: None)
    tell("reading the manifest and packing the source")
    prepared = prepare_submission(path, allow_dirty=allow_dirty)
    announced = [{"name": f.name, "size": f.size, "sha256": f.sha256} for f in prepared.files]
    grant = client.announce_upload(announced)
    places = {upload["name"]: upload for upload in grant["uploads"]}
    tell(f"uploading {len(prepared.files)} files")
    for file in prepared.files:
        upload_file(client, file, places[file.name], advance)
    tell("waiting for the registration")
    status = _await_registration(client, str(grant["submission"]), timeout_seconds)
    return Submitted(
        submission=str(grant["submission"]),
        model=status["model"],
        version=int(status["version"]),
        candidate=status["candidate"],
        created=bool(status.get("created", True)),
        revision=prepared.source.revision,
        dirty=prepared.source.diff is not None,
        unproven=status.get("submitter") == "unproven",
    )


def find_manifest(path: Path) -> Path:
    """Return the manifest that a path means.

    Raises:
        InvalidInputError: there is none, or more than one in the folder.
    """
    if path.is_file():
        return path
    found = [path / name for name in MANIFEST_NAMES if (path / name).is_file()]
    if len(found) != 1:
        known = ", ".join(MANIFEST_NAMES)
        what = f"{path} holds {len(found)} of {known}; exactly one is needed" if path.is_dir() else f"there is no file {path}"
        raise InvalidInputError.of("path", "one_manifest", what)
    return found[0]


def _read_draft(manifest: Path) -> ManifestDocument:
    size = manifest.stat().st_size
    if size > _MAX_MANIFEST_BYTES:
        raise InvalidInputError.of("", "max_bytes", f"the manifest has {size} bytes; the limit is {_MAX_MANIFEST_BYTES}")
    return read_manifest(manifest.read_bytes(), draft=True)


def _data_files(draft: ManifestDocument, folder: Path) -> list[UploadFile]:
    files, problems = {}, []
    for index, item in enumerate(draft.mapping["data"]["source"]):
        uri = item["uri"]
        if uri.startswith("s3://"):
            continue
        place = folder / uri
        if not place.is_file() or not place.resolve().is_relative_to(folder.resolve()):
            problems.append(draft.problem(f"data.source[{index}].uri", "present", f"there is no file {uri} beside the manifest"))
            continue
        with place.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        files[uri] = UploadFile(uri, place.stat().st_size, digest, place)
    if problems:
        raise InvalidInputError(problems)
    return list(files.values())


def _check_scripts(document: ManifestDocument, source: PackedSource) -> None:
    packed = {entry.path for entry in inspect_archive(io.BytesIO(source.archive), field="source.archive")}
    missing = [
        Problem(field, "in_archive", f"{path} is not in revision {source.revision[:12]} of the manifest's folder")
        for field, path in document.manifest.scripts.items()
        if path not in packed
    ]
    if missing:
        raise InvalidInputError(missing)


def _of_bytes(name: str, content: bytes) -> UploadFile:
    return UploadFile(name, len(content), hashlib.sha256(content).hexdigest(), content)


class _Counted:
    """A stream that tells how far it was read."""

    def __init__(self, stream: IO[bytes], file: UploadFile, advance: Advance) -> None:
        self._stream, self._file, self._advance = stream, file, advance

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._advance(self._file.name, self._stream.tell(), self._file.size)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def upload_file(client: RegistryClient, file: UploadFile, place: Mapping[str, Any], told: Advance | None = None) -> None:
    """Upload a file; a store that is busy or a connection that breaks is tried again, since a second PUT cannot do harm.

    Args:
        client: the registry.
        file: the file, as it was announced.
        place: where the announcement was told to put it.
        told: told the name, the bytes done and the bytes in all.

    Raises:
        UnavailableError: the store does not answer.
        IntegrityError: the file is not what was announced.
    """
    advance = told or (lambda *_: None)
    for tries_left in range(_UPLOAD_TRIES - 1, -1, -1):
        try:
            status = _put(client, file, place, advance)
        except UnavailableError:
            if not tries_left:
                raise
            status = 0
        if status == 412:
            # The URL writes these bytes or none, so what is there is ours: an earlier try whose answer was lost.
            advance(file.name, file.size, file.size)
            return
        if 200 <= status < 300:
            return
        if status == 400:
            raise IntegrityError(f"{file.name} changed while it was uploaded, or was damaged on the way")
        if not tries_left or 0 < status < 500:
            raise UnavailableError(f"the store answered {status} to the upload of {file.name}")
        time.sleep(_UPLOAD_PAUSE * (_UPLOAD_TRIES - tries_left))


def _put(client: RegistryClient, file: UploadFile, place: Mapping[str, Any], advance: Advance) -> int:
    with file.content.open("rb") if isinstance(file.content, Path) else io.BytesIO(file.content) as stream:
        body: Any = _Counted(stream, file, advance) if file.size else b""
        return client.http.put(str(place["url"]), place["headers"], body).status_code


def _await_registration(client: RegistryClient, submission: str, timeout_seconds: float) -> Mapping[str, Any]:
    deadline, pause = time.monotonic() + timeout_seconds, _POLL_SECONDS[0]
    while True:
        status: Mapping[str, Any] = client.submission(submission)
        if status["state"] == "REGISTERED":
            return status
        if status["state"] == "REFUSED":
            raise SubmissionRefusedError(submission, read_problems(status.get("errors", [])))
        if time.monotonic() + pause > deadline:
            raise UnavailableError(
                f"submission {submission} is uploaded, but not registered after {timeout_seconds:.0f} s",
                details={"submission": submission},
            )
        time.sleep(pause)
        pause = min(pause * 1.4, _POLL_SECONDS[1])
