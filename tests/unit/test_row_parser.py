"""Rows are read from DynamoDB's answers as they were sent, and give what the SDK's own parser gives."""

from __future__ import annotations

import base64
import json
from typing import Any

import botocore.session
import pytest
from botocore.parsers import create_parser
from hypothesis import given
from hypothesis import strategies as st

from attestry.aws.clients import Clients
from attestry.aws.row_parser import RowParserFactory
from attestry.aws.rows import marshal_row, unmarshal_row

SCALARS = st.none() | st.booleans() | st.integers(-(10**37), 10**37) | st.text(max_size=8) | st.binary(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=4), inner, max_size=3), max_leaves=8
)
ROWS = st.dictionaries(st.text(min_size=1, max_size=6), VALUES, max_size=5)


@pytest.fixture(scope="module")
def service() -> Any:
    session = botocore.session.Session()
    return session.get_service_model("dynamodb")


def as_json(value: Any) -> Any:
    """A value in DynamoDB's JSON, in which binary is base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    return [as_json(inner) for inner in value] if isinstance(value, list) else value


def parsed(parser: Any, service: Any, operation: str, body: Any, status: int = 200) -> Any:
    answer = {"body": json.dumps(as_json(body)).encode(), "headers": {"x-amzn-requestid": "r"}, "status_code": status}
    return parser.parse(answer, service.operation_model(operation).output_shape)


@given(rows=st.lists(ROWS, max_size=4))
def test_rows_are_what_the_sdk_makes_of_them(service: Any, rows: list[dict[str, Any]]) -> None:
    wire = [marshal_row(row) for row in rows]
    answers = {
        "GetItem": ({"Item": wire[0]} if wire else {}, lambda a: [a["Item"]] if "Item" in a else []),
        "Query": ({"Items": wire, "Count": len(wire)}, lambda a: a["Items"]),
        "BatchGetItem": ({"Responses": {"t": wire}, "UnprocessedKeys": {}}, lambda a: a["Responses"]["t"]),
    }
    for operation, (body, items) in answers.items():
        ours = parsed(RowParserFactory().create_parser("json"), service, operation, body)
        theirs = parsed(create_parser("json"), service, operation, body)
        assert [unmarshal_row(row) for row in items(ours)] == [unmarshal_row(row) for row in items(theirs)]
        assert items(ours) == as_json(items(body))  # as it was sent: the SDK's parser was passed by
        assert ours["ResponseMetadata"] == theirs["ResponseMetadata"]


def test_what_is_no_row_is_left_to_the_sdk(service: Any) -> None:
    key = {"pk": {"S": "a"}, "sk": {"S": "b"}}
    body = {"Items": [], "Count": 0, "LastEvaluatedKey": key, "ConsumedCapacity": {"CapacityUnits": 1.5, "TableName": "t"}}
    for operation, told in (
        ("Query", body),
        ("BatchGetItem", {"Responses": {}, "UnprocessedKeys": {"t": {"Keys": [key], "ConsistentRead": True}}}),
        ("DescribeTable", {"Table": {"TableName": "t", "CreationDateTime": 1.5e9, "ItemCount": 3}}),
    ):
        ours = parsed(RowParserFactory().create_parser("json"), service, operation, told)
        assert ours == parsed(create_parser("json"), service, operation, told)


def test_an_error_is_read_as_the_sdk_reads_it(service: Any) -> None:
    reasons = [{"Code": "ConditionalCheckFailed", "Item": {"pk": {"S": "a"}}}, {"Code": "None"}]
    body = {"__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException", "Message": "no", "CancellationReasons": reasons}
    ours = parsed(RowParserFactory().create_parser("json"), service, "TransactWriteItems", body, 400)
    assert ours == parsed(create_parser("json"), service, "TransactWriteItems", body, 400)


def test_the_process_own_session_reads_rows_so_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)
    import boto3

    theirs = boto3.Session()
    for clients, ours in ((Clients(), True), (Clients(theirs), False)):
        factory = clients.dynamodb._endpoint._response_parser_factory  # type: ignore[attr-defined]
        assert isinstance(factory, RowParserFactory) == ours
