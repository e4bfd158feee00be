"""Whoever searches or changes through MLflow sees and touches what they may one by one, whatever is read at once to decide it."""

from __future__ import annotations

from typing import Any

import pytest

from attestry.access.rows import placement_key
from attestry.access.scopes import Placement
from attestry.aws.http import read_request
from attestry.domain.errors import UnprovenIdentityError
from attestry.ports import Delete, Put, Update, When
from attestry.usecases.access_policies import publish_access_policy
from attestry.usecases.grants import Grant, give_grant, withdraw_grant
from attestry.usecases.people import add_person
from attestry.usecases.records import model_key
from lambdas import mlflow
from tests.mlflow_desk import MODELS, VERSIONS, Desk
from tests.versions import AT, ERIN, make_version, session

ADA = session("admin", "ada", person="ada")
PLACED = {
    "alpha": Placement({"tier": "low"}, "onco", "clinic"),
    "beta": Placement({"tier": "high"}, "onco", "lab"),
    "gamma": Placement({}, "", ""),
    "delta": Placement({"tier": "low"}, "cardio", "lab"),
}
FORBID = 'forbid (principal, action == Attestry::Action::"models.read", resource in Attestry::Scope::"%s");'
ONLY_LOW = 'forbid (principal, action == Attestry::Action::"aliases.set", resource) unless {resource in Attestry::Scope::"tag/tier=low"};'


def place(desk: Desk, model: str, placement: Placement) -> None:
    desk.meta.transact([Put(placement_key(model), placement.to_item(), When())])


def version(desk: Desk, model: str, number: int) -> None:
    make_version(desk.meta, model=model, number=number)
    desk.meta._apply([Update(model_key(model), {"next": number + 1})])


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(monkeypatch, "open")
    for person in ("ada", "uma"):
        add_person(desk.meta, person, [person], name="", by=ERIN, at=AT)
    for model, placement in PLACED.items():
        desk.create(model)
        place(desk, model, placement)
        for number in (1, 2):
            version(desk, model, number)
    desk.meta.faults.clear()
    return desk


def give(desk: Desk, scope: str, role: str = "scientist", login: str = "uma") -> None:
    give_grant(desk.meta, f"person/{login}", Grant(role, scope), reason="asked for", by=ADA, at=AT)


def publish(desk: Desk, text: str) -> None:
    publish_access_policy(desk.meta, "added", text, reason="as agreed", by=ADA, at=AT)


def later() -> None:
    """Let so much time go by that reads, too, are decided on rows as they are."""
    vars(mlflow.world).pop("guard", None)


def one_by_one(desk: Desk, by: str) -> set[str]:
    """The models of which the caller is shown a version by its number."""
    return {model for model in PLACED if desk.ask("GET", f"{MODELS}/get", name=model, by=by)[0] == 200}


def found(desk: Desk, by: str, **asked: Any) -> set[str]:
    """The models of which a search of versions shows any, page by page."""
    names: set[str] = set()
    while True:
        page = desk.ok("GET", f"{VERSIONS}/search", by=by, max_results=3, **asked)
        names |= {one["name"] for one in page.get("model_versions", [])}
        if "next_page_token" not in page:
            return names
        asked["page_token"] = page["next_page_token"]


SCOPES: list[tuple[tuple[str, ...], set[str]]] = [
    (("model/alpha",), {"alpha"}),
    (("model/alph",), set()),
    (("model/beta", "model/gamma"), {"beta", "gamma"}),
    (("tag/tier=low",), {"alpha", "delta"}),
    (("project/onco",), {"alpha", "beta"}),
    (("unit/lab",), {"beta", "delta"}),
    (("unit/onco", "project/lab"), set()),
    (("project/onco", "tag/tier=low"), {"alpha", "beta", "delta"}),
    (("registry",), set(PLACED)),
]
FILTERS: list[dict[str, Any]] = [
    {},
    {"filter": "name LIKE '%a'"},
    {"filter": "name IN ('alpha', 'beta', 'gamma', 'delta')"},
    {"order_by": ["name"]},
    {"order_by": ["name DESC", "version_number ASC"]},
    {"order_by": ["creation_timestamp"]},
    {"order_by": ["version_number DESC"]},
]


@pytest.mark.parametrize(("scopes", "within"), SCOPES, ids=lambda value: "+".join(value) if isinstance(value, tuple) else "")
def test_a_search_shows_what_lies_in_the_callers_scopes_and_nothing_else(desk: Desk, scopes: tuple[str, ...], within: set[str]) -> None:
    for scope in scopes:
        give(desk, scope)
    later()
    assert one_by_one(desk, "uma") == within
    for asked in FILTERS:
        assert found(desk, "uma", **asked) == within, asked
    for model in PLACED:
        assert found(desk, "uma", filter=f"name = '{model}'") == within & {model}
    shown = desk.ok("GET", f"{MODELS}/search", by="uma").get("registered_models", [])
    assert {model["name"] for model in shown} == within


@pytest.mark.parametrize("granted", [None, "project/onco", "registry"])
def test_what_an_added_policy_forbids_is_in_no_search_of_anybody(desk: Desk, granted: str | None) -> None:
    publish(desk, FORBID % "tag/tier=low")
    if granted:
        give(desk, granted)
    later()
    within = {"beta"} if granted == "project/onco" else {"beta", "gamma"}
    for asked in FILTERS:
        assert found(desk, "uma", **asked) == within, asked
    assert {m["name"] for m in desk.ok("GET", f"{MODELS}/search", by="uma").get("registered_models", [])} == within


def test_a_request_that_passed_no_gate_is_shown_nothing() -> None:
    with pytest.raises(UnprovenIdentityError):
        read_request({"routeKey": f"GET {VERSIONS}/search"}).readable(["alpha"])


def calls(desk: Desk) -> list[str]:
    made = [call.rpartition(".")[2] for call in desk.meta.faults.calls]
    desk.meta.faults.clear()
    return made


def tag(desk: Desk, model: str, by: str = "uma") -> int:
    return desk.ask("POST", f"{VERSIONS}/set-tag", name=model, version="1", key="a", value="b", by=by)[0]


def test_who_may_where_the_model_lies_and_what_is_there_are_read_at_once(desk: Desk) -> None:
    give(desk, "project/onco")
    publish(desk, ONLY_LOW)
    tag(desk, "alpha")
    calls(desk)
    assert (tag(desk, "beta"), calls(desk)) == (200, ["get_many", "transact"])
    assert (tag(desk, "delta"), calls(desk)[:1]) == (403, ["get_many"])
    set_alias = [desk.ask("POST", f"{MODELS}/alias", name=name, alias="a", version="1", by="uma")[0] for name in ("alpha", "beta")]
    assert set_alias == [200, 403]


def test_a_grant_or_a_place_that_is_gone_counts_no_more(desk: Desk) -> None:
    give(desk, "project/onco")
    assert tag(desk, "alpha") == 200
    place(desk, "alpha", Placement({}, "cardio", ""))
    assert tag(desk, "alpha") == 403
    desk.meta.transact([Delete(placement_key("beta"))])
    assert tag(desk, "beta") == 403
    place(desk, "beta", PLACED["beta"])
    assert tag(desk, "beta") == 200
    withdraw_grant(desk.meta, "person/uma", "scientist", "project/onco", reason="left", by=ADA, at=AT)
    assert tag(desk, "beta") == 403


def test_a_model_that_was_renamed_lies_where_it_lay_and_not_where_its_name_would(desk: Desk) -> None:
    give(desk, "project/onco")
    desk.ok("POST", "/api/2.0/mlflow/registered-models/rename", name="delta", new_name="epsilon")
    desk.ok("POST", "/api/2.0/mlflow/registered-models/rename", name="alpha", new_name="zeta")
    place(desk, "epsilon", Placement({}, "onco", ""))
    place(desk, "zeta", Placement({}, "cardio", ""))
    assert tag(desk, "epsilon") == 403
    assert tag(desk, "zeta") == 200
    later()
    assert found(desk, "uma") == {"zeta", "beta"}


def test_what_another_function_did_meanwhile_is_in_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, "governed")
    desk.create("alpha")
    version(desk, "alpha", 1)
    add_person(desk.meta, "gil", ["gil"], name="", by=ERIN, at=AT)
    moved = desk.ok("POST", f"{VERSIONS}/transition-stage", name="alpha", version="1", stage="Archived", by="gil", role="deployer")
    assert moved["model_version"]["current_stage"] == "Archived"
