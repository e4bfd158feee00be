"""Canary counts: what was seen of a canary, read from rows that are written anyway.

Rules:
- A failure is a row of its own, in the transaction of the receipt that the deployed version's answer has. Where nothing fails, nothing is
  written or read for it.
- How many predictions a canary made follows from its receipts, whose numbers under a key have no gaps; how long they took stands in them.
- Rows of failures expire after a day. Only those since the step began count.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from attestry.domain.events import timestamp
from attestry.domain.rollout import Counts, percentile_95
from attestry.domain.stages import Standing
from attestry.domain.version import Version
from attestry.ports import Key, MetaStore, Put

KEPT_SECONDS: Final = 86_400
MAX_FAILURES: Final = 1000
MAX_TIMED: Final = 1000
"""Rows that are read of one step; more failures than that are more than enough, and so are more times for a percentile."""

PAGE: Final = 200


def failures_partition(model: str, number: int) -> str:
    """Return the partition of a version's failures as a canary."""
    return f"CANARY#{model}#{number}"


def failure_put(version: Version, why: str, at: datetime) -> Put:
    """Return the write that counts a failure of a canary."""
    key = Key(failures_partition(version.model, version.number), f"F#{timestamp(at)}#{secrets.token_hex(4)}")
    return Put(key, {"why": why[:500], "at": timestamp(at), "expires": int(at.timestamp()) + KEPT_SECONDS})


def count_canary(meta: MetaStore, model: str, environment: str, place: Mapping[str, Any]) -> Counts:
    """Return what was seen of a canary since its step began; alarms are not looked at here.

    Args:
        meta: the table.
        model: the model's name.
        environment: where it stands.
        place: what the pointer says of it.
    """
    since, number = str(place["since"]), int(place["number"])
    failed = meta.query(failures_partition(model, number), after=f"F#{since}", limit=MAX_FAILURES)
    answered, timed = 0, list[int]()
    for row in meta.list_collection(f"VERSION_KEYS#{model}#{number}"):
        if row.get("standing") == Standing.CANARY and row.get("environment") == environment:
            more, times = _count_key(meta, str(row["kid"]), since, MAX_TIMED - len(timed))
            answered += more
            timed += times
    return Counts(answered, len(failed), percentile_95(timed))


def _count_key(meta: MetaStore, kid: str, since: str, room: int) -> tuple[int, list[int]]:
    """Return how many receipts a key made since a time, and how long as many of the latest as there is room for took."""
    latest = meta.query(f"KEY#{kid}", prefix="R#", newest_first=True, limit=PAGE)
    if not latest or str(latest[0]["at"]) < since:
        return 0, []
    first = _first_since(meta, kid, since, _sequence(latest[-1]) if str(latest[-1]["at"]) < since else 0, _sequence(latest[0]))
    times = [int(row["took_ms"]) for row in latest if "took_ms" in row and str(row["at"]) >= since]
    return _sequence(latest[0]) - first + 1, times[:room]


def _first_since(meta: MetaStore, kid: str, since: str, before: int, after: int) -> int:
    """Return the number of the first receipt that was made since a time, by halving; `before` was made earlier, `after` was not."""
    while after - before > 1:
        middle = (before + after) // 2
        row = meta.get(Key(f"KEY#{kid}", f"R#{middle:012d}"))
        if row is not None and str(row["at"]) >= since:
            after = middle
        else:
            before = middle
    return after


def _sequence(row: Mapping[str, Any]) -> int:
    return int(str(row["sk"]).removeprefix("R#"))
