"""Keyword arguments of the metrics that a manifest may name: which there are, and which values each of them takes.

They are scikit-learn's (1.9), less what a manifest cannot hold (null, NaN) and what never gives one number for one column of labels:
`average: samples`, several outputs. What a metric makes of the labels themselves shows only when it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Parameter:
    """One keyword argument.

    Attributes:
        wanted: what it takes, to be read behind "takes".
        accepts: whether a value of the manifest is one of that.
        choices: the texts that it takes, where it takes texts of a list.
        needed: whether the metric cannot be computed without it.
    """

    wanted: str
    accepts: Callable[[Any], bool]
    choices: tuple[str, ...] = ()
    needed: bool = False


def _choice(*choices: str) -> Parameter:
    return Parameter("one of: " + ", ".join(choices), lambda v: isinstance(v, str) and v in choices, choices)


def _number(wanted: str, holds: Callable[[float], bool], *, needed: bool = False) -> Parameter:
    return Parameter(wanted, lambda v: isinstance(v, int | float) and not isinstance(v, bool) and holds(v), needed=needed)


_BOOLEAN: Final = Parameter("true or false", lambda v: isinstance(v, bool))
_LIST: Final = Parameter("a list", lambda v: isinstance(v, list | tuple))
_CLASS: Final = Parameter("a number, a text, true or false", lambda v: isinstance(v, int | float | str))
_SHARE: Final = _number("a number from 0 to 1", lambda v: 0 <= v <= 1)
_POWER: Final = _number("a number of at most 0 or at least 1", lambda v: v <= 0 or v >= 1)
_DIVISION: Final = Parameter("0, 1 or warn", lambda v: not isinstance(v, bool) and v in (0, 1, "warn"), ("warn",))
_BETA: Final = _number("a number of at least 0", lambda v: v >= 0, needed=True)
_FRACTION: Final = _number("a number above 0, at most 1", lambda v: 0 < v <= 1)
_REPLACED: Final = _number("a number from -1 to 1", lambda v: -1 <= v <= 1)
_COUNT: Final = Parameter("a whole number of at least 1", lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 1)
_HALF: Final = Parameter("true, false or auto", lambda v: isinstance(v, bool) or v == "auto", ("auto",))

_MEANS: Final = ("macro", "micro", "weighted")
_OUTPUT: Final = {"multioutput": _choice("uniform_average")}
_OUTPUTS: Final = {"multioutput": _choice("uniform_average", "variance_weighted"), "force_finite": _BOOLEAN}
_CONFUSION: Final = {"labels": _LIST, "pos_label": _CLASS, "average": _choice("binary", *_MEANS), "zero_division": _DIVISION}
_BRIER: Final = {"pos_label": _CLASS, "labels": _LIST}

_OWN: Final[Mapping[str, Mapping[str, Parameter]]] = {
    "accuracy_score": {"normalize": _BOOLEAN},
    "average_precision_score": {"average": _choice(*_MEANS), "pos_label": _CLASS},
    "balanced_accuracy_score": {"adjusted": _BOOLEAN},
    "brier_score_loss": {**_BRIER, "scale_by_half": _HALF},
    "cohen_kappa_score": {"labels": _LIST, "weights": _choice("linear", "quadratic"), "replace_undefined_by": _REPLACED},
    "d2_absolute_error_score": _OUTPUT,
    "d2_brier_score": _BRIER,
    "d2_log_loss_score": {"labels": _LIST},
    "d2_pinball_score": {"alpha": _SHARE, **_OUTPUT},
    "d2_tweedie_score": {"power": _POWER},
    "explained_variance_score": _OUTPUTS,
    "f1_score": _CONFUSION,
    "fbeta_score": {"beta": _BETA, **_CONFUSION},
    "jaccard_score": _CONFUSION,
    "log_loss": {"normalize": _BOOLEAN, "labels": _LIST},
    "mean_absolute_error": _OUTPUT,
    "mean_absolute_percentage_error": _OUTPUT,
    "mean_pinball_loss": {"alpha": _SHARE, **_OUTPUT},
    "mean_squared_error": _OUTPUT,
    "mean_squared_log_error": _OUTPUT,
    "mean_tweedie_deviance": {"power": _POWER},
    "median_absolute_error": _OUTPUT,
    "precision_score": _CONFUSION,
    "r2_score": _OUTPUTS,
    "recall_score": _CONFUSION,
    "roc_auc_score": {"average": _choice(*_MEANS), "max_fpr": _FRACTION, "multi_class": _choice("ovo", "ovr", "raise"), "labels": _LIST},
    "root_mean_squared_error": _OUTPUT,
    "root_mean_squared_log_error": _OUTPUT,
    "top_k_accuracy_score": {"k": _COUNT, "normalize": _BOOLEAN, "labels": _LIST},
    "zero_one_loss": {"normalize": _BOOLEAN},
}

_UNWEIGHTED: Final = frozenset({"max_error"})


def parameters_of(metric: str) -> dict[str, Parameter]:
    """Return the keyword arguments of a metric by name, sorted.

    Args:
        metric: name of a function in `attestry.domain.metrics.METRIC_FUNCTIONS`.
    """
    shared = {} if metric in _UNWEIGHTED else {"sample_weight": _LIST}
    return dict(sorted({**_OWN.get(metric, {}), **shared}.items()))
