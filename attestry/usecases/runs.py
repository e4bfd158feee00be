"""Development runs: started, added to, and ended by their owners, who alone change them.

    start_run(...)     the rows of the run, its entries in the lanes, and `run.started`
    log_points(...)    a batch of points, once however often it is sent
    change_run(...)    parameters, tags and files while it runs; with a state it ends, and `run.ended` has the digest of all of it

Rules:
- Each is one transaction, under the condition that the head is as it was read; who was overtaken reads again. So a crash leaves the run
  as it was before or after, and sending the same again goes on from either.
- The owner is who was authenticated. A run of somebody else is not changed, whoever asks.
- The ledger is told of the start and the end, not of every batch: the end has the digest of them all, in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from attestry.domain.errors import ConditionFailedError, ConflictError, ForbiddenError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal
from attestry.domain.run_points import Batch, logged
from attestry.domain.runs import Change, Run, Start
from attestry.ports import MetaStore, Update, When, Write
from attestry.usecases.catalogue_rows import tries
from attestry.usecases.records import outbox_put
from attestry.usecases.run_rows import (
    ENDED,
    STARTED,
    batch_key,
    batch_writes,
    ended_data,
    load_run,
    mark,
    run_key,
    start_writes,
    started_data,
    subject_of,
)


@dataclass(frozen=True)
class Logged:
    """What became of a batch.

    Attributes:
        run: the run after it.
        number: the number that the batch got.
        repeated: whether it was there already.
    """

    run: Run
    number: int
    repeated: bool


def start_run(meta: MetaStore, start: Start, *, by: Principal, at: datetime) -> tuple[Run, bool]:
    """Start a run, and return it and whether it was made by this call; the same start again changes nothing.

    Args:
        meta: the table.
        start: what is said of it.
        by: the authenticated caller, who owns it.
        at: the time.

    Raises:
        ConflictError: the ID is that of another run, or of one that was started otherwise.
    """
    run = Run(
        run=start.run,
        experiment=start.experiment,
        login=by.login,
        person=by.person or "",
        begun=start.begun,
        parameters=start.parameters,
        tags=start.tags,
        source=start.source,
        start=start.digest,
        asked=start.asked,
        created=timestamp(at),
    )
    event = Event(STARTED, subject_of(run.run), 1, at, by, started_data(run))
    try:
        meta.transact([*start_writes(run, start, event), outbox_put(event)])
    except ConditionFailedError:
        there, _ = load_run(meta, start.run)
        if not there.is_owned_by(by.login, by.person) or there.asked != start.asked:
            raise ConflictError(f"run {start.run} was started before, and otherwise; a run needs an ID of its own") from None
        return there, False
    return run, True


def change_run(meta: MetaStore, run: str, change: Change, *, by: Principal, at: datetime) -> Run:
    """Add to a run or end it; the same again changes nothing.

    Args:
        meta: the table.
        run: its ID.
        change: what is said of it.
        by: the authenticated caller.
        at: the time.

    Raises:
        NotFoundError: there is no such run.
        ForbiddenError: it is somebody else's.
        ConflictError: it has ended, a parameter or a file is there otherwise, or it is being changed by many others.
        InvalidInputError: it would have too much of something.
    """
    for _ in tries():
        there, row = load_run(meta, run)
        require_owner(there, by)
        after = there.changed(change, timestamp(at))
        if after is there:
            return there
        changes, further = after.to_item(), list[Write]()
        if change.state is not None:
            event = Event(ENDED, subject_of(run), 1, at, by, ended_data(after))
            changes["changed"] = [*row["changed"], mark(event)]
            further = [outbox_put(event)]
        try:
            meta.transact([Update(run_key(run), changes, _unchanged(there)), *further])
        except ConditionFailedError:
            continue
        return after
    raise _overtaken(run)


def log_points(meta: MetaStore, run: str, batch: Batch, *, by: Principal) -> Logged:
    """Add a batch of points to a run; one that is there already changes nothing, after the run's end too.

    Raises:
        NotFoundError: there is no such run.
        ForbiddenError: it is somebody else's.
        ConflictError: it has ended, the batch is there with other points, or the run is being changed by many others.
        InvalidInputError: it would have too many batches or metrics.
    """
    for _ in tries():
        there, _row = load_run(meta, run)
        require_owner(there, by)
        known = meta.get(batch_key(run, batch.id))
        if known is not None:
            if known["sha256"] != batch.digest:
                raise ConflictError(f"batch {batch.id} of run {run} has other points; a batch needs an ID of its own")
            return Logged(there, int(known["number"]), repeated=True)
        changes = logged(there, batch)
        number = int(changes["batches"])
        try:
            meta.transact([Update(run_key(run), changes, _unchanged(there)), *batch_writes(run, number, batch)])
        except ConditionFailedError:
            continue
        return Logged(Run.from_item({**there.to_item(), **changes}), number, repeated=False)
    raise _overtaken(run)


def require_owner(run: Run, by: Principal) -> None:
    """Refuse to change somebody else's run.

    Raises:
        ForbiddenError: it is.
    """
    if not run.is_owned_by(by.login, by.person):
        raise ForbiddenError(f"run {run.run} is that of {run.owner}; nobody else changes it", details={"login": by.login})


def _unchanged(run: Run) -> When:
    return When(exists=True, equals={"rev": run.rev})


def _overtaken(run: str) -> ConflictError:
    return ConflictError(f"run {run} is being changed by many others; send it again")
