"""API: predictions, each with its receipt, and files of rows; every minute, predictions of shadows."""

from __future__ import annotations

from functools import cache
from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.domain.errors import InvalidInputError
from attestry.usecases.ask import EndpointCalls
from attestry.usecases.predict import CALL_SECONDS, Predictor
from attestry.usecases.sign import FunctionDelegator, SigningKeys

DEFAULT_ENVIRONMENT = "production"
SHADOW = {"action": "shadow"}
"""What the schedule sends every minute; a request through the gateway never looks like this."""

MAX_ROUTING_KEY = 128
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
        endpoints=endpoint_calls(),
    )


def endpoint_calls() -> EndpointCalls | None:
    """Return how versions that SageMaker serves are asked, where this registry has any; nothing of it is loaded before one is asked."""
    return EndpointCalls(world.settings.prefix, lambda: world.endpoint_runtime) if world.settings.has_endpoints else None


def shadow() -> dict[str, Any]:
    """Ask the shadows what waits for them."""
    from attestry.usecases.shadow import ShadowRunner

    ports: Any = {"meta": world.meta, "store": world.store, "functions": world.functions, "keys": predictor().keys}
    return vars(ShadowRunner(**ports, inference=world.settings.inference_function, endpoints=endpoint_calls()).run())


def predict(request: Request) -> Answer:
    """Have the deployed version answer, sign the answer, and return it as it was signed."""
    by = caller(request, world.settings)
    environment = request.query_text("environment", DEFAULT_ENVIRONMENT)
    routing_key = request.query_text("routing_key", "")
    if len(routing_key) > MAX_ROUTING_KEY:
        raise InvalidInputError.of("routing_key", "length", f"a routing key has at most {MAX_ROUTING_KEY} characters")
    prediction = predictor().predict(request.text("model"), environment, request.raw, by, routing_key=routing_key)
    return Answer(prediction.to_json(), encoded=True)


def score(request: Request) -> Answer:
    """Go on with the scoring of a file, and tell where it stands."""
    from attestry.usecases.scorings import DONE, ask_scoring, read_scoring_request

    asked = read_scoring_request(request.body("input", "environment", "request", "retry"))
    by, model = caller(request, world.settings), request.text("model")
    told = ask_scoring(world.meta, world.scratch, world.store, world.scorings, asked, model=model, by=by, at=world.clock.now())
    return Answer(told, 200 if told["state"] == DONE else 202)


ROUTES = {"POST /v1/models/{model}/predictions": predict, "POST /v1/models/{model}/scorings": score}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API, or work off what waits for shadows."""
    if event == SHADOW:
        return shadow()
    return serve(event, context, ROUTES, guard=world.guard, on_denied=lambda request, error: world.audit.denied(request, error))
