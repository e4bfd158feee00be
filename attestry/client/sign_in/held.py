"""What is kept of sign-ins on this machine: a folder of the user's own with two files.

    tokens.json     tokens of who is signed in, by the address of the registry that each is for
    settings.json   how somebody signed in there, so that `attestry login` alone does it again; nothing secret, and kept after a sign-out

Rules:
- The folder is 0700 and a file 0600. What others may read or write, or somebody else owns, is refused and not repaired: it may have been
  read.
- A file is replaced in one step, so that whoever reads without the lock sees the one before or the one after.
- Whoever changes a file holds the lock, from before it reads until after it has written.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from attestry.client.errors import SignInError
from attestry.client.sign_in.settings import SignInSettings, registry_address
from attestry.domain.errors import InvalidInputError, UnavailableError

TOKENS: Final = "tokens.json"
SETTINGS: Final = "settings.json"
LOCK: Final = "lock"
FOLDER_VARIABLE: Final = "ATTESTRY_SETTINGS"
LOCK_SECONDS: Final = 60
"""Longer than a refresh takes whose every request runs into its timeout."""

_FORMAT: Final = 1
_MAX_BYTES: Final = 1024 * 1024
_Kept = TypeVar("_Kept")


@dataclass(frozen=True)
class SignIn:
    """Who is signed in to a registry, and by what.

    Attributes:
        settings: how.
        subject: `sub` of the ID token.
        name: what the provider calls them, for people to read.
        bearer: the token that goes to the registry.
        refresh: the refresh token; empty where the provider gave none.
        ends_at: when the token ends, in seconds since the epoch.
    """

    settings: SignInSettings
    subject: str
    name: str
    bearer: str = field(repr=False)
    refresh: str = field(repr=False)
    ends_at: int

    def to_item(self) -> dict[str, Any]:
        """Return what is kept."""
        told = {"subject": self.subject, "name": self.name, "bearer": self.bearer, "refresh": self.refresh, "ends_at": self.ends_at}
        return {**self.settings.to_item(), **told}

    @classmethod
    def from_item(cls, api_url: str, item: Mapping[str, Any]) -> SignIn:
        """Return what was kept.

        Raises:
            InvalidInputError: it is not what is kept of a sign-in.
        """
        texts = [item.get(name) for name in ("subject", "name", "bearer", "refresh")]
        ends_at = item.get("ends_at")
        if not all(isinstance(text, str) for text in texts) or type(ends_at) is not int:
            raise InvalidInputError.of("sign_ins", "format", "a sign-in has subject, name, bearer, refresh and ends_at")
        subject, name, bearer, refresh = map(str, texts)
        return cls(SignInSettings.from_item(api_url, item), subject, name, bearer, refresh, ends_at)


class HeldSignIns:
    """The folder with both files.

    Args:
        folder: where; by default `user_folder()`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or user_folder()

    def find(self, api_url: str) -> SignIn | None:
        """Return who is signed in to a registry, or None.

        Raises:
            SignInError: the file is not the user's own alone, or cannot be read.
            InvalidInputError: the address is none.
        """
        where = registry_address(api_url)
        item = self._read(TOKENS).get(where)
        return self._parsed(SignIn.from_item, where, item, TOKENS) if item is not None else None

    def signed_in(self) -> tuple[str, ...]:
        """Return the addresses of the registries that somebody is signed in to, in the order of their sign-ins; errors as of `find`."""
        return tuple(self._read(TOKENS))

    def settings(self, api_url: str) -> SignInSettings | None:
        """Return how somebody signed in to a registry last, or None; errors as of `find`."""
        where = registry_address(api_url)
        item = self._read(SETTINGS).get(where)
        return self._parsed(SignInSettings.from_item, where, item, SETTINGS) if item is not None else None

    def latest(self) -> str:
        """Return the address of the registry that was signed in to last, empty where none was; errors as of `find`."""
        return next(reversed(self._read(SETTINGS)), "")

    def keep(self, sign_in: SignIn) -> None:
        """Keep a sign-in as the latest; the caller holds the lock. Errors as of `find`."""
        where = sign_in.settings.api_url
        for name, item in ((SETTINGS, sign_in.settings.to_item()), (TOKENS, sign_in.to_item())):
            others = {key: value for key, value in self._read(name).items() if key != where}
            self._write(name, {**others, where: item})

    def renew(self, sign_in: SignIn) -> None:
        """Put a sign-in in the place of the one before; the caller holds the lock. Errors as of `find`."""
        self._write(TOKENS, {**self._read(TOKENS), sign_in.settings.api_url: sign_in.to_item()})

    def drop(self, api_url: str) -> None:
        """Forget the tokens for a registry, and delete the file with the last of them; the caller holds the lock. Errors as of `find`."""
        where = registry_address(api_url)
        left = {key: value for key, value in self._read(TOKENS).items() if key != where}
        if left:
            self._write(TOKENS, left)
        else:
            (self.folder / TOKENS).unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the lock, among processes and among threads.

        Raises:
            UnavailableError: somebody else holds it for longer.
            SignInError: the folder is not the user's own.
        """
        self._make_folder()
        deadline = time.monotonic() + seconds
        descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            while not _lock(descriptor):
                if time.monotonic() > deadline:
                    raise UnavailableError(f"another process holds {self.folder / LOCK}")
                time.sleep(0.02)
            yield
        finally:
            # Closing lets go of the lock.
            os.close(descriptor)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return {}
        except OSError as error:
            raise SignInError(f"{path} cannot be read: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            self._check_own(path, os.fstat(file.fileno()))
            content = file.read(_MAX_BYTES)
        try:
            document = json.loads(content)
        except ValueError as error:
            raise SignInError(_unreadable(path)) from error
        kept = document.get("sign_ins") if isinstance(document, dict) and document.get("format") == _FORMAT else None
        if not isinstance(kept, dict):
            raise SignInError(_unreadable(path))
        return kept

    def _parsed(self, parse: Callable[[str, Mapping[str, Any]], _Kept], where: str, item: Any, name: str) -> _Kept:
        try:
            return parse(where, item)
        except (InvalidInputError, AttributeError) as error:
            raise SignInError(_unreadable(self.folder / name)) from error

    def _write(self, name: str, kept: Mapping[str, Any]) -> None:
        """Replace a file in one step: a new one beside it, on the disk before it gets the name."""
        self._make_folder()
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"format": _FORMAT, "sign_ins": kept}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_own(self.folder, self.folder.lstat())
        except OSError as error:
            raise SignInError(f"{self.folder} cannot be made: {error.strerror}") from error

    def _check_own(self, path: Path, found: os.stat_result) -> None:
        # Windows has no such bits: there a user's folder is theirs by its access list.
        if sys.platform == "win32":
            return
        if found.st_uid != os.geteuid():
            raise SignInError(f"{path} belongs to another user")
        if stat.S_IMODE(found.st_mode) & 0o077:
            keep = "700" if stat.S_ISDIR(found.st_mode) else "600"
            raise SignInError(
                f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):o}), who may have read it: `chmod {keep} {path}`, and "
                "sign out: attestry logout"
            )


def user_folder() -> Path:
    """Return the folder for the user's settings of this program: ATTESTRY_SETTINGS, else as the XDG Base Directory Specification has it."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    told = Path(os.environ.get("XDG_CONFIG_HOME") or (os.environ.get("APPDATA", "") if sys.platform == "win32" else ""))
    if told.is_absolute():
        return told / "attestry"
    try:
        return Path.home() / ".config" / "attestry"
    except RuntimeError:
        # A user without a home, in a container: nothing is kept there, and nothing can be.
        return Path(os.devnull) / "attestry"


def _unreadable(path: Path) -> str:
    return f"{path} is not what a sign-in leaves: delete it, and sign in again: attestry login"


def _lock(descriptor: int) -> bool:
    """Return whether the lock could be taken."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
