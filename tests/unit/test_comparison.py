"""Champion and challenger: an interval that covers, a p-value that is uniform under no difference, numbers that can be computed again."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score

from attestry.domain.errors import InvalidInputError
from attestry.evaluation import comparison
from attestry.evaluation.comparison import Comparison, compare, seed_of

SEED = seed_of({"challenger": "ab" * 32, "champion": "cd" * 32})


def answers(rows: int, right: float, seed: int) -> tuple[Any, Any]:
    """Labels, and answers of which this share is right."""
    random = numpy.random.default_rng(seed)
    labels = random.integers(0, 2, rows)
    return labels, numpy.where(random.random(rows) < right, labels, 1 - labels)


def share_right(labels: Any, given: Any) -> float:
    """Accuracy, without what scikit-learn checks each time."""
    return float((labels == given).mean())


def squared_error(labels: Any, given: Any) -> float:
    return float(((labels - given) ** 2).mean())


def versus(labels: Any, challenger: Any, champion: Any, measure: Any = share_right, **changes: Any) -> Comparison:
    return compare(labels, challenger, champion, measure, **{"lower_is_better": False, "confidence": 0.95, "seed": SEED, **changes})


def test_a_clearly_better_version_is_told_apart_from_chance() -> None:
    labels, champion = answers(400, 0.7, 1)
    random = numpy.random.default_rng(2)
    challenger = numpy.where(random.random(400) < 0.9, labels, 1 - labels)
    found = versus(labels, challenger, champion)
    assert found.low > 0
    assert found.p_value < 0.01
    assert found.low <= found.effect <= found.high
    assert found.effect == pytest.approx(accuracy_score(labels, challenger) - accuracy_score(labels, champion))


def test_the_same_answers_do_not_differ() -> None:
    labels, champion = answers(200, 0.8, 3)
    found = versus(labels, champion, champion)
    assert (found.effect, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_where_less_is_better_the_sign_is_turned() -> None:
    random = numpy.random.default_rng(4)
    labels = random.normal(size=300)
    near, far = labels + random.normal(scale=0.1, size=300), labels + random.normal(scale=0.5, size=300)
    assert versus(labels, near, far, squared_error, lower_is_better=True).low > 0
    assert versus(labels, far, near, squared_error, lower_is_better=True).high < 0


def test_the_numbers_are_the_same_whenever_they_are_computed_and_others_for_other_bytes() -> None:
    labels, champion = answers(150, 0.7, 5)
    _, challenger = answers(150, 0.75, 5)
    assert versus(labels, challenger, champion) == versus(labels, challenger, champion)
    assert versus(labels, challenger, champion) != versus(labels, challenger, champion, seed=b"other")


def test_the_p_value_agrees_with_the_exact_test_of_mcnemar() -> None:
    """For accuracy the paired permutation test is McNemar's exact test: a binomial test over the rows in which the two differ."""
    labels, champion = answers(300, 0.75, 6)
    _, challenger = answers(300, 0.82, 7)
    challenger = numpy.where(challenger == answers(300, 0.82, 7)[0], labels, 1 - labels)
    gained = int(((challenger == labels) & (champion != labels)).sum())
    lost = int(((challenger != labels) & (champion == labels)).sum())
    exact = stats.binomtest(gained, gained + lost, alternative="greater").pvalue
    assert versus(labels, challenger, champion).p_value == pytest.approx(exact, abs=0.03)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MOST_RESAMPLES", 200)
    covered = 0
    for trial in range(60):
        random = numpy.random.default_rng(1000 + trial)
        labels = random.integers(0, 2, 200)
        champion, challenger = (numpy.where(random.random(200) < right, labels, 1 - labels) for right in (0.7, 0.8))
        found = versus(labels, challenger, champion, share_right, seed=str(trial).encode(), confidence=0.9)
        covered += found.low <= 0.1 <= found.high
    assert 46 <= covered <= 60, "of 60 intervals of 90 %: 54 are expected, 46 and fewer in one of 10,000 cases"


def test_scores_of_several_columns_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MOST_RESAMPLES", 200)
    random = numpy.random.default_rng(8)
    labels = random.integers(0, 3, 240)
    good = numpy.eye(3)[labels] * 0.6 + random.random((240, 3)) * 0.4
    bad = random.random((240, 3))
    good, bad = good / good.sum(axis=1, keepdims=True), bad / bad.sum(axis=1, keepdims=True)
    assert versus(labels, good, bad, lambda y, s: roc_auc_score(y, s, multi_class="ovr")).low > 0.2


def test_a_hold_out_that_is_too_small_for_the_metric_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MOST_RESAMPLES", 200)
    labels = numpy.array([1, 0, 0, 0])
    scores = numpy.array([0.9, 0.1, 0.2, 0.3])
    with pytest.raises(InvalidInputError):
        versus(labels, scores, scores[::-1], roc_auc_score)


def test_versions_that_answer_another_number_of_rows_are_refused() -> None:
    labels, champion = answers(20, 0.7, 9)
    with pytest.raises(InvalidInputError):
        versus(labels, champion[:-1], champion)


def test_a_large_hold_out_is_resampled_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "ROWS_IN_ALL", 200_000)
    labels, champion = answers(800, 0.7, 10)
    found = versus(labels, champion, champion, share_right)
    assert found.resamples == 200_000 // 800
    assert found.to_item()["rows"] == 800
