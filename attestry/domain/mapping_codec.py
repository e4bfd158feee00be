"""Frozen dataclasses to and from JSON-ready mappings, by their type hints.

Only what the domain's records need: text, numbers, booleans, literals, optional values, tuples of one type, mappings
with text keys, and dataclasses of these. Fields that are None are left out of the mapping.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from attestry.domain.errors import InvalidInputError

T = TypeVar("T")


def decode_dataclass(cls: type[T], mapping: Mapping[str, Any]) -> T:
    """Return the record that the mapping describes.

    Raises:
        InvalidInputError: a field is missing, unknown or of the wrong type; the error names it by its dotted path.
    """
    value: T = _decode(cls, mapping, "")
    return value


def encode_dataclass(record: Any) -> dict[str, Any]:
    """Return the record as mapping of text, numbers, booleans, lists and mappings."""
    encoded: dict[str, Any] = _encode(record)
    return encoded


def _decode(hint: Any, value: Any, path: str) -> Any:
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _decode_record(hint, value, path)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(hint), value, path)
    if origin is tuple:
        _require(isinstance(value, list | tuple), path, "a list")
        return tuple(_decode(get_args(hint)[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is not None and issubclass(_as_class(origin), Mapping):
        _require(isinstance(value, Mapping), path, "a mapping")
        return {key: _decode(get_args(hint)[1], item, f"{path}.{key}") for key, item in value.items()}
    if origin is Literal:
        _require(value in get_args(hint), path, "one of " + ", ".join(map(str, get_args(hint))))
        return value
    _require(_is_instance(value, hint), path, f"of type {getattr(hint, '__name__', hint)}")
    return value


@cache
def _hints(cls: Hashable) -> Mapping[str, Any]:
    """Return the types of a record's fields; they are read from the source's text, which takes longer than all the rest."""
    return get_type_hints(cls)


def _decode_record(cls: type[Any], value: Any, path: str) -> Any:
    _require(isinstance(value, Mapping), path, "a mapping")
    record: Any = cls
    hints = _hints(record)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in value:
        if name not in fields:
            raise InvalidInputError.of(_join(path, name), "unknown_field", "is not known")
    for name, f in fields.items():
        optional = f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        if name not in value and not optional:
            raise InvalidInputError.of(_join(path, name), "required", "is missing")
    return cls(**{name: _decode(hints[name], value[name], _join(path, name)) for name in fields if name in value})


def _decode_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in options:
        return None
    remaining = [option for option in options if option is not type(None)]
    if len(remaining) == 1:
        return _decode(remaining[0], value, path)
    for option in remaining:
        if get_origin(option) is tuple and isinstance(value, list | tuple):
            return _decode(option, value, path)
        if isinstance(option, type) and _is_instance(value, option):
            return value
    raise InvalidInputError.of(path, "type", "is of a type that is not allowed here")


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: _encode(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    return value


def _is_instance(value: Any, hint: Any) -> bool:
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        return isinstance(value, (int,) if hint is int else (int, float)) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


def _as_class(origin: Any) -> type[Any]:
    return origin if isinstance(origin, type) else object


def _require(holds: bool, path: str, wanted: str) -> None:
    if not holds:
        raise InvalidInputError.of(path, "type", f"must be {wanted}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
