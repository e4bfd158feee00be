"""Validation records: what a validator hands in about a version, and what the gates of a manifest can demand of it.

Rules:
- A record gives raw counts, never results: sizes with successes, or with means and variances, of two arms; overlapping rows; violations of
  a schema. Effect, interval and p-value are computed by the registry (`attestry.evaluation.trials`).
- The effect of a trial is the second arm's rate or mean less the first's, signed so that more is better for the version, which is the
  second arm: `control` and `treatment`, or `champion` and `challenger`.
- Of one kind, and for a trial of one metric, the latest record counts; earlier ones stay on the record.
- A demand that names no metric is held against the latest trial of its kind, whatever that measured.
- What a record does not have passes no demand: a demand for a p-value is not met by a record without one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from attestry.domain.errors import ConflictError, InvalidInputError

if TYPE_CHECKING:
    from attestry.domain.manifest_sections import RecordGate

RECORDED: Final = "validation.recorded"
"""Kind of the event that tells of a record: a move that changes neither stage, status nor standing."""

RECORDERS: Final = ("validator",)
"""Roles that hand in validation records."""

ARMS: Final[Mapping[str, tuple[str, str]]] = {
    "ab-test": ("control", "treatment"),
    "champion-challenger": ("champion", "challenger"),
}
"""Kind of a trial to the names of its arms; the second is the version."""

LEAKAGE: Final = "leakage-check"
SCHEMA: Final = "schema-check"
KINDS: Final = (*ARMS, LEAKAGE, SCHEMA)

MAX_SIZE: Final = 10**9
"""Of an arm, in trials: what the exact functions of the statistics go through in seconds."""

MAX_MAGNITUDE: Final = 1e100
"""Of a mean or a variance: squares of it are finite."""

MAX_COLUMNS: Final = 10_000
MAX_VIOLATIONS: Final = 1_000

Better = Literal["higher", "lower"]
_METRIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class ValidationMissingError(ConflictError):
    """An approval cannot be completed: validation records that the manifest demands do not stand."""

    code = "validation_missing"


@dataclass(frozen=True)
class Proportion:
    """One arm of a trial that ends in success or failure.

    Attributes:
        size: trials, at least 1.
        successes: how many of them succeeded.
    """

    size: int
    successes: int

    @property
    def level(self) -> float:
        """Return the rate of successes."""
        return self.successes / self.size


@dataclass(frozen=True)
class Sample:
    """One arm of a trial that measures a quantity.

    Attributes:
        size: measurements, at least 2.
        mean: their mean.
        variance: their unbiased variance (divided by one less than the size), in the square of the mean's unit.
    """

    size: int
    mean: float
    variance: float

    @property
    def level(self) -> float:
        """Return the mean."""
        return self.mean


@dataclass(frozen=True)
class Trial:
    """Two independent arms, the second of which is the version.

    Attributes:
        metric: what was measured.
        better: whether more or less of it is better.
        confidence: of the interval that is asked for, at least 0.5 and below 1.
        first: control or champion.
        second: treatment or challenger.
    """

    metric: str
    better: Better
    confidence: float
    first: Proportion | Sample
    second: Proportion | Sample

    @property
    def effect(self) -> float:
        """Return the second arm's level less the first's, signed so that more is better."""
        difference = self.second.level - self.first.level
        # 0.0 and not -0.0 where there is no difference.
        return (-difference if self.better == "lower" else difference) + 0.0

    @property
    def smallest(self) -> int:
        """Return the size of the smaller arm."""
        return min(self.first.size, self.second.size)


@dataclass(frozen=True)
class LeakageCheck:
    """Rows of the hold-out that are in the training set too.

    Attributes:
        method: how they were looked for, for a person.
        training_rows, holdout_rows, overlap_rows: counts; None where the registry is left to count.
    """

    method: str
    training_rows: int | None = None
    holdout_rows: int | None = None
    overlap_rows: int | None = None


@dataclass(frozen=True)
class SchemaCheck:
    """Data held against the columns that the version takes.

    Attributes:
        source: which data, for a person.
        rows: how many rows were looked at.
        columns: name to type, in order, as Arrow writes types.
        violations: each column, rule, and number of rows that break it.
    """

    source: str
    rows: int
    columns: tuple[tuple[str, str], ...]
    violations: tuple[tuple[str, str, int], ...]

    def differing(self, schema: Sequence[Mapping[str, str]]) -> int:
        """Return how many columns are missing, too many or of another type than in the version's schema; the order of columns counts."""
        wanted = [(str(c["name"]), str(c["type"])) for c in schema]
        missing, extra = set(wanted) - set(self.columns), set(self.columns) - set(wanted)
        names = {name for name, _ in missing | extra}
        in_order = [c for c in self.columns if c in wanted] == [c for c in wanted if c in self.columns]
        return len(names) or (0 if in_order else 1)


Finding = Trial | LeakageCheck | SchemaCheck


def read_finding(kind: str, content: Mapping[str, Any]) -> Finding:
    """Return what a record says.

    Args:
        kind: one of `KINDS`.
        content: the record's `content`, JSON values.

    Raises:
        InvalidInputError: naming the field and the rule.
    """
    if kind in ARMS:
        return _read_trial(kind, content)
    if kind == LEAKAGE:
        return _read_leakage(content)
    if kind == SCHEMA:
        return _read_schema(content)
    raise InvalidInputError.of("kind", "enum", f"a validation record is one of {', '.join(KINDS)}")


def place_of(kind: str, metric: str = "") -> str:
    """Return under what a record counts: its kind, and for a trial its metric; the latest under one place counts."""
    return f"{kind}:{metric}" if metric else kind


def unmet(demands: Iterable[RecordGate], validations: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what is demanded and does not stand, each as a sentence for a person; empty where all stands.

    Args:
        demands: of the approval policy.
        validations: place to the facts of its latest record, with the number of its `transition`.
    """
    return [told for demand in demands if (told := _objection(demand, latest_for(demand, validations)))]


def latest_for(demand: RecordGate, validations: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the facts of the record that a demand is held against; None where there is none."""
    of_kind = [facts for facts in validations.values() if facts["check"] == demand.kind]
    named = [facts for facts in of_kind if demand.metric in (None, facts.get("metric"))]
    return max(named, key=lambda facts: int(facts["transition"]), default=None)


def named_records(demands: Iterable[RecordGate], validations: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the records that demands are held against, place to digest: what the move that approves the version names."""
    held = [facts for demand in demands if (facts := latest_for(demand, validations)) is not None]
    return {place_of(str(facts["check"]), str(facts.get("metric") or "")): str(facts["record"]) for facts in held}


def latest_of(moves: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what the moves of a version leave: place to the facts of its latest record, as the version's head has them.

    Args:
        moves: in order, each with `kind`, `number`, `at`, `principal` and `data`.
    """
    latest: dict[str, dict[str, Any]] = {}
    for move in moves:
        if move["kind"] == RECORDED:
            facts = dict(move["data"])
            at, person = str(move["at"]), str(move["principal"].get("person"))
            latest[place_of(str(facts["check"]), str(facts.get("metric") or ""))] = standing_facts(facts, int(move["number"]), person, at)
    return latest


def standing_facts(facts: Mapping[str, Any], transition: int, person: str, at: str) -> dict[str, Any]:
    """Return what the head says of a record: what its event says, and by whom, when and with which move."""
    shown = {name: value for name, value in facts.items() if name not in _OF_EVENT}
    return {**shown, "transition": transition, "person": person, "at": at}


_OF_EVENT: Final = frozenset({"from", "to", "reason", "evidence", "version_digest", "attestation"})
"""What every event of a move has besides its facts."""


def _objection(demand: RecordGate, facts: Mapping[str, Any] | None) -> str:
    what = f"{demand.kind} on {demand.metric}" if demand.metric else demand.kind
    if facts is None:
        return f"no {what} was recorded"
    if demand.kind in ARMS and facts.get("better") != (demand.better or "higher"):
        return f"the {what} takes {facts.get('better')} values for better, wanted {demand.better or 'higher'}"
    limits: tuple[tuple[str, str, float | int | None, bool], ...] = (
        ("p-value", "p_value", demand.p_value_at_most, True),
        ("effect", "effect", demand.effect_at_least, False),
        ("smaller arm's size", "size", demand.minimum_size, False),
        ("overlapping rows", "overlap_rows", demand.overlap_at_most, True),
        ("violations", "violations", demand.violations_at_most, True),
    )
    for name, field, limit, at_most in limits:
        if limit is None:
            continue
        value = _number(facts.get(field))
        wanted = f"at {'most' if at_most else 'least'} {limit:g}"
        if value is None:
            return f"the {what} has no {name}, wanted {wanted}"
        if not (value <= limit if at_most else value >= limit):
            return f"the {name} of the {what} is {value:g}, wanted {wanted}"
    return ""


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _read_trial(kind: str, content: Mapping[str, Any]) -> Trial:
    names = ARMS[kind]
    _only(content, {"metric", "better", "confidence", *names}, required={"metric", *names})
    metric = content["metric"]
    if not isinstance(metric, str) or not _METRIC.fullmatch(metric):
        raise _refused("metric", "name", "a metric's name has 1 to 64 letters, digits, dots, hyphens and underscores")
    better = content.get("better", "higher")
    if better not in ("higher", "lower"):
        raise _refused("better", "enum", "more is better or less: 'higher' or 'lower'")
    confidence = _real(content.get("confidence", 0.95), "confidence")
    if not 0.5 <= confidence < 1:
        raise _refused("confidence", "range", "the confidence is at least 0.5 and below 1")
    first, second = (_read_arm(name, content[name]) for name in names)
    if type(first) is not type(second):
        raise _refused(names[1], "same_kind", f"{names[0]} and {names[1]} both count successes, or both give mean and variance")
    if isinstance(first, Sample) and isinstance(second, Sample) and first.variance == second.variance == 0:
        raise _refused(f"{names[1]}.variance", "variance", "neither arm varies: nothing follows about chance from such samples")
    return Trial(metric, better, confidence, first, second)


def _read_arm(name: str, given: Any) -> Proportion | Sample:
    if not isinstance(given, Mapping):
        raise _refused(name, "type", "an arm is a mapping: size and successes, or size, mean and variance")
    if "successes" in given:
        _only(given, {"size", "successes"}, required={"size", "successes"}, at=f"{name}.")
        size = _count(given["size"], f"{name}.size", least=1, most=MAX_SIZE)
        return Proportion(size, _count(given["successes"], f"{name}.successes", most=size))
    _only(given, {"size", "mean", "variance"}, required={"size", "mean", "variance"}, at=f"{name}.")
    mean, variance = _real(given["mean"], f"{name}.mean"), _real(given["variance"], f"{name}.variance")
    if variance < 0:
        raise _refused(f"{name}.variance", "minimum", "a variance is not negative")
    return Sample(_count(given["size"], f"{name}.size", least=2, most=MAX_SIZE), mean, variance)


def _read_leakage(content: Mapping[str, Any]) -> LeakageCheck:
    counts = ("training_rows", "holdout_rows", "overlap_rows")
    _only(content, {"method", *counts}, required={"method"})
    method = _text(content["method"], "method")
    if not set(counts) & set(content):
        return LeakageCheck(method)
    _only(content, {"method", *counts}, required={"method", *counts})
    training, holdout = (_count(content[name], name, least=1) for name in counts[:2])
    return LeakageCheck(method, training, holdout, _count(content["overlap_rows"], "overlap_rows", most=holdout))


def _read_schema(content: Mapping[str, Any]) -> SchemaCheck:
    fields = {"source", "rows", "columns", "violations"}
    _only(content, fields, required=fields)
    rows = _count(content["rows"], "rows", least=1)
    columns = []
    for index, item in enumerate(_items(content["columns"], "columns", MAX_COLUMNS)):
        _only(item, {"name", "type"}, required={"name", "type"}, at=f"columns[{index}].")
        columns.append((_text(item["name"], f"columns[{index}].name", 256), _text(item["type"], f"columns[{index}].type")))
    if len({name for name, _ in columns}) != len(columns):
        raise _refused("columns", "unique", "two columns have one name")
    violations = []
    for index, item in enumerate(_items(content["violations"], "violations", MAX_VIOLATIONS)):
        at = f"violations[{index}]."
        _only(item, {"column", "rule", "rows"}, required={"column", "rule", "rows"}, at=at)
        broken = _count(item["rows"], f"{at}rows", least=1, most=rows)
        violations.append((_text(item["column"], f"{at}column", 256), _text(item["rule"], f"{at}rule"), broken))
    return SchemaCheck(_text(content["source"], "source"), rows, tuple(columns), tuple(violations))


def _only(given: Mapping[str, Any], known: set[str], *, required: set[str], at: str = "") -> None:
    for name in sorted(given.keys() - known):
        raise _refused(f"{at}{name}", "unknown_field", f"is not known here; there are: {', '.join(sorted(known))}")
    for name in sorted(required - given.keys()):
        raise _refused(f"{at}{name}", "required", "is missing")


def _items(given: Any, field: str, most: int) -> list[Mapping[str, Any]]:
    if not isinstance(given, list) or len(given) > most or not all(isinstance(item, Mapping) for item in given):
        raise _refused(field, "type", f"a list of at most {most} mappings is needed")
    return given


def _count(given: Any, field: str, *, least: int = 0, most: int = 2**53 - 1) -> int:
    if type(given) is not int or not least <= given <= most:
        raise _refused(field, "range", f"a whole number from {least} to {most} is needed")
    return given


def _real(given: Any, field: str) -> float:
    # A whole number may be larger than any float, so the magnitude is judged before it is made one.
    if type(given) not in (int, float) or not -MAX_MAGNITUDE <= given <= MAX_MAGNITUDE:
        raise _refused(field, "finite", f"a finite number of a magnitude up to {MAX_MAGNITUDE:g} is needed")
    return float(given)


def _text(given: Any, field: str, most: int = 200) -> str:
    if not isinstance(given, str) or not given.strip() or len(given) > most or not given.isprintable():
        raise _refused(field, "text", f"a printable text of 1 to {most} characters is needed")
    return given


def _refused(field: str, rule: str, message: str) -> InvalidInputError:
    return InvalidInputError.of(f"content.{field}", rule, message)
