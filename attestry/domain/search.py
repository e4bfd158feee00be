"""Search: which lane of the index a query reads, what it costs, and what is refused because it would need a scan.

Rules:
- A query reads one lane (`attestry.domain.search_index`): that of the condition which leaves least, among those whose lane has the order
  that is asked for. The other conditions are judged on the rows that the lane leads to. Every row of an answer meets every condition, by
  the row itself and not by the index.
- A page looks at no more than `MAX_LOOKED_AT` entries, whatever the registry holds. So a page may hold fewer results than were asked for,
  even none, and still have a cursor; only a page without a cursor is the last one.
- A query without a lane of its own would have to look through everything, page by page. It is refused, unless it says `walk`.
- A cursor names the last place that was looked at. It is bound to the query by a digest, and checked; it opens nothing that the query
  does not, so it needs no signature. In the orders `name`, `created` and `metric` places do not move; in the order `updated` what changes
  between two pages moves to the end that is newest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from attestry.domain.catalogue import Labels, Mode, RegisteredModel
from attestry.domain.errors import InvalidInputError
from attestry.domain.like import is_like
from attestry.domain.search_index import (
    CREATED,
    METRIC,
    MODELS,
    NAME,
    UPDATED,
    VERSIONS,
    Lane,
    data_of,
    labels_words,
    metrics_of,
    model_words,
    number_place,
    pair,
    searchable_labels,
    words,
)
from attestry.domain.stages import Stage, Standing
from attestry.domain.version import Version

DEFAULT_RESULTS: Final = 50
MAX_RESULTS: Final = 200
MAX_LOOKED_AT: Final = 400
"""Entries that a page looks at most; each costs the reading of what it leads to."""

MAX_CONDITIONS: Final = 10
_MAX_CURSOR = 2000
_MAX_PLACE = 1024
_FIELDS = {
    MODELS: ("name", "owner", "team", "risk_tier", "mode"),
    VERSIONS: ("model", "owner", "stage", "standing", "risk_tier", "framework", "data", "experiment", "run"),
}
_VALUES = {
    "stage": tuple(Stage),
    "standing": tuple(Standing),
    "mode": tuple(Mode),
    "risk_tier": ("low", "medium", "high"),
}
_LEAVES = (
    "experiment",
    "run",
    "data",
    "tag",
    "label",
    "text",
    "model",
    "owner",
    "team",
    "metric",
    "framework",
    "standing",
    "stage",
    "risk_tier",
)
"""Fields by how little their condition leaves, as a rule; the one that leaves least is read."""


@dataclass(frozen=True)
class Is:
    """A field has a value; of `name` and `model` this is the model's."""

    field: str
    value: str


@dataclass(frozen=True)
class HasTag:
    """A tag has a value, or with `negated` another one or is not there."""

    key: str
    value: str
    negated: bool = False


@dataclass(frozen=True)
class HasLabel:
    """A label of the manifest has a value."""

    key: str
    value: str


@dataclass(frozen=True)
class Text:
    """Every word of a text occurs, whole, among those that the subject is found by."""

    text: str


@dataclass(frozen=True)
class NameLike:
    """The model's name matches a pattern of SQL: `%` any text, `_` any character. One that is `abc%` reads a range of names."""

    pattern: str
    ignore_case: bool = False

    @property
    def prefix(self) -> str:
        """Return the text that every match begins with, where case counts; empty where nothing is known of its beginning."""
        return "" if self.ignore_case else re.split("[%_]", self.pattern, maxsplit=1)[0]

    def matches(self, name: str) -> bool:
        """Return whether a name matches."""
        return is_like(name, self.pattern, fold=self.ignore_case)


@dataclass(frozen=True)
class MetricIn:
    """A metric lies in a range, ends included; None leaves an end open."""

    name: str
    low: float | None = None
    high: float | None = None


Condition = Is | HasTag | HasLabel | Text | NameLike | MetricIn


@dataclass(frozen=True)
class Order:
    """What results are sorted by: `name`, `created`, `updated`, or `metric` with the metric's name."""

    by: str = NAME
    descending: bool = False
    metric: str = ""


@dataclass(frozen=True)
class Query:
    """A query.

    Attributes:
        conditions: all must hold.
        order_by: the order; None for the first that the lane has.
        max_results: at most so many results a page.
        cursor: where to go on, from the page before; None for the first page.
        walk: whether to go through a lane that leaves everything, a bounded piece a page, where no condition has a lane of its own.
    """

    conditions: tuple[Condition, ...] = ()
    order_by: Order | None = None
    max_results: int = DEFAULT_RESULTS
    cursor: str | None = None
    walk: bool = False


@dataclass(frozen=True)
class Plan:
    """How a query is answered.

    Attributes:
        lane: what is read.
        descending: from its end.
        after, before: only places between these; None for no bound.
        rest: conditions that the lane does not answer by itself.
    """

    lane: Lane
    descending: bool
    after: str | None
    before: str | None


def plan(query: Query, kind: str) -> Plan:
    """Return how a query is answered.

    Args:
        query: the query.
        kind: `M` for models, `V` for versions.

    Raises:
        InvalidInputError: a condition, order, number or cursor out of form (the field and the rule are named), or rule `needs_scan`.
    """
    _check(query, kind)
    order = query.order_by or _default_order(query.conditions, kind)
    lane, condition = _choose(query, kind, order)
    after, before = _bounds(condition)
    if query.cursor:
        place = read_cursor(query, kind)
        if order.descending:
            before = place if before is None else min(before, place)
        else:
            after = place if after is None else max(after, place)
    return Plan(lane, order.descending, after, before)


def matches_model(conditions: Sequence[Condition], model: RegisteredModel) -> bool:
    """Return whether a model meets all conditions."""
    return not model.deleted and all(_model_meets(condition, model) for condition in conditions)


def matches_version(conditions: Sequence[Condition], version: Version, labels: Labels) -> bool:
    """Return whether a version meets all conditions."""
    return not labels.deleted and all(_version_meets(condition, version, labels) for condition in conditions)


def write_cursor(query: Query, kind: str, place: str) -> str:
    """Return the cursor of a place, for the next page of the same query."""
    raw = json.dumps({"q": _digest(query, kind), "p": place}, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def read_cursor(query: Query, kind: str) -> str:
    """Return the place that the query's cursor names.

    Raises:
        InvalidInputError: it is no cursor, or that of another query.
    """
    text = query.cursor or ""
    none = InvalidInputError.of("cursor", "cursor", "the cursor is none that a search has given out")
    try:
        told = (
            json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)) if len(text) <= _MAX_CURSOR else None
        )
    except (ValueError, RecursionError) as error:
        raise none from error
    if not isinstance(told, dict) or set(told) != {"p", "q"} or not _is_place(told["p"]):
        raise none
    if told["q"] != _digest(query, kind):
        raise InvalidInputError.of("cursor", "other_query", "the cursor belongs to another query")
    if write_cursor(query, kind, told["p"]) != text:
        raise none
    return str(told["p"])


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and value.replace("\t", "").isprintable() and 0 < len(value.encode()) <= _MAX_PLACE


def _digest(query: Query, kind: str) -> str:
    """Return what a cursor is bound to: everything of a query but the page's size and place."""
    order = query.order_by or _default_order(query.conditions, kind)
    told = [kind, sorted(json.dumps([type(c).__name__, asdict(c)]) for c in query.conditions), asdict(order)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]


def _default_order(conditions: Sequence[Condition], kind: str) -> Order:
    if kind == MODELS or any(isinstance(c, NameLike) for c in conditions):
        return Order(NAME)
    metric = next((c for c in conditions if isinstance(c, MetricIn)), None)
    if metric is not None and _lanes_of(metric, conditions, kind) and not any(_leaves_less(c, metric) for c in conditions):
        return Order(METRIC, True, metric.name)
    return Order(CREATED, True)


def _leaves_less(one: Condition, other: Condition) -> bool:
    return _rank(one) < _rank(other)


def _rank(condition: Condition) -> int:
    field = _field(condition)
    return _LEAVES.index(field) if field in _LEAVES else len(_LEAVES)


def _field(condition: Condition) -> str:
    if isinstance(condition, Is):
        return condition.field
    if isinstance(condition, HasTag):
        return "" if condition.negated else "tag"
    names: dict[type, str] = {HasLabel: "label", Text: "text", NameLike: "name", MetricIn: "metric"}
    return names[type(condition)]


def _choose(query: Query, kind: str, order: Order) -> tuple[Lane, Condition | None]:
    """Return the lane that is read, and the condition that it is of."""
    for condition in sorted(query.conditions, key=_rank):
        for lane in _lanes_of(condition, query.conditions, kind):
            if lane.order == order.by and (order.by != METRIC or _metric_name(condition) == order.metric):
                return lane, condition
    if order.by == METRIC:
        model = next((c.value for c in query.conditions if isinstance(c, Is) and c.field == "model"), None)
        if kind == VERSIONS and (not query.conditions or model is not None or query.walk):
            return Lane(kind, METRIC, f"{model}/{order.metric}" if model else order.metric, METRIC), None
        raise _needs_scan(
            "order_by", "results are sorted by a metric under a range of that metric, within one model, or without conditions"
        )
    whole = Lane(kind, "all", "", order.by)
    if not query.conditions or query.walk:
        return whole, None
    named = ", ".join(sorted({_describe(c) for c in query.conditions}))
    raise _needs_scan(
        "order_by", f"there is no index of {named} in the order {order.by}: take another order, or go through all with `walk`"
    )


def _lanes_of(condition: Condition, conditions: Sequence[Condition], kind: str) -> tuple[Lane, ...]:
    """Return the lanes that hold everything that meets a condition, and nothing else or, of names and metrics, a range of places."""
    if isinstance(condition, NameLike):
        return (Lane(kind, "all", "", NAME),) if condition.prefix else ()
    if isinstance(condition, MetricIn):
        model = next((c.value for c in conditions if isinstance(c, Is) and c.field == "model"), None)
        return (Lane(kind, METRIC, f"{model}/{condition.name}" if model else condition.name, METRIC),) if kind == VERSIONS else ()
    field = _field(condition)
    if field in ("", "name"):
        return (Lane(kind, "all", "", NAME),) if field == "name" else ()
    if isinstance(condition, Text):
        found = words(condition.text)
        value = max(found, key=len) if found else ""
        return (Lane(kind, field, value, NAME if kind == MODELS else CREATED),) if value else ()
    value = pair(condition.key, condition.value) if isinstance(condition, (HasTag, HasLabel)) else condition.value
    orders = (NAME, CREATED, UPDATED) if field == "model" else (NAME,) if kind == MODELS else (CREATED,)
    return tuple(Lane(kind, field, value, order) for order in orders)


def _metric_name(condition: Condition) -> str:
    return condition.name if isinstance(condition, MetricIn) else ""


def _bounds(condition: Condition | None) -> tuple[str | None, str | None]:
    """Return between which places a condition's matches lie."""
    if isinstance(condition, NameLike):
        return condition.prefix, condition.prefix + "\U0010ffff"
    if isinstance(condition, Is) and condition.field == "name":
        return condition.value, condition.value + "\n"
    if isinstance(condition, MetricIn):
        low = None if condition.low is None else number_place(condition.low)
        high = None if condition.high is None else number_place(condition.high) + "$"
        return low, high
    return None, None


def _describe(condition: Condition) -> str:
    return _field(condition) or "a tag that is not"


def _needs_scan(field: str, message: str) -> InvalidInputError:
    return InvalidInputError.of(field, "needs_scan", message)


def _model_meets(condition: Condition, model: RegisteredModel) -> bool:
    if isinstance(condition, Is):
        return condition.value == (getattr(model, condition.field) if condition.field != "name" else model.name)
    if isinstance(condition, HasTag):
        return (model.tags.get(condition.key) == condition.value) is not condition.negated
    if isinstance(condition, HasLabel):
        return searchable_labels(model.labels).get(condition.key) == condition.value
    if isinstance(condition, Text):
        return set(words(condition.text)) <= set(model_words(model))
    return isinstance(condition, NameLike) and condition.matches(model.name)


def _version_meets(condition: Condition, version: Version, labels: Labels) -> bool:
    if isinstance(condition, Is):
        if condition.field == "data":
            return condition.value in data_of(version)
        own = {"model": version.model, "stage": version.stage.value, "standing": version.standing.value}
        return condition.value == (own.get(condition.field) or version.traits.get(condition.field))
    if isinstance(condition, HasTag):
        return (labels.tags.get(condition.key) == condition.value) is not condition.negated
    if isinstance(condition, HasLabel):
        return searchable_labels(version.traits.get("labels") or {}).get(condition.key) == condition.value
    if isinstance(condition, Text):
        return set(words(condition.text)) <= set(labels_words(labels))
    if isinstance(condition, NameLike):
        return condition.matches(version.model)
    value = metrics_of(version).get(condition.name)
    low, high = (-math.inf if condition.low is None else condition.low), (math.inf if condition.high is None else condition.high)
    return value is not None and low <= value <= high


def _check(query: Query, kind: str) -> None:
    if not 0 < query.max_results <= MAX_RESULTS:
        raise InvalidInputError.of("max_results", "range", f"a page has 1 to {MAX_RESULTS} results")
    if len(query.conditions) > MAX_CONDITIONS:
        raise InvalidInputError.of("filter", "max_conditions", f"there are at most {MAX_CONDITIONS} conditions")
    orders = (NAME, CREATED, UPDATED, *((METRIC,) if kind == VERSIONS else ()))
    if query.order_by is not None and query.order_by.by not in orders:
        raise InvalidInputError.of("order_by", "enum", f"the order is one of {', '.join(orders)}")
    for condition in query.conditions:
        _check_condition(condition, kind)


def _check_condition(condition: Condition, kind: str) -> None:
    if isinstance(condition, Is):
        if condition.field not in _FIELDS[kind]:
            raise InvalidInputError.of(condition.field, "enum", f"what is searched by is one of {', '.join(_FIELDS[kind])}")
        allowed: tuple[str, ...] = tuple(str(value) for value in _VALUES.get(condition.field, ()))
        if not condition.value or (allowed and condition.value not in allowed):
            rule = f"one of {', '.join(allowed)}" if allowed else "not empty"
            raise InvalidInputError.of(condition.field, "value", f"{condition.field} is {rule}")
    if isinstance(condition, MetricIn):
        ends = [end for end in (condition.low, condition.high) if end is not None]
        if kind == MODELS or not condition.name or not all(math.isfinite(end) for end in ends):
            raise InvalidInputError.of("metric", "range", "a metric of versions has a name and finite ends")
    if isinstance(condition, Text) and not words(condition.text):
        raise InvalidInputError.of("text", "words", "a text to search for has at least one word of two letters or digits")
    if isinstance(condition, NameLike) and not 0 < len(condition.pattern) <= 250:
        raise InvalidInputError.of("name", "pattern", "a pattern has 1 to 250 characters")
