"""The services' operations over HTTP, so that a job can be looked at and stopped by their own clients."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attestry.local.jobs.job import RefusedError
from attestry.local.jobs.service import StandIn

Answer = tuple[int, dict[str, str], bytes]
Handler = Callable[[str, str, dict[str, str], bytes, Any], Awaitable[Answer]]

_RUNS = re.compile(r"/applications/([0-9a-z]+)/jobruns(?:/([0-9a-z]+))?")
_OPERATION = re.compile(r"(Create|Describe|Stop)(Training|Processing|Transform)Job")


def sagemaker(stand_in: StandIn) -> Handler:
    """Return what answers Create, Describe and Stop of training, processing and transform jobs."""

    async def handle(_method: str, _path: str, headers: dict[str, str], body: bytes, _query: Any) -> Answer:
        return await _answered(lambda: _sagemaker(stand_in, headers.get("x-amz-target", "").partition(".")[2], _document(body)))

    return handle


def batch(stand_in: StandIn, others: Handler) -> Handler:
    """Return what answers SubmitJob, DescribeJobs and TerminateJob, and leaves the rest to the emulator."""

    async def handle(method: str, path: str, headers: dict[str, str], body: bytes, query: Any) -> Answer:
        operations = {"/v1/submitjob": _submit, "/v1/describejobs": _describe_jobs, "/v1/terminatejob": _terminate}
        operation = operations.get(path.rstrip("/").lower())
        if operation is None:
            return await others(method, path, headers, body, query)
        return await _answered(lambda: operation(stand_in, _document(body)))

    return handle


def emr_serverless(stand_in: StandIn) -> Handler:
    """Return what answers StartJobRun, GetJobRun and CancelJobRun."""

    async def handle(method: str, path: str, _headers: dict[str, str], body: bytes, _query: Any) -> Answer:
        return await _answered(lambda: _spark(stand_in, method, path, _document(body)))

    return handle


def _sagemaker(stand_in: StandIn, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
    found = _OPERATION.fullmatch(operation)
    if found is None:
        raise RefusedError("UnknownOperationException", f"the stand-in has no operation {operation}")
    verb, kind = found.groups()
    service = f"sagemaker-{kind.lower()}"
    if verb == "Create":
        return {f"{kind}JobArn": stand_in.start(service, request).arn}
    job = stand_in.find(service, str(request.get(f"{kind}JobName", "")))
    if verb == "Describe":
        return stand_in.describe(job)
    if job.is_over:
        raise RefusedError("ValidationException", f"the job {job.name} is over and cannot be stopped")
    job.stop()
    return {}


def _submit(stand_in: StandIn, request: Mapping[str, Any]) -> dict[str, Any]:
    job = stand_in.start("batch", request)
    return {"jobArn": job.arn, "jobName": job.name, "jobId": job.key}


def _describe_jobs(stand_in: StandIn, request: Mapping[str, Any]) -> dict[str, Any]:
    jobs = []
    for key in request.get("jobs", []):
        try:
            jobs.append(stand_in.describe(stand_in.find("batch", str(key))))
        except RefusedError:  # Batch leaves out what it does not know
            continue
    return {"jobs": jobs}


def _terminate(stand_in: StandIn, request: Mapping[str, Any]) -> dict[str, Any]:
    stand_in.find("batch", str(request.get("jobId", ""))).stop()
    return {}


def _spark(stand_in: StandIn, method: str, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
    found = _RUNS.fullmatch(path.rstrip("/"))
    if found is None:
        raise RefusedError("ResourceNotFoundException", f"the stand-in has nothing at {path}")
    application, key = found.groups()
    if key is None and method == "POST":
        job = stand_in.start("emr-serverless", {**request, "applicationId": application})
        return {"applicationId": application, "jobRunId": job.key, "arn": job.arn}
    job = stand_in.find("emr-serverless", str(key))
    if method == "DELETE":
        job.stop()
        return {"applicationId": application, "jobRunId": job.key}
    return {"jobRun": stand_in.describe(job)}


async def _answered(act: Callable[[], dict[str, Any]]) -> Answer:
    try:
        # In a thread: what starts a job calls this server itself, whose one loop must be free to answer.
        return _json(200, await asyncio.to_thread(act))
    except RefusedError as error:
        status = 404 if error.code == "ResourceNotFoundException" else 400
        return _json(status, {"__type": error.code, "message": error.message}, {"x-amzn-errortype": error.code})


def _json(status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    return status, {"Content-Type": "application/x-amz-json-1.1", **(headers or {})}, json.dumps(document).encode()


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
