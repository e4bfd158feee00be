"""Writes that are checked once are refused, counted and stored as the emulator does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attestry.local.patch_writes import is_plain
from tests.unit.emulated_tables import TABLE, call, create, patched, plain

NUMBERS = st.sampled_from(
    ["0", "-0", "00", "1", "-12", "1.50", "1E3", "1e-3", "9" * 38, "9" * 39, "1" + "0" * 40, "+1", " 1", "x", "", "1_0", "\u0661", "1\n"]
)
LEAVES: Any = st.one_of(
    st.builds(lambda text: {"S": text}, st.sampled_from(["", "x", "é", 1, None])),
    st.builds(lambda number: {"N": number}, NUMBERS | st.sampled_from([1, None])),
    st.sampled_from(
        [
            {"BOOL": True},
            {"BOOL": 1},
            {"NULL": True},
            {"NULL": False},
            {"NULL": 1},
            {"B": "YWI="},
            {"B": 1},
            {},
            {"S": "a", "N": "1"},
            None,
            "x",
        ]
    ),
    st.sampled_from(
        [
            {"SS": ["a"]},
            {"SS": ["a", "a"]},
            {"SS": []},
            {"NS": ["1", "1.0"]},
            {"NS": ["1.50"]},
            {"BS": ["YQ=="]},
            {"XX": "a"},
            {"M": []},
            {"L": {}},
        ]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda found: {"L": found}, st.lists(inner, max_size=2))
        | st.builds(lambda found: {"M": found}, st.dictionaries(st.sampled_from(["a", "é"]), inner, max_size=2))
    ),
    max_leaves=5,
)


def deep(levels: int) -> Any:
    value: Any = {"S": "x"}
    for level in range(levels - 1):
        value = {"L": [value]} if level % 2 else {"M": {"a": value}}
    return value


KEYS = st.sampled_from(
    [{"S": "a"}, {"S": "b"}, {"S": ""}, {"S": "k" * 256}, {"S": "é" * 1000}, {"S": "k" * 1025}, {"S": "k" * 2049}, {"N": "1"}, {"B": ""}]
)
ITEMS = st.fixed_dictionaries({"pk": KEYS, "sk": KEYS}, optional={"text": VALUES, "more": VALUES, "ipk": KEYS, "number": VALUES})


@given(VALUES)
@example(deep(32))
@example(deep(33))
def test_what_is_plainly_right_is_let_through_and_left_as_it_is(value: Any) -> None:
    if is_plain(value):
        before = copy.deepcopy(value)
        assert plain()._validate_attribute_value("a", value) is None
        assert plain()._attribute_value_error(value) is None
        assert value == before


@pytest.mark.parametrize("value", [{"S": ""}, {"N": "-12"}, {"BOOL": False}, {"NULL": True}, {"B": "YQ=="}, deep(32)])
def test_most_values_are_plainly_right(value: Any) -> None:
    assert is_plain(value)


@given(
    items=st.lists(ITEMS, min_size=1, max_size=3),
    gone=st.lists(KEYS, max_size=1),
    capacity=st.sampled_from([None, "NONE", "TOTAL", "INDEXES"]),
)
@example(items=[{"pk": {"S": "a"}, "sk": {"S": "b"}, "text": {"S": "x" * 409_600}}], gone=[], capacity=None)
@example(items=[{"pk": {"S": "a"}, "sk": {"S": "b"}, "text": {"S": "x" * (409_600 - 10)}}], gone=[], capacity=None)
@example(items=[{"pk": {"S": "a"}, "sk": {"S": "b"}, "text": {"S": "x" * (409_600 - 9)}}], gone=[], capacity=None)
def test_a_batch_is_answered_and_stored_as_the_emulator_does(items: list[Any], gone: list[Any], capacity: str | None) -> None:
    requests: list[Any] = [{"PutRequest": {"Item": item}} for item in items]
    requests += [{"DeleteRequest": {"Key": {"pk": key, "sk": {"S": "a"}}}} for key in gone]
    told = {"ReturnConsumedCapacity": capacity} if capacity else {}
    answers = []
    for tables in (plain(), patched()):
        create(tables)
        call(tables, "_put_item", {"TableName": TABLE, "Item": {"pk": {"S": "a"}, "sk": {"S": "a"}, "text": {"S": "before"}}})
        answered = call(tables, "_batch_write_item", {"RequestItems": {TABLE: requests}, **told})
        answers.append((answered, call(tables, "_scan", {"TableName": TABLE})))
    assert answers[0] == answers[1]


@given(ITEMS)
def test_a_single_row_is_answered_and_stored_as_the_emulator_does(item: Any) -> None:
    answers = []
    for tables in (plain(), patched()):
        create(tables)
        answered = [call(tables, "_put_item", {"TableName": TABLE, "Item": item, "ReturnConsumedCapacity": "INDEXES"})]
        answered.append(call(tables, "_transact_write_items", {"TransactItems": [{"Put": {"TableName": TABLE, "Item": item}}]}))
        answers.append((answered, call(tables, "_scan", {"TableName": TABLE})))
    assert answers[0] == answers[1]
