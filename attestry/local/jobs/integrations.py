"""Step Functions' `.sync` integrations with the services that the stand-in stands in for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attestry.local.jobs.job import arn


@dataclass(frozen=True)
class Integration:
    """How a task starts a job.

    Attributes:
        service: one of `attestry.local.jobs.service.KINDS`.
        action: what the state machine's role has to be allowed.
        resources: ARNs that it has to be allowed it on, from the request.
        role: member of the request that names the job's role; empty where a job has none.
        principal: the service that the role is passed to.
        errors: prefix of the names of errors that the task raises of a refused call.
        unnamed: name of those that Step Functions does not tell apart.
    """

    service: str
    action: str
    resources: Callable[[Mapping[str, Any]], list[str]]
    role: str
    principal: str
    errors: str
    unnamed: str

    def name_of(self, code: str) -> str:
        """Return what Step Functions calls an error of the service: some by their codes, the rest by the service's name."""
        if code == "ResourceLimitExceeded":
            return f"{self.errors}.ResourceLimitExceededException"
        return f"{self.errors}.{self.unnamed or code}"


def _of_sagemaker(kind: str, resource: str) -> Integration:
    def resources(request: Mapping[str, Any]) -> list[str]:
        return [arn("sagemaker", f"{resource}/{request.get(f'{kind}JobName', '')}".lower())]

    role = "" if kind == "Transform" else "RoleArn"
    service = f"sagemaker-{kind.lower()}"
    return Integration(
        service, f"sagemaker:Create{kind}Job", resources, role, "sagemaker.amazonaws.com", "SageMaker", "AmazonSageMakerException"
    )


INTEGRATIONS: Mapping[str, Integration] = {
    "arn:aws:states:::sagemaker:createTrainingJob.sync": _of_sagemaker("Training", "training-job"),
    "arn:aws:states:::sagemaker:createProcessingJob.sync": _of_sagemaker("Processing", "processing-job"),
    "arn:aws:states:::sagemaker:createTransformJob.sync": _of_sagemaker("Transform", "transform-job"),
    "arn:aws:states:::batch:submitJob.sync": Integration(
        "batch",
        "batch:SubmitJob",
        lambda request: [str(request.get("jobQueue", "")), str(request.get("jobDefinition", ""))],
        "",
        "",
        "Batch",
        "AWSBatchException",
    ),
    "arn:aws:states:::emr-serverless:startJobRun.sync": Integration(
        "emr-serverless",
        "emr-serverless:StartJobRun",
        lambda request: [arn("emr-serverless", f"/applications/{request.get('applicationId', '')}")],
        "executionRoleArn",
        "emr-serverless.amazonaws.com",
        "EMRServerless",
        "",
    ),
}
