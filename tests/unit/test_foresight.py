"""A question that is asked again is answered in one round trip, by rows that were read for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from attestry.ports import Item, Key, MetaStore, Put, Update
from attestry.usecases.foresight import ROUND_TRIP, Foresight
from attestry.usecases.records import model_key, version_key
from tests.fakes import MemoryMetaStore
from tests.mlflow_desk import FILES, MODELS, Desk
from tests.versions import make_version

MODEL = "credit-risk"
A, B, C = Key("A", "1"), Key("B", "1"), Key("C", "1")


@pytest.fixture
def meta() -> MemoryMetaStore:
    meta = MemoryMetaStore()
    meta.transact([Put(A, {"next": "B"}), Put(B, {"value": 1}), Put(C, {"value": 2})])
    meta.faults.clear()
    return meta


def follow(table: MetaStore) -> object:
    """Answer: what the row says to which row A leads."""
    led = Key(str(table.get_many([A])[A]["next"]), "1")
    return table.get_many([led])[led]["value"]


def calls(meta: MemoryMetaStore) -> int:
    made = len(meta.faults.calls)
    meta.faults.clear()
    return made


def test_the_second_time_a_question_takes_one_round_trip(meta: MemoryMetaStore) -> None:
    foresight = Foresight()
    assert (follow(foresight.ahead(meta, "a")), calls(meta)) == (1, 2)
    assert (follow(foresight.ahead(meta, "a")), calls(meta)) == (1, 1)
    assert (follow(foresight.ahead(meta, "another")), calls(meta)) == (1, 2)


def test_what_has_changed_since_is_in_the_answer(meta: MemoryMetaStore) -> None:
    foresight = Foresight()
    follow(foresight.ahead(meta, "a"))
    meta._apply([Update(B, {"value": 7})])
    assert (follow(foresight.ahead(meta, "a")), calls(meta)) == (7, 3)
    meta._apply([Update(A, {"next": "C"})])
    assert (follow(foresight.ahead(meta, "a")), calls(meta)) == (2, 2)
    assert (follow(foresight.ahead(meta, "a")), calls(meta)) == (2, 1)


def test_rows_that_were_not_there_are_looked_for_again(meta: MemoryMetaStore) -> None:
    foresight, new = Foresight(), Key("NEW", "1")
    for _ in range(2):
        table = foresight.ahead(meta, "a")
        assert (table.get_many([A, new]).keys(), table.get_many([new])) == ({A}, {})
    meta._apply([Put(new, {"value": 3})])
    assert foresight.ahead(meta, "a").get_many([new])[new]["value"] == 3


def test_rows_that_are_read_together_are_of_one_moment(meta: MemoryMetaStore) -> None:
    table = Foresight().ahead(meta, "a")
    table.get_many([B])
    meta._apply([Update(B, {"value": 7}), Update(C, {"value": 8})])
    assert {key.partition: row["value"] for key, row in table.get_many([B, C]).items()} == {"B": 7, "C": 8}


def test_after_a_write_nothing_is_answered_from_memory(meta: MemoryMetaStore) -> None:
    table = Foresight().ahead(meta, "a")
    table.get_many([B])
    table.transact([Update(B, {"value": 7})])
    assert table.get_many([B])[B]["value"] == 7
    assert (table.get(B) or {})["value"] == 7


def test_no_more_rows_are_foreseen_than_one_round_trip_reads(meta: MemoryMetaStore) -> None:
    foresight = Foresight()
    many = [Key("M", f"{n:03d}") for n in range(ROUND_TRIP - 1)]
    table = foresight.ahead(meta, "a")
    table.get_many([A])
    table.get_many(many)
    table.get_many([B, C])
    calls(meta)
    again = foresight.ahead(meta, "a")
    again.get_many([A])
    again.get_many(many)
    assert calls(meta) == 1
    assert again.get_many([B, C]).keys() == {B, C}


def test_the_questions_that_were_asked_last_are_remembered(meta: MemoryMetaStore) -> None:
    foresight = Foresight(questions=2)
    for question in ("a", "b", "a", "c"):
        follow(foresight.ahead(meta, question))
    calls(meta)
    taken = []
    for question in ("a", "c", "b"):
        follow(foresight.ahead(meta, question))
        taken.append(calls(meta))
    assert taken == [1, 1, 2]


def version(desk: Desk, number: int) -> None:
    make_version(desk.meta, number=number)
    desk.meta._apply([Update(model_key(MODEL), {"next": number + 1})])


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(monkeypatch, "open")
    desk.create(MODEL)
    for number in (1, 2):
        version(desk, number)
    desk.ok("POST", f"{MODELS}/alias", name=MODEL, alias="champion", version="1")
    return desk


def alias(desk: Desk) -> tuple[str, int]:
    desk.meta.faults.clear()
    found = desk.ok("GET", f"{MODELS}/alias", name=MODEL, alias="champion")["model_version"]["version"]
    return found, sum(call.endswith("get_many") for call in desk.meta.faults.calls)


def test_mlflow_finds_the_version_of_an_alias_in_one_round_trip_until_the_alias_moves(desk: Desk) -> None:
    alias(desk)
    assert alias(desk) == ("1", 1)
    desk.ok("POST", f"{MODELS}/alias", name=MODEL, alias="champion", version="2")
    assert alias(desk) == ("2", 2)
    assert alias(desk) == ("2", 1)


def test_mlflow_is_shown_a_model_in_one_round_trip_until_it_gets_a_version(desk: Desk) -> None:
    def show() -> tuple[list[str], int]:
        desk.meta.faults.clear()
        model = desk.ok("GET", f"{MODELS}/get", name=MODEL)["registered_model"]
        return [v["version"] for v in model["latest_versions"]], sum(c.endswith("get_many") for c in desk.meta.faults.calls)

    show()
    assert show() == (["2"], 1)
    version(desk, 3)
    assert show() == (["3"], 2)
    assert show() == (["3"], 1)


def test_of_two_files_those_rows_are_foreseen_that_belong_to_each(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Key] = []
    original = desk.meta.get_many

    def get_many(keys: Sequence[Key], *, only: Sequence[str] = ()) -> dict[Key, Item]:
        read.extend(keys)
        return original(keys, only=only)

    monkeypatch.setattr(desk.meta, "get_many", get_many)
    for number, other in ((1, 2), (2, 1)):
        read.clear()
        desk.ask("GET", f"{FILES}/artifacts/models/{MODEL}/{number}/model.pkl")
        assert version_key(MODEL, number) in read
        assert version_key(MODEL, other) not in read
