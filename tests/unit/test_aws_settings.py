"""Settings, clients and logs of a function, and what CloudTrail says."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import botocore
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.stub import Stubber

from attestry.aws import logging as aws_logging
from attestry.aws.clients import Clients, is_local
from attestry.aws.errors import ConfigurationError
from attestry.aws.settings import Settings
from attestry.aws.trail import CloudTrailTrail, execution_of, read_call
from attestry.aws.world import World
from attestry.domain.errors import UnavailableError

EXECUTION = "arn:aws:states:eu-central-1:123456789012:execution:attestry-decision:x"


class RawBody:
    """The body of an answer, as much of it as the SDK asks for."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: Any) -> Iterator[bytes]:
        yield self._body


class TestSettings:
    def test_what_is_missing_is_named_when_it_is_asked_for(self) -> None:
        settings = Settings({"ATTESTRY_TABLE": "t", "ATTESTRY_STORE": ""})
        assert settings.table == "t"
        for name, read in (("ATTESTRY_STORE", lambda: settings.store), ("ATTESTRY_PIPELINE_ARN", lambda: settings.pipeline_arn)):
            with pytest.raises(ConfigurationError, match=name):
                read()

    def test_retention_is_a_mode_and_days(self) -> None:
        assert Settings({}).retention is None
        environment = {"ATTESTRY_RETENTION_MODE": "COMPLIANCE", "ATTESTRY_RETENTION_DAYS": "365"}
        assert Settings(environment).retention == ("COMPLIANCE", 365)

    @pytest.mark.parametrize(
        "environment",
        [
            {"ATTESTRY_RETENTION_MODE": "compliance", "ATTESTRY_RETENTION_DAYS": "1"},
            {"ATTESTRY_RETENTION_MODE": "COMPLIANCE"},
            {"ATTESTRY_RETENTION_MODE": "COMPLIANCE", "ATTESTRY_RETENTION_DAYS": "-1"},
        ],
    )
    def test_a_retention_that_cannot_be_read_is_an_error_and_not_no_lock(self, environment: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError):
            _ = Settings(environment).retention

    @pytest.mark.parametrize(("value", "on"), [(None, True), ("on", True), ("off", False)])
    def test_tenant_isolation_is_on_unless_it_is_switched_off(self, value: str | None, on: bool) -> None:
        assert Settings({"ATTESTRY_TENANT_ISOLATION": value} if value else {}).tenant_isolation is on

    def test_a_function_attests_with_its_own_key_and_never_without_one(self) -> None:
        clients = Clients(boto3.Session(region_name="eu-central-1"))
        kept = {"ATTESTRY_STORE": "s", "ATTESTRY_RETENTION_MODE": "GOVERNANCE", "ATTESTRY_RETENTION_DAYS": "1"}
        world = World(Settings({**kept, "ATTESTRY_SIGNING_KEY": "arn:aws:kms:eu-central-1:123456789012:key/1"}), clients)
        assert world.attestor is world.attestor
        with pytest.raises(ConfigurationError, match="ATTESTRY_SIGNING_KEY"):
            _ = World(Settings(kept), clients).attestor

    def test_a_function_that_is_not_told_how_long_to_retain_attests_nothing(self) -> None:
        clients = Clients(boto3.Session(region_name="eu-central-1"))
        key = {"ATTESTRY_STORE": "s", "ATTESTRY_SIGNING_KEY": "arn:aws:kms:eu-central-1:123456789012:key/1"}
        with pytest.raises(ConfigurationError, match="never written without Object Lock"):
            _ = World(Settings(key), clients).attestor

    def test_a_world_makes_only_the_ports_that_are_used(self) -> None:
        session = boto3.Session(region_name="eu-central-1")
        world = World(Settings({"ATTESTRY_TABLE": "t"}), Clients(session))
        assert world.meta is world.meta
        with pytest.raises(ConfigurationError, match="ATTESTRY_STORE"):
            _ = world.store


class TestClients:
    @pytest.fixture
    def clients(self, monkeypatch: pytest.MonkeyPatch) -> Clients:
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
        return Clients(boto3.Session("AKIDEXAMPLE", "secret", region_name="eu-central-1"), call_seconds=3)

    def test_timeouts_leave_room_below_the_gateways(self, clients: Clients) -> None:
        config = clients.dynamodb.meta.config
        assert config.connect_timeout + config.read_timeout < 15
        assert config.retries["mode"] == "standard"

    def test_a_call_says_who_asks_and_by_which_sdk(self, clients: Clients) -> None:
        sent: list[str] = []

        def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
            sent.append(request.headers["User-Agent"])
            return AWSResponse(request.url, 200, {}, RawBody(b"{}"))

        clients.dynamodb.meta.events.register("before-send", answer)
        clients.dynamodb.get_item(TableName="t", Key={"pk": {"S": "a"}})
        (agent,) = (agent.decode() if isinstance(agent, bytes) else agent for agent in sent)
        # Powertools, where a module of this process has imported it, adds itself.
        assert agent.split(" PT/")[0] == f"attestry Botocore/{botocore.__version__}"

    def test_a_call_of_a_function_is_tried_once_and_for_as_long_as_it_is_told(self, clients: Clients) -> None:
        config = clients.functions.meta.config
        assert (config.read_timeout, config.retries["total_max_attempts"]) == (3, 1)

    def test_presigned_urls_name_bucket_and_region_in_the_host(self, clients: Clients) -> None:
        url = clients.s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "k"})
        assert url.startswith("https://bucket.s3.eu-central-1.amazonaws.com/k?")
        assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url

    def test_a_local_endpoint_is_honoured_with_paths(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
        s3 = Clients(boto3.Session("AKIDEXAMPLE", "secret", region_name="eu-central-1")).s3
        url = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "k"})
        assert url.startswith("http://127.0.0.1:4566/bucket/k?")

    @pytest.mark.parametrize(
        ("url", "local"), [(None, False), ("http://127.0.0.1:1", True), ("http://localhost", True), ("https://s3.amazonaws.com", False)]
    )
    def test_only_loopback_is_local(self, url: str | None, local: bool) -> None:
        assert is_local(url) is local


def test_logs_are_json_lines_with_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(aws_logging, "_formatter", None)
    monkeypatch.setattr("sys.stdout", stream)
    context: Any = SimpleNamespace(function_name="attestry-decide", aws_request_id="r-1")
    aws_logging.configure_logging(context)
    aws_logging.configure_logging(context)
    logging.getLogger("attestry.test").info("said", extra={"status": 200})
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 1
    wanted = {"level": "INFO", "message": "said", "status": 200, "request_id": "r-1", "function": "attestry-decide"}
    assert wanted.items() <= lines[0].items()


def record(name: str = "StartExecution", **changes: Any) -> dict[str, Any]:
    identity = {"type": "AssumedRole", "arn": "arn:erin", "principalId": "AROA:erin", "accountId": "123456789012"}
    return {
        "eventSource": "states.amazonaws.com",
        "eventName": name,
        "eventID": "e-1",
        "sourceIPAddress": "192.0.2.1",
        "userIdentity": identity,
        "requestParameters": {"executionArn": EXECUTION} if name == "RedriveExecution" else {},
        "responseElements": {"executionArn": EXECUTION} if name == "StartExecution" else {},
        **changes,
    }


class TestTrail:
    def find(self, *answers: list[dict[str, Any]] | str) -> Any:
        client = boto3.client("cloudtrail", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
        with Stubber(client) as stub:
            for answer in answers:
                if isinstance(answer, str):
                    stub.add_client_error("lookup_events", answer)
                else:
                    stub.add_response("lookup_events", {"Events": [{"CloudTrailEvent": json.dumps(r)} for r in answer]})
            return CloudTrailTrail(client).find_start(EXECUTION, since=datetime(2026, 1, 1, tzinfo=UTC))

    def test_the_starter_of_an_execution_is_found_among_others(self) -> None:
        found = self.find([record(responseElements={"executionArn": "other"}), record()], [])
        assert (found.arn, found.user_id, found.account, found.address) == ("arn:erin", "AROA:erin", "123456789012", "192.0.2.1")
        assert (found.identity_type, found.event_id, found.call) == ("AssumedRole", "e-1", "StartExecution")

    def test_nothing_is_known_before_the_event_has_come(self) -> None:
        assert self.find([]) is None

    def test_a_start_that_was_refused_is_no_start(self) -> None:
        assert self.find([record(errorCode="AccessDenied"), record(responseElements=None)]) is None

    def test_a_redrive_is_told(self) -> None:
        assert self.find([record()], [record("RedriveExecution")]).call == "RedriveExecution"

    def test_a_call_that_a_service_made_is_the_services(self) -> None:
        identity = {**record()["userIdentity"], "invokedBy": "events.amazonaws.com"}
        assert self.find([record(userIdentity=identity)], []).identity_type == "AWSService"

    def test_an_event_of_another_service_is_not_believed(self) -> None:
        assert execution_of(record(eventSource="events.amazonaws.com")) is None
        assert execution_of(record("StopExecution")) is None

    def test_an_event_without_identity_names_nobody(self) -> None:
        start = read_call({})
        assert (start.arn, start.identity_type) == ("", "")

    def test_a_busy_trail_is_unavailable(self) -> None:
        with pytest.raises(UnavailableError):
            self.find("ThrottlingException")
