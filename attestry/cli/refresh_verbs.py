"""Verbs that make versions of what is registered already: refresh, refreshes, reproduce."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from attestry.cli.act import ReasonOption
from attestry.cli.context import Cli, read_reference, verb
from attestry.cli.exit_codes import ExitCode
from attestry.cli.read import ModelArgument, VersionArgument


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    _register_refresh(app)

    @verb(app)
    def refreshes(cli: Cli, model: ModelArgument) -> None:
        """Show when a model is refreshed next, which data wait, and which triggers made nothing, and why."""
        from attestry.cli import render

        cli.show(cli.client.refreshes(model), render.facts)

    @verb(app, roles=("scientist", "validator", "deployer", "auditor"))
    def reproduce(
        cli: Cli,
        version: VersionArgument,
        reason: ReasonOption,
        wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the verdict.")] = True,
    ) -> None:
        """Run a version's recipe again and compare: bit-equal, within tolerance, or different."""
        reference = read_reference(version)
        made = cli.client.reproduce(reference.model, reference.number, reason, request=uuid.uuid4().hex)
        if not wait:
            cli.show(made, lambda m: f"{reference} is run again as {reference.model}@{m['version']}")
            return
        from attestry.client.wait import wait_for_version

        wait_for_version(cli.client, reference.model, int(made["version"]))
        told = cli.client.version(reference.model, reference.number).get("reproductions", [])
        found: Mapping[str, Any] = next((r for r in told if int(r["run"]["number"]) == int(made["version"])), {})
        cli.show({**made, **found}, lambda _: _verdict(str(reference), made, found))
        cli.end(ExitCode.OK if found.get("verdict") in ("bit-equal", "within tolerance") else ExitCode.FAILED)


def _register_refresh(app: typer.Typer) -> None:
    @verb(app, roles=("scientist", "deployer"))
    def refresh(
        cli: Cli,
        model: Annotated[str, typer.Argument(metavar="MODEL[@N]", help="The model; with @N, the version to start from.")],
        reason: ReasonOption,
        data: Annotated[
            list[str] | None, typer.Option("--data", metavar="SOURCE=FILE", help="A file in the place of a source file; repeatable.")
        ] = None,
        revision: Annotated[
            Path | None,
            typer.Option("--revision", metavar="FOLDER", help="The manifest's folder at another revision of its code; it is submitted."),
        ] = None,
    ) -> None:
        """Make a new version of what is deployed: as it is, of other data, or of another revision of the code."""
        if revision is not None:
            _submit_revision(cli, model, revision, data)
            return
        from attestry.client.bring import bring_data

        name, at, _ = model.partition("@")
        number = read_reference(model).number if at else None
        brought = bring_data(cli.client, dict(_read_data(text) for text in data or []))
        made = cli.client.refresh(name, reason, version=number, data=brought, request=uuid.uuid4().hex)
        cli.show(made, lambda m: f"{name}@{m['version']} is made" if m["state"] == "MADE" else f"{m['state'].lower()}: {m['reason']}")
        cli.end(ExitCode.OK if made["state"] in ("MADE", "MADE_BEFORE") else ExitCode.FAILED)


def _submit_revision(cli: Cli, model: str, folder: Path, data: list[str] | None) -> None:
    """Submit a folder whose manifest has to be that of the model; the registry says whether only the code differs from the parent."""
    from attestry.client.submit import submit

    if data or "@" in model:
        raise typer.BadParameter("--revision goes with the model's name alone")
    submitted = submit(cli.client, folder, say=cli.say)
    cause = cli.client.version(submitted.model, submitted.version).get("cause") or {}
    what = (
        f"of {submitted.model}@{cause.get('parent')}, with another revision"
        if cause.get("kind") == "revision"
        else "a candidate of its own"
    )
    made = {"model": submitted.model, "version": submitted.version, "created": submitted.created, "cause": cause}
    cli.show(made, lambda _: f"{submitted.model}@{submitted.version} {'is' if submitted.created else 'was'} registered: {what}")


def _read_data(text: str) -> tuple[str, Path]:
    source, equals, path = text.partition("=")
    if not (source and equals and path):
        raise typer.BadParameter(f"--data {text}: write SOURCE=FILE")
    return source, Path(path)


def _verdict(reference: str, made: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    run = f"{made['model']}@{made['version']}"
    if not found:
        return f"{reference}: no verdict; see attestry show {run}"
    differs = ", ".join(str(d["what"]) for d in found.get("differs", []))
    return f"{reference} run again as {run}: {found['verdict']}{f'; differs: {differs}' if differs else ''}"
