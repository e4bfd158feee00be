"""The source of a candidate, out of git: what is packed, from which revision, and what differs from it.

Rules:
- What is packed is the folder of the manifest as `git archive` gives it at the revision, less the data files that the manifest uploads
  on their own. The paths in the archive are relative to that folder.
- The same revision gives the same bytes, so that the same submission again is the same candidate: entries in order of their names, no
  times, no owners, mode 0644 or 0755.
- A tree with changes that are not committed is refused. When it is allowed, the archive holds the tree as it is, and the difference to
  the revision is a file of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from attestry.domain.archive import inspect_archive
from attestry.domain.errors import AttestryError

# A user's settings must not change the bytes: no line-end conversion, no own tar filter, no own file modes.
_NEUTRAL: Final = ("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "tar.umask=0022", "-c", "core.quotePath=false")
_FOREIGN: Final = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE")
_SHOWN_CHANGES: Final = 20


class DirtyTreeError(AttestryError):
    """The tree has changes that are not committed.

    Attributes:
        changes: a line for each, as `git status --short` writes it.
    """

    code = "dirty_tree"
    status = 409

    def __init__(self, changes: Sequence[str]) -> None:
        self.changes = tuple(changes)
        shown = "\n".join(f"  {line}" for line in self.changes[:_SHOWN_CHANGES])
        more = f"\n  and {len(self.changes) - _SHOWN_CHANGES} more" if len(self.changes) > _SHOWN_CHANGES else ""
        super().__init__(
            f"uncommitted changes: {len(self.changes)}; commit them, or allow a dirty tree:\n{shown}{more}",
            details={"changes": list(self.changes)},
        )


class GitError(AttestryError):
    """Git cannot do what is needed here."""

    code = "git"
    status = 400


@dataclass(frozen=True)
class PackedSource:
    """A source archive with what git knows about it.

    Attributes:
        archive: the tar.gz.
        sha256: its digest, hex.
        revision: full commit ID.
        author: author of the commit, `name <address>`.
        repository: URL of the repository, without credentials.
        diff: `git diff --binary` from the revision to what was packed; None when they are the same.
    """

    archive: bytes
    sha256: str
    revision: str
    author: str
    repository: str
    diff: bytes | None = None

    @property
    def diff_sha256(self) -> str | None:
        """Digest of the difference, hex."""
        return None if self.diff is None else hashlib.sha256(self.diff).hexdigest()


def pack_source(folder: Path, *, revision: str | None = None, leave_out: Sequence[str] = (), allow_dirty: bool = False) -> PackedSource:
    """Pack a folder of a git repository.

    Args:
        folder: the manifest's folder.
        revision: commit to pack; by default, the one that is checked out.
        leave_out: paths below the folder that are uploaded on their own.
        allow_dirty: pack the tree as it is, changes and new files included.

    Raises:
        DirtyTreeError: there are uncommitted changes, and they are not allowed.
        GitError: no repository, no commit, no such revision, or a submodule.
        InvalidInputError: the tree holds what no archive may hold, for example a symbolic link.
    """
    git = _Git(folder)
    base = git.commit(revision or "HEAD")
    changes = git.changes(leave_out)
    if changes and not allow_dirty:
        raise DirtyTreeError(changes)
    tree = git.working_tree() if changes else f"{base}^{{tree}}"
    diff = git.diff(base, tree, leave_out) if changes else b""
    archive = git.archive(tree, leave_out)
    inspect_archive(io.BytesIO(archive), field="source.archive")
    return PackedSource(
        archive,
        hashlib.sha256(archive).hexdigest(),
        base,
        git.text("log", "-1", "--format=%an <%ae>", base),
        git.repository(),
        diff or None,
    )


class _Git:
    """Git, run in one folder without regard to the caller's own settings of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {k: v for k, v in os.environ.items() if k not in _FOREIGN} | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
        try:
            self._prefix = self.text("rev-parse", "--show-prefix").rstrip("/")
        except GitError as error:
            raise GitError(f"{folder} is in no git repository; a candidate names the revision that it was made from") from error

    def text(self, *arguments: str) -> str:
        """Return what a command prints, less the newline at its end."""
        return self.run(*arguments).decode("utf-8", "replace").rstrip("\n")

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> bytes:
        """Return what a command prints.

        Raises:
            GitError: it failed; with its own words.
        """
        command = ["git", *_NEUTRAL, *arguments]
        try:
            done = subprocess.run(  # noqa: S603 - the arguments are ours; nothing passes through a shell
                command, cwd=self._folder, env={**self._environment, **(environment or {})}, capture_output=True, check=False
            )
        except FileNotFoundError as error:
            raise GitError("git is not installed, or the folder does not exist") from error
        if done.returncode:
            told = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise GitError(f"git {arguments[0]} failed: {told[-1] if told else done.returncode}")
        return done.stdout

    def commit(self, revision: str) -> str:
        """Return the full ID of a commit."""
        try:
            return self.text("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        except GitError as error:
            what = "the repository has no commit yet" if revision == "HEAD" else f"the repository has no commit {revision}"
            raise GitError(what) from error

    def changes(self, leave_out: Sequence[str]) -> list[str]:
        """Return a line for each uncommitted change below the folder, new files included."""
        raw = self.run("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--", *_pathspec(leave_out))
        return [entry for entry in raw.decode("utf-8", "replace").split("\0") if entry]

    def working_tree(self) -> str:
        """Return the ID of a tree that holds the folder as it is; neither the index nor a file is touched."""
        with tempfile.TemporaryDirectory(prefix="attestry-") as scratch:
            own = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            self.run("read-tree", "HEAD", environment=own)
            self.run("add", "--all", "--", ".", environment=own)
            return self.run("write-tree", environment=own).decode().strip()

    def diff(self, base: str, tree: str, leave_out: Sequence[str]) -> bytes:
        """Return the difference between a commit and a tree below the folder, in a form that `git apply` takes."""
        plain = ("--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")
        return self.run("diff", *plain, base, tree, "--", *_pathspec(leave_out))

    def archive(self, tree: str, leave_out: Sequence[str]) -> bytes:
        """Return a tree's part below the folder as tar.gz that depends on nothing but its content."""
        listing = self.run("ls-tree", "-r", "-z", tree, "--", ".").decode("utf-8", "replace").split("\0")
        submodules = [line.partition("\t")[2] for line in listing if line.startswith("160000 ")]
        if submodules:
            raise GitError(f"{submodules[0]} is a submodule, which git does not archive; commit its files instead")
        tar = self.run("archive", "--format=tar", tree, "--", *_pathspec(leave_out))
        return _repack(tar)

    def repository(self) -> str:
        """Return the URL of `origin` without credentials, or of the folder itself where there is no remote."""
        try:
            return _without_credentials(self.text("remote", "get-url", "origin"))
        except GitError:
            return Path(self.text("rev-parse", "--show-toplevel")).as_uri()


def _pathspec(leave_out: Sequence[str]) -> list[str]:
    return [".", *(f":(exclude,literal){path}" for path in leave_out)]


def _repack(tar: bytes) -> bytes:
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as given,
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as made,
    ):
        for member in sorted((m for m in given.getmembers() if not m.isdir()), key=lambda m: m.name):
            entry = tarfile.TarInfo(member.name)
            entry.type, entry.linkname, entry.size = member.type, member.linkname, member.size
            entry.mode = 0o755 if member.mode & 0o100 else 0o644
            made.addfile(entry, given.extractfile(member) if member.isfile() else None)
    return packed.getvalue()


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        user, _, host = parts.netloc.rpartition("@")
        # In SSH the user is part of the address and no secret; in HTTP it may be a token.
        kept = f"{user.partition(':')[0]}@{host}" if parts.scheme == "ssh" else host
        return urlunsplit(parts._replace(netloc=kept))
    return Path(url).resolve().as_uri() if not parts.scheme and ":" not in url else url
