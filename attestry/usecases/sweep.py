"""Sweep: find what a crash left between two steps, and go on from there.

Each thing that it does is something that somebody else does first in the ordinary course, and is harmless when done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from attestry.domain.cause import is_reproduction, waits_for_deployer
from attestry.domain.errors import AttestryError, ConflictError
from attestry.domain.events import timestamp
from attestry.domain.names import name_execution
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.ports import Functions, MetaStore, Pipeline
from attestry.usecases.executions import start_attempt, start_next_attempt
from attestry.usecases.records import MODELS

GRACE = timedelta(minutes=15)
"""Above what any single step may take, so that only what stands still is touched."""

MAX_ATTEMPTS = 10
"""A version that was started this often is not started again by itself."""

VERSIONS_PER_MODEL = 50

Unmended = Callable[[str, str], None]
"""Told which version could not be mended, and why."""


def sweep(
    meta: MetaStore,
    functions: Functions,
    pipeline: Pipeline,
    *,
    gate_function: str,
    record_function: str = "",
    at: datetime,
    on_unmended: Unmended = lambda _version, _why: None,
) -> dict[str, int]:
    """Look at the latest versions of each model and mend what stands still for longer than any step may take.

    One version's trouble does not hold up the others; `on_unmended` is told of each.

    Returns:
        How many versions were looked at, started, restarted and sent on, and how many could not be mended.
    """
    counts = {"seen": 0, "started": 0, "restarted": 0, "sent": 0, "failed": 0}
    before = timestamp(at - GRACE)
    for model in meta.list_collection(MODELS):
        for row in meta.list_collection(f"VERSIONS#{model['model']}", limit=VERSIONS_PER_MODEL, newest_first=True):
            counts["seen"] += 1
            if str(row["updated"]) >= before:
                continue
            try:
                done = _mend(meta, functions, pipeline, row, gate_function, record_function)
            except AttestryError as error:
                done = "failed"
                on_unmended(f"{row['model']}@{row['number']}", error.message)
            if done:
                counts[done] += 1
    return counts


def _mend_import(functions: Functions, version: Version, gate_function: str, record_function: str) -> str | None:
    """Have the files of an imported version frozen, or its approval opened, where that was cut off."""
    asked = {"model": version.model, "version": version.number}
    if version.standing is not Standing.CANDIDATE or version.held:
        return None
    if (version.stage, version.status) == (Stage.IMPORTED, Status.RUNNING) and record_function:
        functions.send(record_function, {"action": "freeze_import", **asked})
        return "started"
    by_policy = bool(version.approval_policy.get("automatic")) and version.submitter_person is not None
    if (version.stage, version.status) == (Stage.IMPORTED, Status.SUCCEEDED) or (
        by_policy and (version.stage, version.status) == (Stage.APPROVAL, Status.RUNNING)
    ):
        functions.send(gate_function, {"action": "open_import", **asked})
        return "sent"
    return None


def _mend(
    meta: MetaStore, functions: Functions, pipeline: Pipeline, row: Mapping[str, Any], gate_function: str, record_function: str
) -> str | None:
    version = Version.from_item(row)
    if version.imported:
        return _mend_import(functions, version, gate_function, record_function)
    waits = version.stage is Stage.APPROVAL and version.status is Status.RUNNING and version.standing is not Standing.RETIRED
    waits_for_policy = waits and bool(version.approval_policy.get("automatic")) and not version.held
    if (version.token and not waits) or (waits_for_policy and version.submitter_person is not None):
        functions.send(gate_function, {"action": "decided", "model": version.model, "version": version.number})
        return "sent"
    if (
        version.standing is Standing.RETIRED
        or version.held
        or version.status in (Status.FAILED, Status.REJECTED)
        or (version.stage is Stage.DEPLOYMENT and version.status is Status.SUCCEEDED)
        or (version.stage is Stage.VALIDATION and version.status is Status.SUCCEEDED and is_reproduction(version.cause))
        or (version.stage is Stage.APPROVAL and version.status is Status.SUCCEEDED and waits_for_deployer(version.cause))
    ):
        return None
    status = pipeline.status(name_execution(version.model, version.number, version.attempt, version.candidate))
    if status is None:
        start_attempt(pipeline, version)
        return "started"
    if status == "RUNNING" or (version.stage is Stage.APPROVAL and version.status is Status.RUNNING):
        return None
    if version.attempt >= MAX_ATTEMPTS:
        raise ConflictError(f"{version.reference} was started {version.attempt} times, and its execution ended each time; look at it first")
    start_next_attempt(meta, pipeline, version)
    return "restarted"
