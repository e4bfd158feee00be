"""Verbs of persons, for admins: people add, people withdraw-key, people list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attestry.cli.context import Cli, verb


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True, help="Persons, and the logins behind which they stand.")
    app.add_typer(group, name="people")

    @verb(group, roles=("admin",))
    def add(
        cli: Cli,
        person: Annotated[str, typer.Argument(metavar="PERSON", help="ID of the person.")],
        login: Annotated[
            list[str] | None, typer.Option("--login", help="A login of theirs: an IAM user name, or a full ARN; repeatable.")
        ] = None,
        ssh_key: Annotated[
            list[Path] | None,
            typer.Option("--ssh-key", metavar="FILE", help="Public key (.pub, ssh-ed25519) that they sign approvals with; repeatable."),
        ] = None,
        name: Annotated[str, typer.Option("--name", help="How people call them.")] = "",
    ) -> None:
        """Add a person, or further logins and SSH keys to one."""
        if not login and not ssh_key:
            raise typer.BadParameter("give --login NAME or --ssh-key FILE")
        keys = [read_public_key(file) for file in ssh_key or []]
        answer = cli.client.add_person(person, login or [], name, ssh_keys=keys)
        cli.show(answer, lambda a: "\n".join([f"{a['person']}: {', '.join(a['logins'])}", *_keys(a)]))

    @verb(group, "withdraw-key", roles=("admin",))
    def withdraw_key(
        cli: Cli,
        person: Annotated[str, typer.Argument(metavar="PERSON", help="ID of the person.")],
        reason: Annotated[str, typer.Option("--reason", help="Why.")],
        ssh_key: Annotated[list[Path] | None, typer.Option("--ssh-key", metavar="FILE", help="The public key (.pub); repeatable.")] = None,
        fingerprint: Annotated[
            list[str] | None, typer.Option("--fingerprint", metavar="SHA256:...", help="Or its fingerprint; repeatable.")
        ] = None,
    ) -> None:
        """Withdraw SSH keys of a person, for good. What they signed before stays proven; they sign nothing from then on."""
        from attestry.evidence.ssh_signature import SshKey

        named = [*(SshKey.parse(read_public_key(file)).fingerprint for file in ssh_key or []), *(fingerprint or [])]
        if not named:
            raise typer.BadParameter("give --ssh-key FILE or --fingerprint SHA256:...")
        answer = cli.client.withdraw_keys(person, named, reason)
        cli.show(answer, lambda a: "\n".join([f"{a['person']}: {', '.join(a['logins'])}", *_keys(a)]))

    @verb(group, "list", roles=("admin", "auditor"))
    def list_all(cli: Cli) -> None:
        """List persons and their logins."""
        from attestry.cli import render

        cli.show(cli.client.people(), render.people)


def read_public_key(file: Path) -> str:
    """Return the line of a public key's file, checked here so that a private key given by mistake never leaves this machine.

    Raises:
        typer.BadParameter: it cannot be read, or holds no key that the registry takes.
    """
    from attestry.domain.errors import InvalidInputError
    from attestry.evidence.ssh_signature import SshKey

    try:
        return SshKey.parse(file.expanduser().read_text(encoding="utf-8")).text
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}") from error
    except InvalidInputError as error:
        raise typer.BadParameter(f"{file}: {error.problems[0].message}") from error


def _keys(person: dict[str, Any]) -> list[str]:
    return [
        f"  signed with {key['fingerprint']} from {key['added']} to {key['withdrawn']}"
        if key.get("withdrawn")
        else f"  signs with {key['fingerprint']}, since {key['added']}"
        for key in person.get("ssh_keys", [])
    ]
