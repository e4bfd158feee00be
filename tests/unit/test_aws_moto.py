"""Adapters that are too small for a server: SNS and SSM as moto answers for them, in this process.

Moto knows limits of SNS that the embedded AWS does not, the length of subject and message among them. What depends on conditions,
transactions or several callers at once is tested on the embedded AWS, see tests/contract.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from attestry.aws.notifier import MAX_MESSAGE_BYTES, SnsNotifier
from attestry.client.api import RegistryClient
from attestry.client.connection import API_URL_PARAMETER, API_URL_VARIABLE
from attestry.client.errors import EndpointError

REGION = "eu-west-1"
URL = "https://abc123.execute-api.eu-west-1.amazonaws.com"


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[boto3.Session]:
    """Credentials that reach moto and nothing else, whatever the developer's environment says."""
    for name in [n for n in os.environ if n.startswith("AWS_") or n == API_URL_VARIABLE]:
        monkeypatch.delenv(name)
    with mock_aws():
        yield boto3.Session("key", "secret", region_name=REGION)


class Topic:
    """A topic and what its subscriber has received."""

    def __init__(self, session: boto3.Session) -> None:
        self.sns, self._sqs = session.client("sns"), session.client("sqs")
        self.arn = self.sns.create_topic(Name="notifications")["TopicArn"]
        self._queue = self._sqs.create_queue(QueueName="reader")["QueueUrl"]
        queue_arn = self._sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        self.sns.subscribe(TopicArn=self.arn, Protocol="sqs", Endpoint=queue_arn)

    def notify(self, subject: str, message: dict[str, Any]) -> tuple[str, Any]:
        """Send by the adapter; return subject and message as they arrive."""
        SnsNotifier(self.sns, self.arn).notify(subject, message)
        (found,) = self._sqs.receive_message(QueueUrl=self._queue).get("Messages", [])
        body = json.loads(found["Body"])
        return body["Subject"], json.loads(body["Message"])


@pytest.fixture
def topic(session: boto3.Session) -> Topic:
    return Topic(session)


@pytest.mark.parametrize(
    ("subject", "arrives"),
    [
        ("credit-risk@3 waits for approval", "credit-risk@3 waits for approval"),
        ("x" * 101, "x" * 100),
        ("two\nlines, é", "two?lines, ?"),
        ("", "attestry"),
    ],
)
def test_a_subject_is_cut_to_what_sns_takes(topic: Topic, subject: str, arrives: str) -> None:
    assert topic.notify(subject, {"version": 3}) == (arrives, {"version": 3})


def padded(size: int) -> dict[str, str]:
    """Return a message whose JSON has so many bytes."""
    return {"x": "y" * (size - len(json.dumps({"x": ""}, indent=2)))}


def test_a_message_of_exactly_the_limit_arrives_whole(topic: Topic) -> None:
    message = padded(MAX_MESSAGE_BYTES)
    assert topic.notify("s", message)[1] == message


def test_a_message_over_the_limit_arrives_as_a_note_of_its_size(topic: Topic) -> None:
    assert topic.notify("s", padded(MAX_MESSAGE_BYTES + 1))[1] == {"truncated": True, "bytes": MAX_MESSAGE_BYTES + 1}


def test_a_topic_that_is_gone_is_logged_and_holds_nothing_up(topic: Topic, caplog: pytest.LogCaptureFixture) -> None:
    topic.sns.delete_topic(TopicArn=topic.arn)
    SnsNotifier(topic.sns, topic.arn).notify("s", {})
    assert "notification not sent" in caplog.text


def put_url(session: boto3.Session, value: str, *, region: str = REGION) -> None:
    session.client("ssm", region_name=region).put_parameter(Name=API_URL_PARAMETER, Value=value, Type="String")


def test_a_client_finds_the_api_by_its_parameter(session: boto3.Session) -> None:
    put_url(session, f"{URL}/")
    assert RegistryClient(session).api_url == URL


def test_the_environment_comes_before_the_parameter(session: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    put_url(session, URL)
    monkeypatch.setenv(API_URL_VARIABLE, "https://other.example")
    assert RegistryClient(session).api_url == "https://other.example"


def test_the_parameter_of_another_region_is_not_found(session: boto3.Session) -> None:
    put_url(session, URL, region="eu-central-1")
    with pytest.raises(EndpointError, match=f"{API_URL_PARAMETER} cannot be read"):
        _ = RegistryClient(session).api_url


def test_an_address_in_the_parameter_that_is_not_confidential_is_refused(session: boto3.Session) -> None:
    put_url(session, "http://registry.example")
    with pytest.raises(EndpointError, match="neither HTTPS nor on this machine"):
        _ = RegistryClient(session).api_url


def test_the_address_is_looked_up_once(session: boto3.Session) -> None:
    put_url(session, URL)
    client = RegistryClient(session)
    assert client.api_url == URL
    session.client("ssm").delete_parameter(Name=API_URL_PARAMETER)
    assert client.api_url == URL
