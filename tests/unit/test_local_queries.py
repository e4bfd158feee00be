"""A query that reads the rows of its page answers as the emulator does when it reads the whole partition."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attestry.local import patch_queries
from attestry.local.patch_queries import NotUnderstoodError, Range, range_of
from tests.unit.emulated_tables import INDEX_OF_ALL, INDEX_OF_KEYS, INDEX_OF_NUMBERS, INDEX_OF_SOME, TABLE, call, create, patched, plain

KEYS = st.text(st.sampled_from("ab\x00\U0010ffffé"), min_size=1, max_size=3)
PARTITIONS = st.sampled_from(["p", "q"])
ROWS = st.lists(
    st.fixed_dictionaries(
        {"pk": PARTITIONS, "sk": KEYS},
        optional={"ipk": PARTITIONS, "isk": KEYS, "number": st.integers(-3, 3), "text": st.sampled_from(["", "x", "é" * 40])},
    ),
    max_size=12,
    unique_by=lambda row: (row["pk"], row["sk"]),
)
CONDITIONS = st.sampled_from(
    [
        "",
        "{s} = :a",
        "{s} < :a",
        "{s} <= :a",
        "{s} > :a",
        "{s} >= :a",
        "begins_with({s}, :a)",
        "{s} BETWEEN :a AND :b",
        "{s} between :a and :b",
        "begins_with( {s} ,:a )",
        "{s} <> :a",
        "begins_with(:a, {s})",
        "({s} = :a)",
        "contains({s}, :a)",
        "{s} = :missing",
        "{s} = :n",
        "{s}",
    ]
)
INDICES = st.sampled_from([None, INDEX_OF_ALL, INDEX_OF_SOME, INDEX_OF_KEYS, INDEX_OF_NUMBERS])
SORT_KEY = {None: "sk", INDEX_OF_ALL: "isk", INDEX_OF_SOME: "pk", INDEX_OF_KEYS: "none", INDEX_OF_NUMBERS: "number"}


@st.composite
def queries(draw: st.DrawFn) -> dict[str, Any]:
    index = draw(INDICES)
    hashed, sort_key = "ipk" if index else "pk", SORT_KEY[index]
    named = draw(st.booleans())
    names = {"#h": hashed, "#s": sort_key} if named else {}
    condition = draw(CONDITIONS).format(s="#s" if named else sort_key)
    parts = [f"{'#h' if named else hashed} = :p", *([condition] if condition else [])]
    expression = " AND ".join(reversed(parts) if draw(st.booleans()) else parts)
    low, high = draw(KEYS), draw(KEYS)
    values = {":p": {"S": draw(PARTITIONS)}, ":a": {"S": low}, ":b": {"S": high}, ":n": {"N": "1"}}
    filtered = draw(st.sampled_from([None, "attribute_exists(#t)", "size(#t) > :zero", "#t = ", "#t BETWEEN :a AND :b"]))
    if filtered:
        names, values = {**names, "#t": "text"}, {**values, ":zero": {"N": "0"}}
    request = {
        "TableName": draw(st.sampled_from([TABLE, TABLE, TABLE, "arn:aws:dynamodb:us-east-1:000000000000:table/Table"])),
        "KeyConditionExpression": expression,
        "FilterExpression": filtered,
        "ExpressionAttributeNames": {key: value for key, value in names.items() if key in expression + (filtered or "")},
        "ExpressionAttributeValues": {key: value for key, value in values.items() if key in expression + (filtered or "")},
        "IndexName": index,
        "Limit": draw(st.none() | st.integers(-1, 5)),
        "ScanIndexForward": draw(st.sampled_from([None, True, False])),
        "Select": draw(st.sampled_from([None, None, "COUNT", "ALL_PROJECTED_ATTRIBUTES"])),
        "ProjectionExpression": draw(st.sampled_from([None, None, "pk", "sk, isk"])),
        "ReturnConsumedCapacity": draw(st.sampled_from([None, "INDEXES"])),
    }
    return {name: value for name, value in request.items() if value not in (None, {})}


def pages(tables: Any, request: dict[str, Any]) -> list[tuple[int, Any]]:
    """All pages of a query, and one more by the cursor of the last row where there is one."""
    found: list[tuple[int, Any]] = []
    asked = request
    while len(found) < 30:
        found.append(call(tables, "_query", asked))
        cursor = found[-1][1].get("LastEvaluatedKey")
        if found[-1][0] != 200 or not cursor:
            return found
        asked = {**request, "ExclusiveStartKey": cursor}
    raise AssertionError("the pages do not end")


def put(tables: Any, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        item = {name: {"N": str(value)} if name == "number" else {"S": value} for name, value in row.items()}
        assert call(tables, "_put_item", {"TableName": TABLE, "Item": item})[0] == 200


def both(rows: list[dict[str, Any]]) -> tuple[Any, Any]:
    for tables in (plain(), patched()):
        create(tables)
        put(tables, rows)
    return plain(), patched()


@given(rows=ROWS, asked=st.lists(queries(), min_size=1, max_size=6))
def test_pages_are_those_of_the_emulator(rows: list[dict[str, Any]], asked: list[dict[str, Any]]) -> None:
    theirs, ours = both(rows)
    for request in asked:
        assert pages(ours, request) == pages(theirs, request)


@given(rows=ROWS, request=queries(), cursor=st.fixed_dictionaries({}, optional=dict.fromkeys(("pk", "sk", "ipk", "isk"), KEYS)))
def test_a_cursor_from_anywhere_is_answered_as_the_emulator_answers_it(
    rows: list[dict[str, Any]], request: dict[str, Any], cursor: dict[str, str]
) -> None:
    theirs, ours = both(rows)
    request["ExclusiveStartKey"] = {name: {"S": value} for name, value in cursor.items()} | {"number": {"N": "1"}}
    assert pages(ours, request) == pages(theirs, request)


@given(rows=ROWS, others=ROWS, gone=st.lists(st.tuples(PARTITIONS, KEYS), max_size=6), request=queries())
def test_rows_that_change_move_within_their_indices(
    rows: list[dict[str, Any]], others: list[dict[str, Any]], gone: list[tuple[str, str]], request: dict[str, Any]
) -> None:
    theirs, ours = both(rows)
    pages(ours, request)
    for tables in (theirs, ours):
        tables._index_members(tables._tables.get(TABLE))
        put(tables, others)
        for partition, sort_key in [*gone, *((row["pk"], row["sk"]) for row in rows[:3])]:
            call(tables, "_delete_item", {"TableName": TABLE, "Key": {"pk": {"S": partition}, "sk": {"S": sort_key}}})
    assert pages(ours, request) == pages(theirs, request)
    kept = {name: {at: sorted(members) for at, members in found.items()} for name, found in ours._index_members(table(ours)).items()}
    assert kept == {
        name: {at: sorted(members) for at, members in found.items()} for name, found in theirs._index_members(table(theirs)).items()
    }
    assert table(ours)["ItemCount"] == table(theirs)["ItemCount"]


def table(tables: Any) -> Any:
    return tables._tables.get(TABLE)


LARGE = [
    {"pk": "p", "sk": f"{n:03d}", "ipk": "q", "isk": f"{n % 7}", "text": "x" * size}
    for n, size in enumerate([390_000, 390_000, 268_500] * 4)
]


@pytest.mark.parametrize("index", [None, INDEX_OF_ALL, INDEX_OF_SOME, INDEX_OF_KEYS])
@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("limit", [None, 1, 2, 3, 4, 50])
def test_a_page_ends_at_a_megabyte_of_what_the_index_holds(index: str | None, forward: bool, limit: int | None) -> None:
    theirs, ours = both(LARGE)
    request: dict[str, Any] = {
        "TableName": TABLE,
        "KeyConditionExpression": f"{'ipk' if index else 'pk'} = :p",
        "ScanIndexForward": forward,
    }
    request["ExpressionAttributeValues"] = {":p": {"S": "q" if index else "p"}}
    request |= ({"IndexName": index} if index else {}) | ({"Limit": limit} if limit else {})
    assert [len(page["Items"]) for _, page in pages(ours, request)] == [len(page["Items"]) for _, page in pages(theirs, request)]
    assert pages(ours, request) == pages(theirs, request)


@pytest.mark.parametrize("size", range(1_048_576 - 3 - 390_000 * 2 - 60, 1_048_576 - 390_000 * 2 + 1, 9))
def test_a_page_that_is_a_megabyte_to_the_byte_ends_where_the_emulator_s_does(size: int) -> None:
    rows = [{"pk": "p", "sk": f"{n}", "text": "x" * length} for n, length in enumerate([390_000, 390_000, size, 5])]
    theirs, ours = both(rows)
    request = {"TableName": TABLE, "KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": {":p": {"S": "p"}}}
    assert pages(ours, request) == pages(theirs, request)


def test_a_page_takes_no_rows_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = patched()
    create(ours)
    put(ours, [{"pk": "p", "sk": f"{n:04d}", "ipk": "q", "isk": f"{n:04d}"} for n in range(300)])
    taken: list[Any] = []
    unpack = patch_queries.unpack
    monkeypatch.setattr(patch_queries, "unpack", lambda packed: taken.append(packed) or unpack(packed))
    for index, hashed, sort_key in ((None, "pk", "sk"), (INDEX_OF_ALL, "ipk", "isk")):
        taken.clear()
        request = {"TableName": TABLE, "KeyConditionExpression": f"{hashed} = :p AND {sort_key} > :a", "Limit": 7, "IndexName": index}
        request["ExpressionAttributeValues"] = {":p": {"S": "p" if index is None else "q"}, ":a": {"S": "0100"}}
        answer = call(ours, "_query", {name: value for name, value in request.items() if value})[1]
        assert [item["sk"]["S"] for item in answer["Items"]] == [f"{n:04d}" for n in range(101, 108)]
        assert len(taken) == 7
        for forward, numbers in ((True, range(108, 115)), (False, range(106, 100, -1))):
            taken.clear()
            told = {**request, "ExclusiveStartKey": answer["LastEvaluatedKey"], "ScanIndexForward": forward}
            found = call(ours, "_query", {name: value for name, value in told.items() if value is not None})[1]
            assert [item["sk"]["S"] for item in found["Items"]] == [f"{n:04d}" for n in numbers]
            assert len(taken) == len(numbers)


def test_an_index_that_is_made_later_has_rows_whose_keys_are_no_strings_and_is_read_as_the_emulator_reads_it() -> None:
    rows = [{"pk": "p", "sk": f"{n}", "ipk": "q", "isk": f"{n}"} for n in range(6)]
    created = {
        "TableName": TABLE,
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("ipk", "late")],
        "GlobalSecondaryIndexUpdates": [
            {
                "Create": {
                    "IndexName": "late",
                    "KeySchema": [{"AttributeName": "ipk", "KeyType": "HASH"}, {"AttributeName": "late", "KeyType": "RANGE"}],
                }
            }
        ],
    }
    created["GlobalSecondaryIndexUpdates"][0]["Create"]["Projection"] = {"ProjectionType": "ALL"}  # type: ignore[index]
    request = {"TableName": TABLE, "IndexName": "late", "KeyConditionExpression": "ipk = :p", "Limit": 3}
    request["ExpressionAttributeValues"] = {":p": {"S": "q"}}
    answers = []
    for tables in both(rows):
        for n, late in enumerate([{"N": "1"}, {"S": "1"}, {"BOOL": True}, {"S": "0"}]):
            item = {"pk": {"S": "p"}, "sk": {"S": f"late{n}"}, "ipk": {"S": "q"}, "late": late}
            assert call(tables, "_put_item", {"TableName": TABLE, "Item": item})[0] == 200
        assert call(tables, "_update_table", created)[0] == 200
        answers.append(pages(tables, request))
    assert answers[0] == answers[1]


@given(low=KEYS, high=KEYS, keys=st.lists(KEYS, max_size=20))
@example(low="\U0010ffff", high="b", keys=["\U0010ffff\U0010ffff", "a"])
def test_a_range_holds_what_its_condition_lets_through_and_nothing_else(low: str, high: str, keys: list[str]) -> None:
    values = {":p": {"S": "p"}, ":a": {"S": low}, ":b": {"S": high}}
    for condition, holds in (
        ("s = :a", lambda key: key == low),
        ("s < :a", lambda key: key < low),
        ("s <= :a", lambda key: key <= low),
        ("s > :a", lambda key: key > low),
        ("s >= :a", lambda key: key >= low),
        ("begins_with(s, :a)", lambda key: key.startswith(low)),
        ("s BETWEEN :a AND :b", lambda key: low <= key <= high),
    ):
        tokens = plain()._tokenize(f"p = :p AND {condition}")
        partition, found = range_of(tokens, {}, values, "p", "s")
        assert partition == "p"
        assert [key for key in keys if is_in(found, key)] == [key for key in keys if holds(key)]


def is_in(found: Range, key: str) -> bool:
    return (found.low is None or key >= found.low) and (found.high is None or key < found.high)


@pytest.mark.parametrize(
    "condition",
    ["p = :p AND s <> :a", "p = :p OR s = :a", "s = :a", "p = :p AND s = :a AND s = :a", "p = :n", "p < :p", "p = :p AND t = :a"],
)
def test_another_condition_is_not_understood(condition: str) -> None:
    values = {":p": {"S": "p"}, ":a": {"S": "a"}, ":n": {"N": "1"}}
    with pytest.raises(NotUnderstoodError):
        range_of(plain()._tokenize(condition), {}, values, "p", "s")
