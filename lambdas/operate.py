"""API: deploy by hand, roll back, try a failed version again, claim a submission."""

from __future__ import annotations

from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.domain.approvals import read_reason
from attestry.domain.principal import Principal
from attestry.domain.version import Version
from attestry.usecases.deploy import roll_back
from attestry.usecases.operate import claim_submission, request_deployment, retry_version
from attestry.usecases.records import person_of

world = World()


def deploy(request: Request) -> Answer:
    """Begin a deployment; the version's standing tells when it is in place."""
    reason = read_reason(request.body("reason").get("reason"))
    function = world.settings.deploy_function
    model, number, by = request.text("model"), request.number("number"), _caller(request)
    version = request_deployment(
        world.meta, world.functions, model, number, deploy_function=function, by=by, reason=reason, at=world.clock.now()
    )
    return Answer(_shown(version), 202)


def rollback(request: Request) -> dict[str, Any]:
    """Put the version that is kept for rollback back in place."""
    body = request.body("reason", "environment")
    environment = str(body.get("environment") or "production")
    reason = read_reason(body.get("reason"))
    deployment = roll_back(
        world.meta, request.text("model"), environment=environment, by=_caller(request), reason=reason, at=world.clock.now()
    )
    return {**_shown(deployment.version), "previous": deployment.previous, "environment": environment}


def retry(request: Request) -> Answer:
    """Start the next attempt of a failed version."""
    read_reason(request.body("reason").get("reason"))
    return Answer(_shown(retry_version(world.meta, world.pipeline, request.text("model"), request.number("number"))), 202)


def claim(request: Request) -> dict[str, Any]:
    """Make the caller's person the submitter of what was uploaded under the caller's own prefix."""
    version = claim_submission(world.meta, request.text("model"), request.number("number"), by=_caller(request), at=world.clock.now())
    # A version that its policy approves may have waited for this.
    world.functions.send(world.settings.gate_function, {"action": "decided", "model": version.model, "version": version.number})
    return {**_shown(version), "submitter": version.submitter_person}


ROUTES = {
    "POST /v1/models/{model}/versions/{number}/deployment": deploy,
    "POST /v1/models/{model}/versions/{number}/retry": retry,
    "POST /v1/models/{model}/versions/{number}/claim": claim,
    "POST /v1/models/{model}/rollback": rollback,
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(event, context, ROUTES)


def _caller(request: Request) -> Principal:
    return person_of(world.meta, caller(request, world.settings))


def _shown(version: Version) -> dict[str, Any]:
    return {
        "model": version.model,
        "version": version.number,
        "stage": version.stage.value,
        "status": version.status.value,
        "standing": version.standing.value,
        "attempt": version.attempt,
    }
