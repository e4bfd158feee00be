"""Rows in DynamoDB's wire format, and their sizes by DynamoDB's rules.

Only the types of `attestry.ports.Item` exist here: no floats, no sets, and integers of up to the 38 digits that DynamoDB
keeps exactly.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attestry.domain.errors import InvalidInputError
from attestry.ports import Item

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

MAX_ITEM_BYTES = 400 * 1024
_MAX_INTEGER = 10**38
_INDEX_KEYS = ("gsi_pk", "gsi_sk")


def marshal(value: Any) -> AttributeValueTypeDef:
    """Return a value as DynamoDB's AttributeValue.

    Raises:
        TypeError: a float or another type that rows do not hold.
        InvalidInputError: an integer of more than 38 digits.
    """
    # Texts and mappings are nearly all that rows hold, and each prediction waits for it.
    kind = type(value)
    if kind is str:
        return {"S": value}
    if kind is dict:
        return {"M": {_name(k): marshal(v) for k, v in value.items()}}
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": str(value)}
    if isinstance(value, int):
        if abs(value) >= _MAX_INTEGER:
            raise InvalidInputError.of("", "integer_range", "an integer has more than 38 digits")
        return {"N": str(int(value))}
    if isinstance(value, (bytes, bytearray)):
        return {"B": bytes(value)}
    if isinstance(value, Mapping):
        return {"M": {_name(k): marshal(v) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"L": [marshal(v) for v in value]}
    raise TypeError(f"rows hold text, integers, booleans, bytes, None, lists and mappings, not {type(value).__name__}")


def marshal_row(row: Mapping[str, Any]) -> dict[str, AttributeValueTypeDef]:
    """Return a row as DynamoDB's attribute map; index keys that are None are left out, since they cannot be null."""
    return {_name(k): marshal(v) for k, v in row.items() if not (v is None and k in _INDEX_KEYS)}


def unmarshal(value: Mapping[str, Any]) -> Any:
    """Return the value of an AttributeValue."""
    kind, inner = next(iter(value.items()))
    if kind == "M":
        return unmarshal_row(inner)
    if kind == "L":
        return [unmarshal(v) for v in inner]
    if kind == "N":
        # We write no fractions; a row with one was made by hand, and must not keep the rows beside it from being read.
        return int(inner) if inner.lstrip("-").isdigit() else inner
    if kind == "NULL":
        return None
    if kind == "B":  # as it was sent (`attestry.aws.row_parser`), or as the SDK has decoded it
        return base64.b64decode(inner) if isinstance(inner, str) else bytes(inner)
    return inner


def unmarshal_row(row: Mapping[str, Mapping[str, Any]]) -> Item:
    """Return a row from DynamoDB's attribute map."""
    return {k: v["S"] if "S" in v else unmarshal(v) for k, v in row.items()}


def row_bytes(row: Mapping[str, Any]) -> int:
    """Return the size of a row as DynamoDB counts it (Developer Guide, "item sizes and formats"), rounded up."""
    return sum([_text_bytes(k) + _value_bytes(v) for k, v in row.items()])


def check_row_size(row: Mapping[str, Any], name: str) -> int:
    """Return the size of a row.

    Raises:
        InvalidInputError: more than 400 KB.
    """
    size = row_bytes(row)
    if size > MAX_ITEM_BYTES:
        largest = max(row, key=lambda k: _value_bytes(row[k]))
        raise InvalidInputError.of(
            largest,
            "row_size",
            f"the row {name} takes {size} bytes, most of them in `{largest}`; the limit is {MAX_ITEM_BYTES}",
        )
    return size


def _text_bytes(text: str) -> int:
    """Return how many bytes of UTF-8 a text takes; ASCII, which most are, is not encoded for it."""
    return len(text) if text.isascii() else len(text.encode())


def _value_bytes(value: Any) -> int:
    if isinstance(value, str):
        return _text_bytes(value)
    if value is None or isinstance(value, bool):
        return 1
    if isinstance(value, int):
        return len(str(abs(value))) // 2 + 2
    if isinstance(value, (bytes, bytearray)):
        return len(value)
    if isinstance(value, Mapping):
        return 3 + sum(1 + _text_bytes(str(k)) + _value_bytes(v) for k, v in value.items())
    return 3 + sum(1 + _value_bytes(v) for v in value)


def _name(key: Any) -> str:
    if not isinstance(key, str) or not key:
        raise TypeError(f"names of attributes are non-empty texts, not {key!r}")
    return key
