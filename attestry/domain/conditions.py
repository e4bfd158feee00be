"""Conditions: under what an approver approves, and what follows for the version from all who approved.

Rules:
- An approver may set a day, a number of predictions, and for features of the request the values that they may have (a segment).
- What holds is the strictest of all approvals that are counted, and of the policy: the earliest end, the smallest number, of each feature
  the values that all of them allow.
- An end is a moment: 00:00 UTC of a day that somebody named, or so many days after an approval was given. From then on nothing counts.
- The values of a feature are texts in one form each, by the type of its column, so that 1 and 1.0 are the same number and a text is
  itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.days import beginning_of, read_day
from attestry.domain.errors import InvalidInputError, OutsideConditionsError
from attestry.domain.events import timestamp

MAX_SEGMENTS = 5
MAX_VALUES = 20
MAX_SEGMENT_BYTES = 400
"""Of all names and values in UTF-8: they stand in an event of at most 4 KiB, and in every delegation."""

MAX_PREDICTIONS = 10**12

Segments = Mapping[str, tuple[str, ...]]
"""Feature to the values that it may have."""

_INTEGER = re.compile(r"u?int(8|16|32|64)")
_FLOAT = re.compile(r"(float|double|halffloat|decimal).*")


@dataclass(frozen=True)
class _Limits:
    until: str = ""
    max_predictions: int | None = None
    segments: Segments = field(default_factory=dict)

    def to_item(self) -> dict[str, Any]:
        """Return the limits as they are stored: only what is set."""
        item = {"until": self.until, "max_predictions": self.max_predictions, "segments": _lists(self.segments)}
        return {name: value for name, value in item.items() if value}

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Self:
        """Return the limits that `to_item` wrote."""
        return cls(str(item.get("until", "")), _number(item.get("max_predictions")), _tuples(item.get("segments", {})))


@dataclass(frozen=True)
class Conditions(_Limits):
    """Under what one approver approves; empty for none.

    Attributes:
        until: first day (UTC, `YYYY-MM-DD`) on which the approval counts no more, or empty.
        max_predictions: how many predictions it allows, or None.
        segments: feature to the values that it may have.
    """


@dataclass(frozen=True)
class Terms(_Limits):
    """Under what a version may serve, by all its approvals; empty for no conditions.

    Attributes:
        until: the moment of the end, RFC 3339, or empty.
        max_predictions: how many predictions it may make, or None.
        segments: feature to the values that it may have.
    """

    def has_ended(self, at: datetime) -> bool:
        """Return whether the end has come."""
        return bool(self.until) and self.until <= timestamp(at)

    def __str__(self) -> str:
        """Return the terms as a sentence's part, empty for none."""
        told = [f"until {self.until}"] if self.until else []
        told += [f"for {self.max_predictions} predictions"] if self.max_predictions else []
        told += [f"where {name} is {' or '.join(values)}" for name, values in sorted(self.segments.items())]
        return ", ".join(told)


def read_conditions(value: object) -> Conditions:
    """Return the conditions of a request: `{"until": day, "max_predictions": number, "segments": {feature: [values]}}`.

    Raises:
        InvalidInputError: something else, or too much; the error names the field.
    """
    if value is None:
        return Conditions()
    known = {"until", "max_predictions", "segments"}
    if not isinstance(value, Mapping) or set(value) - known:
        raise _wrong("conditions", "fields", "conditions are an object of 'until', 'max_predictions' and 'segments'")
    until = read_day("conditions.until", value["until"]) if value.get("until") not in (None, "") else ""
    most = value.get("max_predictions")
    if most is not None and (type(most) is not int or not 0 < most <= MAX_PREDICTIONS):
        raise _wrong("conditions.max_predictions", "range", f"a whole number from 1 to {MAX_PREDICTIONS} is needed")
    return Conditions(until, most, _read_segments(value.get("segments") or {}))


def fit_conditions(conditions: Conditions, schema: Sequence[Mapping[str, str]], at: datetime | None = None) -> Conditions:
    """Return conditions with the values of their segments in the form of their columns.

    Args:
        conditions: as they were read.
        schema: the version's feature columns, each `{"name", "type"}`.
        at: the time, which an end must lie behind; None where that is not asked.

    Raises:
        InvalidInputError: the day has come already, the version has no such feature, or its column no such value.
    """
    if at is not None and conditions.until and timestamp(beginning_of(conditions.until)) <= timestamp(at):
        raise _wrong("conditions.until", "future", f"{conditions.until} has begun; the approval would count for nothing")
    columns = {column["name"]: column["type"] for column in schema}
    segments: dict[str, tuple[str, ...]] = {}
    for name, values in conditions.segments.items():
        where = f"conditions.segments.{name}"
        if name not in columns:
            raise _wrong(where, "known_feature", f"the version has no feature {name}; it has {', '.join(sorted(columns)[:12])}")
        forms = [_form_of_text(value, columns[name]) for value in values]
        for value, form in zip(values, forms, strict=True):
            if form is None:
                raise _wrong(where, "type", f"'{value}' is no value of the feature {name}, which is of type {columns[name]}")
        segments[name] = tuple(sorted({form for form in forms if form is not None}))
    return Conditions(conditions.until, conditions.max_predictions, segments)


def ends_at(policy: ApprovalPolicy, given: datetime, conditions: Conditions) -> str:
    """Return the moment from which on one approval counts no more, RFC 3339; empty where it has no end.

    Args:
        policy: the policy that it was given under.
        given: when.
        conditions: its conditions.
    """
    ends = [timestamp(beginning_of(day)) for day in (policy.until, conditions.until) if day]
    if policy.valid_days:
        ends.append(timestamp(given + timedelta(days=policy.valid_days)))
    return min(ends, default="")


def strictest(policy: ApprovalPolicy, approvals: Iterable[tuple[datetime, Conditions]]) -> Terms:
    """Return what follows from all approvals that count.

    Args:
        policy: the policy.
        approvals: when each was given, and its conditions.

    Raises:
        InvalidInputError: of a feature no value is left that all of them allow.
    """
    given = list(approvals)
    ends = [end for at, conditions in given if (end := ends_at(policy, at, conditions))]
    numbers = [c.max_predictions for _, c in given if c.max_predictions is not None]
    segments: Segments = {}
    for _, conditions in given:
        segments = _both(segments, conditions.segments)
    for name, values in segments.items():
        if not values:
            raise _wrong(f"conditions.segments.{name}", "empty", f"no value of {name} is left that all approvals allow")
    return Terms(min(ends, default=""), min(numbers, default=None), segments)


def check_segments(segments: Segments, instances: Sequence[Mapping[str, Any]], reference: str) -> None:
    """Check that each instance of a request lies in the segment that a version is approved for.

    Args:
        segments: feature to the values that it may have.
        instances: feature to value; booleans, numbers and texts.
        reference: `MODEL@N`, for the sentence.

    Raises:
        OutsideConditionsError: one does not; the sentence names the instance, the feature and the condition.
    """
    for name, allowed in segments.items():
        for index, instance in enumerate(instances):
            if name not in instance or _form_of_value(instance[name], allowed) not in allowed:
                where = f"instances[{index}].{name}"
                raise OutsideConditionsError(
                    f"{where}: {reference} is approved only where {name} is {' or '.join(allowed)}",
                    details={"field": where, "condition": {"feature": name, "values": list(allowed)}},
                )


def _read_segments(value: object) -> dict[str, tuple[str, ...]]:
    field_name = "conditions.segments"
    if not isinstance(value, Mapping) or len(value) > MAX_SEGMENTS:
        raise _wrong(field_name, "type", f"segments are an object of at most {MAX_SEGMENTS} features and their values")
    segments: dict[str, tuple[str, ...]] = {}
    size = 0
    for name, values in value.items():
        texts = isinstance(values, list) and all(isinstance(v, str) and v and v.isprintable() for v in values)
        if not isinstance(name, str) or not texts or not 0 < len(values) <= MAX_VALUES:
            raise _wrong(f"{field_name}.{name!s:.80}", "type", f"a list of 1 to {MAX_VALUES} printable texts is needed")
        segments[name] = tuple(dict.fromkeys(values))
        size += len(name.encode()) + sum(len(v.encode()) for v in values)
    if size > MAX_SEGMENT_BYTES:
        raise _wrong(field_name, "max_bytes", f"names and values of segments have at most {MAX_SEGMENT_BYTES} bytes in UTF-8")
    return segments


def _both(one: Segments, other: Segments) -> dict[str, tuple[str, ...]]:
    merged = {**one, **other}
    return {name: tuple(v for v in merged[name] if v in one.get(name, (v,)) and v in other.get(name, (v,))) for name in merged}


def _form_of_text(text: str, kind: str) -> str | None:
    """Return a value of a column in its one form; None where the column has no such value."""
    if kind.startswith("bool"):
        return text if text in ("true", "false") else None
    try:
        if _INTEGER.fullmatch(kind):
            return str(int(text))
        if _FLOAT.fullmatch(kind):
            number = float(text)
            return repr(number) if number - number == 0 else None
    except ValueError:
        return None
    return text


def _form_of_value(value: Any, allowed: Sequence[str]) -> str | None:
    """Return the form of a request's value; a whole number has that of a float where those that are allowed have."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value) if str(value) in allowed or abs(value) > 2**53 else repr(float(value))
    return repr(value) if isinstance(value, float) else None


def _lists(segments: Segments) -> dict[str, list[str]]:
    return {name: list(values) for name, values in segments.items()}


def _tuples(segments: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {str(name): tuple(str(v) for v in values) for name, values in segments.items()}


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _wrong(where: str, rule: str, message: str) -> InvalidInputError:
    return InvalidInputError.of(where, rule, message)
