"""Promotions through the API: the handlers of operate, gate, decide and registry, one behind the other."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.ports import Update
from attestry.usecases.records import version_key
from lambdas import console_decision, decide, gate, operate, registry
from tests.console import MACHINE, StandInExecutions, StandInTrail, delivered, identity, started
from tests.fakes import Killed, MemoryNotifier
from tests.promotions import PromotionWorld
from tests.unit.test_operate_handlers import SETTINGS

MODEL = "tumour-diagnosis"
VERSION = "/v1/models/{model}/versions/{number}"
PROMOTE, DECIDE, PACKET = f"POST {VERSION}/promotion", f"POST {VERSION}/decision", f"GET {VERSION}/packet"
BODY = {"to": "production", "reason": "CHG-4711"}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> PromotionWorld:
    world = PromotionWorld().staged()
    for module, function in ((operate, "operate"), (gate, "gate"), (decide, "decide"), (registry, "deploy")):
        ports = World(Settings({**SETTINGS, "ATTESTRY_DECISION_ARN": MACHINE}))
        made = {"meta": world.meta, "store": world.store, "attestor": world.flow.attestors[function], "clock": world.clock}
        ports.__dict__.update({**made, "functions": world.flow.functions, "notifier": world.flow.notifier})
        monkeypatch.setattr(module, "world", ports)
    world.flow.functions.handlers["gate"] = lambda event: gate.handler(dict(event), None)
    return world


def call(module: Any, route: str, body: Any = None, *, login: str = "henry", role: str = "deployer", **query: str) -> tuple[int, Any]:
    identity = {"userArn": f"arn:aws:sts::123456789012:assumed-role/attestry-{role}/{login}", "userId": f"AROA:{login}"}
    event = {
        "version": "2.0",
        "routeKey": route,
        "pathParameters": {"model": MODEL, "number": "1"},
        "queryStringParameters": query,
        "requestContext": {"requestId": "r1", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": identity}},
        "body": json.dumps(body) if body is not None else None,
        "isBase64Encoded": False,
    }
    answer = module.handler(event, None)
    return answer["statusCode"], json.loads(answer["body"])


def vote(login: str, decision: str = "approve", role: str = "approver", **more: Any) -> tuple[int, Any]:
    return call(decide, DECIDE, {"decision": decision, "reason": "reviewed", "promotion": "production", **more}, login=login, role=role)


def test_the_first_call_asks_and_the_one_after_the_approvals_begins_the_deployment(world: PromotionWorld) -> None:
    status, answer = call(operate, PROMOTE, BODY)
    assert (status, answer["standing"], answer["promotion"]["state"], answer["promotion"]["asked_by"]) == (202, "DEPLOYED", "OPEN", "henry")
    assert call(operate, PROMOTE, BODY)[1] == answer
    assert "deploy" not in [name for name, _ in world.flow.functions.sent]
    status, shown = call(registry, PACKET, login="erin", role="approver", promotion="production")
    assert (status, shown["sha256"]) == (200, answer["promotion"]["packet"])
    status, first = vote("erin", packet_sha256=shown["sha256"])
    assert (status, first["complete"], first["missing"], first["packet_sha256"]) == (200, False, "1 approver", shown["sha256"])
    status, second = vote("grace")
    assert (status, second["complete"], second["promotion"]["state"]) == (200, True, "APPROVED")
    status, begun = call(operate, PROMOTE, BODY)
    assert (status, begun["stage"], begun["status"], "promotion" in begun) == (202, "DEPLOYMENT", "RUNNING", False)
    name, message = world.flow.functions.sent[-1]
    assert (name, message["environment"], message["principal"]["person"]) == ("deploy", "production", "henry")


def test_the_sweep_has_the_gate_tell_of_a_promotion_of_which_nobody_was_told(world: PromotionWorld) -> None:
    faults = world.meta.faults
    gate.world.__dict__["notifier"] = world.flow.notifier = MemoryNotifier(faults)
    faults.fail_before(1, method="notify", error=Killed())
    with pytest.raises(Killed):
        call(operate, PROMOTE, BODY)
    faults.clear()
    world.clock.advance(minutes=10)
    assert operate.handler({"action": "lapse_due"}, None) == {"lapsed": [], "told": 1, "errors": []}
    ((subject, message),) = world.flow.notifier.messages
    assert subject == "the promotion of tumour-diagnosis@1 to production waits for approval"
    assert message["console"]["decision"]["link"].startswith("https://")
    assert operate.handler({"action": "lapse_due"}, None)["told"] == 0


def test_the_page_of_a_version_shows_who_asked_and_who_approved(world: PromotionWorld) -> None:
    call(operate, PROMOTE, BODY)
    vote("erin")
    status, shown = call(registry, f"GET {VERSION}", login="erin", role="approver")
    assert (status, shown["promotions"]["production"]["state"]) == (200, "OPEN")
    assert [(d["person"], d["decision"], d["environment"]) for d in shown["promotion_decisions"]] == [("erin", "approve", "production")]
    assert [a["person"] for a in shown["approvals"]] == ["erin"]


def test_a_promotion_is_withdrawn_by_the_route_that_asks(world: PromotionWorld) -> None:
    call(operate, PROMOTE, BODY)
    status, answer = call(operate, PROMOTE, {**BODY, "withdraw": True})
    assert (status, answer["promotion"]["state"]) == (202, "WITHDRAWN")
    assert vote("erin")[0] == 409
    assert call(operate, PROMOTE, BODY)[1]["promotion"]["state"] == "OPEN"


@pytest.mark.parametrize(
    ("login", "role", "more", "status", "code"),
    [
        ("henry", "approver", {}, 403, "self_approval"),
        ("dana", "approver", {}, 403, "self_approval"),
        ("erin", "consumer", {}, 403, "forbidden"),
        ("erin", "approver", {"promotion": "staging"}, 409, "conflict"),
        ("erin", "approver", {"promotion": 7}, 400, "invalid_input"),
        ("erin", "approver", {"packet_sha256": "0" * 64}, 409, "conflict"),
        ("erin", "approver", {"conditions": {"max_predictions": 5}}, 400, "invalid_input"),
    ],
)
def test_a_decision_that_may_not_be_is_refused_and_changes_nothing(
    world: PromotionWorld, login: str, role: str, more: dict[str, Any], status: int, code: str
) -> None:
    call(operate, PROMOTE, BODY)
    before = world.head
    answer = vote(login, role=role, **more)
    assert (answer[0], answer[1]["code"]) == (status, code)
    assert world.head == before


def test_a_decision_on_the_version_is_none_on_its_promotion(world: PromotionWorld) -> None:
    call(operate, PROMOTE, BODY)
    status, answer = call(decide, DECIDE, {"decision": "approve", "reason": "again"}, login="grace", role="approver")
    assert (status, world.head.promotions["production"]["state"]) == (409, "OPEN"), answer


def test_nobody_but_a_deployer_asks_and_what_the_gate_refuses_is_told(world: PromotionWorld) -> None:
    assert call(operate, PROMOTE, BODY, login="erin", role="approver")[0] == 403
    assert call(operate, PROMOTE, {**BODY, "to": "elsewhere"})[0] == 409
    status, answer = call(operate, PROMOTE, BODY, login="stranger")
    assert (status, answer["code"]) == (403, "unproven_identity")
    assert world.head.promotions == {}


def test_a_deployment_of_what_is_not_approved_for_its_environment_is_refused_before_it_begins(world: PromotionWorld) -> None:
    world.approved()
    world.place()
    promotions = {"production": {**world.head.promotions["production"], "state": "LAPSED"}}
    world.meta.transact([Update(version_key(MODEL, 1), {"promotions": promotions})])
    status, answer = call(operate, f"POST {VERSION}/deployment", {"reason": "again"})
    assert (status, "ask for it again" in answer["detail"]) == (409, True)


class TestConsole:
    """`RegistryDecision` with `promotion` in its input."""

    @pytest.fixture
    def console(self, world: PromotionWorld, monkeypatch: pytest.MonkeyPatch) -> StandInExecutions:
        executions = StandInExecutions()
        ports = World(Settings({**SETTINGS, "ATTESTRY_DECISION_ARN": MACHINE}))
        made = {"meta": world.meta, "store": world.store, "attestor": world.flow.attestors["console_decision"], "clock": world.clock}
        ports.__dict__.update({**made, "functions": world.flow.functions, "trail": StandInTrail(), "executions": executions})
        monkeypatch.setattr(console_decision, "world", ports)
        return executions

    def start(self, world: PromotionWorld, console: StandInExecutions, login: str, **given: Any) -> dict[str, Any]:
        body = {"action": "approve", "model": MODEL, "version": 1, "reason": "read in the console", "promotion": "production", **given}
        at = given.pop("at", world.clock.now())
        body.pop("at", None)
        arn = console.start(body, name=login, at=at)
        console_decision.handler(delivered(started(identity(login), name=login, at=at)), None)
        return dict(console_decision.handler({"input": body, "execution_arn": arn}, None))

    def test_two_people_approve_a_promotion_in_the_console_and_it_is_proven(
        self, world: PromotionWorld, console: StandInExecutions
    ) -> None:
        world.ask()
        packet = world.head.promotions["production"]["packet"]
        first = self.start(world, console, "erin", packet=packet)
        assert (first["outcome"], first["complete"], first["packet_sha256"]) == ("DECIDED", False, packet)
        assert self.start(world, console, "grace")["complete"]
        world.place()
        world.sequence()
        verified = world.verify(world.version_bundle())
        assert verified.verdict == "PROVEN", verified.reason

    def test_who_asked_decides_in_no_console(self, world: PromotionWorld, console: StandInExecutions) -> None:
        world.ask()
        refused = self.start(world, console, "henry")
        assert (refused["outcome"], refused["error"]["code"]) == ("REFUSED", "self_approval")

    def test_a_call_from_before_the_promotion_was_asked_for_is_about_something_else(
        self, world: PromotionWorld, console: StandInExecutions
    ) -> None:
        early = world.clock.now()
        world.clock.at += timedelta(minutes=1)
        world.ask()
        refused = self.start(world, console, "erin", at=early)
        assert (refused["outcome"], "before the promotion of" in refused["error"]["message"]) == ("REFUSED", True)
        assert world.head.promotions["production"]["state"] == "OPEN"

    def test_a_decision_on_the_version_is_none_on_its_promotion_there_either(
        self, world: PromotionWorld, console: StandInExecutions
    ) -> None:
        world.ask()
        assert self.start(world, console, "ivan", promotion=None)["outcome"] == "REFUSED"
        assert self.start(world, console, "grace", promotion="staging")["outcome"] == "REFUSED"
        assert world.head.promotions["production"]["state"] == "OPEN"
