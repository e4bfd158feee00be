"""The verb `ledger audit`: who was refused, and who read predictions and data, as the ledger's batches of audited acts tell it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attestry.cli.context import Cli, verb
from attestry.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from rich.console import RenderableType

DEFAULT_SINCE = timedelta(days=1)


def register(group: typer.Typer) -> None:
    """Add the verb to the group `ledger`."""

    @verb(group, roles=("auditor", "admin"))
    def audit(
        cli: Cli,
        since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="RFC 3339; by default a day ago.")] = None,
        save: Annotated[
            Path | None,
            typer.Option("--save", metavar="DIR", help="Keep each batch as a bundle, audit-N.zip, that `verify` checks offline."),
        ] = None,
    ) -> None:
        """Show audited acts: denied attempts, and reads of predictions, packets, data and of these acts themselves.

        Each batch is checked against the digest that its event in the ledger names. Ends with 5 where one is not as recorded.
        """
        from attestry.client.audited_acts import bundle_of, fetch_batch
        from attestry.domain.errors import IntegrityError

        start = _start(since)
        batches: list[dict[str, Any]] = []
        acts: list[dict[str, Any]] = []
        for told in cli.client.audit_batches(since=start):
            batch = {**told, "checked": False, "error": ""}
            batches.append(batch)
            if told["index"] is None:
                batch["error"] = "its event is not in the ledger"
                continue
            try:
                fetched = fetch_batch(cli.client, int(told["number"]))
            except IntegrityError as error:
                batch["error"] = error.message
                continue
            batch["checked"] = True
            acts += [act for act in fetched.acts if str(act.get("last", act["sk"])) >= start]
            if save is not None:
                save.mkdir(parents=True, exist_ok=True)
                batch["file"] = str(save / f"audit-{fetched.number}.zip")
                Path(batch["file"]).write_bytes(bundle_of(cli.client, fetched, datetime.now(UTC)))
        cli.show({"since": start, "batches": batches, "acts": sorted(acts, key=lambda a: str(a["sk"]))}, _shown)
        cli.end(ExitCode.BROKEN if any(b["error"] for b in batches if b["index"] is not None) else ExitCode.OK)


def _start(since: str | None) -> str:
    """Return a time as events have it."""
    from attestry.domain.events import timestamp

    if since is None:
        return timestamp(datetime.now(UTC) - DEFAULT_SINCE)
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as error:
        raise typer.BadParameter("a time is RFC 3339, for example 2026-03-01T12:00:00Z", param_hint="--since") from error
    return timestamp(moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))


def _shown(told: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("first", "who", "address", "act", "on", "outcome", "count", box=None, pad_edge=False)
    for act in told["acts"]:
        table.add_row(*map(Text, _cells(act)))
    checked = [b for b in told["batches"] if b["checked"]]
    lines = [Text(f"{len(told['acts'])} rows since {told['since']}; {len(checked)} batches, each with the digest that the ledger names")]
    lines += [Text(f"batch {b['number']}: {b['error']}", style="bold red") for b in told["batches"] if b["error"]]
    lines += [Text(f"batch {b['number']}: {b['file']}") for b in checked if b.get("file")]
    return Group(table, *lines) if told["acts"] else Group(*lines)


def _cells(act: dict[str, Any]) -> tuple[str, ...]:
    who = act.get("principal")
    if not isinstance(who, dict):
        return (str(act["sk"])[:16], "a row that no function of the registry wrote", "", "", "", "", "")
    outcome = f"{act.get('outcome')} {act.get('reason', '')}".strip()
    person = str(who.get("person") or who.get("login") or who.get("subject"))
    return (
        str(act.get("first")),
        person,
        str(who.get("address")),
        str(act.get("act")),
        str(act.get("object")),
        outcome,
        str(act.get("count")),
    )
