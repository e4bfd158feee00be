"""Decisions from the AWS console: from the state machine `RegistryDecision`, and from CloudTrail's events about who started it."""

from __future__ import annotations

from typing import Any

from attestry.aws.console import started_execution
from attestry.aws.logging import configure_logging
from attestry.aws.world import World
from attestry.domain.errors import ForbiddenError
from attestry.usecases.console_caller import CallerRules
from attestry.usecases.console_decision import decide_in_console
from attestry.usecases.console_execution import Asked, ConsoleAct, ConsolePorts, keep_caller, note_refusal, run_execution

world = World()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Keep a caller (an event of CloudTrail), or decide (from the state machine)."""
    configure_logging(context)
    return _keep(event) if "detail" in event else _decide(event)


def _decide(event: dict[str, Any]) -> dict[str, Any]:
    settings = world.settings

    def act(asked: ConsoleAct) -> dict[str, Any]:
        ports = (world.meta, world.attestor, world.store, world.functions)
        return decide_in_console(asked, *ports, gate_function=settings.gate_function)

    return run_execution(
        ConsolePorts(world.meta, world.trail, world.executions, world.audit),
        Asked(str(event["execution_arn"]), event.get("input")),
        CallerRules(settings.account, settings.prefix, settings.console_mfa),
        state_machine=settings.decision_arn,
        at=world.clock.now(),
        act=act,
    )


def _keep(event: dict[str, Any]) -> dict[str, Any]:
    settings = world.settings
    started = started_execution(event, settings)
    if started is None:
        rules = CallerRules(settings.account, settings.prefix)
        error = ForbiddenError("an event that is not CloudTrail's about a start of RegistryDecision")
        note_refusal(world.audit, None, rules, error, on=f"{event.get('source')} {event.get('id')}", act="console.event")
        return {"outcome": "PASSED_OVER"}
    keep_caller(world.meta, *started, world.clock.now())
    return {"outcome": "KEPT"}
