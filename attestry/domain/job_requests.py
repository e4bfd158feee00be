"""The requests that start a stage's job.

They are SageMaker's CreateProcessingJob, CreateTrainingJob and CreateTransformJob, Batch's SubmitJob, and EMR Serverless' StartJobRun, with
members named as the services' APIs name them (botocore's service models are the reference; tests validate against them). The entry shim
and its job file lie under `in/attestry-job/`: a manifest's channels have no hyphen, so none can take that place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from attestry.domain.errors import InvalidInputError
from attestry.domain.jobs import JobRequest, JobSettings, JobSpec, Service, service_of
from attestry.domain.stages import Stage

JOB_CHANNEL = "attestry-job"
MODEL_CHANNEL = "attestry-model"
"""Where a frozen model lies for a stage that predicts with it."""

SHIM = "shim.zip"
SPARK_ENTRY = "spark_entry.py"
PROCESSING_ROOT = "/opt/ml/processing"
TRAINING_ROOT = "/opt/ml"
CHECKPOINTS = "/opt/ml/checkpoints"
DEFAULT_VOLUME_GIB = 30
SAGEMAKER_MAX_SECONDS = 432_000
"""Five days, what an account's jobs may last without a raised quota."""

SPOT_ATTEMPTS = 5
"""How often Batch starts a job whose spot machine was taken away."""

SHIM_SECONDS = 300
"""What fetching, packing and uploading may take besides the script's own limit."""

BATCH_BOOT = (
    "import hashlib,os,sys,tempfile,urllib.request as u;"
    "d=u.urlopen(os.environ['ATTESTRY_SHIM_URL'],timeout=60).read();"
    "hashlib.sha256(d).hexdigest()==os.environ['ATTESTRY_SHIM_SHA256'] or sys.exit('attestry: the shim is not the one that was named');"
    f"p=os.path.join(tempfile.mkdtemp(),'{SHIM}');"
    "open(p,'wb').write(d);"
    "os.execv(sys.executable,[sys.executable,p,'urls'])"
)
"""Brings the shim into a container that has neither it nor an SDK: the image needs `python3`, and nothing else of ours."""


def job_request(spec: JobSpec, executor: str, settings: JobSettings, *, urls: Mapping[str, str] | None = None) -> JobRequest:
    """Return the request that runs a stage on an executor.

    Args:
        spec: what to run.
        executor: `sagemaker`, `batch` or `emr-serverless`.
        settings: the deployment's.
        urls: for Batch, the environment that the shim is found by: `ATTESTRY_SHIM_URL`, `ATTESTRY_SHIM_SHA256`, `ATTESTRY_JOB_URL`.

    Raises:
        InvalidInputError: the deployment has no place for such a job; the error names the field of the manifest.
    """
    service = service_of(executor, spec.place.stage)
    if service is Service.SAGEMAKER_PROCESSING:
        request = _processing(spec, settings)
    elif service is Service.SAGEMAKER_TRAINING:
        request = _training(spec, settings)
    elif service is Service.BATCH:
        request = _batch(spec, settings, urls or {})
    else:
        request = _spark(spec, settings)
    return JobRequest(service, spec.place.job_name, request)


def transform_request(spec: JobSpec, settings: JobSettings, *, sagemaker_model: str, content_type: str) -> JobRequest:
    """Return the request that scores the lines under `in/lines/` with a model that SageMaker knows; the answers go to `out/lines/`.

    Args:
        spec: place, machines and tags.
        settings: the deployment's.
        sagemaker_model: name of the SageMaker model.
        content_type: media type of a line.
    """
    place, resources = spec.place, spec.resources
    request = {
        "TransformJobName": place.job_name,
        "ModelName": sagemaker_model,
        # One record a request and the answers in the order of the lines: a row's proof names its line.
        "BatchStrategy": "SingleRecord",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": place.uri("in/lines/")}},
            "ContentType": content_type,
            "SplitType": "Line",
            "CompressionType": "None",
        },
        "TransformOutput": {"S3OutputPath": place.uri("out/lines/"), "AssembleWith": "Line", "Accept": content_type} | _kms(settings),
        "TransformResources": {"InstanceType": _instance(spec), "InstanceCount": resources.instance_count or 1} | _volume_kms(settings),
        "Tags": _tags(spec),
    }
    return JobRequest(Service.SAGEMAKER_TRANSFORM, place.job_name, request)


def _processing(spec: JobSpec, settings: JobSettings) -> dict[str, Any]:
    place, resources = spec.place, spec.resources
    cluster = {
        "InstanceCount": 1,
        "InstanceType": _instance(spec),
        "VolumeSizeInGB": resources.volume_gib or DEFAULT_VOLUME_GIB,
        **_volume_kms(settings),
    }
    isolated = settings.network_isolation or place.stage is not Stage.PROCESSING
    return {
        "ProcessingJobName": place.job_name,
        "ProcessingResources": {"ClusterConfig": cluster},
        "AppSpecification": {
            "ImageUri": spec.container,
            "ContainerEntrypoint": ["python3", f"{PROCESSING_ROOT}/input/{JOB_CHANNEL}/{SHIM}"],
            "ContainerArguments": ["processing"],
        },
        "ProcessingInputs": [_processing_input(spec, name) for name in (JOB_CHANNEL, *spec.channels)],
        "ProcessingOutputConfig": {
            "Outputs": [
                _processing_output(spec, "output", "EndOfJob"),
                # As it grows: of a job that fails or is stopped, SageMaker uploads nothing at its end.
                _processing_output(spec, "log", "Continuous"),
            ],
            **_kms(settings),
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": _limit(spec)},
        "NetworkConfig": {"EnableNetworkIsolation": isolated} | _vpc(settings),
        "RoleArn": settings.role_of(place.model),
        "Tags": _tags(spec),
    }


def _processing_input(spec: JobSpec, name: str) -> dict[str, Any]:
    location = {
        "S3Uri": spec.place.uri(f"in/{name}/"),
        "LocalPath": f"{PROCESSING_ROOT}/input/{name}",
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
        "S3DataDistributionType": "FullyReplicated",
        "S3CompressionType": "None",
    }
    return {"InputName": name, "S3Input": location}


def _processing_output(spec: JobSpec, name: str, mode: str) -> dict[str, Any]:
    location = {"S3Uri": spec.place.uri(f"out/{name}"), "LocalPath": f"{PROCESSING_ROOT}/{name}", "S3UploadMode": mode}
    return {"OutputName": name, "S3Output": location}


def _training(spec: JobSpec, settings: JobSettings) -> dict[str, Any]:
    place, resources = spec.place, spec.resources
    stopping = {"MaxRuntimeInSeconds": _limit(spec)}
    spot: dict[str, Any] = {"EnableManagedSpotTraining": bool(resources.spot)}
    if resources.spot:
        stopping["MaxWaitTimeInSeconds"] = max((resources.max_wait_seconds or 0) + SHIM_SECONDS, _limit(spec))
        spot["CheckpointConfig"] = {"S3Uri": place.uri("checkpoints/"), "LocalPath": CHECKPOINTS}
    return {
        "TrainingJobName": place.job_name,
        "AlgorithmSpecification": {
            "TrainingImage": spec.container,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", f"{TRAINING_ROOT}/input/data/{JOB_CHANNEL}/{SHIM}"],
            "ContainerArguments": ["training"],
        },
        # For people who look the job up; the script is called with what the job file says.
        "HyperParameters": {name: _text(value) for name, value in spec.arguments.items()},
        "InputDataConfig": [_training_channel(spec, name) for name in (JOB_CHANNEL, *spec.channels)],
        "OutputDataConfig": {"S3OutputPath": place.uri("out"), "CompressionType": "GZIP"} | _kms(settings),
        "ResourceConfig": {
            "InstanceCount": resources.instance_count or 1,
            "InstanceType": _instance(spec),
            "VolumeSizeInGB": resources.volume_gib or DEFAULT_VOLUME_GIB,
            **_volume_kms(settings),
        },
        "StoppingCondition": stopping,
        "EnableNetworkIsolation": True,
        "EnableInterContainerTrafficEncryption": (resources.instance_count or 1) > 1,
        "RoleArn": settings.role_of(place.model),
        "Tags": _tags(spec),
        **_vpc(settings),
        **spot,
    }


def _training_channel(spec: JobSpec, name: str) -> dict[str, Any]:
    location = {"S3DataType": "S3Prefix", "S3Uri": spec.place.uri(f"in/{name}/"), "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "InputMode": "File", "CompressionType": "None", "DataSource": {"S3DataSource": location}}


def _batch(spec: JobSpec, settings: JobSettings, urls: Mapping[str, str]) -> dict[str, Any]:
    place, resources = spec.place, spec.resources
    field = place.stage.value.lower()
    queue = settings.batch_spot_queue if resources.spot else settings.batch_queue
    if not queue:
        kind = "spot queue" if resources.spot else "queue"
        raise InvalidInputError.of(f"{field}.executor", "available", f"this registry has no Batch {kind}")
    definition = settings.batch_definitions.get(spec.container)
    if definition is None:
        raise InvalidInputError.of(f"{field}.container", "available", f"no Batch job definition of this registry runs {spec.container}")
    needed = [{"type": "VCPU", "value": f"{resources.cpu or 1:g}"}, {"type": "MEMORY", "value": str(resources.memory_mib)}]
    if resources.gpu:
        needed.append({"type": "GPU", "value": str(resources.gpu)})
    retry: dict[str, Any] = {"attempts": 1}
    if resources.spot:
        taken_away = {"onStatusReason": "Host EC2*", "action": "RETRY"}
        retry = {"attempts": SPOT_ATTEMPTS, "evaluateOnExit": [taken_away, {"onReason": "*", "action": "EXIT"}]}
    return {
        "jobName": place.job_name,
        "jobQueue": queue,
        "jobDefinition": definition,
        "containerOverrides": {
            "command": ["python3", "-c", BATCH_BOOT],
            "environment": [{"name": name, "value": value} for name, value in sorted(urls.items())],
            "resourceRequirements": needed,
        },
        "retryStrategy": retry,
        "timeout": {"attemptDurationSeconds": resources.timeout_seconds + SHIM_SECONDS},
        "tags": spec.tags,
        "propagateTags": True,
    }


def _spark(spec: JobSpec, settings: JobSettings) -> dict[str, Any]:
    place = spec.place
    application = settings.emr_applications.get(spec.container)
    if application is None:
        raise InvalidInputError.of("processing.container", "available", f"no Spark application of this registry runs {spec.container}")
    monitoring: dict[str, Any] = {
        "s3MonitoringConfiguration": {"logUri": place.uri("out/log/")}
        | ({"encryptionKeyArn": settings.kms_key} if settings.kms_key.startswith("arn:") else {})
    }
    if settings.emr_log_group:
        named = {"enabled": True, "logGroupName": settings.emr_log_group, "logStreamNamePrefix": place.job_name}
        monitoring["cloudWatchLoggingConfiguration"] = named
    driver = {
        "entryPoint": place.uri(f"in/{JOB_CHANNEL}/{SPARK_ENTRY}"),
        "entryPointArguments": [place.uri("in/"), place.uri("out/")],
        "sparkSubmitParameters": _spark_parameters(spec),
    }
    return {
        "applicationId": application,
        "clientToken": place.job_name,
        "name": place.job_name,
        "executionRoleArn": settings.role_of(place.model),
        "executionIamPolicy": {"policy": _session_policy(spec, settings)},
        "jobDriver": {"sparkSubmit": driver},
        "configurationOverrides": {"monitoringConfiguration": monitoring},
        "executionTimeoutMinutes": math.ceil((spec.resources.timeout_seconds + SHIM_SECONDS) / 60),
        "tags": spec.tags,
    }


def _spark_parameters(spec: JobSpec) -> str:
    place, resources = spec.place, spec.resources
    job = f"in/{JOB_CHANNEL}/"
    # What Spark calls memory is the heap; the worker's memory, which the manifest states, holds the overhead too.
    overhead = max(384, resources.memory_mib // 11)
    heap, cores = resources.memory_mib - overhead, max(1, round(resources.cpu or 4))
    settings: dict[str, object] = {"spark.executor.instances": resources.instance_count or 1, "spark.dynamicAllocation.enabled": "false"}
    for part in ("driver", "executor"):
        settings |= {f"spark.{part}.cores": cores, f"spark.{part}.memory": f"{heap}m", f"spark.{part}.memoryOverhead": f"{overhead}m"}
        if resources.volume_gib:
            settings[f"spark.emr-serverless.{part}.disk"] = f"{resources.volume_gib}G"
    files = [
        f"--py-files {place.uri(job + SHIM)}",
        f"--files {place.uri(job + 'job.json')}",
        f"--archives {place.uri(job + 'source.tar.gz')}#source",
    ]
    return " ".join([*files, *(f"--conf {name}={value}" for name, value in settings.items())])


def _session_policy(spec: JobSpec, settings: JobSettings) -> str:
    """Return what is left of the role in this one run: a script of one version must not write where another's outputs are taken from."""
    place = spec.place
    partition = settings.role_prefix.split(":")[1]
    bucket = f"arn:{partition}:s3:::{place.bucket}"
    own = f"{bucket}/{place.prefix}"
    statements: list[dict[str, Any]] = [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": [f"{own}in/*", f"{own}out/*"]},
        {"Effect": "Allow", "Action": ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"], "Resource": f"{own}out/*"},
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": bucket, "Condition": {"StringLike": {"s3:prefix": f"{place.prefix}*"}}},
    ]
    if settings.kms_key:
        statements.append({"Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": settings.kms_key})
    if settings.emr_log_group:
        write = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams", "logs:DescribeLogGroups"]
        statements.append({"Effect": "Allow", "Action": write, "Resource": "*"})
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def _limit(spec: JobSpec) -> int:
    """Return the seconds after which the service ends the job: later than the shim ends its script, and within the service's own limit."""
    return min(spec.resources.timeout_seconds + SHIM_SECONDS, SAGEMAKER_MAX_SECONDS)


def _instance(spec: JobSpec) -> str:
    if not spec.resources.instance:
        field = f"{spec.place.stage.value.lower()}.resources.instance"
        raise InvalidInputError.of(field, "required", "is missing: 'sagemaker' needs an instance type")
    return spec.resources.instance


def _kms(settings: JobSettings) -> dict[str, Any]:
    return {"KmsKeyId": settings.kms_key} if settings.kms_key else {}


def _volume_kms(settings: JobSettings) -> dict[str, Any]:
    return {"VolumeKmsKeyId": settings.volume_kms_key} if settings.volume_kms_key else {}


def _vpc(settings: JobSettings) -> dict[str, Any]:
    if not settings.subnets:
        return {}
    return {"VpcConfig": {"Subnets": list(settings.subnets), "SecurityGroupIds": list(settings.security_groups)}}


def _tags(spec: JobSpec) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in spec.tags.items()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
