"""MLflow's registry surface over the use cases: what clients see, in an open and in a governed model, and what they cannot do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from attestry.domain.errors import UnavailableError
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import FileRef
from attestry.evidence.digests import sha256_hex
from attestry.ports import Update
from attestry.usecases.mlflow_files import MAX_FILE_BYTES
from attestry.usecases.records import load_version, model_key, version_key
from tests.mlflow_desk import API_URL, FILES, MODELS, VERSIONS, Desk
from tests.versions import make_approved, make_version

MODEL = "credit-risk"
MLMODEL = b"flavors: {}\n"


@pytest.fixture
def governed(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(monkeypatch, "open")
    desk.create(MODEL)
    return desk


def with_files(desk: Desk, number: int = 1, *, standing: Standing = Standing.APPROVED, **files: bytes) -> None:
    """A version whose files are in the store."""
    version = make_version(desk.meta, number=number, stage=Stage.APPROVAL, standing=standing, approved=True)
    refs = []
    for path, data in (files or {"model/MLmodel": MLMODEL, "model/data/model.pkl": b"pickle", "lock.txt": b"x"}).items():
        stored = desk.store.put_new(f"{version.folder}/frozen/{path}", data)
        refs.append(FileRef(path, stored.key, stored.version_id, len(data), sha256_hex(data)))
    desk.meta._apply([Update(version_key(MODEL, number), {"frozen": [r.to_item() for r in refs]})])


def counted(desk: Desk, last: int) -> None:
    """Let the model's head count the versions that were put beside it."""
    desk.meta._apply([Update(model_key(MODEL), {"next": last + 1})])


def test_a_model_is_made_described_found_and_tagged(governed: Desk) -> None:
    made = governed.create("Iris_Classifier v2", description="petals", tags=[{"key": "team", "value": "bio"}])
    assert (made["name"], made["description"], made["tags"]) == ("Iris_Classifier v2", "petals", [{"key": "team", "value": "bio"}])
    governed.ok("PATCH", f"{MODELS}/update", name="Iris_Classifier v2", description="sepals")
    governed.ok("POST", f"{MODELS}/set-tag", name="Iris_Classifier v2", key="tier", value="low")
    governed.ok("DELETE", f"{MODELS}/delete-tag", name="Iris_Classifier v2", key="team")
    shown = governed.ok("GET", f"{MODELS}/get", name="Iris_Classifier v2")["registered_model"]
    assert (shown["description"], shown["tags"]) == ("sepals", [{"key": "tier", "value": "low"}])
    assert sorted(e["kind"] for e in governed.events()) == ["model.changed", "model.created", "tag.deleted", "tag.set"]


def test_a_model_that_is_there_is_told_by_the_code_on_which_register_model_goes_on(governed: Desk) -> None:
    governed.create("iris")
    assert governed.refused("POST", f"{MODELS}/create", name="iris")[:2] == (400, "RESOURCE_ALREADY_EXISTS")


def test_what_is_not_there_is_told_as_mlflow_tells_it(governed: Desk) -> None:
    missing = (404, "RESOURCE_DOES_NOT_EXIST", "Registered Model with name=iris not found")
    assert governed.refused("GET", f"{MODELS}/get", name="iris") == missing
    assert governed.refused("GET", f"{VERSIONS}/get", name="iris", version="1") == missing
    governed.create("iris")
    assert governed.refused("GET", f"{VERSIONS}/get", name="iris", version="1")[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert governed.refused("GET", f"{MODELS}/alias", name="iris", alias="champion")[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert governed.refused("GET", f"{MODELS}/alias", name="iris", alias="latest")[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


def test_an_unknown_route_of_the_surface_is_told_in_its_words(governed: Desk) -> None:
    assert governed.refused("GET", f"{MODELS}/list")[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


def test_aliases_name_versions_and_move(governed: Desk) -> None:
    for number in (1, 2):
        make_approved(governed.meta, number)
    counted(governed, 2)
    for number in ("1", "2"):
        governed.ok("POST", f"{MODELS}/alias", name=MODEL, alias="champion", version=number)
    shown = governed.ok("GET", f"{MODELS}/alias", name=MODEL, alias="champion")["model_version"]
    assert (shown["version"], shown["aliases"]) == ("2", ["champion"])
    assert governed.ok("GET", f"{MODELS}/alias", name=MODEL, alias="latest")["model_version"]["version"] == "2"
    governed.ok("DELETE", f"{MODELS}/alias", name=MODEL, alias="champion")
    governed.ok("DELETE", f"{MODELS}/alias", name=MODEL, alias="champion")
    assert "aliases" not in governed.ok("GET", f"{MODELS}/get", name=MODEL)["registered_model"]


def test_a_version_is_described_and_tagged_and_the_registrys_own_tags_are_not_set(governed: Desk) -> None:
    make_approved(governed.meta, 1)
    governed.ok("PATCH", f"{VERSIONS}/update", name=MODEL, version="1", description="the first")
    governed.ok("POST", f"{VERSIONS}/set-tag", name=MODEL, version="1", key="reviewed", value="yes")
    shown = governed.version(MODEL, 1)
    assert (shown["description"], shown["tags"], shown["status"]) == ("the first", [{"key": "reviewed", "value": "yes"}], "READY")
    own = governed.refused("POST", f"{VERSIONS}/set-tag", name=MODEL, version="1", key="attestry.mlflow.stage", value="Production")
    assert own[:2] == (400, "INVALID_PARAMETER_VALUE")
    governed.ok("DELETE", f"{VERSIONS}/delete-tag", name=MODEL, version="1", key="reviewed")
    governed.ok("PATCH", f"{VERSIONS}/update", name=MODEL, version="1")
    assert not {"tags", "description"} & set(governed.version(MODEL, 1))


def test_a_scientists_move_to_production_of_a_governed_model_deploys_nothing_and_says_so(governed: Desk) -> None:
    make_approved(governed.meta, 1)
    answer = governed.ok("POST", f"{VERSIONS}/transition-stage", name=MODEL, version="1", stage="Production")["model_version"]
    assert answer["current_stage"] == "Staging"
    assert "is governed, so nothing was moved: a transition to Production by dana" in answer["status_message"]
    assert "waits for a deployer" in governed.version(MODEL, 1)["status_message"]
    assert governed.functions.sent == []
    assert governed.asked == []
    assert load_version(governed.meta, MODEL, 1).standing is Standing.APPROVED
    assert [e["kind"] for e in governed.events() if e["kind"] == "tag.set"] == ["tag.set"]


def test_a_move_to_production_of_what_nobody_approved_is_a_request_whoever_asks(governed: Desk) -> None:
    make_version(governed.meta, stage=Stage.APPROVAL, status=Status.RUNNING)
    for _ in range(2):
        answer = governed.ok(
            "POST", f"{VERSIONS}/transition-stage", by="frank", role="deployer", name=MODEL, version="1", stage="Production"
        )
        assert "waits for its approval" in answer["model_version"]["status_message"]
        assert answer["model_version"]["current_stage"] == "None"
    assert governed.functions.sent == []
    assert len([e for e in governed.events() if e["kind"] == "tag.set"]) == 1


def test_a_deployers_move_to_production_begins_the_deployment_of_an_approved_version(governed: Desk) -> None:
    make_approved(governed.meta, 1)
    answer = governed.ok("POST", f"{VERSIONS}/transition-stage", by="frank", role="deployer", name=MODEL, version="1", stage="Production")
    assert "the deployment of credit-risk@1 was begun" in answer["model_version"]["status_message"]
    assert [name for name, _ in governed.functions.sent] == ["deploy"]
    assert load_version(governed.meta, MODEL, 1).stage is Stage.DEPLOYMENT


def test_archiving_and_deleting_retire_a_version_of_a_governed_model(governed: Desk) -> None:
    for number in (1, 2):
        make_approved(governed.meta, number)
    ask: Any = {"by": "frank", "role": "deployer", "name": MODEL}
    moved = governed.ok("POST", f"{VERSIONS}/transition-stage", version="1", stage="Archived", **ask)["model_version"]
    assert moved["current_stage"] == "Archived"
    assert "was retired" in governed.ok("DELETE", f"{VERSIONS}/delete", version="2", **ask)["message"]
    assert "was retired, not deleted" in governed.ok("DELETE", f"{VERSIONS}/delete", version="2", **ask)["message"]
    assert load_version(governed.meta, MODEL, 2).standing is Standing.RETIRED
    assert "retired at" in governed.version(MODEL, 2)["status_message"]


def test_who_may_not_retire_deletes_nothing_of_a_governed_model(governed: Desk) -> None:
    make_approved(governed.meta, 1)
    for method, path, more in (("DELETE", "delete", {}), ("POST", "transition-stage", {"stage": "Archived"})):
        status, code, message = governed.refused(method, f"{VERSIONS}/{path}", name=MODEL, version="1", **more)
        assert (status, code) == (403, "PERMISSION_DENIED")
        assert "deployer or admin" in message
    assert load_version(governed.meta, MODEL, 1).standing is Standing.APPROVED


def test_a_governed_model_is_neither_renamed_nor_deleted_and_the_answer_says_why(governed: Desk) -> None:
    governed.create("iris")
    for method, path, more in (("POST", "rename", {"new_name": "rose"}), ("DELETE", "delete", {})):
        status, code, message = governed.refused(method, f"{MODELS}/{path}", name="iris", **more)
        assert (status, code) == (409, "RESOURCE_CONFLICT")
        assert "is governed" in message
    assert governed.ok("GET", f"{MODELS}/get", name="iris")["registered_model"]["name"] == "iris"


@pytest.mark.parametrize(("standing", "stage"), [("APPROVED", "None"), ("DEPLOYED", "Staging"), ("RETIRED", "Production")])
def test_a_move_that_the_standing_does_not_allow_is_refused(governed: Desk, standing: str, stage: str) -> None:
    make_version(governed.meta, stage=Stage.APPROVAL, standing=Standing(standing), approved=True)
    asked: Any = {"by": "frank", "role": "deployer", "name": MODEL, "version": "1", "stage": stage}
    assert governed.refused("POST", f"{VERSIONS}/transition-stage", **asked)[:2] == (409, "RESOURCE_CONFLICT")


def test_stages_of_an_open_model_are_labels_that_deploy_nothing(free: Desk) -> None:
    for number in (1, 2, 3):
        make_version(free.meta, number=number)
    counted(free, 3)
    for number in ("1", "2"):
        free.ok("POST", f"{VERSIONS}/transition-stage", name=MODEL, version=number, stage="production")
    moved = free.ok("POST", f"{VERSIONS}/transition-stage", name=MODEL, version="3", stage="Production", archive_existing_versions=True)
    assert moved["model_version"]["current_stage"] == "Production"
    assert [free.version(MODEL, n)["current_stage"] for n in (1, 2, 3)] == ["Archived", "Archived", "Production"]
    free.ok("POST", f"{VERSIONS}/transition-stage", name=MODEL, version="3", stage="None")
    assert free.version(MODEL, 3)["current_stage"] == "None"
    assert free.asked == []
    assert {load_version(free.meta, MODEL, n).standing for n in (1, 2, 3)} == {Standing.CANDIDATE}


def test_the_latest_version_of_each_stage_is_shown(free: Desk) -> None:
    for number in (1, 2, 3):
        make_version(free.meta, number=number)
    counted(free, 3)
    free.ok("POST", f"{VERSIONS}/transition-stage", name=MODEL, version="2", stage="Staging")
    latest = free.ok("POST", f"{MODELS}/get-latest-versions", name=MODEL)["model_versions"]
    assert {v["current_stage"]: v["version"] for v in latest} == {"None": "3", "Staging": "2"}
    only = free.ok("GET", f"{MODELS}/get-latest-versions", name=MODEL, stages=["Staging", "Production"])["model_versions"]
    assert [v["version"] for v in only] == ["2"]


def test_a_version_of_an_open_model_is_deleted_with_its_aliases_and_its_events_stay(free: Desk) -> None:
    make_version(free.meta)
    free.ok("POST", f"{MODELS}/alias", name=MODEL, alias="champion", version="1")
    assert "its events stay" in free.ok("DELETE", f"{VERSIONS}/delete", name=MODEL, version="1")["message"]
    assert free.refused("GET", f"{VERSIONS}/get", name=MODEL, version="1")[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert free.refused("GET", f"{MODELS}/alias", name=MODEL, alias="champion")[0] == 400
    assert {"version.deleted", "alias.set"} <= {e["kind"] for e in free.events()}


def test_an_open_model_is_renamed_but_never_over_another(free: Desk) -> None:
    make_version(free.meta)
    free.create("rose")
    taken = free.refused("POST", f"{MODELS}/rename", name=MODEL, new_name="rose")
    assert taken[:2] == (400, "RESOURCE_ALREADY_EXISTS")
    free.ok("POST", f"{MODELS}/rename", name=MODEL, new_name="Tulip")
    assert free.version("Tulip", 1)["name"] == "Tulip"
    assert free.refused("POST", f"{MODELS}/create", name=MODEL)[:2] == (400, "RESOURCE_ALREADY_EXISTS")
    free.ok("DELETE", f"{MODELS}/delete", name="Tulip")
    assert free.refused("GET", f"{MODELS}/get", name="Tulip")[0] == 404


def test_models_are_searched_by_name_and_tag_and_paged_in_order(governed: Desk) -> None:
    for name, team in (("alpha", "risk"), ("Beta_1", "risk"), ("gamma", "bio"), ("delta", "risk")):
        governed.create(name, tags=[{"key": "team", "value": team}])
        governed.clock.advance(seconds=1)

    def names(**asked: Any) -> list[str]:
        return [m["name"] for m in governed.ok("GET", f"{MODELS}/search", **asked).get("registered_models", [])]

    assert names(filter="tags.team = 'risk' AND name LIKE '%a'", order_by=["name DESC"]) == ["delta", "alpha"]
    assert names(filter="name ILIKE 'BETA%'") == ["Beta_1"]
    assert names(filter="tags.`mlflow.prompt.is_prompt` = 'true'") == []
    assert names(order_by=["timestamp DESC"]) == ["delta", "gamma", "Beta_1", "alpha"]
    first = governed.ok("GET", f"{MODELS}/search", max_results=3, order_by=["timestamp DESC"])
    token = first["next_page_token"]
    assert names(max_results=3, order_by=["timestamp DESC"], page_token=token) == ["alpha"]
    assert governed.refused("GET", f"{MODELS}/search", max_results=3, page_token=token)[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_versions_are_searched_by_name_number_and_tag(governed: Desk) -> None:
    for number in (1, 2, 3):
        make_approved(governed.meta, number)
    counted(governed, 3)
    governed.ok("POST", f"{VERSIONS}/set-tag", name=MODEL, version="2", key="good", value="yes")

    def numbers(**asked: Any) -> list[str]:
        return [v["version"] for v in governed.ok("GET", f"{VERSIONS}/search", **asked).get("model_versions", [])]

    assert numbers(filter=f"name = '{MODEL}'", order_by=["version_number"]) == ["1", "2", "3"]
    assert numbers(filter=f"name = '{MODEL}' AND version_number > 1", order_by=["version_number DESC"]) == ["3", "2"]
    assert numbers(filter=f"name = '{MODEL}' AND tags.good = 'yes'") == ["2"]
    assert numbers(filter="name = 'nobody'") == []
    first = governed.ok("GET", f"{VERSIONS}/search", filter=f"name = '{MODEL}'", max_results=2, order_by=["version_number"])
    rest = numbers(filter=f"name = '{MODEL}'", max_results=2, order_by=["version_number"], page_token=first["next_page_token"])
    assert rest == ["3"]
    assert numbers(filter=f"name = '{MODEL}'") == ["3", "2", "1"]
    assert numbers(filter=f"name = '{MODEL}' AND version_number >= 2 AND version_number < 3") == ["2"]
    assert numbers(filter=f"name = '{MODEL}' AND version_number > 7") == []
    assert numbers(filter=f"name = '{MODEL}'", order_by=["creation_timestamp DESC"]) == ["3", "2", "1"]


def test_a_page_of_a_models_versions_costs_what_it_shows_whatever_the_number_of_versions(governed: Desk) -> None:
    last = 120
    for number in range(1, last + 1):
        make_approved(governed.meta, number)
    counted(governed, last)
    read: list[int] = []
    get_many = governed.meta.get_many
    governed.meta.get_many = lambda keys, **how: read.append(len(keys)) or get_many(keys, **how)

    def page(**asked: Any) -> tuple[list[int], str]:
        found = governed.ok("GET", f"{VERSIONS}/search", filter=f"name = '{MODEL}'", **asked)
        return [int(v["version"]) for v in found.get("model_versions", [])], found.get("next_page_token", "")

    first, token = page(max_results=7)
    assert first == list(range(120, 113, -1))
    assert sum(read) < 30
    seen = list(first)
    while token:
        found, token = page(max_results=7, page_token=token)
        seen += found
    assert seen == list(range(120, 0, -1))
    assert page(max_results=120) == (seen, "")


def test_a_page_that_few_versions_meet_ends_after_so_many_and_goes_on_by_its_token(governed: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attestry.usecases.mlflow_searching.READ_AT_MOST", 50)
    for number in range(1, 61):
        make_approved(governed.meta, number)
    counted(governed, 60)
    governed.ok("POST", f"{VERSIONS}/set-tag", name=MODEL, version="3", key="good", value="yes")
    asked = {"filter": f"name = '{MODEL}' AND tags.good LIKE 'y%'"}
    first = governed.ok("GET", f"{VERSIONS}/search", **asked)
    assert "model_versions" not in first
    rest = governed.ok("GET", f"{VERSIONS}/search", **asked, page_token=first["next_page_token"])
    assert [v["version"] for v in rest["model_versions"]] == ["3"]
    assert "next_page_token" not in rest


def test_an_unmodified_client_lists_and_reads_the_frozen_files_through_the_api(governed: Desk) -> None:
    with_files(governed)
    uri = governed.ok("GET", f"{VERSIONS}/get-download-uri", name=MODEL, version="1")["artifact_uri"]
    assert uri == f"{API_URL}{FILES}/artifacts/models/{MODEL}/1"
    listed = governed.ok("GET", f"{FILES}/artifacts", path=f"models/{MODEL}/1")["files"]
    assert listed == [{"path": "MLmodel", "is_dir": False, "file_size": len(MLMODEL)}, {"path": "data", "is_dir": True}]
    inner = governed.ok("GET", f"{FILES}/artifacts", path=f"models/{MODEL}/1/data")["files"]
    assert [f["path"] for f in inner] == ["model.pkl"]
    assert governed.ask("GET", f"{FILES}/artifacts/models/{MODEL}/1/MLmodel") == (200, MLMODEL)
    presigned = governed.ok("GET", f"{FILES}/presigned/models/{MODEL}/1/MLmodel")
    assert governed.store.fetch(presigned["url"]) == MLMODEL
    assert presigned["sha256"] == sha256_hex(MLMODEL)


@pytest.mark.parametrize(
    "path",
    [
        f"models/{MODEL}/1/../../other/1/MLmodel",
        f"models/{MODEL}/1/lock.txt",
        f"models/{MODEL}/1/../lock.txt",
        f"models/{MODEL}/1/%2e%2e/lock.txt",
        f"models/{MODEL}/1//MLmodel",
        f"models/{MODEL}/2/MLmodel",
        f"models/{MODEL}/x/MLmodel",
        "models",
        "candidates/AROA:erin/x",
        "ledger/checkpoint",
    ],
)
def test_no_path_leads_to_anything_but_the_models_own_files(governed: Desk, path: str) -> None:
    with_files(governed)
    for endpoint in ("artifacts", "presigned"):
        assert governed.refused("GET", f"{FILES}/{endpoint}/{path}")[0] in (400, 404)


def test_a_file_that_was_changed_is_not_handed_out(governed: Desk) -> None:
    with_files(governed)
    version = load_version(governed.meta, MODEL, 1)
    governed.store.tamper(f"{version.folder}/frozen/model/MLmodel", b"flavors: {evil: 1}", version.frozen[0].version_id)
    assert governed.refused("GET", f"{FILES}/artifacts/models/{MODEL}/1/MLmodel")[1] == "RESOURCE_CONFLICT"


def test_a_file_too_large_for_an_answer_is_refused_with_the_way_to_get_it(governed: Desk) -> None:
    with_files(governed)
    version = load_version(governed.meta, MODEL, 1)
    large = replace(version.frozen[0], size=MAX_FILE_BYTES + 1)
    governed.meta._apply([Update(version_key(MODEL, 1), {"frozen": [large.to_item()]})])
    status, code, message = governed.refused("GET", f"{FILES}/artifacts/models/{MODEL}/1/MLmodel")
    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert "attestry://" in message


def test_a_consumer_is_handed_approved_versions_alone(governed: Desk) -> None:
    with_files(governed, standing=Standing.CANDIDATE)
    assert governed.refused("GET", f"{FILES}/artifacts/models/{MODEL}/1/MLmodel", role="consumer")[:2] == (403, "PERMISSION_DENIED")
    assert governed.refused("GET", f"{VERSIONS}/get-download-uri", role="consumer", name=MODEL, version="1")[0] == 403
    assert governed.ask("GET", f"{FILES}/artifacts/models/{MODEL}/1/MLmodel")[0] == 200
    governed.meta._apply([Update(version_key(MODEL, 1), {"standing": "APPROVED"})])
    assert governed.ask("GET", f"{FILES}/artifacts/models/{MODEL}/1/MLmodel", role="consumer")[0] == 200


@pytest.mark.parametrize("mode", ["governed", "open"])
def test_a_version_that_was_killed_is_handed_to_nobody_whatever_its_models_mode(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    desk = Desk(monkeypatch, mode)
    desk.create(MODEL)
    with_files(desk, standing=Standing.RETIRED)
    for role in ("consumer", "scientist", "admin"):
        for route in ("artifacts", "presigned"):
            assert desk.refused("GET", f"{FILES}/{route}/models/{MODEL}/1/MLmodel", role=role)[:2] == (403, "PERMISSION_DENIED")
        assert desk.refused("GET", f"{VERSIONS}/get-download-uri", role=role, name=MODEL, version="1")[0] == 403


@pytest.mark.parametrize(
    "source",
    [
        "s3://attestry-store/candidates/AROA:erin/0123456789abcdef/import",
        "s3://attestry-store/models/credit-risk/1-a/frozen/model",
        "s3://attestry-store/candidates/AROA:dana/../AROA:erin/0123456789abcdef/import",
        "runs:/abc/model",
        "/etc",
    ],
)
def test_a_source_that_is_not_the_callers_own_makes_no_version(governed: Desk, source: str) -> None:
    governed.create(MODEL)
    assert governed.refused("POST", f"{VERSIONS}/create", name=MODEL, source=source)[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert governed.asked == []


SUBMISSION = "0123456789abcdef01234567"


def test_a_version_is_brought_as_an_import_of_the_callers_submission_and_what_the_client_says_is_a_claim(governed: Desk) -> None:
    governed.create("Iris_v2")
    source = f"attestry://uploads/{SUBMISSION}?from=runs:/r1/model"
    asked: Any = {"name": "Iris_v2", "source": source, "run_id": "r1", "description": "first", "tags": [{"key": "team", "value": "bio"}]}
    made = governed.ok("POST", f"{VERSIONS}/create", **asked, user_id="erin")["model_version"]
    model, body = governed.imports[0]
    assert model.startswith("iris-v2-")
    assert body["submission"] == SUBMISSION
    assert (body["source"], body["run"]["id"], body["tags"]) == ("runs:/r1/model", "r1", {"team": "bio"})
    assert (made["name"], made["version"], made["source"], made["run_id"]) == ("Iris_v2", "1", "runs:/r1/model", "r1")
    assert (made["description"], made["tags"], made["user_id"]) == ("first", [{"key": "team", "value": "bio"}], "dana")
    found = governed.ok("GET", f"{VERSIONS}/search", filter="run_id = 'r1' AND source_path LIKE 'runs:%'")["model_versions"]
    assert [v["version"] for v in found] == ["1"]


@pytest.mark.parametrize(
    "said",
    [
        {"tags": [{"key": f"k{number}", "value": "v"} for number in range(50)]},
        {"tags": [{"key": " k", "value": "v"}]},
        {"model_id": "m" * 5001},
    ],
)
def test_what_could_not_be_said_of_a_version_is_refused_before_there_is_one(governed: Desk, said: dict[str, Any]) -> None:
    governed.create(MODEL)
    source = "attestry://uploads/0123456789abcdef"
    assert governed.refused("POST", f"{VERSIONS}/create", name=MODEL, source=source, **said)[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert governed.imports == []


def test_a_creation_that_was_cut_off_before_its_labels_goes_on_and_makes_no_second_version(governed: Desk) -> None:
    governed.create(MODEL)
    asked: Any = {"name": MODEL, "source": f"attestry://uploads/{SUBMISSION}", "run_id": "r1"}
    # Three commits make the version behind; what is cut off is the one that labels it.
    governed.meta.faults.fail_before(4, method="transact", error=UnavailableError("cut off"))
    assert governed.refused("POST", f"{VERSIONS}/create", **asked)[:2] == (503, "TEMPORARILY_UNAVAILABLE")
    assert "run_id" not in governed.version(MODEL, 1)
    for _ in range(2):
        assert governed.ok("POST", f"{VERSIONS}/create", **asked)["model_version"]["run_id"] == "r1"
    assert governed.refused("GET", f"{VERSIONS}/get", name=MODEL, version="2")[0] == 404
    assert len([e for e in governed.events() if e["kind"] == "version.labelled"]) == 1


def test_identity_comes_from_the_gateway_and_never_from_the_body(governed: Desk) -> None:
    governed.create("iris", user_id="erin", principal="erin", owner="erin")
    created = next(e for e in governed.events() if e["kind"] == "model.created")
    assert created["principal"]["person"] == "dana"
