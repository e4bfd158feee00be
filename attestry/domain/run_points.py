"""Points of the metrics of a run: how they come, in batches, and how all of them are digested.

    batch = read_batch({"batch": "0f…", "points": [{"name": "loss", "value": 0.5, "step": 3}]})
    after = batch.chained(before)                 # digest of all batches up to this one

Rules:
- A batch has an ID that the client makes, so that one whose answer was lost is sent again and counts once.
- Who sends points from a file may say how many the run has before them, so that two who send the same file cannot both count.
- A value is a number, or one of the texts `NaN`, `Infinity` and `-Infinity`, which JSON has no numbers for: a run that diverges is worth
  knowing. It is kept as the shortest text that reads as the same double.
- Digest: with b the SHA-256 of the JCS form of a batch's points, m(0) = "" and m(n) = SHA-256 over the JCS form of
  {"batch": ID, "before": m(n-1), "points": b}.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import rfc8785

from attestry.domain.errors import ConflictError, InvalidInputError
from attestry.domain.runs import Run, check_entry_name, check_size, check_time

MAX_POINTS: Final = 1000
MAX_BATCH_BYTES: Final = 64 * 1024
MAX_BATCHES: Final = 10_000
"""Of a run: together at most ten million points and 640 MB."""

MAX_STEP: Final = 2**53 - 1
NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_BATCH_ID = re.compile(r"[0-9a-f]{32}")
_POINT = frozenset({"name", "value", "step", "at"})


@dataclass(frozen=True)
class Point:
    """One value of a metric.

    Attributes:
        name: the metric.
        value: a double as text: as Python writes one, or `NaN`, `Infinity`, `-Infinity`.
        step: which step of the run it belongs to, or None.
        at: when, as claimed, RFC 3339; empty where nobody says.
    """

    name: str
    value: str
    step: int | None = None
    at: str = ""

    def to_item(self) -> dict[str, Any]:
        """Return the point as it is kept and digested."""
        return {"name": self.name, "value": self.value, "step": self.step, "at": self.at}

    @property
    def number(self) -> float | str:
        """Return the value as JSON has it: a number, or text where JSON has none."""
        return self.value if self.value in NOT_FINITE else float(self.value)


@dataclass(frozen=True)
class Batch:
    """Points that came together, in the order in which they were logged.

    Attributes:
        id: 32 hex digits, made by the client.
        points: 1 to 1,000.
        data: their JCS form.
        first: how many points the run has to have before these; None where their place does not matter.
    """

    id: str
    points: tuple[Point, ...]
    data: bytes
    first: int | None = None

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the points' JCS form, hex."""
        return hashlib.sha256(self.data).hexdigest()

    def chained(self, before: str) -> str:
        """Return the digest of all batches up to this one."""
        return chain(before, self.id, self.digest)


def chain(before: str, batch: str, points: str) -> str:
    """Return the digest of all batches up to one, see the module.

    Args:
        before: that of the batches before it; empty for the first.
        batch: ID of the batch.
        points: SHA-256 of its points, hex.
    """
    return hashlib.sha256(rfc8785.dumps({"batch": batch, "before": before, "points": points})).hexdigest()


def read_batch(body: Mapping[str, Any]) -> Batch:
    """Return the batch that a body tells of.

    Raises:
        InvalidInputError: naming the field and the rule.
    """
    given, points, first = body.get("batch"), body.get("points"), body.get("first")
    if not isinstance(given, str) or not _BATCH_ID.fullmatch(given):
        raise InvalidInputError.of("batch", "batch_id", "the ID of a batch is 32 hex digits in lower case, made by the client")
    if first is not None and (type(first) is not int or first < 0):
        raise InvalidInputError.of("first", "range", "a number of points from 0 is needed")
    if not isinstance(points, list) or not points:
        raise InvalidInputError.of("points", "required", "a list of points is needed")
    if len(points) > MAX_POINTS:
        raise InvalidInputError.of("points", "max_items", f"a batch has at most {MAX_POINTS} points; {len(points)} are too many")
    read = tuple(_read_point(f"points[{index}]", point) for index, point in enumerate(points))
    data = rfc8785.dumps([point.to_item() for point in read])
    if len(data) > MAX_BATCH_BYTES:
        raise InvalidInputError.of("points", "max_bytes", f"a batch takes at most {MAX_BATCH_BYTES} bytes; this one takes {len(data)}")
    return Batch(given, read, data, first)


def points_of(text: str) -> list[Point]:
    """Return the points that a row keeps."""
    return [Point(**item) for item in json.loads(text)]


def logged(run: Run, batch: Batch) -> dict[str, Any]:
    """Return what changes of a run with a batch: attribute to value.

    Raises:
        ConflictError: the run has ended, or it has not as many points as the batch expects.
        InvalidInputError: it would have too many metrics or batches.
    """
    run.require_running()
    if batch.first not in (None, run.points):
        message = f"run {run.run} has {run.points} points, not {batch.first}: somebody else sends points of it"
        raise ConflictError(message, details={"points": run.points})
    if run.batches >= MAX_BATCHES:
        raise InvalidInputError.of("batch", "max_batches", f"a run has at most {MAX_BATCHES} batches of points; send larger ones")
    last = {**run.last, **{p.name: {"value": p.value, "step": p.step, "at": p.at} for p in batch.points}}
    check_size("points", dict.fromkeys(last, ""))
    return {
        "last": last,
        "points": run.points + len(batch.points),
        "batches": run.batches + 1,
        "metrics": batch.chained(run.metrics),
        "rev": run.rev + 1,
    }


def value_text(what: str, value: Any) -> str:
    """Return a value as it is kept.

    Raises:
        InvalidInputError: it is neither a number nor one of the texts for what JSON has no number for.
    """
    if isinstance(value, str) and value in NOT_FINITE:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInputError.of(what, "number", f"a number is needed, or one of the texts {', '.join(NOT_FINITE)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidInputError.of(what, "range", "the number is beyond the range of a double")
    return repr(number)


def _read_point(where: str, point: Any) -> Point:
    if not isinstance(point, Mapping) or not {"name", "value"} <= set(point) <= _POINT:
        raise InvalidInputError.of(where, "type", "a point has `name` and `value`, and may have `step` and `at`")
    step, at = point.get("step"), point.get("at")
    if step is not None and (type(step) is not int or not -MAX_STEP <= step <= MAX_STEP):
        raise InvalidInputError.of(f"{where}.step", "range", "a step is a whole number of at most 53 bits")
    name = check_entry_name(f"{where}.name", point["name"])
    return Point(name, value_text(f"{where}.value", point["value"]), step, "" if at is None else check_time(f"{where}.at", at))
