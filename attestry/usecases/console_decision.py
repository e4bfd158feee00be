"""Decide from the AWS console: by an execution of the state machine `RegistryDecision`.

Rules:
- Who decides, and that the execution acts once, is settled by `attestry.usecases.console_execution`.
- The call was made after the approval was opened: what a person asked for before cannot be about what lay open then.
- The decision rests on the version's packet, or with `promotion` on that of the promotion there. The input may name it (`packet`), and is
  refused where it names another.
- The approval keeps CloudTrail's event by ID and digest, with the session's issuer and whether it had a second factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from attestry.domain.approvals import Verdict
from attestry.domain.console_request import DECISIONS
from attestry.domain.errors import ConflictError, InvalidInputError
from attestry.domain.stages import PROMOTION_OPENED, Stage
from attestry.ports import CallRecord, Functions, Item, MetaStore, ObjectStore
from attestry.usecases.attest import Attestor
from attestry.usecases.console_caller import moment_of
from attestry.usecases.console_execution import ConsoleAct
from attestry.usecases.decide import Decision, decide_approval
from attestry.usecases.decide_promotion import decide_promotion
from attestry.usecases.records import version_key


def decide_in_console(
    act: ConsoleAct, meta: MetaStore, attestor: Attestor, store: ObjectStore, functions: Functions, *, gate_function: str
) -> dict[str, Any]:
    """Record the decision that an execution asks for, and have the gate send the pipeline on.

    Raises:
        ConflictError: the call was made before the approval was opened; see also `decide_approval`.
        InvalidInputError: the act is no decision.
    """
    request = act.request
    if request.operation not in DECISIONS:
        raise InvalidInputError.of("action", "enum", "this function takes decisions alone")
    if request.promotion:
        return _decide_promotion(act, meta, attestor, store)
    check_not_older(meta, request.model, request.number, act.record)
    decision = decide_approval(
        meta,
        attestor,
        store,
        request.model,
        request.number,
        Verdict(request.operation.value),
        reason=request.reason,
        by=act.by,
        at=act.at,
        packet_sha256=request.packet,
        console=act.facts,
    )
    if decision.complete:
        functions.send(gate_function, {"action": "decided", "model": request.model, "version": request.number})
    return {"outcome": "DECIDED", **told(decision, request.operation.value, act.by.person, act.facts)}


def _decide_promotion(act: ConsoleAct, meta: MetaStore, attestor: Attestor, store: ObjectStore) -> dict[str, Any]:
    """Record a decision on a promotion; nothing waits for it but the deployer who asked.

    Raises:
        ConflictError: the call was made before the promotion was opened; see also `decide_promotion`.
    """
    request, environment = act.request, act.request.promotion
    check_not_older(meta, request.model, request.number, act.record, environment)
    decision = decide_promotion(
        meta,
        attestor,
        store,
        request.model,
        request.number,
        Verdict(request.operation.value),
        environment=environment,
        reason=request.reason,
        by=act.by,
        at=act.at,
        packet_sha256=request.packet,
        console=act.facts,
    )
    return {"outcome": "DECIDED", **told_of_promotion(decision, environment, request.operation.value, act.by.person, act.facts)}


def told(decision: Decision, verdict: str, person: str | None, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the person is shown of their decision."""
    return {
        "decision": verdict,
        "person": person,
        "complete": decision.complete,
        "version": str(decision.version.reference),
        "packet_sha256": decision.version.packet["sha256"],
        "event_id": facts["event_id"],
        "event_sha256": facts["event_sha256"],
    }


def told_of_promotion(decision: Decision, environment: str, verdict: str, person: str | None, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the person is shown of their decision on a promotion."""
    packet = decision.version.promotions[environment]["packet"]
    return {**told(decision, verdict, person, facts), "packet_sha256": packet, "promotion": environment}


def check_not_older(meta: MetaStore, model: str, number: int, record: CallRecord, promotion: str = "") -> None:
    """Check that a call was made after the approval, or the promotion to an environment, was opened; CloudTrail tells times to the second.

    Raises:
        ConflictError: it was made before.
        ForbiddenError: the event does not say when.
    """
    rows = meta.query(version_key(model, number).partition, prefix="TRANSITION#")
    opened = [str(r["at"]) for r in rows if (_opens_promotion(r, promotion) if promotion else _opens_approval(r))]
    if opened and moment_of(record) + timedelta(seconds=1) <= _moment(opened[-1]):
        about = f"the promotion of {model}@{number} to {promotion}" if promotion else f"the approval of {model}@{number}"
        raise ConflictError(f"the call was made at {record.at}, before {about} was opened at {opened[-1]}")


def _opens_approval(row: Item) -> bool:
    return bool(row["kind"] == "stage.started" and row["to"]["stage"] == Stage.APPROVAL.value)


def _opens_promotion(row: Item, environment: str) -> bool:
    return bool(row["kind"] == PROMOTION_OPENED and row["data"]["environment"] == environment)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
