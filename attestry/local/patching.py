"""Replacing parts of the emulator in the running process, never in its files.

Rules:
- A patch names the exact release it was written for and, for every function or text it replaces, the digest or the text
  that it expects to find. Anything else raises `PatchError` before the server takes its first request: an emulator that
  only seems patched would make tests pass for the wrong reason.
- A patch changes behaviour towards what AWS documents; it never grants what the emulator denies.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Any, cast

EMULATOR = "ministack"
EMULATOR_VERSION = "1.5.33"


class PatchError(RuntimeError):
    """The emulator is not what the patches were written for."""


def check_version() -> None:
    """Refuse any release but the one the patches were written for.

    Raises:
        PatchError: another release, or none, is installed.
    """
    try:
        found = importlib.metadata.version(EMULATOR)
    except importlib.metadata.PackageNotFoundError as error:
        raise PatchError(f"{EMULATOR} is not installed: pip install '{EMULATOR}=={EMULATOR_VERSION}'") from error
    if found != EMULATOR_VERSION:
        raise PatchError(f"{EMULATOR} {found} is installed, {EMULATOR_VERSION} is needed")


def load(name: str) -> Any:
    """Import a module of the emulator.

    Raises:
        PatchError: there is no such module.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PatchError(f"the emulator has no module {name}: {error}") from error


def applied_to_tables(patch: Callable[[Any], None]) -> Callable[[], None]:
    """Return what applies a patch to the emulator's module of DynamoDB; tests apply the same patch to a copy of that module.

    Args:
        patch: takes the module, and raises `PatchError` where it is not what the patch was written for.
    """
    return lambda: patch(load("ministack.services.dynamodb"))


def source_digest(function: Callable[..., Any]) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a function's source."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


def expect(owner: Any, name: str, digest: str) -> Callable[..., Any]:
    """Return a function of the emulator if its source is the expected one.

    Args:
        owner: module or class that holds the function.
        name: its name there.
        digest: what `source_digest` gave when the patch was written.

    Raises:
        PatchError: the function is missing or has other source.
    """
    where = f"{getattr(owner, '__name__', owner)}.{name}"
    function = getattr(owner, name, None)
    if function is None:
        raise PatchError(f"the emulator has no {where}")
    found = source_digest(function)
    if found != digest:
        raise PatchError(f"{where} is not the function the patch replaces: its source has digest {found}, not {digest}")
    return cast("Callable[..., Any]", function)


def replace(owner: Any, name: str, digest: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function of the emulator by one made from it.

    Args:
        owner: module or class that holds the function.
        name: its name there.
        digest: what `source_digest` gave when the patch was written.
        make: takes the original, returns the replacement.

    Raises:
        PatchError: the function is missing or has other source.
    """
    setattr(owner, name, make(expect(owner, name, digest)))


def share(source: Any, name: str, target: Any) -> None:
    """Give a replaced function also to a module that imported the original by name.

    Raises:
        PatchError: the module has no such name.
    """
    if not hasattr(target, name):
        raise PatchError(f"{target.__name__} does not import {name}")
    setattr(target, name, getattr(source, name))


def replace_text(owner: Any, name: str, changes: list[tuple[str, str]]) -> None:
    """Replace passages of a text constant of the emulator.

    Args:
        owner: module that holds the text.
        name: its name there.
        changes: pairs of a passage, which must occur exactly once, and what takes its place.

    Raises:
        PatchError: a passage is missing or occurs more than once.
    """
    text = getattr(owner, name, None)
    if not isinstance(text, str):
        raise PatchError(f"{owner.__name__}.{name} is not a text")
    for old, new in changes:
        if text.count(old) != 1:
            raise PatchError(f"{owner.__name__}.{name} holds {text.count(old)} times the passage {old!r}")
        text = text.replace(old, new)
    setattr(owner, name, text)
