"""API: development runs, told by those who make them and read by whoever may read the model of their experiment's name."""

from __future__ import annotations

from typing import Any

from attestry.aws.http import Answer, Request, serve
from attestry.aws.preconditions import expected_rev
from attestry.aws.world import World
from attestry.domain.catalogue import identity_of
from attestry.domain.paging import write_cursor
from attestry.domain.principal import Principal
from attestry.domain.run_points import read_batch
from attestry.domain.run_request import CHANGE_FIELDS, START_FIELDS, read_change, read_start
from attestry.domain.runs import Run, check_text
from attestry.ports import MetaStore
from attestry.usecases import runs
from attestry.usecases.matched import MatchedMeta
from attestry.usecases.run_reading import Wanted, find_run, list_runs, metric_history, read_state, show_run, versions_of
from attestry.usecases.run_rows import run_key

LOG = "POST /v1/runs/{run}/metrics"
"""Its batch is the key: it is kept with the run, however much later it is sent again."""

MAX_FILTER = 2048
"""Characters of an experiment or an owner that a list is asked for; a login may be an ARN."""

world = World()


def start(request: Request) -> Answer:
    """Start a run."""
    asked = read_start(request.body(*START_FIELDS))
    by = request.require(identity_of(asked.experiment))
    run, made = runs.start_run(world.meta, asked, by=by, at=world.clock.now())
    return Answer(show_run(world.meta, run), 201 if made else 200)


def change(request: Request) -> dict[str, Any]:
    """Add parameters, tags or files to a run, or end it."""
    asked, (run, by) = read_change(request.body(*CHANGE_FIELDS)), _own(request)
    changed = runs.change_run(_matched(request, run), run.run, asked, by=by, at=world.clock.now())
    return show_run(world.meta, changed)


def log(request: Request) -> dict[str, Any]:
    """Add a batch of points to a run."""
    batch, (run, by) = read_batch(request.body("batch", "first", "points")), _own(request)
    done = runs.log_points(world.meta, run.run, batch, by=by)
    return {"run": run.run, "batch": batch.id, "number": done.number, "points": done.run.points, "repeated": done.repeated}


def show(request: Request) -> Answer:
    """Show a run."""
    run = _readable(request)
    versions = versions_of(world.meta, run.run, lambda models: _may(request, "versions.read", models))
    return Answer({**show_run(world.meta, run), "versions": versions}, rev=run.rev)


def show_all(request: Request) -> dict[str, Any]:
    """List the runs that the caller may read."""
    page, query = request.page(), request.query
    experiment, owner = (check_text(name, query.get(name) or "", MAX_FILTER) for name in ("experiment", "owner"))
    wanted = Wanted(experiment, owner, read_state(query.get("state") or ""))
    found, behind = list_runs(world.meta, wanted, page, lambda models: _may(request, "runs.read", models))
    listed = page.answer("runs", found, lambda row: str(row["place"]))
    return listed if behind is None else {**listed, "next": write_cursor(page.bound, behind)}


def history(request: Request) -> dict[str, Any]:
    """Show the points of a metric."""
    page, metric, run = request.page(), request.query_text("metric"), _readable(request)
    found, behind = metric_history(world.meta, run, metric, page)
    listed = page.answer("points", found, lambda row: str(row["place"]))
    return {"run": run.run, "metric": metric, **(listed if behind is None else {**listed, "next": write_cursor(page.bound, behind)})}


ROUTES = {
    "POST /v1/runs": start,
    "GET /v1/runs": show_all,
    "GET /v1/runs/{run}": show,
    "PATCH /v1/runs/{run}": change,
    LOG: log,
    "GET /v1/runs/{run}/metrics": history,
}
MATCHED = ("PATCH /v1/runs/{run}",)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    answers = None if str(event.get("routeKey", "")).endswith("/metrics") else world.answers
    return serve(event, context, ROUTES, guard=world.guard, answers=answers, matched=MATCHED, on_denied=world.audit.denied)


def _may(request: Request, action: str, models: list[str]) -> list[str]:
    return request.warrant.may(action, models) if request.warrant is not None else []


def _readable(request: Request) -> Run:
    """Return the run that a request names, if the caller may read it."""
    run = find_run(world.meta, request.text("run"))
    request.require(identity_of(run.experiment))
    return run


def _own(request: Request) -> tuple[Run, Principal]:
    """Return the run that a request is to change, and the caller, who may log runs of its experiment; whose run it is, is decided later."""
    run = find_run(world.meta, request.text("run"))
    return run, request.require(identity_of(run.experiment))


def _matched(request: Request, run: Run) -> MetaStore:
    rev = expected_rev(request.headers)
    return world.meta if rev is None else MatchedMeta(world.meta, run_key(run.run), rev)
