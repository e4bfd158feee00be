"""Patch: the records of a table's stream are held packed.

Nothing of AWS is at stake, only memory. The emulator keeps the images of every change for a day, as dictionaries in dictionaries. Here a
record is what is its own, as bytes, and the images are the very bytes that the table holds or held (`attestry.local.packed`). Whoever reads
a record gets a copy of its own.
"""

from __future__ import annotations

import marshal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, SupportsIndex

from attestry.local.packed import LATEST, Packed, Row, unpack
from attestry.local.patching import PatchError, applied_to_tables, expect, replace

__all__ = ["Records", "apply", "patch"]

_VERSION = 4
_OWN = ("eventID", "eventName")
_OWN_OF_CHANGE = ("ApproximateCreationDateTime", "SequenceNumber", "Keys")
_IMAGES = ("OldImage", "NewImage")
_CREATED = 1
"""Place of `_OWN_OF_CHANGE` among the three parts of a head."""


def patch(tables: Any) -> None:
    """Patch the emulator's module of DynamoDB.

    Raises:
        PatchError: it is not what this was written for.
    """
    for name, digest in (("_emit_stream_event", "8568d0446f26eaba"), ("_build_change_record", "45f604ee477218c3")):
        expect(tables, name, digest)
    if type(tables._stream_records) is not tables.AccountRegionScopedDict:
        raise PatchError(f"{tables.__name__}._stream_records is of another kind")
    tables._stream_records = _streams_of(tables)()
    replace(tables, "_trim_stream_records", "43f62f181df024ec", lambda original: _trim(tables, original))


apply = applied_to_tables(patch)


class Records(list[Any]):
    """The records of a stream, the oldest first. It looks like the list of dictionaries that the emulator has.

    Args:
        records: what it begins with.
    """

    def __init__(self, records: Iterable[Row] = ()) -> None:
        super().__init__()
        self._common: list[Row] = []
        for record in records:
            self.append(record)

    def append(self, record: Row) -> None:
        """Add a record as the newest."""
        change = record["dynamodb"]
        old, new = (None if (image := change.get(name)) is None else LATEST.packed_of(image) for name in _IMAGES)
        head = (self._number_of(record), [record[name] for name in _OWN], [change[name] for name in _OWN_OF_CHANGE])
        super().append((marshal.dumps(head, _VERSION), old, new))

    def oldest(self) -> float | None:
        """Return when the oldest record was made, in seconds since 1970; None where there is no record."""
        found: tuple[bytes, Packed | None, Packed | None] | None = next(super().__iter__(), None)
        return None if found is None else float(marshal.loads(found[0])[1 + _CREATED][0])  # noqa: S302 (written here)

    def __getitem__(self, place: SupportsIndex | slice) -> Any:
        found: Any = super().__getitem__(place)
        return [self._read(one) for one in found] if isinstance(place, slice) else self._read(found)

    def __iter__(self) -> Iterator[Row]:
        return map(self._read, super().__iter__())

    def __reversed__(self) -> Iterator[Row]:
        return map(self._read, super().__reversed__())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and list(self) == list(other)

    __hash__ = None

    def __deepcopy__(self, memo: Any) -> Records:
        return Records(self)

    def _number_of(self, record: Row) -> int:
        """Return the number of what a record has in common with others, in their order: all but `_OWN`, `_OWN_OF_CHANGE` and the images."""
        change = {name: None if name in (*_OWN_OF_CHANGE, *_IMAGES) else value for name, value in record["dynamodb"].items()}
        common = {name: None if name in _OWN else value for name, value in record.items()} | {"dynamodb": change}
        try:
            return self._common.index(common)
        except ValueError:
            self._common.append(common)
            return len(self._common) - 1

    def _read(self, held: tuple[bytes, Packed | None, Packed | None]) -> Row:
        number, own, own_of_change = marshal.loads(held[0])  # noqa: S302 (written here)
        common = self._common[number]
        images = {name: unpack(image) for name, image in zip(_IMAGES, held[1:], strict=True) if image is not None}
        change = common["dynamodb"] | dict(zip(_OWN_OF_CHANGE, own_of_change, strict=True)) | images
        return {**common, **dict(zip(_OWN, own, strict=True)), "dynamodb": change}


def _streams_of(tables: Any) -> type[Any]:
    class Streams(tables.AccountRegionScopedDict):  # type: ignore[misc] # the emulator's, loaded when it is patched
        """The records of all streams."""

        __slots__ = ()

        def __setitem__(self, key: Any, value: list[Row]) -> None:
            super().__setitem__(key, Records(value))

    return Streams


def _trim(tables: Any, original: Callable[..., None]) -> Callable[..., None]:
    def trim(table_name: str, *, account_id: str | None = None, region: str | None = None) -> None:
        if account_id is None or region is None:
            records = tables._stream_records.get(table_name)
        else:
            records = tables._stream_records.get_scoped(account_id, region, table_name)
        oldest = records.oldest() if records else None
        if oldest is not None and oldest < time.time() - tables._STREAM_RETENTION_SECONDS:
            original(table_name, account_id=account_id, region=region)

    return trim
