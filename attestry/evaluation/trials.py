"""Trials: effect, interval and p-value of two independent arms, from their counts.

Rules:
1. Rates: the p-value is one-sided, by Fisher's exact test (`scipy.stats.fisher_exact`) up to `EXACT` trials in both arms, and by the z-test
   with pooled variance above. The interval is Newcombe's hybrid of two Wilson intervals (Newcombe 1998, method 10), which holds its
   confidence for rates near 0 and 1 and for small arms.
2. Means: Welch's t-test, one-sided (`scipy.stats.ttest_ind_from_stats`), and the interval of the same distribution, with the degrees of
   freedom of Welch and Satterthwaite.
3. Everything is signed so that more is better for the second arm, which is the version. The p-value is for "it is no better".
4. What does not come out finite is refused; nothing is filled in.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import scipy
from scipy import stats

from attestry.domain.errors import InvalidInputError
from attestry.domain.validations import ARMS, Proportion, Sample, Trial, read_finding

EXACT: Final = 20_000
"""Trials in both arms up to which the exact test is used: some milliseconds."""


@dataclass(frozen=True)
class TrialResult:
    """What a trial gives.

    Attributes:
        effect: see `Trial.effect`.
        low: lower end of the interval of the effect.
        high: upper end.
        p_value: one-sided, for "the version is no better".
        method: the test, and what computed it.
    """

    effect: float
    low: float
    high: float
    p_value: float
    method: str

    def to_item(self) -> dict[str, str]:
        """Return the result as JSON, numbers as text in their shortest exact form."""
        return {**{name: repr(getattr(self, name)) for name in ("effect", "low", "high", "p_value")}, "method": self.method}


def evaluate_trial(event: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the trial that a call names.

    Args:
        event: `kind` and `content` of a validation record.

    Raises:
        InvalidInputError: the record breaks a rule, or nothing finite comes out.
    """
    trial = read_finding(str(event["kind"]), event["content"])
    if not isinstance(trial, Trial):
        raise InvalidInputError.of("kind", "enum", f"only {' and '.join(ARMS)} are computed")
    return compute_trial(trial).to_item()


def compute_trial(trial: Trial) -> TrialResult:
    """Return effect, interval and p-value of a trial.

    Raises:
        InvalidInputError: something does not come out finite.
    """
    first, second = trial.first, trial.second
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if isinstance(first, Proportion) and isinstance(second, Proportion):
            low, high, p_value, method = _rates(trial, first, second)
        elif isinstance(first, Sample) and isinstance(second, Sample):
            low, high, p_value, method = _means(trial, first, second)
        else:
            raise InvalidInputError.of("content", "same_kind", "both arms count successes, or both give mean and variance")
    numbers = (trial.effect, low, high, p_value)
    if not all(map(math.isfinite, numbers)):
        raise InvalidInputError.of("content", "computable", "no finite interval and p-value follow from these counts")
    return TrialResult(*numbers, f"{method}; scipy {scipy.__version__}")


def _rates(trial: Trial, first: Proportion, second: Proportion) -> tuple[float, float, float, str]:
    if trial.better == "lower":
        first, second = (Proportion(arm.size, arm.size - arm.successes) for arm in (first, second))
    z = float(stats.norm.ppf((1 + trial.confidence) / 2))
    (low1, high1), (low2, high2) = _wilson(first, z), _wilson(second, z)
    low = trial.effect - math.hypot(second.level - low2, high1 - first.level)
    high = trial.effect + math.hypot(high2 - second.level, first.level - low1)
    total, pooled = first.size + second.size, first.successes + second.successes
    if total <= EXACT:
        table = [[second.successes, second.size - second.successes], [first.successes, first.size - first.successes]]
        p_value, test = float(stats.fisher_exact(table, alternative="greater").pvalue), "Fisher's exact test"
    else:
        rate = pooled / total
        error = math.sqrt(rate * (1 - rate) * (1 / first.size + 1 / second.size))
        # Where all succeeded, or none, nothing speaks for a difference.
        p_value = float(stats.norm.sf(trial.effect / error)) if error else 1.0
        test = "z-test with pooled variance"
    return max(low, -1.0), min(high, 1.0), min(p_value, 1.0), f"{test}, one-sided; Newcombe's hybrid score interval"


def _wilson(arm: Proportion, z: float) -> tuple[float, float]:
    """Return Wilson's score interval of a rate."""
    size, rate = arm.size, arm.level
    middle = (rate + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(rate * (1 - rate) / size + z * z / (4 * size * size))
    # Exact at the ends, where rounding would leave the interval on the wrong side of the rate.
    return (0.0 if arm.successes == 0 else middle - half), (1.0 if arm.successes == size else middle + half)


def _means(trial: Trial, first: Sample, second: Sample) -> tuple[float, float, float, str]:
    sign = -1.0 if trial.better == "lower" else 1.0
    arms = [(sign * arm.mean, math.sqrt(arm.variance), arm.size) for arm in (second, first)]
    p_value = float(stats.ttest_ind_from_stats(*arms[0], *arms[1], equal_var=False, alternative="greater").pvalue)
    one, two = first.variance / first.size, second.variance / second.size
    # Shares of the sum, so that no square of a small variance vanishes.
    share = one / (one + two) if one + two else math.nan
    degrees = 1 / (share**2 / (first.size - 1) + (1 - share) ** 2 / (second.size - 1))
    half = float(stats.t.ppf((1 + trial.confidence) / 2, degrees)) * math.sqrt(one + two)
    return trial.effect - half, trial.effect + half, p_value, "Welch's t-test, one-sided, with its interval"
