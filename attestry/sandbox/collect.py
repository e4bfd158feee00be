"""Takes over what a script left in an output folder: one tar.gz of plain files.

The archive depends on paths and contents alone (sorted, times 0, owner 0), so equal outputs give equal bytes.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
from pathlib import Path

from attestry.sandbox.errors import OutputError, UnsafeArchiveError
from attestry.sandbox.paths import check_distinct, check_relative_path

MAX_FILES = 100_000


def pack_folder(folder: Path, archive: Path, *, max_bytes: int) -> int:
    """Write a folder's files to a new tar.gz and return how many there are.

    No process of the script may be running any more.

    Args:
        folder: the output folder.
        archive: the file to write.
        max_bytes: limit of the files' sizes together.

    Raises:
        OutputError: a link, a special file, a path that breaks the rules, names that collide, or too much.
    """
    files = list_files(folder, max_bytes=max_bytes)
    with (
        archive.open("xb") as sink,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=sink, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path, size in files:
            info = tarfile.TarInfo(path)
            info.size = size
            info.mode = 0o644
            with os.fdopen(os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
                tar.addfile(info, stream)
    return len(files)


def list_files(folder: Path, *, max_bytes: int) -> list[tuple[str, int]]:
    """Return the files below a folder, sorted, each with its size in bytes.

    Raises:
        OutputError: as `pack_folder`.
    """
    files: list[tuple[str, int]] = []
    total = 0
    queue = [folder]
    if folder.is_symlink() or not folder.is_dir():
        raise OutputError(f"the output folder {folder.name!r} is no folder any more")
    while queue:
        for entry in os.scandir(queue.pop()):
            path = Path(entry.path)
            name = path.relative_to(folder).as_posix()
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                queue.append(path)
                continue
            if not stat.S_ISREG(status.st_mode):
                kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a special file"
                raise OutputError(f"output {name!r} is {kind}; only files are taken")
            files.append((name, status.st_size))
            total += status.st_size
            if total > max_bytes:
                raise OutputError(f"the output is larger than its limit of {max_bytes} bytes")
            if len(files) > MAX_FILES:
                raise OutputError(f"the output has more than {MAX_FILES} files")
    try:
        check_distinct(check_relative_path(name) for name, _ in files)
    except UnsafeArchiveError as error:
        raise OutputError(f"output: {error}") from error
    return sorted(files)
