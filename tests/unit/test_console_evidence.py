"""What a verifier makes of decisions from the AWS console: each names CloudTrail's event, and no other decision does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from attestry.domain.approvals import Verdict
from attestry.usecases.decide import decide_approval
from tests.evidence_world import ERIN, EvidenceWorld

DIGEST = "5e" * 32
FACTS: dict[str, Any] = {
    "call": "StartExecution",
    "on": "arn:aws:states:eu-central-1:123456789012:execution:attestry-RegistryDecision:x",
    "event_id": "e-1",
    "event_sha256": DIGEST,
    "at": "2026-01-02T03:04:05.000000Z",
    "mfa": False,
    "session_issuer": "arn:aws:iam::123456789012:role/attestry-approver",
}
METHOD = f"CloudTrail StartExecution, event e-1, SHA-256 {DIGEST}"


def decided(function: str, facts: dict[str, Any] | None, method: str = METHOD) -> EvidenceWorld:
    world = EvidenceWorld()
    world.validate()
    packet = world.open()
    decide_approval(
        world.meta,
        world.flow.attestors[function],
        world.store,
        world.head.model,
        world.head.number,
        Verdict.APPROVE,
        reason="reviewed in the console",
        by=replace(ERIN, method=method),
        at=world.clock.now(),
        packet_sha256=packet,
        console=facts,
    )
    world.sequence()
    return world


def test_a_decision_from_the_console_is_proven_and_told_with_its_event() -> None:
    world = decided("console_decision", FACTS)
    bundle = world.version_bundle()
    assert world.verify(bundle).verdict == "PROVEN"


@pytest.mark.parametrize(
    ("function", "facts", "method"),
    [
        ("console_decision", None, METHOD),
        ("decide", FACTS, METHOD),
        ("console_decision", FACTS, "AWS_IAM SigV4"),
        ("console_decision", {**FACTS, "event_sha256": "6f" * 32}, METHOD),
        ("console_decision", {**FACTS, "event_sha256": ""}, METHOD),
        ("console_decision", {**FACTS, "event_id": "e-2"}, METHOD),
        ("console_decision", {k: v for k, v in FACTS.items() if k != "mfa"}, METHOD),
        ("console_decision", {**FACTS, "more": "x"}, METHOD),
    ],
)
def test_a_decision_that_does_not_name_its_event_breaks_the_proof(function: str, facts: dict[str, Any] | None, method: str) -> None:
    world = decided(function, facts, method)
    verification = world.verify(world.version_bundle())
    assert verification.verdict == "BROKEN"
    assert "CloudTrail" in verification.reason
