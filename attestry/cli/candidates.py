"""Verbs of candidates: submit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attestry.cli.context import Cli, verb
from attestry.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from attestry.client.submit import Submitted
    from attestry.client.wait import Followed


def register(app: typer.Typer) -> None:
    """Add the verbs."""

    @verb(app)
    def submit(
        cli: Cli,
        path: Annotated[Path, typer.Argument(metavar="PATH", help="The manifest, or the folder that holds it.", exists=True)],
        wait: Annotated[bool, typer.Option("--wait", help="Follow the version until it is deployed, waits for people, or fails.")] = False,
        allow_dirty: Annotated[
            bool, typer.Option("--allow-dirty", help="Accept changes that are not committed, and store their difference.")
        ] = False,
        timeout: Annotated[float, typer.Option("--timeout", min=1, metavar="SECONDS", help="How long to follow it.")] = 3600,
    ) -> None:
        """Upload a manifest with its source at the git revision, and register it."""
        from attestry.client.submit import submit as send

        with cli.progress() as bars:
            submitted = send(cli.client, path, allow_dirty=allow_dirty, say=cli.say, advance=progress_bars(bars))
        followed = _follow(cli, submitted, timeout) if wait else None
        told = {**asdict(submitted), **({"rest": followed.rest.value, "state": _state(followed)} if followed else {})}
        cli.show(told, lambda _: _sentences(submitted, followed))
        cli.end(ExitCode.OK if followed is None or followed.is_good else ExitCode.FAILED)


def _follow(cli: Cli, submitted: Submitted, timeout: float) -> Followed:
    from attestry.client.wait import wait_for_version

    def moved(stage: str, status: str, standing: str) -> None:
        cli.say(f"{stage} {status}, {standing}")

    return wait_for_version(cli.client, submitted.model, submitted.version, moved=moved, timeout_seconds=timeout)


def _state(followed: Followed) -> dict[str, Any]:
    return {k: followed.version.get(k) for k in ("stage", "status", "standing", "error", "metrics", "version_digest")}


def _sentences(submitted: Submitted, followed: Followed | None) -> str:
    what = "registered" if submitted.created else "was registered before"
    lines = [f"{submitted.model}@{submitted.version} {what}", f"  candidate {submitted.candidate}", f"  revision  {submitted.revision}"]
    if submitted.dirty:
        lines.append("  with changes that are not in the revision; their difference is stored")
    if submitted.unproven:
        lines.append("  your login maps to no person yet, so nobody can approve it: once an admin has added you, run `attestry claim`")
    if followed is not None:
        version = followed.version
        lines.append(f"  {version['stage']} {version['status']}, {version['standing']}")
        if version.get("error"):
            lines.append(f"  {version['error']}")
        if followed.rest.value == "WAITING":
            lines += _waits_for(f"{submitted.model}@{submitted.version}", version)
    return "\n".join(lines)


def _waits_for(reference: str, version: Mapping[str, Any]) -> list[str]:
    """Return what is missing before a version that waits at its approval goes on."""
    policy = version.get("approval_policy") or {}
    if not version.get("submitter_person"):
        then = "its policy approves it by itself" if policy.get("automatic") else "it can be approved"
        return [
            f"  waits for: its submitter is unproven; once an admin has mapped the login and its person has claimed it, {then}:",
            f"    attestry claim {reference}",
        ]
    if policy.get("automatic"):
        return ["  waits for: its policy, which approves it by itself"]
    count = int(policy.get("count") or 1)
    who = f"{count} persons in the role" if count > 1 else "a person in the role"
    if policy.get("require"):
        wanted = [f"{r['count']} {' or '.join(r['roles'])}" for r in policy["require"]]
        who = f"{', then '.join(wanted) if policy.get('in_order') else ' and '.join(wanted)}: persons in the role"
    signed = " --sign-with ~/.ssh/id_ed25519" if policy.get("signed") else ""
    return [
        f"  waits for: {who} {' or '.join(policy.get('roles') or ['approver'])}, not the submitter:",
        f"    attestry packet {reference}",
        f"    attestry approve {reference} --reason TEXT{signed}",
    ]


def progress_bars(bars: Any) -> Any:
    """Return the callback that moves a bar for each file, or None where nobody watches."""
    if bars is None:
        return None
    tasks: dict[str, Any] = {}

    def advance(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=total)
        bars.update(tasks[name], completed=done)

    return advance
