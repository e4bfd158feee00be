"""The verb `packet`, and what is said of a packet before a decision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attestry.cli.context import Cli, read_reference, verb
from attestry.cli.read import VersionArgument

if TYPE_CHECKING:
    from attestry.evidence.packet import Packet


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @verb(app)
    def packet(
        cli: Cli,
        version: VersionArgument,
        html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page, to read or print.")] = None,
        save: Annotated[Path | None, typer.Option("--save", metavar="FILE", help="Write exactly the bytes that are digested.")] = None,
        promotion: Annotated[str, typer.Option("--promotion", metavar="ENVIRONMENT", help="That of the promotion there.")] = "",
    ) -> None:
        """Show what a decision on a version, or on its promotion, rests on, as it was frozen when that was opened."""
        from attestry.cli import render_packet

        reference = read_reference(version)
        if promotion:
            _show_promotion(cli, reference.model, reference.number, promotion, html, save)
            return
        found = cli.client.packet(reference.model, reference.number)
        if html is not None:
            from attestry.evidence.packet_page import render_page

            write(html, render_page(found))
            cli.say(f"page in {html}")
        if save is not None:
            write(save, found.raw)
            cli.say(f"packet in {save}")
        told = {"model": reference.model, "version": reference.number, "sha256": found.sha256, "packet": dict(found.content)}
        cli.show(told, lambda _: render_packet.packet(found))


def _show_promotion(cli: Cli, model: str, number: int, environment: str, html: Path | None, save: Path | None) -> None:
    from attestry.cli import decide_promotion, render

    found = cli.client.promotion_packet(model, number, environment)
    if html is not None:
        from attestry.evidence.promotion_page import render_promotion_page

        write(html, render_promotion_page(found))
        cli.say(f"page in {html}")
    if save is not None:
        write(save, found.raw)
        cli.say(f"packet in {save}")
    told = {"model": model, "version": number, "sha256": found.sha256, "packet": dict(found.content)}
    cli.show(told, lambda _: "\n".join(render.text(line).plain for line in decide_promotion.summary(found)))


def write(file: Path, data: bytes) -> None:
    """Write a file.

    Raises:
        typer.BadParameter: it cannot be written.
    """
    try:
        file.write_bytes(data)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written: {error.strerror}") from error


def summary(packet: Packet) -> list[str]:
    """Return the lines that are said of a packet before a decision is sent."""
    content: Any = packet.content
    gates, findings = content["gates"], content["findings"]
    failed = [str(g.get("name")) for g in gates if not g.get("passed")]
    metrics = ", ".join(f"{name} {str(value)[:8]}" for name, value in content["metrics"].items())
    return [
        f"{packet.reference}, packet {packet.sha256}",
        f"  metrics   {metrics or 'none'}",
        f"  gates     {len(gates)} judged, " + (f"failed: {', '.join(failed)}" if failed else "all passed"),
        f"  changes   {_changes(packet)}",
        f"  code      {content['lineage']['code']['revision']}, {'clean' if content['lineage']['code']['clean'] else 'with local changes'}",
        f"  findings  {len(findings)} open" if findings else "  findings  none open",
    ]


def _changes(packet: Packet) -> str:
    if not packet.compared_with:
        return "no version was deployed to compare with"
    return f"{len(packet.content['differences'])} fields differ from {packet.compared_with}, which was deployed"
