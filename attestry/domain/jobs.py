"""Jobs of other services that run a stage: their names, their places in scratch, and what a deployment says about them.

Rules:

1. A job's name derives from where its files lie, and that from the model, the execution, the stage and the attempt: asking twice for the
   same run asks for the same job, and two registries of one account never ask for one job.
2. A job reads and writes below `jobs/<model>/<execution>/<STAGE>/<attempt>/` alone; what the registry gives it lies under `in/`, what it
   leaves under `out/` and `checkpoints/`. The role of a model's jobs ends at `jobs/<model>/`.
3. On SageMaker, TRAINING and VALIDATION run without any network, whatever the deployment says: the role of a model's jobs reaches what
   was given to its other jobs, the hold-out among it, and a container that has no network has no credentials either. On Batch a job has no
   role at all: it holds URLs of its own inputs and outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from attestry.domain.errors import InvalidInputError
from attestry.domain.manifest_sections import Resources
from attestry.domain.mapping_codec import decode_dataclass
from attestry.domain.stages import Stage

MAX_JOB_NAME = 63
"""SageMaker's limit, the narrowest; a name of letters, digits and single hyphens suits every service."""

MAX_ROLE_NAME = 64
EXECUTORS = ("lambda", "sagemaker", "batch", "emr-serverless")


class Service(StrEnum):
    """The call that starts a job; the pipeline has a state for each."""

    SAGEMAKER_PROCESSING = "sagemaker-processing"
    SAGEMAKER_TRAINING = "sagemaker-training"
    SAGEMAKER_TRANSFORM = "sagemaker-transform"
    BATCH = "batch"
    EMR_SERVERLESS = "emr-serverless"


@dataclass(frozen=True)
class JobSettings:
    """What a deployment says about jobs.

    Attributes:
        executors: where stages may run here.
        bucket: the scratch bucket.
        role_prefix: ARN of the role of a model's jobs, without the model's name at its end.
        kms_key: key that outputs are encrypted with; empty for the bucket's own.
        volume_kms_key: key of the machines' volumes; empty for the service's own. Machines with disks of their own take none.
        subnets: subnets of SageMaker's jobs; none for the service's network.
        security_groups: their security groups.
        network_isolation: whether PROCESSING on SageMaker runs without network too.
        batch_queue: Batch queue; empty where there is none.
        batch_spot_queue: Batch queue of spot machines; empty where there is none.
        batch_definitions: image with digest to the job definition that runs it: SubmitJob itself names no image.
        emr_applications: image with digest to the Spark application that runs it: StartJobRun itself names no image.
        emr_log_group: log group of Spark's drivers; empty for the scratch prefix alone.
    """

    executors: tuple[str, ...] = ("lambda",)
    bucket: str = ""
    role_prefix: str = ""
    kms_key: str = ""
    volume_kms_key: str = ""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    network_isolation: bool = True
    batch_queue: str = ""
    batch_spot_queue: str = ""
    batch_definitions: Mapping[str, str] = field(default_factory=dict)
    emr_applications: Mapping[str, str] = field(default_factory=dict)
    emr_log_group: str = ""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.executors) - set(EXECUTORS))
        if unknown:
            raise InvalidInputError.of("executors", "one_of", f"{', '.join(unknown)}: use {', '.join(EXECUTORS)}")

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> JobSettings:
        """Return the settings of a mapping with the attributes' names; what is left out is as it is here.

        Raises:
            InvalidInputError: a name is unknown, or an executor.
        """
        return decode_dataclass(cls, item)

    @property
    def deployment(self) -> str:
        """What the names of all jobs begin with: the pipeline may start no others."""
        return self.role_prefix.rpartition("/")[2].removesuffix("-job-") or "attestry"

    def role_of(self, model: str) -> str:
        """Return the ARN of the role that the model's jobs run with."""
        head, _, name = self.role_prefix.rpartition("/")
        return f"{head}/{job_role_name(name, model)}"


@dataclass(frozen=True)
class JobPlace:
    """Where the files of one run of a stage lie in scratch.

    Attributes:
        bucket: the scratch bucket.
        model: the model.
        execution_id: ID of the version's execution.
        stage: PROCESSING, TRAINING or VALIDATION.
        attempt: from 1.
        deployment: what the job's name begins with.
    """

    bucket: str
    model: str
    execution_id: str
    stage: Stage
    attempt: int
    deployment: str = "attestry"

    @property
    def prefix(self) -> str:
        """The key prefix of the run, with a slash at the end."""
        return job_prefix(self.model, self.execution_id, self.stage, self.attempt)

    def uri(self, below: str = "") -> str:
        """Return the `s3://` URI of something below the prefix."""
        return f"s3://{self.bucket}/{self.prefix}{below}"

    @property
    def job_name(self) -> str:
        """The name of the job (rule 1)."""
        digest = hashlib.sha256(self.uri().encode()).hexdigest()[:16]
        tail = f"{self.stage.value.lower()}-{self.attempt}-{digest}"
        head = f"{self.deployment}-{self.model}"[: MAX_JOB_NAME - len(tail) - 1].rstrip("-")
        # Hyphens side by side are a model name's right, and no job name's.
        return "-".join(part for part in f"{head}-{tail}".split("-") if part)


@dataclass(frozen=True)
class JobSpec:
    """What a job has to run.

    Attributes:
        place: where its files lie.
        number: number of the version.
        candidate: its candidate digest.
        container: image with digest.
        resources: what the manifest asks for.
        arguments: what the script is called with.
        channels: names of the channels under `in/`.
    """

    place: JobPlace
    number: int
    candidate: str
    container: str
    resources: Resources
    arguments: Mapping[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ()

    @property
    def tags(self) -> dict[str, str]:
        """What the job is found by in the service's own lists, and in the bill."""
        place = self.place
        return {
            "attestry:model": place.model,
            "attestry:version": str(self.number),
            "attestry:stage": place.stage.value,
            "attestry:attempt": str(place.attempt),
            "attestry:execution": place.execution_id,
            "attestry:candidate": self.candidate,
        }

    def planned(self, executor: str, settings: JobSettings) -> dict[str, Any]:
        """Return what the plan of the stage says about the job before it runs, JSON values."""
        service = service_of(executor, self.place.stage)
        sagemaker = executor == "sagemaker"
        return {
            "service": service.value,
            "name": self.place.job_name,
            "container": self.container,
            "role": "" if service is Service.BATCH else settings.role_of(self.place.model),
            "network_isolation": sagemaker and (settings.network_isolation or self.place.stage is not Stage.PROCESSING),
            "subnets": list(settings.subnets) if sagemaker else [],
            "kms_key": settings.kms_key,
        }


@dataclass(frozen=True)
class JobRequest:
    """A request to start a job.

    Attributes:
        service: which call it is for.
        name: the job's name.
        request: parameters, named as the API names them.
    """

    service: Service
    name: str
    request: Mapping[str, Any]

    def task_arguments(self) -> dict[str, Any]:
        """Return the parameters as Step Functions' integrations name them: every member begins with a capital, keys of maps do not."""
        named: dict[str, Any] = _capitalised(self.request)
        return named


def job_prefix(model: str, execution_id: str, stage: Stage, attempt: int) -> str:
    """Return the scratch prefix of one run of a stage (rule 2)."""
    return f"jobs/{model}/{execution_id}/{stage.value}/{attempt}/"


def archive_key(prefix: str, service: str, name: str, output: str) -> str:
    """Return where a run leaves an output folder as one archive.

    Args:
        prefix: the run's scratch prefix.
        service: one of `Service`, or empty for the sandbox.
        name: the job's name.
        output: `output` or `model`.
    """
    if service == Service.SAGEMAKER_PROCESSING:
        return f"{prefix}out/output/{output}.tar.gz"
    if service == Service.SAGEMAKER_TRAINING:
        return f"{prefix}out/{name}/output/{output}.tar.gz"
    return f"{prefix}{output}.tar.gz"


def job_role_name(prefix: str, model: str) -> str:
    """Return the name of the role of a model's jobs; a name that is too long ends in a digest instead.

    Args:
        prefix: what all such names begin with.
        model: the model.
    """
    if len(prefix) + len(model) <= MAX_ROLE_NAME:
        return prefix + model
    digest = hashlib.sha256(model.encode()).hexdigest()[:10]
    return f"{prefix}{model[: MAX_ROLE_NAME - len(prefix) - 11]}-{digest}"


def service_of(executor: str, stage: Stage) -> Service:
    """Return the call that runs a stage on an executor.

    Raises:
        InvalidInputError: the executor does not run that stage.
    """
    if executor == "sagemaker":
        return Service.SAGEMAKER_TRAINING if stage is Stage.TRAINING else Service.SAGEMAKER_PROCESSING
    if executor == "batch":
        return Service.BATCH
    if executor == "emr-serverless" and stage is Stage.PROCESSING:
        return Service.EMR_SERVERLESS
    raise InvalidInputError.of(f"{stage.value.lower()}.executor", "executor", f"{executor} starts no job for {stage.value}")


_MAPS = frozenset({"Environment", "HyperParameters", "logTypes", "options", "parameters", "properties", "tags"})
"""Members whose keys are the caller's own words."""


def _capitalised(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k[:1].upper() + k[1:]: v if k in _MAPS and isinstance(v, Mapping) else _capitalised(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_capitalised(v) for v in value]
    return value
