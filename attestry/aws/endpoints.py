"""SageMaker's endpoints: made, described and removed, and called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from attestry.aws.errors import error_code, translate
from attestry.domain.endpoints import EndpointState
from attestry.domain.errors import AttestryError, NotReadyError, PredictionFailedError, StageFailedError, UnavailableError
from attestry.domain.events import timestamp
from attestry.ports import EndpointAnswer

MAX_ANSWER_BYTES: Final = 6 << 20
"""What SageMaker passes on of an answer."""

RETRY_AFTER_SECONDS: Final = 5
MAX_REASON: Final = 500

_INVALID: Final = "ValidationException"
_ABSENT: Final = ("could not find", "not found", "does not exist")
_THERE: Final = ("already exist", "already existing")
_BUSY: Final = ("in-progress", "in progress")
_FULL: Final = frozenset({"ResourceLimitExceeded"})


class SageMakerEndpoints:
    """`attestry.ports.Endpoints` over SageMaker.

    SageMaker has one error for most refusals, `ValidationException`, so its sentence is read too. A sentence that is not known is taken for
    a refusal of the request, never for success.

    Args:
        client: SageMaker client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def state(self, name: str) -> EndpointState | None:
        """Return how an endpoint is; see `attestry.ports.Endpoints`."""
        told = self._describe(self._client.describe_endpoint, {"EndpointName": name}, f"describe the endpoint {name}")
        if told is None:
            return None
        images = {
            str(variant["VariantName"]): tuple(
                str(image.get("SpecifiedImage", "")).rpartition("@sha256:")[2] for image in variant.get("DeployedImages", [])
            )
            for variant in told.get("ProductionVariants", [])
        }
        reason = str(told.get("FailureReason", ""))[:MAX_REASON]
        modified = timestamp(told["LastModifiedTime"])
        return EndpointState(str(told["EndpointStatus"]), str(told.get("EndpointConfigName", "")), images, reason, modified)

    def model(self, name: str) -> Mapping[str, Any] | None:
        """Return a model's description; see `attestry.ports.Endpoints`."""
        return self._describe(self._client.describe_model, {"ModelName": name}, f"describe the model {name}")

    def config(self, name: str) -> Mapping[str, Any] | None:
        """Return a configuration's description; see `attestry.ports.Endpoints`."""
        request = {"EndpointConfigName": name}
        return self._describe(self._client.describe_endpoint_config, request, f"describe the endpoint configuration {name}")

    def make_model(self, request: Mapping[str, Any]) -> None:
        """Make a model; see `attestry.ports.Endpoints`."""
        self._change(self._client.create_model, request, f"make the model {request['ModelName']}", _THERE)

    def make_config(self, request: Mapping[str, Any]) -> None:
        """Make a configuration; see `attestry.ports.Endpoints`."""
        self._change(self._client.create_endpoint_config, request, f"make the configuration {request['EndpointConfigName']}", _THERE)

    def make_endpoint(self, name: str, config: str, tags: Sequence[Mapping[str, str]]) -> bool:
        """Make an endpoint; see `attestry.ports.Endpoints`."""
        request = {"EndpointName": name, "EndpointConfigName": config, "Tags": [dict(tag) for tag in tags]}
        return self._change(self._client.create_endpoint, request, f"make the endpoint {name}", _THERE)

    def update_endpoint(self, name: str, config: str) -> bool:
        """Change an endpoint; see `attestry.ports.Endpoints`."""
        request = {"EndpointName": name, "EndpointConfigName": config}
        return self._change(self._client.update_endpoint, request, f"change the endpoint {name}", _BUSY)

    def remove_endpoint(self, name: str) -> None:
        """Remove an endpoint; see `attestry.ports.Endpoints`."""
        self._change(self._client.delete_endpoint, {"EndpointName": name}, f"remove the endpoint {name}", (*_ABSENT, *_BUSY))

    def remove_config(self, name: str) -> None:
        """Remove a configuration; see `attestry.ports.Endpoints`."""
        self._change(self._client.delete_endpoint_config, {"EndpointConfigName": name}, f"remove the configuration {name}", _ABSENT)

    def remove_model(self, name: str) -> None:
        """Remove a model; see `attestry.ports.Endpoints`."""
        self._change(self._client.delete_model, {"ModelName": name}, f"remove the model {name}", _ABSENT)

    def _describe(self, call: Callable[..., Any], request: Mapping[str, Any], act: str) -> Mapping[str, Any] | None:
        try:
            told: Mapping[str, Any] = call(**request)
        except (BotoCoreError, ClientError) as error:
            if _says(error, _ABSENT):
                return None
            raise _refused(error, act) from error
        return told

    def _change(self, call: Callable[..., Any], request: Mapping[str, Any], act: str, harmless: Sequence[str]) -> bool:
        """Return whether SageMaker took the request; False where it refused for a reason that is harmless."""
        try:
            call(**request)
        except (BotoCoreError, ClientError) as error:
            if not _says(error, harmless):
                raise _refused(error, act) from error
            return False
        return True


class SageMakerRuntime:
    """`attestry.ports.EndpointRuntime` over SageMaker.

    Args:
        client: client of the endpoints' runtime; its read timeout bounds a call, and it does not try again by itself.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def invoke(self, endpoint: str, variant: str, body: bytes) -> EndpointAnswer:
        """Have a production variant answer; see `attestry.ports.EndpointRuntime`."""
        request = {"EndpointName": endpoint, "TargetVariant": variant, "Body": body, "ContentType": "application/json"}
        try:
            told = self._client.invoke_endpoint(**request, Accept="application/json")
            answer = told["Body"].read(MAX_ANSWER_BYTES + 1)
        except (BotoCoreError, ClientError) as error:
            raise _call_error(error, endpoint, variant) from error
        if len(answer) > MAX_ANSWER_BYTES:
            raise PredictionFailedError(f"the answer of {variant} of the endpoint {endpoint} is larger than {MAX_ANSWER_BYTES} bytes")
        return EndpointAnswer(str(told.get("InvokedProductionVariant", "")), answer)


def _says(error: BotoCoreError | ClientError, sentences: Sequence[str]) -> bool:
    """Return whether SageMaker refused for one of these reasons."""
    if not isinstance(error, ClientError) or error_code(error) not in (_INVALID, "ResourceInUse", "ResourceNotFound"):
        return False
    message = str(error.response.get("Error", {}).get("Message", "")).lower()
    return any(sentence in message for sentence in sentences)


def _refused(error: BotoCoreError | ClientError, act: str) -> AttestryError:
    """Return the registry's error: what lies in the request ends the deployment, everything else is tried again or told as AWS's."""
    if isinstance(error, ParamValidationError):
        return StageFailedError(f"could not {act}: {str(error)[:MAX_REASON]}")
    if isinstance(error, ClientError) and error_code(error) in (_INVALID, *_FULL):
        return StageFailedError(f"could not {act}: SageMaker says: {error.response['Error'].get('Message', '')}"[:MAX_REASON])
    return translate(error, act)


def _call_error(error: BotoCoreError | ClientError, endpoint: str, variant: str) -> AttestryError:
    act = f"ask {variant} of the endpoint {endpoint}"
    if not isinstance(error, ClientError):
        return translate(error, act)
    code, told = error_code(error), error.response.get("Error", {})
    if code == "ModelError":
        why = error.response.get("OriginalMessage") or told.get("Message", "")
        return PredictionFailedError(f"the container of {variant} failed: {str(why)[:MAX_REASON]}")
    if code == "ModelNotReadyException":
        return NotReadyError(f"{variant} of the endpoint {endpoint} is not ready; try again", retry_after_seconds=RETRY_AFTER_SECONDS)
    if code in ("ValidationError", _INVALID):
        # Neither name is the caller's, and the size was checked: the endpoint or the variant has gone.
        return UnavailableError(f"could not {act}: SageMaker says: {str(told.get('Message', ''))[:MAX_REASON]}")
    return UnavailableError(f"could not {act}: {code}") if code == "InternalDependencyException" else translate(error, act)
