"""Counts what ports in memory would be charged for on AWS, as the adapters translate their calls.

Units of DynamoDB follow the Developer Guide ("read and write capacity units"): a strongly consistent read costs a unit for 4 KB of a row,
or of all rows of a query; a write one for 1 KB of the row before or after, whichever is larger, twice in a transaction, and once more for
a row of the index. Everything is counted below the use cases, so no use case is told that it is watched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from attestry.aws.rows import row_bytes
from attestry.ports import Check, Write

READ_STEP, WRITE_STEP = 4096, 1024


class Meter:
    """What was used so far, by the names of `benchmarks.prices.PRICES`; bytes as `row_bytes` and `object_bytes`."""

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()

    @contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """Count what is used inside."""
        found: Counter[str] = Counter()
        before = Counter(self.used)
        yield found
        found.update(self.used)
        found.subtract(before)

    def watch_table(self, table: Any) -> None:
        """Meter a table in memory (`tests.fakes.MemoryMetaStore`)."""
        self._around(table, "get", lambda _, row: self._read([row] if row else []))
        self._around(table, "get_many", lambda keys, rows: self._read_each(len(dict.fromkeys(keys[0])), rows))
        self._around(table, "query", lambda _, rows: self._read(rows))
        self._around(table, "list_collection", lambda _, rows: self._read(rows))
        transact = table.transact

        def write(writes: Sequence[Write]) -> None:
            before = {w.key: _size(table.rows.get(w.key)) for w in writes}
            transact(writes)
            self._written(table, writes, before)

        table.transact = write

    def watch_store(self, store: Any) -> None:
        """Meter a bucket in memory (`tests.fakes.MemoryObjectStore`)."""
        put_new = store.put_new

        def put(key: str, body: Any, **named: Any) -> Any:
            there = store._latest(key) is not None
            stored = put_new(key, body, **named)
            # One that is there already is looked at: of which bytes it is.
            self.used.update({"puts": 1, "gets": 1} if there else {"puts": 1, "object_bytes": stored.size})
            return stored

        store.put_new = put
        self._around(store, "put", lambda given, _: self.used.update({"puts": 1, "object_bytes": len(given[1])}))
        self._around(store, "list_versions", lambda *_: self.used.update(puts=1))
        for name in ("open", "read", "stat"):
            self._around(store, name, lambda *_: self.used.update(gets=1))

    def watch_signer(self, signer: Any) -> None:
        """Meter a signer in memory."""
        for name in ("sign_es256", "sign_ed25519"):
            if hasattr(signer, name):
                self._around(signer, name, lambda *_: self.used.update(signatures=1))

    def watch_functions(self, functions: Any) -> None:
        """Meter calls of other functions; what those do is metered where it happens."""
        for name in ("call", "send"):
            self._around(functions, name, lambda *_: self.used.update(invocations=1))

    @staticmethod
    def _around(port: Any, name: str, tell: Callable[[tuple[Any, ...], Any], None]) -> None:
        act = getattr(port, name)

        def around(*arguments: Any, **named: Any) -> Any:
            answer = act(*arguments, **named)
            tell(arguments, answer)
            return answer

        setattr(port, name, around)

    def _read(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.used["read_units"] += _steps(sum(row_bytes(row) for row in rows), READ_STEP)

    def _read_each(self, asked: int, rows: Mapping[Any, Mapping[str, Any]]) -> None:
        found = [_steps(row_bytes(row), READ_STEP) for row in rows.values()]
        self.used["read_units"] += sum(found) + asked - len(found)

    def _written(self, table: Any, writes: Sequence[Write], before: Mapping[Any, int]) -> None:
        times = 2 if len(writes) > 1 or isinstance(writes[0], Check) else 1
        for write in writes:
            row = table.rows.get(write.key)
            self.used["write_units"] += times * _steps(max(before[write.key], _size(row)), WRITE_STEP)
            if row and "gsi_pk" in row and not isinstance(write, Check):
                self.used["write_units"] += _steps(_size(row), WRITE_STEP)
            self.used["row_bytes"] += _size(row) - before[write.key]


def _size(row: Mapping[str, Any] | None) -> int:
    return row_bytes(row) if row else 0


def _steps(size: int, step: int) -> int:
    return max(1, -(-size // step))
