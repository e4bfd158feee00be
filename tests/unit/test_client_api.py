"""The client of the API, against a local server that speaks the contract."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from attestry.client.api import RegistryClient
from attestry.client.download import download_files
from attestry.client.errors import ApiError, EndpointError
from attestry.client.wait import Rest, wait_for_version
from attestry.domain.errors import IntegrityError, InvalidInputError, NotFoundError, UnavailableError
from tests.unit.client_double import ApiDouble
from tests.unit.client_double import problem as told


@pytest.fixture
def api() -> Iterator[ApiDouble]:
    double = ApiDouble()
    yield double
    double.close()


@pytest.fixture
def session() -> boto3.Session:
    return boto3.Session("AKIDEXAMPLE", "secret", "token", region_name="eu-central-1")


@pytest.fixture
def client(api: ApiDouble, session: boto3.Session) -> RegistryClient:
    return RegistryClient(session, api.url)


def test_requests_are_signed_for_the_gateway_with_the_callers_credentials(api: ApiDouble, client: RegistryClient) -> None:
    api.answer("GET /v1/me", {"login": "dana"})
    assert client.whoami() == {"login": "dana"}
    headers = api.asked[0].headers
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-central-1/execute-api/aws4_request" in headers["Authorization"]
    assert headers["X-Amz-Security-Token"] == "token"


@pytest.mark.parametrize(
    ("call", "route", "query", "body"),
    [
        (lambda c: c.models(), "GET /v1/models", {"limit": "200"}, None),
        (lambda c: c.model("m"), "GET /v1/models/m", {}, None),
        (lambda c: c.versions("m"), "GET /v1/models/m/versions", {"limit": "200"}, None),
        (lambda c: c.version("m", 3), "GET /v1/models/m/versions/3", {}, None),
        (lambda c: c.diff("m", 1, 2), "GET /v1/models/m/diff", {"from": "1", "to": "2"}, None),
        (lambda c: c.log("m", 1, "TRAINING"), "GET /v1/models/m/versions/1/logs", {"stage": "TRAINING"}, None),
        (lambda c: c.data("m", 1, "training"), "GET /v1/models/m/versions/1/data", {"set": "training"}, None),
        (
            lambda c: c.decide("m", 1, "approve", "fine"),
            "POST /v1/models/m/versions/1/decision",
            {},
            {"decision": "approve", "reason": "fine"},
        ),
        (lambda c: c.deploy("m", 1, "why"), "POST /v1/models/m/versions/1/deployment", {}, {"reason": "why"}),
        (lambda c: c.rollback("m", "why"), "POST /v1/models/m/rollback", {}, {"reason": "why"}),
        (
            lambda c: c.rollback("m", "why", to=1, environment="staging"),
            "POST /v1/models/m/rollback",
            {},
            {"reason": "why", "to": 1, "environment": "staging"},
        ),
        (lambda c: c.rollout("m"), "GET /v1/models/m/rollout", {"environment": "production"}, None),
        (
            lambda c: c.change_rollout("m", "halt", "why"),
            "POST /v1/models/m/rollout",
            {},
            {"action": "halt", "reason": "why", "environment": "production"},
        ),
        (
            lambda c: c.change_rollout("m", "advance", "why", version=2, step=0),
            "POST /v1/models/m/rollout",
            {},
            {"action": "advance", "reason": "why", "environment": "production", "version": 2, "step": 0},
        ),
        (
            lambda c: c.promote("m", 1, "production", "why"),
            "POST /v1/models/m/versions/1/promotion",
            {},
            {"to": "production", "reason": "why"},
        ),
        (
            lambda c: c.predict("m", [{"a": 1}], environment="staging", routing_key="k"),
            "POST /v1/models/m/predictions",
            {"environment": "staging", "routing_key": "k"},
            {"instances": [{"a": 1}]},
        ),
        (lambda c: c.retry("m", 1, "why"), "POST /v1/models/m/versions/1/retry", {}, {"reason": "why"}),
        (lambda c: c.claim("m", 1), "POST /v1/models/m/versions/1/claim", {}, {}),
        (lambda c: c.predict("m", [{"a": 1}]), "POST /v1/models/m/predictions", {}, {"instances": [{"a": 1}]}),
        (lambda c: c.trace("p-1", deep=True), "GET /v1/predictions/p-1/trace", {"deep": "true"}, None),
        (lambda c: c.trace("p-1"), "GET /v1/predictions/p-1/trace", {}, None),
        (lambda c: c.people(), "GET /v1/people", {"limit": "200"}, None),
        (lambda c: c.add_person("erin", ["e"]), "POST /v1/people", {}, {"person": "erin", "logins": ["e"]}),
        (lambda c: c.submission("s"), "GET /v1/submissions/s", {}, None),
    ],
)
def test_each_method_asks_its_route(api, client, call, route, query, body) -> None:
    api.answer(route, {"models": [], "versions": [], "differences": [], "people": []})
    call(client)
    asked = api.asked[0]
    assert (f"{asked.method} {asked.path}", asked.query, asked.body) == (route, query, body)


def test_a_list_is_asked_for_page_by_page_with_the_cursor_of_the_page_before(api: ApiDouble, client: RegistryClient) -> None:
    api.answer("GET /v1/models", {"models": [{"model": "a"}], "next": "x="})
    api.answer("GET /v1/models", {"models": [{"model": "b"}], "next": None})
    assert [row["model"] for row in client.models()] == ["a", "b"]
    assert [asked.query for asked in api.asked] == [{"limit": "200"}, {"limit": "200", "cursor": "x="}]


def test_a_name_cannot_leave_its_place_in_the_path(api: ApiDouble, client: RegistryClient) -> None:
    api.answer("GET /v1/models/../people?x#y", {})
    client.model("../people?x#y")
    assert api.asked[0].path == "/v1/models/../people?x#y"
    assert api.asked[0].query == {}


def test_an_error_of_the_registry_carries_code_status_and_problems(api: ApiDouble, client: RegistryClient) -> None:
    problem = {"field": "instances[0].age", "rule": "type", "message": "a number is needed", "line": None}
    api.answer(
        "POST /v1/models/m/predictions",
        told("invalid_input", "x", problems=[problem]),
        400,
        x_request_id="r-1",
    )
    with pytest.raises(ApiError) as caught:
        client.predict("m", [{"age": "x"}])
    error = caught.value
    assert (error.status, error.code, error.request_id) == (400, "invalid_input", "r-1")
    assert (error.problems[0].field, error.problems[0].rule) == ("instances[0].age", "type")


@pytest.mark.parametrize("body", [{"message": "Forbidden"}, {"Message": "User is not authorized"}, b"<html>", []])
def test_a_refusal_by_the_gateway_itself_is_forbidden(api: ApiDouble, client: RegistryClient, body: object) -> None:
    api.answer("GET /v1/people", body, 403)
    with pytest.raises(ApiError) as caught:
        client.people()
    assert (caught.value.status, caught.value.code) == (403, "forbidden")


def test_a_request_waits_as_long_as_the_registry_says_and_is_sent_again(api: ApiDouble, session: boto3.Session) -> None:
    waits: list[tuple[str, float]] = []
    client = RegistryClient(session, api.url, on_wait=lambda why, seconds: waits.append((why, seconds)))
    api.answer("POST /v1/models/m/predictions", told("not_ready", "loading"), 503, Retry_After="0")
    api.answer("POST /v1/models/m/predictions", {"output": [1]})
    assert client.predict("m", [{}]) == {"output": [1]}
    assert waits == [("loading", 0.0)]


def test_patience_ends(api: ApiDouble, session: boto3.Session) -> None:
    client = RegistryClient(session, api.url, patience_seconds=0.01)
    api.answer("POST /v1/models/m/predictions", told("not_ready", "loading"), 503, Retry_After="5")
    with pytest.raises(ApiError) as caught:
        client.predict("m", [{}])
    assert caught.value.code == "not_ready"
    assert len(api.asked) == 1


LOST: object = {"message": "Internal Server Error"}


@pytest.mark.parametrize("status", [500, 502, 504])
def test_what_changes_nothing_is_asked_again_where_the_gateway_got_no_answer(api: ApiDouble, client: RegistryClient, status: int) -> None:
    api.answer("GET /v1/people", LOST, status, Retry_After="0")
    api.answer("GET /v1/people", {"people": [], "next": None})
    assert client.people() == []


def test_what_is_done_once_however_often_it_comes_is_sent_again_under_the_same_key(api: ApiDouble, client: RegistryClient) -> None:
    api.answer("POST /v1/models/m/rollback", LOST, 502, Retry_After="0")
    api.answer("POST /v1/models/m/rollback", {"number": 1})
    assert client.rollback("m", "why") == {"number": 1}
    first, second = (asked.headers["Idempotency-Key"] for asked in api.asked)
    assert first == second


def test_what_may_be_done_twice_is_not_sent_again(api: ApiDouble, client: RegistryClient) -> None:
    api.answer("POST /v1/models/m/predictions", LOST, 502, Retry_After="0")
    with pytest.raises(ApiError):
        client.predict("m", [{}])
    assert len(api.asked) == 1


def test_a_gateway_that_gets_no_answer_is_asked_three_times(api: ApiDouble, client: RegistryClient) -> None:
    api.answer("GET /v1/people", LOST, 502, Retry_After="0")
    with pytest.raises(ApiError):
        client.people()
    assert len(api.asked) == 3


def test_what_the_registry_itself_says_is_taken_at_its_word(api: ApiDouble, client: RegistryClient) -> None:
    api.answer("GET /v1/people", told("broken", "a defect"), 500)
    with pytest.raises(ApiError, match="a defect"):
        client.people()
    assert len(api.asked) == 1


def test_no_connection_is_unavailable(session: boto3.Session) -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        RegistryClient(session, "http://127.0.0.1:9").rollback("m", "why")


@pytest.mark.parametrize("url", ["http://registry.example.com", "ftp://127.0.0.1"])
def test_signed_requests_never_leave_the_machine_in_the_clear(session: boto3.Session, url: str) -> None:
    with pytest.raises(EndpointError, match="neither HTTPS nor on this machine"):
        RegistryClient(session, url).models()


def test_nan_is_refused_before_it_is_sent(client: RegistryClient, api: ApiDouble) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        client.predict("m", [{"a": float("nan")}])
    assert api.asked == []


def test_the_address_comes_from_the_environment(api: ApiDouble, session: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTESTRY_API_URL", api.url + "/")
    assert RegistryClient(session).api_url == api.url


def test_without_credentials_the_error_says_so(api: ApiDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(EndpointError, match="no AWS credentials"):
        RegistryClient(boto3.Session(region_name="eu-central-1"), api.url).models()


class TestDownload:
    def test_a_file_with_the_recorded_bytes_appears_under_its_name(self, api: ApiDouble, tmp_path: Path) -> None:
        steps: list[tuple[str, int, int]] = []
        files = [api.serve_file("train/part-0.parquet", b"x" * 3_000_000), api.serve_file("empty", b"")]
        done = download_files(files, tmp_path, advance=lambda *step: steps.append(step))
        assert (tmp_path / "train" / "part-0.parquet").read_bytes() == b"x" * 3_000_000
        assert [d.fetched for d in done] == [True, True]
        assert steps[-1][1:] == (0, 0) or steps[-1] == ("train/part-0.parquet", 3_000_000, 3_000_000)

    @pytest.mark.parametrize("content", [b"other bytes", b"shorter", b"the bytes and more"])
    def test_other_bytes_leave_nothing_under_the_name(self, api: ApiDouble, tmp_path: Path, content: bytes) -> None:
        file = api.serve_file("x", content, announced=b"the bytes!!")
        with pytest.raises(IntegrityError, match="not as recorded"):
            download_files([file], tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_an_older_file_of_other_bytes_stays_until_the_new_one_is_whole(self, api: ApiDouble, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"older")
        with pytest.raises(IntegrityError):
            download_files([api.serve_file("x", b"wrong", announced=b"right")], tmp_path)
        assert (tmp_path / "x").read_bytes() == b"older"
        download_files([api.serve_file("x", b"right")], tmp_path)
        assert (tmp_path / "x").read_bytes() == b"right"

    def test_what_is_here_already_is_not_fetched_again(self, api: ApiDouble, tmp_path: Path) -> None:
        file = api.serve_file("x", b"right")
        download_files([file], tmp_path)
        count = len(api.asked)
        assert [d.fetched for d in download_files([file], tmp_path)] == [False]
        assert len(api.asked) == count

    @pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a\\b", ""])
    def test_a_path_cannot_leave_the_folder(self, api: ApiDouble, tmp_path: Path, path: str) -> None:
        with pytest.raises(InvalidInputError):
            download_files([{**api.serve_file("x", b"right"), "path": path}], tmp_path / "in")
        assert not (tmp_path / "in").exists()

    def test_a_missing_object_is_not_found(self, api: ApiDouble, tmp_path: Path) -> None:
        file = {"path": "x", "sha256": hashlib.sha256().hexdigest(), "size": 0, "url": f"{api.url}/files/gone"}
        with pytest.raises(NotFoundError):
            download_files([file], tmp_path)

    def test_a_file_is_never_fetched_in_the_clear_from_elsewhere(self, tmp_path: Path) -> None:
        file = {"path": "x", "sha256": "0" * 64, "size": 1, "url": "http://store.example.com/x"}
        with pytest.raises(IntegrityError, match="HTTPS"):
            download_files([file], tmp_path)


class TestWait:
    def states(self, api: ApiDouble, *states: tuple[str, str, str]) -> None:
        for stage, status, standing in states:
            api.answer("GET /v1/models/m/versions/1", {"stage": stage, "status": status, "standing": standing})

    @pytest.mark.parametrize(
        ("last", "rest", "good"),
        [
            (("APPROVAL", "RUNNING", "CANDIDATE"), Rest.WAITING, True),
            (("DEPLOYMENT", "SUCCEEDED", "DEPLOYED"), Rest.DEPLOYED, True),
            (("TRAINING", "FAILED", "CANDIDATE"), Rest.FAILED, False),
            (("VALIDATION", "REJECTED", "REJECTED"), Rest.REJECTED, False),
        ],
    )
    def test_a_version_is_followed_until_it_rests(self, api, client, last, rest, good, monkeypatch) -> None:
        monkeypatch.setattr("attestry.client.wait._POLL_SECONDS", (0.001, 0.001))
        running = ("TRAINING", "RUNNING", "CANDIDATE")
        self.states(api, running, running, last)
        seen: list[tuple[str, ...]] = []
        followed = wait_for_version(client, "m", 1, moved=lambda *state: seen.append(state))
        assert (followed.rest, followed.is_good) == (rest, good)
        assert seen == [running, last]

    def test_a_version_that_never_rests_is_unavailable(self, api: ApiDouble, client: RegistryClient) -> None:
        self.states(api, ("TRAINING", "RUNNING", "CANDIDATE"))
        with pytest.raises(UnavailableError, match="still in TRAINING RUNNING"):
            wait_for_version(client, "m", 1, timeout_seconds=0.01)
