"""What the manifest accepts as a metric's parameter is what scikit-learn accepts, so that no evaluation fails for a wrong setting."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import sklearn.metrics
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints

from attestry.domain.metric_parameters import parameters_of
from attestry.domain.metrics import METRIC_FUNCTIONS

FORMER_NAME = "y_pred"
"""Name that scikit-learn still takes for the scores of two losses; it is what is judged, no setting."""

SEVERAL_NUMBERS = {"samples", "raw_values"}
NUMBERS = {"alpha", "beta", "k", "max_fpr", "power", "replace_undefined_by", "zero_division"}
"""Python takes `True` for 1; the manifest does not."""

TEXTS = ["macro", "micro", "weighted", "binary", "samples", "uniform_average", "variance_weighted", "raw_values", "linear", "quadratic"]
VALUES: list[Any] = [*TEXTS, "ovo", "ovr", "raise", "warn", "auto", "other", True, False, -2, -1, 0, 0.5, 1, 1.5, 2, [1, 2], ["a", "b"], []]


@pytest.mark.parametrize("metric", METRIC_FUNCTIONS)
def test_a_metric_has_the_parameters_of_the_function_that_computes_it(metric: str) -> None:
    signature = inspect.signature(getattr(sklearn.metrics, metric))
    settings = dict(list(signature.parameters.items())[2:])
    settings.pop(FORMER_NAME, None)
    assert set(parameters_of(metric)) == set(settings)
    needed = {name for name, parameter in settings.items() if parameter.default is inspect.Parameter.empty}
    assert {name for name, parameter in parameters_of(metric).items() if parameter.needed} == needed


@pytest.mark.parametrize("metric", METRIC_FUNCTIONS)
def test_a_value_is_accepted_where_the_function_accepts_it_and_gives_one_number(metric: str) -> None:
    constraints = getattr(sklearn.metrics, metric)._skl_parameter_constraints
    for name, parameter in parameters_of(metric).items():
        for value in VALUES:
            several = name in ("average", "multioutput") and (isinstance(value, list) or value in SEVERAL_NUMBERS)
            switch = name in NUMBERS and isinstance(value, bool)
            wanted = accepts(constraints, name, value) and not several and not switch
            assert parameter.accepts(value) is wanted, (metric, name, value)


def accepts(constraints: Any, name: str, value: Any) -> bool:
    try:
        validate_parameter_constraints({name: constraints[name]}, {name: value}, "metric")
    except InvalidParameterError:
        return False
    return True


def test_a_refusal_names_only_choices_that_are_accepted() -> None:
    for metric in METRIC_FUNCTIONS:
        for parameter in parameters_of(metric).values():
            assert all(parameter.accepts(choice) for choice in parameter.choices)
