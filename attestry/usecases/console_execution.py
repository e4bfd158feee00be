"""An execution of `RegistryDecision` acts once, for the person who started it.

The state machine calls a function of the registry with the execution's ARN. What is asked for is read from what Step Functions
describes, who asks from CloudTrail; neither is believed from the call itself. Step by step, and what a crash behind each leaves:

1. Execution and record are found and compared. Nothing is written.
2. The execution is claimed: one row per execution, with what the act has to remember of the moment. A retry
   finds the row and goes on with the same act, the same version to roll back to.
3. The act. It is idempotent for the same plan.
4. The outcome goes into the row. From here on every call is answered with it, and does nothing.

A refusal is an outcome too, and leaves an audit note. CloudTrail delivers late, sometimes by many minutes: until then the answer is WAIT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from attestry.domain.audit import AuditedAct, Outcome
from attestry.domain.console_request import ConsoleRequest, read_console_request
from attestry.domain.errors import AttestryError, ConditionFailedError, ForbiddenError, InvalidInputError, UnavailableError
from attestry.domain.operations import require_role
from attestry.domain.principal import Principal
from attestry.evidence.canonical import canonical_bytes, parse_strict
from attestry.ports import Auditor, CallRecord, ExecutionDescription, Executions, Key, MetaStore, Put, Trail, Update, When
from attestry.usecases.access_gate import require_operation
from attestry.usecases.console_caller import CallerRules, check_execution, claimed_principal, console_facts, identify_caller
from attestry.usecases.records import person_of

CALLER_DAYS: Final = 7
CLOCK_SKEW: Final = timedelta(minutes=5)
WAIT: Final[Mapping[str, Any]] = {"outcome": "WAIT"}
MAX_INPUT_BYTES: Final = 16 * 1024


@dataclass(frozen=True)
class ConsolePorts:
    """What it takes to know who started an execution, and to tell of those who were refused."""

    meta: MetaStore
    trail: Trail
    executions: Executions
    audit: Auditor


@dataclass(frozen=True)
class Asked:
    """What the state machine says when it calls.

    Attributes:
        execution_arn: ARN of the execution.
        body: its input, as the state machine gives it on.
    """

    execution_arn: str
    body: Any


@dataclass(frozen=True)
class ConsoleAct:
    """An act that is about to be done.

    Attributes:
        request: what is asked for.
        by: who asks, with their person.
        record: CloudTrail's record of their call.
        facts: what an approval keeps of it.
        plan: what `plan` remembered when the execution was claimed.
        again: whether an earlier call may have done it, in part or whole.
        at: the time.
    """

    request: ConsoleRequest
    by: Principal
    record: CallRecord
    facts: Mapping[str, Any]
    plan: Mapping[str, Any]
    again: bool
    at: datetime


Act = Callable[[ConsoleAct], dict[str, Any]]
Plan = Callable[[ConsoleRequest], dict[str, Any]]


def caller_key(execution_arn: str) -> Key:
    """Return the key under which the caller of an execution is kept."""
    return Key(f"CALLER#{execution_arn}")


def act_key(execution_arn: str) -> Key:
    """Return the key under which it is kept what an execution did."""
    return Key(f"CALLER#{execution_arn}", "ACT")


def keep_caller(meta: MetaStore, execution_arn: str, record: CallRecord, at: datetime) -> None:
    """Keep what an event from CloudTrail says, for the execution that waits for it; the first one stays."""
    row = {**record.to_item(), "expires": _expires(at)}
    with suppress(ConditionFailedError):
        meta.transact([Put(caller_key(execution_arn), row)])


def run_execution(
    ports: ConsolePorts, asked: Asked, rules: CallerRules, *, state_machine: str, at: datetime, act: Act, plan: Plan = lambda _: {}
) -> dict[str, Any]:
    """Do what an execution asks for, once, if the rules let its caller.

    Args:
        ports: the ports.
        asked: what the state machine says.
        rules: what is asked of a caller.
        state_machine: ARN of `RegistryDecision`.
        at: the time.
        act: does it; what it raises of the registry's errors is a refusal.
        plan: what has to be the same when the act is tried again.

    Returns:
        `{"outcome": "DECIDED"|"DONE"|"REFUSED"|"WAIT", ...}`, with the error's code, message, field and rule where it is refused.

    Raises:
        UnavailableError: AWS did not answer; the state machine asks again.
    """
    record: CallRecord | None = None
    confirmed = False
    try:
        described = ports.executions.describe(asked.execution_arn)
        if described is None:
            # What Step Functions describes lags a little behind what it starts.
            return dict(WAIT)
        _check_given_on(described, asked)
        done = ports.meta.get(act_key(asked.execution_arn))
        if done is not None and done.get("outcome"):
            return dict(done["outcome"])
        record = _record(ports, asked, described)
        if record is None:
            return dict(WAIT)
        confirmed = True
        check_execution(record, described, state_machine=state_machine, at=at)
        outcome = _act(ports, asked, described, record, rules, at, act, plan)
    except UnavailableError:
        # What was asked for may have been done: the state machine asks again.
        raise
    except AttestryError as error:
        outcome = {"outcome": "REFUSED", "error": error.to_dict()}
        note_refusal(ports.audit, record, rules, error, on=asked.execution_arn, act="console.execution")
    if confirmed:
        _keep_outcome(ports.meta, asked.execution_arn, outcome, at)
    return outcome


def note_refusal(audit: Auditor, record: CallRecord | None, rules: CallerRules, error: AttestryError, *, on: str, act: str) -> None:
    """Leave a note of what was refused, under the name that CloudTrail gives; under none where it gives none."""
    claimed = claimed_principal(record or CallRecord("unknown", "", "", "", "", ""), rules)
    audit.note(AuditedAct(claimed, act, on, Outcome.DENIED, error.code))


def _act(
    ports: ConsolePorts,
    asked: Asked,
    described: ExecutionDescription,
    record: CallRecord,
    rules: CallerRules,
    at: datetime,
    act: Act,
    plan: Plan,
) -> dict[str, Any]:
    request = read_console_request(_input(described))
    by = person_of(ports.meta, identify_caller(record, rules))
    require_role(request.operation, by, request.subject)
    by = require_operation(ports.meta, request.operation, request.model, by=by, at=at)
    by.require_person(request.operation.value)
    planned, again = _claim(ports.meta, asked.execution_arn, plan(request), at)
    return act(ConsoleAct(request, by, record, console_facts(record, asked.execution_arn), planned, again, at))


def _check_given_on(described: ExecutionDescription, asked: Asked) -> None:
    if described.arn != asked.execution_arn:
        raise ForbiddenError("Step Functions describes another execution")
    if canonical_bytes(_input(described)) != canonical_bytes(asked.body):
        raise ForbiddenError("the execution was started with another input than the one it gives on")


def _input(described: ExecutionDescription) -> Any:
    if len(described.input.encode()) > MAX_INPUT_BYTES:
        raise InvalidInputError.of("", "max_bytes", f"the input has more than {MAX_INPUT_BYTES} bytes")
    return parse_strict(described.input)


def _record(ports: ConsolePorts, asked: Asked, described: ExecutionDescription) -> CallRecord | None:
    row = ports.meta.get(caller_key(asked.execution_arn))
    if row:
        return CallRecord.from_item(row)
    return ports.trail.find_start(asked.execution_arn, since=described.started - CLOCK_SKEW)


def _claim(meta: MetaStore, execution_arn: str, plan: dict[str, Any], at: datetime) -> tuple[Mapping[str, Any], bool]:
    """Return the plan of the execution, and whether an earlier call has made it."""
    try:
        meta.transact([Put(act_key(execution_arn), {"plan": plan, "expires": _expires(at)})])
    except ConditionFailedError:
        kept = meta.get(act_key(execution_arn)) or {}
        return kept.get("plan", plan), True
    return plan, False


def _keep_outcome(meta: MetaStore, execution_arn: str, outcome: dict[str, Any], at: datetime) -> None:
    """Keep what became of an execution: claimed or refused before, it does nothing any more."""
    with suppress(ConditionFailedError):
        when = When(equals={"outcome": None})
        meta.transact([Update(act_key(execution_arn), {"outcome": outcome, "expires": _expires(at)}, when)])


def _expires(at: datetime) -> int:
    return int(at.timestamp()) + CALLER_DAYS * 86400
