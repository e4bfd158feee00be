"""Champion and challenger: whether a version differs from the deployed one by more than chance, on the same hold-out.

Rules:

1. Both are judged on the same rows and labels; the difference of a metric is signed so that more is better for the challenger.
2. The interval is the percentile bootstrap over rows, both versions resampled together (Efron & Tibshirani 1993, chapter 13;
   `scipy.stats.bootstrap`).
3. The p-value is that of a paired permutation test, one-sided: how often a difference as large comes about when each row's answers are
   swapped between the two at random (`scipy.stats.permutation_test`).
4. Both are seeded by the digests of what is compared, so that whoever computes them again gets the same numbers.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy
from scipy import stats

from attestry.domain.errors import InvalidInputError

MOST_RESAMPLES: Final = 2000
FEWEST_RESAMPLES: Final = 200
ROWS_IN_ALL: Final = 20_000_000
"""What a function of two cores goes through in some minutes: rows times resamples."""

Measure = Callable[[Any, Any], float]
"""A metric: labels and answers, row by row, to a number."""


@dataclass(frozen=True)
class Comparison:
    """How a challenger compares with the champion in one metric.

    Attributes:
        effect: the challenger's value less the champion's, signed so that more is better.
        low: lower end of the interval of the effect.
        high: upper end.
        p_value: one-sided, for "the challenger is no better".
        confidence: of the interval, for example 0.95.
        rows: size of the hold-out.
        resamples: how many samples interval and p-value rest on.
    """

    effect: float
    low: float
    high: float
    p_value: float
    confidence: float
    rows: int
    resamples: int

    def to_item(self) -> dict[str, Any]:
        """Return the comparison as JSON, numbers as text in their shortest exact form."""
        numbers = {name: repr(getattr(self, name)) for name in ("effect", "low", "high", "p_value", "confidence")}
        return {**numbers, "rows": self.rows, "resamples": self.resamples}


def compare(
    labels: Any, challenger: Any, champion: Any, measure: Measure, *, lower_is_better: bool, confidence: float, seed: bytes
) -> Comparison:
    """Compare the answers of two versions.

    Args:
        labels: shape (n,).
        challenger: the new version's answers, n rows.
        champion: the deployed version's answers, n rows.
        measure: the metric.
        lower_is_better: whether less of the metric is better.
        confidence: of the interval, above 0.5 and below 1.
        seed: what the random numbers derive from.

    Raises:
        InvalidInputError: the versions answer another number of rows, or the hold-out is too small for the metric to be resampled.
    """
    rows = len(labels)
    if not len(challenger) == len(champion) == rows:
        raise InvalidInputError.of("predictions.json", "rows", f"{len(challenger)} and {len(champion)} answers for {rows} rows")
    sign = -1.0 if lower_is_better else 1.0
    resamples = max(FEWEST_RESAMPLES, min(MOST_RESAMPLES, ROWS_IN_ALL // max(1, rows)))
    indices, random = numpy.arange(rows), numpy.random.default_rng(list(hashlib.sha256(seed).digest()))

    def difference(chosen: Any) -> float:
        at = chosen.astype(int)
        return sign * (measure(labels[at], challenger[at]) - measure(labels[at], champion[at]))

    def swapped(signs: Any) -> float:
        keep = (signs > 0).reshape((rows, *(1,) * (challenger.ndim - 1)))
        mine, theirs = numpy.where(keep, challenger, champion), numpy.where(keep, champion, challenger)
        return sign * (measure(labels, mine) - measure(labels, theirs))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            effect = difference(indices)
            interval = stats.bootstrap(
                (indices,),
                difference,
                n_resamples=resamples,
                vectorized=False,
                confidence_level=confidence,
                method="percentile",
                rng=random,
            ).confidence_interval
            permuted = stats.permutation_test(
                (numpy.ones(rows),),
                swapped,
                permutation_type="samples",
                vectorized=False,
                n_resamples=resamples,
                alternative="greater",
                rng=random,
            )
        except ValueError as error:
            raise InvalidInputError.of("gates.no_worse_than_deployed", "computable", f"no interval: {str(error)[:300]}") from error
    numbers = (effect, float(interval.low), float(interval.high), float(permuted.pvalue))
    if not all(map(math.isfinite, numbers)):
        raise InvalidInputError.of("gates.no_worse_than_deployed", "computable", "no interval: the hold-out is too small for this metric")
    return Comparison(*numbers, confidence, rows, resamples)


def seed_of(documents: Mapping[str, str]) -> bytes:
    """Return the seed of a comparison: the digests of what is compared, by what they are of."""
    return "\n".join(f"{name}={digest}" for name, digest in sorted(documents.items())).encode()
