"""Ask a version that SageMaker serves: its own variant of its model's endpoint, of whose answer nothing is believed but the form.

Rules:
- The names of endpoint and variant derive from model, environment and version digest; no row is asked for them.
- An answer counts when SageMaker says that this variant gave it, and when the container names the version digest that it checked its files
  against. Anything else is signed for nobody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.endpoints import endpoint_name, variant_name
from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.domain.version import Version
from attestry.ports import EndpointRuntime

MAX_REQUEST_BYTES: Final = 6 << 20
"""What SageMaker takes in one call; a prediction request has a sixth of it at most."""


def ask_endpoint(runtime: EndpointRuntime, prefix: str, environment: str, version: Version, payload: Mapping[str, Any]) -> Any:
    """Return the answer of a version's variant, as JSON was read; of the form of the inference function's.

    Args:
        runtime: calls endpoints.
        prefix: what the names of endpoints begin with.
        environment: where the version stands.
        version: the version.
        payload: `version_digest`, `instances`, `columns`.

    Raises:
        IntegrityError: another variant, or another version, answered.
        InvalidInputError: the request is larger than SageMaker takes.
        NotReadyError: the variant is not ready yet.
        PredictionFailedError: the container failed.
        UnavailableError: there is no such endpoint or variant, or SageMaker did not answer.
    """
    body = json.dumps(payload, separators=(",", ":"), allow_nan=False).encode()
    if len(body) > MAX_REQUEST_BYTES:
        raise InvalidInputError.of("instances", "max_bytes", f"the call takes {len(body)} bytes; SageMaker takes {MAX_REQUEST_BYTES}")
    variant = variant_name(version.number, version.version_digest)
    told = runtime.invoke(endpoint_name(prefix, version.model, environment), variant, body)
    if told.variant != variant:
        raise IntegrityError(
            f"{version.reference} was asked as {variant}, and {told.variant or 'nobody named'} answered; nothing is signed"
        )
    try:
        answer = json.loads(told.body)
    except ValueError:
        return None
    if isinstance(answer, Mapping) and answer.get("status") == "OK" and answer.get("version_digest") != version.version_digest:
        raise IntegrityError(f"the container that answered for {version.reference} names another version digest; nothing is signed")
    return answer
