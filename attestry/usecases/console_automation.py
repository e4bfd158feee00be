"""Approve in AWS Systems Manager: the runbook's step `aws:approve`, and what counts of the answers to it.

Rules:
- Systems Manager says that somebody answered, CloudTrail says who: an answer counts where `ApproverDecisions` of the automation and a
  record of `SendAutomationSignal` tell of the same caller, the same answer and the same moment. What one of them alone tells decides
  nothing.
- A record serves one automation: its event ID is bound to the first that it came for.
- The automation is one of the registry's runbook, names the version in its parameters, and has shown the digest of the version's packet;
  or names an environment besides, and has shown the packet of the promotion there. An answer to the one is none to the other.
- Whoever passes that is a caller like one of `RegistryDecision`, and ends in `decide_approval`, each person for themselves: four eyes,
  roles, order and quorum are checked there and stand in the table's conditions. What the step itself counts approves nothing.
- An answer that came before its turn is tried again when another one has been taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from attestry.domain.approvals import Verdict, read_reason
from attestry.domain.console_request import read_environment
from attestry.domain.errors import AttestryError, ConditionFailedError, ConflictError, ForbiddenError, InvalidInputError, UnavailableError
from attestry.domain.names import VersionReference
from attestry.domain.operations import Operation, require_role
from attestry.domain.promotion import promotion_of
from attestry.domain.requirements import ApprovalOrderError
from attestry.domain.version import Version
from attestry.ports import (
    ApproverDecision,
    Auditor,
    AutomationDescription,
    Automations,
    CallRecord,
    Functions,
    Item,
    Key,
    MetaStore,
    ObjectStore,
    Put,
    Trail,
)
from attestry.usecases.access_gate import require_operation
from attestry.usecases.attest import Attestor
from attestry.usecases.console_caller import SKEW, CallerRules, console_facts, identify_caller, moment_of
from attestry.usecases.console_decision import check_not_older, told, told_of_promotion
from attestry.usecases.console_execution import CLOCK_SKEW, note_refusal
from attestry.usecases.decide import decide_approval
from attestry.usecases.decide_promotion import decide_promotion
from attestry.usecases.records import load_version, person_of

WAITING: Final = "WAITING-FOR-CLOUDTRAIL"
KEPT_DAYS: Final = 60
"""How long signals are kept: an automation waits at most 30 days for its answers."""

_VERDICTS: Final = {"Approve": Verdict.APPROVE, "Reject": Verdict.REJECT}


@dataclass(frozen=True)
class AutomationPorts:
    """What it takes to know who answered, and to decide."""

    meta: MetaStore
    trail: Trail
    automations: Automations
    audit: Auditor
    attestor: Attestor
    store: ObjectStore
    functions: Functions
    gate_function: str
    document: str


def signal_partition(automation_id: str) -> str:
    """Return the partition of what is kept of an automation: signals by their events, and what became of each."""
    return f"CALLER#automation/{automation_id}"


def keep_signal(ports: AutomationPorts, rules: CallerRules, automation_id: str, record: CallRecord, at: datetime) -> bool:
    """Keep what CloudTrail says of an answer, bound to its automation; False where the event came for another one before."""
    row = {**record.to_item(), "automation": automation_id, "expires": _expires(at)}
    owner = Key(f"CALLER#event/{record.event_id}")
    with suppress(ConditionFailedError):
        ports.meta.transact([Put(Key(signal_partition(automation_id), f"SIGNAL#{record.event_id}"), row), Put(owner, row)])
    kept = ports.meta.get(owner) or {}
    if kept.get("automation") == automation_id and kept.get("digest") == record.digest:
        return True
    error = ForbiddenError("this event of CloudTrail was told before, about something else")
    note_refusal(ports.audit, record, rules, error, on=automation_id, act="console.signal")
    return False


def take_signal(ports: AutomationPorts, rules: CallerRules, automation_id: str, record: CallRecord, at: datetime) -> dict[str, Any]:
    """Keep what CloudTrail tells of a signal, and take every answer to its automation that is confirmed by now.

    A signal to somebody else's automation is passed over.

    Raises:
        UnavailableError: AWS did not answer; the event is delivered again.
    """
    described = ports.automations.describe(automation_id)
    if described is not None and described.document != ports.document:
        return {"outcome": "PASSED_OVER"}
    if not keep_signal(ports, rules, automation_id, record, at):
        return {"outcome": "REFUSED"}
    if described is None or _answer_of(described, record) is None:
        error = ForbiddenError("Systems Manager confirms no such answer to the automation")
        note_refusal(ports.audit, record, rules, error, on=automation_id, act="console.signal")
    return record_answers(ports, rules, automation_id, at, described) if described is not None else {"outcome": "REFUSED"}


def record_answers(
    ports: AutomationPorts, rules: CallerRules, automation_id: str, at: datetime, described: AutomationDescription | None = None
) -> dict[str, Any]:
    """Take the answers to an automation that are confirmed, each person for themselves; the same again changes nothing.

    Returns:
        `outcome`: `RECORDED`, `REFUSED`, or `WAITING-FOR-CLOUDTRAIL` while an answer lacks its record; `decisions`: what became of each.

    Raises:
        UnavailableError: AWS did not answer.
    """
    described = described or ports.automations.describe(automation_id)
    try:
        if described is None or described.document != ports.document:
            raise ForbiddenError("Systems Manager knows no such automation of the registry's runbook")
        reference, _ = _reference(described), _promotion(described)
    except (ForbiddenError, InvalidInputError) as error:
        note_refusal(ports.audit, None, rules, error, on=automation_id, act="console.automation")
        return {"outcome": "REFUSED", "error": error.to_dict(), "decisions": []}
    pairs = list(_pairs(ports, rules, described, at))
    decided = _take_all(ports, rules, described, reference, [(a, r) for a, r in pairs if r is not None], at)
    missing = [answer.approver for answer, record in pairs if record is None]
    return {"outcome": WAITING if missing else "RECORDED", "decisions": decided, "unknown": missing}


def require_recorded(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `record_answers` returned if every answer counted and ended the approval.

    Raises:
        ConflictError: an answer did not count, CloudTrail did not say in time whose it is, or the version waits for further ones.
    """
    decisions = recorded["decisions"]
    refused = [str(d["error"]["message"]) for d in decisions if d["outcome"] != "DECIDED"]
    if recorded["outcome"] != "RECORDED":
        raise ConflictError(f"{recorded['outcome']}: CloudTrail did not say who answered: {', '.join(recorded.get('unknown', []))}")
    if refused:
        raise ConflictError("; ".join(refused))
    if not any(d["complete"] for d in decisions):
        raise ConflictError("it still waits: the policy asks for further approvals; start another automation for them")
    return dict(recorded)


def _take_all(
    ports: AutomationPorts,
    rules: CallerRules,
    described: AutomationDescription,
    reference: VersionReference,
    pairs: Sequence[tuple[ApproverDecision, CallRecord]],
    at: datetime,
) -> list[dict[str, Any]]:
    """Take answers until no further one is taken: one that came before its turn may have it after another one."""
    outcomes: dict[str, dict[str, Any]] = {}
    left = list(pairs)
    while left:
        early: list[tuple[ApproverDecision, CallRecord]] = []
        for answer, record in left:
            outcome = _take(ports, rules, described, reference, answer, record, at)
            outcomes[record.event_id] = outcome
            if outcome.get("code") == ApprovalOrderError.code:
                early.append((answer, record))
        if len(early) == len(left):
            break
        left = early
    return [outcomes[record.event_id] for _, record in pairs]


def _take(
    ports: AutomationPorts,
    rules: CallerRules,
    described: AutomationDescription,
    reference: VersionReference,
    answer: ApproverDecision,
    record: CallRecord,
    at: datetime,
) -> dict[str, Any]:
    done_key = Key(signal_partition(described.automation_id), f"DONE#{record.event_id}")
    done = ports.meta.get(done_key)
    if done is not None:
        return dict(done["outcome"])
    try:
        outcome = _decide(ports, rules, described, reference, answer, record, at)
    except UnavailableError:
        raise
    except AttestryError as error:
        outcome = {"outcome": "REFUSED", "event_id": record.event_id, "code": error.code, "error": error.to_dict()}
        note_refusal(ports.audit, record, rules, error, on=described.automation_id, act="console.automation")
        if isinstance(error, ApprovalOrderError):
            return outcome
    with suppress(ConditionFailedError):
        ports.meta.transact([Put(done_key, {"outcome": outcome, "expires": _expires(at)})])
    return outcome


def _decide(
    ports: AutomationPorts,
    rules: CallerRules,
    described: AutomationDescription,
    reference: VersionReference,
    answer: ApproverDecision,
    record: CallRecord,
    at: datetime,
) -> dict[str, Any]:
    verdict = _VERDICTS[answer.decision]
    by = person_of(ports.meta, identify_caller(record, rules))
    require_role(Operation(verdict.value), by, str(reference))
    by = require_operation(ports.meta, Operation(verdict.value), reference.model, by=by, at=at)
    by.require_person(verdict.value)
    version, environment = load_version(ports.meta, reference.model, reference.number), _promotion(described)
    check_not_older(ports.meta, version.model, version.number, record, environment)
    packet = _shown_packet(described, version, environment)
    facts = console_facts(record, described.automation_id)
    what: dict[str, Any] = {"reason": _reason(answer, verdict, described.automation_id), "by": by, "at": at, "packet_sha256": packet}
    of = (ports.meta, ports.attestor, ports.store, version.model, version.number, verdict)
    if environment:
        decided = decide_promotion(*of, environment=environment, console=facts, **what)
        return {"outcome": "DECIDED", **told_of_promotion(decided, environment, verdict.value, by.person, facts)}
    decision = decide_approval(*of, console=facts, **what)
    if decision.complete:
        ports.functions.send(ports.gate_function, {"action": "decided", "model": version.model, "version": version.number})
    return {"outcome": "DECIDED", **told(decision, verdict.value, by.person, facts)}


def _pairs(
    ports: AutomationPorts, rules: CallerRules, described: AutomationDescription, at: datetime
) -> Iterable[tuple[ApproverDecision, CallRecord | None]]:
    """Yield each answer with CloudTrail's record of it; what no event brought is looked up."""
    rows: list[Item] = ports.meta.query(signal_partition(described.automation_id), prefix="SIGNAL#")
    kept = [CallRecord.from_item(row) for row in rows]
    looked_up: list[CallRecord] | None = None
    for answer in (a for a in described.decisions if a.decision in _VERDICTS):
        found = next((r for r in kept if _tells(r, answer)), None)
        if found is None:
            if looked_up is None:
                looked_up = ports.trail.find_signals(described.automation_id, since=described.started - CLOCK_SKEW)
            told_of = (r for r in looked_up if _tells(r, answer))
            found = next((r for r in told_of if keep_signal(ports, rules, described.automation_id, r, at)), None)
        yield answer, found


def _answer_of(described: AutomationDescription, record: CallRecord) -> ApproverDecision | None:
    return next((answer for answer in described.decisions if _tells(record, answer)), None)


def _tells(record: CallRecord, answer: ApproverDecision) -> bool:
    """Return whether a record and an answer are about the same act: caller, answer and moment."""
    if record.call != "SendAutomationSignal" or record.parameters.get("signalType") != answer.decision or record.arn != answer.approver:
        return False
    try:
        moment = datetime.fromisoformat(answer.at)
        return moment.tzinfo is not None and abs(moment_of(record) - moment.astimezone(UTC)) <= SKEW
    except (ValueError, ForbiddenError):
        return False


def _reference(described: AutomationDescription) -> VersionReference:
    parameters: Mapping[str, str] = described.parameters
    return VersionReference.parse(f"{parameters.get('model', '')}@{parameters.get('version', '')}")


def _promotion(described: AutomationDescription) -> str:
    """Return the environment, of an automation about a promotion; automations of former times were about versions.

    Raises:
        InvalidInputError: no name of an environment.
    """
    return read_environment("promotion", described.parameters.get("promotion") or None)


def _shown_packet(described: AutomationDescription, version: Version, environment: str) -> str:
    """Return the digest of the packet of the version, or of its promotion, which the automation has shown.

    Raises:
        ConflictError: it has shown another one, or none.
    """
    promotion = promotion_of(version, environment) if environment else None
    digest = str(version.packet.get("sha256", "")) if not environment else promotion.packet if promotion else ""
    if not digest or digest not in described.message:
        about = f"the promotion of {version.reference} to {environment}" if environment else version.reference
        raise ConflictError(f"the automation has not shown the packet of {about}; start another one")
    return digest


def _reason(answer: ApproverDecision, verdict: Verdict, automation_id: str) -> str:
    try:
        return read_reason(answer.comment)
    except InvalidInputError:
        return f"{verdict.value}, without a comment, in Systems Manager automation {automation_id}"


def _expires(at: datetime) -> int:
    return int((at + timedelta(days=KEPT_DAYS)).timestamp())
