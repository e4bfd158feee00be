"""Requests to DynamoDB are sent as the adapter wrote them, and are those that the SDK would send."""

from __future__ import annotations

import json
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st

from attestry.aws.clients import Clients
from attestry.aws.expressions import Expression, transact_item
from attestry.aws.meta_store import DynamoMetaStore
from attestry.aws.row_requests import RowSerializer
from attestry.ports import Check, Delete, Key, Put, Update, When
from tests.unit.test_row_parser import ROWS

KEYS = st.builds(Key, st.text(min_size=1, max_size=5), st.text(min_size=1, max_size=5))


@pytest.fixture(scope="module")
def service() -> Any:
    return botocore.session.Session().get_service_model("dynamodb")


def both(service: Any, operation: str, parameters: dict[str, Any]) -> list[Any]:
    """The request by our serialiser and by the SDK's, which checks it as well."""
    model = service.operation_model(operation)
    made = [s.serialize_to_request(parameters, model) for s in (RowSerializer(), create_serializer("json", include_validation=True))]
    return [{**request, "body": json.loads(request["body"])} for request in made]


@given(KEYS, ROWS, ROWS)
def test_writes_are_those_of_the_sdk(service: Any, key: Key, row: dict[str, Any], told: dict[str, Any]) -> None:
    row = {name: value for name, value in row.items() if name not in ("pk", "sk")}
    when = When(exists=True, equals=told, differs=row)
    writes = [Put(key, row, when), Update(key, {**row, "a": 1}, when), Delete(key, when), Check(key, When(exists=True, lacks=told))]
    items = [transact_item("table", write) for write in writes]
    ours, theirs = both(service, "TransactWriteItems", {"TransactItems": items, "ClientRequestToken": "t" * 36})
    assert ours == theirs
    for operation, (name, request) in zip(("PutItem", "UpdateItem", "DeleteItem"), (next(iter(i.items())) for i in items), strict=False):
        ours, theirs = both(service, operation, request)
        assert ours == theirs, name


@given(st.lists(KEYS, min_size=1, max_size=4), st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=3))
def test_reads_are_those_of_the_sdk(service: Any, keys: list[Key], only: list[str]) -> None:
    expression = Expression()
    shown = {"ProjectionExpression": expression.projection(only), "ExpressionAttributeNames": expression.names}
    wire = [{"pk": {"S": key.partition}, "sk": {"S": key.sort}} for key in keys]
    for operation, parameters in (
        ("GetItem", {"TableName": "table", "Key": wire[0], "ConsistentRead": True}),
        ("BatchGetItem", {"RequestItems": {"table": {"Keys": wire, "ConsistentRead": True, **shown}}}),
        (
            "Query",
            {
                "TableName": "table",
                "KeyConditionExpression": "#p = :p",
                "ExpressionAttributeValues": {":p": {"S": keys[0].partition}},
                "ExclusiveStartKey": wire[0],
                "Limit": 3,
                "ScanIndexForward": False,
                **shown,
            },
        ),
    ):
        ours, theirs = both(service, operation, parameters)
        assert ours == theirs


def test_what_no_request_holds_is_refused() -> None:
    model = botocore.session.Session().get_service_model("dynamodb").operation_model("PutItem")
    with pytest.raises(TypeError, match="set"):
        RowSerializer().serialize_to_request({"Item": {"a": {"SS": {"x"}}}}, model)


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:4581"])
def test_a_functions_client_signs_and_sends_such_a_request_to_its_region(monkeypatch: pytest.MonkeyPatch, endpoint: str | None) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    client, sent = Clients().dynamodb, []

    class Raw:
        def stream(self, *_: Any, **__: Any) -> Any:
            yield b'{"Item": {"pk": {"S": "a"}, "sk": {"S": "HEAD"}}}'

    def answer(request: Any, **_: Any) -> AWSResponse:
        sent.append(request)
        return AWSResponse(request.url, 200, {}, Raw())

    client.meta.events.register("before-send.dynamodb", answer)
    assert DynamoMetaStore(client, "table").get(Key("a")) == {"pk": "a", "sk": "HEAD"}
    (request,) = sent
    assert request.url == (f"{endpoint}/" if endpoint else "https://dynamodb.eu-central-1.amazonaws.com/")
    assert json.loads(request.body)["Key"] == {"pk": {"S": "a"}, "sk": {"S": "HEAD"}}
    assert b"/eu-central-1/dynamodb/aws4_request" in request.headers["Authorization"]
    assert (request.headers["X-Amz-Target"], request.method) == (b"DynamoDB_20120810.GetItem", "POST")
