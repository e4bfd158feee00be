"""What scores files: there where it is asked for, by a machine that may start itself and call one function."""

from __future__ import annotations

import json
from typing import Any

from infra.api import SCORING_PATH
from infra.scoring_definition import scoring_definition
from tests.infra.conftest import Synthesis
from tests.infra.template import Template


def machines(template: Template) -> dict[str, Any]:
    return {m["StateMachineName"]: m for m in template.of_type("AWS::StepFunctions::StateMachine").values()}


def tasks(states: dict[str, Any]) -> list[dict[str, Any]]:
    found = [s for s in states.values() if s["Type"] == "Task"]
    return found + [t for s in states.values() if s["Type"] == "Map" for t in tasks(s["ItemProcessor"]["States"])]


def test_files_are_scored_only_where_that_is_asked_for(template: Template, open_network: Synthesis) -> None:
    assert f"POST {SCORING_PATH}" not in template.routes()
    assert "attestry-scoring" not in machines(template)
    assert "SCORING#" not in template.text
    on = open_network.template
    assert f"POST {SCORING_PATH}" in on.routes()
    assert "registry-two-scoring" in machines(on)


def test_the_machine_calls_one_function_and_starts_nothing_but_itself(open_network: Synthesis) -> None:
    template = open_network.template
    (role,) = [r for r in template.of_type("AWS::IAM::Role").values() if "scoring" in str(r.get("Description"))]
    statements = role["Policies"][0]["PolicyDocument"]["Statement"]
    started = [json.dumps(s["Resource"]) for s in statements if "states:StartExecution" in s["Action"]]
    called = [json.dumps(s["Resource"]) for s in statements if "lambda:InvokeFunction" in s["Action"]]
    assert len(started) == len(called) == 1
    assert "stateMachine:registry-two-scoring" in started[0]
    assert called[0].endswith(':function:registry-two-deploy"')


def test_every_step_is_tried_again_and_what_fails_for_good_is_recorded() -> None:
    definition = scoring_definition()
    states = definition["States"]
    assert all(task["Retry"] and task["TimeoutSeconds"] > 600 for task in tasks(states))
    assert {states[name]["Catch"][0]["Next"] for name in ("Plan file", "Score chunks", "Finish file")} == {"Record failure"}
    assert states["Record failure"]["Next"] == "Failed"
    assert states["Score chunks"]["ItemProcessor"]["ProcessorConfig"]["Mode"] == "DISTRIBUTED"
    # Numbers alone: what rows say stands in no input, output or history of an execution.
    assert states["Score chunks"]["ResultPath"] is None
