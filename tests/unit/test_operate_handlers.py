"""The handler of operate: kill, retirement and capture through the API, and what the sweep sends."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.rollout import Plan
from attestry.domain.stages import Stage, Standing, Status
from attestry.usecases.deploy import swap_pointer
from attestry.usecases.records import load_version, pointer_key
from attestry.usecases.rollout import begin_rollout
from lambdas import operate, sweep
from tests.fakes import FixedClock, MemoryFunctions, MemoryMetaStore, MemoryPipeline
from tests.versions import AT, ATTESTOR, ERIN, add_logins, make_approved, make_version

MODEL = "credit-risk"
SETTINGS = {
    "ATTESTRY_ACCOUNT": "123456789012",
    "ATTESTRY_DEPLOY_FUNCTION": "deploy",
    "ATTESTRY_GATE_FUNCTION": "gate",
    "ATTESTRY_RECORD_FUNCTION": "record_stage",
    "ATTESTRY_OPERATE_FUNCTION": "operate",
}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(Settings(SETTINGS))
    functions = MemoryFunctions({"gate": lambda event: None, "operate": lambda event: operate.handler(dict(event), None)})
    ports = {"meta": MemoryMetaStore(), "attestor": ATTESTOR, "functions": functions, "pipeline": MemoryPipeline(), "clock": FixedClock(AT)}
    world.__dict__.update(ports)
    for module in (operate, sweep):
        monkeypatch.setattr(module, "world", world)
    add_logins(world.meta, erin="erin")
    return world


def post(route: str, body: Any, number: int = 1, role: str = "deployer") -> tuple[int, dict[str, Any]]:
    identity = {"userArn": f"arn:aws:sts::123456789012:assumed-role/attestry-{role}/erin", "userId": "AROA:erin"}
    event = {
        "version": "2.0",
        "routeKey": f"POST {route}",
        "pathParameters": {"model": MODEL, "number": str(number)},
        "requestContext": {"requestId": "r1", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": identity}},
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }
    answer = operate.handler(event, None)
    return answer["statusCode"], json.loads(answer["body"])


VERSION = "/v1/models/{model}/versions/{number}"
KILL, RETIRE, CAPTURE = f"{VERSION}/kill", f"{VERSION}/retirement", "/v1/models/{model}/capture"
ROLLBACK = "/v1/models/{model}/rollback"


def deployed(world: World, *numbers: int) -> None:
    for number in numbers:
        make_approved(world.meta, number)
        facts: Any = {"environment": "production", "capture_rate": "1", "by": ERIN, "reason": "first", "at": AT}
        swap_pointer(world.meta, ATTESTOR, MODEL, number, **facts)


def test_a_kill_answers_what_is_left_to_roll_back_to(world: World) -> None:
    deployed(world, 1, 2)
    status, body = post(KILL, {"reason": "it leaks"}, 2)
    assert status == 200
    assert (body["standing"], body["vacated"], body["rollback"]) == ("RETIRED", ["production"], {"production": 1})
    assert body["retirement"] == {"kind": "version.killed", "by": "erin", "reason": "it leaks", "at": "2026-01-02T03:04:05.000000Z"}


def test_a_kill_sends_on_the_pipeline_that_waits_for_a_decision(world: World) -> None:
    make_version(world.meta, stage=Stage.APPROVAL, status=Status.RUNNING, token="t")
    post(KILL, {"reason": "it leaks"})
    assert world.functions.sent == [("gate", {"action": "decided", "model": MODEL, "version": 1})]  # type: ignore[attr-defined]
    post(KILL, {"reason": "it leaks"})
    assert len(world.functions.sent) == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        (KILL, {}, "reason"),
        (KILL, {"reason": " "}, "reason"),
        (KILL, {"reason": "r", "on": "2026-01-01"}, "on"),
        (RETIRE, {"reason": ""}, "reason"),
        (RETIRE, {"reason": "r", "on": "01.02.2026"}, "on"),
        (RETIRE, {"reason": "r", "on": "2026-02-30"}, "on"),
        (RETIRE, {"reason": "r", "on": 20260201}, "on"),
        (RETIRE, {"reason": "r", "on": "2020-02-01"}, "on"),
        (RETIRE, {"reason": "r", "even_if_deployed": "yes"}, "even_if_deployed"),
        (CAPTURE, {"rate": 2, "reason": "r"}, "rate"),
        (CAPTURE, {"rate": "0.1"}, "reason"),
        (ROLLBACK, {"reason": "r", "to": "1"}, "to"),
        (ROLLBACK, {"reason": "r", "to": True}, "to"),
    ],
    ids=str,
)
def test_bad_input_names_its_field_and_changes_nothing(world: World, route: str, body: dict[str, Any], field: str) -> None:
    deployed(world, 1)
    before = dict(world.meta.rows)  # type: ignore[attr-defined]
    status, answer = post(route, body)
    assert (status, answer["field"]) == (400, field)
    assert world.meta.rows == before  # type: ignore[attr-defined]


def test_a_deployed_version_is_retired_only_when_that_is_said(world: World) -> None:
    deployed(world, 1)
    assert post(RETIRE, {"reason": "r"})[0] == 409
    assert post(RETIRE, {"reason": "r", "even_if_deployed": True})[1]["standing"] == "RETIRED"


def test_a_failed_version_that_is_tried_again_twice_has_one_attempt_more(world: World) -> None:
    version = make_version(world.meta, stage=Stage.TRAINING, status=Status.FAILED)
    world.pipeline.start(version.execution_id, {})
    world.pipeline.end(version.execution_id, "FAILED")  # type: ignore[attr-defined]
    assert [post(f"{VERSION}/retry", {"reason": "again"})[1]["attempt"] for _ in range(2)] == [2, 2]
    assert len(world.pipeline.executions) == 2  # type: ignore[attr-defined]


def test_the_capture_rate_is_set_for_what_is_deployed(world: World) -> None:
    deployed(world, 1)
    status, body = post(CAPTURE, {"rate": 0.25, "reason": "costs"})
    assert (status, body) == (200, {"model": MODEL, "environment": "production", "version": 1, "rate": "0.25", "previous": "1"})
    pointer = world.meta.get(pointer_key(MODEL, "production"))
    assert pointer is not None
    assert pointer["capture_rate"] == "0.25"


def test_the_sweep_has_retired_what_is_due(world: World) -> None:
    deployed(world, 1)
    post(RETIRE, {"reason": "contract ends", "on": "2026-01-04", "even_if_deployed": True})
    sweep.handler({}, None)
    assert world.functions.sent == []  # type: ignore[attr-defined]
    world.__dict__["clock"] = FixedClock(AT + timedelta(days=2))
    sweep.handler({}, None)
    world.functions.deliver()  # type: ignore[attr-defined]
    assert load_version(world.meta, MODEL, 1).standing is Standing.RETIRED


ROLLOUT = "/v1/models/{model}/rollout"


def canaried(world: World) -> None:
    deployed(world, 1)
    make_approved(world.meta, 2, strategy=Plan("canary", (5, 50), 10, 0).to_item())
    begin_rollout(world.meta, ATTESTOR, MODEL, 2, environment="production", by=ERIN, reason="approved", at=AT)


def test_a_rollout_is_advanced_halted_and_finished_through_the_api(world: World) -> None:
    canaried(world)
    assert post(ROLLOUT, {"action": "advance", "reason": "fine"})[1]["standing"] == "CANARY"
    assert world.meta.rows[pointer_key(MODEL, "production")]["canary"]["share"] == 50
    assert post(ROLLOUT, {"action": "finish", "reason": "fine"})[1]["standing"] == "DEPLOYED"
    status, answer = post(ROLLOUT, {"action": "halt", "reason": "late"})
    assert (status, answer["detail"]) == (404, "credit-risk has no canary or shadow in production")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"action": "skip", "reason": "r"}, "action"),
        ({"action": "halt"}, "reason"),
        ({"action": "halt", "reason": "r", "environment": 1}, "environment"),
        ({"action": "advance", "reason": "r", "step": -1}, "step"),
        ({"action": "advance", "reason": "r", "step": True}, "step"),
        ({"action": "advance", "reason": "r", "version": 0}, "version"),
    ],
)
def test_a_rollout_is_changed_only_as_the_rules_have_it(world: World, body: dict[str, Any], field: str) -> None:
    canaried(world)
    status, answer = post(ROLLOUT, body)
    assert (status, answer["field"]) == (400, field)
    assert load_version(world.meta, MODEL, 2).standing is Standing.CANARY


def test_a_change_of_a_rollout_that_says_what_it_means_is_done_once_however_often_it_comes(world: World) -> None:
    """Who got no answer asks again; without that, a canary would go on by two steps."""
    deployed(world, 1)
    make_approved(world.meta, 2, strategy=Plan("canary", (5, 20, 50), 10, 0).to_item())
    begin_rollout(world.meta, ATTESTOR, MODEL, 2, environment="production", by=ERIN, reason="approved", at=AT)
    for _ in range(2):
        assert post(ROLLOUT, {"action": "advance", "reason": "fine", "version": 2, "step": 0})[0] == 200
        assert world.meta.rows[pointer_key(MODEL, "production")]["canary"]["share"] == 20
    assert post(ROLLOUT, {"action": "advance", "reason": "fine", "version": 1, "step": 1})[0] == 409
    for _ in range(2):
        assert post(ROLLOUT, {"action": "finish", "reason": "fine", "version": 2})[1]["standing"] == "DEPLOYED"
    assert post(ROLLOUT, {"action": "halt", "reason": "late", "version": 2})[1]["standing"] == "DEPLOYED"


@pytest.mark.parametrize("role", ["consumer", "scientist", "approver"])
def test_only_a_deployer_changes_a_rollout(world: World, role: str) -> None:
    canaried(world)
    assert post(ROLLOUT, {"action": "finish", "reason": "mine"}, role=role)[0] == 403
    assert load_version(world.meta, MODEL, 2).standing is Standing.CANARY


PROMOTION = f"{VERSION}/promotion"


def test_a_promotion_goes_to_the_next_environment_and_leaves_none_out(world: World) -> None:
    make_approved(world.meta, 1, deployment_environment="staging", promotes_to=("uat", "production"))
    assert post(PROMOTION, {"to": "uat", "reason": "fine"})[0] == 409  # it does not stand deployed in staging
    facts: Any = {"environment": "staging", "capture_rate": "1", "by": ERIN, "reason": "first", "at": AT}
    swap_pointer(world.meta, ATTESTOR, MODEL, 1, **facts)
    status, answer = post(PROMOTION, {"to": "production", "reason": "quick"})
    assert (status, answer["detail"].endswith("the next one is uat")) == (409, True)
    assert post(PROMOTION, {"to": "uat", "reason": "fine"})[0] == 202
    ((name, message),) = world.functions.sent
    assert (name, message["environment"], message["version"]) == ("deploy", "uat", 1)
