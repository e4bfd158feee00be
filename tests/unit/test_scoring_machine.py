"""The state machine that scores files, run by the emulator's own interpreter in this process; its function is the real handler."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from ministack.services import stepfunctions

from attestry.domain.errors import UnavailableError
from attestry.usecases import row_input
from infra.scoring_definition import scoring_definition
from lambdas import deploy
from tests.unit.test_score_file import Desk, jsonl, request_for

MACHINE = "arn:aws:states:us-east-1:000000000000:stateMachine:attestry-scoring"


class Machine:
    """Runs executions, each to its end."""

    def __init__(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.desk = desk
        self.sent: list[Mapping[str, Any]] = []
        self.fails = 0
        monkeypatch.setattr(stepfunctions, "_invoke_resource", self._invoke)
        monkeypatch.setattr(stepfunctions, "_scaled_sleep", lambda seconds: None)
        monkeypatch.setattr(deploy, "scorer", desk.scorer)

    def _invoke(self, resource: str, given: Mapping[str, Any]) -> dict[str, Any]:
        assert resource == "arn:aws:states:::lambda:invoke"
        assert given["FunctionName"] == "${Deploy}"
        self.sent.append(given["Payload"])
        if self.fails:
            self.fails -= 1
            raise stepfunctions._ExecutionError("UnavailableError", "no answer")
        try:
            return {"StatusCode": 200, "Payload": deploy._score(dict(given["Payload"]))}
        except UnavailableError as error:
            raise stepfunctions._ExecutionError("UnavailableError", error.message) from error

    def run(self, scoring: str) -> str:
        """Run an execution, and return its status."""
        arn = f"{MACHINE.replace(':stateMachine:', ':execution:')}:{scoring}"
        stepfunctions._state_machines[MACHINE] = {"name": "attestry-scoring", "definition": json.dumps(scoring_definition())}
        told = {"stateMachineArn": MACHINE, "executionArn": arn, "name": scoring, "status": "RUNNING", "events": []}
        stepfunctions._executions[arn] = {**told, "startDate": stepfunctions.now_iso(), "input": json.dumps({"scoring": scoring})}
        stepfunctions._run_execution(arn)
        return str(stepfunctions._executions[arn]["status"])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(row_input, "MAX_INSTANCES", 2)
    return Machine(Desk(), monkeypatch)


def test_an_execution_plans_a_file_answers_every_chunk_and_finishes(machine: Machine) -> None:
    desk, data = machine.desk, jsonl(5)
    scoring = desk.begin(data)
    assert machine.run(scoring) == "SUCCEEDED"
    assert desk.facts(desk.ask(request_for(data))).rows == 5
    acts = [payload["action"] for payload in machine.sent]
    assert acts == ["plan_scoring", "score_chunk", "score_chunk", "score_chunk", "finish_scoring"]
    assert sorted(payload["chunk"] for payload in machine.sent[1:-1]) == [0, 1, 2]
    assert {payload["scoring"] for payload in machine.sent} == {scoring}


def test_what_aws_fails_now_and_then_is_tried_again(machine: Machine) -> None:
    machine.fails = 3
    scoring = machine.desk.begin(jsonl(5))
    assert machine.run(scoring) == "SUCCEEDED"
    assert len(machine.sent) == 8


def test_what_aws_fails_for_good_is_recorded_and_a_retry_finishes_it(machine: Machine) -> None:
    desk, data = machine.desk, jsonl(5)
    scoring = desk.begin(data)
    machine.fails = 5
    assert machine.run(scoring) == "FAILED"
    assert "AWS did not let it be finished" in desk.error(scoring)
    assert desk.ask(request_for(data, retry=True))["state"] == "WAITING"
    assert machine.run(scoring) == "SUCCEEDED"


def test_a_file_that_breaks_a_rule_ends_its_execution_and_says_why(machine: Machine) -> None:
    desk = machine.desk
    scoring = desk.begin(jsonl(3) + b'{"age":"x","income":1}\n')
    assert machine.run(scoring) == "FAILED"
    assert "rows[3].age" in desk.error(scoring)
    assert desk.events() == []
