"""The rows of a table of the embedded AWS, packed: a tenth of the memory that a row takes as dictionaries in dictionaries.

Rules:
- A row is read as a copy of its own. Who changes what was read has not changed the row; rows are changed by `put` and `take` alone.
- A row's size in bytes, as DynamoDB counts it, stands behind its packed form and is counted once.
- Rows, their order and the order in which they expire change together, under `CHANGING`: the emulator reads and writes rows in more
  than one thread.
"""

from __future__ import annotations

import functools
import marshal
import math
import threading
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping
from typing import Any, NoReturn, cast

from attestry.local.ordered import Ordered
from attestry.local.row_files import RowFile

__all__ = ["CHANGING", "COUNTED", "LATEST", "Items", "Packed", "Partition", "Row", "pack", "size_of", "size_of_row", "unpack"]

Row = dict[str, Any]
Packed = bytes | Row

CHANGING = threading.RLock()
"""Held while a row changes, and while rows are picked by their order."""


class Latest(threading.local):
    """The row that a thread put last, and the one that was in its place, with their packed forms; who needs these packs nothing anew."""

    row: Row | None = None
    packed: Packed | None = None
    before: Row | None = None
    before_packed: Packed | None = None

    def note(self, row: Row | None, packed: Packed | None, before: Row | None, before_packed: Packed | None) -> None:
        """Note a row that was put, or taken."""
        self.row, self.packed, self.before, self.before_packed = row, packed, before, before_packed

    def packed_of(self, row: Row) -> Packed:
        """Return a row's packed form: the one that is held already where it is this row's."""
        if row is self.row and self.packed is not None:
            return self.packed
        if self.before_packed is not None and row == self.before:
            return self.before_packed
        return pack(row)


_VERSION = 4  # a name that a row has more than once is written once
_SIZE_BYTES = 3  # a row has 400 KiB at most, what an update tried to make of it some more
_LARGEST = 256**_SIZE_BYTES - 1
_NUMBERS = 4096
_FEW = 64
"""A partition with fewer rows is sorted when it is asked."""


class Counted(threading.local):
    """Sizes of rows that are not changed any more while a thread answers a request, by the rows' identities; None where that is unknown."""

    sizes: dict[int, int] | None = None


LATEST = Latest()
COUNTED = Counted()


def pack(row: Row) -> Packed:
    """Return a row as bytes, its size behind them; a row that holds what JSON has not, as it is."""
    try:
        written = marshal.dumps(row, _VERSION)
    except ValueError:
        return row
    size = COUNTED.sizes.get(id(row)) if COUNTED.sizes else None
    behind: bytes = min(size_of_row(row) if size is None else size, _LARGEST).to_bytes(_SIZE_BYTES, "little")
    return written + behind


def unpack(packed: Packed) -> Row:
    """Return the row that was packed."""
    # What stands behind a value is not read.
    return cast("Row", marshal.loads(packed)) if type(packed) is bytes else cast("Row", packed)  # noqa: S302 (written here)


def size_of(packed: Packed) -> int:
    """Return the size of a packed row in bytes, as DynamoDB counts it."""
    return int.from_bytes(packed[-_SIZE_BYTES:], "little") if type(packed) is bytes else size_of_row(cast("Row", packed))


def size_of_row(row: Any) -> int:
    """Return the size of a row in bytes, as DynamoDB counts it and as the emulator does: of its names and of its values."""
    if not isinstance(row, dict):
        return 0
    size = 0
    for name, value in row.items():
        size += (len(name) if name.isascii() else len(name.encode())) + _size_in(value)
    return size


def _size_in(value: Any) -> int:
    """Return the size of a value: here for the kinds that rows have most, otherwise as the emulator counts it."""
    if type(value) is dict and len(value) == 1:
        ((kind, inner),) = value.items()
        if kind == "S" and type(inner) is str:
            return len(inner) if inner.isascii() else len(inner.encode())
        if kind == "N" and type(inner) is str:
            return _size_of_number(inner)
        if kind in ("BOOL", "NULL"):
            return 1
        if kind == "M" and type(inner) is dict:
            return 3 + len(inner) + size_of_row(inner)
        if kind == "L" and type(inner) is list:
            return 3 + sum(1 + _size_in(one) for one in inner if isinstance(one, dict))
    return _size_of_value(value)


@functools.lru_cache(_NUMBERS)
def _size_of_number(text: str) -> int:
    return _size_of_value({"N": text})


def _not_loaded(value: Any) -> int:
    raise RuntimeError(f"the size of {value!r} was asked before the tables were patched")


_size_of_value: Callable[[Any], int] = _not_loaded


def use_sizes(count: Callable[[Any], int]) -> None:
    """Count values that are no strings by the emulator's own function."""
    global _size_of_value
    _size_of_value = count


class Partition(dict[str, Any]):
    """Rows of one partition key by their sort key, packed. It looks like the dictionary of dictionaries that the emulator has."""

    __slots__ = ("_order",)
    _order: Ordered | None

    def __init__(self) -> None:
        super().__init__()
        self._order = None

    def put(self, sort_key: str, packed: Packed) -> None:
        """Put a packed row in the place of the one with its key, or beside the others."""
        if self._order is not None and sort_key not in self:
            self._order.add(sort_key)
        super().__setitem__(sort_key, packed)

    def take(self, sort_key: str) -> Packed | None:
        """Take a row away, and return it packed; None where there was none."""
        if self._order is not None:
            self._order.discard(sort_key)
        taken: Packed | None = super().pop(sort_key, None)
        return taken

    def packed(self, sort_key: str) -> Packed | None:
        """Return a row as it is held, or None."""
        found: Packed | None = super().get(sort_key)
        return found

    def all_packed(self) -> ItemsView[str, Packed]:
        """Return all sort keys with their rows as they are held."""
        return super().items()

    def order(self) -> Ordered:
        """Return the sort keys in their order, which is kept from then on where there are many."""
        if self._order is not None:
            return self._order
        order = Ordered(self)
        if len(order) > _FEW:
            self._order = order
        return order

    def __getitem__(self, sort_key: str) -> Row:
        return unpack(super().__getitem__(sort_key))

    def get(self, sort_key: str, default: Any = None) -> Any:
        """Return a row, or what else is given."""
        packed = super().get(sort_key)
        return default if packed is None else unpack(packed)

    def values(self) -> Any:
        """Return the rows, all read at once."""
        return {key: unpack(packed) for key, packed in list(super().items())}.values()

    def items(self) -> Any:
        """Return sort keys and rows, all read at once."""
        return {key: unpack(packed) for key, packed in list(super().items())}.items()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and dict(self.items()) == dict(other.items())

    __hash__ = None  # as no dictionary has

    def __deepcopy__(self, memo: Any) -> Partition:
        copied = Partition()
        for key, packed in list(super().items()):
            dict.__setitem__(copied, key, packed if type(packed) is bytes else pack(unpack(packed)))
        return copied

    def __copy__(self) -> Partition:
        return self.__deepcopy__(None)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("rows are changed by Items.put and Items.take")

    __setitem__ = __delitem__ = setdefault = pop = popitem = update = clear = __ior__ = _refuse


def no_file() -> None:
    """Rows are not saved."""


file_of_new_rows: Callable[[], RowFile | None] = no_file
"""Makes what notes which rows of a table changed, where rows are saved."""


class Items(dict[str, Any]):
    """A table's rows: partitions by their key. It takes the place of `defaultdict(dict)`, and of its arguments, in the emulator.

    Args:
        _: what makes a partition of the emulator's.
        rows: by partition key and sort key.
    """

    def __init__(self, _: Callable[[], Any] = dict, rows: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        super().__init__()
        self.file = file_of_new_rows()
        self._expires: str | None = None
        self._expiry = Ordered()
        for partition_key, partition in (rows or {}).items():
            if isinstance(partition, Partition):
                dict.__setitem__(self, partition_key, partition.__copy__())
                continue
            for sort_key, row in partition.items():
                self.put(partition_key, sort_key, row)

    def put(self, partition_key: str, sort_key: str, row: Row) -> Row | None:
        """Put a row in the place of the one with its keys, and return that one; None where there was none."""
        with CHANGING:
            partition = dict.get(self, partition_key)
            if partition is None:
                partition = Partition()
                dict.__setitem__(self, partition_key, partition)
            before_packed = partition.packed(sort_key)
            before = None if before_packed is None else unpack(before_packed)
            packed = pack(row)
            partition.put(sort_key, packed)
            if self.file is not None:
                self.file.changed[partition_key, sort_key] = None
            self._note_expiry(partition_key, sort_key, before, row)
        LATEST.note(row, packed, before, before_packed)
        return before

    def take(self, partition_key: str, sort_key: str) -> Row | None:
        """Take a row away, and return it; None where there was none. A partition without rows is none."""
        with CHANGING:
            partition = dict.get(self, partition_key)
            packed = partition.take(sort_key) if partition is not None else None
            if partition is not None and not partition:
                dict.__delitem__(self, partition_key)
            if packed is None:
                return None
            before = unpack(packed)
            if self.file is not None:
                self.file.changed[partition_key, sort_key] = None
            self._note_expiry(partition_key, sort_key, before, None)
        LATEST.note(None, None, before, packed)
        return before

    def restore(self, block: Iterable[tuple[str, str, Packed | None]]) -> None:
        """Take up rows that were saved, in the order in which they changed; None for one that was deleted."""
        for partition_key, sort_key, packed in block:
            partition = dict.get(self, partition_key)
            if packed is not None:
                if partition is None:
                    partition = Partition()
                    dict.__setitem__(self, partition_key, partition)
                partition.put(sort_key, packed)
            elif partition is not None:
                partition.take(sort_key)
                if not partition:
                    dict.__delitem__(self, partition_key)

    def with_attributes(self, names: list[str]) -> Iterator[tuple[str, str, Row]]:
        """Yield the keys and rows of all rows that have all of some attributes; most others are not even unpacked.

        Args:
            names: one or more. `CHANGING` is held as long as this goes on.
        """
        first = names[0].encode("utf-8", "surrogatepass")
        for partition_key, partition in dict.items(self):
            for sort_key, packed in partition.all_packed():
                if type(packed) is bytes and first not in packed:
                    continue
                row = unpack(packed)
                if all(name in row for name in names):
                    yield partition_key, sort_key, row

    def expired(self, attribute: str, now: float) -> list[tuple[str, str]]:
        """Return the keys of the rows that expired.

        Args:
            attribute: holds the time at which a row expires, in seconds since 1970. The rows that have one are looked for when it is
                asked for the first time, and noted from then on.
            now: the time.
        """
        with CHANGING:
            if attribute != self._expires:
                self._expires, self._expiry = attribute, Ordered()
                rows = self.with_attributes([attribute])
                self._expiry = Ordered((at, *keys) for *keys, row in rows if (at := _time_in(row, attribute)) is not None)
            return [
                (partition_key, sort_key) for _, partition_key, sort_key in self._expiry.ascending(None, (math.nextafter(now, math.inf),))
            ]

    def _note_expiry(self, partition_key: str, sort_key: str, before: Row | None, after: Row | None) -> None:
        if self._expires is None:
            return
        was, becomes = _time_in(before, self._expires), _time_in(after, self._expires)
        if was == becomes:
            return
        if was is not None:
            self._expiry.discard((was, partition_key, sort_key))
        if becomes is not None:
            self._expiry.add((becomes, partition_key, sort_key))

    def __missing__(self, partition_key: str) -> NoReturn:
        raise KeyError(partition_key)

    def __deepcopy__(self, memo: Any) -> Items:
        return Items(dict, self)

    __copy__ = __deepcopy__

    def __reduce__(self) -> Any:
        return Items, (dict, {key: dict(partition.items()) for key, partition in self.items()})


def _time_in(row: Row | None, attribute: str) -> float | None:
    """Return the time in an attribute of a row, read as the emulator reads it; None where there is none."""
    value = (row or {}).get(attribute)
    if not value:
        return None
    told = next((value[kind] for kind in "SNB" if kind in value), None) if isinstance(value, dict) else None
    try:
        time = float(cast("str", told))
    except (ValueError, TypeError):
        return None
    return time if time == time else None
