"""Which relative paths are accepted, in archives, channels and outputs alike.

The rules:

- A path is relative, uses `/`, and has no empty, `.` or `..` part, no NUL or other control character, and no backslash.
- Two paths of one set differ even after Unicode NFC and case folding, and none is also a folder of another: a set has to mean
  the same on every file system.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from attestry.sandbox.errors import UnsafeArchiveError

MAX_PATH_BYTES = 1024
"""Longest path in UTF-8 bytes; also the longest key of an S3 object."""


def check_relative_path(path: str) -> str:
    """Return the path if it obeys the first rule.

    Raises:
        UnsafeArchiveError: it does not; the message names the path and the rule.
    """
    shown = repr(path[:200])
    if not path or len(path.encode("utf-8", "surrogateescape")) > MAX_PATH_BYTES:
        raise UnsafeArchiveError(f"path {shown} is empty or longer than {MAX_PATH_BYTES} bytes")
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnsafeArchiveError(f"path {shown} is not UTF-8") from error
    if path.startswith("/"):
        raise UnsafeArchiveError(f"path {shown} is absolute")
    if "\\" in path or any(unicodedata.category(c) == "Cc" for c in path):
        raise UnsafeArchiveError(f"path {shown} holds a backslash or a control character")
    if any(part in {"", ".", ".."} for part in path.split("/")):
        raise UnsafeArchiveError(f"path {shown} has an empty, '.' or '..' part")
    return path


def check_distinct(paths: Iterable[str]) -> None:
    """Check the second rule.

    Raises:
        UnsafeArchiveError: two paths collide; the message names both.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        folded = _fold(path)
        if folded in files:
            raise UnsafeArchiveError(f"{files[folded]!r} and {path!r} are one name after NFC and case folding")
        files[folded] = path
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            seen = folders.setdefault(_fold(folder), folder)
            if seen != folder:
                raise UnsafeArchiveError(f"folders {seen!r} and {folder!r} are one name after NFC and case folding")
    for folded, folder in folders.items():
        if folded in files:
            raise UnsafeArchiveError(f"{files[folded]!r} is a file and {folder!r} a folder of the same name")


def _fold(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
