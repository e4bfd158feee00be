"""What a read in part shows is what the emulator shows, whatever the expression."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.local.patch_projections import plain_names
from tests.unit.emulated_tables import TABLE, call, create, patched, plain

NAMES = ["a", "b", "a.b", "name", "#a", "a b", ""]
VALUES = st.recursive(
    st.sampled_from([{"S": "x"}, {"N": "1"}, {"BOOL": False}, {"NULL": True}, {"SS": ["x", "y"]}]),
    lambda inner: (
        st.dictionaries(st.sampled_from(["a", "b", "name"]), inner, max_size=3).map(lambda told: {"M": told})
        | st.lists(inner, max_size=3).map(lambda told: {"L": told})
    ),
    max_leaves=6,
)
ROWS = st.dictionaries(st.sampled_from(NAMES), VALUES)
PATHS = st.sampled_from(["a", "b", "name", "#n", "#m", "#missing", "a.b", "a[0]", "a[1].b", "#n.b", " a ", "a b", "", "b."])
EXPRESSIONS = st.lists(PATHS, max_size=4).map(",".join)
PLACEHOLDERS = st.none() | st.dictionaries(st.sampled_from(["#n", "#m"]), st.sampled_from(NAMES))


def outcome(tables: Any, row: Any, expression: Any, names: Any) -> Any:
    """Return what is shown, in its order, or what is said of a fault."""
    try:
        return list(tables._project_item(row, expression, names).items())
    except ValueError as error:
        return str(error)


def answer(tables: Any, action: str, request: dict[str, Any]) -> Any:
    """Return status and answer, or what is said of a fault that the server makes an answer of."""
    try:
        return call(tables, action, request)
    except ValueError as error:
        return str(error)


@given(row=ROWS, expression=EXPRESSIONS, names=PLACEHOLDERS)
def test_a_row_is_shown_as_the_emulator_shows_it(row: dict[str, Any], expression: str, names: dict[str, str] | None) -> None:
    assert outcome(patched(), row, expression, names) == outcome(plain(), row, expression, names)


@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["a", "b", "name"]), VALUES), min_size=1, max_size=4),
    expression=EXPRESSIONS,
    names=st.dictionaries(st.sampled_from(["#n", "#m"]), st.sampled_from(["a", "b", "sk", "name", "a.b"])),
)
def test_reads_in_part_are_answered_as_the_emulator_answers_them(
    rows: list[dict[str, Any]], expression: str, names: dict[str, str]
) -> None:
    shown = {"ProjectionExpression": expression, "ExpressionAttributeNames": names}
    shown = {name: told for name, told in shown.items() if told}
    keys = [{"pk": {"S": "p"}, "sk": {"S": str(number)}} for number in range(len(rows))]
    asked = {
        "_get_item": {"TableName": TABLE, "Key": keys[0], **shown},
        "_batch_get_item": {"RequestItems": {TABLE: {"Keys": keys, **shown}}},
        "_query": {
            "TableName": TABLE,
            "KeyConditionExpression": "pk = :p",
            "ExpressionAttributeValues": {":p": {"S": "p"}},
            **shown,
        },
    }
    for tables in (plain(), patched()):
        create(tables)
        for key, row in zip(keys, rows, strict=True):
            assert call(tables, "_put_item", {"TableName": TABLE, "Item": {**row, **key}})[0] == 200
    for action, request in asked.items():
        assert answer(patched(), action, request) == answer(plain(), action, request)


@pytest.mark.parametrize(
    ("expression", "names", "wanted"),
    [
        ("a, #n", {"#n": "name"}, ("a", "name")),
        ("a,,b", {}, ("a", "b")),
        ("#missing", {}, ("#missing",)),
        ("a.b", {}, None),
        ("a[0]", {}, None),
        ("#n", {"#n": "a.b"}, None),
        ("a, #n", {"#n": "a"}, None),
        ("name", {}, None),
        (" , ", {}, None),
        (7, {}, None),
        ("#n", {"#n": 7}, None),
    ],
)
def test_plain_names_are_read_and_all_else_is_left_to_the_emulator(expression: Any, names: dict[Any, Any], wanted: Any) -> None:
    assert plain_names(expression, names, {"NAME"}) == wanted
