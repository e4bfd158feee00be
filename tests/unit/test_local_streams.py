"""Records of a stream that are held packed are read, and trimmed, as the emulator's own are."""

from __future__ import annotations

import copy
import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.local.patch_streams import Records
from tests.unit.emulated_tables import TABLE, call, create, patched, plain

KEYS = st.sampled_from(["a", "b"])
CHANGES = st.lists(
    st.tuples(st.sampled_from(["put", "update", "delete", "batch", "transact"]), KEYS, st.sampled_from(["x", "y"])), max_size=12
)
VIEWS = st.sampled_from(["NEW_AND_OLD_IMAGES", "NEW_IMAGE", "OLD_IMAGE", "KEYS_ONLY"])


def change(tables: Any, kind: str, sort_key: str, text: str) -> None:
    key = {"pk": {"S": "p"}, "sk": {"S": sort_key}}
    item = {**key, "text": {"S": text}, "deep": {"M": {"text": {"L": [{"S": text}]}}}}
    update = {"TableName": TABLE, "Key": key, "UpdateExpression": "SET #t = :t", "ExpressionAttributeNames": {"#t": "text"}}
    update["ExpressionAttributeValues"] = {":t": {"S": text}}
    action, request = {
        "put": ("_put_item", {"TableName": TABLE, "Item": item}),
        "update": ("_update_item", update),
        "delete": ("_delete_item", {"TableName": TABLE, "Key": key}),
        "batch": ("_batch_write_item", {"RequestItems": {TABLE: [{"PutRequest": {"Item": item}}]}}),
        "transact": (
            "_transact_write_items",
            {"TransactItems": [{"Update": update}, {"Put": {"TableName": TABLE, "Item": item | {"sk": {"S": "c"}}}}]},
        ),
    }[kind]
    assert call(tables, action, request)[0] == 200


@pytest.fixture
def _same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for tables in (plain(), patched()):
        monkeypatch.setattr(tables, "new_uuid", lambda: "an-id")


@pytest.mark.usefixtures("_same_names")
@given(changes=CHANGES, view=VIEWS)
def test_records_are_those_of_the_emulator(changes: Any, view: str) -> None:
    read = []
    for tables in (plain(), patched()):
        create(tables, stream=True)
        table = tables._tables.get(TABLE)
        table["StreamSpecification"]["StreamViewType"], table["LatestStreamArn"] = view, "arn:stream"
        tables._next_stream_seq = map("{:030d}".format, itertools.count()).__next__
        for one in changes:
            change(tables, *one)
        end = tables.stream_end_position(TABLE)
        found = [tables.stream_records_since(TABLE, start, limit) for start in range(end) for limit in (1, 3)]
        read.append((end, undated(list(tables.stream_live_records(TABLE))), undated(found)))
        assert type(tables._stream_records.get(TABLE, Records())) in (list, Records)
    assert read[0] == read[1]
    assert json.dumps(read[0]) == json.dumps(read[1])  # in the same order, too


def undated(found: Any) -> Any:
    if isinstance(found, list):
        return [undated(one) for one in found]
    return {**found, "dynamodb": {name: value for name, value in found["dynamodb"].items() if name != "ApproximateCreationDateTime"}}


def test_a_record_is_read_as_a_copy() -> None:
    records = Records([record("1")])
    records[0]["dynamodb"]["NewImage"]["text"]["S"] = "changed"
    next(iter(records))["eventID"] = "changed"
    assert records == [record("1")]
    assert copy.deepcopy(records) == records
    assert list(reversed(records)) == [record("1")]


def test_records_expire_by_age_and_positions_stay() -> None:
    tables = patched()
    create(tables, stream=True)
    for sort_key in ("a", "b", "c"):
        change(tables, "put", sort_key, "x")
    records = tables._stream_records.get(TABLE)
    old = [{**one, "dynamodb": {**one["dynamodb"], "ApproximateCreationDateTime": int(time.time()) - 24 * 3600 - 5}} for one in records[:2]]
    tables._stream_records[TABLE] = [*old, records[2]]
    assert (tables.stream_start_position(TABLE), tables.stream_end_position(TABLE)) == (2, 3)
    assert [one["dynamodb"]["Keys"]["sk"]["S"] for one in tables.stream_records_since(TABLE, 0, 10)] == ["c"]
    assert tables.stream_records_since(TABLE, 3, 10) == []


def test_the_images_of_a_record_are_the_bytes_that_the_table_holds_and_held() -> None:
    tables = patched()
    create(tables, stream=True)
    change(tables, "put", "a", "x")
    before = tables._tables.get(TABLE)["items"]["p"].packed("a")
    change(tables, "update", "a", "y")
    after = tables._tables.get(TABLE)["items"]["p"].packed("a")
    inserted, updated = list.__iter__(tables._stream_records.get(TABLE))
    assert (inserted[1], updated[1] is before, updated[2] is after, inserted[2] is before) == (None, True, True, True)
    change(tables, "delete", "a", "")
    assert list.__getitem__(tables._stream_records.get(TABLE), 2)[1] is after


def record(number: str, image: Any = None) -> dict[str, Any]:
    own = {
        "ApproximateCreationDateTime": 5,
        "Keys": {"pk": {"S": "p"}},
        "SequenceNumber": number,
        "SizeBytes": 0,
        "StreamViewType": "NEW_IMAGE",
    }
    told = {"eventVersion": "1.1", "eventSource": "aws:dynamodb", "awsRegion": "us-east-1", "eventSourceARN": "arn:stream"}
    return {"eventID": number, "eventName": "INSERT", **told, "dynamodb": {**own, "NewImage": image or {"text": {"S": "x"}}}}
