"""Patch: tables of DynamoDB with a million rows.

Nothing of AWS is at stake, only memory and time. The emulator holds a row as dictionaries in dictionaries, the members of an index in the
order in which they came, and walks all rows once a minute to find those that expired. Here rows are packed (`attestry.local.packed`),
the members of an index stand in their order (`attestry.local.ordered`), and rows that expire in the order in which they do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from attestry.local.ordered import Ordered
from attestry.local.packed import CHANGING, Items, Row, use_sizes
from attestry.local.patching import PatchError, expect, load, replace

__all__ = ["REAPED_EVERY_SECONDS", "Members", "apply", "reap"]

REAPED_EVERY_SECONDS = 60
_REAPER = "dynamodb-ttl-reaper"
_LOG = logging.getLogger("attestry.local.patch_tables")


def apply() -> None:
    """Patch how rows are held, found by an index, and expire.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    tables, provisioners = load("ministack.services.dynamodb"), load("ministack.services.cloudformation.provisioners")
    patch(tables)
    _hold_packed(provisioners)
    tables.time = Clock(tables)
    threading.Thread(target=_reap_now_and_then, args=(tables,), daemon=True, name="attestry-expiry").start()


def patch(tables: Any) -> None:
    """Patch the emulator's module of DynamoDB, its reaper apart.

    Raises:
        PatchError: it is not what this was written for.
    """
    _hold_packed(tables)
    use_sizes(expect(tables, "_attribute_value_size", "a57557cf9928573c"))
    for name, digest in (
        ("_extract_key_val", "faaaf17a7c3923b4"),
        ("_index_partition", "67cf1c5bf0d458f2"),
        ("_index_key_schemas", "511d72fb393f02e8"),
    ):
        expect(tables, name, digest)
    replace(tables, "_set_item", "4e78ad492132cdba", lambda _: _set_item(tables))
    replace(tables, "_remove_item", "5cce50c99688dab8", lambda _: _remove_item(tables))
    replace(tables, "_index_members", "0cb24364f003cd28", lambda _: _index_members(tables))
    expect(tables, "_ttl_reaper", "66841bfd60279dd7")


def _hold_packed(module: Any) -> None:
    if module.defaultdict is not defaultdict:
        raise PatchError(f"{module.__name__} does not import defaultdict")
    module.defaultdict = Items


class Members:
    """The rows of one partition of an index, in the order of the index: by its sort keys, then by the keys of the table.

    It yields keys of the table, as the emulator's own does.
    """

    __slots__ = ("order",)

    def __init__(self, entries: list[tuple[str, ...]]) -> None:
        self.order = Ordered(entries)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for *_, partition_key, sort_key in self.order:
            yield partition_key, sort_key

    def __len__(self) -> int:
        return len(self.order)


def _set_item(tables: Any) -> Callable[..., Row | None]:
    def set_item(table: Row, partition_key: str, sort_key: str, item: Row) -> Row | None:
        with CHANGING:
            before: Row | None = table["items"].put(partition_key, sort_key, item)
            if before is None:
                table["ItemCount"] = table.get("ItemCount", 0) + 1
                table["TableSizeBytes"] = table["ItemCount"] * 200
            _move(tables, table, (partition_key, sort_key), before, item)
        return before

    return set_item


def _remove_item(tables: Any) -> Callable[..., Row | None]:
    def remove_item(table: Row, partition_key: str, sort_key: str) -> Row | None:
        with CHANGING:
            before: Row | None = table["items"].take(partition_key, sort_key)
            if before is not None:
                table["ItemCount"] = max(0, table.get("ItemCount", 0) - 1)
                table["TableSizeBytes"] = table["ItemCount"] * 200
                _move(tables, table, (partition_key, sort_key), before, None)
        return before

    return remove_item


def _move(tables: Any, table: Row, keys: tuple[str, str], before: Row | None, after: Row | None) -> None:
    """Move a row within the indices that were built."""
    members = table.get(tables._INDEX_MEMBERS)
    if members is None:
        return
    for name, hashes, ranges in tables._index_key_schemas(table):
        if name not in members:
            del table[tables._INDEX_MEMBERS]
            return
        was, becomes = (row and _entry(tables, row, hashes, ranges, keys) for row in (before, after))
        if was == becomes:
            continue
        if was:
            members[name][was[0]].order.discard(was[1])
            if not members[name][was[0]]:
                del members[name][was[0]]
        if becomes:
            members[name].setdefault(becomes[0], Members([])).order.add(becomes[1])


def _entry(tables: Any, row: Row, hashes: list[str], ranges: list[str], keys: tuple[str, str]) -> tuple[Any, tuple[str, ...]] | None:
    """Return the partition of an index in which a row is, and its place there; None for a row that the index has not."""
    partition = tables._index_partition(row, hashes, ranges)
    return None if partition is None else (partition, (*(tables._extract_key_val(row[name]) for name in ranges), *keys))


def _index_members(tables: Any) -> Callable[[Row], dict[str, dict[Any, Members]]]:
    def index_members(table: Row) -> dict[str, dict[Any, Members]]:
        with CHANGING:
            built: dict[str, dict[Any, Members]] | None = table.get(tables._INDEX_MEMBERS)
            if built is None:
                built = table[tables._INDEX_MEMBERS] = {
                    name: _built(tables, table["items"], hashes, ranges) for name, hashes, ranges in tables._index_key_schemas(table)
                }
        return built

    return index_members


def _built(tables: Any, items: Items, hashes: list[str], ranges: list[str]) -> dict[Any, Members]:
    partitions: dict[Any, list[tuple[str, ...]]] = {}
    for *keys, row in items.with_attributes([*hashes, *ranges]) if hashes else ():
        if entry := _entry(tables, row, hashes, ranges, (keys[0], keys[1])):
            partitions.setdefault(entry[0], []).append(entry[1])
    return {partition: Members(entries) for partition, entries in partitions.items()}


class Clock:
    """The module `time` as the emulator's tables see it, until their own reaper, which walks all rows, asks it for the time and ends."""

    def __init__(self, tables: Any) -> None:
        self._tables = tables

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        """Return the time; to the emulator's reaper, never again."""
        if threading.current_thread().name == _REAPER:
            self._tables.time = time
            self._end()
        return time.time()

    @staticmethod
    def _end() -> NoReturn:
        raise SystemExit  # which ends a thread, and nothing else


def _reap_now_and_then(tables: Any) -> None:
    while True:
        time.sleep(REAPED_EVERY_SECONDS)
        try:
            reap(tables, time.time())
        except Exception:  # noqa: BLE001 - one failure does not keep rows for ever
            _LOG.exception("expired rows were not deleted")


def reap(tables: Any, now: float) -> None:
    """Delete the rows of all tables that expired, as the emulator's reaper does.

    Args:
        tables: the emulator's module.
        now: the time, in seconds since 1970.
    """
    with tables._lock:
        for (account, region, name), setting in tables._ttl_settings.all_items():
            table = tables._tables.get_scoped(account, region, name)
            if setting.get("TimeToLiveStatus") != "ENABLED" or not setting.get("AttributeName") or not table:
                continue
            for partition_key, sort_key in table["items"].expired(setting["AttributeName"], now):
                tables._remove_item(table, partition_key, sort_key)
