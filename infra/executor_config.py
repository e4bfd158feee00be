"""Settings of the executors besides Lambda: which are enabled, what they run on, and for which models. Part of `infra.config.Config`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from infra.job_states import EXECUTION_SECONDS, EXECUTORS, SERVICES, Jobs
from infra.pipeline_definition import execution_seconds

NAME = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""A model's name; the registry's own rule (a DNS label)."""

MAX_MODELS = 100
"""A stack has at most 500 resources."""

MAX_IMAGES = 10
"""A function's environment has at most 4 KiB."""

_ARN = r"arn:aws[a-z-]*"
_QUEUE = rf"{_ARN}:batch:[a-z0-9-]+:\d{{12}}:job-queue/[A-Za-z0-9_-]{{1,128}}"
_IMAGE = r"[A-Za-z0-9./_:-]+@sha256:[0-9a-f]{64}"
_ECR_IMAGE = rf"\d{{12}}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/{_IMAGE}"
"""EMR Serverless takes images of ECR alone."""

_IMAGE_RULE = "images with digest: REGISTRY/REPOSITORY@sha256:..."
_FORMS: Mapping[str, tuple[str, str]] = {
    "job_repositories": (rf"{_ARN}:ecr:[a-z0-9-]+:\d{{12}}:repository/[A-Za-z0-9._/*-]+", "ARNs of ECR repositories"),
    "job_subnets": (r"subnet-[0-9a-f]{8,17}", "IDs of subnets"),
    "job_security_groups": (r"sg-[0-9a-f]{8,17}", "IDs of security groups"),
    "batch_images": (_IMAGE, _IMAGE_RULE),
    "emr_images": (_ECR_IMAGE, "images of ECR with digest: ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY@sha256:..."),
    "job_volume_key": (rf"{_ARN}:kms:[a-z0-9-]+:\d{{12}}:key/[0-9a-fA-F-]{{36}}", "the ARN of a KMS key"),
    "batch_queue": (_QUEUE, "the ARN of a Batch job queue"),
    "batch_spot_queue": (_QUEUE, "the ARN of a Batch job queue"),
    "emr_release": (r"emr-\d+\.\d+\.\d+(?:-latest)?", "an EMR release such as emr-7.9.0"),
}

_OWN = (
    ("batch_definitions", rf"{_ARN}:batch:[a-z0-9-]+:\d{{12}}:job-definition/[A-Za-z0-9_-]{{1,128}}:\d+", "ARNs of job definitions"),
    ("emr_applications", r"[0-9a-z]{1,64}", "IDs of EMR Serverless applications"),
)


def broken_rule(config: Any) -> tuple[str, str] | None:
    """Return the first setting of the executors that cannot be, with the rule, or None.

    Args:
        config: an `infra.config.Config`.
    """
    return _broken_form(config) or _broken_models(config) or _broken_whole(config)


def jobs_of(config: Any) -> Jobs:
    """Return what the pipeline's definition needs to know of the executors."""
    endpoints = "sagemaker" in config.deployment_targets
    return Jobs(config.executors, config.job_limit_hours * 3600, config.job_wait_hours * 3600, endpoints=endpoints)


def _broken_form(config: Any) -> tuple[str, str] | None:
    if (
        "lambda" not in config.executors
        or not set(config.executors) <= set(EXECUTORS)
        or len(set(config.executors)) < len(config.executors)
    ):
        return "executors", f"must be of {', '.join(EXECUTORS)}, each once, and lambda always among them"
    for field, (pattern, rule) in _FORMS.items():
        value = getattr(config, field)
        texts = value if isinstance(value, tuple) else (value,) if value else ()
        for text in texts:
            if not re.fullmatch(pattern, text):
                return field, f"must be {rule}, not {text!r}"
    for field, pattern, rule in _OWN:
        for image, text in getattr(config, field):
            if not re.fullmatch(_IMAGE, image) or not re.fullmatch(pattern, text):
                return field, f"must be {rule} by images with digest, not {image!r}: {text!r}"
    for field, low, high in (
        ("job_limit_hours", 1, 120),
        ("job_wait_hours", 1, 168),
        ("batch_max_vcpus", 1, 10_000),
        ("emr_max_vcpus", 4, 10_000),
    ):
        if not low <= getattr(config, field) <= high:
            return field, f"must be from {low} to {high}, not {getattr(config, field)}"
    return None


def _broken_models(config: Any) -> tuple[str, str] | None:
    for model in config.job_models:
        if not re.fullmatch(NAME, model):
            return "job_models", f"must be names of models, not {model!r}"
    if len(set(config.job_models)) < len(config.job_models) or len(config.job_models) > MAX_MODELS:
        return "job_models", f"must be at most {MAX_MODELS} models, each once; more need a stack of their own for their roles"
    for images, own in (("batch_images", "batch_definitions"), ("emr_images", "emr_applications")):
        named = [*getattr(config, images), *(image for image, _ in getattr(config, own))]
        if len(set(named)) < len(named) or len(named) > MAX_IMAGES:
            return images, f"and those that have something of their own are at most {MAX_IMAGES} images, each once"
    return None


def _broken_whole(config: Any) -> tuple[str, str] | None:
    """Return what is wrong with settings that are each well-formed."""
    elsewhere = {service.executor for service in SERVICES.values()} & set(config.executors)
    if bool(config.job_subnets) != bool(config.job_security_groups):
        return "job_subnets", "and jobSecurityGroups go together"
    if elsewhere and not config.vpc_isolation and not config.job_subnets:
        return "job_subnets", "must name subnets where there is no isolated network of the registry's own (vpcIsolation is false)"
    if "batch" in elsewhere and not (config.batch_images or config.batch_definitions):
        return "batch_images", "must name the images that Batch may run; it takes none with a job"
    days = config.approval_timeout_days
    if (elsewhere or config.endpoint_models) and execution_seconds(days * 86_400, jobs_of(config)) > EXECUTION_SECONDS:
        return "approval_timeout_days", "and the longest jobs together are longer than the year that an execution lives"
    if "emr-serverless" in elsewhere and not (config.emr_images or config.emr_applications):
        return "emr_images", "must name the images that EMR Serverless may run; it takes none with a job"
    return None
