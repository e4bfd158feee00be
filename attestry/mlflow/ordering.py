"""`order_by`: which attribute, and whether the smallest comes first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from attestry.mlflow.errors import invalid

NAME: Final = "name"
NUMBER: Final = "version_number"
CREATED: Final = "creation_timestamp"
UPDATED: Final = "last_updated_timestamp"

OF_MODELS: Final[Mapping[str, str]] = {"name": NAME, "timestamp": UPDATED, UPDATED: UPDATED, CREATED: CREATED}
OF_VERSIONS: Final[Mapping[str, str]] = {"name": NAME, "version_number": NUMBER, UPDATED: UPDATED, CREATED: CREATED}
"""What a clause may name, to what it orders by; of models, `timestamp` is MLflow's older word for the last change."""

_CLAUSE = re.compile(r"\s*(?:(?:attributes?|attr)\.)?(?P<key>\w+|`\w+`|\"\w+\")(?:\s+(?P<way>asc|desc))?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Order:
    """One clause."""

    key: str
    ascending: bool = True


def parse_order(clauses: Sequence[str], keys: Mapping[str, str]) -> tuple[Order, ...]:
    """Return what to order by, the first clause being the foremost.

    Args:
        clauses: each an attribute, with ASC (which is the default) or DESC behind it.
        keys: `OF_MODELS` or `OF_VERSIONS`.

    Raises:
        MlflowError: a clause is none, names what is not there, or names it twice; code INVALID_PARAMETER_VALUE.
    """
    orders: list[Order] = []
    for clause in clauses:
        found = _CLAUSE.fullmatch(clause)
        if found is None:
            raise invalid(f"Invalid order_by clause '{clause:.200}'. Could not be parsed.")
        key = keys.get(found["key"].strip('`"'))
        if key is None:
            raise invalid(f"Invalid order by key '{found['key']:.80}' specified. Valid keys are '{sorted(keys)}'")
        if any(order.key == key for order in orders):
            raise invalid(f"`order_by` contains duplicate fields: {list(clauses)}")
        orders.append(Order(key, (found["way"] or "asc").lower() == "asc"))
    return tuple(orders)
