"""Verbs of access: access list, who-can, check, grant, withdraw, place, policies, publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attestry.cli.context import Cli, verb
from attestry.cli.exit_codes import ExitCode

_Action = Annotated[str, typer.Argument(metavar="ACTION", help="ID of an operation of the API, `versions.decide` for example.")]
_Model = Annotated[str, typer.Argument(metavar="[MODEL]", help="The model; none for what is about the registry as a whole.")]
_Alias = Annotated[str, typer.Option("--alias", help="The alias that would be set.")]
_Person = Annotated[str, typer.Option("--to", "--person", metavar="PERSON", help="ID of the person.")]
_Login = Annotated[str, typer.Option("--login", metavar="LOGIN", help="Or a login that is nobody's: a service's.")]
_Scope = Annotated[str, typer.Option("--scope", help="Where: registry, model/NAME, tag/KEY=VALUE, project/NAME or unit/NAME.")]
_Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept.")]
_Role = Annotated[str, typer.Argument(metavar="ROLE", help="A role of the registry.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True, help="Who may do what: roles in scopes, and the policies that decide.")
    app.add_typer(group, name="access")
    _register_reviews(group)
    _register_grants(group)
    _register_policies(group)


def _register_reviews(group: typer.Typer) -> None:
    @verb(group, "list", roles=("admin", "auditor"))
    def list_all(
        cli: Cli,
        principal: Annotated[
            str, typer.Option("--principal", metavar="P", help="One alone: a person's ID, or `login/LOGIN` for a service.")
        ] = "",
    ) -> None:
        """List what was granted to whom."""
        kind, name = ("login", principal.removeprefix("login/")) if principal.startswith("login/") else ("person", principal)
        cli.show(
            cli.client.grants(**({kind: name} if principal else {})), lambda held: "\n".join(map(_held, held)) or "nothing was granted"
        )

    @verb(group, "who-can", roles=("admin", "auditor"))
    def who_can(cli: Cli, action: _Action, model: _Model = "", alias: _Alias = "") -> None:
        """Tell who can do something to a model."""
        cli.show(cli.client.who_can(action, model, alias=alias), _review)

    @verb(group)
    def check(cli: Cli, action: _Action, model: _Model = "", alias: _Alias = "", person: _Person = "", login: _Login = "") -> None:
        """Tell whether you can do something, or, to reviewers, whether somebody else can; ends with 1 where not."""
        answer = cli.client.check_access(action, model, alias=alias, **_named(person=person, login=login))
        cli.show(answer, _ruling)
        cli.end(ExitCode.OK if answer["allowed"] else ExitCode.FAILED)


def _register_grants(group: typer.Typer) -> None:
    @verb(group, roles=("admin",))
    def grant(
        cli: Cli,
        role: _Role,
        reason: _Reason,
        to: _Person = "",
        login: _Login = "",
        scope: _Scope = "registry",
        until: Annotated[str, typer.Option("--until", metavar="TIME", help="When it ends by itself, RFC 3339 in UTC.")] = "",
    ) -> None:
        """Let a role count somewhere for a person or a service. From then on grants alone say what they hold."""
        cli.show(cli.client.grant(role, scope, reason=reason, until=until, **_subject(to, login)), _held)

    @verb(group, roles=("admin",))
    def withdraw(cli: Cli, role: _Role, reason: _Reason, to: _Person = "", login: _Login = "", scope: _Scope = "registry") -> None:
        """End a grant; reads and predictions may still be let for ten seconds."""
        cli.show(cli.client.withdraw_grant(role, scope, reason=reason, **_subject(to, login)), _held)

    @verb(group, roles=("admin",))
    def place(
        cli: Cli,
        model: Annotated[str, typer.Argument(metavar="MODEL", help="The model, there or to come.")],
        reason: _Reason,
        tag: Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="A tag; repeatable.")] = None,
        project: Annotated[str, typer.Option("--project", help="Its project.")] = "",
        unit: Annotated[str, typer.Option("--unit", help="Its business unit.")] = "",
    ) -> None:
        """Say where a model lies, all of it: what scopes of roles and policies speak of."""
        tags = dict(_tag(text) for text in tag or [])
        placed = cli.client.place_model(model, tags, project=project, unit=unit, reason=reason)
        cli.show(placed, lambda p: f"{p['model']} lies in {', '.join(p['scopes'])}")


def _register_policies(group: typer.Typer) -> None:
    @verb(group, roles=("admin", "auditor"))
    def policies(cli: Cli) -> None:
        """Show the access policies: those that come with the registry, and those that were added."""
        cli.show(cli.client.access_policies(), _policies)

    @verb(group, roles=("admin",))
    def publish(
        cli: Cli,
        name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the policy.")],
        reason: _Reason,
        file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="The policies, in Cedar's syntax.")] = None,
        end: Annotated[bool, typer.Option("--end", help="End what is in force under the name.")] = False,
    ) -> None:
        """Put an edition of an added access policy in force; earlier editions stay readable."""
        if (file is None) != end:
            raise typer.BadParameter("give --file FILE, or --end to end the policy")
        try:
            text = file.expanduser().read_text(encoding="utf-8") if file else ""
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{file} cannot be read: {error}") from error
        cli.show(cli.client.publish_access_policy(name, text, reason=reason), lambda a: f"{a['name']}@{a['number']} {_state(a)}")


def _subject(person: str, login: str) -> dict[str, str]:
    if bool(person) == bool(login):
        raise typer.BadParameter("give --to PERSON or --login LOGIN")
    return _named(person=person, login=login)


def _named(**texts: str) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text}


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"a tag is KEY=VALUE, not {text}")
    return key, value


def _held(held: dict[str, Any]) -> str:
    lines = [f"  {g['role']} in {g['scope']}{', until ' + g['until'] if g['until'] else ''}" for g in held["grants"]]
    return "\n".join([f"{held['subject']}:", *(lines or ["  nothing any more"])])


def _review(told: dict[str, Any]) -> str:
    granted = [f"  {one['subject']}: {_scopes(one['scopes'])}" for one in told["granted"]]
    roles = " or ".join(told["roles"]) or "no role"
    rest = f"  whoever was never granted anything and acts as {roles}: the platform says who that is"
    return "\n".join([f"{told['action']} on {told['on']}:", *granted, rest])


def _ruling(told: dict[str, Any]) -> str:
    verdict = "allowed" if told["allowed"] else "denied"
    why = f" by {', '.join(told['policies'])}" if told["policies"] else f"; it takes {' or '.join(told['roles']) or 'more than any role'}"
    return f"{told['action']} on {told['on']} is {verdict} to {told['login']}{why}\n  holds {_scopes(told['scopes']) or 'no role'}"


def _scopes(scopes: dict[str, list[str]]) -> str:
    return "; ".join(f"{role} in {', '.join(places)}" for role, places in scopes.items())


def _policies(told: dict[str, Any]) -> str:
    added = [f"{one['name']}@{one['number']} {_state(one)}, by {one['by']}: {one['reason']}\n{one['text']}" for one in told["added"]]
    return "\n".join([*told["default"].values(), *added])


def _state(edition: dict[str, Any]) -> str:
    return f"is in force (SHA-256 {edition['sha256']})" if edition["sha256"] else "ends the policy"
