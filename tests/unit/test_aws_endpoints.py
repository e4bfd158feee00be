"""SageMaker's refusals, told in the registry's words; one that is not known is never taken for success."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from attestry.aws.endpoints import SageMakerEndpoints
from attestry.aws.errors import AccessRefusedError, ServiceError
from attestry.domain.errors import AttestryError, StageFailedError, UnavailableError
from tests.endpoint_service import Endpoint as Running
from tests.endpoint_service import RefusedError, SageMaker

MODEL = {
    "ModelName": "m",
    "PrimaryContainer": {"Image": "image@sha256:" + "ab" * 32},
    "ExecutionRoleArn": "arn:aws:iam::123456789012:role/attestry-serve-m",
}
VARIANT = {"VariantName": "v1", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1, "InitialVariantWeight": 1.0}
CONFIG = {"EndpointConfigName": "c", "ProductionVariants": [VARIANT]}


@pytest.fixture
def sagemaker() -> SageMaker:
    service = SageMaker()
    service.control.make_model(MODEL)
    service.control.make_config(CONFIG)
    return service


def test_what_is_not_there_is_none_and_its_removal_nothing(sagemaker: SageMaker) -> None:
    control = sagemaker.control
    assert (control.state("e"), control.model("x"), control.config("x")) == (None, None, None)
    control.remove_endpoint("e")
    control.remove_config("x")
    control.remove_model("x")


def test_what_is_there_already_is_not_made_again(sagemaker: SageMaker) -> None:
    control = sagemaker.control
    control.make_model({**MODEL, "EnableNetworkIsolation": True})
    assert "EnableNetworkIsolation" not in sagemaker.models["m"]
    assert control.make_endpoint("e", "c", []) is True
    assert control.make_endpoint("e", "c", []) is False


def test_an_endpoint_that_is_being_changed_is_left_alone(sagemaker: SageMaker) -> None:
    control = sagemaker.control
    control.make_endpoint("e", "c", [])
    assert control.update_endpoint("e", "c") is False
    control.remove_endpoint("e")
    assert sagemaker.endpoints["e"].status == "Creating"


def test_a_state_names_the_images_that_run_by_their_digests(sagemaker: SageMaker) -> None:
    sagemaker.endpoints["e"] = Running("c", "InService", reason="earlier")
    state = sagemaker.control.state("e")
    assert state is not None
    assert (state.status, state.config, state.images, state.reason) == ("InService", "c", {"v1": ("ab" * 32,)}, "earlier")
    assert state.modified == "2026-01-02T03:04:05.000000Z"


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (RefusedError("1 validation error detected", "ValidationException"), StageFailedError),
        (RefusedError("The account-level service limit is 0", "ResourceLimitExceeded"), StageFailedError),
        (RefusedError("Rate exceeded", "ThrottlingException"), UnavailableError),
        (RefusedError("internal", "InternalFailure", 500), UnavailableError),
        (RefusedError("not authorized", "AccessDeniedException"), AccessRefusedError),
        (RefusedError("new", "SomethingNew"), ServiceError),
        (EndpointConnectionError(endpoint_url="https://x"), UnavailableError),
    ],
)
@pytest.mark.parametrize(
    ("operation", "act"),
    [
        ("CreateModel", lambda c: c.make_model({**MODEL, "ModelName": "n"})),
        ("CreateEndpointConfig", lambda c: c.make_config({**CONFIG, "EndpointConfigName": "d"})),
        ("CreateEndpoint", lambda c: c.make_endpoint("e", "c", [])),
        ("UpdateEndpoint", lambda c: c.update_endpoint("e", "c")),
        ("DeleteEndpoint", lambda c: c.remove_endpoint("e")),
        ("DescribeEndpoint", lambda c: c.state("e")),
        ("DescribeModel", lambda c: c.model("m")),
    ],
)
def test_a_refusal_is_told_as_what_it_is(
    sagemaker: SageMaker,
    operation: str,
    act: Callable[[SageMakerEndpoints], Any],
    refusal: Exception,
    error: type[AttestryError],
) -> None:
    sagemaker.faults.fail_before(method=operation, error=refusal)
    with pytest.raises(error):
        act(sagemaker.control)


def test_a_request_that_botocore_does_not_take_fails_the_version_and_names_the_member(sagemaker: SageMaker) -> None:
    with pytest.raises(StageFailedError, match="InitialInstanceCount"):
        sagemaker.control.make_config({"EndpointConfigName": "d", "ProductionVariants": [{**VARIANT, "InitialInstanceCount": "two"}]})
