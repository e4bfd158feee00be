"""The cdk-nag findings that stand where people approve in Systems Manager, besides those of `infra/findings.py`."""

from __future__ import annotations

from infra.nag import Acknowledgement

ACKNOWLEDGED_WITH_RUNBOOK = (
    Acknowledgement(
        ("IAMNoInlinePolicy",),
        ("ApprovalRunbook/Role",),
        "The policy fits this role alone; inline it goes with its role, and cannot be attached to another.",
    ),
    Acknowledgement(
        ("IAM5",),
        ("Functions/ConsoleDecisionRole", "Identity/Approver", "Identity/Validator"),
        "AWS names automations by random IDs; the function describes them, and whom an `aws:approve` step lists may answer it.",
        "Resource::*:automation-execution/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        ("Functions/GateRole", "Identity/Approver", "Identity/Validator"),
        "Any version of the registry's own runbook, and of no other document.",
        "Resource::*:automation-definition/attestry-ApproveVersion:[*]",
    ),
)
