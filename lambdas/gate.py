"""The gate: opens APPROVAL with the pipeline's task token, and alone sends tokens."""

from __future__ import annotations

from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.world import World
from attestry.domain.errors import AttestryError, UnavailableError
from attestry.domain.principal import Principal
from attestry.usecases.approval_notice import SSM, ConsoleWays
from attestry.usecases.gate import open_approval, open_import, send_on
from attestry.usecases.open_promotion import open_promotion
from attestry.usecases.promotion_notice import TELL, tell_again

world = World()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Wait for a decision (from the pipeline), open the approval of an import or a promotion, tell of it, or send on (once decided)."""
    configure_logging(context)
    model, number = str(event["model"]), int(event["version"])
    if event["action"] == "wait":
        open_approval(
            world.meta,
            world.attestor,
            world.store,
            world.pipeline,
            world.notifier,
            model=model,
            number=number,
            token=str(event["token"]),
            at=world.clock.now(),
            attempt=int(event["attempt"]) if "attempt" in event else None,
            ways=_ways(),
        )
        return {"outcome": "waiting"}
    if event["action"] == "open_import":
        return {"outcome": _open_import(model, number)}
    if event["action"] == "open_promotion":
        return _open_promotion(event, model, number)
    if event["action"] == TELL:
        return {"told": tell_again(world.meta, world.notifier, event, _ways())}
    return {"outcome": _send(model, number)}


def _open_promotion(event: dict[str, Any], model: str, number: int) -> dict[str, Any]:
    """Ask for a promotion for a person whom the function that serves the API has authenticated."""
    told: Any = {"environment": str(event["environment"]), "by": Principal.from_item(event["principal"]), "reason": str(event["reason"])}
    told["ways"] = _ways()
    try:
        version = open_promotion(world.meta, world.attestor, world.store, world.notifier, model, number, at=world.clock.now(), **told)
    except UnavailableError:
        raise
    except AttestryError as error:
        return {"status": error.status, "body": {"error": error.to_dict()}}
    return {"status": 202, "body": {"model": model, "version": number, "promotions": dict(version.promotions)}}


def _open_import(model: str, number: int) -> str:
    ports: Any = (world.meta, world.attestor, world.store, world.notifier)
    return open_import(*ports, model=model, number=number, at=world.clock.now(), ways=_ways()).status.value


def _send(model: str, number: int) -> str:
    return send_on(world.meta, world.attestor, world.store, world.pipeline, model=model, number=number, at=world.clock.now())


def _ways() -> ConsoleWays:
    settings = world.settings
    ways = settings.console_approvals
    if SSM not in ways:
        return ConsoleWays(ways, settings.decision_arn, api_url=settings.api_url)
    return ConsoleWays(ways, settings.decision_arn, settings.runbook, world.automations, settings.api_url)
