"""Verbs that describe the HTTP API and what is told outside: api openapi, reference, events."""

from __future__ import annotations

import sys

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True, help="The description of the HTTP API; nothing is called.")
    app.add_typer(group, name="api")

    @group.command()
    def openapi() -> None:
        """Print the OpenAPI 3.1 document."""
        from attestry.api.openapi import document_text

        sys.stdout.write(document_text())

    @group.command()
    def reference() -> None:
        """Print the reference as Markdown."""
        from attestry.api.reference import page

        sys.stdout.write(page())

    @group.command()
    def events() -> None:
        """Print the JSON Schema of the events that are told outside."""
        from attestry.domain.event_kinds import schema_text

        sys.stdout.write(schema_text())
