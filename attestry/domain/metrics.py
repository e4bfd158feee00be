"""The metrics that a manifest may name: functions of `sklearn.metrics` that compare a hold-out's labels with predictions.

The list is closed: the registry calls nothing by a name that a manifest made up. Names and meaning are scikit-learn's
(scikit-learn.org/stable/api/sklearn.metrics.html); all of them exist since 1.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class MetricFunction:
    """A function of `sklearn.metrics`.

    Attributes:
        name: name of the function.
        task: kind of model that it judges.
        reads: whether it compares the labels with predictions or with scores (probabilities, decision values).
        better: whether a higher or a lower value is better.
    """

    name: str
    task: Task
    reads: Literal["prediction", "score"] = "prediction"
    better: Literal["higher", "lower"] = "higher"


def _table() -> dict[str, MetricFunction]:
    higher = {
        "classification": (
            "accuracy_score balanced_accuracy_score cohen_kappa_score f1_score fbeta_score jaccard_score matthews_corrcoef "
            "precision_score recall_score"
        ),
        "regression": "d2_absolute_error_score d2_pinball_score d2_tweedie_score explained_variance_score r2_score",
    }
    lower = {
        "classification": "hamming_loss zero_one_loss",
        "regression": (
            "max_error mean_absolute_error mean_absolute_percentage_error mean_gamma_deviance mean_pinball_loss "
            "mean_poisson_deviance mean_squared_error mean_squared_log_error mean_tweedie_deviance median_absolute_error "
            "root_mean_squared_error root_mean_squared_log_error"
        ),
    }
    scores_higher = "average_precision_score d2_brier_score d2_log_loss_score roc_auc_score top_k_accuracy_score"
    functions = [
        *(MetricFunction(n, "classification") for n in higher["classification"].split()),
        *(MetricFunction(n, "regression") for n in higher["regression"].split()),
        *(MetricFunction(n, "classification", better="lower") for n in lower["classification"].split()),
        *(MetricFunction(n, "regression", better="lower") for n in lower["regression"].split()),
        *(MetricFunction(n, "classification", "score") for n in scores_higher.split()),
        *(MetricFunction(n, "classification", "score", "lower") for n in ("brier_score_loss", "log_loss")),
    ]
    return {function.name: function for function in sorted(functions, key=lambda f: f.name)}


METRIC_FUNCTIONS: dict[str, MetricFunction] = _table()
"""Name to function, sorted by name."""
