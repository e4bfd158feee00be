"""Verbs around the operation of versions: kill, retire, capture, findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from attestry.cli.act import ReasonOption
from attestry.cli.context import Cli, read_reference, verb
from attestry.cli.exit_codes import ExitCode
from attestry.cli.read import ModelArgument, VersionArgument


def register(app: typer.Typer) -> None:
    """Add the verbs."""

    @verb(app, roles=("approver", "deployer", "admin"))
    def kill(cli: Cli, version: VersionArgument, reason: ReasonOption) -> None:
        """Take a version out of use at once, in whatever stage it is; that is final."""
        reference = read_reference(version)
        answer = cli.client.kill(reference.model, reference.number, reason)
        cli.show(answer, lambda a: _told(a, "killed"))

    @verb(app, roles=("deployer", "admin"))
    def retire(
        cli: Cli,
        version: VersionArgument,
        reason: ReasonOption,
        on: Annotated[
            str | None, typer.Option("--on", metavar="YYYY-MM-DD", help="From 00:00 UTC of this day on; by default, from now on.")
        ] = None,
        even_if_deployed: Annotated[
            bool, typer.Option("--even-if-deployed", help="Also if it stands deployed, so that nothing does afterwards.")
        ] = False,
    ) -> None:
        """Take a version out of use, now or on a date; that is final."""
        reference = read_reference(version)
        answer = cli.client.retire(reference.model, reference.number, reason, on=on, even_if_deployed=even_if_deployed)
        cli.show(answer, lambda a: _told(a, "retired"))

    @verb(app, roles=("deployer", "admin"))
    def capture(
        cli: Cli,
        model: ModelArgument,
        rate: Annotated[str, typer.Option("--rate", metavar="RATE", help="Share of predictions, 0 to 1, whose payload is kept.")],
        reason: ReasonOption,
        environment: Annotated[str, typer.Option("--environment", metavar="NAME", help="Where.")] = "production",
    ) -> None:
        """Set the share of predictions whose request and output are kept."""
        answer = cli.client.set_capture(model, rate, reason, environment=environment)
        cli.show(answer, lambda a: f"{model}@{a['version']}: the capture rate in {environment} is {a['rate']}; it was {a['previous']}")

    @verb(app)
    def findings(
        cli: Cli, model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Of one model; by default, of all.")] = None
    ) -> None:
        """List what was changed by hand: where table, ledger and store do not agree."""
        from attestry.cli import render

        rows = cli.client.findings(model)
        cli.show(rows, render.findings)
        cli.end(ExitCode.BROKEN if rows else ExitCode.OK)


def _told(answer: Mapping[str, Any], act: str) -> str:
    reference = f"{answer['model']}@{answer['version']}"
    if answer["standing"] != "RETIRED":
        return f"{reference} goes out of use on {answer['retires_on']}, 00:00 UTC"
    lines = [f"{reference} is {act}"]
    for environment in answer["vacated"]:
        kept = answer["rollback"].get(environment)
        back = f"; `attestry rollback {answer['model']}` puts {answer['model']}@{kept} in place" if kept else ""
        lines.append(f"nothing is deployed in {environment} any more{back}")
    return "\n".join(lines)
