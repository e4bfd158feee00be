"""Gates: the rules of a manifest that must hold before VALIDATION is passed.

Rules:

1. A metric that is missing, NaN or infinite passes no gate.
2. A floor or ceiling passes at equality.
3. "No worse than deployed by more than d" passes while no version is deployed. A deployed version without the metric
   cannot be compared with, so the gate fails: it can be added only after a version that has the metric.
4. A comparison with a version that was measured on another hold-out is judged too, and says so.
5. With a confidence, the interval of the difference has to lie above the margin, on the same hold-out; "superior" asks that it lies above
   zero. Interval and p-value are the registry's own (`attestry.evaluation.comparison`).
6. Sums are decimal, as the manifest is written: 0.9 is no worse than 1.0 by more than 0.1.
7. A required field passes when it is there and not empty; with `[]` in its path it must be so in every item, and there
   is at least one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from attestry.domain.manifest_record import Manifest
from attestry.domain.manifest_sections import ComparisonGate
from attestry.domain.metrics import METRIC_FUNCTIONS

Rule = Literal["minimum", "maximum", "no_worse_than_deployed", "no_worse_with_confidence", "superior_with_confidence", "required"]
ComparedOn = Literal["", "the same hold-out", "another hold-out"]


@dataclass(frozen=True)
class Interval:
    """Of the difference of a metric, signed so that more is better than the deployed version.

    Attributes:
        low: lower end.
        high: upper end.
        p_value: one-sided, for "no better".
        confidence: for example 0.95.
    """

    low: float
    high: float
    p_value: float
    confidence: float

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Interval:
        """Return the interval of a comparison as it is stored."""
        return cls(*(float(item[name]) for name in ("low", "high", "p_value", "confidence")))


@dataclass(frozen=True)
class Deployed:
    """The version that a comparison is made with.

    Attributes:
        metrics: name or alias to value.
        compared_on: whether they were computed on the hold-out that the new version's are; empty where nothing is known of it, as in
            records of former times.
        intervals: metric to what its gate with a confidence is judged by.
    """

    metrics: Mapping[str, float | None]
    compared_on: ComparedOn = ""
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class GateResult:
    """What one gate found.

    Attributes:
        name: the metric or the field that is judged.
        rule: what is asked.
        threshold: what the value is held against; for a comparison the least (or greatest) value that passes; None
            where there is none.
        value: the metric's value; None where it is missing or not finite, and for required fields.
        passed: whether the gate is passed.
        reason: the sentence for a person.
        compared_on: of a comparison with a deployed version, on which hold-out that version was measured; else empty.
    """

    name: str
    rule: Rule
    threshold: float | None
    value: float | None
    passed: bool
    reason: str
    compared_on: ComparedOn = ""

    def to_item(self) -> dict[str, Any]:
        """Return the result as it is stored: numbers as text in their shortest exact form."""
        threshold, value = (None if number is None else repr(number) for number in (self.threshold, self.value))
        item = {"name": self.name, "rule": self.rule, "threshold": threshold, "value": value, "passed": self.passed, "reason": self.reason}
        return {**item, "compared_on": self.compared_on} if self.compared_on else item


def compare_holdouts(mine: Mapping[str, str], other: Mapping[str, str]) -> ComparedOn:
    """Return whether two versions were measured on one hold-out: the same features and the same labels.

    Args:
        mine: digests of `holdout` and `labels`, hex.
        other: the same of the deployed version; a digest that is missing is like no other.
    """
    same = all(mine.get(part) and mine.get(part) == other.get(part) for part in ("holdout", "labels"))
    return "the same hold-out" if same else "another hold-out"


def apply_gates(manifest: Manifest, metrics: Mapping[str, float | None], deployed: Deployed | None) -> list[GateResult]:
    """Return the result of every gate, in the order of the manifest.

    Args:
        manifest: with the gates, the metrics that say which direction is better, and the required fields.
        metrics: name or alias to the value that the registry computed.
        deployed: the version that is deployed; None while none is.
    """
    lower = {m.key for m in manifest.validation.metrics if METRIC_FUNCTIONS[m.name].better == "lower"}
    results: list[GateResult] = []
    for limit in manifest.gates.metrics:
        if limit.minimum is not None:
            results.append(_judge_limit(limit.metric, "minimum", limit.minimum, metrics))
        if limit.maximum is not None:
            results.append(_judge_limit(limit.metric, "maximum", limit.maximum, metrics))
    for comparison in manifest.gates.no_worse_than_deployed:
        name = comparison.metric
        if comparison.confidence is None:
            results.append(_compare(name, comparison.by_more_than, name in lower, metrics, deployed))
        else:
            results.append(_compare_with_confidence(comparison, comparison.confidence, deployed))
    mapping = manifest.to_mapping()
    results += [_judge_required(name, mapping) for name in manifest.gates.required]
    return results


def unfilled_fields(manifest: Manifest) -> dict[int, str]:
    """Return the required fields that the manifest does not fill in: index in `gates.required` to name.

    Nothing that happens later changes the answer, so such a manifest is refused when it is read.
    """
    mapping = manifest.to_mapping()
    return {i: name for i, name in enumerate(manifest.gates.required) if not _judge_required(name, mapping).passed}


def is_filled_in(name: str, mapping: Mapping[str, Any]) -> bool:
    """Return whether a field of a manifest's mapping is there and not empty (rule 7).

    Args:
        name: dotted, with `[]` behind lists.
        mapping: the manifest's mapping.
    """
    found = list(_find(mapping, name.split(".")))
    return bool(found) and all(_is_filled(value) for value in found)


def all_passed(results: Sequence[GateResult]) -> bool:
    """Return whether every gate is passed."""
    return all(result.passed for result in results)


def _judge_limit(name: str, rule: Rule, threshold: float, metrics: Mapping[str, float | None]) -> GateResult:
    value = _finite(metrics.get(name))
    if value is None:
        return GateResult(name, rule, threshold, None, False, f"{name} is missing or not a finite number")
    passed = value >= threshold if rule == "minimum" else value <= threshold
    wanted = "at least" if rule == "minimum" else "at most"
    return GateResult(name, rule, threshold, value, passed, f"{name} is {value:g}, wanted {wanted} {threshold:g}")


def _compare(
    name: str, by_more_than: float, lower_is_better: bool, metrics: Mapping[str, float | None], deployed: Deployed | None
) -> GateResult:
    rule: Rule = "no_worse_than_deployed"
    value = _finite(metrics.get(name))
    if value is None:
        return GateResult(name, rule, None, None, False, f"{name} is missing or not a finite number")
    if deployed is None:
        return GateResult(name, rule, None, value, True, f"{name} is {value:g}; no version is deployed yet")
    other, where = _finite(deployed.metrics.get(name)), deployed.compared_on
    if other is None:
        return GateResult(name, rule, None, value, False, f"the deployed version has no {name} to compare with", where)
    slack = Decimal(str(by_more_than)) * (1 if lower_is_better else -1)
    threshold = Decimal(str(other)) + slack
    mine = Decimal(str(value))
    passed = mine <= threshold if lower_is_better else mine >= threshold
    wanted = "at most" if lower_is_better else "at least"
    on = " on another hold-out" if where == "another hold-out" else ""
    reason = f"{name} is {value:g}, the deployed version has {other:g}{on}, wanted {wanted} {float(threshold):g}"
    return GateResult(name, rule, float(threshold), value, passed, reason, where)


def _compare_with_confidence(gate: ComparisonGate, confidence: float, deployed: Deployed | None) -> GateResult:
    rule: Rule = "superior_with_confidence" if gate.superior else "no_worse_with_confidence"
    threshold = 0.0 if gate.superior else -gate.by_more_than
    if deployed is None:
        return GateResult(gate.metric, rule, threshold, None, True, f"{gate.metric}: no version is deployed yet")
    interval, where = deployed.intervals.get(gate.metric), deployed.compared_on
    if where != "the same hold-out":
        reason = f"{gate.metric}: the deployed version was measured on another hold-out, so there is no interval of the difference"
        return GateResult(gate.metric, rule, threshold, None, False, reason, where)
    if interval is None or interval.confidence != confidence:
        return GateResult(gate.metric, rule, threshold, None, False, f"{gate.metric}: the interval was not computed", where)
    passed = interval.low > threshold if gate.superior else Decimal(repr(interval.low)) >= Decimal(repr(threshold))
    wanted = "above 0" if gate.superior else f"at least {threshold:g}"
    reason = (
        f"{gate.metric} differs from the deployed version's by {interval.low:g} to {interval.high:g} at {confidence:.0%} confidence "
        f"(p {interval.p_value:.3g}), wanted {wanted}"
    )
    return GateResult(gate.metric, rule, threshold, interval.low, passed, reason, where)


def _judge_required(name: str, manifest: Mapping[str, Any]) -> GateResult:
    passed = is_filled_in(name, manifest)
    return GateResult(name, "required", None, None, passed, f"{name} is {'filled in' if passed else 'missing or empty'}")


def _find(value: Any, parts: Sequence[str]) -> Iterator[Any]:
    """Yield what lies at the path, once for every item where the path says so; None where it ends too early."""
    if not parts:
        yield value
        return
    key = parts[0].removesuffix("[]")
    child = value.get(key) if isinstance(value, Mapping) else None
    if key == parts[0]:
        yield from _find(child, parts[1:])
    elif isinstance(child, Sequence) and not isinstance(child, str):
        for item in child:
            yield from _find(item, parts[1:])


def _is_filled(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and (not isinstance(value, Mapping | Sequence) or len(value) > 0)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
