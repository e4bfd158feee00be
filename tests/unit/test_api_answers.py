"""What the API answers is what its description says: real answers of the handlers against the schemas."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from attestry.api.components import COMPONENTS
from attestry.api.operation import Operation
from attestry.api.operations import BY_ID, OPERATIONS
from attestry.usecases.audit import drain_audit
from tests.api_world import ApiWorld
from tests.ssh_keys import SshPerson

READ = {
    "rollouts.read": ("?environment=production",),
    "runs.metrics": ("?metric=loss",),
    "versions.log": ("?stage=TRAINING",),
    "versions.data": ("?set=source", "?set=training", "?set=holdout-labels"),
    "versions.diff": ("?from=1&to=1",),
    "lineage.walk": ("?node={model}@1",),
    "predictions.trace": ("", "?deep=true"),
    "predictions.bundle": ("", "?payload=true"),
    "ledger.read": ("?path=checkpoint",),
    "access.review": ("?action=versions.decide&model={model}",),
    "access.check": ("?action=versions.decide&model={model}", "?action=people.list"),
    "access.placement": ("?model={model}",),
}
"""Operation to the queries that it is asked with."""


@pytest.fixture(scope="module")
def api() -> Iterator[ApiWorld]:
    with pytest.MonkeyPatch.context() as patch:
        yield ApiWorld.install(patch)


def check(operation: Operation, answer: Any, *, status: int = 200) -> None:
    """Hold an answer against the description."""
    assert answer.status == status, answer.raw
    assert status in operation.status
    schema = {**operation.answer, "components": {"schemas": dict(COMPONENTS)}}
    errors = [f"{list(e.absolute_path)}: {e.message}" for e in Draft202012Validator(schema).iter_errors(answer.body)]
    assert not errors


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.method == "GET"], ids=lambda o: o.id)
def test_a_read_answers_as_it_is_described(api: ApiWorld, operation: Operation) -> None:
    values = {"model": api.model, "number": "1", "id": api.prediction, "submission": announced(api), "policy": published(api)}
    values["run"] = logged(api)
    role = operation.roles[0] if "auditor" not in operation.roles else "auditor"
    who = "scientist/dana" if operation.id == "submissions.read" else f"{role}/grace"
    if operation.group == "audit":
        api.call("GET", f"/v1/predictions/{api.prediction}/trace", who="auditor/grace")
        api.evidence.clock.at += timedelta(minutes=5)
        drain_audit(api.meta, api.store, api.clock.now())
        api.evidence.sequence()
    for query in READ.get(operation.id, ("",)):
        check(operation, api.call("GET", operation.path.format(**values) + query.format(**values), who=who))


def announced(api: ApiWorld) -> str:
    files = [{"name": "manifest.json", "size": 2, "sha256": "0" * 64}]
    answer = api.call("POST", "/v1/uploads", {"files": files}, who="scientist/dana")
    check(BY_ID["uploads.create"], answer, status=201)
    return str(answer.body["submission"])


def logged(api: ApiWorld) -> str:
    run, batch = "5" * 32, {"batch": "6" * 32, "points": [{"name": "loss", "value": 0.5}]}
    began = api.call("POST", "/v1/runs", {"run": run, "experiment": api.model, "parameters": {"C": "0.1"}}, who="scientist/dana")
    check(BY_ID["runs.start"], began, status=began.status)
    check(BY_ID["runs.log"], api.call("POST", f"/v1/runs/{run}/metrics", batch, who="scientist/dana"))
    check(BY_ID["runs.change"], api.call("PATCH", f"/v1/runs/{run}", {"tags": {"team": "onco"}}, who="scientist/dana"))
    return run


def published(api: ApiWorld) -> str:
    document = {"name": "house-rules", "rules": []}
    answer = api.call("POST", "/v1/policies", {"document": document, "reason": "first"}, who="admin/alex")
    check(BY_ID["policies.publish"], answer, status=201)
    return str(answer.body["name"])


def test_an_import_s_way_through_the_api_answers_as_it_is_described(api: ApiWorld) -> None:
    body = b"weights"
    files = [{"name": "model.bin", "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}]
    announced = api.call("POST", "/v1/imports", {"files": files, "key": "first"}, who="scientist/dana")
    check(BY_ID["imports.create"], announced, status=201)
    api.store.put(announced.body["uploads"][0]["key"], body)
    asked = {"submission": announced.body["submission"], "source": "runs:/8f0f", "run": {"metrics": {"auc": 0.9}}}
    made = api.call("POST", "/v1/models/brought/versions", asked, who="scientist/dana")
    check(BY_ID["versions.import"], made, status=202)
    for _ in ("the files are frozen", "the approval is opened"):
        api.functions.deliver()
    shown = api.call("GET", "/v1/models/brought/versions/1", who="auditor/grace")
    check(BY_ID["versions.read"], shown)
    assert (shown.body["stage"], shown.body["status"]) == ("APPROVAL", "RUNNING")
    for id_, path in (("versions.files", "/files"), ("versions.packet", "/packet"), ("versions.bundle", "/bundle")):
        check(BY_ID[id_], api.call("GET", f"/v1/models/brought/versions/1{path}", who="auditor/grace"))
    again = api.call("POST", "/v1/models/brought/versions", asked, who="scientist/dana")
    assert (again.status, again.body["version"]) == (202, 1)


def test_an_import_that_is_refused_by_the_function_that_makes_it_is_answered_with_field_and_rule(api: ApiWorld) -> None:
    asked = {"submission": "ab" * 12}
    refused = api.call("POST", "/v1/models/brought/versions", asked, who="scientist/dana")
    assert (refused.status, refused.body["field"], refused.body["rule"]) == (400, "files", "required")
    for body in ({**asked, "submitter": "erin"}, {"submission": "../x"}, {**asked, "run": {"grade": "attested"}}):
        assert api.call("POST", "/v1/models/brought/versions", body, who="scientist/dana").status == 400
    assert api.call("POST", "/v1/models/brought/versions", asked, who="consumer/frank").status == 403


ACTS: tuple[tuple[str, str, str, dict[str, Any], int], ...] = (
    ("predictions.make", "consumer/frank", "/v1/models/{model}/predictions", {"instances": [{"a": 1.5, "b": 2.0}]}, 200),
    (
        "scorings.make",
        "consumer/frank",
        "/v1/models/{model}/scorings",
        {"input": {"sha256": "0" * 64, "size": 1, "format": "csv"}, "request": "nightly"},
        202,
    ),
    ("models.capture", "deployer/frank", "/v1/models/{model}/capture", {"rate": "0.5", "reason": "sampling"}, 200),
    ("conflicts.declare", "approver/val", "/v1/models/{model}/conflicts", {"reason": "a friend's"}, 200),
    ("people.add", "admin/alex", "/v1/people", {"person": "heidi", "logins": ["heidi"]}, 201),
    ("policies.replay", "auditor/grace", "/v1/policy-replay", {"document": {"name": "r", "rules": []}, "since": "2020-01-01"}, 200),
    ("models.refresh", "scientist/dana", "/v1/models/{model}/refresh", {"reason": "monthly"}, 202),
    ("access.grant", "admin/alex", "/v1/access/grants", {"login": "scoring", "role": "consumer", "reason": "a service"}, 201),
    ("access.withdraw", "admin/alex", "/v1/access/withdrawals", {"login": "scoring", "role": "consumer", "reason": "over"}, 200),
    ("access.place", "admin/alex", "/v1/access/placements", {"model": "heart", "tags": {"tier": "low"}, "reason": "classified"}, 200),
    (
        "access.publish",
        "admin/alex",
        "/v1/access/policies",
        {"name": "none", "text": 'forbid (principal, action == Attestry::Action::"root.publish", resource);', "reason": "for now"},
        201,
    ),
    (
        "webhooks.add",
        "admin/alex",
        "/v1/webhooks",
        {"webhook": "chat", "url": "https://hooks.example.org/x", "kinds": ["version.*"], "reason": "the team wants to know"},
        201,
    ),
    ("webhooks.rotate", "admin/alex", "/v1/webhooks/chat/rotation", {"reason": "it leaked"}, 200),
    ("webhooks.ping", "admin/alex", "/v1/webhooks/chat/ping", {}, 202),
    ("versions.reproduce", "auditor/grace", "/v1/models/{model}/versions/1/reproduction", {"reason": "audit"}, 202),
)


@pytest.mark.parametrize(("id_", "who", "path", "body", "status"), ACTS, ids=[act[0] for act in ACTS])
def test_an_act_answers_as_it_is_described(api: ApiWorld, id_: str, who: str, path: str, body: dict[str, Any], status: int) -> None:
    check(BY_ID[id_], api.call("POST", path.format(model=api.model), body, who=who), status=status)


CATALOGUE: tuple[tuple[str, str, str, dict[str, Any] | None, int], ...] = (
    ("models.create", "scientist/dana", "/v1/models", {"name": "House prices", "tags": {"tier": "low"}, "mode": "open"}, 201),
    ("models.change", "scientist/dana", "/v1/models/{model}", {"description": "which tumours are malign"}, 200),
    ("models.tag", "scientist/dana", "/v1/models/{model}/tags/stage of care", {"value": "screening"}, 200),
    ("models.untag", "scientist/dana", "/v1/models/{model}/tags/none", None, 200),
    ("versions.label", "scientist/dana", "/v1/models/{model}/versions/1", {"tags": {"a": "b"}}, 200),
    ("versions.tag", "scientist/dana", "/v1/models/{model}/versions/1/tags/dataset", {"value": "spring"}, 200),
    ("versions.untag", "scientist/dana", "/v1/models/{model}/versions/1/tags/a", None, 200),
    ("aliases.set", "deployer/frank", "/v1/models/{model}/aliases/champion", {"number": 1}, 200),
    ("annotations.add", "auditor/grace", "/v1/models/{model}/versions/1/annotations", {"text": "why so fast?", "transition": 1}, 201),
    ("models.search", "auditor/grace", "/v1/search/models", {"filter": [{"tag": "stage of care", "is": "screening"}]}, 200),
    ("versions.search", "auditor/grace", "/v1/search/versions", {"filter": [{"tag": "dataset", "is": "spring"}]}, 200),
    ("aliases.delete", "deployer/frank", "/v1/models/{model}/aliases/none", None, 200),
)


@pytest.mark.parametrize(("id_", "who", "path", "body", "status"), CATALOGUE, ids=[act[0] for act in CATALOGUE])
def test_an_act_on_the_catalogue_answers_as_it_is_described(
    api: ApiWorld, id_: str, who: str, path: str, body: dict[str, Any] | None, status: int
) -> None:
    answer = api.call(BY_ID[id_].method, path.format(model=api.model), body, who=who)
    check(BY_ID[id_], answer, status=status)
    if id_ in ("models.search", "versions.search"):
        assert [row["model"] for row in answer.body["results"]] == [api.model]


def test_a_governed_model_is_deleted_by_nobody_and_an_open_one_by_its_makers(api: ApiWorld) -> None:
    assert api.call("DELETE", f"/v1/models/{api.model}", who="admin/alex").status == 409
    assert api.call("DELETE", f"/v1/models/{api.model}/versions/1", who="scientist/dana").status == 409
    made = api.call("POST", "/v1/models", {"name": "scratch", "mode": "open"}, who="scientist/dana")
    assert api.call("DELETE", "/v1/models/scratch", who="approver/erin").status == 403
    check(BY_ID["models.delete"], api.call("DELETE", f"/v1/models/{made.body['model']}", who="scientist/dana"))


def test_a_version_s_way_through_the_api_answers_as_it_is_described(api: ApiWorld) -> None:
    api.evidence.validate(edit=lambda draft: draft["training"]["hyperparameters"].update(C=0.2))
    packet = api.evidence.open()
    number = api.evidence.head.number
    path = f"/v1/models/{api.model}/versions/{number}"
    decision = {"decision": "approve", "packet_sha256": packet, "signature": SshPerson("erin").sign(packet).decode()}
    way: tuple[tuple[str, str, str, dict[str, Any], int], ...] = (
        ("versions.hold", "approver/erin", f"{path}/hold", {}, 200),
        ("versions.release", "approver/erin", f"{path}/release", {}, 200),
        ("versions.decide", "approver/erin", f"{path}/decision", decision, 200),
        ("versions.deploy", "deployer/frank", f"{path}/deployment", {}, 202),
        ("versions.transition", "deployer/frank", f"{path}/transition", {"to": "HELD"}, 202),
        ("versions.kill", "deployer/frank", f"{path}/kill", {}, 200),
    )
    for id_, who, target, body, status in way:
        check(BY_ID[id_], api.call("POST", target, {"reason": "reviewed", **body}, who=who), status=status)
    packet_read = api.call("GET", f"{path}/packet", who="auditor/grace")
    check(BY_ID["versions.packet"], packet_read)
    check(
        BY_ID["versions.retire"],
        api.call("POST", f"/v1/models/{api.model}/versions/1/retirement", {"reason": "old", "on": "2999-01-01", "even_if_deployed": True}),
    )
