"""Verbs over the ledger: ledger verify, ledger show, ledger rebuild; ledger audit and ledger vkey are in modules of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attestry.cli import ledger_acts, ledger_vkey
from attestry.cli.context import Cli, verb
from attestry.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from attestry.evidence.ledger_audit import LedgerAudit
    from attestry.evidence.note import Verifier
    from attestry.evidence.tuf_metadata import VerifiedRoot

MAX_SHOWN = 100

RootOption = Annotated[Path | None, typer.Option("--root", metavar="ROOT.json", help="The registry's TUF root that you pinned.")]
KeyOption = Annotated[
    list[str] | None,
    typer.Option("--vkey", metavar="VKEY", help="Instead of a root: a verifier key of the ledger or of a witness; repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True, help="The ledger: every event, in an order that nobody can change.")
    app.add_typer(group, name="ledger")
    _register_verify(group)
    _register_show(group)
    _register_rebuild(group)
    ledger_acts.register(group)
    ledger_vkey.register(group)


def _register_verify(group: typer.Typer) -> None:
    @verb(group)
    def verify(
        cli: Cli,
        root: RootOption = None,
        vkey: KeyOption = None,
        since: Annotated[Path | None, typer.Option("--since", metavar="FILE", help="A checkpoint that you kept.")] = None,
        save: Annotated[Path | None, typer.Option("--save", metavar="FILE", help="Keep the checkpoint for the next --since.")] = None,
    ) -> None:
        """Read the whole ledger and check it: leaves, tiles, signatures, that nothing was cut off and no version slipped past a policy."""
        from attestry.evidence.ledger_audit import LedgerBrokenError, audit_ledger
        from attestry.evidence.policy_history import PolicyHistory

        keys, policies = _Keys.given(cli, root, vkey or []), PolicyHistory()
        earlier = since.read_bytes() if since else None
        try:
            with _progress(cli) as advance:
                files = cli.client.ledger_file
                audit = audit_ledger(files, keys.log, keys.witnesses, since=earlier, advance=advance, visit=policies.visit)
            keys.require_valid(audit)
            _require_kept(policies.finish())
        except LedgerBrokenError as error:
            cli.show({"verdict": "BROKEN", "step": error.step, "reason": error.reason}, lambda told: _broken(cli, told))
            cli.end(ExitCode.BROKEN)
            return
        if save is not None:
            save.write_bytes(audit.note)
        cli.show(_described(audit, keys.outside), _shown)


def _register_show(group: typer.Typer) -> None:
    @verb(group)
    def show(
        cli: Cli,
        last: Annotated[int, typer.Option("--last", metavar="N", min=0, max=MAX_SHOWN, help="How many of the latest events to show.")] = 10,
    ) -> None:
        """Show the ledger's checkpoint and its latest events, as the registry tells them; `ledger verify` is what checks them."""
        from attestry.evidence.leaf import Leaf, read_bundle
        from attestry.evidence.note import Checkpoint, parse_note
        from attestry.evidence.tlog import TILE_WIDTH, tile_at

        @lru_cache(maxsize=2)
        def bundle(number: int) -> tuple[bytes, ...]:
            tile = tile_at(0, number, checkpoint.size)
            return read_bundle(cli.client.ledger_file(tile.entries_path), tile.width)

        text, signatures = parse_note(cli.client.ledger_file("checkpoint"))
        checkpoint = Checkpoint.parse(text)
        indexes = range(max(0, checkpoint.size - last), checkpoint.size)
        leaves = [(n, Leaf.parse(bundle(n // TILE_WIDTH)[n % TILE_WIDTH])) for n in indexes]
        told = {
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
            "signatures": [s.name for s in signatures],
            "events": [
                {"index": n, "logged": leaf.logged, "id": leaf.event_id, "kind": leaf.event["kind"], "subject": leaf.event["subject"]}
                for n, leaf in leaves
            ],
        }
        cli.show(told, _listed)


def _register_rebuild(group: typer.Typer) -> None:
    @verb(group)
    def rebuild(
        cli: Cli,
        check: Annotated[
            bool, typer.Option("--check", help="Compare with the table; the table itself is never written from here.")
        ] = False,
        root: RootOption = None,
        vkey: KeyOption = None,
    ) -> None:
        """Verify the ledger, replay its events, and compare every version, decision and deployment with the registry's table.

        Ends with 5 where something differs. People are compared where the registry shows them to the caller.
        """
        from attestry.cli.ledger_rebuild import compared, differences_table, login_map
        from attestry.domain.replay import Index
        from attestry.evidence.ledger_audit import LedgerBrokenError, audit_ledger

        if not check:
            raise typer.BadParameter("the table is compared, never written, from here: say --check", param_hint="--check")
        keys, index = _Keys.given(cli, root, vkey or []), Index()
        try:
            with _progress(cli) as advance:
                audit = audit_ledger(
                    cli.client.ledger_file, keys.log, keys.witnesses, advance=advance, visit=lambda leaf: index.apply(leaf.event)
                )
            keys.require_valid(audit)
        except LedgerBrokenError as error:
            cli.show({"verdict": "BROKEN", "step": error.step, "reason": error.reason}, lambda told: _broken(cli, told))
            cli.end(ExitCode.BROKEN)
            return
        told = compared(audit, index, cli.client, login_map(cli.client), say=cli.say)
        cli.show(told, differences_table)
        cli.end(ExitCode.BROKEN if told["differences"] else ExitCode.OK)


def _require_kept(departures: Sequence[str]) -> None:
    from attestry.evidence.ledger_audit import LedgerBrokenError

    if departures:
        more = f"; and {len(departures) - 1} more" if len(departures) > 1 else ""
        raise LedgerBrokenError("policies", f"{departures[0]}{more}")


class _Keys:
    """Whom the caller believes."""

    def __init__(self, log: Sequence[Verifier], witnesses: Sequence[Verifier], root: VerifiedRoot | None) -> None:
        self.log = log
        self.witnesses = witnesses
        self._root = root

    @classmethod
    def given(cls, cli: Cli, root: Path | None, vkeys: Sequence[str]) -> _Keys:
        """Return the keys that a pinned root leads to, or those that were named."""
        from attestry.client.root_steps import published_files
        from attestry.evidence.note import Algorithm, Verifier, parse_vkey
        from attestry.evidence.tuf_metadata import verify_metadata

        if (root is None) == (not vkeys):
            raise typer.BadParameter("either --root or --vkey says whom to believe", param_hint="--root")
        if root is None:
            named = [parse_vkey(text) for text in vkeys]
            log = [key for key in named if key.algorithm is Algorithm.ED25519]
            return cls(log, [key for key in named if key.algorithm is Algorithm.COSIGNATURE], None)
        verified = verify_metadata(root.read_bytes(), published_files(cli.client))
        trusted = verified.trusted_root
        witnesses = [Verifier.of(key.name, key.public_bytes, Algorithm.COSIGNATURE) for key in trusted.witness_keys()]
        return cls(trusted.ledger_verifiers(), witnesses, verified)

    @property
    def outside(self) -> frozenset[str]:
        """Return the names of witnesses that the root says are outside."""
        return frozenset(key.name for key in self._root.trusted_root.witness_keys() if key.outside) if self._root else frozenset()

    def require_valid(self, audit: LedgerAudit) -> None:
        """Refuse a checkpoint whose keys were not valid: the ledger's at the time of the last leaf, a witness's when it cosigned.

        Raises:
            LedgerBrokenError: so it is.
        """
        from attestry.domain.errors import IntegrityError
        from attestry.domain.events import timestamp
        from attestry.evidence.ledger_audit import LedgerBrokenError
        from attestry.evidence.note import open_note

        if self._root is None or not audit.logged:
            return
        try:
            self._root.require_current(audit.logged)
            open_note(audit.note, self._root.trusted_root.ledger_verifiers(audit.logged))
            for name, at in audit.witnesses:
                self._root.trusted_root.witness(name, timestamp(datetime.fromtimestamp(at, UTC)))
        except IntegrityError as error:
            raise LedgerBrokenError("checkpoint", f"at {audit.logged}: {error.message}") from error


class _progress:  # noqa: N801 - used as a function is
    """Bars that count leaves, while a person watches."""

    def __init__(self, cli: Cli) -> None:
        self._bars = cli.progress()

    def __enter__(self) -> Callable[[int, int], None]:
        bars = self._bars.__enter__()
        if bars is None:
            return lambda _done, _total: None
        task = bars.add_task("leaves", total=None)
        return lambda done, total: bars.update(task, completed=done, total=total)

    def __exit__(self, *error: Any) -> None:
        self._bars.__exit__(*error)


def _described(audit: LedgerAudit, outside: frozenset[str]) -> dict[str, Any]:
    return {
        "verdict": "VERIFIED",
        "origin": audit.checkpoint.origin,
        "size": audit.checkpoint.size,
        "root": audit.checkpoint.root.hex(),
        "logged": audit.logged,
        "witnesses": [{"name": name, "at": _time(at), "outside": name in outside} for name, at in audit.witnesses],
        "since": audit.since,
        "files": audit.files,
    }


def _shown(told: dict[str, Any]) -> str:
    witnesses = [f"{w['name']} at {w['at']}{'' if w['outside'] else ' (not outside)'}" for w in told["witnesses"]] or ["none"]
    lines = [
        f"verdict    {told['verdict']}",
        f"ledger     {told['origin']}",
        f"size       {told['size']} leaves, the last logged {told['logged'] or 'never'}",
        f"root       {told['root']}",
        f"witnesses  {', '.join(witnesses)}",
        f"files      {told['files']} tiles and bundles equal what the leaves give",
    ]
    if told["since"] is not None:
        lines.append(f"since      the first {told['since']} leaves are those of the earlier checkpoint")
    return "\n".join(lines)


def _broken(cli: Cli, told: dict[str, Any]) -> None:
    cli.out.print("verdict    BROKEN", style="bold red")
    cli.out.print(f"step       {told['step']}\nreason     {told['reason']}", markup=False, soft_wrap=True)


def _listed(told: dict[str, Any]) -> str:
    lines = [
        f"ledger  {told['origin']}",
        f"size    {told['size']}",
        f"root    {told['root']}",
        f"signed  {', '.join(told['signatures'])}",
        "",
    ]
    return "\n".join(lines + [f"{e['index']:>8}  {e['logged']}  {e['kind']}  {e['subject']}" for e in told["events"]])


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
