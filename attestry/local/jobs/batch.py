"""AWS Batch: SubmitJob, DescribeJobs and TerminateJob, as the AWS Batch API Reference describes them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attestry.local.jobs.container import Command, Container, container_variables
from attestry.local.jobs.job import Job, Outcome, RefusedError, World, arn

_STATUS = {Outcome.COMPLETED: "SUCCEEDED", Outcome.FAILED: "FAILED", Outcome.STOPPED: "FAILED"}
_LIMIT_SECONDS = 86_400
_LOG_GROUP = "/aws/batch/job"


def accept(service: str, request: Mapping[str, Any], world: World) -> Job:
    """Return the job of a valid request.

    Raises:
        RefusedError: there is no such job definition, or the request names no command.
    """
    image = world.image_of(service, request["jobDefinition"])
    if not request.get("containerOverrides", {}).get("command"):
        raise RefusedError("ClientException", "the stand-in runs no images, so the request has to override the command")
    number = str(uuid.uuid4())
    return Job(service, request["jobName"], number, arn("batch", f"job/{number}"), request, image, dict(request.get("tags", {})))


def run(job: Job, root: Path, world: World) -> None:
    """Run a job to its end. It has no role: what it may read and write it is given as URLs."""
    overrides = job.request["containerOverrides"]
    given = {entry["name"]: entry["value"] for entry in overrides.get("environment", [])}
    own = {"AWS_BATCH_JOB_ID": job.key, "AWS_BATCH_JOB_ATTEMPT": "1", "AWS_BATCH_JQ_NAME": job.request["jobQueue"].rpartition("/")[2]}
    packages = world.packages_of(job.tags)
    command = Command(
        arguments=[str(word) for word in overrides["command"]],
        variables=container_variables(root, packages, {**own, **given}),
        folder=root,
        root=root,
        packages=packages,
        network=True,
        log=root.with_name(f"{root.name}.log"),
    )
    limit = job.request.get("timeout", {}).get("attemptDurationSeconds", _LIMIT_SECONDS)
    job.ending = Container(command).run(limit, job.is_to_stop)
    if job.ending.reason == "time":
        job.end(Outcome.FAILED, "Job attempt duration exceeded timeout")
    elif job.ending.reason == "stop":
        job.end(Outcome.STOPPED, "the job was terminated by a user")
    elif job.ending.exit_code == 0:
        job.end(Outcome.COMPLETED, "Essential container in task exited")
    else:
        job.end(Outcome.FAILED, "Essential container in task exited")


def describe(job: Job) -> dict[str, Any]:
    """Return the job detail; times are milliseconds since 1970."""
    overrides = job.request["containerOverrides"]
    times = {name: round(moment * 1000) for name, moment in (("startedAt", job.started), ("stoppedAt", job.ended)) if moment}
    attempt_container = {"logStreamName": f"{job.name}/default/{job.key}"} | ({} if job.exit_code is None else {"exitCode": job.exit_code})
    container = {
        "image": job.image,
        "command": list(overrides["command"]),
        "environment": list(overrides.get("environment", [])),
        "resourceRequirements": list(overrides.get("resourceRequirements", [])),
        "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": _LOG_GROUP}},
        **attempt_container,
    }
    detail = {
        "jobArn": job.arn,
        "jobName": job.name,
        "jobId": job.key,
        "jobQueue": job.request["jobQueue"],
        "jobDefinition": job.request["jobDefinition"],
        "status": _STATUS.get(job.outcome, "RUNNING" if job.started else "RUNNABLE"),
        "createdAt": round(job.created * 1000),
        "startedAt": times.get("startedAt", round(job.created * 1000)),
        "tags": dict(job.tags),
        "container": container,
        "attempts": [{"container": attempt_container, **times, "statusReason": job.reason}] if job.is_over else [],
    }
    for name in ("retryStrategy", "timeout", "propagateTags"):
        if name in job.request:
            detail[name] = job.request[name]
    return detail | times | ({"statusReason": job.reason} if job.reason else {})
