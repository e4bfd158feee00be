"""The approval runbook as an Automation document of Systems Manager (schema 0.3), built in Python.

A step asks the registry whom to ask and what to show; Automation takes a function's answer as text, so a script of three lines reads it.
Then people answer, and the registry is asked to record their answers: again after a while where CloudTrail has not yet said who they are.
Steps only lead forward, so the tries stand one behind the other; together they last longer than CloudTrail takes. The last step fails the
automation where an answer did not count, so that what is green in the console is recorded.

What Systems Manager counts approves nothing (`attestry/usecases/console_automation.py`).
"""

from __future__ import annotations

from typing import Any

Step = dict[str, Any]

APPROVE = "Approve"
WAITING = "WAITING-FOR-CLOUDTRAIL"
MAX_WAIT_SECONDS = 2_592_000
"""The longest that Systems Manager waits for approvers: 30 days."""

PAUSES = ("PT30S", "PT2M", "PT5M", "PT10M")
"""Between tries to find out who answered; CloudTrail delivers within 15 minutes on average, as AWS says."""

_READ_ANSWER = """import json


def read_answer(events, context):
    answer = events["answer"]
    return json.loads(answer) if isinstance(answer, str) else answer
"""


def runbook_document(*, function_arn: str, role_arn: str, topic_arn: str, wait_seconds: int) -> Step:
    """Return the document.

    Args:
        function_arn: the function that decides in the console.
        role_arn: the role that the automation runs under.
        topic_arn: the topic that Systems Manager tells approvers by; its name begins with `Automation`, as the service asks.
        wait_seconds: how long people have.
    """
    of = {"automation": "{{ automation:EXECUTION_ID }}"}
    ask = of | {"step": "ask", "model": "{{ model }}", "version": "{{ version }}", "promotion": "{{ promotion }}"}
    steps = [_invoke("AskRegistry", function_arn, ask, then="ReadAnswer"), _read_answer(), _approve(topic_arn, wait_seconds)]
    for number, pause in enumerate((*PAUSES, None), start=1):
        steps.append(_invoke(f"Record{number}", function_arn, of | {"step": "record"}, then=f"Known{number}" if pause else "Report"))
        if pause:
            steps += [_known(number), _pause(number, pause)]
    steps.append(_invoke("Report", function_arn, of | {"step": "report"}, then=None))
    return {
        "schemaVersion": "0.3",
        "description": "Approve or reject a version or its promotion: read the packet whose digest is shown. Your comment is the reason.",
        "assumeRole": role_arn,
        "parameters": {
            "model": {
                "type": "String",
                "description": "Name of the model",
                "allowedPattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
            },
            "version": {"type": "String", "description": "Number of the version", "allowedPattern": "^[1-9][0-9]{0,8}$"},
            "promotion": {
                "type": "String",
                "description": "Environment, to decide on the promotion there; empty to decide on the version",
                "default": "",
                "allowedPattern": "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$",
            },
        },
        "mainSteps": steps,
        "outputs": ["ReadAnswer.Message", f"{APPROVE}.ApprovalStatus", "Report.Payload"],
    }


def _invoke(name: str, function_arn: str, payload: Step, *, then: str | None) -> Step:
    step: Step = {
        "name": name,
        "action": "aws:invokeLambdaFunction",
        # The function may wait for CloudTrail's event history; its own limit is 60 s.
        "timeoutSeconds": 90,
        "maxAttempts": 3,
        "onFailure": "Abort",
        "inputs": {"FunctionName": function_arn, "InputPayload": payload},
    }
    return step | ({"nextStep": then} if then else {"isEnd": True})


def _read_answer() -> Step:
    fields = (("Approvers", "approvers", "StringList"), ("Minimum", "minimum", "Integer"), ("Message", "message", "String"))
    return {
        "name": "ReadAnswer",
        "action": "aws:executeScript",
        "timeoutSeconds": 60,
        "onFailure": "Abort",
        "inputs": {
            "Runtime": "python3.11",
            "Handler": "read_answer",
            "InputPayload": {"answer": "{{ AskRegistry.Payload }}"},
            "Script": _READ_ANSWER,
        },
        "outputs": [{"Name": name, "Selector": f"$.Payload.{field}", "Type": kind} for name, field, kind in fields],
        "nextStep": APPROVE,
    }


def _approve(topic_arn: str, wait_seconds: int) -> Step:
    return {
        "name": APPROVE,
        "action": "aws:approve",
        "timeoutSeconds": min(wait_seconds, MAX_WAIT_SECONDS),
        # A rejection, or too few answers in time, fails the step; the answers that were given are recorded all the same.
        "onFailure": "Continue",
        "inputs": {
            "NotificationArn": topic_arn,
            "Message": "{{ ReadAnswer.Message }}",
            "MinRequiredApprovals": "{{ ReadAnswer.Minimum }}",
            "Approvers": "{{ ReadAnswer.Approvers }}",
        },
        "nextStep": "Record1",
    }


def _known(number: int) -> Step:
    waiting = {"NextStep": f"Wait{number}", "Variable": f"{{{{ Record{number}.Payload }}}}", "Contains": WAITING}
    return {"name": f"Known{number}", "action": "aws:branch", "inputs": {"Choices": [waiting], "Default": "Report"}}


def _pause(number: int, duration: str) -> Step:
    return {"name": f"Wait{number}", "action": "aws:sleep", "inputs": {"Duration": duration}, "nextStep": f"Record{number + 1}"}
