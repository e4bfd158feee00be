"""What people are told when a version waits for their approval: what it is decided on, and every way to decide.

The message names the packet by its digest and carries links and commands. None of them decides by being followed: a link leads to a page of
the AWS console whose user signs in, a command asks with the caller's own credentials, and the message holds no token.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.console_links import automation_link, decision_input, runbook_link, start_decision_link
from attestry.domain.errors import AttestryError
from attestry.domain.promotion import Promotion
from attestry.domain.version import Version
from attestry.ports import Automations

DECISION: Final = "decision"
SSM: Final = "ssm"


@dataclass(frozen=True)
class ConsoleWays:
    """How people approve in the AWS console.

    Attributes:
        ways: `decision` for RegistryDecision, `ssm` for the approval runbook.
        decision_arn: ARN of RegistryDecision, which says the region of the console too.
        runbook: name of the runbook; empty where there is none.
        automations: starts the runbook; None where there is none.
        api_url: where the API answers; empty for no link.
    """

    ways: frozenset[str]
    decision_arn: str
    runbook: str = ""
    automations: Automations | None = None
    api_url: str = ""


def start_runbook(version: Version, ways: ConsoleWays) -> str:
    """Start the approval runbook for a version, once for each opening of its approval; return its execution's ID, empty where none began.

    What Systems Manager refuses is no reason to keep a version from its approval: people are told to start it, or decide another way.
    """
    opened = f"{version.reference}\n{version.version_digest}\n{version.packet['sha256']}"
    return _start(version, ways, ApprovalPolicy.from_item(version.approval_policy), opened)


def start_promotion_runbook(version: Version, promotion: Promotion, policy: ApprovalPolicy, ways: ConsoleWays) -> str:
    """Start the approval runbook for a promotion, once for each opening of it; return as `start_runbook` does."""
    opened = f"{version.reference}\n{version.version_digest}\n{promotion.environment}\n{promotion.opened}\n{promotion.packet}"
    return _start(version, ways, policy, opened, promotion.environment)


def _start(version: Version, ways: ConsoleWays, policy: ApprovalPolicy, opened: str, promotion: str = "") -> str:
    if SSM not in ways.ways or ways.automations is None or policy.automatic or policy.signed:
        return ""
    token = hashlib.sha256(opened.encode()).hexdigest()
    try:
        return ways.automations.start(version.model, version.number, token=token, promotion=promotion)
    except AttestryError:
        return ""


def notice_of(version: Version, ways: ConsoleWays | None, automation: str = "") -> tuple[str, dict[str, Any]]:
    """Return subject and message.

    Args:
        version: the version that waits.
        ways: how people approve in the AWS console; None for not at all.
        automation: the execution of the runbook that waits for them, or empty.
    """
    route = f"/v1/models/{version.model}/versions/{version.number}/packet"
    reference, packet = str(version.reference), str(version.packet["sha256"])
    message: dict[str, Any] = {
        "model": version.model,
        "version": version.number,
        "metrics": dict(version.metrics),
        "gates": list(version.gates),
        "policy": dict(version.approval_policy),
        "packet_sha256": packet,
        "packet": f"attestry packet {reference}, or GET {(ways.api_url if ways else '') + route}",
        "commands": [
            f"attestry packet {reference}",
            f"attestry approve {reference} --reason '...'",
            f"attestry reject {reference} --reason '...'",
        ],
    }
    policy = ApprovalPolicy.from_item(version.approval_policy)
    if ways is not None and not policy.automatic:
        message["console"] = ways_in_console(version, ways, packet, automation, signed=policy.signed)
    return f"{reference} waits for approval", message


def ways_in_console(
    version: Version, ways: ConsoleWays, packet: str, automation: str, *, signed: bool, promotion: str = ""
) -> dict[str, Any]:
    """Return what a notice says of the ways to decide in the AWS console.

    Args:
        version: the version.
        ways: which ways there are.
        packet: SHA-256 of what is decided on.
        automation: the execution of the runbook that waits for people, or empty.
        signed: whether approvals need the approvers' own signatures.
        promotion: the environment, of a promotion.
    """
    told: dict[str, Any] = {}
    if DECISION in ways.ways:
        actions = ("reject",) if signed else ("approve", "reject")
        told["decision"] = {
            "link": start_decision_link(ways.decision_arn),
            "paste": {action: decision_input(version.model, version.number, action, packet, promotion) for action in actions},
        }
    fill_in = {"model": version.model, "version": version.number, **({"promotion": promotion} if promotion else {})}
    if SSM in ways.ways and not signed:
        told["systems_manager"] = (
            {"link": automation_link(ways.decision_arn, automation), "automation": automation}
            if automation
            else {"link": runbook_link(ways.decision_arn, ways.runbook), "fill_in": fill_in}
        )
    return told
