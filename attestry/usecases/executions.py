"""Executions of the pipeline: names, and the next attempt of a version.

Rules:
- The name of an execution derives from model, number, attempt and candidate, so starting it again is harmless.
- A retry is a new execution under the same version number; it skips the stages that the table has as done.
- An attempt that was counted and has no execution is the one to start: an earlier try was cut off in between.
"""

from __future__ import annotations

from attestry.domain.errors import ConditionFailedError, ConflictError
from attestry.domain.names import name_execution
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.ports import MetaStore, Pipeline, Update, When
from attestry.usecases.records import load_version, version_key


def start_attempt(pipeline: Pipeline, version: Version) -> str:
    """Start the version's latest attempt and return the execution's ARN; the same again is harmless.

    Raises:
        ConflictError: the version was imported, so no pipeline makes it.
    """
    version.require_made_here()
    name = name_execution(version.model, version.number, version.attempt, version.candidate)
    return pipeline.start(name, {"model": version.model, "version": version.number, "attempt": version.attempt})


def start_again(meta: MetaStore, pipeline: Pipeline, version: Version) -> bool:
    """Start the version again where its execution has ended, or was never started; False where it runs.

    Raises:
        ConflictError: the version moved meanwhile.
    """
    status = pipeline.status(name_execution(version.model, version.number, version.attempt, version.candidate))
    if status is None:
        start_attempt(pipeline, version)
    elif status != "RUNNING":
        start_next_attempt(meta, pipeline, version)
    return status != "RUNNING"


def start_next_attempt(meta: MetaStore, pipeline: Pipeline, version: Version) -> Version:
    """Count one attempt more and start it; of two at once one wins, and both start the same execution.

    Raises:
        ConflictError: the version moved meanwhile.
    """
    changes = {"attempt": version.attempt + 1, "rev": version.rev + 1}
    try:
        meta.transact([Update(version_key(version.model, version.number), changes, When(exists=True, equals={"rev": version.rev}))])
    except ConditionFailedError as error:
        head = load_version(meta, version.model, version.number)
        if head.attempt != version.attempt + 1:
            raise ConflictError(f"{version.reference} was changed by somebody else at the same time; try again") from error
    head = load_version(meta, version.model, version.number)
    start_attempt(pipeline, head)
    return head


def go_on(meta: MetaStore, pipeline: Pipeline, version: Version) -> bool:
    """Start the version again where it stands between two stages and no execution takes it on; False where there is nothing to start.

    An imported version is taken on by no execution: the gate opens its approval, and a person has it deployed.

    Raises:
        ConflictError: the version moved meanwhile.
    """
    between = version.status is Status.SUCCEEDED and version.stage is not Stage.DEPLOYMENT and version.standing is not Standing.RETIRED
    return between and not version.imported and not version.held and start_again(meta, pipeline, version)
