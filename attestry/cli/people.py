"""Verbs of persons, for admins: people add, people list."""

from __future__ import annotations

from typing import Annotated

import typer

from attestry.cli.context import Cli, verb


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True, help="Persons, and the logins behind which they stand.")
    app.add_typer(group, name="people")

    @verb(group)
    def add(
        cli: Cli,
        person: Annotated[str, typer.Argument(metavar="PERSON", help="ID of the person.")],
        login: Annotated[list[str], typer.Option("--login", help="A login of theirs: an IAM user name, or a full ARN; repeatable.")],
        name: Annotated[str, typer.Option("--name", help="How people call them.")] = "",
    ) -> None:
        """Add a person, or further logins to one."""
        answer = cli.client.add_person(person, login, name)
        cli.show(answer, lambda a: f"{a['person']}: {', '.join(a['logins'])}")

    @verb(group, "list")
    def list_all(cli: Cli) -> None:
        """List persons and their logins."""
        from attestry.cli import render

        cli.show(cli.client.people(), render.people)
