"""Access by another name: what is decided on a model holds whatever the caller calls it, and in lists too."""

from __future__ import annotations

from typing import Any

import pytest

from attestry.access.engine import OnModel
from attestry.access.reader import AccessReader
from attestry.access.rows import POLICIES_KEY, access_policy_key, grant_key, placement_key
from attestry.access.scopes import Placement
from attestry.access.standing import Caller
from attestry.domain.catalogue import identity_of
from attestry.evidence.digests import sha256_hex
from attestry.ports import Key, MetaStore, Put, When
from attestry.usecases.catalogue import rename_model
from attestry.usecases.catalogue_rows import aliases_key
from tests.api_world import ApiWorld
from tests.fakes import MemoryMetaStore
from tests.mlflow_desk import MODELS, VERSIONS, Desk
from tests.versions import AT, ERIN, make_version

NOT_SECRET = """@id("not-what-is-secret")
forbid (principal, action == Attestry::Action::"{action}", resource) when {{ resource in Attestry::Scope::"tag/tier=secret" }};"""
DANA = "scientist/dana"


def forbid(meta: MetaStore, action: str) -> None:
    """Publish a policy that forbids an action on models of the tier `secret`."""
    text = NOT_SECRET.format(action=action)
    edition = {"number": 1, "sha256": sha256_hex(text.encode())}
    meta.transact([Put(POLICIES_KEY, {"policies": {"secret": edition}}), Put(access_policy_key("secret", 1), {"text": text})])


def place(meta: MetaStore, model: str) -> None:
    """Place a model in the tier `secret`."""
    meta.transact([Put(placement_key(model), Placement({"tier": "secret"}).to_item())])


def grant(meta: MetaStore, person: str, scope: str) -> None:
    meta.transact([Put(grant_key(f"person/{person}"), {"grants": [{"role": "scientist", "scope": scope, "until": ""}]}, When())])


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> ApiWorld:
    return ApiWorld.install(monkeypatch)


class TestTheNativeApi:
    """Paths take a model's name where it gives the identity."""

    @pytest.fixture
    def hush(self, api: ApiWorld) -> str:
        """An open model whose identity is not its name, in the tier `secret`."""
        made = api.call("POST", "/v1/models", {"name": "Hush_v2", "mode": "open"}, who=DANA).body
        place(api.meta, made["model"])
        return str(made["model"])

    @pytest.mark.parametrize(
        ("action", "method", "below", "body"),
        [
            ("models.change", "PATCH", "", {"description": "x"}),
            ("models.change", "PATCH", "", {"name": "Loud"}),
            ("models.delete", "DELETE", "", None),
            ("models.tag", "PUT", "/tags/team", {"value": "mine"}),
            ("aliases.list", "GET", "/aliases", None),
            ("aliases.delete", "DELETE", "/aliases/champion", None),
        ],
    )
    def test_a_policy_on_a_model_holds_for_every_name_that_leads_to_it(
        self, api: ApiWorld, hush: str, action: str, method: str, below: str, body: object
    ) -> None:
        forbid(api.meta, action)
        for name in (hush, "Hush_v2"):
            answer = api.call(method, f"/v1/models/{name}{below}", body, who="admin/grace")
            assert answer.status == 403, name
            assert "not-what-is-secret" in answer.body["detail"]

    def test_a_policy_on_a_model_holds_for_the_name_that_it_was_given_since(self, api: ApiWorld, hush: str) -> None:
        assert api.call("PATCH", f"/v1/models/{hush}", {"name": "calm"}, who=DANA).status == 200
        forbid(api.meta, "models.change")
        assert api.call("PATCH", "/v1/models/calm", {"name": "loud"}, who=DANA).status == 403
        assert api.call("GET", f"/v1/models/{hush}", who=DANA).body["name"] == "calm"

    def test_who_may_not_make_a_model_of_a_name_gives_that_name_to_none_of_theirs(self, api: ApiWorld) -> None:
        api.call("POST", "/v1/models", {"name": "sandbox", "mode": "open"}, who=DANA)
        grant(api.meta, "dana", "model/sandbox")
        assert api.call("POST", "/v1/models", {"name": "fraud"}, who=DANA).status == 403
        assert api.call("PATCH", "/v1/models/sandbox", {"name": "fraud"}, who=DANA).status == 403
        assert api.call("GET", "/v1/models/sandbox", who=DANA).body["name"] == "sandbox"
        grant(api.meta, "dana", "registry")
        assert api.call("PATCH", "/v1/models/sandbox", {"name": "fraud"}, who=DANA).body["name"] == "fraud"

    def test_lists_and_searches_leave_out_what_a_policy_forbids_to_read_also_to_who_was_granted_nothing(
        self, api: ApiWorld, hush: str
    ) -> None:
        forbid(api.meta, "models.read")
        assert api.call("GET", f"/v1/models/{hush}", who="auditor/grace").status == 403
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/search/models"), ("POST", "/v1/search/versions")):
            shown = api.call(method, path, None if method == "GET" else {}, who="auditor/grace")
            assert shown.status == 200
            assert hush not in shown.raw, path
        assert api.model in api.call("GET", "/v1/models", who="auditor/grace").raw


class TestMlflow:
    """MLflow's routes find the model by its name."""

    @pytest.fixture
    def desk(self, monkeypatch: pytest.MonkeyPatch) -> Desk:
        return Desk(monkeypatch, "open")

    def test_who_may_not_make_a_model_of_a_name_gives_that_name_to_none_of_theirs(self, desk: Desk) -> None:
        desk.create("sandbox", by="erin")
        grant(desk.meta, "dana", "model/sandbox")
        assert desk.refused("POST", f"{MODELS}/create", name="fraud")[:2] == (403, "PERMISSION_DENIED")
        assert desk.refused("POST", f"{MODELS}/rename", name="sandbox", new_name="fraud")[:2] == (403, "PERMISSION_DENIED")
        assert desk.refused("GET", f"{MODELS}/get", name="fraud", by="erin")[0] == 404

    def test_searches_leave_out_what_a_policy_forbids_to_read_also_to_who_was_granted_nothing(self, desk: Desk) -> None:
        forbid(desk.meta, "models.read")
        for name in ("hush", "hush-2"):
            place(desk.meta, name)
        for name in ("hush", "iris"):
            make_version(desk.meta, model=name)
            desk.create(f"{name}-2")
        assert desk.refused("GET", f"{MODELS}/get", name="hush")[0] == 403
        found = [model["name"] for model in desk.ok("GET", f"{MODELS}/search")["registered_models"]]
        assert "iris-2" in found
        assert not {"hush", "hush-2"} & set(found)
        for asked in ({}, {"filter": "name = 'hush'"}, {"filter": "name IN ('hush', 'iris')"}):
            assert "hush" not in str(desk.ok("GET", f"{VERSIONS}/search", **asked))


def noted(meta: MetaStore) -> set[tuple[str, str]]:
    """Return act and object of what was denied."""
    return {(row["act"], row["object"]) for row in meta.query("AUDIT") if row["outcome"] == "denied"}


class TestWhatIsNotedOfADenial:
    """It names the model, whether the path does or not."""

    def test_through_mlflow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        desk = Desk(monkeypatch, "open")
        make_version(desk.meta, model="fraud")
        desk.create("Hush_v2", by="erin")
        identity = identity_of("Hush_v2")
        grant(desk.meta, "dana", "model/sandbox")
        desk.refused("PATCH", f"{MODELS}/update", name="Hush_v2", description="x")
        desk.refused("GET", f"{VERSIONS}/get-download-uri", name="fraud", version="1")
        assert noted(desk.meta) == {
            (f"PATCH {MODELS}/update", f"model={identity}"),
            (f"GET {VERSIONS}/get-download-uri", "model=fraud"),
        }

    def test_of_a_run(self, api: ApiWorld) -> None:
        grant(api.meta, "dana", "model/sandbox")
        assert api.call("POST", "/v1/runs", {"run": "1" * 32, "experiment": "fraud"}, who=DANA).status == 403
        assert noted(api.meta) == {("POST /v1/runs", "model=fraud")}


def test_a_name_that_goes_to_another_model_behind_the_gate_shows_nothing_of_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, "open")
    for model in ("mine", "theirs"):
        desk.create(model, by="erin")
        make_version(desk.meta, model=model)
        desk.ok("POST", f"{VERSIONS}/set-tag", by="erin", name=model, version="1", key="of", value=model)
    desk.ok("POST", f"{MODELS}/rename", by="erin", name="mine", new_name="Shared_name")
    desk.ok("POST", f"{MODELS}/alias", by="erin", name="Shared_name", alias="champion", version="1")
    grant(desk.meta, "dana", "model/mine")
    read = desk.meta.get_many

    def overtaken(keys: Any, **how: Any) -> Any:
        found = read(keys, **how)
        if aliases_key("mine") in keys:
            monkeypatch.setattr(desk.meta, "get_many", read)
            rename_model(desk.meta, "mine", "mine", by=ERIN, at=AT)
            rename_model(desk.meta, "theirs", "Shared_name", by=ERIN, at=AT)
        return found

    monkeypatch.setattr(desk.meta, "get_many", overtaken)
    shown = desk.ok("GET", f"{MODELS}/alias", name="Shared_name", alias="champion")["model_version"]
    assert [tag["value"] for tag in shown["tags"]] == ["mine"]
    assert desk.refused("GET", f"{MODELS}/alias", name="Shared_name", alias="champion")[0] == 403


@pytest.mark.parametrize("name", ["a\nb", "x" * 3000, "a/b", " "])
def test_the_gate_makes_no_key_of_what_is_no_name(name: str) -> None:
    asked: list[Key] = []
    meta = MemoryMetaStore()
    get_many = meta.get_many
    vars(meta)["get_many"] = lambda keys, **how: asked.extend(keys) or get_many(keys, **how)
    known = AccessReader(meta).read(Caller(ERIN), name, AT, fresh=True)
    assert known.model(name).places == OnModel(name).places
    assert asked
    assert [key for key in asked if key.partition.startswith("PLACED#")] == []
