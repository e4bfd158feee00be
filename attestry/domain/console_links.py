"""Links into the AWS console, and what is done there. A link names a page and a version, and carries no right: who opens it signs in first.

Step Functions and Systems Manager document no link that fills their forms in, so what is to be pasted stands beside the link.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote


def start_decision_link(state_machine_arn: str) -> str:
    """Return the page of `RegistryDecision`, from which an execution is started."""
    return _page(state_machine_arn, "states/home", f"#/statemachines/view/{quote(state_machine_arn, safe='')}")


def decision_input(model: str, number: int, action: str, packet_sha256: str, promotion: str = "") -> str:
    """Return the input of an execution about a version, or its promotion to an environment, its reason left for the person to write."""
    about = {"promotion": promotion} if promotion else {}
    body: dict[str, Any] = {"action": action, "model": model, "version": number, **about, "packet": packet_sha256, "reason": ""}
    return json.dumps(body)


def automation_link(state_machine_arn: str, automation_id: str) -> str:
    """Return the page of an automation, on which it is approved or denied."""
    return _page(state_machine_arn, f"systems-manager/automation/execution/{quote(automation_id, safe='')}")


def runbook_link(state_machine_arn: str, document: str) -> str:
    """Return the page on which an automation of the runbook is started."""
    return _page(state_machine_arn, f"systems-manager/automation/execute/{quote(document, safe='')}")


def _page(arn: str, path: str, fragment: str = "") -> str:
    region = arn.split(":")[3]
    return f"https://{region}.console.aws.amazon.com/{path}?region={region}{fragment}"
