"""Verbs of batch scoring: score, prove-row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attestry.cli.candidates import progress_bars
from attestry.cli.context import Cli, verb
from attestry.cli.read import ModelArgument

if TYPE_CHECKING:
    from attestry.client.scoring import Scored


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    _register_score(app)
    _register_prove(app)


def _register_score(app: typer.Typer) -> None:
    @verb(app, roles=("consumer",))
    def score(
        cli: Cli,
        model: ModelArgument,
        given: Annotated[Path, typer.Option("--input", metavar="FILE", help="JSON lines, or CSV with a header; a row a line.")],
        output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the rows' outputs, JSON lines.")],
        environment: Annotated[str, typer.Option("--environment", metavar="NAME", help="Where.")] = "production",
        request: Annotated[
            str,
            typer.Option("--request", metavar="NAME", help="Go on with a request of this name on the same input; by default a new one."),
        ] = "",
        form: Annotated[str, typer.Option("--format", metavar="csv|jsonl", help="Of the input; by default by its suffix.")] = "",
        wait: Annotated[float, typer.Option("--wait", min=0, metavar="SECONDS", help="How long to wait for all rows.")] = 3600.0,
    ) -> None:
        """Have the deployed version answer every row of a file; one signed root proves each row."""
        from attestry.client.scoring import score_file

        with cli.progress() as bars:
            scored = score_file(
                cli.client,
                model,
                given,
                output,
                environment=environment,
                request=request,
                form=form,
                say=cli.say,
                advance=progress_bars(bars),
                timeout_seconds=wait,
            )
        shown = {**scored.facts.to_dict(), "output": str(scored.output), "evidence": str(scored.evidence)}
        cli.show(shown, lambda _: _told(scored))


def _register_prove(app: typer.Typer) -> None:
    @verb(app, "prove-row")
    def prove_row(
        cli: Cli,
        output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="What `score` wrote, with its evidence beside it.")],
        row: Annotated[int, typer.Argument(metavar="ROW", min=0, help="The row's index, from 0.")],
        to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Where to write; by default OUTPUT.row-N.json.")] = None,
    ) -> None:
        """Write the proof of one row: one small file that `attestry verify --row` checks offline, without the other rows."""
        from attestry.client.scoring import prove_row as prove

        place = to or output.with_name(f"{output.name}.row-{row}.json")
        data = prove(cli.client, output, row)
        place.write_bytes(data)
        told = {"file": str(place), "row": row, "size": len(data)}
        cli.show(told, lambda _: f"{place}  proof of row {row}, {len(data)} bytes")


def _told(scored: Scored) -> str:
    return f"{scored.output}  {scored.rows} rows by {scored.model}@{scored.version}, root {scored.facts.root}"
