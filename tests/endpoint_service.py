"""A stand-in for SageMaker's endpoints, behind botocore's own clients, one of them at a time.

Requests go through the client as everywhere, so botocore checks members and types; patterns, lengths and enumerations are checked here
against the service's model, answers as well. What changes takes effect with `settle`, as in the service, which takes minutes. Errors have
the codes and sentences that the service has.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.awsrequest import AWSResponse
from botocore.config import Config

from attestry.aws.endpoints import SageMakerEndpoints, SageMakerRuntime
from tests.fakes import Faults
from tests.service_models import problems

REGION = "eu-central-1"
ARN = f"arn:aws:sagemaker:{REGION}:123456789012"
BUSY = ("Creating", "Updating", "Deleting")

Container = Callable[[Mapping[str, Any], bytes], bytes]
"""Gets the request that made its model, and a body; returns the answer. What it raises is the service's ModelError."""


class RefusedError(Exception):
    """What the service answers instead: code and sentence."""

    def __init__(self, message: str, code: str = "ValidationException", status: int = 400, **more: Any) -> None:
        super().__init__(message)
        self.error = {"Error": {"Code": code, "Message": message}, **more}
        self.status = status


@dataclass
class Endpoint:
    """An endpoint and what it is on the way to."""

    config: str
    status: str
    on_its_way_to: str = ""
    reason: str = ""
    modified: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass
class SageMaker:
    """The account's models, configurations and endpoints.

    Attributes:
        container: what every container answers.
        refuses: reason for which the next change of an endpoint fails; empty for none.
        answers_as: the variant that answers whoever is asked; empty for the one that is asked.
    """

    faults: Faults = field(default_factory=Faults)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    container: Container = lambda made, body: answer_by_digest(made, body)
    refuses: str = ""
    answers_as: str | None = None

    @property
    def control(self) -> SageMakerEndpoints:
        """The adapter over a client of this service."""
        return SageMakerEndpoints(self._client("sagemaker"))

    @property
    def runtime(self) -> SageMakerRuntime:
        """The adapter over a client of the endpoints' runtime."""
        return SageMakerRuntime(self._client("sagemaker-runtime"))

    def _client(self, service: str) -> Any:
        """Return botocore's client, whose requests end here instead of in a socket."""
        client = _client(service)
        client.meta.events.unregister("before-call", unique_id="service")
        client.meta.events.register("before-call", self._answer, unique_id="service")
        return client

    def settle(self) -> None:
        """Let what was begun come to its end."""
        for name, endpoint in list(self.endpoints.items()):
            if endpoint.status == "Deleting":
                del self.endpoints[name]
            elif endpoint.status in BUSY:
                self._end(endpoint)

    def config_of(self, name: str) -> dict[str, Any]:
        """The configuration that an endpoint runs."""
        return self.configs[self.endpoints[name].config]

    def variants(self, name: str) -> set[str]:
        """The variants that an endpoint serves."""
        return {v["VariantName"] for v in self.config_of(name)["ProductionVariants"]} if name in self.endpoints else set()

    def _end(self, endpoint: Endpoint) -> None:
        endpoint.modified += timedelta(minutes=5)
        if self.refuses:
            endpoint.status = "Failed" if endpoint.status == "Creating" else "InService"
            endpoint.reason, self.refuses = self.refuses, ""
        else:
            endpoint.config, endpoint.status, endpoint.reason = endpoint.on_its_way_to, "InService", ""
        endpoint.on_its_way_to = ""

    def _answer(self, model: Any, context: dict[str, Any], **_: Any) -> tuple[AWSResponse, dict[str, Any]]:
        request = context["parameters"]
        wrong = problems(model.input_shape, request)
        assert wrong == [], wrong
        answer = self._run(model.name, request)
        if isinstance(answer, RefusedError):
            return AWSResponse("", answer.status, {}, None), {**answer.error, "ResponseMetadata": {"HTTPStatusCode": answer.status}}
        if model.output_shape is not None and model.name != "InvokeEndpoint":
            wrong = problems(model.output_shape, answer)
            assert wrong == [], wrong
        return AWSResponse("", 200, {}, None), {**answer, "ResponseMetadata": {"HTTPStatusCode": 200}}

    def _run(self, operation: str, request: Mapping[str, Any]) -> Any:
        """Return the answer, or what it is refused with; a fault that is planned comes behind a refusal as behind an answer."""

        def act() -> Any:
            try:
                return getattr(self, f"_{xform_name(operation)}")(request)
            except RefusedError as refused:
                return refused

        try:
            return self.faults.run(f"SageMaker.{operation}", act)
        except RefusedError as planned:
            return planned

    def _create_model(self, request: Mapping[str, Any]) -> dict[str, Any]:
        arn = f"{ARN}:model/{request['ModelName']}"
        if request["ModelName"] in self.models:
            raise RefusedError(f'Cannot create already existing model "{arn}".')
        self.models[request["ModelName"]] = json.loads(json.dumps(request))
        return {"ModelArn": arn}

    def _describe_model(self, request: Mapping[str, Any]) -> dict[str, Any]:
        made = self.models.get(request["ModelName"])
        if made is None:
            raise RefusedError(f'Could not find model "{ARN}:model/{request["ModelName"]}".')
        return {**{k: v for k, v in made.items() if k != "Tags"}, "CreationTime": _at(), "ModelArn": f"{ARN}:model/{request['ModelName']}"}

    def _delete_model(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self.models.pop(request["ModelName"], None) is None:
            raise RefusedError(f'Could not find model "{ARN}:model/{request["ModelName"]}".')
        return {}

    def _create_endpoint_config(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = request["EndpointConfigName"]
        arn = f"{ARN}:endpoint-config/{name}"
        if name in self.configs:
            raise RefusedError(f'Cannot create already existing endpoint configuration "{arn}".')
        for variant in request["ProductionVariants"]:
            if variant["ModelName"] not in self.models:
                raise RefusedError(f'Could not find model "{ARN}:model/{variant["ModelName"]}".')
        self.configs[name] = json.loads(json.dumps(request))
        return {"EndpointConfigArn": arn}

    def _describe_endpoint_config(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = request["EndpointConfigName"]
        if name not in self.configs:
            raise RefusedError(f'Could not find endpoint configuration "{ARN}:endpoint-config/{name}".')
        told = {k: v for k, v in self.configs[name].items() if k != "Tags"}
        return {**told, "CreationTime": _at(), "EndpointConfigArn": f"{ARN}:endpoint-config/{name}"}

    def _delete_endpoint_config(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = request["EndpointConfigName"]
        assert not [e for e in self.endpoints.values() if name in (e.config, e.on_its_way_to)], "an endpoint runs this configuration"
        if self.configs.pop(name, None) is None:
            raise RefusedError(f'Could not find endpoint configuration "{ARN}:endpoint-config/{name}".')
        return {}

    def _create_endpoint(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name, config = request["EndpointName"], self._known_config(request)
        if name in self.endpoints:
            raise RefusedError(f'Cannot create already existing endpoint "{ARN}:endpoint/{name}".')
        self.endpoints[name] = Endpoint(config, "Creating", config)
        return {"EndpointArn": f"{ARN}:endpoint/{name}"}

    def _update_endpoint(self, request: Mapping[str, Any]) -> dict[str, Any]:
        endpoint, config = self._at_rest(request, "update"), self._known_config(request)
        endpoint.status, endpoint.on_its_way_to = "Updating", config
        return {"EndpointArn": f"{ARN}:endpoint/{request['EndpointName']}"}

    def _delete_endpoint(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._at_rest(request, "delete").status = "Deleting"
        return {}

    def _describe_endpoint(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = request["EndpointName"]
        endpoint = self._known(name)
        variants = self.configs.get(endpoint.config, {}).get("ProductionVariants", [])
        told = {
            "EndpointName": name,
            "EndpointArn": f"{ARN}:endpoint/{name}",
            "EndpointConfigName": endpoint.config,
            "EndpointStatus": endpoint.status,
            "CreationTime": _at(),
            "LastModifiedTime": endpoint.modified,
            "ProductionVariants": [self._summary(variant) for variant in variants],
        }
        return {**told, **({"FailureReason": endpoint.reason} if endpoint.reason else {})}

    def _invoke_endpoint(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name, asked = request["EndpointName"], request["TargetVariant"]
        endpoint = self.endpoints.get(name)
        if endpoint is None or endpoint.status not in ("InService", "Updating"):
            raise RefusedError(f"Endpoint {name} of account 123456789012 not found.", "ValidationError")
        variants = {v["VariantName"]: v["ModelName"] for v in self.config_of(name)["ProductionVariants"]}
        if asked not in variants:
            raise RefusedError(f"Variant {asked} not found for Endpoint {name} of account 123456789012", "ValidationError")
        try:
            body = self.container(self.models[variants[asked]], request["Body"])
        except RefusedError:
            raise
        except Exception as error:
            raise RefusedError("Received server error (500) from primary", "ModelError", 424, OriginalMessage=str(error)) from error
        answered = asked if self.answers_as is None else self.answers_as
        return {"Body": io.BytesIO(body), "ContentType": "application/json", "InvokedProductionVariant": answered}

    def _summary(self, variant: Mapping[str, Any]) -> dict[str, Any]:
        image = self.models.get(variant["ModelName"], {}).get("PrimaryContainer", {}).get("Image", "gone")
        count = variant["InitialInstanceCount"]
        images = [{"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": _at()}]
        return {"VariantName": variant["VariantName"], "DeployedImages": images, "CurrentInstanceCount": count}

    def _known(self, name: str) -> Endpoint:
        if name not in self.endpoints:
            raise RefusedError(f'Could not find endpoint "{ARN}:endpoint/{name}".')
        return self.endpoints[name]

    def _at_rest(self, request: Mapping[str, Any], act: str) -> Endpoint:
        endpoint = self._known(request["EndpointName"])
        if endpoint.status in BUSY:
            raise RefusedError(f'Cannot {act} in-progress endpoint "{ARN}:endpoint/{request["EndpointName"]}".')
        return endpoint

    def _known_config(self, request: Mapping[str, Any]) -> str:
        name: str = request["EndpointConfigName"]
        if name not in self.configs:
            raise RefusedError(f'Could not find endpoint configuration "{ARN}:endpoint-config/{name}".')
        return name


@cache
def _client(service: str) -> Any:
    session = botocore.session.Session()
    session.set_credentials("AKIA", "secret")
    client = session.create_client(service, region_name=REGION, config=Config(retries={"total_max_attempts": 1}))
    client.meta.events.register("before-parameter-build", _keep_parameters)
    return client


def answer_by_digest(made: Mapping[str, Any], body: bytes) -> bytes:
    """Answer as the entry shim does, each instance with the digest of the version that the container was made for."""
    digest = made["PrimaryContainer"]["Environment"]["ATTESTRY_VERSION_DIGEST"]
    instances = json.loads(body)["instances"]
    return json.dumps({"status": "OK", "output": [digest for _ in instances], "version_digest": digest}).encode()


def _keep_parameters(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    context["parameters"] = dict(params)


def _at() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
