"""Verbs about what versions leave: legal-hold, dispose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from attestry.cli.act import ReasonOption
from attestry.cli.context import Cli, read_reference, verb
from attestry.cli.read import VersionArgument


def register(app: typer.Typer) -> None:
    """Add the verbs."""

    @verb(app, name="legal-hold", roles=("approver", "validator", "auditor", "admin"))
    def legal_hold(
        cli: Cli,
        version: VersionArgument,
        reason: ReasonOption,
        lift: Annotated[bool, typer.Option("--lift", help="End the hold; an admin does.")] = False,
    ) -> None:
        """Have nothing of a version disposed, whatever its retention says, until the hold is lifted."""
        reference = read_reference(version)
        cli.show(cli.client.set_legal_hold(reference.model, reference.number, reason, lift=lift), _held)

    @verb(app, roles=("admin", "approver"))
    def dispose(
        cli: Cli,
        version: VersionArgument,
        reason: ReasonOption,
        confirm: Annotated[
            bool, typer.Option("--confirm", help="As an approver, confirm what an admin has asked for; objects are deleted then.")
        ] = False,
    ) -> None:
        """Delete what a retired or killed version has left, once its retention is over; digests and proof are kept."""
        reference = read_reference(version)
        cli.show(cli.client.dispose(reference.model, reference.number, reason, confirm=confirm), _disposed)


def _held(answer: Mapping[str, Any]) -> str:
    reference, hold = f"{answer['model']}@{answer['version']}", answer["legal_hold"]
    rest = "" if answer["complete"] else "; the locks of its objects are being set"
    if hold:
        return f"{reference} is under the legal hold of {hold['by']} since {hold['at']}: {hold['reason']}{rest}"
    return f"{reference} is under no legal hold{rest}"


def _disposed(answer: Mapping[str, Any]) -> str:
    reference, disposal = f"{answer['model']}@{answer['version']}", answer["disposal"]
    if not disposal:
        return f"the disposal of {reference} was stopped"
    if disposal["state"] == "requested":
        return f"the disposal of {reference} was asked for by {disposal['by']}; an approver confirms it with --confirm"
    told = f"{disposal['objects']} objects of {reference} were disposed, their digests are kept"
    if disposal["state"] == "confirmed":
        return f"{told}; more are being deleted"
    left = f"; a lock keeps {disposal['left']} more, the first until {disposal['left_until'] or 'it is lifted'}" if disposal["left"] else ""
    return told + left
