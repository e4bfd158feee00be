"""What people do in the AWS console: who they are, what they may, and that an execution acts once."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from attestry.aws.audit import AuditNotes
from attestry.aws.settings import Settings
from attestry.aws.trail import read_call
from attestry.aws.world import World
from attestry.domain.audit import AUDIT
from attestry.domain.console_request import IN_CONSOLE
from attestry.domain.operations import ROLES_OF, Operation
from attestry.domain.stages import Stage, Standing, Status
from attestry.usecases.console_execution import act_key
from attestry.usecases.deploy import swap_pointer
from attestry.usecases.records import load_version, pointer_key, transition_key
from infra.pipeline_definition import OPERATING
from lambdas import console_decision, gate, operate
from tests.approvals import MODEL, ApprovalWorld
from tests.console import LATER, MACHINE, NAME, StandInExecutions, StandInTrail, cloudtrail, delivered, execution_arn, identity, started
from tests.fakes import FixedClock, Killed
from tests.versions import ACCOUNT, AT, ERIN, add_logins, make_approved

APPROVE = {"action": "approve", "model": MODEL, "version": 1, "reason": "read in the console"}
ENVIRONMENT = {
    "ATTESTRY_ACCOUNT": ACCOUNT,
    "ATTESTRY_DECISION_ARN": MACHINE,
    "ATTESTRY_DEPLOY_FUNCTION": "deploy",
    "ATTESTRY_GATE_FUNCTION": "gate",
}
ERINS = identity("erin")
FRANKS = identity("frank", "deployer")


class Console:
    """The AWS console over a registry in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
        self.registry = ApprovalWorld()
        self.meta = self.registry.meta
        self.clock = FixedClock(LATER)
        self.executions, self.trail = StandInExecutions(faults=self.registry.faults), StandInTrail(faults=self.registry.faults)
        self.world = World(Settings({**ENVIRONMENT, **environment}))
        self.registry.functions.handlers.update(
            {"gate": lambda event: gate.handler(dict(event), None), "deploy": lambda event: {"outcome": "SUCCEEDED"}}
        )
        ports = {name: getattr(self.registry, name) for name in ("meta", "store", "attestor", "pipeline", "notifier", "functions")}
        audit = AuditNotes(self.meta, self.clock, account=ACCOUNT, prefix="attestry")
        self.world.__dict__.update(ports, clock=self.clock, trail=self.trail, executions=self.executions, audit=audit)
        for module in (console_decision, operate, gate):
            monkeypatch.setattr(module, "world", self.world)
        add_logins(self.meta, dana="dana", erin="erin", frank="frank")

    def ask(self, arn: str, body: Any) -> dict[str, Any]:
        """What the state machine does: it calls one of the two functions."""
        action = body.get("action") if isinstance(body, dict) else None
        module = operate if action in OPERATING else console_decision
        return module.handler({"execution_arn": arn, "input": body}, None)

    def start(self, body: Any, who: dict[str, Any] = ERINS, *, name: str = NAME, **changes: Any) -> dict[str, Any]:
        """Start an execution, let CloudTrail tell of it, and return what the function answers."""
        arn = self.executions.start(body, name=name)
        self.trail.records.append(started(who, name=name, **changes))
        return self.ask(arn, body)

    def notes(self) -> list[tuple[str, str, str]]:
        """Who was refused what, and why."""
        return [(r["principal"]["subject"], r["act"], r["reason"]) for r in self.meta.query(AUDIT)]


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    return Console(monkeypatch)


def deployed(console: Console, *numbers: int) -> None:
    facts: Any = {"environment": "production", "capture_rate": "1", "by": ERIN, "reason": "first", "at": AT}
    for number in numbers:
        make_approved(console.meta, number)
        swap_pointer(console.meta, console.registry.attestor, MODEL, number, **facts)


class TestApproval:
    def test_it_keeps_the_event_of_cloudtrail_by_id_and_digest(self, console: Console) -> None:
        console.registry.waiting()
        record = read_call(started(ERINS))
        answer = console.start(APPROVE)
        facts = {
            "call": "StartExecution",
            "on": execution_arn(),
            "event_id": record.event_id,
            "event_sha256": record.digest,
            "at": "2026-01-02T03:04:05.000000Z",
            "mfa": False,
            "session_issuer": f"arn:aws:iam::{ACCOUNT}:role/attestry-approver",
        }
        assert (answer["outcome"], answer["person"], answer["event_sha256"]) == ("DECIDED", "erin", record.digest)
        (row,) = console.meta.query(f"VERSION#{MODEL}#1", prefix="APPROVAL#")
        transition = console.meta.rows[transition_key(MODEL, 1, row["transition"])]
        event = console.registry.events()[-1]
        statement = console.registry.statement(row["transition"])
        assert row["console"] == transition["data"]["console"] == event["data"]["console"] == facts
        assert statement.predicate["content"]["console"] == facts
        assert event["principal"]["method"] == f"CloudTrail StartExecution, event {record.event_id}, SHA-256 {record.digest}"

    def test_the_digest_does_not_depend_on_how_the_record_came(self) -> None:
        record = started(ERINS)
        assert read_call(json.loads(json.dumps(dict(reversed(record.items()))))).digest == read_call(record).digest

    def test_the_older_form_of_the_input_is_understood(self, console: Console) -> None:
        console.registry.waiting()
        body = {"model": MODEL, "version": 1, "decision": "reject", "reason": "not yet"}
        assert console.start(body)["decision"] == "reject"
        assert console.registry.head().standing is Standing.REJECTED

    def test_a_reason_of_full_length_still_fits_into_the_event(self, console: Console) -> None:
        console.registry.waiting()
        assert console.start({**APPROVE, "reason": "x" * 500, "packet": console.registry.head().packet["sha256"]})["outcome"] == "DECIDED"

    def test_a_call_from_before_the_opening_decides_nothing(self, console: Console) -> None:
        console.registry.waiting()
        before = AT - timedelta(seconds=20)
        console.executions.start(APPROVE, at=before)
        console.trail.records.append(started(ERINS, at=before))
        answer = console.ask(execution_arn(), APPROVE)
        assert (answer["outcome"], answer["error"]["code"]) == ("REFUSED", "conflict")
        assert "before the approval" in answer["error"]["message"]
        assert console.registry.head().status is Status.RUNNING

    def test_the_submitter_is_refused_and_noted(self, console: Console) -> None:
        console.registry.waiting()
        answer = console.start(APPROVE, identity("dana"))
        assert answer["error"]["code"] == "self_approval"
        assert console.notes() == [(f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-approver/dana", "console.execution", "self_approval")]


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        ("approve it", "", "type"),
        ([APPROVE], "", "type"),
        ({}, "action", "enum"),
        ({**APPROVE, "action": "delete"}, "action", "enum"),
        ({**APPROVE, "action": "retry"}, "action", "enum"),
        ({**APPROVE, "action": ["approve"]}, "action", "enum"),
        ({**APPROVE, "decision": "reject"}, "decision", "contradiction"),
        ({"model": MODEL, "version": 1, "decision": "kill", "reason": "x"}, "decision", "enum"),
        ({**APPROVE, "version": "1"}, "version", "version_reference"),
        ({**APPROVE, "version": True}, "version", "version_reference"),
        ({**APPROVE, "version": 0}, "version", "version_reference"),
        ({**APPROVE, "model": "Credit Risk"}, "version", "version_reference"),
        ({**APPROVE, "model": 7}, "model", "model_name"),
        ({**APPROVE, "reason": " "}, "reason", "reason"),
        ({**APPROVE, "reason": "fine \u202e"}, "reason", "printable"),
        ({**APPROVE, "packet": "latest"}, "packet", "sha256"),
        ({**APPROVE, "person": "erin"}, "person", "unknown_field"),
        ({**APPROVE, "environment": "production"}, "environment", "unknown_field"),
        ({**APPROVE, "action": "kill", "packet": "ab" * 32}, "packet", "unknown_field"),
        ({**APPROVE, "action": "redo"}, "stage", "enum"),
        ({**APPROVE, "action": "redo", "stage": "validation"}, "stage", "enum"),
        ({**APPROVE, "action": "hold", "stage": "VALIDATION"}, "stage", "unknown_field"),
        ({**APPROVE, "action": "retire", "on": "tomorrow"}, "on", "date"),
        ({**APPROVE, "action": "retire", "even_if_deployed": "yes"}, "even_if_deployed", "type"),
        ({"action": "rollback", "model": MODEL, "reason": "x", "environment": "../x"}, "environment", "name"),
        ({"action": "rollback", "model": "../x", "reason": "x"}, "model.name", "model_name"),
    ],
)
def test_an_input_out_of_form_is_refused_by_field_and_rule(console: Console, body: Any, field: str, rule: str) -> None:
    console.registry.waiting()
    before = {k: v for k, v in console.meta.rows.items() if k.partition.startswith(("VERSION", "MODEL", "OUTBOX"))}
    answer = console.start(body)
    assert answer["outcome"] == "REFUSED"
    assert (answer["error"]["field"], answer["error"]["rule"]) == (field, rule)
    assert {k: v for k, v in console.meta.rows.items() if k.partition.startswith(("VERSION", "MODEL", "OUTBOX"))} == before
    assert [reason for _, _, reason in console.notes()] == ["invalid_input"]


def test_an_input_that_says_a_thing_twice_is_refused(console: Console) -> None:
    console.registry.waiting()
    text = '{"action": "reject", "action": "approve", "model": "credit-risk", "version": 1, "reason": "x"}'
    console.executions.start(None, text=text)
    console.trail.records.append(started(ERINS))
    answer = console.ask(execution_arn(), json.loads(text))
    assert (answer["outcome"], answer["error"]["rule"]) == ("REFUSED", "json")


FORGED: dict[str, dict[str, Any]] = {
    "a service": {"userIdentity": {"type": "AWSService", "invokedBy": "events.amazonaws.com"}},
    "a service that acts for erin": {"userIdentity": {**ERINS, "invokedBy": "cloudformation.amazonaws.com"}},
    "a machine's role": {"userIdentity": identity("i-0abc", "sweep-function")},
    "a role of another name with erin's session name": {
        "userIdentity": identity("erin", arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/Admin/erin")
    },
    "a session that another role issued": {
        "userIdentity": {**ERINS, "sessionContext": identity("erin", "scientist")["sessionContext"]},
    },
    "a session without issuer": {"userIdentity": {**ERINS, "sessionContext": {"attributes": {"mfaAuthenticated": "true"}}}},
    "another account": {"userIdentity": {**ERINS, "accountId": "999999999999"}},
    "the root user": {"userIdentity": {"type": "Root", "arn": f"arn:aws:iam::{ACCOUNT}:root", "accountId": ACCOUNT}},
    "nobody": {"userIdentity": {}},
    "an unmapped login": {"userIdentity": identity("heidi")},
    "another state machine": {"requestParameters": {"stateMachineArn": f"{MACHINE}2", "name": NAME}},
    "no state machine": {"requestParameters": None},
    "another name": {"requestParameters": {"stateMachineArn": MACHINE, "name": "another"}},
    "an hour before": {"eventTime": "2026-01-02T02:04:05Z"},
    "no time": {"eventTime": "soon"},
    "no event ID": {"eventID": ""},
}


@pytest.mark.parametrize("why", FORGED)
def test_a_record_that_does_not_hold_does_nothing_but_leave_a_note(console: Console, why: str) -> None:
    console.registry.waiting()
    arn = console.executions.start(APPROVE)
    detail = started(ERINS, **FORGED[why])
    console_decision.handler(delivered(detail), None)
    answer = console.ask(arn, APPROVE)
    assert answer["outcome"] == "REFUSED", why
    assert answer["error"]["code"] in ("forbidden", "unproven_identity")
    assert (console.registry.head().status, console.registry.head().approved) == (Status.RUNNING, False)
    assert [(act, reason) for _, act, reason in console.notes()] == [("console.execution", answer["error"]["code"])]


@pytest.mark.parametrize(
    "changes",
    [{"source": "my.app"}, {"source": "aws.ssm"}, {"detail-type": "StartExecution"}, {"account": "999999999999"}, {"account": None}],
)
def test_an_event_from_elsewhere_is_passed_over_and_noted(console: Console, changes: dict[str, Any]) -> None:
    console.registry.waiting()
    arn = console.executions.start(APPROVE)
    assert console_decision.handler(delivered(started(ERINS), **changes), None) == {"outcome": "PASSED_OVER"}
    assert console.ask(arn, APPROVE) == {"outcome": "WAIT"}
    assert [(act, reason) for _, act, reason in console.notes()] == [("console.event", "forbidden")]


def test_the_first_record_of_an_execution_stays(console: Console) -> None:
    console.registry.waiting()
    arn = console.executions.start(APPROVE)
    for who in (identity("dana"), ERINS):
        assert console_decision.handler(delivered(started(who)), None) == {"outcome": "KEPT"}
    assert console.ask(arn, APPROVE)["error"]["code"] == "self_approval"


class TestOnce:
    def test_the_same_execution_asked_again_answers_the_same_and_does_nothing(self, console: Console) -> None:
        console.registry.waiting()
        first = console.start(APPROVE)
        events = len(console.registry.events())
        assert console.ask(execution_arn(), APPROVE) == first
        assert len(console.registry.events()) == events

    def test_another_wish_than_the_executions_is_refused_and_noted(self, console: Console) -> None:
        console.registry.waiting()
        arn = console.executions.start({**APPROVE, "action": "reject"})
        console.trail.records.append(started(ERINS))
        answer = console.ask(arn, APPROVE)
        assert (answer["outcome"], answer["error"]["code"]) == ("REFUSED", "forbidden")
        assert console.registry.head().status is Status.RUNNING
        assert len(console.notes()) == 1
        assert console.ask(arn, {**APPROVE, "action": "reject"})["outcome"] == "DECIDED"

    def test_a_refused_execution_stays_refused(self, console: Console) -> None:
        console.registry.waiting()
        assert console.start(APPROVE, identity("heidi"))["error"]["code"] == "unproven_identity"
        add_logins(console.meta, heidi="heidi")
        assert console.ask(execution_arn(), APPROVE)["error"]["code"] == "unproven_identity"
        assert console.registry.head().status is Status.RUNNING

    def test_an_execution_that_step_functions_does_not_know_does_nothing(self, console: Console) -> None:
        console.registry.waiting()
        console.trail.records.append(started(ERINS))
        assert console.ask(execution_arn(), APPROVE) == {"outcome": "WAIT"}
        assert console.registry.head().status is Status.RUNNING
        assert act_key(execution_arn()) not in console.meta.rows

    @pytest.mark.parametrize("by", ["record", "description"])
    def test_a_redriven_execution_does_nothing(self, console: Console, by: str) -> None:
        console.registry.waiting()
        arn = console.executions.start(APPROVE, redrives=1 if by == "description" else 0)
        console.trail.records.append(started(ERINS))
        if by == "record":
            asked = {"executionArn": arn}
            console.trail.records.append(cloudtrail("RedriveExecution", FRANKS, requestParameters=asked))
        assert "redriven" in console.ask(arn, APPROVE)["error"]["message"]
        assert console.registry.head().status is Status.RUNNING

    def test_an_execution_of_yesterday_does_nothing_once_its_row_may_be_gone(self, console: Console) -> None:
        console.registry.waiting()
        arn = console.executions.start(APPROVE)
        console.trail.records.append(started(ERINS))
        console.clock.at = AT + timedelta(days=1, seconds=1)
        assert "more than a day ago" in console.ask(arn, APPROVE)["error"]["message"]

    @pytest.mark.parametrize("after", [False, True])
    def test_a_crash_at_any_call_leaves_an_execution_from_which_a_retry_goes_on(self, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
        def rolled_back(cut: int | None) -> Console:
            console = Console(monkeypatch)
            deployed(console, 1, 2)
            body = {"action": "rollback", "model": MODEL, "reason": "worse"}
            arn = console.executions.start(body)
            console.trail.records.append(started(FRANKS))
            faults = console.registry.faults
            faults.clear()
            if cut is not None:
                (faults.fail_after if after else faults.fail_before)(cut, error=Killed())
                with pytest.raises(Killed):
                    console.ask(arn, body)
            assert console.ask(arn, body)["outcome"] == "DONE"
            return console

        calls = len(rolled_back(None).registry.faults.calls)
        assert calls > 8
        for cut in range(1, calls + 1):
            console = rolled_back(cut)
            pointer = console.meta.rows[pointer_key(MODEL, "production")]
            assert (pointer["number"], pointer["previous"]) == (1, 2), cut
            assert [e["kind"] for e in console.registry.events()].count("version.rolled_back") == 1, cut


class TestOperations:
    @pytest.mark.parametrize("operation", IN_CONSOLE)
    @pytest.mark.parametrize("role", ["scientist", "validator", "approver", "deployer", "consumer", "auditor", "admin"])
    def test_who_acts_in_no_role_for_it_is_refused_and_noted(self, console: Console, operation: Operation, role: str) -> None:
        console.registry.waiting()
        body = {**APPROVE, "action": operation.value, **({"stage": "VALIDATION"} if operation is Operation.REDO else {})}
        answer = console.start(body, identity("frank", role))
        error = answer.get("error", {})
        refused = error.get("code") == "forbidden" and "takes the role" in error["message"]
        assert refused == (role not in ROLES_OF[operation])
        assert (len(console.notes()) == 1) == (answer["outcome"] == "REFUSED")
        if refused:
            assert not [r for r in console.registry.events() if r["principal"]["login"] == "frank"]

    def test_a_service_in_a_role_that_maps_to_no_person_is_refused(self, console: Console) -> None:
        deployed(console, 1)
        answer = console.start({**APPROVE, "action": "kill"}, identity("ci", "deployer"))
        assert answer["error"]["code"] == "unproven_identity"
        assert load_version(console.meta, MODEL, 1).standing is Standing.DEPLOYED

    def test_a_rollback_puts_back_what_is_kept_once_however_often_it_is_asked(self, console: Console) -> None:
        deployed(console, 1, 2)
        body = {"action": "rollback", "model": MODEL, "reason": "worse"}
        first = console.start(body, FRANKS)
        assert (first["outcome"], first["version"], first["previous"]) == ("DONE", f"{MODEL}@1", 2)
        assert console.ask(execution_arn(), body) == first
        assert console.meta.rows[pointer_key(MODEL, "production")]["number"] == 1

    def test_a_rollback_may_name_any_approved_version(self, console: Console) -> None:
        deployed(console, 1, 2, 3)
        body = {"action": "rollback", "model": MODEL, "version": 1, "reason": "worse"}
        assert console.start(body, FRANKS)["version"] == f"{MODEL}@1"

    def test_a_rollback_right_after_a_rollback_has_to_name_its_version(self, console: Console) -> None:
        deployed(console, 1, 2)
        body = {"action": "rollback", "model": MODEL, "reason": "worse"}
        assert console.start(body, FRANKS)["outcome"] == "DONE"
        assert console.start(body, FRANKS, name="second")["error"]["code"] == "conflict"
        assert console.meta.rows[pointer_key(MODEL, "production")]["number"] == 1

    def test_a_version_is_held_and_released(self, console: Console) -> None:
        console.registry.waiting()
        held = console.start({**APPROVE, "action": "hold"})
        assert (held["outcome"], held["held"]["by"]) == ("DONE", "erin")
        assert console.start(APPROVE, name="approve")["outcome"] == "REFUSED"
        assert console.start({**APPROVE, "action": "release"}, identity("frank"), name="release")["held"] == {}
        assert console.start(APPROVE, name="again")["outcome"] == "DECIDED"

    def test_a_stage_runs_again_once_however_often_the_execution_is_asked(self, console: Console) -> None:
        console.registry.waiting()
        body = {**APPROVE, "action": "redo", "stage": "VALIDATION"}
        first = console.start(body, identity("frank", "admin"))
        assert (first["outcome"], first["attempt"]) == ("DONE", 2)
        console.meta.rows[act_key(execution_arn())].pop("outcome")
        again = console.ask(execution_arn(), body)
        assert (again["attempt"], again["changed"]) == (2, False)
        assert [e["kind"] for e in console.registry.events()].count("stage.reopened") == 1

    def test_a_kill_takes_the_version_out_of_use_and_names_who_and_the_event(self, console: Console) -> None:
        deployed(console, 1)
        answer = console.start({**APPROVE, "action": "kill"}, identity("frank", "admin"))
        assert (answer["standing"], answer["vacated"], answer["person"]) == ("RETIRED", ["production"], "frank")
        event = console.registry.events()[-1]
        assert event["kind"] == "version.killed"
        assert event["principal"]["method"].endswith(answer["event_sha256"])

    def test_a_kill_sends_on_the_pipeline_that_waits(self, console: Console) -> None:
        console.registry.waiting()
        console.start({**APPROVE, "action": "kill"})
        assert console.registry.functions.sent == [("gate", {"action": "decided", "model": MODEL, "version": 1})]

    def test_a_retirement_may_have_a_day(self, console: Console) -> None:
        deployed(console, 1)
        body = {**APPROVE, "action": "retire", "on": "2026-03-01"}
        refused = console.start(body, FRANKS)
        assert refused["error"]["code"] == "conflict"
        answer = console.start({**body, "even_if_deployed": True}, FRANKS, name="second")
        assert (answer["retires_on"], answer["standing"]) == ("2026-03-01", "DEPLOYED")

    def test_a_deployment_begins_and_is_handed_to_the_deploy_function(self, console: Console) -> None:
        make_approved(console.meta, 1)
        answer = console.start({**APPROVE, "action": "deploy"}, FRANKS)
        assert (answer["stage"], answer["status"]) == ("DEPLOYMENT", "RUNNING")
        ((name, payload),) = console.registry.functions.sent
        assert (name, payload["model"], payload["version"], payload["principal"]["person"]) == ("deploy", MODEL, 1, "frank")

    def test_a_deployment_that_ended_meanwhile_is_not_begun_again_by_a_retry(self, console: Console) -> None:
        make_approved(console.meta, 1)
        body = {**APPROVE, "action": "deploy"}
        console.start(body, FRANKS)
        swap_pointer(
            console.meta,
            console.registry.attestor,
            MODEL,
            1,
            environment="production",
            capture_rate="1",
            by=ERIN,
            reason="approved",
            at=LATER,
        )
        console.meta.rows[act_key(execution_arn())].pop("outcome")
        before = load_version(console.meta, MODEL, 1).transition
        answer = console.ask(execution_arn(), body)
        assert (answer["outcome"], answer["standing"]) == ("DONE", "DEPLOYED")
        assert load_version(console.meta, MODEL, 1).transition == before
        assert load_version(console.meta, MODEL, 1).stage is Stage.DEPLOYMENT


class TestSecondFactor:
    def test_where_it_is_asked_for_a_session_without_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        console = Console(monkeypatch, ATTESTRY_CONSOLE_MFA="required")
        console.registry.waiting()
        assert "MFA" in console.start(APPROVE)["error"]["message"]
        assert len(console.notes()) == 1

    def test_a_session_with_one_decides_and_the_approval_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        console = Console(monkeypatch, ATTESTRY_CONSOLE_MFA="required")
        console.registry.waiting()
        session = identity("erin")
        session["sessionContext"]["attributes"]["mfaAuthenticated"] = "true"
        assert console.start(APPROVE, session)["outcome"] == "DECIDED"
        (row,) = console.meta.query(f"VERSION#{MODEL}#1", prefix="APPROVAL#")
        assert row["console"]["mfa"] is True
