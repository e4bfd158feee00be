"""Decisions from the AWS console: by `RegistryDecision`, by the approval runbook, and CloudTrail's events about who acted there."""

from __future__ import annotations

from typing import Any

from attestry.aws.console import SIGNAL_SOURCE, sent_signal, started_execution
from attestry.aws.logging import configure_logging
from attestry.aws.world import World
from attestry.domain.console_request import read_environment
from attestry.domain.errors import ConflictError, ForbiddenError, InvalidInputError
from attestry.domain.names import VersionReference
from attestry.usecases.ask_approval import RoleNames, ask_approval
from attestry.usecases.console_automation import AutomationPorts, record_answers, require_recorded, take_signal
from attestry.usecases.console_caller import CallerRules
from attestry.usecases.console_decision import decide_in_console
from attestry.usecases.console_execution import Asked, ConsoleAct, ConsolePorts, keep_caller, note_refusal, run_execution

world = World()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take an event of CloudTrail, a step of the runbook, or a decision from the state machine."""
    configure_logging(context)
    if "detail" in event:
        return _take_signal(event) if event.get("source") == SIGNAL_SOURCE else _keep_caller(event)
    return _step(event) if "automation" in event else _decide(event)


def _rules() -> CallerRules:
    settings = world.settings
    return CallerRules(settings.account, settings.prefix, settings.console_mfa)


def _decide(event: dict[str, Any]) -> dict[str, Any]:
    settings = world.settings

    def act(asked: ConsoleAct) -> dict[str, Any]:
        if "decision" not in settings.console_approvals:
            raise ConflictError("approvals of this registry are given in Systems Manager, by the command line or the API, not here")
        ports = (world.meta, world.attestor, world.store, world.functions)
        return decide_in_console(asked, *ports, gate_function=settings.gate_function)

    ports = ConsolePorts(world.meta, world.trail, world.executions, world.audit)
    asked = Asked(str(event["execution_arn"]), event.get("input"))
    return run_execution(ports, asked, _rules(), state_machine=settings.decision_arn, at=world.clock.now(), act=act)


def _step(event: dict[str, Any]) -> dict[str, Any]:
    """Answer a step of the runbook; what is raised here fails the automation."""
    settings, step = world.settings, event.get("step")
    if step == "ask":
        reference = VersionReference.parse(f"{event.get('model')}@{event.get('version')}")
        names = RoleNames(settings.decision_arn.split(":")[1], settings.account, settings.prefix)
        promotion = read_environment("promotion", event.get("promotion") or None)
        return ask_approval(world.meta, names, reference.model, reference.number, api_url=settings.api_url, promotion=promotion)
    if step not in ("record", "report"):
        raise InvalidInputError.of("step", "enum", "the step is ask, record or report")
    recorded = record_answers(_ports(), _rules(), str(event["automation"]), world.clock.now())
    return require_recorded(recorded) if step == "report" else recorded


def _take_signal(event: dict[str, Any]) -> dict[str, Any]:
    signal = sent_signal(event, world.settings)
    return _passed_over(event) if signal is None else take_signal(_ports(), _rules(), *signal, world.clock.now())


def _keep_caller(event: dict[str, Any]) -> dict[str, Any]:
    started = started_execution(event, world.settings)
    if started is None:
        return _passed_over(event)
    keep_caller(world.meta, *started, world.clock.now())
    return {"outcome": "KEPT"}


def _passed_over(event: dict[str, Any]) -> dict[str, Any]:
    error = ForbiddenError("an event that is not CloudTrail's about an act in the console")
    note_refusal(world.audit, None, _rules(), error, on=f"{event.get('source')} {event.get('id')}", act="console.event")
    return {"outcome": "PASSED_OVER"}


def _ports() -> AutomationPorts:
    settings = world.settings
    ports = (world.meta, world.trail, world.automations, world.audit, world.attestor, world.store, world.functions)
    return AutomationPorts(*ports, settings.gate_function, settings.runbook)
