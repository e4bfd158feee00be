"""The handlers of decisions, packets and people, and decisions from the AWS console: what goes in, what comes out."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.stages import Standing, Status
from lambdas import console_decision, decide, gate, people, registry
from tests.approvals import MODEL, ApprovalWorld
from tests.console import MACHINE, StandInExecutions, StandInTrail, delivered, identity, started
from tests.fakes import FixedClock
from tests.ssh_keys import SshPerson
from tests.versions import ACCOUNT, AT, add_logins

ERINS = SshPerson("erin")
PATH = "/v1/models/{model}/versions/{number}"


@pytest.fixture
def approvals(monkeypatch: pytest.MonkeyPatch) -> ApprovalWorld:
    made = ApprovalWorld()
    made.executions = StandInExecutions()
    world = World(Settings({"ATTESTRY_ACCOUNT": ACCOUNT, "ATTESTRY_DECISION_ARN": MACHINE, "ATTESTRY_GATE_FUNCTION": "gate"}))
    made.functions.handlers["gate"] = lambda event: gate.handler(dict(event), None)
    ports = {name: getattr(made, name) for name in ("meta", "store", "attestor", "pipeline", "notifier", "functions")}
    world.__dict__.update(ports, clock=FixedClock(AT), trail=StandInTrail(), executions=made.executions)
    for module in (decide, gate, people, registry, console_decision):
        monkeypatch.setattr(module, "world", world)
    add_logins(made.meta, dana="dana")
    made.register_key("erin", ERINS)
    return made


def call(module: Any, route: str, body: Any = None, *, number: int = 1, role: str = "approver", login: str = "erin") -> tuple[int, Any]:
    identity = {"userArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-{role}/{login}", "userId": f"AROA:{login}"}
    event = {
        "version": "2.0",
        "routeKey": route,
        "pathParameters": {"model": MODEL, "number": str(number)},
        "requestContext": {"requestId": "r1", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": identity}},
        "body": json.dumps(body) if body is not None else "",
        "isBase64Encoded": False,
    }
    answer = module.handler(event, None)
    return answer["statusCode"], json.loads(answer["body"])


def send_decision(body: dict[str, Any], **who: Any) -> tuple[int, Any]:
    return call(decide, f"POST {PATH}/decision", {"decision": "approve", "reason": "reviewed", **body}, **who)


def test_a_conflict_is_declared_listed_and_stops_the_decision(approvals: ApprovalWorld) -> None:
    approvals.waiting()
    route = "/v1/models/{model}/conflicts"
    status, answer = call(decide, f"POST {route}", {"reason": "my own company"})
    assert (status, answer["person"], answer["active"]) == (200, "erin", True)
    assert [c["person"] for c in call(decide, f"GET {route}")[1]["conflicts"]] == ["erin"]
    status, answer = call(decide, f"POST {PATH}/decision", {"decision": "approve", "reason": "fine"})
    assert (status, answer["code"]) == (403, "conflict_of_interest")
    assert call(decide, f"POST {route}", {"reason": "x", "person": "dana"})[0] == 403
    assert call(decide, f"POST {route}", {"reason": "x", "person": 7})[1]["field"] == "person"


def test_conditions_come_from_the_body_and_a_wrong_one_is_refused_by_its_field(approvals: ApprovalWorld) -> None:
    approvals.waiting(policy=ApprovalPolicy(False, ("approver",), 2))
    add_logins(approvals.meta, frank="frank")
    route, body = f"POST {PATH}/decision", {"decision": "approve", "reason": "fine"}
    status, answer = call(decide, route, {**body, "conditions": {"max_predictions": "many"}})
    assert (status, answer["field"]) == (400, "conditions.max_predictions")
    status, answer = call(decide, route, {**body, "conditions": {"max_predictions": 7}})
    assert (status, answer["complete"], answer["missing"], answer["terms"]) == (200, False, "1 approver", {})
    status, answer = call(decide, route, body, login="frank")
    assert (answer["complete"], answer["terms"]) == (True, {"max_predictions": 7})


def test_the_packet_is_answered_as_the_digested_text(approvals):
    version = approvals.waiting()
    status, answer = call(registry, f"GET {PATH}/packet", login="dana", role="scientist")
    assert status == 200
    assert hashlib.sha256(answer["content"].encode()).hexdigest() == answer["sha256"] == version.packet["sha256"]
    assert call(registry, f"GET {PATH}/packet", number=9)[0] == 404


def test_a_decision_answers_packet_and_whether_it_is_signed_and_sends_the_pipeline_on(approvals):
    packet = approvals.waiting().packet["sha256"]
    status, answer = send_decision({"packet_sha256": packet, "signature": ERINS.sign(packet).decode()})
    assert (status, answer["packet_sha256"], answer["signed_by_person"], answer["complete"]) == (200, packet, True, True)
    approvals.functions.deliver()
    assert list(approvals.pipeline.resumed.values()) == [{"model": MODEL, "version": 1}]


def test_a_decision_without_packet_or_signature_rests_on_the_versions_packet(approvals):
    packet = approvals.waiting().packet["sha256"]
    status, answer = send_decision({})
    assert (status, answer["packet_sha256"], answer["signed_by_person"]) == (200, packet, False)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"packet_sha256": "ab" * 32}, 409, "conflict"),
        ({"packet_sha256": "AB" * 32}, 400, "invalid_input"),
        ({"packet_sha256": 1}, 400, "invalid_input"),
        ({"signature": "signed, erin"}, 400, "invalid_input"),
        ({"signature": 7}, 400, "invalid_input"),
        ({"signature": "\ud800"}, 400, "invalid_input"),
        ({"reason": "\ud800"}, 400, "invalid_input"),
        ({"signature": ERINS.sign("ab" * 32).decode()}, 409, "integrity"),
        ({"verdict": "approve"}, 400, "invalid_input"),
    ],
)
def test_what_does_not_fit_the_version_is_refused_and_changes_nothing(approvals, body, status, code):
    approvals.waiting()
    answered, answer = send_decision(body)
    assert (answered, answer["code"]) == (status, code)
    assert approvals.head().status is Status.RUNNING
    assert not [k for k in approvals.store.versions if "/signatures/" in k]


def test_an_unsigned_approval_is_refused_with_the_command(approvals):
    approvals.waiting(policy=ApprovalPolicy(False, ("approver",), 1, signed=True))
    status, answer = send_decision({})
    assert (status, answer["code"]) == (403, "unsigned_approval")
    assert answer["details"]["command"] == "attestry approve credit-risk@1 --reason reviewed --sign-with ~/.ssh/id_ed25519"


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_version_that_is_not_there_is_said_to_be_not_there(approvals, decision):
    status, answer = send_decision({"decision": decision}, number=7)
    assert (status, answer["detail"]) == (404, "there is no version credit-risk@7")


def test_keys_of_people_are_added_and_shown_by_fingerprint(approvals):
    other = SshPerson("other")
    status, answer = call(people, "POST /v1/people", {"person": "erin", "ssh_keys": [other.public]}, role="admin")
    assert status == 201
    assert len(answer["ssh_keys"]) == 2
    assert all(key["fingerprint"].startswith("SHA256:") for key in answer["ssh_keys"])
    assert call(people, "GET /v1/people", role="admin")[1]["people"] == [answer]


@pytest.mark.parametrize(
    "body", [{"ssh_keys": "ssh-ed25519 AAAA"}, {"ssh_keys": [1]}, {"ssh_keys": ["ssh-rsa AAAA"]}, {"logins": "erin"}, {}]
)
def test_keys_and_logins_out_of_form_are_refused(approvals, body):
    assert call(people, "POST /v1/people", {"person": "heidi", **body}, role="admin")[0] == 400


class TestConsole:
    BODY = {"model": MODEL, "version": 1, "decision": "approve", "reason": "read in the console"}  # noqa: RUF012 - never changed

    def test_nothing_is_decided_before_cloudtrail_has_named_the_caller(self, approvals):
        approvals.waiting()
        arn = approvals.executions.start(self.BODY)
        assert console_decision.handler({"input": self.BODY, "execution_arn": arn}, None) == {"outcome": "WAIT"}
        assert approvals.head().status is Status.RUNNING

    def start(self, approvals: ApprovalWorld, *, name: str = "x", **given: Any) -> dict[str, Any]:
        body = {**self.BODY, **given}
        arn = approvals.executions.start(body, name=name)
        assert console_decision.handler(delivered(started(identity("erin"), name=name)), None) == {"outcome": "KEPT"}
        return console_decision.handler({"input": body, "execution_arn": arn}, None)

    @pytest.mark.parametrize("named", [True, False])
    def test_a_decision_rests_on_the_versions_packet_and_may_name_it(self, approvals, named):
        packet = approvals.waiting().packet["sha256"]
        answer = self.start(approvals, **({"packet": packet} if named else {}))
        assert (answer["outcome"], answer["packet_sha256"]) == ("DECIDED", packet)
        assert approvals.head().standing is Standing.APPROVED

    @pytest.mark.parametrize(("packet", "code"), [("ab" * 32, "conflict"), ("latest", "invalid_input"), (1, "invalid_input")])
    def test_another_packet_is_refused(self, approvals, packet, code):
        approvals.waiting()
        answer = self.start(approvals, packet=packet)
        assert (answer["outcome"], answer["error"]["code"]) == ("REFUSED", code)
        assert approvals.head().status is Status.RUNNING

    def test_where_signatures_are_asked_for_the_console_is_refused_with_the_command(self, approvals):
        approvals.waiting(policy=ApprovalPolicy(False, ("approver",), 1, signed=True))
        answer = self.start(approvals)
        assert answer["error"]["code"] == "unsigned_approval"
        assert "--sign-with" in answer["error"]["message"]
        assert self.start(approvals, name="y", decision="reject")["outcome"] == "DECIDED"
