"""Verified downloads: a file appears under its name only when its bytes have the recorded digest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from urllib3.exceptions import HTTPError

from attestry.client.http import Http, is_confidential
from attestry.domain.errors import IntegrityError, NotFoundError, UnavailableError
from attestry.domain.names import DistinctPaths

_CHUNK: Final = 1024 * 1024

Advance = Callable[[str, int, int], None]
"""Told the file's name, the bytes done and the bytes in all."""


@dataclass(frozen=True)
class Downloaded:
    """A file that is here and has the recorded digest.

    Attributes:
        path: where it is.
        sha256: hex.
        size: bytes.
        fetched: False when it was here already.
    """

    path: Path
    sha256: str
    size: int
    fetched: bool


def download_files(
    files: Sequence[Mapping[str, Any]], folder: Path, *, http: Http | None = None, advance: Advance | None = None
) -> list[Downloaded]:
    """Fetch files into a folder, each checked against its digest while it comes.

    Args:
        files: `path` below the folder, `sha256`, `size` and `url` of each.
        folder: made when it does not exist.
        http: connections to use.
        advance: told about progress.

    Raises:
        IntegrityError: bytes are not as recorded; nothing lies under the file's name then.
        NotFoundError: the store no longer has it.
        UnavailableError: the store did not answer.
        InvalidInputError: a path that would leave the folder, or two that fall together.
    """
    paths, connections = DistinctPaths("path"), http or Http()
    for file in files:
        paths.add(file["path"])
    return [_download(file, folder / file["path"], connections, advance or (lambda *_: None)) for file in files]


def _download(file: Mapping[str, Any], target: Path, http: Http, advance: Advance) -> Downloaded:
    name, sha256, size = str(file["path"]), str(file["sha256"]), int(file["size"])
    if target.is_file() and target.stat().st_size == size and _digest(target) == sha256:
        advance(name, size, size)
        return Downloaded(target, sha256, size, fetched=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            actual, count = _fetch(str(file["url"]), name, size, http, stream.write, advance)
        if (actual, count) != (sha256, size):
            raise IntegrityError(
                f"{name} is not as recorded: {count} bytes of SHA-256 {actual}, recorded are {size} of {sha256}",
                details={"path": name, "sha256": sha256},
            )
        os.replace(part, target)  # noqa: PTH105 - of two names in one folder, atomically
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(part).unlink()
        raise
    return Downloaded(target, sha256, size, fetched=True)


def _fetch(url: str, name: str, size: int, http: Http, write: Callable[[bytes], Any], advance: Advance) -> tuple[str, int]:
    """Return digest and count of the bytes; stops early when more come than were announced."""
    if not is_confidential(url):
        raise IntegrityError(f"the URL of {name} is neither HTTPS nor on this machine")
    answer = http.get(url)
    if answer.status_code != 200:
        answer.raw.close()
        kind = NotFoundError if answer.status_code == 404 else UnavailableError
        raise kind(f"the store answered {answer.status_code} for {name}")
    digest, count = hashlib.sha256(), 0
    try:
        for chunk in answer.raw.stream(_CHUNK, decode_content=False):
            digest.update(chunk)
            count += len(chunk)
            if count > size:
                break
            write(chunk)
            advance(name, count, size)
    except HTTPError as error:
        raise UnavailableError(f"the connection broke while {name} was read: {error}") from error
    finally:
        answer.raw.close()
    return digest.hexdigest(), count


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
