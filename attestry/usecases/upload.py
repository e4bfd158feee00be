"""Uploads: where a caller may put a candidate's files, and what became of them.

Rules:
- A caller writes below `candidates/<its own user ID>/` only; the user ID is the authenticated one.
- Who was given the right to upload which bytes is recorded before the URL leaves, so that registration knows the principal behind a
  manifest by its key and digest.
- A URL writes exactly the announced bytes, once.
- Data alone, without a manifest, are for a refresh that the same caller asks for afterwards.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from attestry.domain.errors import InvalidInputError, NotFoundError, Problem
from attestry.domain.events import timestamp
from attestry.domain.names import DistinctPaths
from attestry.domain.principal import Principal
from attestry.ports import MetaStore, ObjectStore, Put
from attestry.usecases.records import upload_key

MAX_FILES = 100
MAX_FILE_BYTES = 5 * 1024**3
MAX_MANIFEST_BYTES = 256 * 1024
URL_SECONDS = 15 * 60
GRANT_DAYS = 7
MANIFEST_NAMES = ("manifest.yaml", "manifest.yml", "manifest.json")
STATUS_SUFFIX = ".status.json"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUBMISSION = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True)
class UploadFile:
    """A file that a caller announces.

    Attributes:
        name: path below the submission's folder.
        size: bytes.
        sha256: hex.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Upload:
    """Where one announced file goes: a PUT of exactly its bytes with these headers."""

    name: str
    key: str
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Grant:
    """The right to upload one submission."""

    submission: str
    prefix: str
    uploads: tuple[Upload, ...]


def candidate_prefix(user_id: str) -> str:
    """Return the only prefix that an identity may upload under."""
    return f"candidates/{user_id}/"


def read_files(body: Mapping[str, Any]) -> list[UploadFile]:
    """Return the announced files of a request body.

    Raises:
        InvalidInputError: with every problem, by field.
    """
    entries = body.get("files")
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_FILES:
        raise InvalidInputError.of("files", "type", f"a list of 1 to {MAX_FILES} files is needed")
    problems: list[Problem] = []
    files: list[UploadFile] = []
    for index, entry in enumerate(entries):
        problem = _problem_of(entry, f"files[{index}]")
        if problem:
            problems.append(problem)
        else:
            files.append(UploadFile(entry["name"], entry["size"], entry["sha256"]))
    problems += _path_problems(files)
    only_data = all(f.name.startswith("data/") for f in files)
    if not problems and not only_data and sum(f.name in MANIFEST_NAMES for f in files) != 1:
        problems.append(
            Problem("files", "one_manifest", f"exactly one of {', '.join(MANIFEST_NAMES)} is needed, or files below data/ alone")
        )
    problems += [
        Problem("files", "reserved", f"{f.name} is a name that the registry writes itself") for f in files if f.name.endswith(STATUS_SUFFIX)
    ]
    if problems:
        raise InvalidInputError(problems)
    return files


def grant_upload(meta: MetaStore, store: ObjectStore, files: Sequence[UploadFile], *, by: Principal, at: datetime) -> Grant:
    """Record who uploads what, and return the URLs that write exactly that."""
    submission = secrets.token_hex(12)
    prefix = f"{candidate_prefix(by.user_id)}{submission}/"
    manifest = next((f for f in files if f.name in MANIFEST_NAMES), None)
    if manifest is not None:
        key = prefix + manifest.name
        expires = int((at + timedelta(days=GRANT_DAYS)).timestamp())
        grant = {"principal": by.to_item(), "sha256": manifest.sha256, "submission": submission, "at": timestamp(at), "expires": expires}
        meta.transact([Put(upload_key(key), grant), Put(upload_key(f"{by.user_id}/{submission}"), {"key": key, "expires": expires})])
    uploads = []
    for file in files:
        url, headers = store.presign_put_new(prefix + file.name, sha256=file.sha256, size=file.size, seconds=URL_SECONDS)
        uploads.append(Upload(file.name, prefix + file.name, url, headers))
    return Grant(submission, prefix, tuple(uploads))


def submission_status(meta: MetaStore, store: ObjectStore, submission: str, *, by: Principal) -> dict[str, Any]:
    """Return what became of the caller's own submission.

    Raises:
        NotFoundError: the caller has no such submission.
    """
    row = meta.get(upload_key(f"{by.user_id}/{submission}")) if _SUBMISSION.fullmatch(submission) else None
    if row is None:
        raise NotFoundError(f"you have no submission {submission}")
    try:
        raw = store.read(row["key"] + STATUS_SUFFIX, max_bytes=1024 * 1024)
    except NotFoundError:
        return {"state": "PENDING", "submission": submission, "errors": []}
    status: dict[str, Any] = json.loads(raw)
    return {**status, "submission": submission}


def _path_problems(files: Sequence[UploadFile]) -> list[Problem]:
    paths = DistinctPaths("files")
    problems: list[Problem] = []
    for file in files:
        try:
            paths.add(file.name)
        except InvalidInputError as error:
            problems += error.problems
    return problems


def _problem_of(entry: object, field: str) -> Problem | None:
    if not isinstance(entry, dict):
        return Problem(field, "type", "a mapping with name, size and sha256 is needed")
    unknown = sorted(set(entry) - {"name", "size", "sha256"})
    if unknown:
        return Problem(f"{field}.{unknown[0]}"[:100], "unknown_field", "there is no such field here; the fields are name, size, sha256")
    if not isinstance(entry.get("name"), str):
        return Problem(f"{field}.name", "type", "a text is needed")
    size = entry.get("size")
    limit = MAX_MANIFEST_BYTES if entry["name"] in MANIFEST_NAMES else MAX_FILE_BYTES
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= limit:
        return Problem(f"{field}.size", "size", f"a whole number of bytes from 0 to {limit} is needed")
    if not isinstance(entry.get("sha256"), str) or not _SHA256.fullmatch(entry["sha256"]):
        return Problem(f"{field}.sha256", "sha256", "64 lower-case hexadecimal digits are needed")
    return None
