"""Tables are saved by what changed of their rows, and are loaded as they were when a saving came to its end."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ministack.core import persistence

from attestry.local import packed, patch_saving_rows, row_files
from attestry.local.packed import Items
from attestry.local.process import environment, free_port
from attestry.local.row_files import FOLDER, MARK, RowFile, blocks_of, lost_from, named_in
from attestry.local.saving import _write_whole
from attestry.local.settings import DataDirectory, RootKey
from tests.unit.emulated_tables import TABLE, call, copy_of_module, create

KEYS = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.tuples(st.just("put"), KEYS, KEYS, st.integers(0, 99))
    | st.tuples(st.just("take"), KEYS, KEYS)
    | st.tuples(st.sampled_from(["save", "fails", "is ended", "loses its end", "start again"])),
    max_size=30,
)


@pytest.fixture(autouse=True)
def _files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "file_of_new_rows", RowFile)


class Disk:
    """A state on the disk, as the server writes it: the file of rows first, then what names it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "dynamodb.json"

    def save(self, items: Items, how: str = "save") -> None:
        items.file.hand_over(sum(map(len, items.values())))  # type: ignore[union-attr]
        mark = copy.deepcopy(items.file).write(items, self.folder)  # type: ignore[union-attr] # a copy of the process has its own
        if how == "save":
            self.state.write_text(json.dumps({"payload": {"tables": {"data": {"t": {"items": mark}}}}}))
        path = self.folder / FOLDER / mark[MARK]["name"]
        if how == "loses its end" and path.stat().st_size > items.file._length:  # type: ignore[union-attr]
            os.truncate(path, path.stat().st_size - 1)
        if how != "fails":
            items.file.settle(named_in(self.state) or {})  # type: ignore[union-attr]

    def load(self) -> Items:
        named = named_in(self.state)
        return patch_saving_rows.read_rows(self.folder, next(iter(named.values()))) if named else Items()


@given(steps=STEPS, worn=st.sampled_from([0, 5, 100_000]))
def test_what_is_loaded_is_what_the_last_saving_that_ended_saved(steps: Any, worn: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    disk, items, saved = Disk(tmp_path_factory.mktemp("state")), Items(), Items()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_files, "_WORN_FROM", worn)
        patch.setattr(row_files, "_BLOCK", 2)
        for kind, *keys in [*steps, ("save",), ("start again",)]:
            if kind == "put":
                items.put(keys[0], keys[1], {"number": {"S": str(keys[2])}})
            elif kind == "take":
                items.take(keys[0], keys[1])
            elif kind == "start again":
                items = disk.load()
                assert items == saved
            else:
                disk.save(items, kind)
                saved = copy.deepcopy(items) if kind == "save" else saved
    assert items == saved


def test_a_saving_adds_what_changed_and_nothing_else(tmp_path: Path) -> None:
    disk, items = Disk(tmp_path), Items(dict, {"a": {f"{number:04d}": {"text": {"S": "x" * 100}} for number in range(5000)}})
    disk.save(items)
    (name,) = named_in(disk.state) or {}
    size = (tmp_path / FOLDER / name).stat().st_size
    assert size > 500_000
    items.put("a", "0007", {"text": {"S": "y"}})
    items.take("a", "0008")
    disk.save(items)
    assert list(named_in(disk.state) or {}) == [name]
    assert (tmp_path / FOLDER / name).stat().st_size - size < 200
    disk.save(items)
    assert sum(map(len, blocks_of(tmp_path / FOLDER / name, (named_in(disk.state) or {})[name]["length"]))) == 5002


def test_a_file_with_far_more_changes_than_rows_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "_WORN_FROM", 10)
    disk, items = Disk(tmp_path), Items()
    names = set()
    for number in range(40):
        items.put("a", "b", {"number": {"S": str(number)}})
        disk.save(items)
        names |= set(named_in(disk.state) or {})
        assert disk.load() == items
    assert len(names) > 1
    assert min((tmp_path / FOLDER / name).stat().st_size for name in named_in(disk.state) or {}) < 1000


def test_a_file_that_is_not_as_long_as_it_was_is_no_table(tmp_path: Path) -> None:
    disk, items = Disk(tmp_path), Items(dict, {"a": {"b": {"text": {"S": "x"}}}})
    disk.save(items)
    (name,) = named_in(disk.state) or {}
    os.truncate(tmp_path / FOLDER / name, 20)
    with pytest.raises(ValueError, match="ends before its length"):
        disk.load()


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    """Makes servers: each has the emulator's module anew, patched, and what the state in a folder holds."""
    made: list[Any] = []

    def start(folder: Path) -> Any:
        from attestry.local import patch_queries, patch_tables

        tables = copy_of_module(f"tests.unit.saved_tables_{len(made)}")
        made.append(tables)
        patch_tables.patch(tables)
        patch_queries.patch(tables)
        before = packed.file_of_new_rows
        patch_saving_rows.patch(tables, folder)
        packed.file_of_new_rows = before
        if (folder / "dynamodb.json").exists():
            told = json.loads((folder / "dynamodb.json").read_text(), object_hook=persistence._json_object_hook)
            tables.load_persisted_state(told["payload"])
        return tables

    return start


def stop(tables: Any, folder: Path) -> None:
    writer = SimpleNamespace(
        PERSIST_STATE=True, STATE_DIR=str(folder), _state_format_version=lambda _: 2, _json_default=persistence._json_default
    )
    _write_whole(writer)("dynamodb", tables.get_state())


def row(sort_key: str) -> dict[str, Any]:
    return {
        "pk": {"S": "p"},
        "sk": {"S": sort_key},
        "ipk": {"S": "q"},
        "isk": {"S": sort_key},
        "bytes": {"B": "YQ=="},
        "deep": {"M": {"é": {"L": []}}},
    }


def test_a_server_that_starts_again_has_its_tables_rows_and_settings(tmp_path: Path, started: Any) -> None:
    tables = started(tmp_path)
    create(tables)
    call(tables, "_update_ttl", {"TableName": TABLE, "TimeToLiveSpecification": {"Enabled": True, "AttributeName": "at"}})
    for sort_key in ("a", "b", "c"):
        call(tables, "_put_item", {"TableName": TABLE, "Item": row(sort_key)})
    call(tables, "_create_backup", {"TableName": TABLE, "BackupName": "once"})
    for change in (("_delete_item", {"Key": {"pk": {"S": "p"}, "sk": {"S": "b"}}}), ("_put_item", {"Item": row("d")})):
        stop(tables, tmp_path)
        tables = started(tmp_path)
        call(tables, change[0], {"TableName": TABLE, **change[1]})
    stop(tables, tmp_path)
    tables = started(tmp_path)
    assert call(tables, "_scan", {"TableName": TABLE})[1]["Items"] == [row(sort_key) for sort_key in ("a", "c", "d")]
    asked = {"TableName": TABLE, "IndexName": "all", "KeyConditionExpression": "ipk = :p AND isk > :s", "Limit": 1}
    found = call(tables, "_query", {**asked, "ExpressionAttributeValues": {":p": {"S": "q"}, ":s": {"S": "a"}}})[1]
    assert [item["sk"]["S"] for item in found["Items"]] == ["c"]
    assert call(tables, "_describe_table", {"TableName": TABLE})[1]["Table"]["ItemCount"] == 3
    assert call(tables, "_describe_ttl", {"TableName": TABLE})[1]["TimeToLiveDescription"]["TimeToLiveStatus"] == "ENABLED"
    (arn,) = (kept["BackupArn"] for kept in call(tables, "_list_backups", {})[1]["BackupSummaries"])
    assert call(tables, "_restore_table_from_backup", {"TargetTableName": "Restored", "BackupArn": arn})[0] == 200
    stop(tables, tmp_path)
    assert call(started(tmp_path), "_scan", {"TableName": "Restored"})[1]["Items"] == [row(sort_key) for sort_key in ("a", "b", "c")]


def test_state_that_was_saved_with_its_rows_in_it_is_loaded(tmp_path: Path, started: Any) -> None:
    before = copy_of_module("tests.unit.tables_before")
    create(before)
    call(before, "_put_item", {"TableName": TABLE, "Item": row("a")})
    stop(before, tmp_path)
    tables = started(tmp_path)
    assert call(tables, "_scan", {"TableName": TABLE})[1]["Items"] == [row("a")]
    stop(tables, tmp_path)
    assert "YQ==" not in (tmp_path / "dynamodb.json").read_text()
    assert call(started(tmp_path), "_scan", {"TableName": TABLE})[1]["Items"] == [row("a")]


def test_the_file_of_a_table_that_was_deleted_is_deleted_at_the_next_start(tmp_path: Path, started: Any) -> None:
    tables = started(tmp_path)
    create(tables)
    call(tables, "_put_item", {"TableName": TABLE, "Item": row("a")})
    stop(tables, tmp_path)
    assert len(list((tmp_path / FOLDER).iterdir())) == 1
    call(tables, "_delete_table", {"TableName": TABLE})
    stop(tables, tmp_path)
    started(tmp_path)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_state_that_cannot_be_read_settles_nothing(tmp_path: Path) -> None:
    assert named_in(tmp_path / "dynamodb.json") is None
    (tmp_path / "dynamodb.json").write_text("{")
    assert named_in(tmp_path / "dynamodb.json") is None


@pytest.mark.parametrize("harm", ["missing", "cut short"])
def test_a_server_whose_rows_are_lost_does_not_begin_with_empty_tables(tmp_path: Path, harm: str) -> None:
    data = DataDirectory.at(tmp_path)
    data.state.mkdir(parents=True)
    disk, items = Disk(data.state), Items()
    items.put("a", "a", {"value": {"N": "1"}})
    disk.save(items)
    (file,) = (data.state / FOLDER).iterdir()
    assert lost_from(data.state) == []
    if harm == "missing":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size - 1)
    before = disk.state.read_bytes()
    command = [sys.executable, "-m", "attestry.local.server"]
    told = {**os.environ, **environment(data, free_port(), RootKey("id", "secret"))}
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert file.name in done.stderr
    assert disk.state.read_bytes() == before


def test_a_file_that_holds_more_than_counts_is_not_lost(tmp_path: Path) -> None:
    disk, items = Disk(tmp_path), Items()
    items.put("a", "a", {"value": {"N": "1"}})
    disk.save(items)
    (file,) = (tmp_path / FOLDER).iterdir()
    file.write_bytes(file.read_bytes() + b"of a saving that was ended")
    assert lost_from(tmp_path) == []
