"""The rows of development runs.

RUN#<run>/HEAD               what is said of the run (`attestry.domain.runs.Run`), and the time and ID of its events
RUN#<run>/ENVIRONMENT        its environment, which never changes
RUN#<run>/METRICS#<9 digits> a batch of points: their JCS form, numbered in the order in which they came
RUN#<run>/BATCH#<batch>      which number a batch got, by which one that is sent again is known
RUN#<run>/LANE#<which>       the entry of a lane: where it leads

A lane is a list of runs in the order in which the registry was told of them, in the collection `RUNS`, `RUNS#experiment#<experiment>` or
`RUNS#owner#<owner>`. Its entries never change, so that logging, which writes the head again and again, writes nothing to the index.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.errors import NotFoundError
from attestry.domain.events import Event, timestamp
from attestry.domain.run_points import Batch
from attestry.domain.runs import Run, Start, is_run_id
from attestry.domain.search_index import plain
from attestry.ports import ABSENT, Item, Key, MetaStore, Put, Write

STARTED: Final = "run.started"
ENDED: Final = "run.ended"
RUN_KINDS: Final = (STARTED, ENDED)
LANES: Final = "RUNS"
METRICS: Final = "METRICS#"


def run_key(run: str) -> Key:
    """Return the key of a run's head."""
    return Key(f"RUN#{run}")


def environment_key(run: str) -> Key:
    """Return the key of a run's environment."""
    return Key(f"RUN#{run}", "ENVIRONMENT")


def points_key(run: str, number: int) -> Key:
    """Return the key of a batch of points, by its number."""
    return Key(f"RUN#{run}", f"{METRICS}{number:09d}")


def batch_key(run: str, batch: str) -> Key:
    """Return the key of the row that says which number a batch got."""
    return Key(f"RUN#{run}", f"BATCH#{batch}")


def lane_key(run: str, which: str) -> Key:
    """Return the key of a run's entry in a lane: `ALL`, `EXPERIMENT` or `OWNER`."""
    return Key(f"RUN#{run}", f"LANE#{which}")


def subject_of(run: str) -> str:
    """Return the subject of a run's events."""
    return f"run/{run}"


def experiment_lane(experiment: str) -> str:
    """Return the collection of the runs of an experiment."""
    return f"{LANES}#experiment#{plain(experiment)}"


def owner_lane(owner: str) -> str:
    """Return the collection of the runs of an owner, a person or a login."""
    return f"{LANES}#owner#{plain(owner)}"


def place_of(run: Run) -> str:
    """Return the place of a run in every lane."""
    return f"{run.created}#{run.run}"


def mark(event: Event) -> str:
    """Return what the head lists of an event: its time and ID, the sort key under which it waits in the outbox."""
    return f"{timestamp(event.at)}#{event.event_id[:32]}"


def lane_items(run: Run) -> dict[Key, Item]:
    """Return the entries of a run in the lanes."""
    lanes = {"ALL": LANES, "EXPERIMENT": experiment_lane(run.experiment), "OWNER": owner_lane(run.owner)}
    told = {"run": run.run, "experiment": run.experiment}
    return {lane_key(run.run, which): {**told, "gsi_pk": lane, "gsi_sk": place_of(run)} for which, lane in lanes.items()}


def start_writes(run: Run, start: Start, event: Event) -> list[Write]:
    """Return the writes of a run's rows when it starts, without that of its event."""
    head = {**run.to_item(), "changed": [mark(event)]}
    rows: dict[Key, Item] = {run_key(run.run): head, environment_key(run.run): {"environment": dict(start.environment)}, **lane_items(run)}
    return [Put(key, item, ABSENT) for key, item in rows.items()]


def batch_writes(run: str, number: int, batch: Batch) -> list[Write]:
    """Return the writes of a batch of points, without that of the head."""
    points = {"batch": batch.id, "count": len(batch.points), "points": batch.data.decode()}
    told = {"number": number, "sha256": batch.digest, "count": len(batch.points)}
    return [Put(points_key(run, number), points, ABSENT), Put(batch_key(run, batch.id), told, ABSENT)]


def load_run(meta: MetaStore, run: str) -> tuple[Run, Item]:
    """Return a run and the row of its head.

    Raises:
        NotFoundError: there is none.
    """
    row = meta.get(run_key(run)) if is_run_id(run) else None
    if row is None:
        raise NotFoundError(f"there is no run {run:.80}")
    return Run.from_item(row), row


def started_data(run: Run) -> dict[str, Any]:
    """Return what the event of a run's start tells."""
    return {"experiment": run.experiment, "sha256": run.start}


def ended_data(run: Run) -> dict[str, Any]:
    """Return what the event of a run's end tells."""
    counts = {"points": run.points, "batches": run.batches}
    return {"experiment": run.experiment, "state": run.state.value, **counts, "metrics": run.metrics, "sha256": run.record_digest}


def run_of_event(event: Mapping[str, Any]) -> str:
    """Return the ID of the run that an event is about."""
    return str(event["subject"]).removeprefix(subject_of(""))
