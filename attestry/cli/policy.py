"""Verbs over the registry's policies: policy check, publish, list, show, replay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attestry.cli.context import Cli, verb
from attestry.cli.exit_codes import ExitCode

_Document = Annotated[
    str, typer.Argument(metavar="POLICY", help="A policy's file (YAML or JSON), or NAME or NAME@EDITION of a published one.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True, help="What the registry asks of every promotion, whatever a manifest says.")
    app.add_typer(group, name="policy")
    _register_reads(group)

    @verb(group, roles=("admin",))
    def publish(
        cli: Cli,
        file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy, YAML or JSON.")],
        reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the edition.")],
    ) -> None:
        """Put an edition of a policy in force; earlier editions stay readable."""
        answer = cli.client.publish_policy(read_policy_file(file), reason)
        cli.show(answer, lambda a: f"{a['name']}@{a['number']} is in force (SHA-256 {a['sha256']})")

    @verb(group, roles=("admin", "approver", "auditor", "validator"))
    def replay(
        cli: Cli,
        policy: _Document,
        since: Annotated[str, typer.Option("--since", metavar="DATE", help="First day (UTC, YYYY-MM-DD) of the promotions to judge.")],
        all_: Annotated[bool, typer.Option("--all", help="Show those that would have passed as well.")] = False,
    ) -> None:
        """Tell which approvals and deployments of the past a policy would have stopped, and why; changes nothing."""
        document, promotions = _document(cli, policy), list[dict[str, Any]]()
        after: str | None = ""
        while after is not None:
            answer = cli.client.replay_policy(document, since, after=after)
            promotions += answer["promotions"]
            after = answer["next"]
        stopped = sum(p["stopped"] for p in promotions)
        told = {"policy": document["name"], "since": since, "promotions": promotions, "stopped": stopped}
        cli.show(told, lambda t: _replayed(t, everything=all_))


def _register_reads(group: typer.Typer) -> None:
    @verb(group)
    def check(
        cli: Cli,
        policy: _Document,
        manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="The manifest to hold against it.")],
    ) -> None:
        """Tell in which fields a manifest asks for less than a policy; ends with 1 if there are any."""
        from attestry.client.policy_file import read_manifest_to_check
        from attestry.domain.policies import Policy
        from attestry.domain.policy_checks import check_manifest

        checked = read_manifest_to_check(_read(manifest))
        objections = check_manifest(Policy.from_mapping(_document(cli, policy)), checked)
        told = [{"rule": o.rule, "field": o.field, "message": o.message} for o in objections]
        cli.show({"objections": told}, lambda a: "\n".join(f"{o['field']}: {o['message']}" for o in a["objections"]) or "no objection")
        cli.end(ExitCode.FAILED if told else ExitCode.OK)

    @verb(group, "list")
    def list_all(cli: Cli) -> None:
        """List the policies in force."""
        found = cli.client.policies()
        cli.show({"policies": found}, lambda a: "\n".join(map(_line, a["policies"])) or "no policy is in force")

    @verb(group)
    def show(cli: Cli, name: Annotated[str, typer.Argument(metavar="NAME", help="The policy's name.")]) -> None:
        """Show all editions of a policy, the last one with its document."""
        import yaml

        editions = cli.client.policy_editions(name)
        document = yaml.safe_dump(editions[-1]["document"], sort_keys=False, allow_unicode=True)
        cli.show({"editions": editions}, lambda a: "\n".join([*map(_line, a["editions"]), "", document.rstrip()]))


def read_policy_file(file: Path) -> dict[str, Any]:
    """Return the mapping of a policy's file, checked here so that its errors name the lines.

    Raises:
        typer.BadParameter: it cannot be read.
        InvalidInputError: it is no policy.
    """
    from attestry.client.policy_file import read_policy

    return read_policy(_read(file)).to_mapping()


def _read(file: Path) -> bytes:
    try:
        return file.expanduser().read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror or error}") from error


def _document(cli: Cli, named: str) -> dict[str, Any]:
    if Path(named).suffix in (".yaml", ".yml", ".json") or Path(named).is_file():
        return read_policy_file(Path(named))
    name, _, number = named.partition("@")
    editions = cli.client.policy_editions(name)
    found = [e for e in editions if str(e["number"]) == number] if number else editions[-1:]
    if not found:
        raise typer.BadParameter(f"{name} has editions 1 to {editions[-1]['number']}")
    document: dict[str, Any] = found[0]["document"]
    return document


def _line(edition: dict[str, Any]) -> str:
    return (
        f"{edition['name']}@{edition['number']}  {edition['at']}  {edition['by']}: {edition['reason']}  SHA-256 {edition['sha256'][:16]}…"
    )


def _replayed(told: dict[str, Any], *, everything: bool) -> str:
    lines = []
    for promotion in told["promotions"]:
        if promotion["stopped"] or everything:
            outcome = "would have been stopped" if promotion["stopped"] else "would have passed"
            lines.append(f"{promotion['version']}  {promotion['kind']}  {promotion['at']}  {outcome}")
            lines += [f"    {o['field']}: {o['message']}" for o in promotion["objections"]]
    count = len(told["promotions"])
    lines.append(
        f"{told['policy']} would have stopped {told['stopped']} of {count} promotion{'' if count == 1 else 's'} since {told['since']}"
    )
    return "\n".join(lines)
