"""A change need not read again what was read a moment ago to decide on it, and overlooks no change that came between."""

from __future__ import annotations

from typing import Any

import pytest

from attestry.domain.errors import ConditionFailedError
from attestry.ports import Check, Key, Put, Update, When
from attestry.usecases import mlflow_changing
from attestry.usecases.read_ahead import ReadAhead, ReadAlong
from tests.fakes import MemoryMetaStore
from tests.mlflow_desk import MODELS, VERSIONS, Desk
from tests.versions import make_version

MODEL = "credit-risk"
A, B, GONE = Key("A", "1"), Key("B", "1"), Key("GONE", "1")


@pytest.fixture
def meta() -> MemoryMetaStore:
    meta = MemoryMetaStore()
    meta.transact([Put(A, {"value": 1}), Put(B, {"value": 2})])
    meta.faults.clear()
    return meta


def ahead(meta: MemoryMetaStore) -> ReadAhead:
    found = meta.get_many([A, GONE])
    meta.faults.clear()
    return ReadAhead(meta, {A: found.get(A), GONE: None})


def test_the_first_read_is_answered_from_memory_and_the_second_by_the_table(meta: MemoryMetaStore) -> None:
    table = ahead(meta)
    assert table.get_many([A, GONE]) == {A: meta.rows[A] | {"pk": "A", "sk": "1"}}
    assert meta.faults.calls == []
    assert table.get(GONE) is None
    assert (table.get_many([A]) or {})[A]["value"] == 1
    assert meta.faults.calls == ["MemoryMetaStore.get", "MemoryMetaStore.get_many"]


def test_rows_that_are_read_together_are_of_one_moment(meta: MemoryMetaStore) -> None:
    table = ahead(meta)
    meta._apply([Update(A, {"value": 7})])
    assert {key.partition: row["value"] for key, row in table.get_many([A, B]).items()} == {"A": 7, "B": 2}


def test_after_a_write_nothing_is_answered_from_memory(meta: MemoryMetaStore) -> None:
    table = ahead(meta)
    table.transact([Update(A, {"value": 7})])
    assert (table.get(A) or {})["value"] == 7


def test_after_a_write_that_failed_nothing_is_answered_from_memory(meta: MemoryMetaStore) -> None:
    table = ahead(meta)
    meta._apply([Update(A, {"value": 7})])
    with pytest.raises(ConditionFailedError):
        table.transact([Check(A, When(equals={"value": 1}))])
    assert (table.get(A) or {})["value"] == 7


def test_what_is_taken_along_is_read_with_the_first_rows_and_answered_from_memory_once(meta: MemoryMetaStore) -> None:
    table = ReadAlong(meta, [B, GONE])
    assert table.get_many([A]).keys() == {A}
    assert meta.faults.calls == ["MemoryMetaStore.get_many"]
    meta._apply([Update(B, {"value": 7})])
    assert table.get_many([B, GONE])[B]["value"] == 2
    assert len(meta.faults.calls) == 1
    assert table.get_many([B])[B]["value"] == 7


def test_rows_that_are_asked_for_first_are_no_longer_taken_along(meta: MemoryMetaStore) -> None:
    table = ReadAlong(meta, [A, B])
    assert table.get_many([A, B]).keys() == {A, B}
    meta._apply([Update(B, {"value": 7})])
    assert table.get_many([B], only=["value"])[B]["value"] == 7


def test_nothing_that_was_taken_along_outlives_a_write(meta: MemoryMetaStore) -> None:
    for first in (True, False):
        table = ReadAlong(meta, [B])
        if first:
            table.get_many([A])
        table.transact([Update(B, {"value": 7})])
        assert table.get_many([B])[B]["value"] == 7


CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", f"{MODELS}/set-tag", {"name": MODEL, "key": "team", "value": "credit"}),
    ("DELETE", f"{MODELS}/delete-tag", {"name": MODEL, "key": "old"}),
    ("POST", f"{MODELS}/alias", {"name": MODEL, "alias": "champion", "version": "1"}),
    ("DELETE", f"{MODELS}/alias", {"name": MODEL, "alias": "old"}),
    ("POST", f"{VERSIONS}/set-tag", {"name": MODEL, "version": "1", "key": "team", "value": "credit"}),
    ("DELETE", f"{VERSIONS}/delete-tag", {"name": MODEL, "version": "1", "key": "old"}),
]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(monkeypatch, "open")
    desk.create(MODEL)
    make_version(desk.meta, number=1)
    for subject in ({}, {"version": "1"}):
        desk.ok("POST", f"{VERSIONS if subject else MODELS}/set-tag", name=MODEL, key="old", value="1", **subject)
    desk.ok("POST", f"{MODELS}/alias", name=MODEL, alias="old", version="1")
    desk.meta.faults.clear()
    return desk


@pytest.mark.parametrize(("method", "route", "values"), CHANGES)
def test_a_change_by_mlflow_asks_the_table_who_calls_and_what_is_there_at_once_and_writes(
    desk: Desk, method: str, route: str, values: dict[str, Any]
) -> None:
    desk.ok(method, route, **values)
    assert [call.rpartition(".")[2] for call in desk.meta.faults.calls] == ["get_many", "transact"]


@pytest.mark.parametrize(("method", "route", "values"), CHANGES)
def test_a_change_that_came_between_is_not_overwritten(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, method: str, route: str, values: dict[str, Any]
) -> None:
    original = mlflow_changing.find

    def find(*arguments: Any) -> Any:
        known = original(*arguments)
        monkeypatch.setattr(mlflow_changing, "find", original)
        if "key" in values:
            desk.ok("POST", route.replace("delete-tag", "set-tag"), **{**values, "key": "meanwhile", "value": "1"})
        else:
            desk.ok("POST", route, name=MODEL, alias="meanwhile", version="1")
        return known

    monkeypatch.setattr(mlflow_changing, "find", find)
    desk.ok(method, route, **values)
    model = desk.ok("GET", f"{MODELS}/get", name=MODEL)["registered_model"]
    version = desk.ok("GET", f"{VERSIONS}/get", name=MODEL, version="1")["model_version"]
    tags = {tag["key"] for tag in (version if route.startswith(VERSIONS) else model).get("tags", [])}
    names = tags if "key" in values else {alias["alias"] for alias in model.get("aliases", [])}
    assert names == {"meanwhile"} | ({"old", values.get("key", values.get("alias"))} if method == "POST" else set())
