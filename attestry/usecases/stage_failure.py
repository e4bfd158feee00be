"""The failure of a stage: which one failed, and why, in one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attestry.domain.job_facts import JobFacts
from attestry.domain.stages import PIPELINE, Stage, Status, stage_after
from attestry.domain.version import Version
from attestry.usecases.stage_result import StageResult

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


def failure_of(result: StageResult, ran: JobFacts | None) -> str:
    """Return why a stage failed, or an empty text.

    Args:
        result: what the pipeline passes on.
        ran: facts of the job that ran it; None for the sandbox.
    """
    if result.error is not None:
        return _caught(result.error)
    if failure := _sandbox_failure(result.run or {}) if ran is None else ran.failure:
        return failure[:MAX_ERROR]
    if result.evaluation is not None and result.evaluation.get("outcome") != "SUCCEEDED":
        return str(result.evaluation.get("error") or "the outputs could not be evaluated")[:MAX_ERROR]
    return ""


def _sandbox_failure(run: Mapping[str, Any]) -> str:
    if isinstance(run.get("error"), Mapping):
        return _caught(run["error"])
    if run.get("outcome") not in _OUTCOMES:
        return "the sandbox gave no answer that can be read"
    return "" if run["outcome"] == "SUCCEEDED" else str(run.get("error") or f"the script ended with {run['outcome']}")


def _caught(error: Mapping[str, Any]) -> str:
    """Return the sentence of what Step Functions caught; a Lambda error's cause is JSON with `errorMessage`."""
    cause = str(error.get("Cause", ""))
    try:
        parsed = json.loads(cause)
    except ValueError:
        parsed = None
    message = parsed.get("errorMessage", cause) if isinstance(parsed, dict) else cause
    return f"{error.get('Error', 'the pipeline failed')}: {message}"[:MAX_ERROR]
