"""Calls from one function of the registry to another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import translate
from attestry.domain.errors import InvalidInputError, UnavailableError

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

MAX_CALL_BYTES: Final = 6 * 1024 * 1024
MAX_SEND_BYTES: Final = 256 * 1024


class LambdaFunctions:
    """`attestry.ports.Functions` over Lambda.

    Args:
        client: Lambda client; its read timeout bounds a call.
        tenant_isolation: the called functions are configured with `TenancyConfig`; where they are not, Lambda refuses a
            tenant ID, so it is left out.
    """

    def __init__(self, client: LambdaClient, *, tenant_isolation: bool = False) -> None:
        self._client = client
        self._tenant_isolation = tenant_isolation

    def call(self, name: str, payload: Mapping[str, Any], *, tenant: str | None = None) -> Any:
        """Invoke and wait.

        Args:
            name: name or ARN of the function.
            payload: JSON-ready input, at most 6 MB.
            tenant: the tenant whose execution environments may serve the call.

        Raises:
            UnavailableError: the function failed, timed out or answered no JSON.
            InvalidInputError: the payload is too large.
        """
        body = _encode(payload, MAX_CALL_BYTES, name)
        isolation: dict[str, Any] = {"TenantId": tenant} if tenant and self._tenant_isolation else {}
        try:
            answer = self._client.invoke(FunctionName=name, Payload=body, **isolation)
            raw = answer["Payload"].read()
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"call the function {name}") from error
        try:
            result = json.loads(raw) if raw else None
        except ValueError as error:
            raise UnavailableError(f"the function {name} answered no JSON") from error
        if answer.get("FunctionError"):
            told = result if isinstance(result, dict) else {}
            raise UnavailableError(
                f"the function {name} failed: {told.get('errorType', answer['FunctionError'])}: {told.get('errorMessage', '')}".rstrip(
                    ": "
                ),
                details={"function": name, "request_id": answer["ResponseMetadata"].get("RequestId", "")},
            )
        return result

    def send(self, name: str, payload: Mapping[str, Any]) -> None:
        """Invoke without waiting; Lambda retries twice and then gives the event to the function's dead-letter queue.

        Raises:
            UnavailableError: Lambda did not take the event.
            InvalidInputError: the payload is too large.
        """
        body = _encode(payload, MAX_SEND_BYTES, name)
        try:
            self._client.invoke(FunctionName=name, Payload=body, InvocationType="Event")
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"send to the function {name}") from error


def _encode(payload: Mapping[str, Any], limit: int, name: str) -> bytes:
    body = json.dumps(payload, separators=(",", ":"), allow_nan=False).encode()
    if len(body) > limit:
        raise InvalidInputError.of("", "payload_size", f"the input of the function {name} takes {len(body)} bytes; the limit is {limit}")
    return body
