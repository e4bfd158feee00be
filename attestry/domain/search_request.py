"""Search requests: the JSON in which a caller writes a query.

    {"filter": [{"field": "standing", "is": "DEPLOYED"}, {"tag": "env", "is": "eu"}, {"metric": "accuracy", "from": 0.8}],
     "order_by": {"by": "metric", "metric": "accuracy", "descending": true}, "max_results": 20, "cursor": "...", "walk": false}

A condition is one of: field and `is`; `tag` and `is` or `is_not`; `label` and `is`; `text`; `name_like` with `ignore_case`; `metric` with
`from`, `to`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.errors import InvalidInputError
from attestry.domain.search import DEFAULT_RESULTS, Condition, HasLabel, HasTag, Is, MetricIn, NameLike, Order, Query, Text

FIELDS: Final = ("filter", "order_by", "max_results", "cursor", "walk")
_SHAPES: Mapping[str, frozenset[str]] = {
    "field": frozenset({"field", "is"}),
    "tag": frozenset({"tag", "is", "is_not"}),
    "label": frozenset({"label", "is"}),
    "text": frozenset({"text"}),
    "name_like": frozenset({"name_like", "ignore_case"}),
    "metric": frozenset({"metric", "from", "to"}),
}


def read_query(body: Mapping[str, Any]) -> Query:
    """Return the query that a request's body asks.

    Raises:
        InvalidInputError: a field that is out of form; whether the query can be answered is judged later.
    """
    conditions = body.get("filter", [])
    if not isinstance(conditions, list):
        raise InvalidInputError.of("filter", "type", "the filter is a list of conditions")
    size, cursor, walk = body.get("max_results", DEFAULT_RESULTS), body.get("cursor"), body.get("walk", False)
    if type(size) is not int:
        raise InvalidInputError.of("max_results", "type", "a whole number is needed")
    if cursor is not None and not isinstance(cursor, str):
        raise InvalidInputError.of("cursor", "type", "a cursor is a text")
    if not isinstance(walk, bool):
        raise InvalidInputError.of("walk", "type", "`true` or `false` is needed")
    read = tuple(_condition(f"filter[{i}]", given) for i, given in enumerate(conditions))
    return Query(read, _order(body.get("order_by")), size, cursor or None, walk)


def _order(given: Any) -> Order | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or not {"by"} <= set(given) <= {"by", "descending", "metric"}:
        raise InvalidInputError.of(
            "order_by", "type", "an order is `by`, with `descending` and, of `metric`, the metric's name in `metric`"
        )
    by, descending, metric = given["by"], given.get("descending", False), given.get("metric", "")
    if not isinstance(by, str) or not isinstance(descending, bool) or not isinstance(metric, str) or (by == "metric") != bool(metric):
        raise InvalidInputError.of(
            "order_by", "type", "`by` and `metric` are texts, `metric` goes with the order `metric`, and `descending` is true or false"
        )
    return Order(by, descending, metric)


def _condition(field: str, given: Any) -> Condition:
    kind = next((name for name in _SHAPES if isinstance(given, Mapping) and name in given), None)
    if kind is None or not set(given) <= _SHAPES[kind]:
        raise InvalidInputError.of(field, "condition", f"a condition has one of {', '.join(_SHAPES)}, and what belongs to it")
    if kind == "metric":
        ends = [given.get("from"), given.get("to")]
        if any(end is not None and (isinstance(end, bool) or not isinstance(end, (int, float))) for end in ends):
            raise InvalidInputError.of(field, "type", "`from` and `to` are numbers")
        try:
            low, high = (None if end is None else float(end) for end in ends)
        except OverflowError as error:
            raise InvalidInputError.of(field, "range", "an end of the range is larger than any metric") from error
        return MetricIn(_text(field, given, "metric"), low, high)
    if kind == "text":
        return Text(_text(field, given, "text"))
    if kind == "name_like":
        ignore = given.get("ignore_case", False)
        if not isinstance(ignore, bool):
            raise InvalidInputError.of(field, "type", "`ignore_case` is true or false")
        return NameLike(_text(field, given, "name_like"), ignore)
    if kind == "tag":
        if ("is" in given) == ("is_not" in given):
            raise InvalidInputError.of(field, "condition", "a tag `is` a value, or `is_not`")
        negated = "is_not" in given
        return HasTag(_text(field, given, "tag"), _text(field, given, "is_not" if negated else "is"), negated)
    value = _text(field, given, "is")
    return HasLabel(_text(field, given, "label"), value) if kind == "label" else Is(_text(field, given, "field"), value)


def _text(field: str, given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or len(value) > 5000:
        raise InvalidInputError.of(f"{field}.{name}", "type", f"`{name}` is a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError.of(f"{field}.{name}", "unicode", f"`{name}` has a character that no text in UTF-8 has") from error
    return value
