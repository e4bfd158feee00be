"""API: everything that is read: models, versions, differences, logs, data, traces."""

from __future__ import annotations

from typing import Any

from attestry.aws.http import Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.usecases import browse
from attestry.usecases.records import person_of
from attestry.usecases.trace import trace_prediction

world = World()


def me(request: Request) -> dict[str, Any]:
    """Tell who the caller is to the registry."""
    return person_of(world.meta, caller(request, world.settings)).to_item()


def models(_: Request) -> dict[str, Any]:
    """List all models."""
    return {"models": browse.list_models(world.meta)}


def model(request: Request) -> dict[str, Any]:
    """Show a model."""
    return browse.show_model(world.meta, request.text("model"))


def versions(request: Request) -> dict[str, Any]:
    """List the versions of a model."""
    return {"versions": browse.list_versions(world.meta, request.text("model"))}


def version(request: Request) -> dict[str, Any]:
    """Show a version."""
    return browse.show_version(world.meta, world.store, request.text("model"), request.number("number"))


def diff(request: Request) -> dict[str, Any]:
    """Show what differs between two versions."""
    before, after = request.query_number("from"), request.query_number("to")
    return {"from": before, "to": after, "differences": browse.diff_versions(world.meta, world.store, request.text("model"), before, after)}


def logs(request: Request) -> dict[str, Any]:
    """Show the log of a stage."""
    return browse.read_log(world.meta, world.store, request.text("model"), request.number("number"), request.query_text("stage"))


def data(request: Request) -> dict[str, Any]:
    """List the files of a data set."""
    by = caller(request, world.settings)
    return browse.list_data(world.meta, world.store, request.text("model"), request.number("number"), request.query_text("set"), by=by)


def trace(request: Request) -> dict[str, Any]:
    """Trace a prediction."""
    deep = request.query_flag("deep")
    return trace_prediction(world.meta, world.store, request.text("id"), delegator_key=world.delegator.public_key_der, deep=deep)


ROUTES = {
    "GET /v1/me": me,
    "GET /v1/models": models,
    "GET /v1/models/{model}": model,
    "GET /v1/models/{model}/versions": versions,
    "GET /v1/models/{model}/versions/{number}": version,
    "GET /v1/models/{model}/versions/{number}/logs": logs,
    "GET /v1/models/{model}/versions/{number}/data": data,
    "GET /v1/models/{model}/diff": diff,
    "GET /v1/predictions/{id}/trace": trace,
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(event, context, ROUTES)
