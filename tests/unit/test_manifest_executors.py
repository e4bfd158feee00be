"""What a manifest may ask of each executor; what an executor does not have is refused by field and rule."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.manifest_samples import COMPLETE, read, rules_of

IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/training@sha256:" + "a1" * 32
SAGEMAKER: dict[str, Any] = {"instance": "ml.m5.xlarge"}
SPARK: dict[str, Any] = {"cpu": 4, "memory_mib": 16384}


def on(stage: str, executor: str, resources: dict[str, Any], **section: Any) -> dict[str, Any]:
    """The complete manifest with one stage on an executor."""
    mapping = copy.deepcopy(COMPLETE)
    mapping["environment"]["container"] = IMAGE
    mapping[stage] |= {"executor": executor, "resources": resources, **section}
    return mapping


@pytest.mark.parametrize(
    ("stage", "executor", "resources"),
    [
        ("processing", "sagemaker", {**SAGEMAKER, "timeout_seconds": 432000, "volume_gib": 500}),
        ("training", "sagemaker", {"instance": "ml.p4d.24xlarge", "instance_count": 8, "volume_gib": 1000}),
        ("training", "sagemaker", {**SAGEMAKER, "spot": True, "timeout_seconds": 3600, "max_wait_seconds": 3600}),
        ("validation", "sagemaker", {**SAGEMAKER, "instance_count": 1}),
        ("training", "batch", {"memory_mib": 61000, "cpu": 8, "gpu": 1, "spot": True, "timeout_seconds": 21600}),
        ("validation", "batch", {}),
        ("processing", "emr-serverless", {**SPARK, "instance_count": 40, "volume_gib": 200}),
        ("processing", "emr-serverless", {"memory_mib": 8192}),
    ],
)
def test_a_stage_moves_to_another_executor_by_its_executor_and_resources_alone(
    stage: str, executor: str, resources: dict[str, Any]
) -> None:
    manifest = read(on(stage, executor, resources)).manifest
    section = getattr(manifest, stage)
    assert section.executor == executor
    assert {name: getattr(section.resources, name) for name in resources} == resources
    assert read(manifest.to_mapping()).manifest == manifest


@pytest.mark.parametrize(
    ("stage", "executor", "resources", "expected"),
    [
        ("training", "sagemaker", {}, ("training.resources.instance", "required")),
        ("training", "sagemaker", {"instance": "m5.xlarge"}, ("training.resources.instance", "executor")),
        ("training", "sagemaker", {**SAGEMAKER, "gpu": 2}, ("training.resources.gpu", "executor")),
        ("training", "sagemaker", {**SAGEMAKER, "cpu": 8}, ("training.resources.cpu", "executor")),
        ("training", "sagemaker", {**SAGEMAKER, "spot": True}, ("training.resources.max_wait_seconds", "required")),
        ("training", "sagemaker", {**SAGEMAKER, "spot": True, "max_wait_seconds": 599}, ("training.resources.max_wait_seconds", "order")),
        ("training", "sagemaker", {**SAGEMAKER, "max_wait_seconds": 900}, ("training.resources.max_wait_seconds", "not_with")),
        ("processing", "sagemaker", {**SAGEMAKER, "spot": True}, ("processing.resources.spot", "executor")),
        ("validation", "sagemaker", {**SAGEMAKER, "instance_count": 2}, ("validation.resources.instance_count", "executor")),
        ("training", "batch", {"instance": "p4d.24xlarge"}, ("training.resources.instance", "executor")),
        ("training", "batch", {"instance_count": 2}, ("training.resources.instance_count", "executor")),
        ("training", "batch", {"timeout_seconds": 21601}, ("training.resources.timeout_seconds", "executor")),
        ("training", "batch", {"spot": True, "max_wait_seconds": 900}, ("training.resources.max_wait_seconds", "executor")),
        ("processing", "emr-serverless", {}, ("processing.resources.memory_mib", "required")),
        ("processing", "emr-serverless", {"cpu": 3, "memory_mib": 8192}, ("processing.resources.cpu", "executor")),
        ("processing", "emr-serverless", {"cpu": 16, "memory_mib": 8192}, ("processing.resources.memory_mib", "executor")),
        ("processing", "emr-serverless", {**SPARK, "gpu": 1}, ("processing.resources.gpu", "executor")),
        ("processing", "emr-serverless", {**SPARK, "volume_gib": 500}, ("processing.resources.volume_gib", "executor")),
        ("training", "emr-serverless", SPARK, ("training.executor", "executor")),
        ("validation", "emr-serverless", SPARK, ("validation.executor", "executor")),
    ],
)
def test_what_an_executor_does_not_have_is_refused(stage: str, executor: str, resources: dict[str, Any], expected: tuple[str, str]) -> None:
    assert rules_of(on(stage, executor, resources)) == [expected]


def test_every_executor_but_lambda_needs_an_image_with_digest() -> None:
    mapping = on("training", "batch", {})
    del mapping["environment"]["container"]
    assert rules_of(mapping) == [("environment.container", "required")]
    mapping["training"]["container"] = IMAGE
    assert rules_of(mapping) == []
    mapping["training"]["container"] = "training:latest"
    assert rules_of(mapping) == [("training.container", "pattern")]


def test_sagemaker_takes_no_image_with_a_longer_name_than_it_has_room_for() -> None:
    mapping = on("training", "sagemaker", SAGEMAKER)
    mapping["environment"]["container"] = "r.example.com/" + "a" * 200 + "@sha256:" + "a1" * 32
    assert rules_of(mapping) == [("environment.container", "executor")]


@pytest.mark.parametrize(("executor", "resources"), [("batch", {}), ("sagemaker", SAGEMAKER)])
def test_an_r_script_runs_where_an_image_can_bring_r(executor: str, resources: dict[str, Any]) -> None:
    assert rules_of(on("training", executor, resources, script="train.R")) == []


def test_an_inference_script_is_python_because_it_serves_too() -> None:
    assert rules_of(on("validation", "batch", {}, script="inference.R")) == [("validation.script", "pattern")]


def test_the_lock_file_is_needed_even_where_no_stage_installs_it() -> None:
    mapping = on("training", "batch", {})
    for stage in ("processing", "validation"):
        mapping[stage]["executor"] = "batch"
    del mapping["environment"]["lock_file"]
    assert rules_of(mapping) == [("environment.lock_file", "required")]
