"""Archives that strangers made: source archives and the outputs of sandboxed scripts, as tar.gz streams.

Rules:

1. Nothing is believed that was not counted: the unpacked stream, each file and the number of entries are bounded while
   they are read, whatever the headers say. Nothing is unpacked to a disk and no file is held in memory.
2. Only regular files and folders. Symbolic and hard links, devices, pipes, sparse files and unknown types are refused.
3. Paths keep the rules of `attestry.domain.names`: relative, no `..`, distinct after NFC and case folding. A leading
   `./` is dropped.
4. The stream is whole: gzip's checksum holds, the end marker is there, and nothing but zeros follows it.

    for member in iterate_archive(stream):
        store(member.path, member.stream)

The headers are parsed by the standard library (`tarfile.TarInfo.frombuf`); its reader is not used because it loads
extension headers of any claimed size into memory. Formats: POSIX ustar and pax (IEEE 1003.1-2001), GNU long names; gzip
(RFC 1952).
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from attestry.domain.errors import InvalidInputError
from attestry.domain.names import DistinctPaths

_BLOCK = 512
_CHUNK = 64 * 1024
_MAX_EXTENSION_BYTES = 64 * 1024
_FRAMING = 1024 * 1024
_FRAMING_PER_FILE = 4096
"""What headers and padding may add to the unpacked size, in bytes."""

_GZIP = 16 + zlib.MAX_WBITS
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


@dataclass(frozen=True)
class ArchiveLimits:
    """How much an archive may hold.

    Attributes:
        max_files: files and folders.
        max_bytes: size of the unpacked archive, in bytes.
        max_file_bytes: size of one file, in bytes.
    """

    max_files: int = 10_000
    max_bytes: int = 2 * 1024**3
    max_file_bytes: int = 2 * 1024**3


@dataclass(frozen=True)
class ArchiveEntry:
    """A file of an archive: its path and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class ArchiveMember:
    """A file of an archive while it is being read.

    Attributes:
        path: its path, checked.
        size: its size in bytes.
        stream: its content; valid until the next member is asked for. What is left unread is skipped.
    """

    path: str
    size: int
    stream: IO[bytes]


DEFAULT_LIMITS = ArchiveLimits()


def iterate_archive(stream: IO[bytes], limits: ArchiveLimits = DEFAULT_LIMITS, *, field: str = "archive") -> Iterator[ArchiveMember]:
    """Yield the files of a tar.gz stream, in its order.

    A broken rule may show only at the end, so nothing that was read counts before the iteration has ended without an
    error.

    Args:
        stream: the compressed bytes; read once, forwards.
        limits: how much it may hold.
        field: the field that errors name, for example `source.archive`.

    Raises:
        InvalidInputError: while iterating, at the first broken rule.
    """
    return _Reader(stream, limits, field).members()


def inspect_archive(stream: IO[bytes], limits: ArchiveLimits = DEFAULT_LIMITS, *, field: str = "archive") -> list[ArchiveEntry]:
    """Return the files of a tar.gz stream after checking every rule; arguments and errors as in `iterate_archive`."""
    return [ArchiveEntry(member.path, member.size) for member in iterate_archive(stream, limits, field=field)]


def read_archive_file(
    stream: IO[bytes], path: str, *, max_bytes: int, limits: ArchiveLimits = DEFAULT_LIMITS, field: str = "archive"
) -> bytes | None:
    """Return the content of one file of the archive, or None where there is no such file; the whole archive is checked.

    Raises:
        InvalidInputError: the archive breaks a rule, or the file has more than `max_bytes`.
    """
    content: bytes | None = None
    for member in iterate_archive(stream, limits, field=field):
        if member.path == path:
            if member.size > max_bytes:
                raise InvalidInputError.of(field, "file_size", f"'{path}' has {member.size} bytes; at most {max_bytes}")
            content = member.stream.read()
    return content


class _Gunzip:
    """The unpacked stream of one gzip member, in pieces of bounded size, with a limit on the whole."""

    def __init__(self, stream: IO[bytes], limit: int, field: str) -> None:
        self._stream = stream
        self._limit = limit
        self._field = field
        self._inflate = zlib.decompressobj(_GZIP)
        self._pending = b""
        self._buffer = b""
        self._total = 0

    def read(self, size: int) -> bytes:
        """Return `size` bytes (at most 64 KiB), or fewer at the end of the stream."""
        parts = [self._take(size)]
        missing = size - len(parts[0])
        while missing and self._fill():
            part = self._take(missing)
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Check that nothing follows the gzip member.

        Raises:
            InvalidInputError: something does.
        """
        if self._inflate.unused_data or self._pending or self._stream.read(1):
            raise _broken(self._field, "gzip", "more data follows the compressed archive")

    def _take(self, size: int) -> bytes:
        part, self._buffer = self._buffer[:size], self._buffer[size:]
        return part

    def _fill(self) -> bool:
        """Put more unpacked bytes into the buffer; False at the end."""
        while not self._inflate.eof:
            packed = self._pending or self._stream.read(_CHUNK)
            try:
                self._buffer = self._inflate.decompress(packed, _CHUNK)
            except zlib.error as error:
                raise _broken(self._field, "gzip", f"the archive is no gzip file, or damaged ({error})") from error
            self._pending = self._inflate.unconsumed_tail
            self._total += len(self._buffer)
            if self._total > self._limit:
                raise _broken(self._field, "unpacked_size", f"the archive unpacks to more than {self._limit} bytes")
            if self._buffer:
                return True
            if not packed:
                raise _broken(self._field, "gzip", "the archive ends too early")
        return False


class _Content(io.RawIOBase):
    """The content of one file; reads no further than its size."""

    def __init__(self, reader: _Reader, size: int) -> None:
        super().__init__()
        self._reader = reader
        self.size = size
        self.left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self.left, _CHUNK)
        part = self._reader.read_exactly(size)
        buffer[:size] = part
        self.left -= size
        return size


class _Reader:
    """Reads header after header."""

    def __init__(self, stream: IO[bytes], limits: ArchiveLimits, field: str) -> None:
        self._limits = limits
        self._field = field
        framing = _FRAMING + limits.max_files * _FRAMING_PER_FILE
        self._unpacked = _Gunzip(stream, limits.max_bytes + framing, field)
        self._paths = DistinctPaths(field)
        self._content = _Content(self, 0)
        self._entries = 0
        self._bytes = 0

    def members(self) -> Iterator[ArchiveMember]:
        extended: dict[str, str] = {}
        while (header := self._read_header()) is not None:
            if header.type in _PAX_TYPES:
                self._extend(extended, self._read_pax(header))
            elif header.type == tarfile.XGLTYPE:
                self._refuse_global(self._read_pax(header))
            elif header.type == tarfile.GNUTYPE_LONGNAME:
                self._extend(extended, {"path": self._decode(self._read_extension(header).rstrip(b"\0"))})
            else:
                member = self._open_member(header, extended)
                extended = {}
                if member is not None:
                    yield member
                    self._skip_rest()
        if extended:
            raise _broken(self._field, "tar", "an extension header describes no file")
        self._check_end()

    def read_exactly(self, size: int) -> bytes:
        """Return the next bytes of the unpacked stream.

        Raises:
            InvalidInputError: it ends before.
        """
        data = self._unpacked.read(size)
        if len(data) != size:
            raise _broken(self._field, "tar", "the archive ends too early")
        return data

    def _read_header(self) -> tarfile.TarInfo | None:
        """Return the next header, or None at the end marker."""
        block = self.read_exactly(_BLOCK)
        if not any(block):
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise _broken(self._field, "tar", f"a header of the archive cannot be read ({error})") from error
        if header.size < 0:
            raise _broken(self._field, "tar", "a header of the archive has a negative size")
        return header

    def _open_member(self, header: tarfile.TarInfo, extended: dict[str, str]) -> ArchiveMember | None:
        self._entries += 1
        if self._entries > self._limits.max_files:
            raise _broken(self._field, "entries", f"the archive has more than {self._limits.max_files} entries")
        path = _without_dot(extended.get("path", header.name))
        if header.type == tarfile.DIRTYPE:
            if path not in ("", "."):
                self._paths.add_folder(path.removesuffix("/"))
            if header.size:
                raise _broken(self._field, "tar", "a folder of the archive has content")
            return None
        if header.type not in _FILE_TYPES or any(name.startswith("GNU.sparse") for name in extended):
            kind = _KINDS.get(header.type, "of an unknown type" if header.type not in _FILE_TYPES else "a sparse file")
            raise _broken(self._field, "regular_files", f"{path!a} is {kind}; only files and folders are allowed")
        self._paths.add(path)
        size = self._size(path, header, extended)
        self._content = _Content(self, size)
        return ArchiveMember(path, size, io.BufferedReader(self._content, _CHUNK))

    def _size(self, path: str, header: tarfile.TarInfo, extended: dict[str, str]) -> int:
        text = extended.get("size", str(header.size))
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise _broken(self._field, "tar", f"the size of {path!a} cannot be read")
        size = int(text)
        self._bytes += size
        if size > self._limits.max_file_bytes:
            raise _broken(self._field, "file_size", f"{path!a} has {size} bytes; at most {self._limits.max_file_bytes}")
        if self._bytes > self._limits.max_bytes:
            raise _broken(self._field, "unpacked_size", f"the archive unpacks to more than {self._limits.max_bytes} bytes")
        return size

    def _skip_rest(self) -> None:
        """Read to the end of the latest file and its padding, whatever the caller did with its stream."""
        content = self._content
        while content.left:
            size = min(_CHUNK, content.left)
            self.read_exactly(size)
            content.left -= size
        self.read_exactly(-content.size % _BLOCK)

    def _extend(self, extended: dict[str, str], records: dict[str, str]) -> None:
        """Keep what an extension header says of the next file; one that says more than once could grow without end."""
        if extended:
            raise _broken(self._field, "tar", "a file has more than one extension header")
        extended.update(records)

    def _read_extension(self, header: tarfile.TarInfo) -> bytes:
        if header.size > _MAX_EXTENSION_BYTES:
            raise _broken(self._field, "tar", f"an extension header has more than {_MAX_EXTENSION_BYTES} bytes")
        data = self.read_exactly(header.size)
        self.read_exactly(-header.size % _BLOCK)
        return data

    def _read_pax(self, header: tarfile.TarInfo) -> dict[str, str]:
        """Return the records of a pax header: `<length> <keyword>=<value>` and a line feed, length counting the whole record."""
        data = self._read_extension(header)
        records: dict[str, str] = {}
        while data:
            length_text, _, _ = data.partition(b" ")
            length = int(length_text) if length_text.isdigit() and len(length_text) < 8 else 0
            record = data[len(length_text) + 1 : length]
            keyword, separator, value = record.removesuffix(b"\n").partition(b"=")
            if length <= len(length_text) or len(data) < length or not record.endswith(b"\n") or not separator:
                raise _broken(self._field, "tar", "a pax header cannot be read")
            records[self._decode(keyword)] = self._decode(value)
            data = data[length:]
        return records

    def _refuse_global(self, records: dict[str, str]) -> None:
        """Global headers may comment, as `git archive` does; they may not change the files that follow."""
        if {"path", "size", "linkpath", "hdrcharset"} & records.keys():
            raise _broken(self._field, "tar", "a global header renames or resizes files")

    def _decode(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _broken(self._field, "path_utf8", f"the name {raw[:80]!a} is not UTF-8") from error

    def _check_end(self) -> None:
        while block := self._unpacked.read(_CHUNK):
            if any(block):
                raise _broken(self._field, "tar", "more data follows the end of the archive")
        self._unpacked.close()


def _without_dot(path: str) -> str:
    return path.removeprefix("./") if path != "./" else "."


def _broken(field: str, rule: str, message: str) -> InvalidInputError:
    return InvalidInputError.of(field, rule, message)
