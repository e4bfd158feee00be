"""Counts what an AWS session does: requests sent by operation, and the capacity that DynamoDB says it took.

It listens to botocore's events, below the adapters, so what they retry or page is counted as often as it goes over the network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3

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
        for operation in sorted(_READS | _WRITES):
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

    def _ask_for_capacity(self, params: dict[str, Any], **_: Any) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def _sent(self, event_name: str, **_: Any) -> None:
        if self._count is not None:
            self._count.requests[event_name.removeprefix("before-send.")] += 1

    def _answered(self, parsed: Mapping[str, Any], event_name: str, **_: Any) -> None:
        consumed = parsed.get("ConsumedCapacity") or []
        units = sum(float(c["CapacityUnits"]) for c in (consumed if isinstance(consumed, list) else [consumed]))
        if self._count is None:
            return
        if event_name.rpartition(".")[2] in _READS:
            self._count.read_units += units
        else:
            self._count.write_units += units
