"""Gates over metrics and over the manifest's own fields."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.domain.gates import Deployed, Interval, all_passed, apply_gates, compare_holdouts
from attestry.domain.manifest import Manifest
from tests.unit.manifest_samples import COMPLETE, changed, read, rules_of

NUMBERS = st.floats(-1e6, 1e6)
LOWER = [{"name": "brier_score_loss"}, {"name": "roc_auc_score"}]


def manifest_with(gates: dict[str, Any], metrics: list[dict[str, Any]] | None = None) -> Manifest:
    mapping = changed("gates", gates)
    if metrics is not None:
        mapping["validation"]["metrics"] = metrics
    return Manifest.from_mapping(mapping)


FLOOR = manifest_with({"metrics": [{"metric": "roc_auc_score", "minimum": 0.9}]})
CEILING = manifest_with({"metrics": [{"metric": "brier_score_loss", "maximum": 0.1}]}, LOWER)
NO_WORSE = manifest_with({"no_worse_than_deployed": [{"metric": "roc_auc_score", "by_more_than": 0.1}]})
NO_HIGHER = manifest_with({"no_worse_than_deployed": [{"metric": "brier_score_loss", "by_more_than": 0.1}]}, LOWER)


def passes(manifest: Manifest, metrics: dict[str, float | None], deployed: dict[str, float | None] | None = None) -> bool:
    return all_passed(apply_gates(manifest, metrics, None if deployed is None else Deployed(deployed)))


def with_confidence(**gate: Any) -> Manifest:
    gate = {"metric": "roc_auc_score", "by_more_than": 0.02, "confidence": 0.95, **gate}
    return manifest_with({"no_worse_than_deployed": [gate]})


def against(low: float, high: float = 0.1, **changes: Any) -> Deployed:
    interval = Interval(low, high, 0.03, changes.pop("confidence", 0.95))
    return Deployed({"roc_auc_score": 0.9}, changes.pop("compared_on", "the same hold-out"), {"roc_auc_score": interval})


@pytest.mark.parametrize(("low", "passed"), [(-0.02, True), (-0.0200001, False), (0.0, True), (0.5, True)])
def test_with_a_confidence_the_whole_interval_has_to_lie_above_the_margin(low: float, passed: bool) -> None:
    (result,) = apply_gates(with_confidence(), {"roc_auc_score": 0.1}, against(low))
    assert (result.passed, result.rule, result.threshold, result.value) == (passed, "no_worse_with_confidence", -0.02, low)
    assert "p 0.03" in result.reason


@pytest.mark.parametrize(("low", "passed"), [(-0.01, False), (0.0, False), (0.0001, True)])
def test_superior_asks_that_the_whole_interval_is_better(low: float, passed: bool) -> None:
    (result,) = apply_gates(with_confidence(superior=True), {"roc_auc_score": 0.1}, against(low))
    assert (result.passed, result.rule) == (passed, "superior_with_confidence")


@pytest.mark.parametrize(
    ("deployed", "passed"),
    [
        (None, True),
        (against(0.5, compared_on="another hold-out"), False),
        (against(0.5, confidence=0.8), False),
        (Deployed({"roc_auc_score": 0.9}, "the same hold-out"), False),
    ],
)
def test_without_an_interval_of_that_confidence_on_the_same_hold_out_nothing_passes_but_the_first_version(
    deployed: Any, passed: bool
) -> None:
    (result,) = apply_gates(with_confidence(), {"roc_auc_score": 0.99}, deployed)
    assert result.passed is passed


def test_superior_without_a_confidence_is_refused() -> None:
    gate = {"metric": "roc_auc_score", "by_more_than": 0, "superior": True}
    assert ("gates.no_worse_than_deployed[0].superior", "needs_confidence") in rules_of(
        changed("gates", {"no_worse_than_deployed": [gate]})
    )


def test_a_floor_passes_at_equality_and_not_below() -> None:
    assert passes(FLOOR, {"roc_auc_score": 0.9})
    assert not passes(FLOOR, {"roc_auc_score": 0.8999999})


def test_a_ceiling_passes_at_equality_and_not_above() -> None:
    assert passes(CEILING, {"brier_score_loss": 0.1})
    assert not passes(CEILING, {"brier_score_loss": 0.1000001})


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["roc_auc_score", "brier_score_loss"])
def test_a_metric_that_is_missing_or_not_finite_passes_nothing(name: str, value: float | None) -> None:
    gates = {"metrics": [{"metric": name, "minimum": -1e300}], "no_worse_than_deployed": [{"metric": name, "by_more_than": 1e300}]}
    manifest = manifest_with({**gates}, LOWER)
    for metrics in ({name: value}, {}):
        results = apply_gates(manifest, metrics, Deployed({name: 0.5}))
        assert [result.passed for result in results] == [False, False]
        assert [result.value for result in results] == [None, None]
        assert not any(result.passed for result in apply_gates(manifest, metrics, None))


def test_a_comparison_passes_while_nothing_is_deployed() -> None:
    assert passes(NO_WORSE, {"roc_auc_score": 0.1}, None)


@pytest.mark.parametrize("deployed", [{}, {"roc_auc_score": None}, {"roc_auc_score": math.nan}])
def test_a_deployed_version_without_the_metric_cannot_be_compared_with(deployed: dict[str, float | None]) -> None:
    assert not passes(NO_WORSE, {"roc_auc_score": 1.0}, deployed)


def test_a_comparison_follows_the_direction_of_the_metric_in_decimal() -> None:
    assert passes(NO_WORSE, {"roc_auc_score": 0.9}, {"roc_auc_score": 1.0})
    assert passes(NO_WORSE, {"roc_auc_score": 0.6}, {"roc_auc_score": 0.7})
    assert not passes(NO_WORSE, {"roc_auc_score": 0.59}, {"roc_auc_score": 0.7})
    assert passes(NO_HIGHER, {"brier_score_loss": 0.3}, {"brier_score_loss": 0.2})
    assert not passes(NO_HIGHER, {"brier_score_loss": 0.31}, {"brier_score_loss": 0.2})
    assert passes(NO_HIGHER, {"brier_score_loss": 0.0}, {"brier_score_loss": 0.2})


def test_a_result_says_what_was_asked_what_was_found_and_why() -> None:
    (result,) = apply_gates(FLOOR, {"roc_auc_score": 0.85}, None)
    assert result.to_item() == {
        "name": "roc_auc_score",
        "rule": "minimum",
        "threshold": "0.9",
        "value": "0.85",
        "passed": False,
        "reason": "roc_auc_score is 0.85, wanted at least 0.9",
    }
    json.dumps(result.to_item())


def test_every_gate_of_the_manifest_is_judged_in_its_order() -> None:
    gates = {
        "metrics": [{"metric": "recall", "minimum": 0.1, "maximum": 0.9}, {"metric": "roc_auc_score", "minimum": 0.5}],
        "no_worse_than_deployed": [{"metric": "recall", "by_more_than": 0}],
        "required": ["model.labels"],
    }
    results = apply_gates(manifest_with(gates), {"recall": 0.5, "roc_auc_score": 0.5}, Deployed({"recall": 0.5}))
    assert [(r.name, r.rule, r.passed) for r in results] == [
        ("recall", "minimum", True),
        ("recall", "maximum", True),
        ("roc_auc_score", "minimum", True),
        ("recall", "no_worse_than_deployed", True),
        ("model.labels", "required", True),
    ]


@pytest.mark.parametrize(
    ("field", "passed"),
    [
        ("model.purpose", True),
        ("model.labels", True),
        ("data.source[].origin", True),
        ("data.source[].licence", False),
        ("data.preparation[].parameters", True),
        ("reproduction.tolerance", False),
        ("reproduction.bit_equal", True),
        ("processing.container", False),
    ],
)
def test_a_required_field_passes_when_it_is_filled_in(field: str, passed: bool) -> None:
    assert passes(manifest_with({"required": [field]}), {}) is passed


def test_a_required_field_of_items_must_be_filled_in_in_every_item() -> None:
    source = COMPLETE["data"]["source"][0]
    mapping = changed("gates", {"required": ["data.source[].licence"]})
    mapping["data"]["source"] = [{**source, "licence": "MIT"}, {**source, "name": "b", "uri": "data/b.csv"}]
    assert not passes(Manifest.from_mapping(mapping), {})
    assert rules_of(mapping) == [("gates.required[0]", "filled_in")]
    mapping["data"]["source"][1]["licence"] = "MIT"
    assert passes(read(mapping).manifest, {})


def test_an_empty_list_fills_no_field() -> None:
    mapping = changed("data.preparation", [])
    mapping["gates"] = {"required": ["data.preparation[].parameters"]}
    assert not passes(Manifest.from_mapping(mapping), {})


def test_a_comparison_says_on_which_hold_out_the_deployed_version_was_measured() -> None:
    metrics: dict[str, float | None] = {"roc_auc_score": 0.95}
    (other,) = apply_gates(NO_WORSE, metrics, Deployed(metrics, "another hold-out"))
    (same,) = apply_gates(NO_WORSE, metrics, Deployed(metrics, "the same hold-out"))
    (first,) = apply_gates(NO_WORSE, metrics, None)
    assert [r.to_item().get("compared_on") for r in (other, same, first)] == ["another hold-out", "the same hold-out", None]
    assert "the deployed version has 0.95 on another hold-out" in other.reason
    assert "hold-out" not in same.reason + first.reason


def test_a_hold_out_is_the_same_only_with_the_same_features_and_labels() -> None:
    mine = {"holdout": "a", "labels": "b"}
    assert compare_holdouts(mine, dict(mine)) == "the same hold-out"
    for other in ({"holdout": "a", "labels": "c"}, {"holdout": "c", "labels": "b"}, {"holdout": "a"}, {}):
        assert compare_holdouts(mine, other) == "another hold-out"
    assert compare_holdouts({}, {}) == "another hold-out"


@settings(max_examples=60)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_better_value_never_turns_a_pass_into_a_failure(one: float, other: float, deployed: float) -> None:
    low, high = sorted((one, other))
    for manifest, name, better, worse in (
        (FLOOR, "roc_auc_score", high, low),
        (NO_WORSE, "roc_auc_score", high, low),
        (CEILING, "brier_score_loss", low, high),
        (NO_HIGHER, "brier_score_loss", low, high),
    ):
        if passes(manifest, {name: worse}, {name: deployed}):
            assert passes(manifest, {name: better}, {name: deployed})


@settings(max_examples=60)
@given(NUMBERS, NUMBERS)
def test_a_better_deployed_version_never_makes_a_comparison_easier(value: float, deployed: float) -> None:
    if passes(NO_WORSE, {"roc_auc_score": value}, {"roc_auc_score": deployed}):
        assert passes(NO_WORSE, {"roc_auc_score": value}, {"roc_auc_score": deployed - 1})
    if passes(NO_HIGHER, {"brier_score_loss": value}, {"brier_score_loss": deployed}):
        assert passes(NO_HIGHER, {"brier_score_loss": value}, {"brier_score_loss": deployed + 1})
