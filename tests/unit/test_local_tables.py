"""Rows that are held packed are read, found, counted and expire as the emulator's own do."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
import time
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.local.ordered import Ordered
from attestry.local.packed import Items, Partition, pack, size_of, size_of_row, unpack
from attestry.local.patch_repeats import Copies
from attestry.local.patch_tables import Clock, reap
from tests.unit.emulated_tables import TABLE, call, create, patched, plain

TEXTS = st.text(max_size=4)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.builds(lambda text: {"S": text}, TEXTS)
    | st.builds(lambda number: {"N": str(number)}, st.integers() | st.decimals(allow_nan=False, allow_infinity=False, places=3))
    | st.sampled_from(
        [{"BOOL": True}, {"NULL": True}, {"B": "YWI="}, {"B": "?"}, {"SS": ["a", "é"]}, {"NS": ["1", "20"]}, {"BS": ["YWI=", ""]}, {}]
    ),
    lambda inner: (
        st.builds(lambda found: {"L": found}, st.lists(inner, max_size=3))
        | st.builds(lambda found: {"M": found}, st.dictionaries(TEXTS, inner, max_size=3))
    ),
    max_leaves=12,
)
ROWS = st.dictionaries(TEXTS, VALUES, max_size=6)
KEYS = st.sampled_from(["a", "b", "c"])
NESTED = st.dictionaries(KEYS, st.dictionaries(KEYS, ROWS, min_size=1, max_size=3), max_size=3)
OPERATIONS = st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=60)


@given(ROWS)
def test_a_packed_row_is_the_row_and_knows_its_size(row: dict[str, Any]) -> None:
    patched()
    packed = pack(row)
    assert unpack(packed) == row
    assert size_of(packed) == size_of_row(row) == plain()._item_size_bytes(row)


@pytest.mark.parametrize(
    "row", [{}, None, "row", {"a": None}, {"a": {"S": 1}}, {"a": {"S": "x", "N": "1"}}, {"é": {"S": "é"}}, {"a": {"S": None}}]
)
def test_what_is_no_row_has_the_size_that_the_emulator_gives_it(row: Any) -> None:
    patched()
    assert size_of_row(row) == plain()._item_size_bytes(row)


def test_a_row_that_json_has_not_is_held_as_it_is() -> None:
    row = {"pk": {"S": "a"}, "odd": object()}
    items = Items()
    items.put("a", "b", row)
    assert items["a"]["b"] == row
    assert copy.deepcopy(items)["a"]["b"].keys() == row.keys()


@given(NESTED)
def test_packed_rows_are_read_like_dictionaries_of_dictionaries(rows: Any) -> None:
    items, plainly = Items(dict, rows), defaultdict(dict, rows)
    assert isinstance(items, dict)
    assert (items == plainly, dict(items) == rows, len(items), bool(items)) == (True, True, len(plainly), bool(plainly))
    assert sorted(items.keys()) == sorted(plainly.keys())
    assert list(items) == list(plainly)
    for key in ("a", "b", "c", "d"):
        assert items.get(key, {}) == plainly.get(key, {})
        assert (key in items) == (key in plainly)
        assert items.get(key, {}).get("a") == plainly.get(key, {}).get("a")
    for key, partition in items.items():
        assert list(partition.values()) == list(rows[key].values())
        assert list(partition.items()) == list(rows[key].items())
        assert [partition[sort_key] for sort_key in partition] == list(rows[key].values())
        assert len(partition) == len(rows[key])
        assert "d" not in partition
    assert json.loads(json.dumps(items)) == rows
    for copied in (copy.deepcopy(items), Items(dict, copy.deepcopy(dict(items))), Items(dict, Copies.deepcopy(dict(items)))):
        assert copied == rows


@given(NESTED, st.lists(st.tuples(KEYS, KEYS, ROWS | st.none()), max_size=10))
def test_rows_are_put_and_taken_as_in_dictionaries_and_a_copy_does_not_change_with_them(rows: Any, changes: Any) -> None:
    items, plainly = Items(dict, rows), copy.deepcopy(rows)
    snapshot = copy.deepcopy(dict(items))
    for partition, sort_key, row in changes:
        before = plainly.get(partition, {}).get(sort_key)
        if row is None:
            assert items.take(partition, sort_key) == before
            plainly.get(partition, {}).pop(sort_key, None)
            if not plainly.get(partition, {"a": 1}):
                del plainly[partition]
        else:
            assert items.put(partition, sort_key, row) == before
            plainly.setdefault(partition, {})[sort_key] = row
        assert items == plainly
    assert snapshot == rows


def test_a_row_that_was_read_is_a_copy() -> None:
    items = Items(dict, {"a": {"b": {"text": {"S": "x"}}}})
    items["a"]["b"]["text"]["S"] = "y"
    next(iter(items["a"].values()))["text"]["S"] = "y"
    assert items["a"]["b"] == {"text": {"S": "x"}}


@pytest.mark.parametrize(
    "change",
    [lambda rows: rows.update(c={}), lambda rows: rows.__setitem__("b", {}), lambda rows: rows.pop("b"), lambda rows: rows.clear()],
)
def test_a_partition_changes_by_its_table_only(change: Any) -> None:
    with pytest.raises(TypeError):
        change(Items(dict, {"a": {"b": {}}})["a"])


def test_the_order_of_many_rows_is_kept_while_they_change() -> None:
    items = Items(dict, {"a": {f"{number:03d}": {} for number in range(0, 400, 2)}})
    partition: Partition = items["a"]
    order = partition.order()
    for number in range(100):
        items.put("a", f"{number:03d}", {})
        items.take("a", f"{number + 200:03d}")
    assert partition.order() is order
    assert list(order) == sorted(partition)
    assert len(order) == len(partition)


@given(OPERATIONS, st.lists(st.integers(0, 40), unique=True), st.none() | st.integers(-1, 41), st.none() | st.integers(-1, 41))
def test_values_stand_in_their_order_from_any_bound_to_any_other(begun: Any, values: list[int], low: int | None, high: int | None) -> None:
    with pytest.MonkeyPatch.context() as small:
        small.setattr("attestry.local.ordered._BLOCK", 3)
        ordered, plainly = Ordered(values), set(values)
        for value, is_added in begun:
            if not is_added:
                ordered.discard(value)
            elif value not in plainly:
                ordered.add(value)
            (plainly.add if is_added else plainly.discard)(value)
        assert list(ordered) == sorted(plainly)
        assert len(ordered) == len(plainly)
        expected = [value for value in sorted(plainly) if (low is None or value >= low) and (high is None or value < high)]
        assert list(ordered.ascending(low, high)) == expected
        assert list(ordered.descending(low, high)) == expected[::-1]


EXPIRIES = st.sampled_from(
    [{"N": "5"}, {"N": "10"}, {"N": "10.5"}, {"S": "7"}, {"S": ""}, {"N": "1E1"}, {"BOOL": True}, {"NULL": True}, {"L": []}, {"B": "OA=="}]
)


@given(
    st.lists(st.tuples(KEYS, KEYS, st.none() | st.just({}) | st.builds(lambda at: {"at": at}, EXPIRIES)), max_size=20),
    st.integers(0, 12),
    st.booleans(),
)
def test_rows_expire_as_the_emulator_s_do(changes: Any, now: int, early: bool) -> None:
    rows = {}
    for tables in (plain(), patched()):
        create(tables)
        call(tables, "_update_ttl", {"TableName": TABLE, "TimeToLiveSpecification": {"Enabled": True, "AttributeName": "at"}})
        if early:
            reap_once(tables, now)
        for partition, sort_key, row in changes:
            key = {"pk": {"S": partition}, "sk": {"S": sort_key}}
            if row is None:
                call(tables, "_delete_item", {"TableName": TABLE, "Key": key})
            else:
                call(tables, "_put_item", {"TableName": TABLE, "Item": key | row})
        reap_once(tables, now)
        table = tables._tables.get(TABLE)
        rows[tables.__name__] = ({key: dict(found.items()) for key, found in table["items"].items()}, table["ItemCount"])
    assert rows[plain().__name__] == rows[patched().__name__]


def reap_once(tables: Any, now: float) -> None:
    if tables is patched():
        reap(tables, now)
        return
    passes = iter([None])

    def sleep(seconds: float) -> None:
        if next(passes, "over") == "over":
            raise SystemExit

    tables.time = SimpleNamespace(sleep=sleep, time=lambda: now)
    try:
        with pytest.raises(SystemExit):
            tables._ttl_reaper()
    finally:
        tables.time = time


def test_reaping_does_not_read_rows_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    items = Items(dict, {"a": {f"{number}": {"at": {"N": str(number)}} for number in range(100)}})
    assert sorted(items.expired("at", 3)) == [("a", str(number)) for number in range(4)]
    monkeypatch.setattr("attestry.local.packed.unpack", lambda packed: pytest.fail("a row was read"))
    assert len(items.expired("at", 1.5)) == 2


def test_another_attribute_for_expiry_is_looked_for_in_all_rows() -> None:
    items = Items(dict, {"a": {"b": {"at": {"N": "1"}, "until": {"N": "9"}}}})
    assert items.expired("at", 5) == [("a", "b")]
    assert items.expired("until", 5) == []
    assert items.expired("until", 9) == [("a", "b")]


def test_the_emulator_s_reaper_ends_when_it_asks_for_the_time_and_nobody_else_does() -> None:
    tables = SimpleNamespace(time=None)
    clock = tables.time = Clock(tables)
    told: list[Any] = []

    def run() -> None:
        with contextlib.suppress(SystemExit):  # which ends a thread
            told.append(clock.time())

    for name in ("another", "dynamodb-ttl-reaper"):
        thread = threading.Thread(target=run, name=name)
        thread.start()
        thread.join()
    assert len(told) == 1
    assert clock.monotonic() > 0
    assert tables.time is time


def test_a_transaction_of_statements_that_fails_leaves_the_rows_and_their_indices_as_they_were() -> None:
    statements = [
        {"Statement": f"INSERT INTO \"{TABLE}\" VALUE {{'pk': 'p', 'sk': 'new', 'ipk': 'q', 'isk': 'x'}}"},
        {"Statement": f"DELETE FROM \"{TABLE}\" WHERE pk = 'p' AND sk = 'a'"},
        {"Statement": f"UPDATE \"{TABLE}\" SET isk = 'y' WHERE pk = 'p' AND sk = 'none'"},
    ]
    answers = []
    for tables in (plain(), patched()):
        create(tables)
        row = {name: {"S": value} for name, value in {"pk": "p", "sk": "a", "ipk": "q", "isk": "a"}.items()}
        call(tables, "_put_item", {"TableName": TABLE, "Item": row})
        failed = call(tables, "_execute_transaction", {"TransactStatements": statements})
        scanned = call(tables, "_scan", {"TableName": TABLE})
        request = {
            "TableName": TABLE,
            "IndexName": "all",
            "KeyConditionExpression": "ipk = :p",
            "ExpressionAttributeValues": {":p": {"S": "q"}},
        }
        answers.append((failed, scanned, call(tables, "_query", request)))
    assert answers[0] == answers[1]
    assert answers[0][0][0] == 400
    assert answers[0][1][1]["Count"] == 1
