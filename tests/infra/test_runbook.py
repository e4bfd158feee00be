"""The approval runbook: a document as Systems Manager documents them, and the rights around it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from attestry.aws.automations import APPROVE_STEP
from attestry.usecases import console_automation
from infra.config import Config, ConsoleApprovals
from infra.runbook_document import APPROVE, MAX_WAIT_SECONDS, PAUSES, WAITING, runbook_document
from tests.infra.conftest import Synthesis, lint
from tests.infra.template import ACCOUNT, REGION, Template, listed

DOCUMENT = runbook_document(function_arn="arn:f", role_arn="arn:r", topic_arn="arn:t", wait_seconds=30 * 86400)
STEPS = {step["name"]: step for step in DOCUMENT["mainSteps"]}
REQUIRED = {
    "aws:approve": {"Approvers"},
    "aws:branch": {"Choices"},
    "aws:executeScript": {"Runtime", "Handler"},
    "aws:invokeLambdaFunction": {"FunctionName"},
    "aws:sleep": {"Duration"},
}
PREDEFINED = {
    "aws:approve": {"ApprovalStatus": "String", "ApproverDecisions": "MapList"},
    "aws:invokeLambdaFunction": {"StatusCode": "Integer", "FunctionError": "String", "LogResult": "String", "Payload": "String"},
}
"""Outputs that an action always has (Systems Manager User Guide, "Systems Manager Automation actions reference")."""


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for entry in value.values():
            yield from references(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from references(entry)
    elif isinstance(value, str):
        yield from re.findall(r"\{\{\s*([^}]+?)\s*\}\}", value)


def following(step: dict[str, Any]) -> list[str]:
    choices = [c["NextStep"] for c in step["inputs"].get("Choices", [])]
    return [n for n in (step.get("nextStep"), *choices, step["inputs"].get("Default")) if n]


def test_the_document_has_the_form_of_automation_documents() -> None:
    assert DOCUMENT["schemaVersion"] == "0.3"
    assert set(DOCUMENT) <= {"schemaVersion", "description", "assumeRole", "parameters", "mainSteps", "outputs", "files"}
    assert len(STEPS) == len(DOCUMENT["mainSteps"])
    assert len(json.dumps(DOCUMENT)) < 64 * 1024
    for parameter in DOCUMENT["parameters"].values():
        assert parameter["type"] in {"String", "StringList", "Boolean", "Integer", "MapList", "StringMap"}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_has_what_its_action_needs_and_only_documented_fields(name: str) -> None:
    step = STEPS[name]
    assert re.fullmatch(r"[A-Za-z0-9_]{3,128}", name)
    assert REQUIRED[step["action"]] <= set(step["inputs"])
    fields = {
        "name",
        "action",
        "inputs",
        "outputs",
        "nextStep",
        "isEnd",
        "onFailure",
        "onCancel",
        "maxAttempts",
        "timeoutSeconds",
        "isCritical",
    }
    assert set(step) <= fields
    assert step.get("onFailure", "Abort") in {"Abort", "Continue"}
    for output in step.get("outputs", []):
        assert set(output) == {"Name", "Selector", "Type"}
        assert output["Type"] in {"String", "Integer", "Boolean", "StringList", "StringMap", "MapList"}
        assert output["Selector"].startswith("$.")


def test_steps_lead_forward_alone_and_reach_the_report() -> None:
    order = list(STEPS)
    for name, step in STEPS.items():
        assert all(order.index(n) > order.index(name) for n in following(step)), name
        assert following(step) or step.get("isEnd"), name
    assert {n for s in STEPS.values() for n in following(s)} == set(order[1:])
    assert order[-1] == "Report"
    assert STEPS["Report"]["isEnd"] is True


def test_every_reference_is_to_a_parameter_or_to_an_output_of_a_step_before() -> None:
    before: dict[str, dict[str, str]] = {}
    for name, step in STEPS.items():
        for reference in references(step["inputs"]):
            root, _, output = reference.partition(".")
            assert reference in DOCUMENT["parameters"] or reference == "automation:EXECUTION_ID" or output in before[root], (
                name,
                reference,
            )
        before[name] = {o["Name"]: o["Type"] for o in step.get("outputs", [])} | PREDEFINED.get(step["action"], {})
    for reference in DOCUMENT["outputs"]:
        root, _, output = reference.partition(".")
        assert output in before[root]


def test_what_people_are_asked_by_comes_from_the_registry_in_the_types_that_the_step_takes() -> None:
    outputs = {f"{{{{ ReadAnswer.{o['Name']} }}}}": o["Type"] for o in STEPS["ReadAnswer"]["outputs"]}
    inputs = STEPS[APPROVE]["inputs"]
    kinds = {name: outputs[inputs[name]] for name in ("Approvers", "MinRequiredApprovals", "Message")}
    assert kinds == {"Approvers": "StringList", "MinRequiredApprovals": "Integer", "Message": "String"}
    assert STEPS[APPROVE]["timeoutSeconds"] <= MAX_WAIT_SECONDS


def test_the_script_reads_the_function_s_answer_whether_it_comes_as_text_or_not() -> None:
    scope: dict[str, Any] = {}
    script = STEPS["ReadAnswer"]["inputs"]["Script"]
    ast.parse(script)
    exec(script, scope)
    read = scope[STEPS["ReadAnswer"]["inputs"]["Handler"]]
    answer = {"approvers": ["a"], "minimum": 1, "message": "m"}
    assert read({"answer": json.dumps(answer)}, None) == read({"answer": answer}, None) == answer
    with pytest.raises(ValueError, match="Expecting value"):
        read({"answer": "no JSON"}, None)


def test_the_tries_last_longer_than_cloudtrail_takes_and_a_rejection_is_recorded_too() -> None:
    seconds = sum(int(n) * {"S": 1, "M": 60}[unit] for n, unit in (re.fullmatch(r"PT(\d+)([SM])", p).groups() for p in PAUSES))  # type: ignore[union-attr]
    assert seconds > 15 * 60
    assert STEPS[APPROVE]["onFailure"] == "Continue"
    assert STEPS[APPROVE]["nextStep"] == "Record1"


def test_the_registry_and_the_document_name_step_and_word_alike() -> None:
    assert (APPROVE, WAITING) == (APPROVE_STEP, console_automation.WAITING)


def test_where_approvals_are_decisions_alone_there_is_no_runbook(template: Template) -> None:
    assert Config().console_approvals is ConsoleApprovals.DECISION
    assert template.of_type("AWS::SSM::Document") == {}


class TestTemplate:
    def test_the_document_is_an_automation_that_changes_by_new_versions(self, all_executors: Synthesis) -> None:
        (document,) = all_executors.template.of_type("AWS::SSM::Document").values()
        assert (document["Name"], document["DocumentType"], document["UpdateMethod"]) == (
            "attestry-ApproveVersion",
            "Automation",
            "NewVersion",
        )
        assert [s["name"] for s in document["Content"]["mainSteps"]] == list(STEPS)

    def test_the_runbook_s_role_calls_one_function_and_tells_one_topic(self, all_executors: Synthesis) -> None:
        statements = all_executors.template.role_policies("attestry-approval-runbook")
        assert {a for s in statements for a in listed(s["Action"])} == {
            "lambda:InvokeFunction",
            "sns:Publish",
            "kms:Decrypt",
            "kms:GenerateDataKey",
        }
        (invoked,) = [s["Resource"] for s in statements if "lambda:InvokeFunction" in listed(s["Action"])]
        assert listed(invoked) == [f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:attestry-console-decision"]

    @pytest.mark.parametrize("role", ["scientist", "validator", "approver", "deployer", "consumer", "auditor", "admin"])
    def test_approvers_start_and_answer_it_and_nobody_else(self, all_executors: Synthesis, role: str) -> None:
        actions = {a for s in all_executors.template.role_policies(f"attestry-{role}") for a in listed(s["Action"])}
        may = role in ("approver", "validator")
        assert ({"ssm:StartAutomationExecution", "ssm:SendAutomationSignal"} <= actions) == may
        passed = [s for s in all_executors.template.role_policies(f"attestry-{role}") if "iam:PassRole" in listed(s["Action"])]
        assert [listed(s["Resource"]) for s in passed] == ([[f"arn:aws:iam::{ACCOUNT}:role/attestry-approval-runbook"]] if may else [])
        assert all(s["Condition"] == {"StringEquals": {"iam:PassedToService": "ssm.amazonaws.com"}} for s in passed)

    def test_no_function_answers_an_approval(self, all_executors: Synthesis) -> None:
        for policy in all_executors.template.policies():
            actions = {a for s in policy.statements if s["Effect"] == "Allow" for a in listed(s.get("Action", []))}
            if "function" in str(policy.owner).lower():
                assert "ssm:SendAutomationSignal" not in actions

    def test_the_function_and_the_gate_are_told_of_it(self, all_executors: Synthesis) -> None:
        functions = {
            f["FunctionName"]: f["Environment"]["Variables"]
            for f in all_executors.template.of_type("AWS::Lambda::Function").values()
            if "Environment" in f
        }
        for name in ("attestry-gate", "attestry-console-decision"):
            assert (functions[name]["ATTESTRY_RUNBOOK"], functions[name]["ATTESTRY_CONSOLE_APPROVALS"]) == (
                "attestry-ApproveVersion",
                "both",
            )
            assert functions[name]["ATTESTRY_API_URL"]
        assert functions["attestry-operate"]["ATTESTRY_CONSOLE_MFA"] == "required"

    def test_signals_come_from_cloudtrail_alone(self, all_executors: Synthesis) -> None:
        patterns = [r["EventPattern"] for r in all_executors.template.of_type("AWS::Events::Rule").values() if "EventPattern" in r]
        (signal,) = [p for p in patterns if p["detail"].get("eventName") == ["SendAutomationSignal"]]
        assert (signal["source"], signal["detail-type"]) == (["aws.ssm"], ["AWS API Call via CloudTrail"])

    def test_no_resource_has_a_form_that_was_not_linted(self, all_executors: Synthesis, all_options: Synthesis) -> None:
        linted = all_options.template.forms()
        for kind, places in all_executors.template.forms().items():
            assert places - linted.get(kind, set()) == set(), kind

    @pytest.mark.long
    def test_cfn_lint_finds_nothing(self, all_executors: Synthesis) -> None:
        assert lint(all_executors) == []
