"""Shadow requests: what is left for a shadow of a request that was answered, until it was asked as well.

The row is written in the transaction of the receipt, so that a caller waits for no further call, and is deleted in the transaction of the
shadow's own receipt. It expires after a day, with whatever the shadow was too slow for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.stages import Standing
from attestry.ports import Key, Put
from attestry.usecases.sign import SignedPrediction

KEPT_SECONDS: Final = 86_400
MAX_ROW_BYTES: Final = 200_000
"""Of request and output together; what is larger is counted, and not asked again."""

STANDING: Final = Standing.SHADOW.value


def requests_partition(model: str, environment: str) -> str:
    """Return the partition of the requests that wait for a shadow."""
    return f"SHADOW#{model}#{environment}"


def shadow_put(model: str, environment: str, place: Mapping[str, Any], signed: SignedPrediction, request: bytes, output: bytes) -> Put:
    """Return the write that leaves a request for the shadow.

    Args:
        model: the model's name.
        environment: where.
        place: what the pointer says of the shadow.
        signed: the prediction that the caller was given.
        request: the request's bytes.
        output: the output's bytes.
    """
    row: dict[str, Any] = {
        "prediction": signed.prediction_id,
        "version_digest": str(place["version_digest"]),
        "expires": int(signed.at.timestamp()) + KEPT_SECONDS,
    }
    if len(request) + len(output) <= MAX_ROW_BYTES:
        row |= {"request": request, "output": output}
    return Put(Key(requests_partition(model, environment), signed.prediction_id), row)
