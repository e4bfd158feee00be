"""API: predictions, each with its receipt."""

from __future__ import annotations

from functools import cache
from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.usecases.predict import CALL_SECONDS, Predictor
from attestry.usecases.sign import FunctionDelegator, SigningKeys

DEFAULT_ENVIRONMENT = "production"
world = World(call_seconds=CALL_SECONDS)


@cache
def predictor() -> Predictor:
    """Return the predictor of this process, which keeps its signing keys."""
    delegator = FunctionDelegator(world.functions, world.settings.delegate_function)
    return Predictor(
        meta=world.meta,
        store=world.store,
        functions=world.functions,
        keys=SigningKeys(delegator, world.clock),
        inference=world.settings.inference_function,
    )


def predict(request: Request) -> Answer:
    """Have the deployed version answer, sign the answer, and return it as it was signed."""
    by = caller(request, world.settings)
    environment = request.query_text("environment", DEFAULT_ENVIRONMENT)
    prediction = predictor().predict(request.text("model"), environment, request.raw, by)
    return Answer(prediction.to_json(), encoded=True)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(
        event,
        context,
        {"POST /v1/models/{model}/predictions": predict},
        on_denied=lambda request, error: world.audit.denied(request, error),
    )
