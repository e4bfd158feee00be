"""Digests: SHA-256 over bytes, streams and lists of files.

A set of files is named by its *tree digest*: SHA-256 of the RFC 8785 form of the list of `{"path", "sha256", "size"}`,
sorted by path (code points), so that anyone can recompute it with a JSON library and `sha256sum`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Protocol

from attestry.domain.errors import InvalidInputError
from attestry.evidence.canonical import canonical_bytes

CHUNK_BYTES = 1 << 20

_HEX = re.compile(r"[0-9a-f]{64}")


class DigestedFile(Protocol):
    """A file of which path, size in bytes and SHA-256 (hex) are known."""

    @property
    def path(self) -> str:
        """Return the name within the set."""

    @property
    def size(self) -> int:
        """Return the size in bytes."""

    @property
    def sha256(self) -> str:
        """Return the digest in hex."""


@dataclass(frozen=True)
class StreamDigest:
    """What reading a stream to its end gave.

    Attributes:
        sha256: hex.
        size: bytes.
    """

    sha256: str
    size: int


def is_sha256(text: object) -> bool:
    """Return whether this is a SHA-256 in lower-case hex."""
    return isinstance(text, str) and _HEX.fullmatch(text) is not None


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of the bytes in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def digest_stream(stream: IO[bytes]) -> StreamDigest:
    """Read the stream to its end, a mebibyte at a time, and return digest and size."""
    hasher, size = hashlib.sha256(), 0
    for chunk in _chunks(stream):
        hasher.update(chunk)
        size += len(chunk)
    return StreamDigest(hasher.hexdigest(), size)


def tree_digest(files: Iterable[DigestedFile]) -> str:
    """Return the tree digest of the files, in whatever order they come.

    Raises:
        InvalidInputError: two files have the same path, or a digest is none.
    """
    ordered = sorted(files, key=lambda f: f.path)
    if len({f.path for f in ordered}) != len(ordered):
        raise InvalidInputError.of("files", "unique_path", "two files of one set have the same path")
    for file in ordered:
        if not is_sha256(file.sha256):
            raise InvalidInputError.of("files", "sha256", f"{file.path} has no SHA-256")
    return sha256_hex(canonical_bytes([{"path": f.path, "sha256": f.sha256, "size": f.size} for f in ordered]))


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk
