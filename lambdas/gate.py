"""The gate: opens APPROVAL with the pipeline's task token, and alone sends tokens."""

from __future__ import annotations

from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.world import World
from attestry.usecases.approval_notice import SSM, ConsoleWays
from attestry.usecases.gate import open_approval, open_import, send_on

world = World()


def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Wait for a decision (from the pipeline), open the approval of an imported version, or send on (after a decision)."""
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
    return {"outcome": _send(model, number)}


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
