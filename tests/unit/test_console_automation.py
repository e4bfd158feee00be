"""Approvals in Systems Manager: whose answers count, and what is made of events that were forged, replayed or late."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from attestry.aws.audit import AuditNotes
from attestry.aws.automations import SsmAutomations
from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.audit import AUDIT
from attestry.domain.errors import ConflictError, InvalidInputError
from attestry.domain.requirements import Requirement
from attestry.domain.stages import Standing, Status
from attestry.usecases.approval_notice import ConsoleWays, start_runbook
from attestry.usecases.people import add_person
from lambdas import console_decision
from tests.approvals import ADMIN, MODEL, ApprovalWorld
from tests.console import LATER, MACHINE, StandInExecutions, StandInTrail, cloudtrail, delivered, identity
from tests.fakes import FixedClock, Killed
from tests.service_models import problems, service_model
from tests.versions import ACCOUNT, AT

RUNBOOK = "attestry-ApproveVersion"
AUTOMATION = "9a4c2f6e-1b3d-4e5f-8a7b-6c5d4e3f2a1b"
OTHER = "0b4c2f6e-1b3d-4e5f-8a7b-6c5d4e3f2a1c"
TWO = ApprovalPolicy(False, ("approver",), 2)
ANSWERED = LATER + timedelta(seconds=30)


@dataclass
class StandInSsm:
    """The calls of Systems Manager that the registry makes; requests and answers are held against botocore's model of the service."""

    executions: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def start_automation_execution(self, **request: Any) -> dict[str, Any]:
        self._check("StartAutomationExecution", request)
        token = request["ClientToken"]
        if token in self.tokens:
            raise ClientError({"Error": {"Code": "IdempotentParameterMismatch"}}, "StartAutomationExecution")
        self.tokens[token] = AUTOMATION
        self.begin(AUTOMATION, request["Parameters"], document=request["DocumentName"])
        return self._answer("StartAutomationExecution", {"AutomationExecutionId": AUTOMATION})

    def get_automation_execution(self, **request: Any) -> dict[str, Any]:
        self._check("GetAutomationExecution", request)
        found = self.executions.get(request["AutomationExecutionId"])
        if found is None:
            raise ClientError({"Error": {"Code": "AutomationExecutionNotFoundException"}}, "GetAutomationExecution")
        return self._answer("GetAutomationExecution", {"AutomationExecution": found})

    def begin(self, automation: str, parameters: Mapping[str, list[str]], *, document: str = RUNBOOK) -> None:
        self.executions[automation] = {
            "AutomationExecutionId": automation,
            "DocumentName": document,
            "DocumentVersion": "1",
            "ExecutionStartTime": LATER,
            "AutomationExecutionStatus": "Waiting",
            "Parameters": dict(parameters),
            "StepExecutions": [{"StepName": "AskRegistry", "Action": "aws:invokeLambdaFunction", "StepStatus": "Success"}],
        }

    def show(self, automation: str, message: str) -> None:
        step = {"StepName": "Approve", "Action": "aws:approve", "StepStatus": "Waiting", "Inputs": {"Message": json.dumps(message)}}
        self.executions[automation]["StepExecutions"].append({**step, "Outputs": {"ApprovalStatus": ["Waiting"], "ApproverDecisions": []}})

    def answer(self, automation: str, approver: str, decision: str, at: datetime, comment: str) -> None:
        told = {
            "Approver": approver,
            "Decision": decision,
            "ApprovalDecisionTime": at.isoformat().replace("+00:00", "Z"),
            "Comment": comment,
        }
        self.executions[automation]["StepExecutions"][-1]["Outputs"]["ApproverDecisions"].append(json.dumps(told))

    def _check(self, operation: str, request: Mapping[str, Any]) -> None:
        assert problems(service_model("ssm").operation_model(operation).input_shape, request) == []

    def _answer(self, operation: str, answer: dict[str, Any]) -> dict[str, Any]:
        assert problems(service_model("ssm").operation_model(operation).output_shape, answer) == []
        return answer


class SystemsManager:
    """Systems Manager, CloudTrail and EventBridge over a registry in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, policy: ApprovalPolicy = TWO, **environment: str) -> None:
        self.registry = ApprovalWorld()
        self.meta, self.clock, self.ssm = self.registry.meta, FixedClock(ANSWERED), StandInSsm()
        self.trail = StandInTrail(faults=self.registry.faults)
        settings = {
            "ATTESTRY_ACCOUNT": ACCOUNT,
            "ATTESTRY_API_URL": "https://api.example.com",
            "ATTESTRY_CONSOLE_APPROVALS": "both",
            "ATTESTRY_DECISION_ARN": MACHINE,
            "ATTESTRY_GATE_FUNCTION": "gate",
            "ATTESTRY_RUNBOOK": RUNBOOK,
        }
        world = World(Settings({**settings, **environment}))
        ports = {name: getattr(self.registry, name) for name in ("meta", "store", "attestor", "functions")}
        audit = AuditNotes(self.meta, self.clock, account=ACCOUNT, prefix="attestry")
        automations = SsmAutomations(self.ssm, RUNBOOK)  # type: ignore[arg-type]
        world.__dict__.update(
            ports, clock=self.clock, trail=self.trail, audit=audit, automations=automations, executions=StandInExecutions()
        )
        monkeypatch.setattr(console_decision, "world", world)
        self.automations = automations
        for person in ("dana", "erin", "frank", "grace"):
            add_person(self.meta, person, [person], name="", by=ADMIN, at=AT)
        self.version = self.registry.waiting(policy=policy)
        self.begin()

    def begin(self, automation: str = AUTOMATION) -> dict[str, Any]:
        """Start the runbook and let it come to its `aws:approve` step; return what the registry answered to its first."""
        self.ssm.begin(automation, {"model": [MODEL], "version": ["1"]})
        asked = self.step("ask", automation, model=MODEL, version="1")
        self.ssm.show(automation, asked["message"])
        return asked

    def step(self, step: str, automation: str = AUTOMATION, **more: Any) -> dict[str, Any]:
        return console_decision.handler({"automation": automation, "step": step, **more}, None)

    def signal(self, who: Mapping[str, Any], decision: str = "Approve", *, automation: str = AUTOMATION, **changes: Any) -> dict[str, Any]:
        """CloudTrail's record of an answer."""
        asked = {"automationExecutionId": automation, "signalType": decision, "payload": "HIDDEN_DUE_TO_SECURITY_REASONS"}
        event_id = f"{abs(hash((who.get('arn'), decision, automation))):036d}"
        return cloudtrail(
            "SendAutomationSignal",
            who,
            at=ANSWERED,
            source="ssm.amazonaws.com",
            **{"requestParameters": asked, "eventID": event_id, **changes},
        )

    def answer(
        self, login: str, decision: str = "Approve", *, role: str = "approver", comment: str = "read it", deliver: bool = True
    ) -> Any:
        """Let somebody answer in the console; Systems Manager knows at once, EventBridge brings CloudTrail's record."""
        who = identity(login, role)
        self.ssm.answer(AUTOMATION, who["arn"], decision, ANSWERED, comment)
        record = self.signal(who, decision)
        self.trail.records.append(record)
        return console_decision.handler(delivered(record), None) if deliver else None

    def deliver(self, record: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        return console_decision.handler(delivered(record, **changes), None)

    def approvals(self) -> list[str]:
        return [row["person"] for row in self.meta.query(f"VERSION#{MODEL}#1", prefix="APPROVAL#")]

    def notes(self) -> list[tuple[str, str]]:
        return [(row["act"], row["reason"]) for row in self.meta.query(AUDIT)]


@pytest.fixture
def ssm(monkeypatch: pytest.MonkeyPatch) -> SystemsManager:
    return SystemsManager(monkeypatch)


class TestAsking:
    def test_approvers_are_whom_the_policy_allows_less_the_submitter(self, ssm: SystemsManager) -> None:
        asked = ssm.begin(OTHER)
        sessions = [f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-approver/{login}" for login in ("erin", "frank", "grace")]
        assert (asked["approvers"], asked["minimum"]) == (sessions, 2)
        assert ssm.version.packet["sha256"] == asked["packet_sha256"]
        assert asked["packet_sha256"] in asked["message"]
        assert "https://api.example.com/v1/models/credit-risk/versions/1/packet" in asked["message"]
        assert len(asked["message"]) <= 4096

    def test_who_is_barred_or_has_approved_is_not_asked_again(self, ssm: SystemsManager) -> None:
        ssm.answer("erin")
        asked = ssm.begin(OTHER)
        assert asked["minimum"] == 1
        assert [arn.rpartition("/")[2] for arn in asked["approvers"]] == ["frank", "grace"]

    def test_ten_at_most_are_asked_and_each_role_has_its_share(self, monkeypatch: pytest.MonkeyPatch) -> None:
        policy = ApprovalPolicy(False, ("approver", "validator"), 2, require=(Requirement(("validator",)), Requirement(("approver",))))
        ssm = SystemsManager(monkeypatch, policy)
        for n in range(12):
            add_person(ssm.meta, f"p{n}", [f"p{n}"], name="", by=ADMIN, at=AT)
        asked = ssm.begin(OTHER)
        roles = [arn.split("/")[1] for arn in asked["approvers"]]
        assert len(asked["approvers"]) == 10
        assert (roles.count("attestry-approver"), roles.count("attestry-validator")) == (5, 5)
        assert "20 more sessions" in asked["message"]

    def test_a_machine_s_login_is_not_asked(self, ssm: SystemsManager) -> None:
        add_person(ssm.meta, "robot", [f"arn:aws:sts::{ACCOUNT}:assumed-role/ci/build"], name="", by=ADMIN, at=AT)
        assert not [arn for arn in ssm.begin(OTHER)["approvers"] if "build" in arn]

    @pytest.mark.parametrize(
        ("policy", "told"),
        [
            (ApprovalPolicy(False, ("approver",), 4), "fewer people"),
            (ApprovalPolicy(False, ("approver",), 1, signed=True), "own signatures"),
        ],
    )
    def test_what_systems_manager_cannot_bring_about_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, policy: ApprovalPolicy, told: str
    ) -> None:
        with pytest.raises(ConflictError, match=told):
            SystemsManager(monkeypatch, policy)

    def test_a_version_that_does_not_wait_is_refused(self, ssm: SystemsManager) -> None:
        ssm.answer("erin", "Reject")
        with pytest.raises(ConflictError, match="waits for no person"):
            ssm.begin(OTHER)

    def test_an_input_out_of_form_is_refused(self, ssm: SystemsManager) -> None:
        with pytest.raises(InvalidInputError):
            ssm.step("ask", model="../x", version="1")
        with pytest.raises(InvalidInputError):
            ssm.step("approve")


class TestAnswers:
    def test_each_person_s_approval_is_recorded_when_cloudtrail_tells_of_it(self, ssm: SystemsManager) -> None:
        first = ssm.answer("erin")
        assert (first["outcome"], ssm.approvals(), ssm.registry.head().approved) == ("RECORDED", ["erin"], False)
        second = ssm.answer("frank", comment="the gates hold")
        assert (second["outcome"], ssm.approvals()) == ("RECORDED", ["erin", "frank"])
        assert ssm.registry.head().standing is Standing.APPROVED
        assert ssm.step("report")["outcome"] == "RECORDED"
        event = ssm.registry.events()[-1]
        assert event["data"]["reason"] == "the gates hold"
        assert event["data"]["console"]["call"] == "SendAutomationSignal"
        assert event["data"]["console"]["on"] == AUTOMATION
        assert event["principal"]["method"].endswith(event["data"]["console"]["event_sha256"])
        assert ssm.registry.functions.sent == [("gate", {"action": "decided", "model": MODEL, "version": 1})]

    def test_a_rejection_ends_the_version(self, ssm: SystemsManager) -> None:
        ssm.answer("erin", "Reject", comment="")
        assert ssm.registry.head().standing is Standing.REJECTED
        assert f"automation {AUTOMATION}" in ssm.registry.head().error

    def test_what_no_event_brought_is_looked_up(self, ssm: SystemsManager) -> None:
        ssm.answer("erin", deliver=False)
        assert ssm.step("record")["outcome"] == "RECORDED"
        assert ssm.approvals() == ["erin"]

    def test_before_cloudtrail_tells_nothing_is_decided_and_in_the_end_the_automation_fails(self, ssm: SystemsManager) -> None:
        ssm.answer("erin", deliver=False)
        ssm.trail.records.clear()
        waiting = ssm.step("record")
        assert (waiting["outcome"], ssm.approvals()) == ("WAITING-FOR-CLOUDTRAIL", [])
        assert "WAITING-FOR-CLOUDTRAIL" in json.dumps(waiting)
        with pytest.raises(ConflictError, match="did not say who answered"):
            ssm.step("report")

    def test_the_word_for_waiting_is_in_no_other_answer(self, ssm: SystemsManager) -> None:
        ssm.answer("erin", comment="WAITING-FOR-CLOUDTRAIL")
        assert "WAITING-FOR-CLOUDTRAIL" not in json.dumps(ssm.step("record"))

    def test_the_same_again_changes_nothing(self, ssm: SystemsManager) -> None:
        ssm.answer("erin")
        events = ssm.registry.events()
        ssm.deliver(ssm.trail.records[0])
        ssm.step("record")
        assert ssm.registry.events() == events
        assert ssm.notes() == []

    def test_the_submitter_s_answer_does_not_count(self, ssm: SystemsManager) -> None:
        (outcome,) = ssm.answer("dana")["decisions"]
        assert outcome["code"] == "self_approval"
        assert (ssm.approvals(), ssm.notes()) == ([], [("console.automation", "self_approval")])
        with pytest.raises(ConflictError, match="another person"):
            ssm.step("report")

    def test_enough_answers_for_systems_manager_are_not_enough_for_the_policy(self, ssm: SystemsManager) -> None:
        ssm.answer("erin")
        with pytest.raises(ConflictError, match="still waits"):
            ssm.step("report")

    def test_an_answer_before_its_turn_counts_once_the_other_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        require = (Requirement(("validator",)), Requirement(("approver",)))
        ssm = SystemsManager(monkeypatch, ApprovalPolicy(False, ("approver", "validator"), 2, require=require, in_order=True))
        (early,) = ssm.answer("erin")["decisions"]
        assert (early["code"], ssm.approvals()) == ("approval_order", [])
        assert ssm.answer("frank", role="validator")["outcome"] == "RECORDED"
        assert ssm.approvals() == ["erin", "frank"]
        assert ssm.registry.head().approved is True

    @pytest.mark.parametrize("after", [False, True])
    def test_a_crash_at_any_call_is_made_good_by_the_next(self, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
        def answered(cut: int | None) -> SystemsManager:
            ssm = SystemsManager(monkeypatch)
            ssm.answer("erin", deliver=False)
            faults = ssm.registry.faults
            faults.clear()
            if cut is not None:
                (faults.fail_after if after else faults.fail_before)(cut, error=Killed())
                with pytest.raises(Killed):
                    ssm.deliver(ssm.trail.records[0])
            ssm.deliver(ssm.trail.records[0])
            return ssm

        calls = len(answered(None).registry.faults.calls)
        for cut in range(1, calls + 1):
            ssm = answered(cut)
            assert ssm.approvals() == ["erin"], cut
            assert [e["kind"] for e in ssm.registry.events()].count("approval.given") == 1, cut


ERIN = identity("erin")
FORGED: dict[str, dict[str, Any]] = {
    "a service": {"userIdentity": {**ERIN, "invokedBy": "ssm.amazonaws.com"}},
    "another account": {"userIdentity": {**ERIN, "accountId": "999999999999"}},
    "a session that another role issued": {"userIdentity": {**ERIN, "sessionContext": identity("erin", "scientist")["sessionContext"]}},
    "no event ID": {"eventID": ""},
}


@pytest.mark.parametrize("why", FORGED)
def test_a_record_that_does_not_hold_does_nothing_but_leave_a_note(ssm: SystemsManager, why: str) -> None:
    ssm.ssm.answer(AUTOMATION, ERIN["arn"], "Approve", ANSWERED, "fine")
    ssm.deliver(ssm.signal(ERIN, **FORGED[why]))
    assert ssm.approvals() == []
    assert [reason for _, reason in ssm.notes()] == ["forbidden"]


def test_a_role_of_a_machine_is_nobody(ssm: SystemsManager) -> None:
    machine = identity("i-0abc", "sweep-function")
    ssm.ssm.answer(AUTOMATION, machine["arn"], "Approve", ANSWERED, "fine")
    ssm.deliver(ssm.signal(machine))
    assert (ssm.approvals(), ssm.notes()) == ([], [("console.automation", "forbidden")])


@pytest.mark.parametrize("changes", [{"source": "my.app"}, {"account": "999999999999"}, {"detail-type": "Signal"}])
def test_an_event_from_elsewhere_is_passed_over_and_noted(ssm: SystemsManager, changes: dict[str, Any]) -> None:
    ssm.ssm.answer(AUTOMATION, ERIN["arn"], "Approve", ANSWERED, "fine")
    assert ssm.deliver(ssm.signal(ERIN), **changes) == {"outcome": "PASSED_OVER"}
    assert (ssm.approvals(), ssm.notes()) == ([], [("console.event", "forbidden")])


UNCONFIRMED: dict[str, tuple[str, str, timedelta]] = {
    "nobody answered": ("grace", "Approve", timedelta()),
    "another answer": ("erin", "Reject", timedelta()),
    "another moment": ("erin", "Approve", timedelta(minutes=5)),
}


@pytest.mark.parametrize("why", UNCONFIRMED)
def test_what_systems_manager_does_not_confirm_decides_nothing(ssm: SystemsManager, why: str) -> None:
    login, decision, later = UNCONFIRMED[why]
    ssm.ssm.answer(AUTOMATION, identity(login)["arn"], decision, ANSWERED + later, "fine")
    ssm.deliver(ssm.signal(ERIN))
    assert (ssm.approvals(), ssm.registry.head().status) == ([], Status.RUNNING)
    assert ("console.signal", "forbidden") in ssm.notes()


def test_a_signal_that_somebody_gave_another_automation_is_not_taken_for_this_one(ssm: SystemsManager) -> None:
    ssm.begin(OTHER)
    ssm.ssm.answer(OTHER, ERIN["arn"], "Approve", ANSWERED, "the other one")
    real = ssm.signal(ERIN, automation=OTHER)
    ssm.deliver(real)
    replayed = {**real, "requestParameters": {"automationExecutionId": AUTOMATION, "signalType": "Approve"}}
    ssm.ssm.answer(AUTOMATION, ERIN["arn"], "Approve", ANSWERED, "this one")
    before = ssm.registry.events()
    assert ssm.deliver(replayed) == {"outcome": "REFUSED"}
    assert ssm.registry.events() == before
    assert ssm.notes() == [("console.signal", "forbidden")]


def test_a_record_told_again_with_another_identity_is_refused(ssm: SystemsManager) -> None:
    ssm.answer("erin")
    forged = {**ssm.trail.records[0], "userIdentity": identity("frank")}
    ssm.ssm.answer(AUTOMATION, identity("frank")["arn"], "Approve", ANSWERED, "fine")
    assert ssm.deliver(forged) == {"outcome": "REFUSED"}
    assert ssm.approvals() == ["erin"]


def test_an_automation_of_another_document_is_none_of_ours(ssm: SystemsManager) -> None:
    ssm.ssm.executions[AUTOMATION]["DocumentName"] = "AWS-StopEC2InstanceWithApproval"
    assert ssm.answer("erin") == {"outcome": "PASSED_OVER"}
    assert ssm.step("record")["outcome"] == "REFUSED"
    assert ssm.approvals() == []


def test_an_automation_that_showed_another_packet_decides_nothing(ssm: SystemsManager) -> None:
    ssm.ssm.executions[AUTOMATION]["StepExecutions"][-1]["Inputs"]["Message"] = f"approve this: {'ab' * 32}"
    (outcome,) = ssm.answer("erin")["decisions"]
    assert "has not shown the packet" in outcome["error"]["message"]
    assert ssm.approvals() == []


def test_an_answer_from_before_the_opening_decides_nothing(ssm: SystemsManager) -> None:
    before = AT - timedelta(seconds=20)
    ssm.ssm.answer(AUTOMATION, ERIN["arn"], "Approve", before, "fine")
    (outcome,) = ssm.deliver(ssm.signal(ERIN, eventTime=before.strftime("%Y-%m-%dT%H:%M:%SZ")))["decisions"]
    assert "before the approval" in outcome["error"]["message"]
    assert ssm.approvals() == []


def test_a_revoked_approval_does_not_count(ssm: SystemsManager) -> None:
    ssm.ssm.answer(AUTOMATION, ERIN["arn"], "Revoke", ANSWERED, "")
    ssm.deliver(ssm.signal(ERIN, "Revoke"))
    assert ssm.approvals() == []


def test_where_a_second_factor_is_asked_for_a_session_without_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ssm = SystemsManager(monkeypatch, ATTESTRY_CONSOLE_MFA="required")
    (outcome,) = ssm.answer("erin")["decisions"]
    assert "MFA" in outcome["error"]["message"]
    assert (ssm.approvals(), ssm.notes()) == ([], [("console.automation", "forbidden")])


def test_a_form_of_answers_that_is_not_known_confirms_nothing(ssm: SystemsManager) -> None:
    outputs = ssm.ssm.executions[AUTOMATION]["StepExecutions"][-1]["Outputs"]["ApproverDecisions"]
    outputs += ["not JSON", json.dumps({"Approver": ERIN["arn"], "Decision": "Approve"}), json.dumps([1, {"Approver": 1}])]
    ssm.deliver(ssm.signal(ERIN))
    assert ssm.approvals() == []


def test_a_decision_by_registry_decision_is_refused_where_approvals_are_given_here_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.console import execution_arn, started

    ssm = SystemsManager(monkeypatch, ATTESTRY_CONSOLE_APPROVALS="ssm")
    body = {"action": "approve", "model": MODEL, "version": 1, "reason": "x"}
    console_decision.world.executions.start(body, at=ANSWERED)  # type: ignore[attr-defined]
    ssm.trail.records.append(started(ERIN, at=ANSWERED))
    answer = console_decision.handler({"execution_arn": execution_arn(), "input": body}, None)
    assert (answer["outcome"], ssm.approvals()) == ("REFUSED", [])
    assert "Systems Manager" in answer["error"]["message"]


class TestStarting:
    def ways(self, ssm: SystemsManager) -> ConsoleWays:
        return ConsoleWays(frozenset({"ssm"}), MACHINE, RUNBOOK, ssm.automations)

    def test_the_runbook_is_started_once_for_an_opening(self, ssm: SystemsManager) -> None:
        assert start_runbook(ssm.version, self.ways(ssm)) == AUTOMATION
        assert start_runbook(ssm.version, self.ways(ssm)) == ""
        assert len(ssm.ssm.tokens) == 1

    def test_what_cannot_be_started_keeps_no_version_from_its_approval(self, ssm: SystemsManager) -> None:
        def refuse(**request: Any) -> Any:
            raise ClientError({"Error": {"Code": "AutomationExecutionLimitExceededException"}}, "StartAutomationExecution")

        ssm.ssm.start_automation_execution = refuse  # type: ignore[method-assign]
        assert start_runbook(ssm.version, self.ways(ssm)) == ""
