"""Verbs over the lineage: lineage, compliance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attestry.cli.context import Cli, verb
from attestry.cli.exit_codes import ExitCode


def register(app: typer.Typer) -> None:
    """Add the verbs."""

    @verb(app)
    def lineage(
        cli: Cli,
        node: Annotated[
            str,
            typer.Argument(
                metavar="NODE", help="MODEL@N, a prediction ID, a commit, a SHA-256 of data, manifest or environment, or kind:name."
            ),
        ],
        direction: Annotated[
            str, typer.Option("--direction", help="up (what it was made of), down (what was made of it), or both.")
        ] = "both",
        depth: Annotated[int, typer.Option("--depth", min=1, max=20, help="How many steps to go.")] = 20,
        svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write a picture.")] = None,
    ) -> None:
        """Walk from a data set, version, commit, environment or prediction to what it was made of and what was made of it."""
        from attestry.cli.lineage_tree import lineage_tree

        graph = cli.client.lineage(node, direction=direction, depth=depth)
        if svg is not None:
            from attestry.client.lineage_svg import draw_lineage

            svg.write_text(draw_lineage(graph), encoding="utf-8")
            cli.say(f"picture in {svg}")
        cli.show(graph, lineage_tree)

    @verb(app)
    def compliance(cli: Cli) -> None:
        """List the versions in production whose lineage is not complete and verified; ends with 1 if there are any."""
        from attestry.cli.lineage_tree import compliance_table

        deployed: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            answer = cli.client.compliance(after=after)
            deployed += answer["deployed"]
            after = answer["next"]
        incomplete = sum(not row["complete"] for row in deployed)
        cli.show({"deployed": deployed, "incomplete": incomplete}, compliance_table)
        cli.end(ExitCode.FAILED if incomplete else ExitCode.OK)
