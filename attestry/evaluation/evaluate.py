"""Evaluates what a script left: prepared data after PROCESSING, predictions after VALIDATION.

Answers `{"outcome": "SUCCEEDED|FAILED", "error": str, "summary_key": str}` for everything that lies in the candidate; what lies in
the registry or in AWS is raised.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attestry.domain.errors import IntegrityError, InvalidInputError, NotFoundError, StageFailedError
from attestry.ports import ObjectStore


def evaluate(event: Mapping[str, Any], store: ObjectStore, scratch: ObjectStore) -> dict[str, str]:
    """Evaluate one run of a stage; the evaluation environment is active already.

    Args:
        event: `stage`, `prefix` (scratch prefix that ends with `evaluated/`), and for PROCESSING `output_key`, `label_column` and
            optionally `channels` (`{"training", "holdout"}`: folders within the output) and `output_prefix` (where Spark left the
            output as objects, instead of an archive), for VALIDATION `predictions_key`, `labels`,
            `metrics`, `columns`.
        store: the model store; read for the labels only.
        scratch: the scratch bucket.
    """
    # Imported here because they import the packages that `EvaluationEnvironment` makes importable.
    from attestry.evaluation import prepared_data, validation

    stages = {"PROCESSING": prepared_data.evaluate_processing, "VALIDATION": validation.evaluate_validation}
    stage = str(event.get("stage"))
    if stage not in stages:
        return failed(f"{stage} has nothing to evaluate")
    try:
        with tempfile.TemporaryDirectory(prefix="attestry-evaluate-") as folder:
            summary_key = stages[stage](event, store, scratch, Path(folder))
    except (InvalidInputError, StageFailedError, IntegrityError, NotFoundError) as error:
        return failed(error.message)
    return {"outcome": "SUCCEEDED", "error": "", "summary_key": summary_key}


def evaluate_record(event: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the trial of a validation record; the evaluation environment is active already.

    Args:
        event: `kind` and `content` of the record.

    Returns:
        `{"outcome": "SUCCEEDED", "result": {...}}` (`attestry.evaluation.trials.TrialResult.to_item`), or `{"outcome": "FAILED",
        "error", "field", "rule"}` where nothing follows from the counts.
    """
    from attestry.evaluation.trials import evaluate_trial

    try:
        return {"outcome": "SUCCEEDED", "error": "", "result": evaluate_trial(event)}
    except InvalidInputError as error:
        problem = error.problems[0]
        return {"outcome": "FAILED", "error": problem.message, "field": problem.field, "rule": problem.rule}


def failed(error: str) -> dict[str, str]:
    """Return the answer that names why the outputs cannot be used."""
    return {"outcome": "FAILED", "error": error, "summary_key": ""}
