"""What people are told of an approval: everything that it takes to decide, and nothing that decides by being followed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.console_links import automation_link, runbook_link, start_decision_link
from attestry.ports import AutomationDescription
from attestry.usecases.approval_notice import ConsoleWays
from attestry.usecases.gate import open_approval
from infra.api import ROUTES
from lambdas import decide, gate, operate
from tests.approvals import MODEL, ApprovalWorld
from tests.console import MACHINE
from tests.versions import AT

BOTH = frozenset({"decision", "ssm"})


class StandInAutomations:
    """`attestry.ports.Automations` that remembers what was started."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int, str]] = []

    def start(self, model: str, number: int, *, token: str, promotion: str = "") -> str:
        self.started.append((model, number, token))
        return "9a4c2f6e-1b3d-4e5f-8a7b-6c5d4e3f2a1b"

    def describe(self, automation_id: str) -> AutomationDescription | None:
        return None


def opened(
    policy: ApprovalPolicy | None = None, ways: frozenset[str] = BOTH
) -> tuple[ApprovalWorld, dict[str, Any], StandInAutomations, str]:
    world, automations = ApprovalWorld(), StandInAutomations()
    world.judged(policy=policy or ApprovalPolicy(False, ("approver",), 1))
    token = world.pipeline.wait_for_token(world.head().execution_id)
    ports = (world.meta, world.attestor, world.store, world.pipeline, world.notifier)
    told = ConsoleWays(ways, MACHINE, "attestry-ApproveVersion", automations, "https://api.example.com")
    open_approval(*ports, model=MODEL, number=1, token=token, at=AT, ways=told)
    ((_, message),) = world.notifier.messages
    return world, dict(message), automations, token


def test_the_message_names_the_packet_and_every_way_to_decide_on_it() -> None:
    world, message, automations, _ = opened()
    packet = world.head().packet["sha256"]
    assert message["packet_sha256"] == packet
    assert message["commands"][0] == "attestry packet credit-risk@1"
    assert message["commands"][1].startswith("attestry approve credit-risk@1 --reason ")
    pasted = json.loads(message["console"]["decision"]["paste"]["approve"])
    assert pasted == {"action": "approve", "model": MODEL, "version": 1, "packet": packet, "reason": ""}
    assert message["console"]["decision"]["link"] == start_decision_link(MACHINE)
    (started,) = automations.started
    assert started[:2] == (MODEL, 1)
    assert message["console"]["systems_manager"]["link"].endswith("/9a4c2f6e-1b3d-4e5f-8a7b-6c5d4e3f2a1b?region=eu-central-1")


def test_what_is_pasted_without_a_reason_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from attestry.domain.console_request import read_console_request
    from attestry.domain.errors import InvalidInputError

    _, message, _, _ = opened()
    with pytest.raises(InvalidInputError, match="reason"):
        read_console_request(json.loads(message["console"]["decision"]["paste"]["approve"]))


def test_the_message_holds_no_token_and_its_links_no_signature() -> None:
    world, message, _, token = opened()
    text = json.dumps(message)
    assert token == world.head().token
    assert token not in text
    for link in re.findall(r"https://[^\"\\ ]+", text):
        assert not re.search(r"(?i)token|signature|X-Amz|credential|decision=|action=", link), link


def test_no_route_approves_or_operates_by_get() -> None:
    acting = {r.path for r in ROUTES if r.function in ("decide", "operate") and r.method == "POST"}
    assert "/v1/models/{model}/versions/{number}/decision" in acting
    read = {r.path for r in ROUTES if r.function in ("decide", "operate") and r.method != "POST"}
    # Who declared a conflict of interest is read from where it is declared, and nothing else is.
    assert read <= {"/v1/models/{model}/conflicts"}
    assert all(route.startswith("POST ") for route in operate.ROUTES)
    assert [route for route in decide.ROUTES if not route.startswith("POST ")] == ["GET /v1/models/{model}/conflicts"]


def test_where_signatures_are_asked_for_the_console_is_offered_for_a_rejection_alone() -> None:
    _, message, automations, _ = opened(ApprovalPolicy(False, ("approver",), 1, signed=True))
    assert list(message["console"]["decision"]["paste"]) == ["reject"]
    assert "systems_manager" not in message["console"]
    assert automations.started == []


def test_nothing_is_started_for_a_policy_that_approves_by_itself() -> None:
    _, message, automations, _ = opened(ApprovalPolicy(True))
    assert "console" not in message
    assert automations.started == []


def test_without_systems_manager_none_of_it_is_told() -> None:
    _, message, automations, _ = opened(ways=frozenset({"decision"}))
    assert list(message["console"]) == ["decision"]
    assert automations.started == []


def test_links_lead_to_pages_of_the_region() -> None:
    assert start_decision_link(MACHINE).startswith(
        "https://eu-central-1.console.aws.amazon.com/states/home?region=eu-central-1#/statemachines/view/"
    )
    assert automation_link(MACHINE, "x").endswith("/systems-manager/automation/execution/x?region=eu-central-1")
    assert runbook_link(MACHINE, "attestry-ApproveVersion").endswith("/automation/execute/attestry-ApproveVersion?region=eu-central-1")


def test_a_gate_that_is_told_nothing_of_the_runbook_never_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from attestry.aws.settings import Settings
    from attestry.aws.world import World

    monkeypatch.setattr(gate, "world", World(Settings({"ATTESTRY_DECISION_ARN": MACHINE})))
    assert gate._ways() == ConsoleWays(frozenset({"decision"}), MACHINE)
