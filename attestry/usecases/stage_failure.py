"""The failure of a stage: which one failed, and why, in one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attestry.domain.stages import PIPELINE, Stage, Status, stage_after
from attestry.domain.version import Version

MAX_ERROR = 2000
"""What an error may take in a record, in bytes of JSON."""

_OUTCOMES = ("SUCCEEDED", "FAILED", "TIMED_OUT")


def stage_to_fail(version: Version, stage: Stage) -> Stage | None:
    """Return the stage that failed when `stage` could not begin; None where none did.

    An attempt that stumbles over its first steps says PROCESSING whatever an earlier attempt has done. No stage that has succeeded fails
    because of it, and none is passed over: the one fails that runs, or would have begun.
    """
    if version.status is Status.RUNNING:
        return version.stage if version.stage is not Stage.APPROVAL else None
    following = stage_after(version.stage)
    return following if following is not None and PIPELINE.index(stage) <= PIPELINE.index(following) else None


def failure_of(run: Mapping[str, Any] | None, evaluation: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> str:
    """Return why a stage failed, or an empty text; for the arguments see `attestry.usecases.record_stage.StageResult`."""
    if error is not None:
        return _caught(error)
    run = run or {}
    if run.get("outcome") not in _OUTCOMES:
        return "the sandbox gave no answer that can be read"
    if run["outcome"] != "SUCCEEDED":
        return str(run.get("error") or f"the script ended with {run['outcome']}")[:MAX_ERROR]
    if evaluation is not None and evaluation.get("outcome") != "SUCCEEDED":
        return str(evaluation.get("error") or "the outputs could not be evaluated")[:MAX_ERROR]
    return ""


def _caught(error: Mapping[str, Any]) -> str:
    """Return the sentence of what Step Functions caught; a Lambda error's cause is JSON with `errorMessage`."""
    cause = str(error.get("Cause", ""))
    try:
        parsed = json.loads(cause)
    except ValueError:
        parsed = None
    message = parsed.get("errorMessage", cause) if isinstance(parsed, dict) else cause
    return f"{error.get('Error', 'the pipeline failed')}: {message}"[:MAX_ERROR]
