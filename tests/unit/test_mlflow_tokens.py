"""MLflow's clients with a bearer token: no IAM stands before the gate there, so the gate alone keeps each role to its routes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from attestry.access.issuers import METHOD, TokenHolder
from attestry.domain.principal import ROLES
from attestry.usecases.grants import Grant, give_grant, withdraw_grant
from attestry.usecases.people import add_person
from infra import mlflow_routes
from lambdas import mlflow
from tests.mlflow_desk import API_URL, FILES, MODELS, VERSIONS, Desk
from tests.unit.test_mlflow_handlers import MODEL, with_files
from tests.versions import AT, session

EMPTY = "iris"
ADA = session("admin", "ada", person="ada")
ENDS = 9_999_999_999
FORBIDDEN = (403, "PERMISSION_DENIED")
ASKED: dict[str, Any] = {
    "name": MODEL,
    "version": "1",
    "new_name": f"{MODEL}-2",
    "key": "team",
    "value": "risk",
    "alias": "champion",
    "stage": "Staging",
    "description": "scores loans",
    "source": "attestry://uploads/0123456789abcdef01234567",
    "path": f"models/{MODEL}/1",
}
"""What every route finds its own fields in; fields of others are passed over, as MLflow's servers do."""


def holder(*roles: str, login: str = "u-17", **changed: Any) -> TokenHolder:
    """Whom a token is of, at an issuer whose groups stand for roles."""
    told = TokenHolder("corp", "https://login.example.com", login, f"oidc:corp:{login}", roles, True, ENDS)
    return replace(told, **changed)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(monkeypatch)
    with_files(made)
    made.create(EMPTY)
    return made


def asked(route: mlflow_routes.MlflowRoute) -> dict[str, Any]:
    """The fields of a request on a route, without those of its own that it takes otherwise."""
    if route.path.endswith("/search"):
        return {}
    names = {"registered-models/create": "new-model", "model-versions/create": EMPTY}
    return {**ASKED, "name": next((name for end, name in names.items() if route.path.endswith(end)), MODEL)}


def path_of(route: mlflow_routes.MlflowRoute) -> str:
    return route.path.replace("{path+}", f"models/{MODEL}/1/MLmodel").replace("{webhook_id}", "ci")


def written(desk: Desk) -> dict[Any, Any]:
    """All rows but the notes of what was refused."""
    return {key: row for key, row in desk.meta.rows.items() if not key.partition.startswith("AUDIT")}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_calls_by_token_the_routes_that_iam_would_let_it_call_and_no_other(desk: Desk, role: str) -> None:
    for route in mlflow_routes.EVERY:
        before, behind = written(desk), len(desk.asked)
        status, body = desk.ask(route.method, path_of(route), holder=holder(role), **asked(route))
        if route in mlflow_routes.CALLS[role]:
            # What a role may ask for can still be refused: by the function that moves versions, or by a rule of the registry.
            assert status != 403 or len(desk.asked) > behind or "takes the role" not in body["message"], (route, body)
        else:
            assert (status, body["error_code"], written(desk)) == (*FORBIDDEN, before), (route, body)


@pytest.mark.parametrize("role", ROLES)
def test_a_version_of_an_open_model_is_deleted_by_token_by_who_may_delete_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """On this route IAM stands in front of more than the gate does: the function asks for the right to delete by itself."""
    free = Desk(monkeypatch, "open")
    free.create(MODEL)
    with_files(free)
    status, _ = free.ask("DELETE", f"{VERSIONS}/delete", holder=holder(role), name=MODEL, version="1")
    assert status == (200 if role in ("scientist", "admin") else 403)
    assert free.ask("GET", f"{VERSIONS}/get", name=MODEL, version="1")[0] == (404 if status == 200 else 200)


def test_who_holds_no_role_by_their_groups_calls_nothing_of_mlflow(desk: Desk) -> None:
    for route in mlflow_routes.EVERY:
        status, body = desk.ask(route.method, path_of(route), holder=holder(), **asked(route))
        assert (status, body.get("error_code")) == FORBIDDEN, route


def test_what_is_done_by_token_is_done_in_the_name_of_its_holder(desk: Desk) -> None:
    add_person(desk.meta, "vera", ["oidc:corp:u-17"], name="", by=ADA, at=AT)
    status, body = desk.ask("POST", f"{MODELS}/create", holder=holder("scientist"), name="Iris", description="petals")
    assert (status, body["registered_model"]["name"]) == (200, "Iris")
    made_by = [e["principal"] for e in desk.events() if e["kind"] == "model.created"]
    assert ("oidc:corp:u-17", "vera", METHOD) in [(one["login"], one["person"], one["method"]) for one in made_by]


def test_files_are_where_the_client_asked_so_that_its_token_opens_them(desk: Desk) -> None:
    asked_for = {"name": MODEL, "version": "1"}
    by_token = desk.ok("GET", f"{VERSIONS}/get-download-uri", holder=holder("scientist"), **asked_for)["artifact_uri"]
    signed = desk.ok("GET", f"{VERSIONS}/get-download-uri", **asked_for)["artifact_uri"]
    assert by_token == f"{API_URL}/oidc{FILES}/artifacts/models/{MODEL}/1"
    assert signed == f"{API_URL}{FILES}/artifacts/models/{MODEL}/1"


def test_the_functions_behind_decide_on_the_same_holder(desk: Desk) -> None:
    """A move is asked of the function that moves versions, with the gateway's own word on whose the token is."""
    assert desk.ask("DELETE", f"{VERSIONS}/delete", holder=holder("scientist"), name=MODEL, version="1")[0] == 403
    status, body = desk.ask("DELETE", f"{VERSIONS}/delete", holder=holder("deployer"), name=MODEL, version="1")
    assert status == 200, body
    assert [route.partition(" ")[2].startswith("/v1/") for route in desk.asked] == [True] * len(desk.asked) != []
    (retired,) = [e for e in desk.events() if e["kind"] == "version.retired"]
    assert retired["principal"]["login"] == "oidc:corp:u-17"


@pytest.mark.parametrize(
    "changed",
    [{"expires": 1}, {"login": "dana"}, {"login": "oidc:other:u-17"}, {"roles": ("root",)}],
    ids=["ended", "the login of an AWS user", "of another issuer", "no role of ours"],
)
def test_a_token_that_ended_or_that_the_authorizer_did_not_write_opens_nothing(desk: Desk, changed: dict[str, Any]) -> None:
    for route in mlflow_routes.EVERY:
        status, body = desk.ask(route.method, path_of(route), holder=replace(holder("admin"), **changed), **asked(route))
        assert (status, body["error_code"], set(body)) == (*FORBIDDEN, {"error_code", "message"}), route


def test_a_holder_in_a_scope_sees_and_changes_what_is_in_it_and_nothing_else(desk: Desk) -> None:
    dana = holder("scientist", login="dana")
    give_grant(desk.meta, "login/oidc:corp:dana", Grant("scientist", f"model/{EMPTY}"), reason="theirs", by=ADA, at=AT)
    found = desk.ok("GET", f"{MODELS}/search", holder=dana)["registered_models"]
    assert [model["name"] for model in found] == [EMPTY]
    assert desk.refused("GET", f"{VERSIONS}/get", holder=dana, name=MODEL, version="1")[:2] == FORBIDDEN
    assert desk.refused("POST", f"{VERSIONS}/set-tag", holder=dana, name=MODEL, version="1", key="a", value="b")[:2] == FORBIDDEN
    desk.ok("POST", f"{MODELS}/set-tag", holder=dana, name=EMPTY, key="a", value="b")
    withdraw_grant(desk.meta, "login/oidc:corp:dana", "scientist", f"model/{EMPTY}", reason="left", by=ADA, at=AT)
    assert desk.refused("POST", f"{MODELS}/set-tag", holder=dana, name=EMPTY, key="a", value="c")[:2] == FORBIDDEN


def test_where_webhooks_are_off_mlflows_clients_are_told_so_and_how_they_are_turned_on(desk: Desk) -> None:
    for admin in (None, holder("admin")):
        status, code, message = desk.refused("GET", mlflow.WEBHOOKS, by="ada", role="admin", holder=admin)
        assert (status, code) == (404, "ENDPOINT_NOT_FOUND")
        assert "attestry:webhooks=true" in message
