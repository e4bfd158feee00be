"""Computes a version's metrics from its hold-out predictions and the labels that training never saw.

Rules:

1. There is one prediction for each label, all values are finite, and every metric comes out finite.
2. A metric is a function of `attestry.domain.metrics`; it compares the labels with the column of predictions, or with the scores.
3. Scores are one column, or for several classes one column each: `<score>_<class>`, or `<score>_0` and on in the order of the
   sorted classes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet as parquet
import sklearn
import sklearn.metrics

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.domain.metrics import METRIC_FUNCTIONS, MetricFunction
from attestry.evaluation.comparison import Measure, compare, seed_of
from attestry.evaluation.predictions import MAX_BYTES, Predictions, parse_predictions, read_predictions
from attestry.ports import ObjectStore

MAX_LABEL_BYTES = 1 << 30


def evaluate_validation(event: Mapping[str, Any], store: ObjectStore, scratch: ObjectStore, _folder: Path) -> str:
    """Compute the metrics, pass on the predictions, and return the key of the summary; see `evaluate.evaluate`.

    Raises:
        InvalidInputError: a rule is broken; the message names the metric or the column.
        IntegrityError: the labels are not those that were recorded.
    """
    prefix = str(event["prefix"])
    predictions = read_predictions(scratch, str(event["predictions_key"]))
    labels = read_labels(store, event["labels"])
    columns = event.get("columns") or {}
    compared = _compare_with_champion(event, store, labels, predictions) if event.get("champion") else {}
    summary = {
        **compared,
        "metrics": compute_metrics(
            labels, predictions, event["metrics"], prediction=str(columns.get("prediction") or "prediction"), score=columns.get("score")
        ),
        "rows": predictions.rows,
        "predictions_sha256": hashlib.sha256(predictions.document).hexdigest(),
        "evaluated_with": _environment(event.get("environment") or {}),
    }
    scratch.put_new(f"{prefix}predictions.json", predictions.document, content_type="application/json")
    body = json.dumps(summary, allow_nan=False, ensure_ascii=False).encode()
    scratch.put_new(f"{prefix}summary.json", body, content_type="application/json")
    return f"{prefix}summary.json"


def _compare_with_champion(event: Mapping[str, Any], store: ObjectStore, labels: Any, predictions: Predictions) -> dict[str, Any]:
    """Return `{"champion": reference, "comparisons": {metric: comparison}}` for the metrics whose gates ask for a confidence."""
    champion = event["champion"]
    file = champion["predictions"]
    body = store.read(str(file["key"]), file.get("version_id"), max_bytes=MAX_BYTES)
    if hashlib.sha256(body).hexdigest() != file["sha256"]:
        raise IntegrityError(f"{file['key']} is not what {champion['reference']} predicted")
    theirs = parse_predictions(body)
    digests = {"challenger": hashlib.sha256(predictions.document).hexdigest(), "champion": str(file["sha256"])}
    comparisons = {}
    for metric in event["metrics"]:
        key = str(metric.get("alias") or metric["name"])
        if key in event["compare"]:
            known = METRIC_FUNCTIONS[str(metric["name"])]
            mine, other = (_answers(known, p, c, labels) for p, c in ((predictions, event["columns"]), (theirs, champion["columns"])))
            measure = _measure(known.name, dict(metric.get("parameters") or {}))
            lower, confidence, seed = known.better == "lower", float(event["compare"][key]), seed_of({**digests, "metric": key})
            compared = compare(labels, mine, other, measure, lower_is_better=lower, confidence=confidence, seed=seed)
            comparisons[key] = compared.to_item()
    return {"champion": str(champion["reference"]), "comparisons": comparisons}


def _answers(metric: MetricFunction, predictions: Predictions, columns: Mapping[str, Any], labels: Any) -> Any:
    if metric.reads == "prediction":
        return _column(predictions, str(columns.get("prediction") or "prediction"))
    return _scores(predictions, columns.get("score"), labels, metric.name)


def _measure(name: str, parameters: Mapping[str, Any]) -> Measure:
    function = getattr(sklearn.metrics, name)
    return lambda labels, given: float(function(labels, given, **parameters))


def _environment(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return what computes the metrics: the packages whose versions bear on them, and the environment that they are imported from."""
    packages = {"scikit-learn": sklearn.__version__, "numpy": numpy.__version__, "pyarrow": pyarrow.__version__}
    return {"python": platform.python_version(), **packages, **{f"environment_{k}": str(v) for k, v in sorted(environment.items())}}


def read_labels(store: ObjectStore, labels: Mapping[str, Any]) -> Any:
    """Return the hold-out's labels as a numpy array of shape (n,).

    Args:
        store: the model store.
        labels: `{"key", "version_id", "sha256"?}` of a Parquet file with one column.

    Raises:
        IntegrityError: the bytes are not those recorded.
    """
    body = store.read(str(labels["key"]), labels.get("version_id"), max_bytes=MAX_LABEL_BYTES)
    recorded = labels.get("sha256")
    if recorded and hashlib.sha256(body).hexdigest() != recorded:
        raise IntegrityError(f"{labels['key']} is not the file of labels that was recorded")
    column = parquet.read_table(io.BytesIO(body)).column(0)
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pyarrow.types.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    return column.to_numpy()


def compute_metrics(
    labels: Any, predictions: Predictions, metrics: list[Mapping[str, Any]], *, prediction: str = "prediction", score: str | None = None
) -> dict[str, dict[str, Any]]:
    """Return the metrics, each `{"function", "reads", "parameters", "value": float, "text": repr, "warnings"}`, by alias or name.

    Args:
        labels: shape (n,).
        predictions: of n rows.
        metrics: each `{"name", "alias"?, "parameters"?}`.
        prediction: the column that holds predictions.
        score: the column, or the beginning of the columns, that hold scores.

    Raises:
        InvalidInputError: the rows differ in number, a metric or column is unknown, or a value is not finite.
    """
    if predictions.rows != len(labels):
        message = f"{predictions.rows} predictions for {len(labels)} rows of the hold-out"
        raise InvalidInputError.of("predictions.json", "rows", message)
    computed: dict[str, dict[str, Any]] = {}
    for metric in metrics:
        key = str(metric.get("alias") or metric["name"])
        if key in computed:
            raise InvalidInputError.of(f"validation.metrics.{key}", "unique", "two metrics have one name")
        computed[key] = _compute(metric, labels, predictions, prediction, score)
    return computed


def _compute(metric: Mapping[str, Any], labels: Any, predictions: Predictions, prediction: str, score: str | None) -> dict[str, Any]:
    name = str(metric["name"])
    known = METRIC_FUNCTIONS.get(name)
    if known is None:
        raise InvalidInputError.of(f"validation.metrics.{name}", "known", f"{name} is not a metric that can be computed")
    parameters = dict(metric.get("parameters") or {})
    given = _column(predictions, prediction) if known.reads == "prediction" else _scores(predictions, score, labels, name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = getattr(sklearn.metrics, name)(labels, given, **parameters)
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise InvalidInputError.of(f"validation.metrics.{name}", "computable", f"scikit-learn refuses: {str(error)[:500]}") from error
    if numpy.ndim(value) != 0:
        raise InvalidInputError.of(f"validation.metrics.{name}", "scalar", "it gives several numbers; choose an average")
    number = float(value)
    said = sorted({str(w.message).split("\n", 1)[0][:300] for w in caught})
    if not math.isfinite(number):
        reason = f" ({said[0]})" if said else ""
        raise InvalidInputError.of(f"validation.metrics.{name}", "finite", f"it comes out as {number}{reason}")
    return {
        "function": f"sklearn.metrics.{name}",
        "reads": known.reads,
        "parameters": parameters,
        "value": number,
        "text": repr(number),
        "warnings": said,
    }


def _column(predictions: Predictions, name: str) -> Any:
    if name not in predictions.columns:
        there = ", ".join(sorted(predictions.columns)[:10])
        raise InvalidInputError.of("validation.columns", "present", f"predict_fn gave no column {name!r}; it gave {there}")
    values = predictions.columns[name]
    kinds = {type(value) for value in values}
    if str in kinds and len(kinds) > 1:
        raise InvalidInputError.of(f"predictions.json: {name}", "one_type", "the column mixes texts with other values")
    return numpy.array(values, dtype=object) if str in kinds else numpy.array(values)


def _scores(predictions: Predictions, score: str | None, labels: Any, metric: str) -> Any:
    if score is None:
        message = f"{metric} compares scores; name their column in validation.columns.score"
        raise InvalidInputError.of("validation.columns.score", "required", message)
    if score in predictions.columns:
        return _column(predictions, score)
    classes = [str(value) for value in sorted(set(labels.tolist()))]
    for names in ([f"{score}_{name}" for name in classes], [f"{score}_{index}" for index in range(len(classes))]):
        if all(name in predictions.columns for name in names):
            return numpy.column_stack([_column(predictions, name) for name in names])
    return _column(predictions, score)
