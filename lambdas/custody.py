"""API: legal holds and disposals of what versions have left; and the objects that they lock and delete, in steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.logging import configure_logging
from attestry.aws.world import World
from attestry.domain.approvals import read_reason
from attestry.domain.errors import InvalidInputError
from attestry.usecases.custody import Attended, Keeper, due_custody, lift_legal_hold, place_legal_hold
from attestry.usecases.dispose import StoppedError, attend_all, attend_version, confirm_disposal, request_disposal
from attestry.usecases.records import person_of

ATTEND_DUE = {"action": "attend_due"}
"""What the sweep sends when objects are to be locked or deleted; a request through the gateway never looks like this."""

REQUEST_SECONDS, DUE_SECONDS = 12.0, 20.0
"""How long objects are attended to in a request, and for the sweep; a step that has begun is ended."""

logger = logging.getLogger(__name__)
world = World()


def legal_hold(request: Request) -> dict[str, Any]:
    """Place or lift a legal hold, and begin to set the locks of the version's objects."""
    body = request.body("reason", "lift")
    reason, lift = read_reason(body.get("reason")), _flag("lift", body.get("lift", False))
    act = lift_legal_hold if lift else place_legal_hold
    done = act(_keeper(), request.text("model"), request.number("number"), by=_caller(request), reason=reason, at=world.clock.now())
    return _attended(request, done)


def dispose(request: Request) -> Answer:
    """Ask for a disposal, or confirm one, and begin to delete."""
    body = request.body("reason", "confirm")
    reason, confirm = read_reason(body.get("reason")), _flag("confirm", body.get("confirm", False))
    act = confirm_disposal if confirm else request_disposal
    done = act(_keeper(), request.text("model"), request.number("number"), by=_caller(request), reason=reason, at=world.clock.now())
    return Answer(_attended(request, done), 202)


ROUTES = {
    "POST /v1/models/{model}/versions/{number}/legal-hold": legal_hold,
    "POST /v1/models/{model}/versions/{number}/disposal": dispose,
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API, or attend to objects that are due."""
    if event == ATTEND_DUE:
        configure_logging(context)
        at = world.clock.now()
        done, errors = attend_all(_keeper(), due_custody(world.meta, at), at=at, enough=_after(DUE_SECONDS))
        (logger.error if errors else logger.info)("objects attended to", extra={"done": done, "errors": errors})
        return {"done": done, "errors": errors}
    return serve(event, context, ROUTES, guard=world.guard, answers=world.answers, on_denied=world.audit.denied)


def _attended(request: Request, asked: Attended) -> dict[str, Any]:
    """Go on with the objects for as long as a request may take; what is left the sweep takes up."""
    model, number = request.text("model"), request.number("number")
    try:
        done = attend_version(_keeper(), model, number, at=world.clock.now(), enough=_after(REQUEST_SECONDS))
    except StoppedError as error:
        logger.info("stopped", extra={"why": error.message})
        done = asked
    version = done.version
    return {
        "model": version.model,
        "version": version.number,
        "standing": version.standing.value,
        "legal_hold": dict(version.legal_hold),
        "disposal": dict(version.disposal),
        "changed": asked.changed,
        "complete": done.complete,
    }


def _keeper() -> Keeper:
    return Keeper(world.meta, world.store, world.objects, world.attestor)


def _caller(request: Request) -> Any:
    return person_of(world.meta, caller(request, world.settings))


def _flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidInputError.of(field, "type", f"{field} is true or false")
    return value


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end
