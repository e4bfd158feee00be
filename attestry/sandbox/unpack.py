"""Unpacks archives that strangers wrote: files and folders only, below one folder, within limits.

Links, devices and sockets are refused by name, as are paths that break the rules of `paths`; all of this is checked before the
first byte is written. Owners, times and special mode bits of the archive are ignored.
"""

from __future__ import annotations

import concurrent.futures
import gzip
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from attestry.sandbox.errors import UnsafeArchiveError
from attestry.sandbox.paths import check_distinct, check_relative_path

CHUNK = 1 << 20
COMPARED = 1 << 18
WORKERS = 2

Inventory = dict[str, str]
"""Relative path to SHA-256 in hex."""


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to: `size` in bytes in all, and number of `entries`."""

    size: int
    entries: int = 100_000


SOURCE_LIMITS = Limits(size=2 << 30)
ENVIRONMENT_LIMITS = Limits(size=8 << 30, entries=400_000)
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)


def unpack_tar(archive: Path, destination: Path, limits: Limits = SOURCE_LIMITS) -> list[str]:
    """Unpack a tar, compressed or not, into a new folder and return the paths of its files.

    Raises:
        UnsafeArchiveError: an entry breaks a rule, or the archive is damaged or too large.
    """
    try:
        with tarfile.open(archive, "r:*") as tar:
            files = _checked_tar_files(tar, limits)
            destination.mkdir(parents=True)
            for member, path in files:
                stream = tar.extractfile(member)
                if stream is None:
                    raise UnsafeArchiveError(f"{path!r} cannot be read")
                with stream:
                    _write(stream, destination / path, executable=bool(member.mode & stat.S_IXUSR))
    except _DAMAGED as error:
        raise UnsafeArchiveError(f"the archive is damaged: {error}") from error
    return [path for _, path in files]


def unpack_zip(archive: Path, destination: Path, limits: Limits = ENVIRONMENT_LIMITS) -> Inventory:
    """Unpack a zip into a new folder and return what was written.

    Two threads share the work: inflating releases the interpreter's lock.

    Raises:
        UnsafeArchiveError: an entry breaks a rule, or the archive is damaged or too large.
    """
    try:
        with zipfile.ZipFile(archive) as index:
            members = _checked_zip_files(index, limits)
        destination.mkdir(parents=True)
        shares = [members[start::WORKERS] for start in range(WORKERS)]
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            parts = list(pool.map(lambda share: _unpack_share(archive, destination, share), shares))
    except _DAMAGED as error:
        raise UnsafeArchiveError(f"the archive is damaged: {error}") from error
    return {path: digest for part in parts for path, digest in part.items()}


def _checked_tar_files(tar: tarfile.TarFile, limits: Limits) -> list[tuple[tarfile.TarInfo, str]]:
    files: list[tuple[tarfile.TarInfo, str]] = []
    total = 0
    for entries, member in enumerate(tar, start=1):
        total += member.size
        _check_limits(entries, total, limits)
        name = member.name.removeprefix("./").rstrip("/")
        if member.isdir() and name in {"", "."}:
            continue
        path = check_relative_path(name)
        if member.isreg():
            files.append((member, path))
        elif not member.isdir():
            raise UnsafeArchiveError(f"{path!r} is a link or a special file")
    check_distinct(path for _, path in files)
    return files


def _checked_zip_files(index: zipfile.ZipFile, limits: Limits) -> list[zipfile.ZipInfo]:
    members = []
    total = 0
    for entries, info in enumerate(index.infolist(), start=1):
        total += info.file_size
        _check_limits(entries, total, limits)
        path = check_relative_path(info.filename.rstrip("/") if info.is_dir() else info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise UnsafeArchiveError(f"{path!r} is a link or a special file")
        if not info.is_dir():
            members.append(info)
    check_distinct(info.filename for info in members)
    return members


def _unpack_share(archive: Path, destination: Path, members: Sequence[zipfile.ZipInfo]) -> Inventory:
    with zipfile.ZipFile(archive) as index:
        written = {}
        for info in members:
            with index.open(info) as stream:
                executable = bool((info.external_attr >> 16) & stat.S_IXUSR)
                written[info.filename] = _write(stream, destination / info.filename, executable=executable)
        return written


def _check_limits(entries: int, total: int, limits: Limits) -> None:
    if entries > limits.entries or total > limits.size:
        raise UnsafeArchiveError(f"the archive unpacks to more than {limits.entries} entries or {limits.size} bytes")


def _write(stream: IO[bytes], target: Path, *, executable: bool) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as sink:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            sink.write(chunk)
    if executable:
        target.chmod(0o755)
    return digest.hexdigest()


def differs_from_inventory(folder: Path, inventory: Inventory) -> str | None:
    """Return the first path below the folder that is not exactly what the inventory says, or None.

    Added, missing and changed files differ, and so do links and special files.
    """
    found = dict(_walk(str(folder)))
    strange = [name for name, is_plain in found.items() if not is_plain or name not in inventory] or inventory.keys() - found.keys()
    if strange:
        return min(strange)
    names = sorted(inventory)
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        shares = pool.map(lambda start: _first_other(folder, inventory, names[start::WORKERS]), range(WORKERS))
        return min((name for name in shares if name is not None), default=None)


def _walk(folder: str, below: str = "") -> Iterator[tuple[str, bool]]:
    """Find what is no folder, by its path, and whether it is a plain file; an environment has ten thousand, so no file is asked twice."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{below}{entry.name}/")
            else:
                yield f"{below}{entry.name}", entry.is_file(follow_symlinks=False)


def _first_other(folder: Path, inventory: Inventory, names: Sequence[str]) -> str | None:
    """Return the first of the files whose bytes are other ones."""
    chunk = memoryview(bytearray(COMPARED))
    for name in names:
        digest = hashlib.sha256()
        with (folder / name).open("rb", buffering=0) as stream:
            while size := stream.readinto(chunk):
                digest.update(chunk[:size])
        if digest.hexdigest() != inventory[name]:
            return name
    return None


def remove_tree(folder: Path) -> None:
    """Remove a folder whatever its modes are; a missing one is fine.

    Raises:
        OSError: it cannot be removed.
    """
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
        return
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except PermissionError:
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder)
