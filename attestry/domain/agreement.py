"""Agreement: how far two versions answered a request alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isclose
from typing import Any

from attestry.domain.errors import InvalidInputError

RELATIVE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Agreement:
    """How two versions' answers to the same instances compare.

    Attributes:
        instances: how many were compared.
        agreed: how many predictions are equal; numbers within a relative 1e-9.
        numeric: how many predictions are numbers in both.
        difference: sum of the absolute differences of these.
    """

    instances: int
    agreed: int
    numeric: int
    difference: Decimal


def compare_outputs(answered: list[Any], shadowed: list[Any], column: str) -> Agreement:
    """Compare the outputs of two versions, one element per instance.

    Args:
        answered: what the caller was given.
        shadowed: what the shadow answered.
        column: where an element is a mapping that has it, the prediction alone is compared.

    Raises:
        InvalidInputError: they are not of the same length.
    """
    if len(answered) != len(shadowed):
        raise InvalidInputError.of("output", "length", f"{len(shadowed)} elements are compared with {len(answered)}")
    pairs = [(_prediction(one, column), _prediction(other, column)) for one, other in zip(answered, shadowed, strict=True)]
    numbers = [(float(one), float(other)) for one, other in pairs if _is_number(one) and _is_number(other)]
    same = sum(isclose(one, other, rel_tol=RELATIVE_TOLERANCE) for one, other in numbers)
    same += sum(one == other for one, other in pairs if not (_is_number(one) and _is_number(other)))
    difference = sum((abs(Decimal(repr(one)) - Decimal(repr(other))) for one, other in numbers), Decimal(0))
    return Agreement(len(pairs), same, len(numbers), difference)


def _prediction(element: Any, column: str) -> Any:
    return element[column] if isinstance(element, Mapping) and column in element else element


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
