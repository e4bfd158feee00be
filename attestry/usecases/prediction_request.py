"""The body of a prediction request: `{"instances": [{"<feature>": value, ...}, ...]}`.

Rules:
- At most 1 MiB and 1,000 instances; JSON that all readers understand alike (no NaN, no name twice).
- Each instance has exactly the feature columns of the version, and each value is of its column's recorded type.
- An error names the field, for example `instances[3].mean radius`, and the rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from attestry.domain.errors import InvalidInputError, Problem
from attestry.evidence.canonical import parse_strict

MAX_BODY_BYTES = 1 << 20
MAX_INSTANCES = 1000
MAX_PROBLEMS = 20
MAX_NEAR = 200
"""Among how many features the nearest is looked for: a request of wrong names must not cost more than one of right ones."""

_INTEGER = re.compile(r"(u?)int(8|16|32|64)")
_FLOAT = re.compile(r"(float|double|halffloat|decimal).*")


def parse_prediction_request(body: bytes) -> list[Mapping[str, Any]]:
    """Return the instances of a request, their columns not checked yet.

    Raises:
        InvalidInputError: naming the field and the rule that is broken.
    """
    if len(body) > MAX_BODY_BYTES:
        message = f"the request has {len(body)} bytes; the limit is {MAX_BODY_BYTES}"
        raise InvalidInputError.of("", "max_bytes", message)
    request = parse_strict(body)
    if not isinstance(request, dict) or set(request) != {"instances"}:
        raise InvalidInputError.of("", "fields", 'the request is an object with the one field "instances"')
    instances = request["instances"]
    if not isinstance(instances, list) or not 1 <= len(instances) <= MAX_INSTANCES:
        raise InvalidInputError.of("instances", "count", f"a list of 1 to {MAX_INSTANCES} instances is needed")
    for index, instance in enumerate(instances):
        if not isinstance(instance, dict):
            message = "an instance is an object of feature names and values"
            raise InvalidInputError.of(f"instances[{index}]", "type", message)
    return instances


def order_by_schema(instances: Sequence[Mapping[str, Any]], schema: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the instances with their columns in the order of the training data, and their types.

    A whole number in a column of floats becomes a float, so that a model sees the column's type whatever a request holds.

    Args:
        instances: as `parse_prediction_request` returned them.
        schema: the version's feature columns in order, each `{"name", "type"}`, the type as Arrow writes it.

    Raises:
        InvalidInputError: naming up to 20 fields that break a rule.
    """
    columns = {str(column["name"]): str(column["type"]) for column in schema}
    problems: list[Problem] = []
    for index, instance in enumerate(instances):
        problems += _problems(instance, columns, f"instances[{index}]")
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        told = [_with_hint(problem, instances, columns) for problem in problems[:MAX_PROBLEMS]]
        raise InvalidInputError(sorted(told, key=lambda p: p.field))
    floats = {name for name, kind in columns.items() if _FLOAT.fullmatch(kind)}
    return [{n: float(i[n]) if n in floats else i[n] for n in columns} for i in instances]


def _problems(instance: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Iterator[Problem]:
    for name in columns.keys() - instance.keys():
        yield Problem(f"{where}.{name}", "required", "the feature is missing")
    for name in instance.keys() - columns.keys():
        yield Problem(f"{where}.{name[:80]}", "unknown", "the version has no such feature")
    for name in columns.keys() & instance.keys():
        if message := _wrong(instance[name], columns[name]):
            yield Problem(f"{where}.{name}", "type", message)


def _with_hint(problem: Problem, instances: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Problem:
    """Return a problem with an unknown feature together with the nearest of those that its instance lacks."""
    if problem.rule != "unknown":
        return problem
    # Here alone: requests that are as they should be start without it.
    from difflib import get_close_matches

    where, _, name = problem.field.partition(".")
    instance = instances[int(where.removeprefix("instances[").removesuffix("]"))]
    lacking = [column for column in columns if column not in instance][:MAX_NEAR]
    near = get_close_matches(name, lacking, n=1, cutoff=0.6)
    return replace(problem, message=f"{problem.message}; did you mean '{near[0]}'?") if near else problem


def _wrong(value: Any, kind: str) -> str | None:
    """Return what is wrong with a value of a column, or None."""
    if kind.startswith("bool"):
        return None if isinstance(value, bool) else "must be true or false"
    if match := _INTEGER.fullmatch(kind):
        low, high = _bounds(unsigned=bool(match[1]), bits=int(match[2]))
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if fits else f"must be an integer from {low} to {high}"
    if _FLOAT.fullmatch(kind):
        return None if _is_double(value) else "must be a number"
    return None if isinstance(value, str) else f"must be a text ({kind})"


def _bounds(*, unsigned: bool, bits: int) -> tuple[int, int]:
    return (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _is_double(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True
