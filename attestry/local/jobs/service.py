"""The services as one: jobs are started, described and stopped here, whoever asks, and each runs in a thread of its own."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestry.local.jobs import batch, sagemaker, spark
from attestry.local.jobs.job import Job, JobFailedError, Outcome, RefusedError, World
from attestry.local.jobs.models import named_for_states, operation, problems

AT_ONCE = 8
"""Jobs of one service that run at once: the quota of this account. SageMaker and EMR Serverless refuse more, Batch lets them wait."""

_POLL_SECONDS = 0.1
_LOG = logging.getLogger("attestry.local.jobs")


@dataclass(frozen=True)
class Kind:
    """How a service starts and describes its jobs.

    Attributes:
        api: botocore's name of the service.
        start, describe: names of its operations.
        noun: what a job that is not there is called.
        invalid, missing, taken, full: its codes of errors: a bad request, a job that is not there, a name that is taken, no room.
        module: accepts, runs and describes.
        member: member of the description's output that holds the job; empty where that is the output itself.
    """

    api: str
    start: str
    describe: str
    invalid: str
    missing: str
    taken: str
    full: str
    module: Any
    member: str = ""


def _of_sagemaker(kind: str) -> Kind:
    start, describe = f"Create{kind}Job", f"Describe{kind}Job"
    return Kind(
        "sagemaker", start, describe, "ValidationException", "ValidationException", "ResourceInUse", "ResourceLimitExceeded", sagemaker
    )


KINDS: Mapping[str, Kind] = {
    "sagemaker-training": _of_sagemaker("Training"),
    "sagemaker-processing": _of_sagemaker("Processing"),
    "sagemaker-transform": _of_sagemaker("Transform"),
    "batch": Kind("batch", "SubmitJob", "DescribeJobs", "ClientException", "ClientException", "", "", batch, "jobs"),
    "emr-serverless": Kind(
        "emr-serverless",
        "StartJobRun",
        "GetJobRun",
        "ValidationException",
        "ResourceNotFoundException",
        "ConflictException",
        "ServiceQuotaExceededException",
        spark,
        "jobRun",
    ),
}


class StandIn:
    """Runs jobs.

    Args:
        folder: where jobs have their folders; made, and emptied.
        world: what the services need of the embedded AWS.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self._folder, self._world = folder, world
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._jobs: dict[tuple[str, str], Job] = {}
        self._lock = threading.Lock()

    def start(self, service: str, request: Mapping[str, Any], *, execution: str = "") -> Job:
        """Start a job and return it.

        Args:
            service: one of `KINDS`.
            request: named as the API names it.
            execution: ARN of the execution that will wait for it.

        Raises:
            RefusedError: the service refuses the request.
        """
        kind = KINDS[service]
        if found := problems(operation(kind.api, kind.start).input_shape, request):
            raise RefusedError(kind.invalid, "; ".join(found))
        if again := self._same(service, request):
            return again
        job: Job = kind.module.accept(service, request, self._world)
        job.execution = execution
        with self._lock:
            if (service, job.key) in self._jobs:
                raise RefusedError(kind.taken, f"{job.arn} already exists; its name must be unique within the account")
            if kind.full and self._running(service) >= AT_ONCE:
                raise RefusedError(kind.full, f"the account-level limit is {AT_ONCE} jobs at once; all are in use")
            self._jobs[service, job.key] = job
        threading.Thread(target=self._run, args=(job, kind), name=job.name, daemon=True).start()
        return job

    def find(self, service: str, key: str) -> Job:
        """Return a job.

        Raises:
            RefusedError: there is none.
        """
        job = self._jobs.get((service, key))
        if job is None:
            raise RefusedError(KINDS[service].missing, f"could not find the requested job {key}")
        return job

    def describe(self, job: Job) -> dict[str, Any]:
        """Return what the service's API answers about a job."""
        described: dict[str, Any] = KINDS[job.service].module.describe(job)
        return described

    def describe_for_states(self, job: Job) -> dict[str, Any]:
        """Return the description as a `.sync` task passes it on: members begin with a capital, times are milliseconds since 1970."""
        kind = KINDS[job.service]
        shape: Any = operation(kind.api, kind.describe).output_shape
        if kind.member:
            shape = shape.members[kind.member]
        named: dict[str, Any] = named_for_states(shape.member if shape.type_name == "list" else shape, self.describe(job))
        return named

    def stop_of_execution(self, execution: str) -> None:
        """Stop the jobs that an execution waits for."""
        for job in list(self._jobs.values()):
            if job.execution == execution:
                job.stop()

    def _same(self, service: str, request: Mapping[str, Any]) -> Job | None:
        """Return the job that the same client token started."""
        token = request.get("clientToken")
        jobs = list(self._jobs.values())
        return next((job for job in jobs if token and job.service == service and job.request.get("clientToken") == token), None)

    def _running(self, service: str) -> int:
        return sum(job.service == service and not job.is_over for job in self._jobs.values())

    def _run(self, job: Job, kind: Kind) -> None:
        root = self._folder / f"{job.service}-{job.key}"
        try:
            self._wait_for_room(job)
            job.started = time.time()
            root.mkdir()
            self._guarded(job, kind.module.run, root)
        finally:
            if not job.is_over:
                job.end(Outcome.FAILED, "InternalServerError: the stand-in failed")
            shutil.rmtree(root, ignore_errors=True)
            root.with_name(f"{root.name}.log").unlink(missing_ok=True)

    def _guarded(self, job: Job, run: Callable[[Job, Path, World], None], root: Path) -> None:
        if job.is_to_stop():
            job.end(Outcome.STOPPED, "stopped before it started")
            return
        try:
            run(job, root, self._world)
        except JobFailedError as error:
            job.end(Outcome.FAILED, str(error))
        except RefusedError as error:
            job.end(Outcome.FAILED, f"ClientError: {error.message}")
        except Exception as error:  # noqa: BLE001 (whatever fails in a job's thread, who waits for it has to be told)
            _LOG.exception("the job %s", job.name)
            job.end(Outcome.FAILED, f"InternalServerError: {type(error).__name__}: {error}")

    def _wait_for_room(self, job: Job) -> None:
        """Let a job wait in its queue until one before it has ended; only Batch accepts more jobs than run at once."""
        while not job.is_to_stop():
            with self._lock:
                waiting = [other for other in self._jobs.values() if other.service == job.service and not other.is_over]
                if job in waiting[:AT_ONCE]:
                    return
            time.sleep(_POLL_SECONDS)
