"""Send a run from its folder (`attestry.sdk.runs`) to the registry; what is there already is not sent again.

    pusher = RunPusher(folder)
    pusher.push(client)              # start, points, parameters, tags, files; and the end, where the run has ended

Rules:
- The folder is the truth, and nothing in it changes: how far the registry has come is asked of the registry, which counts the points.
  So whoever was cut off, and whichever answer was lost, the next push goes on from there, on another machine too.
- Each batch says how many points the run has before it. Of two who push one folder at once, one is refused and asks again.
- A line that was not finished, since its writer was killed, is no point.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attestry.domain.errors import AttestryError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from attestry.client.routes.runs import RunRoutes

BATCH_POINTS: Final = 1000
BATCH_BYTES: Final = 60_000
MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
CONFLICT_TRIES: Final = 5
_MAX_TEXT = 250
_MAX_ERROR = 2000
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_CONFLICT = "conflict"


@dataclass(frozen=True)
class Pushed:
    """What became of a push.

    Attributes:
        run: the run's ID.
        state: its state in the registry.
        points: its points in the registry.
        sent: how many of them this push has sent.
    """

    run: str
    state: str
    points: int
    sent: int


class RunPusher:
    """Sends one run; keeps its place in the file of points and what it has told, so that neither is sent again.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._points, self._offset = 0, 0
        self._told: dict[str, Any] | None = None
        self._shown = Pushed(folder.name, "", 0, 0)

    def push(self, client: RunRoutes, *, failed: str = "") -> Pushed:
        """Send what the registry does not have yet.

        Args:
            client: the registry.
            failed: why the run failed, of one whose process was killed; it is ended so.

        Raises:
            NotFoundError: there is no run in the folder.
            InvalidInputError: it is none that was written by this package, or the registry refuses what it says.
            ApiError, UnavailableError: see `attestry.client.connection.Connection.call`; push again.
        """
        # In this order: a run whose record says that it has ended says nothing more elsewhere.
        record, said = _read(self.folder / "record.json"), _read(self.folder / "run.json")
        if self._told is None:
            there = self._start(client, record)
            if there["state"] != "RUNNING":
                return Pushed(str(there["run"]), str(there["state"]), int(there["points"]), 0)
        sent = self._send_points(client, str(record["id"]))
        changes = {"parameters": said["params"], "tags": said["tags"], "files": record["files"]}
        if record["state"] != "RUNNING":
            changes |= {"state": record["state"], "error": str(record["error"])[:_MAX_ERROR], "ended": record["ended"]}
        elif failed:
            changes |= {"state": "FAILED", "error": failed[:_MAX_ERROR]}
        if changes != self._told:
            self._shown = Pushed(str(record["id"]), str(client.change_run(str(record["id"]), **changes)["state"]), self._points, sent)
            self._told = changes
        return replace(self._shown, points=self._points, sent=sent)

    def _start(self, client: RunRoutes, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Start the run in the registry, or learn how far it has come; what may be added to is sent apart, so each start is the same."""
        environment = {**record["environment"], "platform": str(record["environment"]["platform"])[:_MAX_TEXT]}
        source = {**record["code"], "script": str(record["code"].get("script") or "")[:_MAX_TEXT]}
        there: Mapping[str, Any] = client.start_run(
            str(record["id"]), str(record["experiment"]), begun=record["begun"], environment=environment, source=source
        )
        self._skip_to(int(there["points"]))
        return there

    def _send_points(self, client: RunRoutes, run: str) -> int:
        sent, tries = 0, 0
        while batch := self._next_batch():
            points, end = batch
            try:
                answer = client.log_points(run, _batch_id(run, self._points, points), points, first=self._points)
            except AttestryError as error:
                tries += 1
                if error.code != _CONFLICT or tries == CONFLICT_TRIES:
                    raise
                self._skip_to(int(client.run(run)["points"]))
                continue
            self._points, self._offset, sent = int(answer["points"]), end, sent + len(points)
        return sent

    def _skip_to(self, points: int) -> None:
        """Go on behind the points that the registry has."""
        if points < self._points:
            self._points, self._offset = 0, 0
        for line, end in self._lines():
            if self._points == points:
                return
            del line
            self._points, self._offset = self._points + 1, end
        if self._points != points:
            raise InvalidInputError.of("metrics", "known", f"the registry has {points} points of the run, the folder only {self._points}")

    def _next_batch(self) -> tuple[list[dict[str, Any]], int] | None:
        points, size, end = list[dict[str, Any]](), 0, self._offset
        for line, behind in self._lines():
            if len(points) == BATCH_POINTS or (points and size + len(line) > BATCH_BYTES):
                break
            points.append(_point(line))
            size, end = size + len(line), behind
        return (points, end) if points else None

    def _lines(self) -> Iterator[tuple[bytes, int]]:
        """Yield the finished lines that come next, each with the place behind it."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._offset)
            place = self._offset
            for line in file:
                if not line.endswith(b"\n"):
                    return
                place += len(line)
                yield line, place


def _point(line: bytes) -> dict[str, Any]:
    try:
        point = json.loads(line)
        value = point["value"]
        return {"name": point["name"], "value": _NOT_FINITE.get(value, value), "step": point["step"], "at": point["at"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError.of("metrics", "line", f"{line[:80]!r} is no point of a metric") from error


def _batch_id(run: str, first: int, points: list[dict[str, Any]]) -> str:
    """Return an ID that the same points in the same place of the same run have again, and no others."""
    return hashlib.sha256(json.dumps([run, first, points]).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise NotFoundError(f"there is no {path}; a run is a folder that attestry.start_run has made")
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise InvalidInputError.of(path.name, "max_bytes", f"it has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInputError.of(path.name, "json", f"it is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInputError.of(path.name, "type", "it is no JSON object")
    return document
