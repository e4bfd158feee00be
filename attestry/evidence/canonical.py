"""Canonical JSON (RFC 8785, JCS), and strict reading of JSON.

Rules:
- What is digested as a document is written by `canonical_bytes`; what is read back must be exactly those bytes.
- NaN, infinities and names that occur twice are refused both ways, because two readers could understand them
  differently. Integers beyond 2^53 - 1 and lone surrogates have no canonical form.
- Numbers that a model computed are never canonicalised: they stay the text that was emitted, see
  `attestry.evidence.receipt`.
"""

from __future__ import annotations

import json
import math
from typing import Any

import rfc8785

from attestry.domain.errors import InvalidInputError


def canonical_bytes(value: Any) -> bytes:
    """Return the RFC 8785 form of None, bool, int, float, str, and lists and mappings of these.

    Raises:
        InvalidInputError: the value has no canonical form.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError, TypeError) as error:
        raise InvalidInputError.of("", "canonical", f"there is no canonical JSON of this value: {error}") from error


def parse_canonical(data: bytes) -> Any:
    """Return the value of a canonical document.

    Raises:
        InvalidInputError: not JSON, or not byte for byte what `canonical_bytes` would write.
    """
    value = parse_strict(data)
    if canonical_bytes(value) != data:
        raise InvalidInputError.of("", "canonical", "the document is JSON, but not in canonical form (RFC 8785)")
    return value


def parse_strict(data: bytes | str) -> Any:
    """Return the value of a JSON text (RFC 8259), refusing what readers disagree about.

    Raises:
        InvalidInputError: not JSON in UTF-8, NaN or an infinity, a number that overflows to one, or a name that occurs
            twice.
    """
    try:
        return _DECODER.decode(data if isinstance(data, str) else data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError.of("", "json", f"not acceptable JSON: {error}") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is beyond the range of a double")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return mapping


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique)
