"""Counts what an AWS session does: requests sent by operation, and DynamoDB capacity.

It listens to botocore's events, below the adapters, so what they retry or page is counted as often as it goes over the network.
Write units are what DynamoDB answers to ReturnConsumedCapacity. Read units are computed from the rows that were answered, by the rule of
the Developer Guide ("read and write capacity units": 4 KB steps, half for reads that may be stale), because the emulator answers one
unit whatever the size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3

from attestry.aws.rows import row_bytes, unmarshal_row

_READ_STEP = 4096
_READS = frozenset({"GetItem", "BatchGetItem", "Query", "TransactGetItems"})
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


class CountingSession:
    """A session whose clients are listened to.

    Attributes:
        session: the session, to make clients of.
    """

    def __init__(self, session: boto3.Session) -> None:
        self.session = session
        self._count: Count | None = None
        events = session.events
        # The same parameter goes into every try: a transaction that is retried with other parameters is another one to DynamoDB.
        for operation in (*_READS, *_WRITES):
            events.register(f"before-parameter-build.dynamodb.{operation}", self._ask_for_capacity)
        events.register("before-send", self._sent)
        events.register("after-call.dynamodb", self._answered)

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Count what is done inside; not to be nested."""
        self._count = count = Count()
        try:
            yield count
        finally:
            self._count = None

    def _ask_for_capacity(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"
        tables = params.get("RequestItems", {}).values()
        consistent = params.get("ConsistentRead") or any(isinstance(t, Mapping) and t.get("ConsistentRead") for t in tables)
        context["attestry_share"] = 1.0 if consistent else 0.5

    def _sent(self, event_name: str, **_: Any) -> None:
        if self._count is not None:
            self._count.requests[event_name.removeprefix("before-send.")] += 1

    def _answered(self, parsed: Mapping[str, Any], event_name: str, context: Mapping[str, Any], **_: Any) -> None:
        if self._count is None or "Error" in parsed:
            return
        if event_name.rpartition(".")[2] in _READS:
            self._count.read_units += context["attestry_share"] * _read_steps(parsed)
        else:
            consumed = parsed.get("ConsumedCapacity") or []
            self._count.write_units += sum(float(c["CapacityUnits"]) for c in (consumed if isinstance(consumed, list) else [consumed]))


def _read_steps(answer: Mapping[str, Any]) -> int:
    """Return how many steps of 4 KB an answer has: a query's rows together, those of a batch each for itself, and at least one."""
    if "Responses" in answer:
        return sum(_steps([row]) for rows in answer["Responses"].values() for row in rows)
    return _steps(answer["Items"] if "Items" in answer else [answer["Item"]] if "Item" in answer else [])


def _steps(rows: Sequence[Mapping[str, Any]]) -> int:
    return max(1, -(-sum(row_bytes(unmarshal_row(row)) for row in rows) // _READ_STEP))
