"""Verbs of versions that were made elsewhere: import, download."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attestry.cli.candidates import progress_bars
from attestry.cli.context import Cli, read_reference, verb
from attestry.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from attestry.client.imports import Imported

MAX_RUN_BYTES = 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add the verbs."""

    @verb(app, name="import")
    def import_(
        cli: Cli,
        path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, or a folder such as MLflow writes.", exists=True)],
        model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model that it becomes a version of.")],
        source: Annotated[str, typer.Option("--source", metavar="TEXT", help="Where it comes from, such as a URI; a claim.")] = "",
        run: Annotated[
            Path | None,
            typer.Option("--run", metavar="FILE.json", help="The run, as claimed: id, experiment, params, metrics, tags.", dir_okay=False),
        ] = None,
        description: Annotated[str, typer.Option("--description", metavar="TEXT", help="What the version is.")] = "",
        again: Annotated[str, typer.Option("--again", metavar="WORD", help="Import the same files once more, told apart by a word.")] = "",
        timeout: Annotated[float, typer.Option("--timeout", min=1, metavar="SECONDS", help="How long to wait until it is frozen.")] = 900,
    ) -> None:
        """Make a version of files that were made elsewhere; the same import again goes on where it was cut off."""
        from attestry.client.imports import import_model

        claims: dict[str, Any] = {"source": source, "description": description}
        if run is not None:
            claims["run"] = _read_run(run)
        claims = {name: value for name, value in claims.items() if value}
        with cli.progress() as bars:
            imported = import_model(
                cli.client, path, model, claims, key=again, say=cli.say, advance=progress_bars(bars), timeout_seconds=timeout
            )
        cli.show(asdict(imported), lambda _: _sentences(imported))
        cli.end(ExitCode.FAILED if imported.status == "FAILED" else ExitCode.OK)

    @verb(app)
    def download(
        cli: Cli,
        version: Annotated[str, typer.Argument(metavar="MODEL@N", help="A version.")],
        folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to.")],
    ) -> None:
        """Download a version's frozen files; each is checked against the artifact manifest, and that against the version digest."""
        from attestry.client.imports import download_version

        reference = read_reference(version)
        with cli.progress() as bars:
            fetched = download_version(cli.client, reference.model, reference.number, folder, advance=progress_bars(bars))
        rows = [{"path": str(d.path), "sha256": d.sha256, "size": d.size, "fetched": d.fetched} for d in fetched]
        cli.show({"version_digest": rows[0]["sha256"], "files": rows}, lambda _: "\n".join(f"{r['sha256']}  {r['path']}" for r in rows))


def _read_run(path: Path) -> Any:
    if path.stat().st_size > MAX_RUN_BYTES:
        raise typer.BadParameter(f"{path} has more than {MAX_RUN_BYTES} bytes")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise typer.BadParameter(f"{path} is no JSON: {error}") from error


def _sentences(imported: Imported) -> str:
    reference = f"{imported.model}@{imported.number}"
    lines = [
        f"{reference} imported: {imported.files} files, {imported.bytes} bytes",
        f"  version digest {imported.version_digest or 'none'}",
        f"  {imported.stage} {imported.status}, {imported.standing}",
    ]
    if imported.error:
        return "\n".join([*lines, f"  {imported.error}"])
    return "\n".join([*lines, "  what is said of its run is claimed; who approves it sees that:", f"    attestry packet {reference}"])
