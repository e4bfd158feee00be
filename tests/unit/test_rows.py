"""Rows in DynamoDB's wire format, their sizes, and times as texts."""

from __future__ import annotations

from collections import UserDict
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest

from attestry.aws.rows import marshal, marshal_row, row_bytes, unmarshal_row
from attestry.domain.events import timestamp


class Colour(StrEnum):
    RED = "red"


def test_a_row_comes_back_from_the_wire_as_it_went() -> None:
    row = {"text": "é", "number": -12, "yes": True, "nothing": None, "bytes": b"\x00", "map": {"S": "s", "n": [1, {"M": "m"}]}}
    assert unmarshal_row(marshal_row(row)) == row


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        ("", {"S": ""}),
        (Colour.RED, {"S": "red"}),
        (True, {"BOOL": True}),
        (1, {"N": "1"}),
        (None, {"NULL": True}),
        ({"a": "b"}, {"M": {"a": {"S": "b"}}}),
        (UserDict({"a": 1}), {"M": {"a": {"N": "1"}}}),
        (("a",), {"L": [{"S": "a"}]}),
    ],
)
def test_a_value_goes_under_its_own_type(value: Any, wire: dict[str, Any]) -> None:
    assert marshal(value) == wire


def test_a_text_of_an_enumeration_goes_over_the_wire_as_a_plain_text() -> None:
    assert type(marshal(Colour.RED)["S"]) is str


@pytest.mark.parametrize("row", [{"a": 1.5}, {"a": {1}}, {"": "a"}, {"a": {"": "b"}}])
def test_what_a_row_does_not_hold_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        marshal_row(row)


@pytest.mark.parametrize(
    ("row", "size"), [({"a": "bc"}, 3), ({"a": "é"}, 3), ({"é": ""}, 2), ({"a": {"é": "x"}}, 1 + 3 + 1 + 2 + 1), ({"a": True}, 2)]
)
def test_a_row_takes_the_bytes_of_its_names_and_values_in_utf8(row: dict[str, Any], size: int) -> None:
    assert row_bytes(row) == size


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(0), "GMT")),
    ],
)
def test_a_time_is_told_to_the_microsecond_in_utc(at: datetime) -> None:
    assert timestamp(at) == at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.mark.parametrize("at", [datetime(2026, 1, 2), datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1)))])  # noqa: DTZ001
def test_a_time_that_is_not_in_utc_is_refused(at: datetime) -> None:
    with pytest.raises(ValueError, match="UTC"):
        timestamp(at)
