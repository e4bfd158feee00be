"""Decisions from the AWS console: from the state machine `RegistryDecision`, and from CloudTrail's events about who started it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.trail import execution_of, read_start
from attestry.aws.world import World
from attestry.usecases.console_decision import decide_from_console, keep_caller

world = World()
CLOCK_SKEW = timedelta(minutes=5)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Keep a caller (an event of CloudTrail), or decide (from the state machine)."""
    configure_logging(context)
    if "detail" in event:
        return _keep(event["detail"])
    settings = world.settings
    body = event["input"] if isinstance(event["input"], dict) else {}
    if int(event.get("redrives") or 0) > 0:
        error = {"code": "forbidden", "message": "a redriven execution decides nothing; start a new one"}
        return {"outcome": "REFUSED", "error": error}
    return decide_from_console(
        world.meta,
        world.attestor,
        world.store,
        world.trail,
        world.functions,
        execution_arn=str(event["execution_arn"]),
        body=body,
        account=settings.account,
        prefix=settings.prefix,
        gate_function=settings.gate_function,
        since=datetime.fromisoformat(str(event["started"])) - CLOCK_SKEW,
        at=world.clock.now(),
    )


def _keep(detail: dict[str, Any]) -> dict[str, Any]:
    execution = execution_of(detail)
    machine = world.settings.decision_arn.replace(":stateMachine:", ":execution:")
    if execution is None or not execution.startswith(f"{machine}:"):
        return {"outcome": "PASSED_OVER"}
    keep_caller(world.meta, execution, read_start(detail), world.clock.now())
    return {"outcome": "KEPT"}
