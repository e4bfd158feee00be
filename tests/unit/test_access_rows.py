"""Grants, placements and added policies: what admins write, what stands against them, and what a crash leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from attestry.access.rows import POLICIES_KEY, access_policy_key, grant_key, placement_key
from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.catalogue import identity_of
from attestry.domain.errors import ConflictError, UnavailableError
from attestry.usecases.grants import Grant, give_grant
from attestry.usecases.people import add_person
from attestry.usecases.records import OUTBOX
from lambdas import people
from tests.fakes import Faults, FixedClock, MemoryMetaStore
from tests.versions import ACCOUNT, AT, ERIN, session

ADA = session("admin", "ada", person="ada")
LOW = 'forbid (principal, action == Attestry::Action::"models.capture", resource) unless { resource in Attestry::Scope::"tag/tier=low" };'


class Registry:
    """The function that admins call, over a table in memory."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.meta, self.clock = MemoryMetaStore(self.faults), FixedClock(AT)
        self.world = World(Settings({"ATTESTRY_ACCOUNT": ACCOUNT}))
        vars(self.world).update(meta=self.meta, clock=self.clock)
        for person in ("ada", "erin", "gil"):
            add_person(self.meta, person, [person], name="", by=ERIN, at=AT)

    def call(self, route: str, body: Any = None, role: str = "admin", login: str = "ada", **query: str) -> tuple[int, dict[str, Any]]:
        identity = {"userArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-{role}/{login}", "userId": f"AROA:{login}"}
        event = {
            "routeKey": route,
            "queryStringParameters": query,
            "requestContext": {"requestId": "r1", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": identity}},
            "body": json.dumps(body) if body is not None else "",
        }
        answer = people.handler(event, None)
        return answer["statusCode"], json.loads(answer["body"])

    def grant(self, role: str, scope: str, **subject: str) -> tuple[int, dict[str, Any]]:
        body = {"role": role, "scope": scope, "reason": "asked for", **(subject or {"person": "erin"})}
        return self.call("POST /v1/access/grants", body)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        found = [
            json.loads(row["event"]) for key, row in sorted(self.meta.rows.items(), key=lambda kv: kv[0].sort) if key.partition == OUTBOX
        ]
        return [event for event in found if event["kind"] in kinds]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    registry = Registry()
    monkeypatch.setattr(people, "world", registry.world)
    return registry


def test_a_grant_is_one_row_and_one_event_and_the_same_again_changes_nothing(registry: Registry) -> None:
    status, body = registry.grant("approver", "model/a")
    assert (status, body) == (201, {"subject": "person/erin", "grants": [{"role": "approver", "scope": "model/a", "until": ""}]})
    registry.grant("approver", "model/a")
    (event,) = registry.events("grant.given")
    assert (event["subject"], event["sequence"], event["principal"]["login"]) == ("grant/person/erin", 1, "ada")
    assert event["data"] == {"role": "approver", "scope": "model/a", "until": "", "reason": "asked for"}


def test_a_grant_with_another_end_replaces_the_one_that_stands(registry: Registry) -> None:
    registry.grant("approver", "model/a")
    until = "2026-02-01T00:00:00.000000Z"
    status, body = registry.call(
        "POST /v1/access/grants", {"person": "erin", "role": "approver", "scope": "model/a", "until": until, "reason": "for a month"}
    )
    assert (status, body["grants"]) == (201, [{"role": "approver", "scope": "model/a", "until": until}])


def test_a_withdrawn_grant_leaves_nothing_and_not_the_whole_role(registry: Registry) -> None:
    registry.grant("auditor", "registry")
    assert registry.call("GET /v1/access/grants", role="auditor", login="erin")[0] == 200
    ended = {"person": "erin", "role": "auditor", "scope": "registry", "reason": "left the team"}
    assert registry.call("POST /v1/access/withdrawals", ended)[1]["grants"] == []
    registry.world.__dict__.pop("guard")
    status, body = registry.call("GET /v1/access/grants", role="auditor", login="erin")
    assert (status, body["code"]) == (403, "forbidden")
    assert registry.call("POST /v1/access/withdrawals", ended)[0] == 200
    assert len(registry.events("grant.withdrawn")) == 1


def test_a_grant_in_a_name_of_a_model_counts_in_the_model_and_is_withdrawn_by_either(registry: Registry) -> None:
    identity = f"model/{identity_of('Iris_v2')}"
    assert registry.grant("scientist", "model/Iris_v2")[1]["grants"] == [{"role": "scientist", "scope": identity, "until": ""}]
    ended = {"role": "scientist", "scope": "model/Iris_v2", "reason": "left", "person": "erin"}
    assert registry.call("POST /v1/access/withdrawals", ended)[1]["grants"] == []


def test_a_grant_that_was_kept_by_another_name_of_a_model_is_withdrawn_as_it_stands(registry: Registry) -> None:
    registry.grant("scientist", "model/Iris_v2")
    row = registry.meta.rows[grant_key("person/erin")]
    registry.meta.rows[grant_key("person/erin")] = {**row, "grants": [{**row["grants"][0], "scope": "model/Iris_v2"}]}
    ended = {"role": "scientist", "scope": "model/Iris_v2", "reason": "left", "person": "erin"}
    assert registry.call("POST /v1/access/withdrawals", ended)[1]["grants"] == []
    assert registry.events("grant.withdrawn")[0]["data"]["scope"] == "model/Iris_v2"


@pytest.mark.parametrize("subject", [{"person": "ada"}, {"login": "ada"}])
def test_nobody_changes_what_they_hold_themselves(registry: Registry, subject: dict[str, str]) -> None:
    status, body = registry.grant("approver", "registry", **subject)
    assert (status, body["detail"]) == (403, "nobody changes what they hold themselves; another admin does it")


def test_an_admin_of_a_project_grants_nothing(registry: Registry) -> None:
    registry.grant("admin", "project/onco", person="gil")
    assert registry.call("GET /v1/access/check", login="gil", action="access.grant")[1]["allowed"] is False
    status, _ = registry.call(
        "POST /v1/access/grants", {"person": "erin", "role": "admin", "scope": "registry", "reason": "x"}, login="gil"
    )
    assert status == 403


@pytest.mark.parametrize("role", ["scientist", "approver", "deployer", "auditor", "consumer", "validator"])
@pytest.mark.parametrize(
    "route", ["POST /v1/access/grants", "POST /v1/access/withdrawals", "POST /v1/access/policies", "POST /v1/access/placements"]
)
def test_who_profits_from_a_grant_or_a_tag_cannot_write_it(registry: Registry, role: str, route: str) -> None:
    body = {
        "person": "gil",
        "role": role,
        "scope": "registry",
        "reason": "x",
        "model": "a",
        "tags": {"tier": "low"},
        "name": "p",
        "text": LOW,
    }
    before = dict(registry.meta.rows)
    assert registry.call(route, body, role=role, login="erin")[0] == 403
    assert {k for k in registry.meta.rows.keys() - before.keys() if k.partition != "AUDIT"} == set()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "superuser", "scope": "registry", "person": "erin"}, "role"),
        ({"role": "approver", "scope": "everything", "person": "erin"}, "scope"),
        ({"role": "approver", "scope": "registry"}, "person"),
        ({"role": "approver", "scope": "registry", "person": "erin", "login": "erin"}, "person"),
        ({"role": "approver", "scope": "registry", "login": "erin"}, "login"),
        ({"role": "approver", "scope": "registry", "person": "erin", "until": "tomorrow"}, "until"),
        ({"role": "approver", "scope": "registry", "person": "erin", "until": "2026-01-02T03:04:05"}, "until"),
        ({"role": "approver", "scope": "registry", "person": "erin", "until": "2025-01-02T03:04:05Z"}, "until"),
        ({"role": "approver", "scope": "registry", "person": "erin", "roles": ["admin"]}, "roles"),
    ],
)
def test_what_is_wrong_with_a_grant_is_named(registry: Registry, body: dict[str, Any], field: str) -> None:
    status, answer = registry.call("POST /v1/access/grants", {**body, "reason": "x"})
    assert (status, answer["field"]) == (400, field)


def test_a_crash_at_any_call_leaves_a_grant_whole_or_not_there_and_a_retry_ends_it(registry: Registry) -> None:
    def give() -> Any:
        return give_grant(registry.meta, "person/erin", Grant("approver", "model/a"), reason="x", by=ADA, at=AT)

    for lost in (registry.faults.fail_before, registry.faults.fail_after):
        for call in (1, 2, 3):
            registry.meta.rows = {k: r for k, r in registry.meta.rows.items() if not k.partition.startswith(("GRANT#", OUTBOX))}
            registry.faults.clear()
            lost(call)
            with pytest.raises(UnavailableError):
                give()
            assert (grant_key("person/erin") in registry.meta.rows) == (len(registry.events("grant.given")) == 1)
            assert give().grants == (Grant("approver", "model/a"),)
            assert len(registry.events("grant.given")) == 1


def test_two_admins_at_the_same_moment_lose_no_grant(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.grant("approver", "model/a")
    read = registry.meta.get

    def meanwhile(key: Any) -> Any:
        row = read(key)
        if key == grant_key("person/erin"):
            monkeypatch.setattr(registry.meta, "get", read)
            registry.grant("approver", "model/b")
        return row

    monkeypatch.setattr(registry.meta, "get", meanwhile)
    with pytest.raises(ConflictError):
        give_grant(registry.meta, "person/erin", Grant("approver", "model/c"), reason="x", by=ADA, at=AT)
    assert [g["scope"] for g in registry.meta.rows[grant_key("person/erin")]["grants"]] == ["model/a", "model/b"]


def test_an_added_policy_counts_from_the_next_act_on_and_its_editions_are_never_edited(registry: Registry) -> None:
    publish = {"name": "low-alone", "text": LOW, "reason": "as agreed"}
    status, first = registry.call("POST /v1/access/policies", publish)
    assert (status, first["number"]) == (201, 1)
    assert registry.call("POST /v1/access/policies", publish)[1] == first
    second = registry.call("POST /v1/access/policies", {**publish, "text": LOW.replace("low", "medium")})[1]
    assert second["number"] == 2
    assert registry.meta.rows[access_policy_key("low-alone", 1)]["text"] == LOW
    ended = registry.call("POST /v1/access/policies", {**publish, "text": ""})[1]
    assert (ended["number"], ended["sha256"]) == (3, "")
    told = sorted(registry.events("access.published"), key=lambda event: event["sequence"])
    assert [(e["sequence"], e["data"]["number"], e["data"]["previous"]) for e in told] == [
        (1, 1, ""),
        (2, 2, first["sha256"]),
        (3, 3, second["sha256"]),
    ]


def test_a_policy_that_the_schema_does_not_allow_is_not_published(registry: Registry) -> None:
    text = 'permit (principal, action == Attestry::Action::"everything", resource);'
    status, body = registry.call("POST /v1/access/policies", {"name": "p", "text": text, "reason": "x"})
    assert (status, body["rule"]) == (400, "schema")
    assert POLICIES_KEY not in registry.meta.rows


def test_a_model_is_placed_by_an_admin_and_by_nobody_else(registry: Registry) -> None:
    body = {"model": "a", "tags": {"tier": "low"}, "project": "onco", "reason": "as classified"}
    status, placed = registry.call("POST /v1/access/placements", body)
    assert (status, placed["scopes"]) == (200, ["registry", "model/a", "tag/tier=low", "project/onco"])
    registry.call("POST /v1/access/placements", body)
    (event,) = registry.events("model.placed")
    assert (event["subject"], event["data"]["tags"]) == ("placed/a", {"tier": "low"})
    assert registry.meta.rows[placement_key("a")]["rev"] == 1


def test_who_can_names_those_whom_a_grant_lets_and_the_roles_of_those_who_were_granted_nothing(registry: Registry) -> None:
    registry.grant("approver", "model/a")
    registry.grant("validator", "model/b", person="gil")
    _, told = registry.call("GET /v1/access/who-can", role="auditor", action="versions.decide", model="a")
    assert [(one["subject"], one["scopes"]) for one in told["granted"]] == [("person/erin", {"approver": ["model/a"]})]
    assert told["roles"] == ["validator", "approver"]
    assert told["governed"] == ["person/erin", "person/gil"]
    status, body = registry.call("GET /v1/access/who-can", action="versions.invent", model="a")
    assert (status, body["field"]) == (400, "action")


@pytest.mark.parametrize("name", ["a\nb", 'a"na=M|\x85', "x" * 3000, " a", "a/b"])
@pytest.mark.parametrize("route", ["GET /v1/access/who-can", "GET /v1/access/check"])
def test_a_review_of_what_is_no_name_of_a_model_reads_nothing_of_it_and_says_so(registry: Registry, route: str, name: str) -> None:
    asked: list[str] = []
    get, get_many = registry.meta.get, registry.meta.get_many
    vars(registry.meta).update(
        get=lambda key: asked.append(key.partition) or get(key),
        get_many=lambda keys, **how: asked.extend(key.partition for key in keys) or get_many(keys, **how),
    )
    status, body = registry.call(route, role="auditor", action="versions.decide", model=name, person="erin")
    assert (status, body["field"]) == (400, "name")
    assert asked
    assert [partition for partition in asked if partition.startswith("PLACED#")] == []


def test_a_grant_that_has_ended_lets_nobody_by_the_review_as_by_the_gate(registry: Registry) -> None:
    until = {"until": "2026-01-03T00:00:00Z", "reason": "x", "person": "erin", "role": "approver", "scope": "registry"}
    registry.call("POST /v1/access/grants", until)
    ask = {"action": "versions.decide", "model": "a", "person": "erin"}
    assert registry.call("GET /v1/access/check", **ask)[1]["allowed"] is True
    registry.clock.at += timedelta(days=2)
    assert registry.call("GET /v1/access/check", **ask)[1]["allowed"] is False


def test_everybody_asks_for_themselves_and_reviewers_for_others(registry: Registry) -> None:
    own = registry.call("GET /v1/access/check", role="approver", login="erin", action="versions.decide", model="a")[1]
    assert (own["allowed"], own["policies"]) == (True, ["approver.models"])
    assert registry.call("GET /v1/access/check", role="approver", login="erin", action="people.add", person="gil")[0] == 403
