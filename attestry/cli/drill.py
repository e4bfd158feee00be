"""Verbs that exercise what has to work when it is needed: drill kill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attestry.cli.act import ReasonOption, read_instances
from attestry.cli.context import Cli, read_reference, verb
from attestry.cli.exit_codes import ExitCode
from attestry.cli.read import VersionArgument

if TYPE_CHECKING:
    from attestry.client.api import RegistryClient


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True, help="Drills: what has to work in an emergency, done on purpose and measured.")
    app.add_typer(group, name="drill")

    @verb(group, roles=("approver", "deployer", "admin"))
    def kill(
        cli: Cli,
        version: VersionArgument,
        file: Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="JSON file with instances, as for predict.")],
        reason: ReasonOption,
        consumers: Annotated[int, typer.Option("--consumers", min=1, max=64, help="How many ask at once.")] = 4,
        consumer_profile: Annotated[
            str | None,
            typer.Option("--consumer-profile", metavar="NAME", help="AWS profile of the consumers; by default, the caller's own."),
        ] = None,
    ) -> None:
        """Kill a version that stands deployed elsewhere than in production, under load, and measure until when it answered; it is final."""
        from attestry.client import kill_drill

        reference = read_reference(version)
        asked = read_instances(file, [])
        clients = [_consumer(consumer_profile or cli.profile) for _ in range(consumers)]
        drill = kill_drill.KillDrill(cli.client, clients, asked, watch_seconds=kill_drill.WATCH_SECONDS)
        cli.say(f"{consumers} consumers ask {reference}; once it has answered them all it is killed")
        report = drill.run(reference.model, reference.number, reason)
        cli.show(report.to_dict(), _told)
        cli.end(ExitCode.OK if report.outcome == "PASSED" else ExitCode.FAILED)


def _consumer(profile: str | None) -> RegistryClient:
    """Return a client that waits for nothing: a consumer has to learn at once that nothing answers."""
    import boto3

    from attestry.client.api import RegistryClient

    return RegistryClient(boto3.Session(profile_name=profile) if profile else None, patience_seconds=0)


def _told(report: Mapping[str, Any]) -> str:
    last = report["last_answer_seconds"]
    when = f"{last:.3f} s after" if last > 0 else f"{-last:.3f} s before"
    lines = [
        f"{report['outcome']}: {report['reference']} is killed in {report['environment']}",
        f"the kill was acknowledged in {report['seconds_to_acknowledge']:.3f} s",
        f"the last of {report['answers']} answers arrived {when} the acknowledgement: {report['last_prediction']}",
        f"{report['answers_after']} answers came after it; {report['refused_after']} requests were refused or answered by another version",
        f"remarked on transition {report['transition']}: attestry catalogue remarks {report['reference']}",
        *report["failures"],
    ]
    return "\n".join(lines)
