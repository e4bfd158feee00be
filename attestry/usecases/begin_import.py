"""Begin an import: where a caller may put the files of a version that was made elsewhere.

Rules:
- The files lie below the caller's own candidate prefix, which is made of the authenticated user ID.
- A URL writes exactly the announced bytes, once.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from attestry.domain.errors import InvalidInputError
from attestry.domain.imports import check_files
from attestry.domain.principal import Principal
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.digests import is_sha256, sha256_hex
from attestry.ports import MetaStore, ObjectStore, Put, When
from attestry.usecases.records import upload_key
from attestry.usecases.upload import GRANT_DAYS, URL_SECONDS, Grant, Upload, UploadFile, candidate_prefix

MAX_KEY: Final = 200
_FOLDER: Final = "import/"


def import_prefix(user_id: str, submission: str) -> str:
    """Return where the files of an import lie.

    Raises:
        InvalidInputError: the user ID cannot be a segment of a key.
    """
    if "/" in user_id or user_id in ("", ".", ".."):
        raise InvalidInputError.of("caller", "user_id", "the identity has no user ID that could hold uploads")
    return f"{candidate_prefix(user_id)}{submission}/{_FOLDER}"


def read_import_files(body: Mapping[str, Any]) -> list[UploadFile]:
    """Return the files that somebody announces for an import: `files`, each `name`, `size` and `sha256`.

    Raises:
        InvalidInputError: naming the file and the rule.
    """
    entries = body.get("files")
    if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in entries):
        raise InvalidInputError.of("files", "type", "a list of files is needed, each with name, size and sha256")
    check_files([(e["name"], e.get("size", -1)) for e in entries])
    for index, entry in enumerate(entries):
        if not is_sha256(entry.get("sha256")):
            raise InvalidInputError.of(f"files[{index}].sha256", "sha256", "64 lower-case hexadecimal digits are needed")
    return [UploadFile(e["name"], e["size"], e["sha256"]) for e in entries]


def begin_import(meta: MetaStore, store: ObjectStore, files: Sequence[UploadFile], *, by: Principal, at: datetime, key: str = "") -> Grant:
    """Return a new submission of the caller's, and the URLs that write exactly the announced files into it, each once.

    Args:
        meta: the table.
        store: the model store.
        files: what is announced, see `read_import_files`.
        by: the authenticated caller.
        at: the time.
        key: the same files announced again under the same key are the same submission, so that a client that was cut off goes on; empty
            for a submission of its own.
    """
    submission = _submission_of(files, key) if key else secrets.token_hex(12)
    prefix = import_prefix(by.user_id, submission)
    expires = int((at + timedelta(days=GRANT_DAYS)).timestamp())
    meta.transact([Put(upload_key(f"{by.user_id}/{submission}"), {"key": f"{prefix}import", "expires": expires}, When())])
    uploads = []
    for file in files:
        url, headers = store.presign_put_new(prefix + file.name, sha256=file.sha256, size=file.size, seconds=URL_SECONDS)
        uploads.append(Upload(file.name, prefix + file.name, url, headers))
    return Grant(submission, prefix, tuple(uploads))


def read_import_key(value: object) -> str:
    """Return the key under which an import is announced; empty where there is none.

    Raises:
        InvalidInputError: no text of 1 to 200 printable characters.
    """
    if value in (None, ""):
        return ""
    if not isinstance(value, str) or len(value) > MAX_KEY or not value.isprintable():
        raise InvalidInputError.of("key", "key", f"a text of 1 to {MAX_KEY} printable characters is needed")
    return value


def _submission_of(files: Sequence[UploadFile], key: str) -> str:
    """Return the submission that these files are under a key; it lies below the caller's own prefix, so nobody else can mean it."""
    announced = sorted([f.name, f.size, f.sha256] for f in files)
    return sha256_hex(canonical_bytes({"key": key, "files": announced}))[:24]
