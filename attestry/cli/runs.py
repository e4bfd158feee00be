"""Verbs of development runs: runs list, show, metrics, compare, push."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from attestry.cli.context import Cli, verb

_READERS = ("scientist", "validator", "approver", "auditor", "admin")
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="ID of a run.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True, help="Development runs: what was tried, as those say who tried it.")
    app.add_typer(group, name="runs")
    _register_reads(group)

    @verb(group, roles=("scientist",))
    def push(
        cli: Cli,
        folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The run's folder: .attestry/runs/RUN.", file_okay=False)],
        failed: Annotated[
            str, typer.Option("--failed", metavar="TEXT", help="The run was killed: end it as failed, for this reason.")
        ] = "",
    ) -> None:
        """Send a run of this machine; what the registry has of it already is not sent again, so it may be cut off and repeated."""
        from attestry.client.runs_push import RunPusher

        pushed = RunPusher(folder).push(cli.client, failed=failed)
        cli.show(asdict(pushed), lambda p: f"run {p['run']} is {p['state']} with {p['points']} points, {p['sent']} of them sent now")


def _register_reads(group: typer.Typer) -> None:
    @verb(group, "list", roles=_READERS)
    def list_all(
        cli: Cli,
        experiment: Annotated[str | None, typer.Option("--experiment", metavar="NAME", help="Those of an experiment.")] = None,
        owner: Annotated[str | None, typer.Option("--owner", metavar="PERSON", help="Those of a person.")] = None,
        state: Annotated[str | None, typer.Option("--state", metavar="STATE", help="RUNNING, FINISHED or FAILED.")] = None,
        limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    ) -> None:
        """List runs, the newest first."""
        found = list(islice(cli.client.runs(experiment=experiment, owner=owner, state=state), limit))
        cli.show(found, lambda rows: "\n".join(_line(row) for row in rows) or "no runs")

    @verb(group, roles=_READERS)
    def show(cli: Cli, run: RunArgument) -> None:
        """Show a run: parameters, last values of metrics, files, environment, and the versions that were imported from it."""
        cli.show(cli.client.run(run), _sentences)

    @verb(group, roles=_READERS)
    def metrics(
        cli: Cli,
        run: RunArgument,
        metric: Annotated[str, typer.Argument(metavar="METRIC", help="The metric's name.")],
        limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many points.")] = 1000,
    ) -> None:
        """Show the history of a metric, in the order in which it was logged."""
        points = [{n: p[n] for n in ("step", "value", "at")} for p in islice(cli.client.run_metric(run, metric), limit)]
        cli.show(points, lambda rows: "\n".join(f"{'' if p['step'] is None else p['step']}\t{p['value']}\t{p['at']}" for p in rows))

    @verb(group, roles=_READERS)
    def compare(cli: Cli, runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="IDs of two runs or more.")]) -> None:
        """Show in what runs differ: parameters, metrics, tags, files, code, packages."""
        from attestry.client.runs_compare import compare_runs

        if len(runs) < 2:
            raise typer.BadParameter("two runs are needed to compare")
        differing = compare_runs([cli.client.run(run) for run in runs])
        cli.show({"runs": runs, "differences": differing}, lambda _: "\n".join(_difference(row) for row in differing) or "they are alike")


def _line(run: Mapping[str, Any]) -> str:
    metrics = ", ".join(f"{name} {last['value']}" for name, last in run["metrics"].items())
    return "  ".join(
        part for part in (run["run"], run["state"], run["experiment"], run["owner"], run["begun"] or run["created"], metrics) if part
    )


def _sentences(run: Mapping[str, Any]) -> str:
    lines = [_line({**run, "metrics": {}}), f"  claimed by {run['owner']}: the registry saw nothing of the run"]
    lines += [f"  {run['error']}"] if run["error"] else []
    for part in ("parameters", "tags"):
        lines += [f"  {part}: " + ", ".join(f"{name}={value}" for name, value in sorted(run[part].items()))] if run[part] else []
    lines += [
        f"  {name}: {last['value']}" + (f" at step {last['step']}" if last["step"] is not None else "")
        for name, last in run["metrics"].items()
    ]
    lines += [f"  {name}  {file['size']} bytes, sha256 {file['sha256']}" for name, file in run["files"].items()]
    lines += [f"  {run['points']} points in {run['batches']} batches, record {run['digests']['record'] or 'not closed yet'}"]
    lines += [f"  imported as {version['model']}@{version['number']}" for version in run.get("versions", ())]
    return "\n".join(lines)


def _difference(row: Mapping[str, Any]) -> str:
    return f"{row['part']} {row['name']}: " + " | ".join("-" if value is None else str(value) for value in row["values"])
