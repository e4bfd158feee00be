"""JSON bodies that all readers understand alike: no NaN, no duplicate names, bounded size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from attestry.domain.errors import InvalidInputError

MAX_DEPTH: Final = 32


def read_object(raw: bytes, *, max_bytes: int) -> dict[str, Any]:
    """Return the object that a JSON text in UTF-8 holds.

    Raises:
        InvalidInputError: too large, not UTF-8, not JSON, nested too deeply, a name twice, NaN or an infinity, or not an object.
    """
    if len(raw) > max_bytes:
        raise InvalidInputError.of("", "max_bytes", f"the body has {len(raw)} bytes; the limit is {max_bytes}")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InvalidInputError.of("", "max_depth", f"the body is nested more than {MAX_DEPTH} levels deep") from error
    except ValueError as error:
        raise InvalidInputError.of("", "json", f"the body is not JSON in UTF-8: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInputError.of("", "type", "the body is a JSON object")
    _check_depth(value, 1)
    return value


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError.of(twice, "duplicate_name", f"the name {twice!r} stands twice in one object")
    return result


def _refuse_constant(text: str) -> None:
    raise InvalidInputError.of("", "finite", f"{text} is not JSON")


def _check_depth(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidInputError.of("", "max_depth", f"the body is nested more than {MAX_DEPTH} levels deep")
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        if isinstance(child, (dict, list)):
            _check_depth(child, depth + 1)
