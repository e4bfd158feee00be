"""Counts what an AWS session does: requests sent by operation, and DynamoDB capacity.

It listens to botocore's events, below the adapters, so what they retry or page is counted as often as it goes over the network.
Write units are what DynamoDB answers to ReturnConsumedCapacity. Read units are computed from the rows that were answered, by the rule of
the Developer Guide ("read and write capacity units": 4 KB steps, half for reads that may be stale), because the emulator answers one
unit whatever the size. A row that is read in part is charged whole, so such a read is made once more, without its projection. Both are
done when the counting has ended, so that they are no part of a time that was taken meanwhile.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import boto3

from attestry.aws.rows import row_bytes, unmarshal_row

_READ_STEP = 4096
_READS = frozenset({"GetItem", "BatchGetItem", "Query", "TransactGetItems"})
_METHODS = {"GetItem": "get_item", "BatchGetItem": "batch_get_item", "Query": "query", "TransactGetItems": "transact_get_items"}
_WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems", "BatchWriteItem"})


@dataclass
class Count:
    """What was counted.

    Attributes:
        requests: number of requests by `service.Operation`.
        read_units: read capacity units.
        write_units: write capacity units, those of indexes included.
    """

    requests: Counter[str] = field(default_factory=Counter)
    read_units: float = 0.0
    write_units: float = 0.0

    @property
    def round_trips(self) -> int:
        """Number of requests."""
        return self.requests.total()

    def of(self, service: str) -> int:
        """Return the number of requests to a service."""
        return sum(number for name, number in self.requests.items() if name.startswith(f"{service}."))

    def to_dict(self) -> dict[str, Any]:
        """Return the count as JSON."""
        return {
            "round_trips": self.round_trips,
            "requests": dict(sorted(self.requests.items())),
            "read_units": self.read_units,
            "write_units": self.write_units,
        }


@dataclass(frozen=True)
class _Read:
    """A read.

    Attributes:
        operation: of DynamoDB.
        share: of a unit that a step costs.
        asked: its parameters.
        answer: what was answered.
    """

    operation: str
    share: float
    asked: Mapping[str, Any]
    answer: Mapping[str, Any]


class CountingSession:
    """A session whose clients are listened to.

    Attributes:
        session: the session, to make clients of.
    """

    def __init__(self, session: boto3.Session) -> None:
        self.session = session
        self._count: Count | None = None
        self._reads: list[_Read] = []
        events = session.events
        # The same parameter goes into every try: a transaction that is retried with other parameters is another one to DynamoDB.
        for operation in (*_READS, *_WRITES):
            events.register(f"before-parameter-build.dynamodb.{operation}", self._ask_for_capacity)
        events.register("before-send", self._sent)
        events.register("after-call.dynamodb", self._answered)

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Count what is done inside; not to be nested."""
        count, reads = Count(), list[_Read]()
        self._count, self._reads = count, reads
        try:
            yield count
        finally:
            self._count = None
            count.read_units = sum(read.share * _read_steps(self._whole(read)) for read in reads)

    def _ask_for_capacity(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"
        tables = params.get("RequestItems", {}).values()
        consistent = params.get("ConsistentRead") or any(isinstance(t, Mapping) and t.get("ConsistentRead") for t in tables)
        context["attestry_share"] = 1.0 if consistent else 0.5
        context["attestry_asked"] = params

    def _whole(self, read: _Read) -> Mapping[str, Any]:
        """Return what a read is charged for."""
        asked = _without_projection(read.asked)
        if asked == read.asked:
            return read.answer
        whole: Mapping[str, Any] = getattr(self._tables, _METHODS[read.operation])(**asked)
        return whole

    @cached_property
    def _tables(self) -> Any:
        return self.session.client("dynamodb")

    def _sent(self, event_name: str, **_: Any) -> None:
        if self._count is not None:
            self._count.requests[event_name.removeprefix("before-send.")] += 1

    def _answered(self, parsed: Mapping[str, Any], event_name: str, context: Mapping[str, Any], **_: Any) -> None:
        if self._count is None or "Error" in parsed:
            return
        operation = event_name.rpartition(".")[2]
        if operation in _READS:
            self._reads.append(_Read(operation, context["attestry_share"], context["attestry_asked"], parsed))
        else:
            consumed = parsed.get("ConsumedCapacity") or []
            self._count.write_units += sum(float(c["CapacityUnits"]) for c in (consumed if isinstance(consumed, list) else [consumed]))


def _without_projection(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a read of whole rows; a name that is declared and not used is refused."""
    if "RequestItems" in asked:
        return {**asked, "RequestItems": {table: _without_projection(how) for table, how in asked["RequestItems"].items()}}
    if "ProjectionExpression" not in asked:
        return dict(asked)
    whole = {name: value for name, value in asked.items() if name not in ("ProjectionExpression", "ExpressionAttributeNames")}
    used = " ".join(str(asked.get(name, "")) for name in ("KeyConditionExpression", "FilterExpression"))
    names = {name: of for name, of in asked.get("ExpressionAttributeNames", {}).items() if re.search(rf"{name}\b", used)}
    return {**whole, **({"ExpressionAttributeNames": names} if names else {})}


def _read_steps(answer: Mapping[str, Any]) -> int:
    """Return how many steps of 4 KB an answer has: a query's rows together, those of a batch each for itself, and at least one."""
    if "Responses" in answer:
        return sum(_steps([row]) for rows in answer["Responses"].values() for row in rows)
    return _steps(answer["Items"] if "Items" in answer else [answer["Item"]] if "Item" in answer else [])


def _steps(rows: Sequence[Mapping[str, Any]]) -> int:
    return max(1, -(-sum(row_bytes(unmarshal_row(row)) for row in rows) // _READ_STEP))
