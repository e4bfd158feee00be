"""The rows of a table are saved in a file of their own, to which each saving adds those that changed.

Rules:
- The state of tables (`dynamodb.json`) names each table's file and how much of it counts. What is written behind that counts once the state
  that says so is there, which is replaced whole: so a saving that fails, or is ended, leaves what was saved before.
- Rows that changed are written until the state on the disk counts them; who saves in a copy of the process reads that state
  afterwards (`settle`), for nothing else tells how far the copy came.
- A file begins anew where a table's rows were replaced, and where it holds far more changes than the table has rows.

A file is a sequence of blocks: eight bytes that say how long it is, then in the form of `marshal` a list of partition key, sort key
and packed row; None for a row that was deleted.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import secrets
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from attestry.local.packed import Items

__all__ = ["FOLDER", "MARK", "STATE", "RowFile", "lost_from", "named_in"]

FOLDER = "rows"
STATE = "dynamodb.json"
MARK = "attestry:rows"
"""In the place of a table's rows the state has this, with the name of the file, its length that counts, and its number of changes."""

_BLOCK = 2048
_HEADER_BYTES = 8
_WORN = 4
_WORN_FROM = 100_000
_VERSION = 2  # rows are bytes already, and each key is there once

Keys = dict[tuple[str, str], None]


class RowFile:
    """A table's file, and which rows changed since it was written.

    Attributes:
        name: of the file, None before the first saving.
        changed: keys of the rows that changed since the last saving began.
    """

    def __init__(self, name: str | None = None, length: int = 0, changes: int = 0) -> None:
        self.name = name
        self.changed: Keys = {}
        self._length, self._changes = length, changes
        self._handed: Keys = {}

    def hand_over(self, rows: int) -> None:
        """Begin a saving: the rows that change from here on belong to the next.

        Args:
            rows: how many the table has.
        """
        self._handed |= self.changed
        self.changed = {}
        if self.name is None or self._changes > _WORN * rows + _WORN_FROM:
            self.name, self._length, self._changes = secrets.token_hex(8), 0, 0

    def write(self, items: Items, folder: Path) -> dict[str, Any]:
        """Write what changed, and return what stands for the rows in the state.

        Args:
            items: the table's rows.
            folder: of the state.

        Raises:
            OSError: the file cannot be written.
            ValueError: a row holds what cannot be written.
        """
        if self.name is None:
            self.hand_over(0)
        changes = self._changes
        path = folder / FOLDER / str(self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if self._length else "wb") as file:
            file.truncate(self._length)
            file.seek(self._length)
            waiting = self._all_of(items) if not self._length else self._changed_in(items)
            while block := list(islice(waiting, _BLOCK)):
                written = marshal.dumps(block, _VERSION)
                file.write(len(written).to_bytes(_HEADER_BYTES, "little") + written)
                changes += len(block)
            length = file.tell()
            file.flush()
            os.fsync(file.fileno())
        return {MARK: {"name": self.name, "length": length, "changes": changes}}

    def settle(self, saved: Mapping[str, Mapping[str, Any]]) -> bool:
        """End a saving, and return whether the state counts what was handed over.

        Args:
            saved: what the state on the disk says of each file, by its name.
        """
        found = saved.get(self.name or "")
        if found is None or (self._handed and found["length"] <= self._length):
            return False
        self._length, self._changes, self._handed = found["length"], found["changes"], {}
        return True

    def _changed_in(self, items: Items) -> Iterator[tuple[str, str, Any]]:
        for partition_key, sort_key in {**self._handed, **self.changed}:
            partition = items.get(partition_key)
            yield partition_key, sort_key, None if partition is None else partition.packed(sort_key)

    @staticmethod
    def _all_of(items: Items) -> Iterator[tuple[str, str, Any]]:
        for partition_key, partition in list(items.items()):
            for sort_key, packed in list(partition.all_packed()):
                yield partition_key, sort_key, packed


def blocks_of(path: Path, length: int) -> Iterator[list[tuple[str, str, Any]]]:
    """Yield the blocks of a file, as far as they count.

    Raises:
        OSError: there is no such file.
        ValueError: it is shorter, or no file of rows.
    """
    with path.open("rb") as file:
        while file.tell() < length:
            size = int.from_bytes(_read(file, _HEADER_BYTES), "little")
            block: list[tuple[str, str, Any]] = marshal.loads(_read(file, size))  # noqa: S302 (our own file, beside the root key)
            yield block


def _read(file: BinaryIO, size: int) -> bytes:
    found = file.read(size)
    if len(found) != size:
        raise ValueError(f"{file.name} ends before its length")
    return found


def named_in(state: Path) -> dict[str, dict[str, Any]] | None:
    """Return what the state of tables says of each file of rows, by its name; None where there is no state that can be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        tables = json.loads(state.read_text(encoding="utf-8"))["payload"]["tables"]["data"].values()
        found = [table["items"][MARK] for table in tables if MARK in table["items"]]
        return {str(one["name"]): one for one in found}
    return None


def lost_from(folder: Path) -> list[str]:
    """Return the files of rows that a state names and that are not there, or end before what counts of them, by their names.

    Args:
        folder: of the state.
    """
    found = []
    for name, mark in (named_in(folder / STATE) or {}).items():
        path = folder / FOLDER / name
        if not path.is_file() or path.stat().st_size < mark["length"]:
            found.append(name)
    return sorted(found)
