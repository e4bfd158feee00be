"""Versions that are served by SageMaker: names, what a deployment says about endpoints, and what is to be done with one next.

Rules:

1. A model has one endpoint in each environment, and a version one production variant there. Names derive from model, environment and
   version digest, and nothing else is asked for a version, whatever a row says.
2. Who answers is chosen by the pointer, never by SageMaker's weights: each call names the variant.
3. A variant's files are the version's frozen folder, its image is named by digest, and its container has no network, so it has no
   credentials either. What it loads it checks against the version digest, which stands in the request that made it
   (`attestry.sandbox.endpoint`).
4. A configuration of an endpoint and a model are made once under a name that holds the digest of the request; what stands under that name
   already has to be what would have been asked for.
5. An update that SageMaker took back is not asked for again; a configuration that nobody here asked for is replaced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from attestry.domain.jobs import job_role_name
from attestry.domain.manifest_sections import Endpoint
from attestry.domain.mapping_codec import decode_dataclass
from attestry.domain.version import Version

SAGEMAKER: Final = "sagemaker"
"""What `Version.target` says of a version that is served by an endpoint; that of others is empty."""

MAX_NAME: Final = 63
MAX_VARIANTS: Final = 10
"""What SageMaker takes in one configuration."""

DIGEST_VARIABLE: Final = "ATTESTRY_VERSION_DIGEST"
SCRIPT_VARIABLE: Final = "ATTESTRY_INFERENCE_SCRIPT"

_BUSY = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
OUT: Final = frozenset({"Failed", "OutOfService"})
"""States of an endpoint that serves nothing and will not by itself."""


@dataclass(frozen=True)
class EndpointSettings:
    """What a deployment says about endpoints.

    Attributes:
        models: the models that may be served by SageMaker; none where the registry has no such target.
        store: the model store's bucket.
        scratch: the scratch bucket, where SageMaker's own data capture goes.
        role_prefix: ARN of the role of a model's containers, without the model's name at its end.
        volume_kms_key: key of the machines' volumes; empty for the service's own.
        capture_kms_key: key of what data capture writes.
        subnets: subnets of the containers; none for the service's network. Containers have no network either way.
        security_groups: their security groups.
    """

    models: tuple[str, ...] = ()
    store: str = ""
    scratch: str = ""
    role_prefix: str = ""
    volume_kms_key: str = ""
    capture_kms_key: str = ""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> EndpointSettings:
        """Return the settings of a mapping with the attributes' names; what is left out is as it is here.

        Raises:
            InvalidInputError: a name is unknown.
        """
        return decode_dataclass(cls, item)

    def role_of(self, model: str) -> str:
        """Return the ARN of the role that the model's containers run with."""
        head, _, name = self.role_prefix.rpartition("/")
        return f"{head}/{job_role_name(name, model)}"


@dataclass(frozen=True)
class Variant:
    """A version as an endpoint serves it: the version, and what its manifest says about the endpoint."""

    version: Version
    asked: Endpoint

    @property
    def name(self) -> str:
        """The production variant's name."""
        return variant_name(self.version.number, self.version.version_digest)


@dataclass(frozen=True)
class EndpointPlan:
    """How an endpoint is to be.

    Attributes:
        name: the endpoint's name.
        config: the name of its configuration; empty where there is nothing to serve.
        request: the request that makes the configuration.
        models: the requests that make its models, by their names.
        images: digest of the image of each variant.
        numbers: the versions that it serves.
    """

    name: str
    config: str = ""
    request: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class EndpointState:
    """What SageMaker says about an endpoint.

    Attributes:
        status: `InService`, `Updating`, ...
        config: name of the configuration that it runs.
        images: the digests of the images that run, by variant.
        reason: why the last change failed; empty where none did.
        modified: when it was last changed, RFC 3339.
    """

    status: str
    config: str
    images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reason: str = ""
    modified: str = ""


class Step(StrEnum):
    """What is to be done with an endpoint."""

    WAIT = "wait"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    READY = "ready"
    GONE = "gone"
    FAILED = "failed"


def next_step(plan: EndpointPlan, state: EndpointState | None, asked: str) -> Step:
    """Return what brings an endpoint nearer to its plan (rule 5).

    Args:
        plan: how it is to be.
        state: how it is; None where there is none.
        asked: name of the configuration that was asked for last.
    """
    if state is None:
        return Step.CREATE if plan.config else Step.GONE
    if state.status in _BUSY:
        return Step.WAIT
    if not plan.config:
        return Step.DELETE
    if state.status in OUT:
        return Step.FAILED if state.config == plan.config and asked == plan.config else Step.DELETE
    if state.config != plan.config:
        return Step.FAILED if asked == plan.config else Step.UPDATE
    return Step.READY if state.status == "InService" else Step.WAIT


def endpoint_name(prefix: str, model: str, environment: str) -> str:
    """Return the name of the endpoint of a model in an environment."""
    return _named(f"{prefix}-{model}-{environment}", hashlib.sha256(f"{model}\n{environment}".encode()).hexdigest()[:12])


def variant_name(number: int, version_digest: str) -> str:
    """Return the name of a version's production variant."""
    return f"v{number}-{version_digest[:32]}"


def plan_endpoint(settings: EndpointSettings, prefix: str, model: str, environment: str, variants: Sequence[Variant]) -> EndpointPlan:
    """Return how the endpoint of a model in an environment is to be.

    Args:
        settings: the deployment's.
        prefix: what all names begin with.
        model: the model.
        environment: where.
        variants: the versions that it serves, at most `MAX_VARIANTS`.
    """
    name = endpoint_name(prefix, model, environment)
    if not variants:
        return EndpointPlan(name)
    ordered = sorted(variants, key=lambda v: v.version.number)
    models = {v.name: _model_request(settings, prefix, v) for v in ordered}
    request = _config_request(settings, model, environment, ordered, models)
    config = _named(f"{prefix}-{model}-{environment}", _digest(request))
    return EndpointPlan(
        name,
        config,
        {"EndpointConfigName": config, **request},
        {str(made["ModelName"]): made for made in models.values()},
        {v.name: v.asked.container.rpartition("@sha256:")[2] for v in ordered},
        tuple(v.version.number for v in ordered),
    )


def differences(asked: Any, told: Any, path: str = "") -> list[str]:
    """Return where a description is not what was asked for; what the service adds by itself is none, but in `Environment` and lists.

    Args:
        asked: the request.
        told: the description of what was made.
        path: of the two within the whole.
    """
    if isinstance(asked, Mapping):
        if not isinstance(told, Mapping):
            return [path]
        more = [f"{path}.{name}" for name in told if name not in asked] if path.endswith(".Environment") else []
        return more + [p for name, value in asked.items() if name != "Tags" for p in differences(value, told.get(name), f"{path}.{name}")]
    if isinstance(asked, list):
        if not isinstance(told, list) or len(told) != len(asked):
            return [path]
        ordered = sorted(asked, key=_sort_key), sorted(told, key=_sort_key)
        return [p for i, (one, other) in enumerate(zip(*ordered, strict=True)) for p in differences(one, other, f"{path}[{i}]")]
    return [] if asked == told else [path]


def foreign_parts(told: Mapping[str, Any]) -> list[str]:
    """Return what a model has besides what is ever asked for here: further containers, data from elsewhere, a package."""
    container = told.get("PrimaryContainer") or {}
    inside = ("AdditionalModelDataSources", "ModelPackageName", "MultiModelConfig", "InferenceSpecificationName")
    return [name for name in ("Containers", "InferenceExecutionConfig") if told.get(name)] + [n for n in inside if container.get(n)]


def _model_request(settings: EndpointSettings, prefix: str, variant: Variant) -> dict[str, Any]:
    version = variant.version
    source = {
        "S3Uri": f"s3://{settings.store}/{version.folder}/frozen/",
        "S3DataType": "S3Prefix",
        "CompressionType": "None",
    }
    request: dict[str, Any] = {
        "PrimaryContainer": {
            "Image": variant.asked.container,
            "Mode": "SingleModel",
            "ModelDataSource": {"S3DataSource": source},
            "Environment": {DIGEST_VARIABLE: version.version_digest, SCRIPT_VARIABLE: version.inference_script},
        },
        "ExecutionRoleArn": settings.role_of(version.model),
        "EnableNetworkIsolation": True,
    }
    if settings.subnets:
        request["VpcConfig"] = {"Subnets": list(settings.subnets), "SecurityGroupIds": list(settings.security_groups)}
    name = _named(f"{prefix}-{version.model}-v{version.number}", _digest(request))
    tags = {"attestry:model": version.model, "attestry:version": str(version.number), "attestry:version-digest": version.version_digest}
    return {"ModelName": name, **request, "Tags": _tags(tags)}


def _config_request(
    settings: EndpointSettings, model: str, environment: str, variants: Sequence[Variant], models: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    request: dict[str, Any] = {
        "ProductionVariants": [
            {
                "VariantName": v.name,
                "ModelName": models[v.name]["ModelName"],
                "InstanceType": v.asked.instance,
                "InitialInstanceCount": v.asked.instance_count,
                # Every call names its variant, so the weights decide nothing; all zero is no configuration.
                "InitialVariantWeight": 1.0,
                "ModelDataDownloadTimeoutInSeconds": v.asked.startup_seconds,
                "ContainerStartupHealthCheckTimeoutInSeconds": v.asked.startup_seconds,
            }
            for v in variants
        ],
        "Tags": _tags({"attestry:model": model, "attestry:environment": environment}),
    }
    if settings.volume_kms_key:
        request["KmsKeyId"] = settings.volume_kms_key
    share = max(v.asked.data_capture for v in variants)
    if share:
        request["DataCaptureConfig"] = {
            "EnableCapture": True,
            "InitialSamplingPercentage": share,
            "DestinationS3Uri": f"s3://{settings.scratch}/captured/{model}/{environment}",
            "KmsKeyId": settings.capture_kms_key,
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        }
    return request


def _tags(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in values.items()]


def _digest(request: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:20]


def _named(head: str, digest: str) -> str:
    """Return a name that SageMaker takes: no hyphens side by side, at most 63 characters, told apart by the digest at its end."""
    return "-".join(part for part in f"{head[: MAX_NAME - len(digest) - 1]}-{digest}".split("-") if part)


def _sort_key(value: Any) -> str:
    named = value.get("VariantName") or value.get("CaptureMode") if isinstance(value, Mapping) else value
    return str(named)
