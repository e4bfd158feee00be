"""Verbs of webhooks: webhooks add, list, rotate, remove, ping."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from attestry.cli.context import Cli, verb

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the webhook.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True, help="Who is told, by signed requests, what stands in the ledger.")
    app.add_typer(group, name="webhooks")

    @verb(group, roles=("admin",))
    def add(
        cli: Cli,
        name: NameArgument,
        url: Annotated[str, typer.Argument(metavar="URL", help="Where to: https://...")],
        reason: ReasonOption,
        kind: Annotated[list[str] | None, typer.Option("--kind", help="Kinds of events: version.*, alias.set; repeatable.")] = None,
        model: Annotated[list[str] | None, typer.Option("--model", help="Models: credit-risk, credit-*; repeatable.")] = None,
    ) -> None:
        """Add a webhook, or add one again that was removed or disabled. Its secret is printed, this once."""
        cli.show(cli.client.add_webhook(name, url, reason=reason, kinds=kind or (), models=model or ()), _secret)

    @verb(group, "list", roles=("admin", "auditor"))
    def list_all(cli: Cli) -> None:
        """List the webhooks, and what became of the last delivery to each."""
        cli.show(cli.client.webhooks(), lambda all_: "\n".join(_line(one) for one in all_) or "no webhooks")

    @verb(group, roles=("admin",))
    def rotate(cli: Cli, name: NameArgument, reason: ReasonOption) -> None:
        """Give a webhook another secret, which is printed; for a day the one before signs as well."""
        cli.show(cli.client.rotate_webhook(name, reason=reason), _secret)

    @verb(group, roles=("admin",))
    def remove(cli: Cli, name: NameArgument, reason: ReasonOption) -> None:
        """Take a webhook away."""
        cli.show(cli.client.remove_webhook(name, reason=reason), lambda a: f"{a['webhook']} is told no more")

    @verb(group, roles=("admin",))
    def ping(cli: Cli, name: NameArgument) -> None:
        """Have a message sent that tells nothing; `webhooks list` shows what became of it."""
        cli.show(cli.client.ping_webhook(name), lambda a: f"{a['ping']} is on its way; attestry webhooks list shows what became of it")


def _secret(answer: dict[str, Any]) -> str:
    return f"{_line(answer)}\n  secret, shown this once: {answer['secret']}"


def _line(webhook: dict[str, Any]) -> str:
    last = webhook["last"]
    told = f"; {last['at']}, try {last['attempt']}: {last['outcome']}" if last else ""
    kinds, models = ", ".join(webhook["kinds"]), ", ".join(webhook["models"])
    return f"{webhook['webhook']}  {webhook['state']}  {webhook['url']}  kinds {kinds}; models {models}{told}"
