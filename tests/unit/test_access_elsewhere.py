"""Scopes narrow every way in: the AWS console, manifests that are registered, and whichever login somebody comes with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestry.access.issuers import TokenHolder
from attestry.aws.audit import AuditNotes
from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.operations import Operation
from attestry.usecases.access_gate import ACTION_OF
from attestry.usecases.access_policies import publish_access_policy
from attestry.usecases.grants import Grant, give_grant, withdraw_grant
from attestry.usecases.people import add_person
from lambdas import console_decision, decide, gate
from tests.approvals import MODEL, ApprovalWorld
from tests.console import LATER, MACHINE, NAME, StandInExecutions, StandInTrail, identity, started
from tests.fakes import FixedClock
from tests.flow import Flow, example_manifest, example_source
from tests.versions import ACCOUNT, AT, session

ADA = session("admin", "ada", person="ada")
DECIDE = "POST /v1/models/{model}/versions/{number}/decision"
APPROVE = {"action": "approve", "model": MODEL, "version": 1, "reason": "read in the console"}


def grant(meta: Any, subject: str, role: str, scope: str) -> None:
    give_grant(meta, subject, Grant(role, scope), reason="asked for", by=ADA, at=AT)


class Scene:
    """A version that waits, and two ways to decide on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.registry = ApprovalWorld()
        self.meta = self.registry.meta
        self.executions, self.trail = StandInExecutions(), StandInTrail()
        settings = {"ATTESTRY_ACCOUNT": ACCOUNT, "ATTESTRY_DECISION_ARN": MACHINE, "ATTESTRY_GATE_FUNCTION": "gate"}
        world, clock = World(Settings(settings)), FixedClock(LATER)
        self.registry.functions.handlers["gate"] = lambda event: gate.handler(dict(event), None)
        ports = {name: getattr(self.registry, name) for name in ("meta", "store", "attestor", "pipeline", "notifier", "functions")}
        audit = AuditNotes(self.meta, clock, account=ACCOUNT, prefix="attestry")
        vars(world).update(ports, clock=clock, trail=self.trail, executions=self.executions, audit=audit)
        for module in (console_decision, decide, gate):
            monkeypatch.setattr(module, "world", world)
        for person in ("dana", "erin"):
            add_person(self.meta, person, [person], name="", by=ADA, at=AT)
        self.registry.waiting()

    def approve_in_console(self) -> dict[str, Any]:
        arn = self.executions.start(APPROVE, name=NAME)
        self.trail.records.append(started(identity("erin"), name=NAME))
        return console_decision.handler({"execution_arn": arn, "input": APPROVE}, None)

    def approve_by_token(self, subject: str, roles: tuple[str, ...] = ("approver",)) -> tuple[int, dict[str, Any]]:
        holder = TokenHolder("corp", "https://login.example.com", subject, f"oidc:corp:{subject}", roles, True, 9_999_999_999)
        event = {
            "routeKey": DECIDE.replace(" /v1/", " /oidc/v1/"),
            "pathParameters": {"model": MODEL, "number": "1"},
            "requestContext": {"requestId": "r", "http": {"sourceIp": "192.0.2.9"}, "authorizer": {"lambda": holder.to_context()}},
            "body": json.dumps({"decision": "approve", "reason": "reviewed"}),
        }
        answer = decide.handler(event, None)
        return answer["statusCode"], json.loads(answer["body"])


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_every_operation_of_the_console_is_an_action() -> None:
    assert ACTION_OF.keys() == set(Operation)


def test_an_approver_of_another_model_decides_in_the_console_on_none_but_theirs(scene: Scene) -> None:
    grant(scene.meta, "person/erin", "approver", "model/another")
    answer = scene.approve_in_console()
    assert (answer["outcome"], answer["error"]["code"]) == ("REFUSED", "forbidden")
    assert "versions.decide" in answer["error"]["message"]


def test_an_approver_of_the_model_decides_in_the_console(scene: Scene) -> None:
    grant(scene.meta, "person/erin", "approver", f"model/{MODEL}")
    assert scene.approve_in_console()["outcome"] == "DECIDED"


def test_an_added_policy_counts_in_the_console_too(scene: Scene) -> None:
    text = 'forbid (principal, action == Attestry::Action::"versions.decide", resource);'
    publish_access_policy(scene.meta, "freeze", text, reason="the audit is on", by=ADA, at=AT)
    assert scene.approve_in_console()["error"]["code"] == "forbidden"


def test_one_human_with_both_logins_does_not_approve_what_they_submitted(scene: Scene) -> None:
    add_person(scene.meta, "dana", ["dana", "oidc:corp:u-4"], name="", by=ADA, at=AT)
    status, body = scene.approve_by_token("u-4")
    assert (status, body["code"]) == (403, "self_approval")


def test_one_human_with_both_logins_counts_once(scene: Scene) -> None:
    add_person(scene.meta, "erin", ["erin", "oidc:corp:u-5"], name="", by=ADA, at=AT)
    status, body = scene.approve_by_token("u-5")
    assert (status, body["person"]) == (200, "erin")


def test_a_token_that_maps_to_no_person_approves_nothing(scene: Scene) -> None:
    status, body = scene.approve_by_token("u-6")
    assert (status, body["code"]) == (403, "unproven_identity")


def test_the_login_of_an_issuer_is_not_that_of_aws_of_the_same_name(scene: Scene) -> None:
    """Who is called erin at an identity provider is not the erin of AWS, unless an admin says so."""
    status, body = scene.approve_by_token("erin")
    assert (status, body["code"]) == (403, "unproven_identity")


class TestRegistration:
    """A manifest names its model itself, so the scope is asked for when it is read."""

    def register(self, *grants: str) -> tuple[Flow, Any]:
        flow = Flow()
        for scope in grants:
            grant(flow.meta, "login/scoring", "scientist", scope)
        source = example_source()
        upload = flow.upload(example_manifest(source), source, by=session("scientist", "scoring"))
        return flow, flow.register(upload)

    def test_a_scientist_of_another_model_makes_no_version_of_this_one(self) -> None:
        flow, registration = self.register("model/another")
        assert registration.state == "REFUSED"
        assert "versions.register on the model tumour-diagnosis" in registration.errors[0].message
        assert flow.meta.list_collection("MODELS") == []

    @pytest.mark.parametrize("grants", [(), ("model/tumour-diagnosis",), ("registry",)])
    def test_a_scientist_of_the_model_and_one_who_was_granted_nothing_make_versions(self, grants: tuple[str, ...]) -> None:
        assert self.register(*grants)[1].state == "REGISTERED"

    def test_labels_of_the_manifest_widen_nothing(self) -> None:
        """The author of a manifest writes its labels, and would place the model where their role counts."""
        flow = Flow()
        grant(flow.meta, "login/scoring", "scientist", "tag/team=diagnostics")
        source = example_source()

        def label(draft: dict[str, Any]) -> None:
            draft["model"].update(labels={"team": "diagnostics"})

        upload = flow.upload(example_manifest(source, edit=label), source, by=session("scientist", "scoring"))
        assert flow.register(upload).state == "REFUSED"

    def test_a_grant_that_was_withdrawn_between_upload_and_registration_does_not_count(self) -> None:
        flow = Flow()
        grant(flow.meta, "login/scoring", "scientist", "registry")
        source = example_source()
        upload = flow.upload(example_manifest(source), source, by=session("scientist", "scoring"))
        withdraw_grant(flow.meta, "login/scoring", "scientist", "registry", reason="left", by=ADA, at=AT)
        assert flow.register(upload).state == "REFUSED"
