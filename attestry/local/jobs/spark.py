"""EMR Serverless: StartJobRun, GetJobRun and CancelJobRun, as the EMR Serverless API Reference describes them.

There is no Spark here. The entry point runs as a Python program in the place of the driver, and is told folders where Spark has `s3://`
URIs: what Spark would read lies there already, and what is left there goes to where Spark would have written it.
"""

from __future__ import annotations

import gzip
import itertools
import shlex
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attestry.local.jobs.container import Command, Container, container_variables
from attestry.local.jobs.files import download, download_prefix, upload, upload_folder
from attestry.local.jobs.job import Job, JobFailedError, Outcome, World, arn
from attestry.sandbox.unpack import unpack_tar

_STATE = {Outcome.RUNNING: "RUNNING", Outcome.COMPLETED: "SUCCESS", Outcome.FAILED: "FAILED", Outcome.STOPPED: "CANCELLED"}
_LIMIT_MINUTES = 720
_PRINCIPAL = "emr-serverless.amazonaws.com"
_RELEASE = "emr-7.9.0"


def accept(service: str, request: Mapping[str, Any], world: World) -> Job:
    """Return the job run of a valid request.

    Raises:
        RefusedError: there is no such application, or the role cannot be assumed.
    """
    application, key = request["applicationId"], uuid.uuid4().hex[:16]
    image = world.image_of(service, application)
    name = request.get("name", key)
    world.s3_as(request["executionRoleArn"], name, by=_PRINCIPAL, policy=_policy(request))
    place = arn("emr-serverless", f"/applications/{application}/jobruns/{key}")
    return Job(service, name, key, place, request, image, dict(request.get("tags", {})))


def run(job: Job, root: Path, world: World) -> None:
    """Run a job to its end."""
    driver = job.request["jobDriver"]["sparkSubmit"]
    s3 = world.s3_as(job.request["executionRoleArn"], job.name, by=_PRINCIPAL, policy=_policy(job.request))
    packages = world.packages_of(job.tags)
    arguments = list(driver.get("entryPointArguments", []))
    given, left = root / "given", root / "left"
    left.mkdir()
    if len(arguments) != 2:
        raise JobFailedError("the stand-in runs entry points that are told what is given and what is left, and nothing else")
    download_prefix(s3, arguments[0], given)
    here = root / "driver"
    libraries = _bring(s3, driver, here)
    entry = here / Path(driver["entryPoint"]).name
    download(s3, driver["entryPoint"], entry)
    variables = container_variables(root, packages, {})
    variables["PYTHONPATH"] = ":".join([*libraries, str(packages)])
    log = root.with_name(f"{root.name}.log")
    command = Command(["python3", str(entry), f"{given}/", f"{left}/"], variables, here, root, packages, network=False, log=log)
    limit = 60 * job.request.get("executionTimeoutMinutes", _LIMIT_MINUTES)
    job.ending = Container(command).run(limit, job.is_to_stop)
    _upload_log(job, s3, log, root)
    if job.ending.exit_code == 0 and not job.ending.reason:
        upload_folder(s3, left, arguments[1])
        job.end(Outcome.COMPLETED)
    elif job.ending.reason == "stop":
        job.end(Outcome.STOPPED, "Job run was cancelled by a user")
    elif job.ending.reason == "time":
        job.end(Outcome.STOPPED, f"Job run was cancelled: execution timeout of {limit // 60} minutes")
    else:
        job.end(
            Outcome.FAILED,
            f"Job failed, see the logs in the configured destination: exit code {job.exit_code}",
        )


def describe(job: Job) -> dict[str, Any]:
    """Return the job run; times are seconds since 1970."""
    request = job.request
    hours = job.seconds / 3600
    run = {
        "applicationId": request["applicationId"],
        "jobRunId": job.key,
        "name": job.name,
        "arn": job.arn,
        "createdBy": arn("iam", "root").replace(":us-east-1:", "::"),
        "createdAt": job.created,
        "updatedAt": job.ended or job.started or job.created,
        "executionRole": request["executionRoleArn"],
        "state": _STATE[job.outcome],
        "stateDetails": job.reason or f"Job run is in state {_STATE[job.outcome]}",
        "releaseLabel": _RELEASE,
        "jobDriver": request["jobDriver"],
        "tags": dict(job.tags),
        "imageConfiguration": {"imageUri": job.image},
    }
    for name in ("configurationOverrides", "executionTimeoutMinutes"):
        if name in request:
            run[name] = request[name]
    if job.started:
        run["startedAt"] = job.started
    if job.ended:
        used = {"vCPUHour": hours, "memoryGBHour": 4 * hours, "storageGBHour": 20 * hours}
        run |= {"endedAt": job.ended, "totalExecutionDurationSeconds": job.seconds, "billedResourceUtilization": used}
    return run


def _policy(request: Mapping[str, Any]) -> str:
    return str(request.get("executionIamPolicy", {}).get("policy", ""))


def _bring(s3: Any, driver: Mapping[str, Any], here: Path) -> list[str]:
    """Bring what `spark-submit` is told to: libraries, files, and archives that it unpacks; return the libraries."""
    here.mkdir()
    words = shlex.split(driver.get("sparkSubmitParameters", ""))
    libraries = []
    for option, value in itertools.pairwise(words):
        for uri in value.split(",") if option in ("--py-files", "--files", "--archives") else ():
            name, _, alias = uri.partition("#")
            target = here / Path(name).name
            download(s3, name, target)
            if option == "--py-files":
                libraries.append(str(target))
            elif option == "--archives":
                unpack_tar(target, here / (alias or target.name))
    return libraries


def _upload_log(job: Job, s3: Any, log: Path, root: Path) -> None:
    monitoring = job.request.get("configurationOverrides", {}).get("monitoringConfiguration", {})
    uri = monitoring.get("s3MonitoringConfiguration", {}).get("logUri")
    if uri:
        packed = root / "stderr.gz"
        packed.write_bytes(gzip.compress(log.read_bytes(), mtime=0))
        place = f"applications/{job.request['applicationId']}/jobs/{job.key}/SPARK_DRIVER/stderr.gz"
        upload(s3, packed, f"{uri.rstrip('/')}/{place}")
