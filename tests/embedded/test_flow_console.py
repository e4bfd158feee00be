"""RegistryDecision on the embedded AWS: CloudTrail names who started it, and each act ends in the function that may do it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestry.domain.audit import AUDIT
from attestry.domain.console_request import IN_CONSOLE
from attestry.domain.operations import ROLES_OF, Operation
from infra.pipeline_definition import OPERATING
from tests.embedded.flows import Registry, until

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

STATES = "Find caller and decide", "Find caller and operate"
PROFILES = {"dana": "scientist", "erin": "approver", "frank": "deployer", "admin": "admin"}


def asked(operation: Operation, **more: Any) -> dict[str, Any]:
    stage = {"stage": "VALIDATION"} if operation is Operation.REDO else {}
    return {"action": operation.value, "model": "no-such-model", "version": 1, "reason": "a probe", **stage, **more}


def states_of(registry: Registry, execution: str) -> set[str]:
    history = registry.aws("stepfunctions").get_execution_history(executionArn=execution)["events"]
    return {e["stateEnteredEventDetails"]["name"] for e in history if "stateEnteredEventDetails" in e}


@pytest.mark.parametrize("operation", IN_CONSOLE)
def test_an_act_goes_to_its_function_and_the_answer_names_what_is_wrong(registry: Registry, operation: Operation) -> None:
    profile = next(p for p, role in PROFILES.items() if role in ROLES_OF[operation])
    execution = registry.decide_in_console(profile, asked(operation))
    assert execution["status"] == "FAILED"
    assert json.loads(execution["cause"])["error"]["code"] == "not_found"
    expected = STATES[1] if operation in OPERATING else STATES[0]
    assert states_of(registry, execution["executionArn"]) & set(STATES) == {expected}


@pytest.mark.parametrize(
    ("profile", "operation"), [("erin", Operation.DEPLOY), ("frank", Operation.APPROVE), ("admin", Operation.ROLLBACK)]
)
def test_who_acts_in_no_role_for_it_is_refused_there_too_and_it_is_noted(registry: Registry, profile: str, operation: Operation) -> None:
    execution = registry.decide_in_console(profile, asked(operation))
    assert json.loads(execution["cause"])["error"]["code"] == "forbidden"
    acts = {(row["act"], row["object"]) for row in registry.meta.query(AUDIT)}
    assert ("console.execution", execution["executionArn"]) in acts


def test_an_input_out_of_form_is_refused_by_field_and_rule_in_the_output(registry: Registry) -> None:
    execution = registry.decide_in_console("erin", {**asked(Operation.APPROVE), "person": "grace"})
    error = json.loads(execution["cause"])["error"]
    assert (error["field"], error["rule"]) == ("person", "unknown_field")


def test_an_event_that_somebody_else_puts_names_nobody(registry: Registry) -> None:
    """EventBridge refuses the source of an AWS service, and the rule asks for it; what comes by another source decides nothing."""
    arn = f"{registry.stack.outputs['DecisionArn'].replace(':stateMachine:', ':execution:')}:forged"
    detail = {
        "eventSource": "states.amazonaws.com",
        "eventName": "StartExecution",
        "eventID": "forged",
        "requestParameters": {"stateMachineArn": registry.stack.outputs["DecisionArn"], "name": "forged"},
        "responseElements": {"executionArn": arn},
        "userIdentity": {"type": "AssumedRole", "arn": "arn:aws:sts::000000000000:assumed-role/attestry-approver/erin"},
    }
    entry = {"Detail": json.dumps(detail), "DetailType": "AWS API Call via CloudTrail"}
    answer = registry.aws("events").put_events(Entries=[{**entry, "Source": "aws.states"}, {**entry, "Source": "my.app"}])
    assert answer["Entries"][0]["ErrorCode"] == "NotAuthorizedForSourceException"
    assert "EventId" in answer["Entries"][1]
    real = registry.decide_in_console("erin", asked(Operation.KILL))
    assert until(lambda: registry.meta.query(f"CALLER#{real['executionArn']}"), "the real event was kept")
    assert registry.meta.query(f"CALLER#{arn}") == []
