"""Verbs around the operation of versions: kill, retire, hold, release, redo, transition, capture, findings."""

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

    _register_manual(app)

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


def _register_manual(app: typer.Typer) -> None:
    @verb(app, roles=("approver", "deployer", "admin"))
    def hold(cli: Cli, version: VersionArgument, reason: ReasonOption) -> None:
        """Hold a version: it begins no stage, and is neither approved nor deployed; what is deployed goes on serving."""
        reference = read_reference(version)
        cli.show(cli.client.hold(reference.model, reference.number, reason), _held)

    @verb(app, roles=("approver", "deployer", "admin"))
    def release(cli: Cli, version: VersionArgument, reason: ReasonOption) -> None:
        """End the hold of a version, which goes on where it was held."""
        reference = read_reference(version)
        cli.show(cli.client.release(reference.model, reference.number, reason), _held)

    @verb(app, roles=("scientist", "admin"))
    def redo(
        cli: Cli,
        version: VersionArgument,
        stage: Annotated[str, typer.Argument(metavar="STAGE", help="PROCESSING, until the version is trained, or VALIDATION.")],
        reason: ReasonOption,
    ) -> None:
        """Have a stage that has succeeded run again, and every stage behind it, before the version is approved."""
        reference = read_reference(version)
        attempt = int(cli.client.version(reference.model, reference.number)["attempt"])
        answer = cli.client.redo(reference.model, reference.number, stage.upper(), reason, attempt=attempt)
        cli.show(answer, lambda a: f"{reference} runs again from {stage.upper()} on, attempt {a['attempt']}")

    @verb(app, roles=("scientist", "approver", "deployer", "admin"))
    def transition(
        cli: Cli,
        version: VersionArgument,
        to: Annotated[str, typer.Option("--to", metavar="STAGE|STANDING", help="Where it is wanted, for example VALIDATION or DEPLOYED.")],
        reason: ReasonOption,
    ) -> None:
        """Move a version to a stage or standing by hand, by what may lead there; no stage is passed over."""
        reference = read_reference(version)
        attempt = int(cli.client.version(reference.model, reference.number)["attempt"])
        cli.show(cli.client.transition(reference.model, reference.number, to.upper(), reason, attempt=attempt), _held)


def _held(answer: Mapping[str, Any]) -> str:
    reference = f"{answer['model']}@{answer['version']}"
    state = f"{answer['stage']} {answer['status']}, {answer['standing']}"
    if answer["held"]:
        return f"{reference} is held by {answer['held']['by']} since {answer['held']['at']}: {answer['held']['reason']} ({state})"
    return f"{reference} is in {state}, attempt {answer['attempt']}{'' if answer['changed'] else '; nothing was changed'}"


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
