"""Attacks on the form of requests: too large, too deep, with fields, parameters and names that ought not to be there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from attestry.api.operation import Operation
from attestry.api.operations import OPERATIONS
from tests.api_world import Answer, ApiWorld

POSTS = [o for o in OPERATIONS if o.method == "POST"]
CHANGES = pytest.mark.parametrize("operation", POSTS, ids=lambda o: o.id)
WITH_MODEL = pytest.mark.parametrize("operation", [o for o in OPERATIONS if "{model}" in o.path], ids=lambda o: o.id)
INJECTED = (
    "..",
    "%2e%2e%2f%2e%2e%2fpeople",
    "x%00",
    "x%0d%0aset-cookie:%20a=b",
    "x%23HEAD",
    "%23",
    "{model}",
    "*",
    "%25",
    "%c3%28",
    "x%3fenvironment=production",
    "x" * 4000,
)


@pytest.fixture(scope="module")
def api() -> Iterator[ApiWorld]:
    with pytest.MonkeyPatch.context() as patch:
        yield ApiWorld.install(patch)


def who(operation: Operation) -> str:
    return f"{operation.roles[0]}/{'dana' if operation.roles[0] == 'scientist' else 'frank'}"


def send(api: ApiWorld, operation: Operation, body: Any = None, *, query: str = "", **values: str) -> Answer:
    there = {"model": api.model, "number": "1", "id": api.prediction, "submission": "0" * 24}
    target = operation.path.format(**{**dict.fromkeys(operation.path_parameters, "x"), **there, **values})
    return api.call(operation.method, target + query, body, who=who(operation))


def kept(api: ApiWorld) -> dict[Any, Any]:
    """The rows that are records: notes of audited acts come and go."""
    return {key: row for key, row in api.meta.rows.items() if key.partition not in ("AUDIT",)}


@CHANGES
def test_a_body_beyond_the_limit_is_refused_and_changes_nothing(api: ApiWorld, operation: Operation) -> None:
    before = kept(api)
    answer = send(api, operation, b'{"reason": "' + b"x" * (1 << 20) + b'"}')
    assert (answer.status, answer.body["rule"]) == (400, "max_bytes")
    assert kept(api) == before


BODIES = (
    b'{"a":' * 50_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"reason": "a", "reason": "b"}',
    b'{"reason": 1e999}',
    b'{"reason": NaN}',
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"text"',
    b'{"reason": "\\ud800"}',
    b'{"\\ud800": 1}',
)


@CHANGES
def test_a_body_that_readers_understand_differently_is_refused(api: ApiWorld, operation: Operation) -> None:
    before = kept(api)
    for body in BODIES:
        answer = send(api, operation, body)
        assert answer.status == 400, answer.raw
    assert kept(api) == before


FIELDS = ("principal", "by", "submitter", "person_id", "roles", "standing", "rev", "pk", "__proto__")


@CHANGES
def test_a_field_that_an_operation_does_not_have_is_refused_by_its_name(api: ApiWorld, operation: Operation) -> None:
    assert operation.body is not None
    before = kept(api)
    filled = dict.fromkeys(operation.body.get("required", ()), "x")
    for field in set(FIELDS) - set(operation.body["properties"]):
        answer = send(api, operation, {**filled, field: "admin"})
        told = (answer.status, answer.body["field"], answer.body["rule"])
        # A prediction has one field, and says so of every other.
        assert told == ((400, "", "fields") if operation.id == "predictions.make" else (400, field, "unknown_field"))
    assert kept(api) == before


def test_a_field_inside_an_announced_file_is_refused_by_its_name(api: ApiWorld) -> None:
    files = [{"name": "manifest.json", "size": 2, "sha256": "0" * 64, "key": "models/x"}]
    answer = api.call("POST", "/v1/uploads", {"files": files}, who="scientist/dana")
    assert (answer.status, answer.body["field"], answer.body["rule"]) == (400, "files[0].key", "unknown_field")


@WITH_MODEL
def test_a_name_in_the_path_leads_nowhere_else_and_into_no_header(api: ApiWorld, operation: Operation) -> None:
    for name in INJECTED:
        answer = send(api, operation, None if operation.method == "GET" else {"reason": "r"}, model=name)
        if operation.id == "conflicts.list":
            assert (answer.status, answer.body["conflicts"]) == (200, [])
        else:
            assert 400 <= answer.status < 500, answer.raw
        assert not any(set("\r\n") & set(value) for value in answer.headers.values())
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.query], ids=lambda o: o.id)
def test_a_parameter_that_is_there_twice_is_refused(api: ApiWorld, operation: Operation) -> None:
    name = operation.query[0].name
    answer = send(api, operation, {} if operation.method == "POST" else None, query=f"?{name}=1&{name}=2")
    assert (answer.status, answer.body["field"], answer.body["rule"]) == (400, name, "once")


def test_who_calls_is_not_read_from_any_header(api: ApiWorld) -> None:
    headers = {"x-amzn-user": "erin", "x-forwarded-user": "erin", "authorization": "Bearer erin", "x-forwarded-for": "203.0.113.9"}
    me = api.call("GET", "/v1/me", who="scientist/dana", headers=headers).body
    assert (me["login"], me["address"]) == ("dana", "192.0.2.7")


def test_what_went_wrong_inside_is_not_told(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.meta, "_call", lambda *_: 1 / 0)
    answer = api.call("GET", f"/v1/models/{api.model}")
    assert (answer.status, answer.body["code"]) == (500, "internal")
    assert "division" not in json.dumps(answer.body)
