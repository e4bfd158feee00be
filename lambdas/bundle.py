"""API: bundles, from which anybody verifies a prediction or a version offline."""

from __future__ import annotations

from typing import Any

from attestry.aws.http import Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.usecases.bundle import BundleMaker, hand_out, require_payload_reader

world = World()


def prediction(request: Request) -> dict[str, Any]:
    """Make the bundle of a prediction; with `payload=true` request and output are in it, for roles that may see them."""
    prediction_id, payload = request.text("id"), request.query_flag("payload")
    if payload:
        require_payload_reader(caller(request, world.settings), prediction_id)
    made = BundleMaker(world.meta, world.store).of_prediction(prediction_id, world.clock.now(), payload=payload)
    by = request.require(made.model)
    if payload:
        # Once more: the role has to count on the model that the prediction turned out to be of.
        require_payload_reader(by, prediction_id)
    handed = hand_out(world.scratch, made)
    world.audit.allowed(request, "prediction.payload" if payload else "prediction.bundle", prediction_id)
    return handed


def version(request: Request) -> dict[str, Any]:
    """Make the bundle of a version."""
    made = BundleMaker(world.meta, world.store).of_version(request.text("model"), request.number("number"), world.clock.now())
    handed = hand_out(world.scratch, made)
    world.audit.allowed(request, "version.bundle", f"{request.text('model')}@{request.number('number')}")
    return handed


ROUTES = {
    "GET /v1/predictions/{id}/bundle": prediction,
    "GET /v1/models/{model}/versions/{number}/bundle": version,
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(event, context, ROUTES, guard=world.guard, on_denied=lambda request, error: world.audit.denied(request, error))
