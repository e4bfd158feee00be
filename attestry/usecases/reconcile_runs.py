"""Reconcile development runs: their rows with the events of their starts and ends.

Rules:
- The start's event has the digest of what never changes of a run, the end's that of all that was logged, its points batch by batch. Of a
  run that goes on the points are compared with what its head says of them, which no event bears out yet.
- Runs are found by their entries in the lane of all; one that has left it, and one whose head is gone, are found where the ledger is
  examined. A row below a run that the registry does not write is found with it; a run that was planted without an entry leads nowhere.
- Each run has one finding at most: what is wrong first says where to look. They are examined by the hour in which they were begun.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attestry.domain.run_points import chain, points_of
from attestry.domain.runs import Run, RunState, Start
from attestry.evidence.digests import sha256_hex
from attestry.evidence.leaf import event_id, parse_event
from attestry.ports import Item, Key, MetaStore
from attestry.usecases.each_row import each_row
from attestry.usecases.findings import Observed
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.records import OUTBOX
from attestry.usecases.run_rows import (
    ENDED,
    LANES,
    METRICS,
    STARTED,
    batch_key,
    ended_data,
    environment_key,
    lane_items,
    points_key,
    run_key,
    started_data,
    subject_of,
)

CHANGED: Final = "development_run.changed"
WITHOUT_EVENT: Final = "development_run.without_event"
SET_BACK: Final = "development_run.set_back"
GONE: Final = "development_run.gone"
UNLISTED: Final = "development_run.unlisted"
_HOUR: Final = len("2026-01-31T12")
_ROWS: Final = 50

Event = Mapping[str, Any]


class RunExaminer:
    """Examines development runs.

    Args:
        meta: the table.
        ledger: what the ledger says.
    """

    def __init__(self, meta: MetaStore, ledger: LedgerBytes) -> None:
        self._meta = meta
        self._ledger = ledger

    def hours(self, after: str) -> Iterator[str]:
        """Yield the hours in which runs were started, `2026-01-31T12`, those behind one; each costs one read."""
        place = f"{after}~" if after else None
        while rows := self._meta.list_collection(LANES, after=place, limit=1):
            hour = str(rows[0]["gsi_sk"])[:_HOUR]
            yield hour
            place = f"{hour}~"

    def examine(self, hour: str) -> list[Observed]:
        """Return what is not as the registry left it, of the runs that were started in an hour.

        Raises:
            UnavailableError: a service did not answer.
        """
        observed: list[Observed] = []
        for entry in each_row(self._meta, LANES, after=hour):
            if str(entry["gsi_sk"])[:_HOUR] != hour:
                break
            observed += self._run(entry)
        return observed

    def _run(self, entry: Item) -> list[Observed]:
        name = str(entry["run"])
        row = self._meta.get(run_key(name))
        started = self._event(STARTED, name, row, 0)
        if row is None and started is not None:
            return []  # found where the ledger is examined
        if row is None or started is None:
            return [Observed(WITHOUT_EVENT, _where(run_key(name)), f"an event of {subject_of(name)}", "none")]
        run, ended = Run.from_item(row), self._event(ENDED, name, row, 1)
        if run.state is RunState.RUNNING and ended is not None:
            return [Observed(SET_BACK, _where(run_key(name)), str(ended["data"]["state"]), run.state.value)]
        if run.state is not RunState.RUNNING and ended is None:
            return [Observed(WITHOUT_EVENT, _where(run_key(name)), f"an event of the end of {subject_of(name)}", "none")]
        problem = self._start_problem(run, started) or _end_problem(run, ended) or self._row_problem(run)
        return [problem] if problem else []

    def _event(self, kind: str, name: str, row: Item | None, index: int) -> Event | None:
        """Return an event of a run: as the ledger has it, or as it waits for the ledger where the head says."""
        id_ = event_id(kind, subject_of(name), 1)
        marks = list((row or {}).get("changed") or ())[index : index + 1]
        waiting = self._meta.get(Key(OUTBOX, str(marks[0]))) if marks else None
        leaf = self._ledger.find([id_]).get(id_)
        if leaf is not None:
            return leaf.event
        event = parse_event(waiting["event"]) if waiting is not None else None
        return event if event is not None and event["id"] == id_ else None

    def _start_problem(self, run: Run, event: Event) -> Observed | None:
        kept = self._meta.get(environment_key(run.run)) or {}
        start = Start(run.run, run.experiment, run.begun, environment=kept.get("environment") or {}, source=run.source)
        by = event["principal"]
        told = {**event["data"], "at": event["at"], "login": by["login"], "person": by["person"] or ""}
        given = {**started_data(run), "at": run.created, "login": run.login, "person": run.person}
        if told != given or run.start != start.digest:
            return Observed(CHANGED, _where(run_key(run.run)), str(told), str(given if told != given else "another start"))
        return None

    def _row_problem(self, run: Run) -> Observed | None:
        """Compare points and entries: every row below the run is one that the run accounts for."""
        lanes, batches = lane_items(run), dict[str, Item]()
        chained, points, last, number = "", 0, dict[str, Any](), 0
        seen = set[Key]()
        for row in self._rows(run.run):
            key = Key(str(row["pk"]), str(row["sk"]))
            seen.add(key)
            if key.sort.startswith("BATCH#"):
                batches[key.sort] = row
            elif key.sort.startswith(METRICS):
                number += 1
                problem = _batch_problem(run, key, number, row, batches)
                if problem:
                    return problem
                text = str(row["points"])
                chained = chain(chained, str(row["batch"]), sha256_hex(text.encode()))
                told = points_of(text)
                points, last = points + len(told), {**last, **{p.name: {"value": p.value, "step": p.step, "at": p.at} for p in told}}
            elif key in lanes:
                if {name: row.get(name) for name in lanes[key]} != lanes[key]:
                    return Observed(CHANGED, _where(key), str(lanes[key]), "another entry")
            elif key not in (run_key(run.run), environment_key(run.run)):
                return Observed(WITHOUT_EVENT, _where(key), "rows as the registry writes them", "a row of another kind")
        if missing := [key for key in (*lanes, environment_key(run.run)) if key not in seen]:
            return Observed(CHANGED, _where(missing[0]), "a row of the run", "nothing")
        given = (run.metrics, run.points, run.batches, {name: dict(one) for name, one in run.last.items()})
        if given != (chained, points, number, last) or len(batches) != number:
            return Observed(
                CHANGED, _where(run_key(run.run)), f"{run.batches} batches with the digest {run.metrics}", f"{number}: {chained}"
            )
        return None

    def _rows(self, run: str) -> Iterator[Item]:
        after: str | None = None
        while rows := self._meta.query(run_key(run).partition, after=after, limit=_ROWS):
            yield from rows
            after = str(rows[-1]["sk"])


def _end_problem(run: Run, event: Event | None) -> Observed | None:
    if event is None:
        return None
    told, given = {**event["data"], "at": event["at"]}, {**ended_data(run), "at": run.closed}
    return None if told == given else Observed(CHANGED, _where(run_key(run.run)), str(told), str(given))


def _batch_problem(run: Run, key: Key, number: int, row: Item, batches: Mapping[str, Item]) -> Observed | None:
    """Compare a batch with its place, its number, and the row that knows it by its ID."""
    text, told = str(row["points"]), batches.get(batch_key(run.run, str(row["batch"])).sort) or {}
    expected = (points_key(run.run, number).sort, number, sha256_hex(text.encode()), int(row["count"]))
    given = (key.sort, told.get("number"), told.get("sha256"), told.get("count"))
    return None if given == expected else Observed(CHANGED, _where(key), str(expected), str(given))


def _where(key: Key) -> str:
    return f"{key.partition}/{key.sort}"
