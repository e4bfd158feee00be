"""States of the pipeline that run a stage's script as a job of SageMaker AI, AWS Batch or EMR Serverless, by `.sync`.

A `.sync` task starts the job, waits for it without a function of ours, and stops it when the execution is stopped (Step Functions
Developer Guide, "Run a Job"). The function that prepares the stage makes the whole request; nothing is added here. What the job came to
is `$run`: `{"service", "answer"}` with the service's own description of the finished job, or `{"service", "error": {"Error", "Cause"}}`,
whose cause is that description where the job failed. Both go to the function that records the stage, which reads the job's reason there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

State = dict[str, Any]
States = dict[str, State]

EXECUTION_SECONDS = 365 * 86_400
"""A Standard execution lives no longer."""

_TRIES = 10
_FIRST_PAUSE = 30
_BACKOFF = 1.5
PAUSES_SECONDS = round(sum(_FIRST_PAUSE * _BACKOFF**n for n in range(_TRIES)))
"""What the pauses take in which a job waits to be accepted at all."""


@dataclass(frozen=True)
class Service:
    """How a service runs a job.

    Attributes:
        executor: what manifests call it.
        shown: its name in the names of states.
        resource: the integration.
        completed: JSONata over `$run` that says whether the job did its work; a job that somebody stopped is no failure to some services.
        refusals: names of errors with which the call is refused before there is a job. A job that failed is `States.TaskFailed`, so
            trying these again runs no script twice.
    """

    executor: str
    shown: str
    resource: str
    completed: str
    refusals: tuple[str, ...]


_SAGEMAKER_REFUSALS = ("SageMaker.AmazonSageMakerException", "SageMaker.ResourceLimitExceededException", "SageMaker.ThrottlingException")

SERVICES: Mapping[str, Service] = {
    "sagemaker-processing": Service(
        "sagemaker",
        "SageMaker",
        "arn:aws:states:::sagemaker:createProcessingJob.sync",
        "$run.answer.ProcessingJobStatus = 'Completed'",
        _SAGEMAKER_REFUSALS,
    ),
    "sagemaker-training": Service(
        "sagemaker",
        "SageMaker",
        "arn:aws:states:::sagemaker:createTrainingJob.sync",
        "$run.answer.TrainingJobStatus = 'Completed'",
        _SAGEMAKER_REFUSALS,
    ),
    "sagemaker-transform": Service(
        "sagemaker",
        "SageMaker batch transform",
        "arn:aws:states:::sagemaker:createTransformJob.sync",
        "$run.answer.TransformJobStatus = 'Completed'",
        _SAGEMAKER_REFUSALS,
    ),
    "batch": Service(
        "batch",
        "Batch",
        "arn:aws:states:::batch:submitJob.sync",
        "$run.answer.Status = 'SUCCEEDED'",
        ("Batch.TooManyRequestsException", "Batch.ServerException", "Batch.AWSBatchException", "Batch.BatchException"),
    ),
    "emr-serverless": Service(
        "emr-serverless",
        "EMR Serverless",
        "arn:aws:states:::emr-serverless:startJobRun.sync",
        "$run.answer.State = 'SUCCESS'",
        ("EMRServerless.ThrottlingException", "EMRServerless.ServiceQuotaExceededException", "EMRServerless.InternalServerException"),
    ),
}
"""Service, as the function that prepares a stage names it, to how it runs."""

SCRIPT_STAGES = ("PROCESSING", "TRAINING", "VALIDATION")

EXECUTORS = ("lambda", *dict.fromkeys(service.executor for service in SERVICES.values()))

STAGE_SERVICES: Mapping[str, tuple[str, ...]] = {
    "PROCESSING": ("sagemaker-processing", "batch", "emr-serverless"),
    "TRAINING": ("sagemaker-training", "batch"),
    "VALIDATION": ("sagemaker-processing", "sagemaker-transform", "batch"),
}
"""Services on which a stage can run: Spark prepares data, and batch transform scores the hold-out."""


@dataclass(frozen=True)
class Jobs:
    """How long jobs may take, and on which executors they run.

    Attributes:
        executors: enabled executors; `lambda` among them says nothing here.
        limit_seconds: the longest that a script may run.
        wait_seconds: the longest that a job may wait for machines, start and end around its script.
        endpoints: whether versions may be served by SageMaker, which takes its time as well.
    """

    executors: tuple[str, ...] = ()
    limit_seconds: int = 432_000
    wait_seconds: int = 86_400
    endpoints: bool = False

    @property
    def stage_seconds(self) -> int:
        """The longest that one stage may take as a job; 0 where none is one."""
        jobs = any(service.executor in self.executors for service in SERVICES.values())
        return self.limit_seconds + self.wait_seconds + PAUSES_SECONDS if jobs else 0

    def services(self, stage: str) -> tuple[str, ...]:
        """Return the enabled services of a stage."""
        return tuple(name for name in STAGE_SERVICES[stage] if SERVICES[name].executor in self.executors)


def job_states(stage: str, jobs: Jobs, *, then: str, record: str) -> States:
    """Return the states that run a stage as a job, and the one for an executor that is not enabled.

    Args:
        stage: PROCESSING, TRAINING or VALIDATION.
        jobs: limits and enabled executors.
        then: the state after a job that ended by itself.
        record: the state after one that failed, or that never was.
    """
    states: States = {}
    for name in jobs.services(stage):
        states[_job_name(stage, SERVICES[name])] = _run(name, jobs, then=then, record=record)
    return states | {not_enabled(stage): _not_enabled(record)}


def job_choices(stage: str, jobs: Jobs) -> dict[str, str]:
    """Return the conditions over `$job` by which a stage finds its state, in order."""
    return {f"$job.service = '{name}'": _job_name(stage, SERVICES[name]) for name in jobs.services(stage)}


def job_completed(stage: str, jobs: Jobs) -> list[str]:
    """Return the conditions over `$run`, one of which holds when a job of the stage did its work."""
    return [SERVICES[name].completed for name in jobs.services(stage)]


def not_enabled(stage: str) -> str:
    """Return the name of the state for an executor that this registry does not run."""
    return f"{stage} has no executor"


def _job_name(stage: str, service: Service) -> str:
    return f"{stage} on {service.shown}"


def _run(name: str, jobs: Jobs, *, then: str, record: str) -> State:
    service = SERVICES[name]
    return {
        "Type": "Task",
        "Resource": service.resource,
        "Arguments": "{% $job.request %}",
        # The service ends a script at its own limit and says so; this one is for a job that never gets its machines.
        "TimeoutSeconds": f"{{% $min([$job.timeout_seconds, {jobs.limit_seconds}]) + {jobs.wait_seconds} %}}",
        "Assign": {"run": {"service": name, "answer": "{% $states.result %}"}, "entered": "{% $states.context.State.EnteredTime %}"},
        "Output": {},
        "Retry": [_wait_for_room(service)],
        "Catch": [_caught(name, record)],
        "Next": then,
    }


def _not_enabled(record: str) -> State:
    error = {
        "Error": "Attestry.ExecutorNotEnabled",
        "Cause": "{% 'this registry does not run this stage on ' & $job.executor %}",
    }
    service = "{% $exists($job.service) ? $job.service : $job.executor %}"
    assign = {"run": {"service": service, "error": error}, "entered": "{% $states.context.State.EnteredTime %}"}
    return {"Type": "Pass", "Assign": assign, "Output": {}, "Next": record}


def _wait_for_room(service: Service) -> State:
    return {"ErrorEquals": list(service.refusals), "IntervalSeconds": _FIRST_PAUSE, "MaxAttempts": _TRIES, "BackoffRate": _BACKOFF}


def _caught(name: str, record: str) -> State:
    return {
        "ErrorEquals": ["States.ALL"],
        "Assign": {"run": {"service": name, "error": "{% $states.errorOutput %}"}, "entered": "{% $states.context.State.EnteredTime %}"},
        "Output": {},
        "Next": record,
    }
