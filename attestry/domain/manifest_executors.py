"""What a stage may ask of each executor: rules between `executor`, `resources`, `container` and `script`.

They are generators as those of `attestry.domain.manifest_rules`, which runs them. A setting that an executor does not have is refused, not
passed over, so that nobody believes in a machine that was never there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attestry.domain.manifest_source import Path

LAMBDA_MAX_SECONDS = 840
"""A function runs for at most 900 seconds; the rest is for reading inputs and writing outputs."""

LAMBDA_MAX_MEMORY_MIB = 10240

BATCH_MAX_SECONDS = 21_600
"""A job on Batch holds URLs instead of rights, and a URL ends with the session that signed it."""

SAGEMAKER_MAX_IMAGE = 255

STAGES: Final = ("processing", "training", "validation")
_NEEDS_CONTAINER = ("sagemaker", "batch", "emr-serverless")
_SETTINGS: Final[Mapping[str, frozenset[str]]] = {
    "lambda": frozenset({"memory_mib", "timeout_seconds"}),
    "sagemaker": frozenset({"memory_mib", "timeout_seconds", "instance", "instance_count", "volume_gib", "spot", "max_wait_seconds"}),
    "batch": frozenset({"memory_mib", "timeout_seconds", "cpu", "gpu", "spot"}),
    "emr-serverless": frozenset({"memory_mib", "timeout_seconds", "cpu", "instance_count", "volume_gib"}),
}
_FOLLOWS: Final = {("sagemaker", "cpu"), ("sagemaker", "gpu")}
_SPARK_WORKERS: Final = {1: (2048, 8192), 2: (4096, 16384), 4: (8192, 30720), 8: (16384, 61440), 16: (32768, 122880)}
"""Virtual CPUs of a worker to the least and the most MiB that it can have (EMR Serverless user guide, worker configurations)."""

_SPARK_VOLUME_GIB: Final = (20, 200)

Finding = tuple[Path, str, str]
"""Path of the field, rule, message."""


def check_environments(value: Any) -> Iterator[Finding]:
    """`lambda` and the endpoint install the lock file; the other executors run a container."""
    environment = value.get("environment")
    if isinstance(environment, Mapping) and "lock_file" not in environment:
        message = "is missing: stages on 'lambda' and the endpoint that serves the model install a lock file with hashes"
        yield ("environment", "lock_file"), "required", message
    shared = environment.get("container") if isinstance(environment, Mapping) else None
    for stage, section, executor in _sections(value):
        own = section.get("container")
        if executor == "lambda" and own is not None:
            yield ((stage, "container"), "executor", "'lambda' runs no container; name another executor or leave this out")
        image, at = (own, (stage, "container")) if own is not None else (shared, ("environment", "container"))
        if executor in _NEEDS_CONTAINER and image is None:
            yield (at, "required", f"is missing: {stage} runs on '{executor}', which needs an image with digest")
        elif executor == "sagemaker" and isinstance(image, str) and len(image) > SAGEMAKER_MAX_IMAGE:
            yield (at, "executor", f"'sagemaker' takes images whose name has at most {SAGEMAKER_MAX_IMAGE} characters, the digest included")


def check_executors(value: Any) -> Iterator[Finding]:
    """Spark prepares data and nothing else; a script that is not Python needs an image that can run it."""
    for stage, section, executor in _sections(value):
        if executor == "emr-serverless" and stage != "processing":
            yield (stage, "executor"), "executor", f"'emr-serverless' prepares data; {stage} runs on lambda, sagemaker or batch"
        script = section.get("script")
        if isinstance(script, str) and not script.endswith(".py") and executor in ("lambda", "emr-serverless"):
            yield (stage, "script"), "executor", f"'{executor}' runs Python files; R scripts run on sagemaker or batch"


def check_resources(value: Any) -> Iterator[Finding]:
    """Settings that the executor has, within its limits."""
    for stage, section, executor in _sections(value):
        asked = section.get("resources", {})
        if not isinstance(asked, Mapping) or executor not in _SETTINGS:
            continue
        at: Path = (stage, "resources")
        for name in asked:
            if name in _known_settings() and name not in _SETTINGS[executor] and asked[name] not in (0, False):
                why = "it follows from the instance type" if (executor, name) in _FOLLOWS else "name another executor or leave this out"
                yield (*at, name), "executor", f"'{executor}' has no setting '{name}'; {why}"
        limits = {"lambda": _lambda, "sagemaker": _sagemaker, "batch": _batch, "emr-serverless": _spark}[executor]
        yield from limits(stage, at, asked)


def _lambda(_stage: str, at: Path, asked: Mapping[str, Any]) -> Iterator[Finding]:
    if _number(asked.get("timeout_seconds")) > LAMBDA_MAX_SECONDS:
        yield ((*at, "timeout_seconds"), "executor", f"'lambda' runs a script for at most {LAMBDA_MAX_SECONDS} seconds")
    if _number(asked.get("memory_mib")) > LAMBDA_MAX_MEMORY_MIB:
        yield (*at, "memory_mib"), "executor", f"'lambda' has at most {LAMBDA_MAX_MEMORY_MIB} MiB"


def _sagemaker(stage: str, at: Path, asked: Mapping[str, Any]) -> Iterator[Finding]:
    instance = asked.get("instance")
    if instance is None:
        yield (*at, "instance"), "required", "is missing: 'sagemaker' needs an instance type"
    elif isinstance(instance, str) and not instance.startswith("ml."):
        yield (*at, "instance"), "executor", f"'sagemaker' has instance types that begin with 'ml.'; did you mean 'ml.{instance}'?"
    if stage != "training":
        if _number(asked.get("instance_count")) > 1:
            yield (*at, "instance_count"), "executor", f"{stage} on 'sagemaker' runs on one machine; training alone runs on several"
        if asked.get("spot"):
            yield (*at, "spot"), "executor", "'sagemaker' has spot machines for training alone"
    elif asked.get("spot") is True:
        wait = asked.get("max_wait_seconds")
        if wait is None:
            yield (*at, "max_wait_seconds"), "required", "is missing: say how long script and waiting for a spot machine may take together"
        elif _number(wait) < _number(asked.get("timeout_seconds", 600)):
            yield (*at, "max_wait_seconds"), "order", "is less than timeout_seconds, which it includes"
    if "max_wait_seconds" in asked and asked.get("spot") is not True:
        yield (*at, "max_wait_seconds"), "not_with", "has no meaning without 'spot: true'"


def _batch(_stage: str, at: Path, asked: Mapping[str, Any]) -> Iterator[Finding]:
    if _number(asked.get("timeout_seconds")) > BATCH_MAX_SECONDS:
        yield (
            (*at, "timeout_seconds"),
            "executor",
            f"'batch' runs a script for at most {BATCH_MAX_SECONDS} seconds; sagemaker runs longer ones",
        )


def _spark(_stage: str, at: Path, asked: Mapping[str, Any]) -> Iterator[Finding]:
    cpu, memory = asked.get("cpu", 4), asked.get("memory_mib")
    if _number(cpu) not in _SPARK_WORKERS:
        yield (*at, "cpu"), "executor", f"'emr-serverless' has workers with {', '.join(map(str, _SPARK_WORKERS))} CPUs"
        return
    least, most = _SPARK_WORKERS[int(cpu)]
    if memory is None:
        yield (*at, "memory_mib"), "required", f"is missing: a worker with {int(cpu)} CPUs has {least} to {most} MiB"
    elif not least <= _number(memory) <= most:
        yield (*at, "memory_mib"), "executor", f"'emr-serverless' gives a worker with {int(cpu)} CPUs {least} to {most} MiB"
    low, high = _SPARK_VOLUME_GIB
    if "volume_gib" in asked and not low <= _number(asked["volume_gib"]) <= high:
        yield (*at, "volume_gib"), "executor", f"'emr-serverless' gives a worker a disk of {low} to {high} GiB"


def _sections(value: Any) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Yield name, section and executor of the stages that are there."""
    for stage in STAGES:
        section = value.get(stage)
        if isinstance(section, Mapping):
            executor = section.get("executor", "lambda")
            yield stage, section, executor if isinstance(executor, str) else ""


def _known_settings() -> frozenset[str]:
    return frozenset[str]().union(*_SETTINGS.values())


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
