"""Streams over what S3 answers: errors wrapped, memory bounded."""

from __future__ import annotations

import hashlib
import io
from typing import IO, TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from attestry.domain.errors import UnavailableError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.response import StreamingBody

CHUNK: Final = 256 * 1024


class BodyReader(io.RawIOBase):
    """The body of an S3 answer as a raw stream; a connection that breaks midway is an UnavailableError."""

    def __init__(self, body: StreamingBody, act: str) -> None:
        self._body, self._act = body, act

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer with what has come, and return how much."""
        view = memoryview(buffer).cast("B")
        try:
            data = self._body.read(len(view))
        except (BotoCoreError, HTTPError, OSError) as error:
            raise UnavailableError(f"could not {self._act}: the connection broke midway: {error}") from error
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the connection."""
        if not self.closed:
            self._body.close()
        super().close()


def read_fully(stream: IO[bytes], size: int) -> bytes:
    """Return `size` bytes, fewer only at the end of the stream."""
    pieces, left = [], size
    while left:
        piece = stream.read(left)
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def digest_stream(stream: IO[bytes]) -> tuple[str, int]:
    """Read the stream to its end, close it, and return the SHA-256 in hex and the count of bytes."""
    digest, size = hashlib.sha256(), 0
    with stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
