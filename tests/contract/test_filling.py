"""Rows that the benchmarks fill a table with are those that the adapters would have written."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from attestry.aws.rows import marshal_row
from attestry.local.settings import REGION, RootKey
from benchmarks.filling import write


def session_of(key_id: str, secret: str, endpoint_url: str) -> Any:
    class Session(boto3.Session):
        def client(self, service: str, **settings: Any) -> Any:
            return super().client(service, endpoint_url=endpoint_url, **settings)

    return Session(key_id, secret, region_name=REGION)


def test_rows_are_filled_in_by_several_calls_at_once(emulator: tuple[str, RootKey], client_of: Callable[..., Any], table: str) -> None:
    endpoint_url, key = emulator
    partition = uuid.uuid4().hex
    rows = [{"pk": partition, "sk": f"{n:04d}", "number": n, "bytes": b"\x00\xff", "deep": {"text": ["é", True, None]}} for n in range(130)]
    assert write(session_of(key.key_id, key.secret, endpoint_url), table, rows) == 130
    asked = {"KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": {":p": {"S": partition}}}
    found = client_of("dynamodb").query(TableName=table, **asked)["Items"]
    assert found == [marshal_row(row) for row in rows]


def test_a_call_that_is_refused_is_an_error(emulator: tuple[str, RootKey], table: str) -> None:
    endpoint_url, _ = emulator
    with pytest.raises(RuntimeError, match="was answered 40"):
        write(session_of("AKIAIOSFODNN7EXAMPLE", "none", endpoint_url), table, [{"pk": "a", "sk": "b"}])
