"""Automations of AWS Systems Manager in which people approve: the runbook's `aws:approve` step (Systems Manager User Guide).

What that step tells of its approvers, `ApproverDecisions`, is a list of JSON objects with `Approver`, `Decision`, `ApprovalDecisionTime`
and `Comment`. AWS documents the output and not its fields, so what has another form is passed over: it confirms nothing.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import error_code, translate
from attestry.ports import ApproverDecision, AutomationDescription

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

APPROVE_STEP: Final = "Approve"
"""Name of the runbook's step that waits for people."""

_ID_LENGTH = 36
_STARTED_BEFORE = frozenset({"IdempotentParameterMismatch", "IdempotentParameterMismatchException"})
_UNKNOWN = frozenset({"AutomationExecutionNotFoundException", "AutomationExecutionNotFound"})


class SsmAutomations:
    """`attestry.ports.Automations` over Systems Manager.

    Args:
        client: the client of Systems Manager.
        document: name of the runbook.
    """

    def __init__(self, client: SSMClient, document: str) -> None:
        self._client = client
        self._document = document

    def start(self, model: str, number: int, *, token: str, promotion: str = "") -> str:
        """Start the runbook for a version and return the execution's ID; with the same token it is started once, and the ID may be empty.

        Raises:
            UnavailableError: Systems Manager did not answer.
        """
        parameters = {"model": [model], "version": [str(number)], **({"promotion": [promotion]} if promotion else {})}
        try:
            return self._client.start_automation_execution(
                DocumentName=self._document, Parameters=parameters, ClientToken=str(uuid.UUID(hex=token[:32]))
            )["AutomationExecutionId"]
        except ClientError as error:
            if error_code(error) in _STARTED_BEFORE:
                return ""
            raise translate(error, f"start the approval of {model}@{number}") from error
        except BotoCoreError as error:
            raise translate(error, f"start the approval of {model}@{number}") from error

    def describe(self, automation_id: str) -> AutomationDescription | None:
        """Return what the service says of an automation, or None where there is none.

        Raises:
            UnavailableError: Systems Manager did not answer.
        """
        if len(automation_id) != _ID_LENGTH:
            return None
        try:
            found = self._client.get_automation_execution(AutomationExecutionId=automation_id)["AutomationExecution"]
        except ClientError as error:
            if error_code(error) in _UNKNOWN:
                return None
            raise translate(error, f"describe the automation {automation_id}") from error
        except BotoCoreError as error:
            raise translate(error, f"describe the automation {automation_id}") from error
        step: Mapping[str, Any] = next((s for s in found.get("StepExecutions", []) if _is_approval(s)), {})
        return AutomationDescription(
            automation_id=found["AutomationExecutionId"],
            document=found["DocumentName"].rpartition("/")[2],
            started=found["ExecutionStartTime"].astimezone(UTC),
            parameters={name: values[0] for name, values in found.get("Parameters", {}).items() if values},
            message=_plain(step.get("Inputs", {}).get("Message", "")),
            decisions=tuple(_decisions(step.get("Outputs", {}).get("ApproverDecisions", ()))),
        )


def _is_approval(step: Mapping[str, Any]) -> bool:
    return step.get("StepName") == APPROVE_STEP and step.get("Action") == "aws:approve"


def _plain(text: str) -> str:
    """Return a text that the service may have written as JSON."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def _decisions(outputs: Sequence[str]) -> Iterable[ApproverDecision]:
    for output in outputs:
        try:
            told = json.loads(output)
        except ValueError:
            continue
        for entry in told if isinstance(told, list) else [told]:
            if isinstance(entry, dict) and all(isinstance(entry.get(n), str) for n in ("Approver", "Decision", "ApprovalDecisionTime")):
                comment = str(entry.get("Comment") or "")
                yield ApproverDecision(entry["Approver"], entry["Decision"], entry["ApprovalDecisionTime"], comment)
