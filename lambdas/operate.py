"""Deploy, roll back, retry, redo, hold, release, claim a submission, kill, retire, set the capture rate: API and AWS console."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date
from typing import Any

from attestry.aws.answers import relayed
from attestry.aws.http import Answer, Request, serve
from attestry.aws.identity import caller
from attestry.aws.logging import configure_logging
from attestry.aws.preconditions import expected_rev
from attestry.aws.world import World
from attestry.domain.approvals import read_reason
from attestry.domain.days import read_day
from attestry.domain.errors import InvalidInputError
from attestry.domain.operations import Operation, require_role
from attestry.domain.principal import Principal
from attestry.domain.stages import PIPELINE, Stage, Standing
from attestry.domain.version import Version
from attestry.ports import MetaStore
from attestry.usecases.capture import read_rate, set_capture_rate
from attestry.usecases.console_caller import CallerRules
from attestry.usecases.console_execution import Asked, ConsolePorts, run_execution
from attestry.usecases.console_operation import OperatingPorts, operate_in_console, plan_operation
from attestry.usecases.deploy import roll_back
from attestry.usecases.lapse import lapse_due
from attestry.usecases.manual import Acted, Hand, hold_version, redo_stage, release_version, retry_version
from attestry.usecases.matched import MatchedMeta
from attestry.usecases.operate import claim_submission, request_deployment
from attestry.usecases.promotion import check_promotion, has_to_be_asked, is_waiting, withdraw_promotion
from attestry.usecases.records import load_version, person_of, pointer_key, version_key
from attestry.usecases.request_transition import read_wanted, request_transition
from attestry.usecases.revoke import Revocation, kill_version, retire_due, retire_version
from attestry.usecases.rollout_request import change_rollout

_VERSION = "/v1/models/{model}/versions/{number}"
RETIRE_DUE = {"action": "retire_due"}
"""What the sweep sends when the day of a scheduled retirement has come; a request through the gateway never looks like this."""

LAPSE_DUE = {"action": "lapse_due"}
"""What the sweep sends when an approval has ended, or people are to be told that it will."""

logger = logging.getLogger(__name__)
world = World(call_seconds=25)


def deploy(request: Request) -> Answer:
    """Begin a deployment; the version's standing tells when it is in place."""
    body = request.body("reason", "strategy")
    return _deploy(request, read_reason(body.get("reason")), strategy=_text("strategy", body.get("strategy")))


def promote(request: Request) -> Answer:
    """Begin to put a version in place in the environment after the one where it stands deployed, or ask for its approval there."""
    body = request.body("reason", "to", "withdraw")
    to, reason, withdraw = (
        _text("to", body.get("to")) or "",
        read_reason(body.get("reason")),
        _flag("withdraw", body.get("withdraw", False)),
    )
    model, number, at = request.text("model"), request.number("number"), world.clock.now()
    if withdraw:
        told: dict[str, Any] = {"environment": to, "by": _caller(request, Operation.DEPLOY), "reason": reason, "at": at}
        return Answer(_promoted(withdraw_promotion(_meta(request), world.attestor, model, number, **told), to), 202)
    version = load_version(_meta(request), model, number)
    if not is_waiting(version, to):
        check_promotion(version, to, at)
    if not has_to_be_asked(version, to, at):
        return _deploy(request, reason, environment=to)
    _ask_for_promotion(model, number, to, _caller(request, Operation.DEPLOY), reason)
    return Answer(_promoted(load_version(world.meta, model, number), to), 202)


def rollout(request: Request) -> dict[str, Any]:
    """Advance, halt or finish what is rolled out beside the deployed version."""
    body = request.body("action", "reason", "environment", "version", "step")
    reason, environment = read_reason(body.get("reason")), _text("environment", body.get("environment")) or "production"
    model, by, action = request.text("model"), _caller(request, Operation.DEPLOY), body.get("action")
    told: dict[str, Any] = {"environment": environment, "by": by, "reason": reason, "at": world.clock.now()}
    told |= {"number": _number("version", body.get("version")), "step": _step(body.get("step"))}
    version = change_rollout(_meta(request, environment), world.attestor, model, action, **told)
    return {**_shown(version), "environment": environment}


def rollback(request: Request) -> dict[str, Any]:
    """Put the version that is kept for rollback back in place; with its number in `to`, once however often it is asked for."""
    body = request.body("reason", "environment", "to")
    environment = str(body.get("environment") or "production")
    reason = read_reason(body.get("reason"))
    deployment = roll_back(
        _meta(request, environment),
        world.attestor,
        request.text("model"),
        environment=environment,
        by=_caller(request, Operation.ROLLBACK),
        reason=reason,
        at=world.clock.now(),
        to=_number("to", body.get("to")),
    )
    return {**_shown(deployment.version), "previous": deployment.previous, "environment": environment}


def retry(request: Request) -> Answer:
    """Start the next attempt of a failed version."""
    return Answer(_acted(retry_version(_hand(request, "reason"), request.text("model"), request.number("number"))), 202)


def claim(request: Request) -> dict[str, Any]:
    """Make the caller's person the submitter of what was uploaded under the caller's own prefix."""
    request.no_body()
    version = claim_submission(
        _meta(request),
        world.attestor,
        request.text("model"),
        request.number("number"),
        by=_caller(request),
        at=world.clock.now(),
    )
    # A version that its policy approves may have waited for this.
    world.functions.send(world.settings.gate_function, {"action": "decided", "model": version.model, "version": version.number})
    return {**_shown(version), "submitter": version.submitter_person}


def kill(request: Request) -> dict[str, Any]:
    """Take a version out of use at once."""
    body = request.body("reason", "drill")
    reason, drill = read_reason(body.get("reason")), _flag("drill", body.get("drill", False))
    model, number, by = request.text("model"), request.number("number"), _caller(request, Operation.KILL)
    revoked = kill_version(_meta(request), world.attestor, model, number, reason=reason, by=by, at=world.clock.now(), drill=drill)
    return _revoked(revoked)


def retire(request: Request) -> dict[str, Any]:
    """Take a version out of use, now or on a date."""
    body = request.body("reason", "on", "even_if_deployed")
    reason, even_if_deployed = read_reason(body.get("reason")), _flag("even_if_deployed", body.get("even_if_deployed", False))
    model, number, on = request.text("model"), request.number("number"), _day(body.get("on"))
    revoked = retire_version(
        _meta(request),
        world.attestor,
        model,
        number,
        reason=reason,
        by=_caller(request, Operation.RETIRE),
        at=world.clock.now(),
        on=on,
        even_if_deployed=even_if_deployed,
    )
    return _revoked(revoked)


def hold(request: Request) -> dict[str, Any]:
    """Hold a version where it is."""
    return _acted(hold_version(_hand(request, "reason"), request.text("model"), request.number("number")))


def release(request: Request) -> dict[str, Any]:
    """End the hold of a version."""
    return _acted(release_version(_hand(request, "reason"), request.text("model"), request.number("number")))


def redo(request: Request) -> Answer:
    """Have a stage run again."""
    body = request.body("stage", "reason", "attempt")
    hand, attempt = _hand(request, "stage", "reason", "attempt"), _number("attempt", body.get("attempt"))
    if body.get("stage") not in {s.value for s in PIPELINE}:
        raise InvalidInputError.of("stage", "enum", f"the stage is one of {', '.join(s.value for s in PIPELINE)}")
    stage = Stage(body["stage"])
    return Answer(_acted(redo_stage(hand, request.text("model"), request.number("number"), stage, attempt=attempt)), 202)


def transition(request: Request) -> Answer:
    """Move a version towards a stage or standing, by what may lead there."""
    body = request.body("to", "reason", "attempt")
    hand, wanted = _hand(request, "to", "reason", "attempt"), read_wanted(body.get("to"))
    model, number, attempt = request.text("model"), request.number("number"), _number("attempt", body.get("attempt"))
    acted = request_transition(hand, model, number, wanted, deploy_function=world.settings.deploy_function, attempt=attempt)
    return Answer(_acted(acted), 202)


def capture(request: Request) -> dict[str, Any]:
    """Set the share of predictions whose payload is kept."""
    body = request.body("rate", "reason", "environment")
    environment = str(body.get("environment") or "production")
    rate, reason, model = read_rate(body.get("rate")), read_reason(body.get("reason")), request.text("model")
    by = _caller(request)
    done = set_capture_rate(_meta(request, environment), model, environment, rate, reason=reason, by=by, at=world.clock.now())
    return {"model": model, "environment": environment, "version": done.number, "rate": done.rate, "previous": done.previous}


def refresh(request: Request) -> Answer:
    """Have a new version made of a candidate that is registered already."""
    return _have_made("refresh", request, request.body("reason", "version", "data", "request"))


def reproduce(request: Request) -> Answer:
    """Have a version's recipe run again, to compare what comes out."""
    return _have_made("reproduce", request, {**request.body("reason", "request"), "version": request.number("number")})


def _ask_for_promotion(model: str, number: int, to: str, by: Principal, reason: str) -> None:
    """Have the gate open the promotion, for the caller that the gateway authenticated: what is decided on, the gate alone writes."""
    asked = {"action": "open_promotion", "model": model, "version": number, "environment": to, "reason": reason}
    answer = world.functions.call(world.settings.gate_function, {**asked, "principal": by.to_item()})
    if int(answer["status"]) >= 400:
        raise relayed(answer["body"]["error"], int(answer["status"]))


def _have_made(action: str, request: Request, body: dict[str, Any]) -> Answer:
    """Ask the function that makes versions, for the caller that the gateway authenticated."""
    asked = {"action": action, "model": request.text("model"), "body": body, "request": request.request_id}
    answer = world.functions.call(world.settings.register_function, {**asked, "principal": _caller(request).to_item()})
    if int(answer["status"]) >= 400:
        raise relayed(answer["body"]["error"], int(answer["status"]))
    return Answer(answer["body"], int(answer["status"]))


ROUTES = {
    "POST /v1/models/{model}/versions/{number}/deployment": deploy,
    "POST /v1/models/{model}/versions/{number}/retry": retry,
    "POST /v1/models/{model}/versions/{number}/claim": claim,
    "POST /v1/models/{model}/versions/{number}/kill": kill,
    "POST /v1/models/{model}/versions/{number}/retirement": retire,
    "POST /v1/models/{model}/versions/{number}/hold": hold,
    "POST /v1/models/{model}/versions/{number}/release": release,
    "POST /v1/models/{model}/versions/{number}/redo": redo,
    "POST /v1/models/{model}/versions/{number}/transition": transition,
    "POST /v1/models/{model}/versions/{number}/promotion": promote,
    "POST /v1/models/{model}/versions/{number}/reproduction": reproduce,
    "POST /v1/models/{model}/refresh": refresh,
    "POST /v1/models/{model}/rollback": rollback,
    "POST /v1/models/{model}/rollout": rollout,
    "POST /v1/models/{model}/capture": capture,
}


MATCHED = ROUTES.keys() - {"POST /v1/models/{model}/refresh", f"POST {_VERSION}/reproduction"}
"""Routes that act on a version or on a place in an environment; the other two make a version of their own."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API, act for the AWS console, or retire what is due."""
    if "execution_arn" in event:
        configure_logging(context)
        return _operate_in_console(event)
    if event == RETIRE_DUE:
        configure_logging(context)
        retired, errors = retire_due(world.meta, world.attestor, at=world.clock.now())
        (logger.error if errors else logger.info)("retirements that were due", extra={"retired": retired, "errors": errors})
        return {"retired": retired, "errors": errors}
    if event == LAPSE_DUE:
        configure_logging(context)
        done = lapse_due(world.meta, world.attestor, world.notifier, _ask_gate, at=world.clock.now())
        (logger.error if done.errors else logger.info)("approvals that ended", extra={"lapsed": done.lapsed, "errors": done.errors})
        return {"lapsed": list(done.lapsed), "told": done.told, "errors": list(done.errors)}
    denied = world.audit.denied
    return serve(event, context, ROUTES, guard=world.guard, answers=world.answers, matched=MATCHED, on_denied=denied)


def _ask_gate(asked: Mapping[str, Any]) -> bool:
    return bool(world.functions.call(world.settings.gate_function, asked)["told"])


def _operate_in_console(event: dict[str, Any]) -> dict[str, Any]:
    settings = world.settings
    ports = OperatingPorts(world.meta, world.attestor, world.functions, world.pipeline, settings.deploy_function, settings.gate_function)
    return run_execution(
        ConsolePorts(world.meta, world.trail, world.executions, world.audit),
        Asked(str(event["execution_arn"]), event.get("input")),
        CallerRules(settings.account, settings.prefix, settings.console_mfa),
        state_machine=settings.decision_arn,
        at=world.clock.now(),
        act=lambda act: operate_in_console(act, ports),
        plan=lambda asked: plan_operation(world.meta, asked),
    )


def _deploy(request: Request, reason: str, *, strategy: str | None = None, environment: str | None = None) -> Answer:
    version = request_deployment(
        _meta(request),
        world.attestor,
        world.functions,
        request.text("model"),
        request.number("number"),
        deploy_function=world.settings.deploy_function,
        by=_caller(request, Operation.DEPLOY),
        reason=reason,
        at=world.clock.now(),
        strategy=strategy,
        environment=environment,
    )
    return Answer(_shown(version), 202)


def _promoted(version: Version, environment: str) -> dict[str, Any]:
    return {**_shown(version), "promotion": {"environment": environment, **version.promotions[environment]}}


def _text(field: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not 0 < len(value) <= 63):
        raise InvalidInputError.of(field, "type", f"{field} is a text of 1 to 63 characters")
    return value


def _flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidInputError.of(field, "type", f"{field} is true or false")
    return value


def _day(value: Any) -> date | None:
    return None if value is None else date.fromisoformat(read_day("on", value))


def _revoked(revoked: Revocation) -> dict[str, Any]:
    version = revoked.version
    if version.token and version.standing is Standing.RETIRED:
        # The pipeline may wait for a decision that nobody can make any more.
        world.functions.send(world.settings.gate_function, {"action": "decided", "model": version.model, "version": version.number})
    return {
        **_shown(version),
        "retirement": dict(version.retirement),
        "retires_on": version.retires_on,
        "vacated": list(revoked.vacated),
        "rollback": dict(revoked.rollback),
        "changed": revoked.changed,
    }


def _hand(request: Request, *fields: str) -> Hand:
    reason = read_reason(request.body(*fields).get("reason"))
    gate = world.settings.gate_function
    return Hand(_meta(request), world.attestor, world.pipeline, world.functions, gate, _caller(request), reason, world.clock.now())


def _acted(acted: Acted) -> dict[str, Any]:
    return {**_shown(acted.version), "held": dict(acted.version.held), "changed": acted.changed}


def _number(field: str, value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 < value < 10**9:
        raise InvalidInputError.of(field, "number", f"{field} is the number of a version")
    return value


def _step(value: Any) -> int | None:
    if value is not None and (type(value) is not int or not 0 <= value < 100):
        raise InvalidInputError.of("step", "number", "step is the step that the canary is to leave, counted from 0")
    return value


def _meta(request: Request, environment: str = "") -> MetaStore:
    """Return the table, with the version, or the place in an environment, at the revision that the caller has seen."""
    rev = expected_rev(request.headers)
    if rev is None:
        return world.meta
    model = request.text("model")
    return MatchedMeta(world.meta, pointer_key(model, environment) if environment else version_key(model, request.number("number")), rev)


def _caller(request: Request, operation: Operation | None = None) -> Principal:
    by = caller(request, world.settings)
    if operation is not None:
        require_role(operation, by, "/".join(request.parameters.values()))
    return person_of(world.meta, by)


def _shown(version: Version) -> dict[str, Any]:
    return {
        "model": version.model,
        "version": version.number,
        "stage": version.stage.value,
        "status": version.status.value,
        "standing": version.standing.value,
        "attempt": version.attempt,
    }
