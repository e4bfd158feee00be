"""What a manifest may ask of what serves the version."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attestry.cli.main import make_app
from attestry.domain.manifest_sections import Endpoint
from attestry.usecases.shim_archive import shim_archive
from tests.unit.manifest_samples import COMPLETE, read, rules_of

IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/serving@sha256:" + "a1" * 32
ENDPOINT: dict[str, Any] = {"container": IMAGE, "instance": "ml.m7i.xlarge"}


def deployed(**fields: Any) -> dict[str, Any]:
    mapping = copy.deepcopy(COMPLETE)
    mapping["deployment"] |= fields
    return mapping


def test_by_default_the_inference_function_serves() -> None:
    deployment = read(COMPLETE).manifest.deployment
    assert (deployment.target, deployment.endpoint) == ("function", None)


def test_an_endpoint_is_read_with_its_defaults_and_written_as_it_was_asked_for() -> None:
    document = read(deployed(target="sagemaker", endpoint=ENDPOINT))
    assert document.manifest.deployment.endpoint == Endpoint(IMAGE, "ml.m7i.xlarge", 1, 600, 0)
    assert document.mapping["deployment"]["endpoint"] == ENDPOINT
    assert read(document.manifest.to_mapping()).manifest == document.manifest


def test_a_manifest_that_names_no_target_keeps_its_candidate_id() -> None:
    assert b"target" not in read(COMPLETE).canonical_bytes


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"target": "sagemaker"}, ("deployment.endpoint", "required")),
        ({"endpoint": ENDPOINT}, ("deployment.endpoint", "not_with")),
        ({"target": "function", "endpoint": ENDPOINT}, ("deployment.endpoint", "not_with")),
        ({"target": "kubernetes"}, ("deployment.target", "one_of")),
        ({"target": "sagemaker", "endpoint": {"instance": "ml.m7i.xlarge"}}, ("deployment.endpoint.container", "required")),
        ({"target": "sagemaker", "endpoint": {"container": IMAGE}}, ("deployment.endpoint.instance", "required")),
        ({"target": "sagemaker", "endpoint": {**ENDPOINT, "instance": "m7i.xlarge"}}, ("deployment.endpoint.instance", "pattern")),
        ({"target": "sagemaker", "endpoint": {**ENDPOINT, "container": "serving:latest"}}, ("deployment.endpoint.container", "pattern")),
        ({"target": "sagemaker", "endpoint": {**ENDPOINT, "container": "a" * 200 + IMAGE}}, ("deployment.endpoint.container", "length")),
        ({"target": "sagemaker", "endpoint": {**ENDPOINT, "memory_mib": 4096}}, ("deployment.endpoint.memory_mib", "unknown_field")),
        ({"target": "sagemaker", "endpoint": {**ENDPOINT, "instance_count": 0}}, ("deployment.endpoint.instance_count", "minimum")),
        ({"target": "sagemaker", "endpoint": {**ENDPOINT, "startup_seconds": 59}}, ("deployment.endpoint.startup_seconds", "minimum")),
        ({"target": "sagemaker", "endpoint": {**ENDPOINT, "data_capture": 101}}, ("deployment.endpoint.data_capture", "maximum")),
    ],
)
def test_what_no_endpoint_has_is_refused(fields: dict[str, Any], expected: tuple[str, str]) -> None:
    assert rules_of(deployed(**fields)) == [expected]


def test_the_command_writes_the_shim_that_images_start(tmp_path: Path) -> None:
    to = tmp_path / "shim.zip"
    result = CliRunner().invoke(make_app(), ["shim", str(to)])
    assert result.exit_code == 0
    assert to.read_bytes() == shim_archive()
    assert hashlib.sha256(shim_archive()).hexdigest() in result.output
