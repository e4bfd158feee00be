"""Promotions decided on in Systems Manager: whose answers count, and that an answer to the one is none to the other."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from attestry.aws.audit import AuditNotes
from attestry.aws.automations import SsmAutomations
from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.approvals import Verdict
from attestry.domain.audit import AUDIT
from attestry.domain.errors import ConflictError, InvalidInputError, UnavailableError
from attestry.usecases.approval_notice import SSM, ConsoleWays
from attestry.usecases.conditions import LAPSES
from attestry.usecases.lapse import lapse_due
from attestry.usecases.open_promotion import open_promotion
from attestry.usecases.promotion_notice import tell_again
from lambdas import console_decision
from tests.console import MACHINE, StandInExecutions, StandInTrail, cloudtrail, delivered, identity
from tests.fakes import Faults, Killed, MemoryNotifier
from tests.promotions import DEPLOYER, ERIN, GRACE, IVAN, TWO, PromotionWorld
from tests.unit.test_console_automation import AUTOMATION, OTHER, RUNBOOK, StandInSsm
from tests.versions import ACCOUNT

MODEL = "tumour-diagnosis"
FIRST = "1c4c2f6e-1b3d-4e5f-8a7b-6c5d4e3f2a1d"


class Desk:
    """Systems Manager, CloudTrail and EventBridge over a registry in which a promotion waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rule: Mapping[str, Any] = TWO) -> None:
        self.registry = world = PromotionWorld().staged(rule)
        self.ssm, self.trail = StandInSsm(), StandInTrail(faults=world.meta.faults)
        settings = {
            "ATTESTRY_ACCOUNT": ACCOUNT,
            "ATTESTRY_API_URL": "https://api.example.com",
            "ATTESTRY_CONSOLE_APPROVALS": "both",
            "ATTESTRY_DECISION_ARN": MACHINE,
            "ATTESTRY_GATE_FUNCTION": "gate",
            "ATTESTRY_RUNBOOK": RUNBOOK,
        }
        made = World(Settings(settings))
        self.automations = SsmAutomations(self.ssm, RUNBOOK)  # type: ignore[arg-type]
        made.__dict__.update(
            meta=world.meta,
            store=world.store,
            attestor=world.flow.attestors["console_decision"],
            functions=world.flow.functions,
            clock=world.clock,
            trail=self.trail,
            audit=AuditNotes(world.meta, world.clock, account=ACCOUNT, prefix="attestry"),
            automations=self.automations,
            executions=StandInExecutions(),
        )
        monkeypatch.setattr(console_decision, "world", made)
        self.events = 0

    def asked(self, automation: str = AUTOMATION) -> dict[str, Any]:
        """Ask for the promotion, and start the runbook for it."""
        self.registry.ask()
        return self.begin(automation)

    def begin(self, automation: str = AUTOMATION, promotion: str = "production") -> dict[str, Any]:
        """Start the runbook, and let it come to its `aws:approve` step; return what the registry answered to its first."""
        self.ssm.begin(automation, {"model": [MODEL], "version": ["1"], **({"promotion": [promotion]} if promotion else {})})
        self.ssm.executions[automation]["ExecutionStartTime"] = self.registry.clock.now()
        asked = self.step("ask", automation, model=MODEL, version="1", promotion=promotion)
        self.ssm.show(automation, asked["message"])
        return asked

    def step(self, step: str, automation: str = AUTOMATION, **more: Any) -> dict[str, Any]:
        return dict(console_decision.handler({"automation": automation, "step": step, **more}, None))

    def record(self, login: str, decision: str = "Approve", *, role: str = "approver", automation: str = AUTOMATION) -> dict[str, Any]:
        """Let somebody answer in the console; return CloudTrail's record of it."""
        who, at = identity(login, role), self.registry.clock.now()
        self.events += 1
        self.ssm.answer(automation, who["arn"], decision, at, "read it")
        asked = {"automationExecutionId": automation, "signalType": decision, "payload": "HIDDEN_DUE_TO_SECURITY_REASONS"}
        event = {"requestParameters": asked, "eventID": f"{self.events:036d}"}
        record = cloudtrail("SendAutomationSignal", who, at=at, source="ssm.amazonaws.com", **event)
        self.trail.records.append(record)
        return record

    def answer(self, login: str, decision: str = "Approve", **more: Any) -> dict[str, Any]:
        """Let somebody answer, and EventBridge bring the record; return what became of this answer."""
        record = self.record(login, decision, **more)
        told = console_decision.handler(delivered(record), None)
        return dict(told["decisions"][-1]) if told.get("decisions") else dict(told)

    @property
    def state(self) -> str:
        return str(self.registry.head.promotions["production"]["state"])

    def decided(self) -> list[str]:
        rows = self.registry.meta.query(f"VERSION#{MODEL}#1", prefix="PROMOTION#")
        return [str(row["person"]) for row in rows if "decision" in row]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


class TestAsking:
    def test_approvers_are_whom_the_environment_asks_less_who_submitted_and_who_asked(self, desk: Desk) -> None:
        asked = desk.asked()
        logins = [arn.rpartition("/")[2] for arn in asked["approvers"]]
        assert {"erin", "grace", "ivan"} <= set(logins)
        assert not {"dana", "henry"} & set(logins)
        assert asked["minimum"] == 2
        assert asked["packet_sha256"] == desk.registry.head.promotions["production"]["packet"]
        assert asked["packet_sha256"] in asked["message"]
        assert asked["message"].startswith("The promotion of tumour-diagnosis@1 to production waits for 2 approver")
        assert "attestry packet tumour-diagnosis@1 --promotion production" in asked["message"]
        assert "/v1/models/tumour-diagnosis/versions/1/packet?promotion=production" in asked["message"]

    def test_who_has_approved_is_not_asked_again(self, desk: Desk) -> None:
        desk.asked()
        desk.answer("erin")
        asked = desk.begin(OTHER)
        assert asked["minimum"] == 1
        assert "erin" not in [arn.rpartition("/")[2] for arn in asked["approvers"]]

    def test_a_promotion_that_does_not_wait_is_refused(self, desk: Desk) -> None:
        with pytest.raises(ConflictError, match="no promotion of tumour-diagnosis@1 to production waits"):
            desk.begin()
        desk.registry.ask()
        desk.registry.withdraw()
        with pytest.raises(ConflictError, match="it is WITHDRAWN"):
            desk.begin()

    def test_what_systems_manager_cannot_carry_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConflictError, match="the promotion of tumour-diagnosis@1 to production asks for approvers' own signatures"):
            Desk(monkeypatch, {**TWO, "signed": True}).asked()

    def test_an_input_out_of_form_is_refused(self, desk: Desk) -> None:
        desk.registry.ask()
        with pytest.raises(InvalidInputError):
            desk.step("ask", model=MODEL, version="1", promotion="../x")


class TestDeciding:
    def test_two_people_approve_and_it_is_proven(self, desk: Desk) -> None:
        desk.asked()
        first, second = desk.answer("erin"), desk.answer("grace")
        assert (first["outcome"], first["complete"], second["complete"]) == ("DECIDED", False, True)
        assert second["promotion"] == "production"
        assert second["packet_sha256"] == desk.registry.head.promotions["production"]["packet"]
        assert desk.step("report")["outcome"] == "RECORDED"
        assert desk.registry.flow.functions.sent == [], "nobody waits for it but the deployer"
        desk.registry.place()
        desk.registry.sequence()
        verified = desk.registry.verify(desk.registry.version_bundle())
        assert verified.verdict == "PROVEN", verified.reason

    def test_one_rejection_ends_it(self, desk: Desk) -> None:
        desk.asked()
        assert desk.answer("erin", "Reject")["complete"]
        assert desk.state == "REJECTED"
        assert desk.registry.head.standing == "DEPLOYED"

    def test_the_same_again_changes_nothing(self, desk: Desk) -> None:
        desk.asked()
        record = desk.record("erin")
        console_decision.handler(delivered(record), None)
        rows = dict(desk.registry.meta.rows)
        console_decision.handler(delivered(record), None)
        desk.step("record")
        assert desk.registry.meta.rows == rows

    @pytest.mark.parametrize("after", [False, True])
    def test_a_crash_at_any_call_is_made_good_by_the_next(self, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
        for call in range(1, 40):
            desk = Desk(monkeypatch, {**TWO, "people": {"roles": ["approver"], "count": 1}})
            desk.asked()
            desk.record("erin")
            faults = desk.registry.meta.faults
            faults.clear()
            (faults.fail_after if after else faults.fail_before)(call, error=Killed())
            try:
                desk.step("record")
            except Killed:
                faults.clear()
            else:
                assert call > 8
                return
            assert desk.step("record")["outcome"] == "RECORDED"
            assert (desk.state, desk.decided()) == ("APPROVED", ["erin"])
        pytest.fail("it never ended")


class TestAttacks:
    @pytest.mark.parametrize(
        ("login", "role", "code"),
        [
            ("henry", "approver", "self_approval"),
            ("dana", "approver", "self_approval"),
            ("erin", "deployer", "forbidden"),
            ("vera", "validator", "forbidden"),
            ("nobody", "approver", "unproven_identity"),
        ],
    )
    def test_whose_answer_does_not_count(self, desk: Desk, login: str, role: str, code: str) -> None:
        desk.asked()
        refused = desk.answer(login, role=role)
        assert (refused["outcome"], refused["error"]["code"]) == ("REFUSED", code)
        assert (desk.state, desk.decided()) == ("OPEN", [])

    def test_one_person_is_not_two(self, desk: Desk) -> None:
        desk.asked()
        desk.answer("erin")
        desk.begin(OTHER)
        desk.answer("erin", automation=OTHER)
        assert (desk.state, desk.decided()) == ("OPEN", ["erin"])

    def test_an_automation_about_the_version_decides_on_no_promotion(self, desk: Desk) -> None:
        """Its starter left the environment out, so that people were shown something else."""
        asked = desk.asked()
        desk.ssm.begin(OTHER, {"model": [MODEL], "version": ["1"]})
        desk.ssm.show(OTHER, asked["message"])
        assert desk.answer("erin", automation=OTHER)["outcome"] == "REFUSED"
        assert (desk.state, desk.decided()) == ("OPEN", [])

    def test_an_automation_that_has_shown_the_versions_own_packet_decides_on_no_promotion(self, desk: Desk) -> None:
        desk.registry.ask()
        desk.ssm.begin(AUTOMATION, {"model": [MODEL], "version": ["1"], "promotion": ["production"]})
        desk.ssm.show(AUTOMATION, f"Packet, SHA-256: {desk.registry.head.packet['sha256']}")
        refused = desk.answer("erin")
        assert "has not shown the packet of the promotion of tumour-diagnosis@1 to production" in refused["error"]["message"]
        assert desk.decided() == []

    def test_an_automation_of_an_earlier_promotion_decides_on_no_later_one(self, desk: Desk) -> None:
        desk.asked(FIRST)
        desk.registry.decide(ERIN, Verdict.REJECT)
        desk.registry.clock.at += timedelta(minutes=5)
        desk.registry.ask()
        refused = desk.answer("grace", automation=FIRST)
        assert (refused["outcome"], "has not shown" in refused["error"]["message"]) == ("REFUSED", True)
        assert desk.state == "OPEN"

    def test_an_answer_that_cloudtrail_does_not_tell_of_decides_nothing_and_the_automation_fails(self, desk: Desk) -> None:
        desk.asked()
        desk.ssm.answer(AUTOMATION, identity("erin")["arn"], "Approve", desk.registry.clock.now(), "forged")
        assert desk.step("record")["outcome"] == "WAITING-FOR-CLOUDTRAIL"
        with pytest.raises(ConflictError, match="CloudTrail did not say who answered"):
            desk.step("report")
        assert desk.decided() == []

    def test_a_record_of_another_automation_is_not_taken_for_this_one(self, desk: Desk) -> None:
        desk.asked()
        record = desk.record("erin")
        assert console_decision.handler(delivered(record), None)["decisions"][0]["outcome"] == "DECIDED"
        desk.begin(OTHER)
        replayed = {**record, "requestParameters": {**record["requestParameters"], "automationExecutionId": OTHER}}
        assert console_decision.handler(delivered(replayed), None)["outcome"] == "REFUSED"
        assert desk.decided() == ["erin"]

    def test_an_automation_for_an_environment_out_of_form_decides_nothing(self, desk: Desk) -> None:
        asked = desk.asked()
        desk.ssm.begin(OTHER, {"model": [MODEL], "version": ["1"], "promotion": ["Production!"]})
        desk.ssm.show(OTHER, asked["message"])
        assert desk.answer("erin", automation=OTHER)["outcome"] == "REFUSED"
        assert desk.decided() == []
        assert any(row["act"] == "console.automation" for row in desk.registry.meta.query(AUDIT))

    def test_more_answers_than_systems_manager_asks_for_are_no_quorum_of_the_environment(self, desk: Desk) -> None:
        desk.asked()
        desk.answer("erin")
        desk.answer("henry")
        with pytest.raises(ConflictError, match="henry asked for the promotion"):
            desk.step("report")
        assert desk.state == "OPEN"


class FaultySsm:
    """Systems Manager, a call of which may be the last one that its caller makes."""

    def __init__(self, ssm: StandInSsm, faults: Faults) -> None:
        self.ssm, self.faults = ssm, faults

    def start_automation_execution(self, **request: Any) -> Any:
        return self.faults.run("FaultySsm.start", lambda: self.ssm.start_automation_execution(**request))


class TestStarting:
    def notice(self, desk: Desk, by: Any = DEPLOYER) -> Mapping[str, Any]:
        world = desk.registry
        ways = ConsoleWays(frozenset({"decision", SSM}), MACHINE, RUNBOOK, desk.automations, "https://api.example.com")
        ports = (world.meta, world.flow.attestors["gate"], world.store, world.flow.notifier)
        open_promotion(*ports, MODEL, 1, ways=ways, **world.told(by))
        return world.flow.notifier.messages[-1][1]

    def test_the_runbook_is_started_for_the_promotion_and_the_notice_leads_to_it(self, desk: Desk) -> None:
        told = self.notice(desk)
        (started,) = desk.ssm.executions.values()
        assert started["Parameters"] == {"model": [MODEL], "version": ["1"], "promotion": ["production"]}
        assert told["console"]["systems_manager"]["automation"] == AUTOMATION
        assert '"promotion": "production"' in told["console"]["decision"]["paste"]["approve"]
        assert told["packet_sha256"] in told["console"]["decision"]["paste"]["approve"]
        assert "https://api.example.com/v1/models" in told["packet"]

    @pytest.mark.parametrize(("call", "n", "told"), [("start", 1, 0), ("notify", 1, 0), ("transact", 3, 1)])
    def test_cut_off_before_or_behind_the_telling_people_are_told_by_the_sweep_what_they_would_have_been_told(
        self, desk: Desk, call: str, n: int, told: int
    ) -> None:
        world = desk.registry
        at, rows = world.clock.at, copy.deepcopy(world.meta.rows)
        ordinary = self.notice(desk)
        world.clock.at, world.meta.rows = at, rows
        desk.ssm = StandInSsm()
        desk.automations = SsmAutomations(FaultySsm(desk.ssm, world.meta.faults), RUNBOOK)  # type: ignore[arg-type]
        world.flow.notifier = MemoryNotifier(world.meta.faults)
        world.meta.faults.fail_before(n, method=call, error=Killed())
        with pytest.raises(Killed):
            self.notice(desk)
        world.meta.faults.clear()
        assert len(world.flow.notifier.messages) == told
        world.clock.advance(minutes=10)
        done = lapse_due(world.meta, world.flow.attestors["operate"], world.flow.notifier, self.gate(desk), at=world.clock.now())
        assert (done.told, done.errors) == (1, ())
        assert world.flow.notifier.messages[-1][1] == ordinary
        assert len(desk.ssm.executions) == 1
        assert world.meta.query(LAPSES) == []

    def test_a_runbook_whose_execution_nobody_noted_is_not_started_twice_and_people_are_led_to_it(self, desk: Desk) -> None:
        world = desk.registry
        world.meta.faults.fail_before(2, method="transact", error=Killed())
        with pytest.raises(Killed):
            self.notice(desk)
        world.meta.faults.clear()
        world.clock.advance(minutes=10)
        ports = (world.meta, world.flow.attestors["operate"], world.flow.notifier)
        assert lapse_due(*ports, self.gate(desk), at=world.clock.now()).told == 1
        told = world.flow.notifier.messages[-1][1]
        assert told["console"]["systems_manager"]["fill_in"] == {"model": MODEL, "version": 1, "promotion": "production"}
        assert len(desk.ssm.executions) == 1

    def test_a_gate_that_does_not_answer_leaves_the_telling_to_the_next_sweep(self, desk: Desk) -> None:
        world = desk.registry
        world.flow.notifier = MemoryNotifier(world.meta.faults)
        world.meta.faults.fail_before(1, method="notify", error=Killed())
        with pytest.raises(Killed):
            self.notice(desk)
        world.meta.faults.clear()
        world.clock.advance(minutes=10)

        def silent(_: Any) -> bool:
            raise UnavailableError("the function gate failed")

        ports = (world.meta, world.flow.attestors["operate"], world.flow.notifier)
        assert lapse_due(*ports, silent, at=world.clock.now()).errors == (f"{MODEL}@1: the function gate failed",)
        assert lapse_due(*ports, self.gate(desk), at=world.clock.now()).told == 1
        assert lapse_due(*ports, self.gate(desk), at=world.clock.now()).told == 0

    @staticmethod
    def gate(desk: Desk) -> Any:
        """What the gate does for the sweep."""
        world = desk.registry
        ways = ConsoleWays(frozenset({"decision", SSM}), MACHINE, RUNBOOK, desk.automations, "https://api.example.com")
        return lambda asked: tell_again(world.meta, world.flow.notifier, json.loads(json.dumps(asked)), ways)

    def test_where_signatures_are_asked_for_none_is_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        desk = Desk(monkeypatch, {**TWO, "signed": True})
        told = self.notice(desk)
        assert desk.ssm.executions == {}
        assert set(told["console"]) == {"decision"}
        assert set(told["console"]["decision"]["paste"]) == {"reject"}

    def test_each_opening_has_an_automation_of_its_own(self, desk: Desk) -> None:
        self.notice(desk)
        tokens = set(desk.ssm.tokens)
        for person in (GRACE, IVAN):
            if desk.state == "OPEN":
                desk.registry.decide(person, Verdict.REJECT)
        self.notice(desk)
        assert len(set(desk.ssm.tokens) - tokens) == 1
