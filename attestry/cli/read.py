"""Verbs that read: whoami, models, versions, show, diff, logs, data, trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attestry.cli.candidates import progress_bars
from attestry.cli.context import Cli, read_reference, verb
from attestry.cli.exit_codes import ExitCode

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model.")]
VersionArgument = Annotated[str, typer.Argument(metavar="MODEL@N", help="A version.")]

_TRACE_CODES = {"BROKEN": ExitCode.BROKEN, "INCOMPLETE": ExitCode.FAILED}


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    _register_lists(app)
    _register_files(app)


def _register_lists(app: typer.Typer) -> None:
    @verb(app)
    def whoami(cli: Cli) -> None:
        """Show who you are to the registry: login, person, roles."""
        from attestry.cli import render

        cli.show(cli.client.whoami(), render.facts)
        if cli.client.signed_in is not None:
            from attestry.cli.sign_in import told

            cli.say(told(cli.client.signed_in.sign_in))

    @verb(app)
    def models(cli: Cli) -> None:
        """List all models."""
        from attestry.cli import render

        cli.show(cli.client.models(), render.models)

    @verb(app)
    def versions(cli: Cli, model: ModelArgument) -> None:
        """List the versions of a model."""
        from attestry.cli import render

        cli.show(cli.client.versions(model), render.versions)

    @verb(app)
    def show(cli: Cli, what: Annotated[str, typer.Argument(metavar="MODEL[@N]", help="A model, or a version of one.")]) -> None:
        """Show a model and what is deployed, or all that is recorded of a version."""
        from attestry.cli import render

        if "@" not in what:
            cli.show(cli.client.model(what), render.model)
            return
        reference = read_reference(what)
        cli.show(cli.client.version(reference.model, reference.number), render.version)

    @verb(app)
    def diff(
        cli: Cli,
        before: VersionArgument,
        after: Annotated[str, typer.Argument(metavar="[MODEL@]N", help="Another version of the same model.")],
    ) -> None:
        """Show what differs between two versions: metrics, settings, data, code, dependencies, schema."""
        from attestry.cli import render

        first = read_reference(before)
        second = read_reference(after if "@" in after else f"{first.model}@{after}")
        if second.model != first.model:
            raise typer.BadParameter("both are versions of the same model")
        cli.show(cli.client.diff(first.model, first.number, second.number), render.differences)


def _register_files(app: typer.Typer) -> None:
    @verb(app)
    def logs(
        cli: Cli,
        version: VersionArgument,
        stage: Annotated[str, typer.Option("--stage", help="PROCESSING, TRAINING or VALIDATION.")] = "TRAINING",
    ) -> None:
        """Print what a stage's script printed."""
        reference = read_reference(version)
        answer = cli.client.log(reference.model, reference.number, stage.upper())
        cli.show(answer, lambda log: _printed(cli, log["text"]))

    @verb(app)
    def data(
        cli: Cli,
        version: VersionArgument,
        name: Annotated[str, typer.Option("--set", metavar="SET", help="source, training, holdout or holdout-labels.")] = "training",
        to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Where to; by default ./MODEL@N/SET.")] = None,
    ) -> None:
        """Download a version's data; a file appears only when its bytes have the recorded digest."""
        from attestry.client.download import download_files

        reference = read_reference(version)
        folder = to or Path(str(reference)) / name
        files = cli.client.data(reference.model, reference.number, name)["files"]
        with cli.progress() as bars:
            downloaded = download_files(files, folder, http=cli.client.http, advance=progress_bars(bars))
        rows = [{"path": str(d.path), "sha256": d.sha256, "size": d.size, "fetched": d.fetched} for d in downloaded]
        cli.show({"set": name, "files": rows}, lambda _: "\n".join(f"{r['sha256']}  {r['path']}" for r in rows))

    @verb(app)
    def trace(
        cli: Cli,
        prediction_id: Annotated[str, typer.Argument(metavar="PREDICTION_ID", help="ID of a prediction.")],
        deep: Annotated[bool, typer.Option("--deep", help="Have every file hashed again.")] = False,
    ) -> None:
        """Trace a prediction to version, code, data, settings and people, each step checked."""
        from attestry.cli import render

        document = cli.client.trace(prediction_id, deep=deep)
        cli.show(document, render.trace)
        cli.end(_TRACE_CODES.get(str(document["verdict"]), ExitCode.OK))


def _printed(cli: Cli, text: str) -> Any:
    """Print a log without the control characters by which a script could act on the terminal."""
    cli.out.print("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text), markup=False, end="")
