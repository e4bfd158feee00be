"""API: approve or reject a version, and hand in validation records of it."""

from __future__ import annotations

from typing import Any

from attestry.aws.http import Request, serve
from attestry.aws.identity import caller
from attestry.aws.preconditions import expected_rev
from attestry.aws.world import World
from attestry.domain.approvals import Verdict, read_packet_sha256, read_reason, read_signature, read_verdict
from attestry.domain.conditions import read_conditions
from attestry.domain.errors import InvalidInputError
from attestry.domain.operations import Operation, require_role
from attestry.domain.principal import Principal
from attestry.ports import MetaStore
from attestry.usecases.conflicts import conflicts_of, declare_conflict
from attestry.usecases.decide import NONE, Decision, decide_approval
from attestry.usecases.decide_promotion import decide_promotion
from attestry.usecases.matched import MatchedMeta
from attestry.usecases.records import person_of, version_key
from attestry.usecases.validate import record_validation

world = World()


def decide(request: Request) -> dict[str, Any]:
    """Record the caller's decision; the gate sends the pipeline on."""
    body = request.body("decision", "reason", "packet_sha256", "signature", "conditions", "promotion")
    verdict, reason = read_verdict(body.get("decision")), read_reason(body.get("reason"))
    model, number = request.text("model"), request.number("number")
    by = person_of(world.meta, caller(request, world.settings))
    require_role(Operation(verdict.value), by, f"{model}@{number}")
    rev, at = expected_rev(request.headers), world.clock.now()
    meta: MetaStore = world.meta if rev is None else MatchedMeta(world.meta, version_key(model, number), rev)
    seen, signature = read_packet_sha256(body.get("packet_sha256")), read_signature(body.get("signature"))
    told: Any = {"reason": reason, "by": by, "at": at, "packet_sha256": seen, "signature": signature}
    environment, conditions = _environment(body.get("promotion")), read_conditions(body.get("conditions"))
    if environment:
        if conditions != NONE:
            raise InvalidInputError.of("conditions", "not_with", "a promotion has no conditions; the version's own hold there")
        decision = decide_promotion(meta, world.attestor, world.store, model, number, verdict, environment=environment, **told)
        promotion = dict(decision.version.promotions[environment])
        return {**_told(decision, verdict, by, promotion["packet"]), "promotion": {"environment": environment, **promotion}}
    decision = decide_approval(meta, world.attestor, world.store, model, number, verdict, conditions=conditions, **told)
    if decision.complete:
        world.functions.send(world.settings.gate_function, {"action": "decided", "model": model, "version": number})
    return _told(decision, verdict, by, decision.version.packet["sha256"])


def _environment(value: object) -> str:
    if value is not None and (not isinstance(value, str) or not 0 < len(value) <= 63):
        raise InvalidInputError.of("promotion", "type", "promotion is the name of an environment")
    return str(value or "")


def _told(decision: Decision, verdict: Verdict, by: Principal, packet_sha256: str) -> dict[str, Any]:
    version = decision.version
    return {
        "model": version.model,
        "version": version.number,
        "decision": verdict.value,
        "complete": decision.complete,
        "approvals": list(decision.approvals),
        "needed": decision.needed,
        "stage": version.stage.value,
        "status": version.status.value,
        "standing": version.standing.value,
        "person": by.person,
        "packet_sha256": packet_sha256,
        "signed_by_person": decision.signed_by_person,
        "missing": decision.missing,
        "terms": dict(version.terms),
    }


def validate(request: Request) -> dict[str, Any]:
    """Take the caller's validation record, with the trial computed by the function that has the packages for it."""
    body = request.body("record", "signature")
    record, signature = body.get("record"), read_signature(body.get("signature"))
    if not isinstance(record, str) or not signature:
        raise InvalidInputError.of("signature" if isinstance(record, str) else "record", "required", "a signed record is needed")
    model, number = request.text("model"), request.number("number")
    by = person_of(world.meta, caller(request, world.settings))
    done = record_validation(
        world.meta,
        world.attestor,
        world.store,
        lambda trial: dict(world.functions.call(world.settings.evaluate_function, {"action": "trial", **trial})),
        model,
        number,
        record=record.encode(),
        signature=signature,
        by=by,
        at=world.clock.now(),
    )
    return {
        "model": model,
        "version": number,
        "transition": done.transition,
        "record_sha256": done.sha256,
        "facts": dict(done.facts),
        "missing": list(done.missing),
        "person": by.person,
    }


def declare(request: Request) -> dict[str, Any]:
    """Record that the caller, or for an admin somebody else, has a conflict of interest on a model, or has it no more."""
    body = request.body("reason", "person", "withdraw")
    person, withdraw = body.get("person") or "", body.get("withdraw", False)
    if not isinstance(person, str) or not isinstance(withdraw, bool):
        raise InvalidInputError.of("person", "type", "person is the ID of a person, withdraw is true or false")
    by = person_of(world.meta, caller(request, world.settings))
    reason, at = read_reason(body.get("reason")), world.clock.now()
    done = declare_conflict(world.meta, request.text("model"), person=person, reason=reason, by=by, at=at, withdraw=withdraw)
    return vars(done)


def show_conflicts(request: Request) -> dict[str, Any]:
    """List what is declared on a model."""
    page = request.page()
    return page.answer(
        "conflicts", [vars(d) for d in conflicts_of(world.meta, request.text("model"), page)], lambda row: str(row["person"])
    )


ROUTES = {
    "POST /v1/models/{model}/versions/{number}/decision": decide,
    "POST /v1/models/{model}/versions/{number}/validations": validate,
    "POST /v1/models/{model}/conflicts": declare,
    "GET /v1/models/{model}/conflicts": show_conflicts,
}


MATCHED = ("POST /v1/models/{model}/versions/{number}/decision",)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    denied = world.audit.denied
    return serve(event, context, ROUTES, guard=world.guard, answers=world.answers, matched=MATCHED, on_denied=denied)
