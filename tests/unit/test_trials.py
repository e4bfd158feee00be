"""Trials: effect, interval and p-value of two arms, held against scipy, closed forms and the edges of what can be computed."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from attestry.domain.errors import InvalidInputError
from attestry.domain.validations import MAX_MAGNITUDE, MAX_SIZE, Proportion, Sample, Trial, read_finding
from attestry.evaluation.evaluate import evaluate_record
from attestry.evaluation.trials import EXACT, compute_trial

SIZES = st.integers(1, 4000)


@st.composite
def proportions(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES) -> Proportion:
    size = draw(sizes)
    return Proportion(size, draw(st.integers(0, size)))


SAMPLES = st.builds(Sample, st.integers(2, 10_000), st.floats(-1e6, 1e6), st.floats(1e-6, 1e9))


def trial(first: Proportion | Sample, second: Proportion | Sample, better: Any = "higher", confidence: float = 0.95) -> Trial:
    return Trial("conversion", better, confidence, first, second)


def content(**changed: Any) -> dict[str, Any]:
    arms = {"champion": {"size": 5000, "successes": 400}, "challenger": {"size": 5000, "successes": 460}}
    return {k: v for k, v in {"metric": "conversion", **arms, **changed}.items() if v is not None}


@given(proportions(), proportions())
@settings(max_examples=100, deadline=None)
@example(Proportion(1, 0), Proportion(1, 1))
@example(Proportion(1, 1), Proportion(1, 1))
@example(Proportion(4000, 0), Proportion(1, 0))
def test_rates_agree_with_fishers_test_and_wilsons_intervals_of_scipy(first: Proportion, second: Proportion) -> None:
    result = compute_trial(trial(first, second))
    table = [[second.successes, second.size - second.successes], [first.successes, first.size - first.successes]]
    assert result.p_value == pytest.approx(min(1.0, stats.fisher_exact(table, alternative="greater").pvalue))
    one, two = (stats.binomtest(a.successes, a.size).proportion_ci(0.95, method="wilson") for a in (first, second))
    low = result.effect - math.sqrt((second.level - two.low) ** 2 + (one.high - first.level) ** 2)
    high = result.effect + math.sqrt((two.high - second.level) ** 2 + (first.level - one.low) ** 2)
    assert result.low == pytest.approx(max(low, -1), abs=1e-12)
    assert result.high == pytest.approx(min(high, 1), abs=1e-12)
    assert -1 <= result.low <= result.effect <= result.high <= 1
    assert 0 <= result.p_value <= 1


@given(SAMPLES, SAMPLES, st.sampled_from([0.5, 0.8, 0.95, 0.999]))
@settings(max_examples=100, deadline=None)
def test_means_agree_with_welchs_test_in_closed_form(first: Sample, second: Sample, confidence: float) -> None:
    result = compute_trial(trial(first, second, confidence=confidence))
    one, two = first.variance / first.size, second.variance / second.size
    degrees = (one + two) ** 2 / (one**2 / (first.size - 1) + two**2 / (second.size - 1))
    error = math.sqrt(one + two)
    assert result.p_value == pytest.approx(float(stats.t.sf((second.mean - first.mean) / error, degrees)), rel=1e-6, abs=1e-300)
    half = float(stats.t.ppf((1 + confidence) / 2, degrees)) * error
    assert (result.low, result.high) == pytest.approx((result.effect - half, result.effect + half), rel=1e-9, abs=1e-9 * half)
    assert result.low <= result.effect <= result.high


def test_interval_and_p_value_are_those_of_scipy_on_the_data_themselves() -> None:
    control, treatment = [9.1, 8.7, 9.9, 9.4, 8.8], [10.2, 9.7, 9.9, 10.8, 9.5, 10.1]
    arms = [Sample(len(x), sum(x) / len(x), float(stats.describe(x).variance)) for x in (control, treatment)]
    result = compute_trial(trial(*arms))
    known = stats.ttest_ind(treatment, control, equal_var=False, alternative="greater")
    interval = stats.ttest_ind(treatment, control, equal_var=False).confidence_interval(0.95)
    assert result.p_value == pytest.approx(known.pvalue)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))


@given(proportions(), proportions())
@settings(max_examples=50, deadline=None)
def test_less_is_better_is_the_trial_of_what_did_not_succeed(first: Proportion, second: Proportion) -> None:
    failing = [Proportion(a.size, a.size - a.successes) for a in (first, second)]
    fewer, more = compute_trial(trial(first, second, "lower")), compute_trial(trial(*failing))
    assert (fewer.effect, fewer.low, fewer.high) == pytest.approx((more.effect, more.low, more.high), abs=1e-12)
    assert fewer.p_value == pytest.approx(more.p_value)


@given(SAMPLES, SAMPLES)
@settings(max_examples=50, deadline=None)
def test_the_p_values_of_better_and_worse_sum_to_one_for_means(first: Sample, second: Sample) -> None:
    p = compute_trial(trial(first, second)).p_value + compute_trial(trial(first, second, "lower")).p_value
    assert p == pytest.approx(1.0)


def test_above_the_exact_limit_the_z_test_goes_on_where_the_exact_one_ends() -> None:
    half = EXACT // 2
    exact = compute_trial(trial(Proportion(half, half // 10), Proportion(half, half // 10 + 60)))
    above = compute_trial(trial(Proportion(half + 1, half // 10), Proportion(half + 1, half // 10 + 60)))
    assert "Fisher" in exact.method
    assert "z-test" in above.method
    assert above.p_value == pytest.approx(exact.p_value, rel=0.1)
    pooled = (half // 10 * 2 + 60) / (2 * half + 2)
    z = above.effect / math.sqrt(pooled * (1 - pooled) * 2 / (half + 1))
    assert above.p_value == pytest.approx(1 - NormalDist().cdf(z), rel=1e-9)


@pytest.mark.parametrize("rate", [0, 1])
def test_where_all_succeed_or_none_nothing_speaks_for_a_difference(rate: int) -> None:
    for size in (1, 10, MAX_SIZE):
        result = compute_trial(trial(Proportion(size, size * rate), Proportion(size, size * rate)))
        assert (result.effect, result.p_value) == (0.0, 1.0)
        assert result.low < 0 < result.high


def test_one_trial_in_each_arm_proves_nothing() -> None:
    result = compute_trial(trial(Proportion(1, 0), Proportion(1, 1)))
    assert (result.effect, result.p_value) == (1.0, 0.5)
    assert result.low < 0.2


def test_one_arm_without_variance_is_computed_and_two_are_refused() -> None:
    assert compute_trial(trial(Sample(5, 1.0, 0.0), Sample(5, 2.0, 1.0))).p_value == pytest.approx(0.0446, abs=1e-3)
    flat = {"size": 5, "mean": 1.0, "variance": 0.0}
    with pytest.raises(InvalidInputError, match="neither arm varies"):
        read_finding("champion-challenger", content(champion=flat, challenger=flat))


@pytest.mark.parametrize("variance", [5e-324, 1e-300, MAX_MAGNITUDE])
@pytest.mark.parametrize("mean", [0.0, -MAX_MAGNITUDE, MAX_MAGNITUDE])
def test_the_extremes_of_what_is_taken_are_computed_or_refused_and_never_nan(mean: float, variance: float) -> None:
    arms = {name: {"size": 2, "mean": at, "variance": variance} for name, at in (("champion", 0.0), ("challenger", mean))}
    answer = evaluate_record({"kind": "champion-challenger", "content": content(**arms)})
    numbers = [float(value) for name, value in answer.get("result", {}).items() if name != "method"]
    assert all(map(math.isfinite, numbers))
    assert len(numbers) == 4 or answer["rule"] == "computable"


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        ({"metric": "a b"}, "metric", "name"),
        ({"metric": None}, "metric", "required"),
        ({"better": "more"}, "better", "enum"),
        ({"confidence": 1.0}, "confidence", "range"),
        ({"confidence": 0.4}, "confidence", "range"),
        ({"confidence": True}, "confidence", "finite"),
        ({"confidence": math.nan}, "confidence", "finite"),
        ({"p_value": 0.001}, "p_value", "unknown_field"),
        ({"effect": 1.0}, "effect", "unknown_field"),
        ({"champion": 3}, "champion", "type"),
        ({"champion": None}, "champion", "required"),
        ({"champion": {"size": 0, "successes": 0}}, "champion.size", "range"),
        ({"champion": {"size": 3, "successes": 4}}, "champion.successes", "range"),
        ({"champion": {"size": 3, "successes": -1}}, "champion.successes", "range"),
        ({"champion": {"size": 3.0, "successes": 1}}, "champion.size", "range"),
        ({"champion": {"size": True, "successes": 1}}, "champion.size", "range"),
        ({"champion": {"size": MAX_SIZE + 1, "successes": 1}}, "champion.size", "range"),
        ({"champion": {"size": 3, "successes": 1, "p": 1}}, "champion.p", "unknown_field"),
        ({"champion": {"size": 1, "mean": 1.0, "variance": 1.0}}, "champion.size", "range"),
        ({"champion": {"size": 5, "mean": math.nan, "variance": 1.0}}, "champion.mean", "finite"),
        ({"champion": {"size": 5, "mean": math.inf, "variance": 1.0}}, "champion.mean", "finite"),
        ({"champion": {"size": 5, "mean": 10**400, "variance": 1.0}}, "champion.mean", "finite"),
        ({"champion": {"size": 5, "mean": 1.0, "variance": -1.0}}, "champion.variance", "minimum"),
        ({"champion": {"size": 5, "mean": 1.0}}, "champion.variance", "required"),
        ({"champion": {"size": 5, "mean": 1.0, "variance": 1.0}}, "challenger", "same_kind"),
        ({"control": {"size": 5, "successes": 1}}, "control", "unknown_field"),
    ],
)
def test_a_trial_that_breaks_a_rule_is_refused_with_field_and_rule(changed: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_finding("champion-challenger", content(**changed))
    assert (refused.value.problems[0].field, refused.value.problems[0].rule) == (f"content.{field}", rule)


def test_the_evaluating_function_answers_what_is_computed_and_what_is_refused() -> None:
    done = evaluate_record({"kind": "champion-challenger", "content": content()})
    assert done["outcome"] == "SUCCEEDED"
    assert float(done["result"]["effect"]) == pytest.approx(0.012)
    refused = evaluate_record({"kind": "champion-challenger", "content": content(metric="")})
    assert (refused["outcome"], refused["field"], refused["rule"]) == ("FAILED", "content.metric", "name")
    assert evaluate_record({"kind": "leakage-check", "content": {"method": "exact"}})["rule"] == "enum"
