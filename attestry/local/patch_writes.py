"""Patch: a write is checked and counted once, and what is plainly right, quickly.

Nothing of AWS is at stake, only time. The emulator walks through each row of a BatchWriteItem some seven times: to validate it twice, to
count its bytes for either, for its capacity, which is not asked for, and for its indices'. What is not plainly right is checked by the
emulator, which says what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from attestry.local.packed import COUNTED, Row, size_of_row
from attestry.local.patching import applied_to_tables, expect, replace

__all__ = ["apply", "is_plain", "patch"]

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,37}")
"""Numbers that are in their canonical form and in range, as they stand."""

_DEEPEST = 32
_KEY_LETTERS = 256
"""A key of no more letters has less than the bytes that the shorter of the two keys may have."""


def patch(tables: Any) -> None:
    """Patch the emulator's module of DynamoDB.

    Raises:
        PatchError: it is not what this was written for.
    """
    for name, digest in (
        ("_validate_attribute_value", "6877d90e04589cbc"),
        ("_attribute_value_error", "55ab8d8af96fd9ae"),
        ("_key_length_error", "247abf0a8588edba"),
    ):
        expect(tables, name, digest)
    replace(tables, "_values_error_response", "1993be33b639449a", _values_error)
    replace(tables, "_validate_item", "d58b826c9b223749", lambda original: _validate(tables, original))
    replace(tables, "_accumulate_write_capacity", "0144b22cf6e632dc", _accumulate)
    replace(tables, "_batch_write_item", "7c31fe8286aeea2e", _batch_write)


apply = applied_to_tables(patch)


def is_plain(value: Any, depth: int = 1) -> bool:
    """Return whether an attribute's value is plainly right: one that the emulator lets through, and leaves as it is.

    Args:
        value: as it came.
        depth: how deep it stands in its attribute, the attribute itself being 1.
    """
    if type(value) is not dict or len(value) != 1:
        return False
    ((kind, inner),) = value.items()
    if kind in ("S", "B"):
        return type(inner) is str
    if kind == "N":
        return type(inner) is str and _INTEGER.fullmatch(inner) is not None
    if kind == "BOOL":
        return inner is True or inner is False
    if kind == "NULL":
        return inner is True
    if depth == _DEEPEST:
        return False
    if kind == "M" and type(inner) is dict:
        return all(is_plain(one, depth + 1) for one in inner.values())
    return kind == "L" and type(inner) is list and all(is_plain(one, depth + 1) for one in inner)


def _values_error(original: Callable[..., Any]) -> Callable[..., Any]:
    def values_error(values: Iterable[Any], envelope: bool) -> Any:
        return None if all(is_plain(value) for value in values) else original(values, envelope)

    return values_error


def _validate(tables: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    def validate(item: Any, pk_name: str | None = None, sk_name: str | None = None, size_msg: str = tables._ITEM_SIZE_MSG) -> Any:
        if COUNTED.sizes is not None and id(item) in COUNTED.sizes:
            return None
        if not (
            type(item) is dict
            and all(is_plain(value) for value in item.values())
            and all(_is_plain_key(item[name]) for name in (pk_name, sk_name) if name in item)
            and (size := size_of_row(item)) <= tables._DDB_ITEM_MAX_BYTES
        ):
            return original(item, pk_name, sk_name, size_msg)
        if COUNTED.sizes is not None:
            COUNTED.sizes[id(item)] = size
        return None

    return validate


def _is_plain_key(value: Row) -> bool:
    return 0 < len(value.get("S", "")) <= _KEY_LETTERS


def _accumulate(original: Callable[..., None]) -> Callable[..., None]:
    def accumulate(capacity: Row, table: Row, old_item: Row | None, new_item: Row | None) -> None:
        if COUNTED.sizes is None:
            original(capacity, table, old_item, new_item)

    return accumulate


def _batch_write(original: Callable[[Row], Any]) -> Callable[[Row], Any]:
    def batch_write(request: Row) -> Any:
        if request.get("ReturnConsumedCapacity", "NONE") != "NONE":
            return original(request)
        COUNTED.sizes = {}  # the request holds its rows till its end
        try:
            return original(request)
        finally:
            COUNTED.sizes = None

    return batch_write
