"""SageMaker AI: processing, training and batch transform jobs, as the SageMaker API Reference and Developer Guide describe them.

Folders that a container has below `/opt/ml` lie below the job's own folder here, and the request's texts that name `/opt/ml` are changed
accordingly; the entry shim is told the same by a last argument.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attestry.local.jobs.container import Command, Container, container_variables
from attestry.local.jobs.files import download_prefix, pack, upload, upload_folder
from attestry.local.jobs.job import Job, JobFailedError, Outcome, RefusedError, World, arn

_ML = "/opt/ml"
_PRINCIPAL = "sagemaker.amazonaws.com"
_KINDS = {"sagemaker-training": "Training", "sagemaker-processing": "Processing", "sagemaker-transform": "Transform"}
_RESOURCES = {"Training": "training-job", "Processing": "processing-job", "Transform": "transform-job"}
STATUS = {Outcome.RUNNING: "InProgress", Outcome.COMPLETED: "Completed", Outcome.FAILED: "Failed", Outcome.STOPPED: "Stopped"}
_SECONDARY = {Outcome.RUNNING: "Training", Outcome.COMPLETED: "Completed", Outcome.FAILED: "Failed", Outcome.STOPPED: "Stopped"}
_MAX_SECONDS = 86_400


def accept(service: str, request: Mapping[str, Any], world: World) -> Job:
    """Return the job of a valid request.

    Raises:
        RefusedError: the role cannot be assumed, or there is no entry point.
    """
    kind = _KINDS[service]
    name = str(request[f"{kind}JobName"])
    if role := request.get("RoleArn"):
        world.s3_as(role, name, by=_PRINCIPAL)
    image = _application(kind, request).get("TrainingImage") or _application(kind, request).get("ImageUri", "")
    tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
    if kind != "Transform" and not _application(kind, request).get("ContainerEntrypoint"):
        raise RefusedError("ValidationException", "the stand-in runs no images, so the request has to name a ContainerEntrypoint")
    return Job(service, name, name, arn("sagemaker", f"{_RESOURCES[kind]}/{name}"), request, image, tags)


def run(job: Job, root: Path, world: World) -> None:
    """Run a job to its end."""
    kind = _KINDS[job.service]
    if kind == "Transform":
        raise JobFailedError("ClientError: the stand-in runs no images, so it serves no model for a batch transform")
    s3 = world.s3_as(job.request["RoleArn"], job.name, by=_PRINCIPAL)
    packages = world.packages_of(job.tags)
    ml = root / "ml"
    _lay_out(kind, job.request, s3, ml)
    application = _application(kind, job.request)
    words = [*application["ContainerEntrypoint"], *application.get("ContainerArguments", [])]
    command = Command(
        arguments=[*(str(word).replace(_ML, str(ml)) for word in words), str(ml)],
        variables=container_variables(
            root, packages, {**job.request.get("Environment", {}), f"{kind.upper()}_JOB_NAME": job.name, f"{kind.upper()}_JOB_ARN": job.arn}
        ),
        folder=root,
        root=root,
        packages=packages,
        network=not _is_isolated(kind, job.request),
        log=root.with_name(f"{root.name}.log"),
    )
    limit = job.request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", _MAX_SECONDS)
    job.ending = Container(command).run(limit, job.is_to_stop)
    _take_over(kind, job, s3, ml, root)
    _end(kind, job, limit)


def describe(job: Job) -> dict[str, Any]:
    """Return what the service's Describe operation answers; times are seconds since 1970."""
    kind, request = _KINDS[job.service], job.request
    times = {"CreationTime": job.created}
    times |= {"LastModifiedTime": job.ended or job.started or job.created} if kind != "Transform" else {}
    times |= {f"{kind}StartTime": job.started} if job.started else {}
    times |= {f"{kind}EndTime": job.ended} if job.ended else {}
    described = {name: value for name, value in request.items() if name != "Tags"} | times
    described |= {f"{kind}JobArn": job.arn, f"{kind}JobStatus": STATUS[job.outcome]}
    if job.reason and job.outcome is Outcome.FAILED:
        described["FailureReason"] = job.reason[:1024]
    if kind == "Processing" and job.message:
        described["ExitMessage"] = job.message[:1024]
    return described | (_of_training(job) if kind == "Training" else {})


def _of_training(job: Job) -> dict[str, Any]:
    secondary = _SECONDARY[job.outcome]
    if job.ending and job.ending.reason == "time":
        secondary = "MaxRuntimeExceeded"
    moment = job.ended or job.started or job.created
    transition = {"Status": secondary, "StartTime": moment, "EndTime": moment, "StatusMessage": job.reason or secondary}
    described: dict[str, Any] = {"SecondaryStatus": secondary, "SecondaryStatusTransitions": [transition]}
    described["ModelArtifacts"] = {"S3ModelArtifacts": f"{_output(job.request, job.name)}/model.tar.gz"}
    if job.ended:
        described |= {"BillableTimeInSeconds": job.seconds, "TrainingTimeInSeconds": job.seconds}
    return described


def _application(kind: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = request.get({"Training": "AlgorithmSpecification", "Processing": "AppSpecification"}.get(kind, ""), {})
    return found


def _is_isolated(kind: str, request: Mapping[str, Any]) -> bool:
    settings = request if kind == "Training" else request.get("NetworkConfig", {})
    return bool(settings.get("EnableNetworkIsolation"))


def _output(request: Mapping[str, Any], name: str) -> str:
    return f"{request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{name}/output"


def _local(ml: Path, path: str) -> Path:
    """Return the folder that stands for a path of the container.

    Raises:
        JobFailedError: it is not below `/opt/ml`.
    """
    if not f"{path}/".startswith(f"{_ML}/") or ".." in Path(path).parts:
        raise JobFailedError(f"ClientError: {path} is not below {_ML}")
    return ml / Path(path).relative_to(_ML)


def _lay_out(kind: str, request: Mapping[str, Any], s3: Any, ml: Path) -> None:
    """Bring the inputs to where a container finds them, and what the service tells it about itself."""
    if kind == "Processing":
        for given in request.get("ProcessingInputs", []):
            download_prefix(s3, given["S3Input"]["S3Uri"], _local(ml, given["S3Input"]["LocalPath"]))
        for left in request.get("ProcessingOutputConfig", {}).get("Outputs", []):
            _local(ml, left["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
        return
    for channel in request.get("InputDataConfig", []):
        download_prefix(s3, channel["DataSource"]["S3DataSource"]["S3Uri"], ml / "input" / "data" / channel["ChannelName"])
    for folder in ("model", "output/data", "input/config"):
        (ml / folder).mkdir(parents=True, exist_ok=True)
    hosts = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}
    told = {"hyperparameters.json": request.get("HyperParameters", {}), "resourceconfig.json": hosts}
    told["inputdataconfig.json"] = {
        channel["ChannelName"]: {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
        for channel in request.get("InputDataConfig", [])
    }
    for name, document in told.items():
        (ml / "input" / "config" / name).write_text(json.dumps(document), encoding="utf-8")


def _take_over(kind: str, job: Job, s3: Any, ml: Path, root: Path) -> None:
    """Bring what the container left to S3: all of it where it ended well, and else what the service takes even then."""
    ended_well = job.ending is not None and job.ending.exit_code == 0 and not job.ending.reason
    if kind == "Processing":
        job.message = _text(ml / "output" / "message")
        for left in job.request.get("ProcessingOutputConfig", {}).get("Outputs", []):
            place = left["S3Output"]
            if ended_well or place.get("S3UploadMode") == "Continuous":
                upload_folder(s3, _local(ml, place["LocalPath"]), place["S3Uri"])
        return
    job.message = _text(ml / "output" / "failure")
    for name, folder in {"model": ml / "model", "output": ml / "output" / "data"}.items():
        if any(folder.iterdir()) and (ended_well or name == "output"):
            archive = root / f"{name}.tar.gz"
            pack(folder, archive)
            upload(s3, archive, f"{_output(job.request, job.name)}/{name}.tar.gz")
    if checkpoints := job.request.get("CheckpointConfig"):
        folder = _local(ml, checkpoints.get("LocalPath", f"{_ML}/checkpoints"))
        if folder.is_dir():
            upload_folder(s3, folder, checkpoints["S3Uri"])


def _text(file: Path) -> str:
    if file.is_symlink() or not file.is_file():
        return ""
    return file.read_bytes()[:1024].decode("utf-8", "replace")


def _end(kind: str, job: Job, limit: int) -> None:
    ending = job.ending
    assert ending is not None  # noqa: S101 (it was just set)
    if ending.reason == "time":
        job.end(Outcome.STOPPED, f"MaxRuntimeExceeded: the job ran past its limit of {limit} s and was stopped")
        if kind == "Processing":
            job.message = job.reason
    elif ending.reason == "stop":
        job.end(Outcome.STOPPED, f"{kind} job stopped by a user")
    elif ending.exit_code == 0:
        job.end(Outcome.COMPLETED)
    else:
        said = job.message if kind == "Training" and job.message else "See job logs for more information"
        job.end(Outcome.FAILED, f"AlgorithmError: {said}, exit code: {job.exit_code}")
