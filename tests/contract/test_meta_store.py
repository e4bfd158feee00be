"""The contract of `attestry.ports.MetaStore`, for the adapter over the emulated table and for the fake."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session

from attestry.aws.meta_store import DynamoMetaStore
from attestry.aws.row_requests import send_rows_as_written
from attestry.domain.errors import ConditionFailedError, InvalidInputError, UnavailableError
from attestry.ports import ABSENT, PRESENT, Check, Delete, Key, MetaStore, Put, Update, When
from tests.fakes import MemoryMetaStore


@pytest.fixture(params=["memory", "dynamodb", "as functions ask it"])
def store(request: pytest.FixtureRequest) -> MetaStore:
    if request.param == "memory":
        return MemoryMetaStore()
    ours = request.param != "dynamodb"
    client = request.getfixturevalue("client_of")("dynamodb", parameter_validation=not ours)
    if ours:
        send_rows_as_written(client)
    return DynamoMetaStore(client, request.getfixturevalue("table"))


def test_a_row_comes_back_as_it_was_written(store: MetaStore, unique: str) -> None:
    item = {
        "text": "ä",
        "empty": "",
        "number": -12345678901234567890123456789012345678,
        "yes": True,
        "no": False,
        "none": None,
        "bytes": b"\x00\xff",
        "list": [1, "a", None, [b"x"], {}],
        "map": {"a": {"b": [True]}, "size": 3},
    }
    store.transact([Put(Key(unique), item)])
    assert store.get(Key(unique)) == {**item, "pk": unique, "sk": "HEAD"}


def test_a_row_that_was_never_written_is_none(store: MetaStore, unique: str) -> None:
    assert store.get(Key(unique)) is None


def test_a_float_is_refused_before_anything_is_written(store: MetaStore, unique: str) -> None:
    with pytest.raises(TypeError, match="float"):
        store.transact([Put(Key(unique), {"a": 1}), Put(Key(unique, "B"), {"x": 0.5})])
    assert store.get(Key(unique)) is None


def test_reserved_words_and_syntax_serve_as_attribute_names(store: MetaStore, unique: str) -> None:
    names = {"name": 1, "size": 2, "a.b": 3, "#n0": 4, ":v0": 5, "ttl": 6}
    store.transact([Put(Key(unique), names)])
    store.transact([Update(Key(unique), {**names, "status": "x"}, When(exists=True, equals=names))])
    assert store.get(Key(unique)) == {**names, "status": "x", "pk": unique, "sk": "HEAD"}


def test_get_many_returns_the_rows_that_exist(store: MetaStore, unique: str) -> None:
    keys = [Key(unique, f"{i:03d}") for i in range(130)]
    for start in range(0, 120, 60):
        store.transact([Put(k, {"n": k.sort}) for k in keys[start : start + 60]])
    found = store.get_many([*keys, keys[0]])
    assert set(found) == set(keys[:120])
    assert all(row["n"] == key.sort for key, row in found.items())


def test_get_many_of_nothing_is_nothing(store: MetaStore) -> None:
    assert store.get_many([]) == {}


def test_of_rows_that_are_read_in_part_there_are_the_attributes_asked_for_and_the_key(store: MetaStore, unique: str) -> None:
    names = ("status", "size", "a.b", "name")
    keys = [Key(unique, f"{i:03d}") for i in range(130)]
    for start in range(0, 130, 65):
        store.transact([Put(k, {**dict.fromkeys(names, k.sort), "large": "x" * 100}) for k in keys[start : start + 65]])
    wanted = {k: {**dict.fromkeys(names, k.sort), "pk": unique, "sk": k.sort} for k in keys}
    assert store.get_many([*keys, Key(unique, "none")], only=[*names, "missing", "sk"]) == wanted
    assert store.query(unique, only=names) == list(wanted.values())
    some = store.query(unique, after="003", before="010", newest_first=True, limit=2, only=["status", "status"])
    assert some == [{"pk": unique, "sk": sort, "status": sort} for sort in ("009", "008")]
    assert store.query(unique, prefix="00", limit=1, only=["name"]) == [{"pk": unique, "sk": "000", "name": "000"}]


@pytest.fixture
def filled(store: MetaStore, unique: str) -> Iterator[tuple[MetaStore, str]]:
    store.transact([Put(Key(unique, f"T#{i:02d}"), {"i": i}) for i in range(20)] + [Put(Key(unique), {}), Put(Key(unique, "Z"), {})])
    return (store, unique)  # type: ignore[return-value]


def test_a_query_is_in_order_of_the_sort_key(filled: tuple[MetaStore, str]) -> None:
    store, partition = filled
    assert [r["sk"] for r in store.query(partition)] == ["HEAD", *(f"T#{i:02d}" for i in range(20)), "Z"]


def test_a_query_keeps_to_its_prefix_order_and_limit(filled: tuple[MetaStore, str]) -> None:
    store, partition = filled
    assert [r["i"] for r in store.query(partition, prefix="T#", newest_first=True, limit=3)] == [19, 18, 17]
    assert store.query(partition, prefix="X") == []
    assert store.query(partition, limit=0) == []


def test_a_query_goes_on_after_a_sort_key(filled: tuple[MetaStore, str]) -> None:
    store, partition = filled
    assert [r["sk"] for r in store.query(partition, after="T#17")] == ["T#18", "T#19", "Z"]


def test_a_query_keeps_between_two_sort_keys_and_takes_in_neither(filled: tuple[MetaStore, str]) -> None:
    store, partition = filled
    assert [r["sk"] for r in store.query(partition, before="T#01")] == ["HEAD", "T#00"]
    assert [r["i"] for r in store.query(partition, after="T#03", before="T#06")] == [4, 5]
    assert [r["i"] for r in store.query(partition, after="T#03", before="T#09", limit=2, newest_first=True)] == [8, 7]
    assert [r["i"] for r in store.query(partition, before="T#09", limit=2, newest_first=True)] == [8, 7]
    assert store.query(partition, after="T#05", before="T#05") == []


def test_a_query_takes_prefix_or_after_not_both(store: MetaStore, unique: str) -> None:
    with pytest.raises(ValueError, match="not both"):
        store.query(unique, prefix="a", after="b")


def test_a_query_reads_on_beyond_one_page(store: MetaStore, unique: str) -> None:
    for i in range(6):
        store.transact([Put(Key(unique, str(i)), {"blob": random.Random(i).randbytes(300_000)})])
    assert [r["sk"] for r in store.query(unique)] == list("012345")
    assert [r["sk"] for r in store.query(unique, limit=5)] == list("01234")


def test_a_collection_lists_its_rows_in_order(store: MetaStore, unique: str) -> None:
    store.transact([Put(Key(f"{unique}{i}"), {"gsi_pk": unique, "gsi_sk": f"{9 - i}"}) for i in range(5)])
    assert [r["gsi_sk"] for r in store.list_collection(unique)] == ["5", "6", "7", "8", "9"]
    assert [r["gsi_sk"] for r in store.list_collection(unique, after="6", limit=2)] == ["7", "8"]
    assert [r["gsi_sk"] for r in store.list_collection(unique, after="6", newest_first=True)] == ["5"]
    newest = store.list_collection(unique, newest_first=True, limit=2)
    assert [(r["pk"], r["sk"]) for r in newest] == [(f"{unique}0", "HEAD"), (f"{unique}1", "HEAD")]


def test_a_row_leaves_its_collection_when_its_index_key_is_removed(store: MetaStore, unique: str) -> None:
    store.transact([Put(Key(unique), {"gsi_pk": unique, "gsi_sk": "1"}), Put(Key(unique, "B"), {"gsi_pk": None, "gsi_sk": None})])
    store.transact([Update(Key(unique), {"gsi_pk": None})])
    assert store.list_collection(unique) == []


@pytest.mark.parametrize("alone", [True, False])
class TestWrite:
    """Each of these holds for one write alone, which goes without a transaction, and for a write among others."""

    def write(self, store: MetaStore, write: Any, alone: bool) -> None:
        others = [] if alone else [Put(Key("beside", f"{random.random()}"), {"x": 1})]
        store.transact([*others, write])

    def refused(self, store: MetaStore, write: Any, alone: bool) -> None:
        before = store.get(write.key)
        with pytest.raises(ConditionFailedError) as caught:
            self.write(store, write, alone)
        assert caught.value.failed == ((0,) if alone else (1,))
        assert store.get(write.key) == before

    def test_a_put_is_refused_where_the_row_exists(self, store: MetaStore, unique: str, alone: bool) -> None:
        self.write(store, Put(Key(unique), {"a": 1}), alone)
        self.refused(store, Put(Key(unique), {"a": 1}), alone)

    def test_a_put_without_condition_replaces_the_whole_row(self, store: MetaStore, unique: str, alone: bool) -> None:
        self.write(store, Put(Key(unique), {"a": 1, "b": 2}), alone)
        self.write(store, Put(Key(unique), {"a": 3}, When()), alone)
        assert store.get(Key(unique)) == {"a": 3, "pk": unique, "sk": "HEAD"}

    def test_an_update_is_refused_where_there_is_no_row(self, store: MetaStore, unique: str, alone: bool) -> None:
        self.refused(store, Update(Key(unique), {"a": 1}), alone)

    def test_an_update_leaves_other_attributes_and_removes_those_set_to_none(self, store: MetaStore, unique: str, alone: bool) -> None:
        self.write(store, Put(Key(unique), {"a": 1, "b": 2, "c": 3}), alone)
        self.write(store, Update(Key(unique), {"a": 9, "b": None, "d": {"e": None}}), alone)
        assert store.get(Key(unique)) == {"a": 9, "c": 3, "d": {"e": None}, "pk": unique, "sk": "HEAD"}

    def test_equals_compares_and_swaps(self, store: MetaStore, unique: str, alone: bool) -> None:
        self.write(store, Put(Key(unique), {"rev": 1}), alone)
        self.write(store, Update(Key(unique), {"rev": 2}, When(exists=True, equals={"rev": 1})), alone)
        self.refused(store, Update(Key(unique), {"rev": 3}, When(exists=True, equals={"rev": 1})), alone)

    def test_equals_none_means_absent_or_null(self, store: MetaStore, unique: str, alone: bool) -> None:
        self.write(store, Put(Key(unique), {"null": None, "set": 1}), alone)
        self.write(store, Update(Key(unique), {"x": 1}, When(equals={"null": None, "absent": None})), alone)
        self.refused(store, Update(Key(unique), {"x": 2}, When(equals={"set": None})), alone)

    def test_differs_lets_absent_attributes_pass(self, store: MetaStore, unique: str, alone: bool) -> None:
        self.write(store, Put(Key(unique), {"person": "dana"}), alone)
        self.write(store, Update(Key(unique), {"x": 1}, When(exists=True, differs={"person": "erin", "other": "dana"})), alone)
        self.refused(store, Update(Key(unique), {"x": 2}, When(exists=True, differs={"person": "dana"})), alone)

    def test_lacks_refuses_an_item_of_a_list_and_lets_absent_lists_pass(self, store: MetaStore, unique: str, alone: bool) -> None:
        self.write(store, Put(Key(unique), {"barred": ["dana", "erin"]}), alone)
        self.refused(store, Update(Key(unique), {"x": 1}, When(exists=True, lacks={"barred": "erin"})), alone)
        self.write(store, Update(Key(unique), {"x": 1}, When(exists=True, lacks={"barred": "eri", "other": "erin"})), alone)

    def test_differs_from_none_means_that_the_attribute_is_there(self, store: MetaStore, unique: str, alone: bool) -> None:
        self.write(store, Put(Key(unique), {"null": None, "set": 1}), alone)
        self.write(store, Update(Key(unique), {"x": 1}, When(differs={"set": None})), alone)
        self.refused(store, Update(Key(unique), {"x": 2}, When(differs={"null": None})), alone)
        self.refused(store, Update(Key(unique), {"x": 2}, When(differs={"absent": None})), alone)

    def test_a_boolean_is_not_a_number(self, store: MetaStore, unique: str, alone: bool) -> None:
        self.write(store, Put(Key(unique), {"a": True}), alone)
        self.refused(store, Update(Key(unique), {"x": 1}, When(equals={"a": 1})), alone)

    def test_mappings_and_lists_compare_whole(self, store: MetaStore, unique: str, alone: bool) -> None:
        value = {"list": [1, {"b": b"x"}], "t": "x"}
        self.write(store, Put(Key(unique), {"a": value}), alone)
        self.write(store, Update(Key(unique), {"x": 1}, When(equals={"a": value})), alone)
        self.refused(store, Update(Key(unique), {"x": 1}, When(equals={"a": {"t": "x"}})), alone)

    def test_a_delete_removes_the_row_once(self, store: MetaStore, unique: str, alone: bool) -> None:
        self.write(store, Put(Key(unique), {"a": 1}), alone)
        self.write(store, Delete(Key(unique), When(equals={"a": 1})), alone)
        assert store.get(Key(unique)) is None
        self.refused(store, Delete(Key(unique)), alone)

    def test_a_check_holds_or_refuses(self, store: MetaStore, unique: str, alone: bool) -> None:
        self.write(store, Check(Key(unique), ABSENT), alone)
        self.refused(store, Check(Key(unique), PRESENT), alone)


def test_all_writes_of_a_transaction_take_effect_or_none(store: MetaStore, unique: str) -> None:
    a, b, c = (Key(unique, s) for s in "abc")
    store.transact([Put(b, {"v": 1})])
    with pytest.raises(ConditionFailedError) as caught:
        store.transact([Put(a, {}), Put(b, {}), Put(c, {}), Update(Key(unique, "d"), {"x": 1})])
    assert caught.value.failed == (1, 3)
    assert [r["sk"] for r in store.query(unique)] == ["b"]


def test_a_transaction_takes_a_hundred_writes_and_no_more(store: MetaStore, unique: str) -> None:
    store.transact([Put(Key(unique, f"{i:03d}"), {}) for i in range(100)])
    with pytest.raises(InvalidInputError, match="transaction_writes"):
        store.transact([Put(Key(unique, f"x{i:03d}"), {}) for i in range(101)])
    assert len(store.query(unique)) == 100


def test_a_transaction_of_nothing_does_nothing(store: MetaStore) -> None:
    store.transact([])


def test_a_transaction_writes_each_row_once(store: MetaStore, unique: str) -> None:
    with pytest.raises(ValueError, match="once"):
        store.transact([Put(Key(unique), {}), Update(Key(unique), {"a": 1})])


def test_a_row_cannot_be_written_under_another_rows_key(store: MetaStore, unique: str) -> None:
    with pytest.raises(ValueError, match="another row's key"):
        store.transact([Put(Key(unique), {"pk": "other"})])


def test_a_row_over_400_kb_is_refused_and_its_largest_attribute_named(store: MetaStore, unique: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        store.transact([Put(Key(unique), {"small": 1, "frozen": "x" * 410_000})])
    assert (caught.value.problems[0].field, caught.value.problems[0].rule) == ("frozen", "row_size")


def test_a_transaction_over_4_mb_is_refused(store: MetaStore, unique: str) -> None:
    with pytest.raises(InvalidInputError, match="transaction_size"):
        store.transact([Put(Key(unique, str(i)), {"x": b"x" * 400_000}) for i in range(11)])


def test_of_sixteen_concurrent_swaps_exactly_one_wins(store: MetaStore, unique: str) -> None:
    store.transact([Put(Key(unique), {"rev": 1})])
    won: list[int] = []
    barrier = threading.Barrier(16)

    def swap(i: int) -> None:
        barrier.wait()
        try:
            store.transact([Update(Key(unique), {"rev": 2, "by": i}, When(equals={"rev": 1})), Put(Key(unique, f"by-{i}"), {})])
        except ConditionFailedError:
            return
        won.append(i)

    threads = [threading.Thread(target=swap, args=(i,)) for i in range(16)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(won) == 1
    assert [r["sk"] for r in store.query(unique, prefix="by-")] == [f"by-{won[0]}"]


class Wire:
    """Stands between the adapter and the emulator: loses answers, or answers in the service's place."""

    def __init__(self, client: Any, operation: str) -> None:
        self.plan: list[str | tuple[str, list[str]]] = []
        self.requests: list[bytes] = []
        client.meta.events.register(f"before-send.dynamodb.{operation}", self)

    def __call__(self, request: Any, **_: Any) -> AWSResponse | None:
        self.requests.append(request.body)
        step = self.plan.pop(0) if self.plan else "pass"
        if step == "lose answer":
            URLLib3Session().send(request)
            raise ConnectionClosedError(endpoint_url=request.url)
        if step == "lose request":
            raise ConnectionClosedError(endpoint_url=request.url)
        if isinstance(step, tuple):
            return _refusal(request.url, *step)
        return None


def _refusal(url: str, code: str, reasons: list[str]) -> AWSResponse:
    import json
    from io import BytesIO

    body = json.dumps({"__type": f"x#{code}", "message": "injected", "CancellationReasons": [{"Code": r} for r in reasons]}).encode()

    class Raw(BytesIO):
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield self.read()

    return AWSResponse(url, 400, {"x-amzn-RequestId": "injected"}, Raw(body))


@pytest.fixture
def wired(client_of: Callable[..., Any], table: str, request: pytest.FixtureRequest) -> tuple[DynamoMetaStore, Wire]:
    client = client_of("dynamodb")
    return DynamoMetaStore(client, table), Wire(client, request.param)


@pytest.mark.parametrize("wired", ["TransactWriteItems"], indirect=True)
class TestLostAnswersOfTransactions:
    def test_a_lost_answer_is_asked_again_with_the_same_token(self, wired: tuple[DynamoMetaStore, Wire], unique: str) -> None:
        store, wire = wired
        wire.plan = ["lose answer"]
        store.transact([Put(Key(unique, "a"), {}), Put(Key(unique, "b"), {})])
        assert len(wire.requests) == 2
        assert len(store.query(unique)) == 2

    def test_no_answer_at_all_is_an_unknown_outcome(self, wired: tuple[DynamoMetaStore, Wire], unique: str) -> None:
        store, wire = wired
        wire.plan = ["lose request"] * 10
        with pytest.raises(UnavailableError):
            store.transact([Put(Key(unique, "a"), {}), Put(Key(unique, "b"), {})])

    def test_a_conflict_with_another_transaction_is_tried_again(self, wired: tuple[DynamoMetaStore, Wire], unique: str) -> None:
        store, wire = wired
        wire.plan = [
            ("TransactionCanceledException", ["TransactionConflict", "None"]),
            ("TransactionInProgressException", []),
        ]
        store.transact([Put(Key(unique, "a"), {}), Put(Key(unique, "b"), {})])
        assert len(wire.requests) == 3
        assert len({r[r.index(b"ClientRequestToken") :][:60] for r in wire.requests}) == 1

    def test_conflicts_without_end_are_a_refusal_that_wrote_nothing(
        self, wired: tuple[DynamoMetaStore, Wire], unique: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("attestry.aws.meta_store._LONGEST_PAUSE", 0.001)
        store, wire = wired
        wire.plan = [("TransactionCanceledException", ["None", "TransactionConflict"])] * 20
        with pytest.raises(ConditionFailedError, match="in the way") as caught:
            store.transact([Put(Key(unique, "a"), {}), Put(Key(unique, "b"), {})])
        assert caught.value.failed == ()
        assert store.query(unique) == []


@pytest.mark.parametrize("wired", ["PutItem"], indirect=True)
def test_a_lone_write_whose_answer_was_lost_has_an_unknown_outcome(wired: tuple[DynamoMetaStore, Wire], unique: str) -> None:
    store, wire = wired
    wire.plan = ["lose answer"]
    with pytest.raises(UnavailableError, match="unknown"):
        store.transact([Put(Key(unique), {"a": 1})])
    assert store.get(Key(unique)) is not None
