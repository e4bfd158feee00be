"""Calls a manifest's `model_fn` and `predict_fn` inside the child process, and makes JSON of what they return.

`model_fn(model_dir)` returns the model; `predict_fn(data, model)` gets a pandas DataFrame and returns, for its n rows, an
array-like of shape (n,) or (n, k), or a DataFrame or mapping of named columns. numpy and pandas are those of the script's environment,
and are imported only here, after the process has been confined.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

PREDICTION = "prediction"
_COLUMNS_MAX = 4096


class RuleError(Exception):
    """The inference script or what it returned cannot be taken; the message says why."""


def predict_holdout(script: str, configuration: Mapping[str, Any]) -> None:
    """Predict on all Parquet files of a folder, in order of their names, and write `predictions.json`.

    The document is `{"columns": {name: [value, ...]}, "rows": n}`. A fault ends the process with 1 and a sentence on standard error.

    Args:
        script: path of the inference script.
        configuration: `holdout` (folder), `model` (folder) and `predictions` (file to write).
    """
    import pandas

    files = sorted(Path(configuration["holdout"]).rglob("*.parquet"))
    data = pandas.concat([pandas.read_parquet(file) for file in files], ignore_index=True)
    module = _load(script)
    try:
        load, predict = _function(module, "model_fn"), _function(module, "predict_fn")
        columns, _ = to_columns(predict(data, load(configuration["model"])), len(data))
    except RuleError as error:
        sys.exit(f"the inference script: {error}")
    text = json.dumps({"columns": columns, "rows": len(data)}, allow_nan=False)
    Path(configuration["predictions"]).write_text(text, encoding="utf-8")


def serve(script: str, configuration: Mapping[str, Any]) -> None:
    """Load the model, then answer one request a line until there are no more.

    Answers are one JSON object a line: first `{"ready": true}` or `{"error": ...}`, then for each request `{"id", "instances", "columns"}`
    either `{"id": ..., "output": [...]}` or `{"id": ..., "error": ...}`.

    Args:
        script: path of the inference script.
        configuration: `model` (folder), `requests` and `answers` (file descriptors).
    """
    with os.fdopen(configuration["requests"], "rb") as requests, os.fdopen(configuration["answers"], "wb") as answers:

        def answer(document: dict[str, Any]) -> None:
            answers.write(json.dumps(document, allow_nan=False).encode() + b"\n")
            answers.flush()

        try:
            module = _load(script)
            model = _function(module, "model_fn")(configuration["model"])
            predict = _function(module, "predict_fn")
        except Exception as error:  # noqa: BLE001 (a stranger's code may raise anything, and it has to be told)
            answer({"error": f"loading failed: {_sentence(error)}"})
            return
        answer({"ready": True})
        for line in requests:
            request = json.loads(line)
            try:
                output = _predict_instances(predict, model, request["instances"], request.get("columns"))
                document = {"id": request["id"], "output": output}
            except Exception as error:  # noqa: BLE001 (as above)
                document = {"id": request["id"], "error": f"predict_fn: {_sentence(error)}"}
            answer(document)


def to_columns(output: Any, rows: int) -> tuple[dict[str, list[Any]], bool]:
    """Return an output as named columns of JSON scalars, and whether the names are the script's own.

    An array of shape (n,) or (n, 1) becomes the column `prediction`, one of shape (n, k) the columns `prediction_0` and on.

    Args:
        output: what predict_fn returned.
        rows: how many rows it was given.

    Raises:
        RuleError: wrong shape or number of rows, or a value that is no finite number, text or truth value.
    """
    named = isinstance(output, Mapping) or (hasattr(output, "columns") and hasattr(output, "items"))
    if named:
        columns = {str(name): values for name, values in output.items()}
        if len(columns) != len(list(output.keys())):
            raise RuleError("two columns have one name")
    else:
        columns = _unnamed_columns(output)
    if not 0 < len(columns) <= _COLUMNS_MAX:
        raise RuleError(f"{len(columns)} columns; 1 to {_COLUMNS_MAX} are taken")
    plain = {}
    for name, values in columns.items():
        listed = values.tolist() if hasattr(values, "tolist") else values
        if not isinstance(listed, list | tuple):
            raise RuleError(f"column {name!r} is no list of values")
        if len(listed) != rows:
            raise RuleError(f"column {name!r} has {len(listed)} rows, the input had {rows}")
        plain[name] = [_scalar(value, name, row) for row, value in enumerate(listed)]
    return plain, named


def _unnamed_columns(output: Any) -> dict[str, Any]:
    import numpy

    array = numpy.asarray(output)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 1:
        return {PREDICTION: array}
    if array.ndim == 2:
        return {f"{PREDICTION}_{k}": array[:, k] for k in range(array.shape[1])}
    raise RuleError(f"an array of {array.ndim} dimensions; (n,) or (n, k) are taken")


def _scalar(value: Any, name: str, row: int) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise RuleError(f"column {name!r}, row {row}: {value} is not a finite number")
    if not isinstance(value, bool | int | float | str):
        raise RuleError(f"column {name!r}, row {row}: a value of type {type(value).__name__} is neither number, text nor truth value")
    return value


def _predict_instances(
    predict: Callable[..., Any], model: Any, instances: Sequence[Mapping[str, Any]], columns: Sequence[str] | None
) -> list[Any]:
    import pandas

    names = list(columns or instances[0])
    for row, instance in enumerate(instances):
        if instance.keys() != set(names):
            differing = sorted(instance.keys() ^ set(names))
            raise RuleError(f"instance {row} lacks or adds {', '.join(map(repr, differing[:5]))}")
    data = pandas.DataFrame([[instance[name] for name in names] for instance in instances], columns=names)
    result, named = to_columns(predict(data, model), len(instances))
    if named:
        return [dict(zip(result, values, strict=True)) for values in zip(*result.values(), strict=True)]
    if list(result) == [PREDICTION]:
        return result[PREDICTION]
    return [list(values) for values in zip(*result.values(), strict=True)]


def _load(script: str) -> ModuleType:
    name = Path(script).stem
    spec = importlib.util.spec_from_file_location(name, script)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _function(module: ModuleType, name: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if not callable(function):
        raise RuleError(f"the inference script defines no {name}")
    found: Callable[..., Any] = function
    return found


def _sentence(error: Exception) -> str:
    text = str(error) if isinstance(error, RuleError) else f"{type(error).__name__}: {error}"
    return text[:1000]
