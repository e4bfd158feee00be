"""Verbs of the root of trust: root key, init, sign, publish, show, rotate, revoke, holders, renew.

A ceremony is a folder that travels. `docs/key-ceremony.md` tells it step by step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attestry.cli.context import Cli, verb
from attestry.domain.errors import ConflictError, InvalidInputError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

VARIABLE = "ATTESTRY_ROOT_PASSPHRASE"

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of the ceremony: the draft, which travels between the holders.")
]
SealerOption = Annotated[Path | None, typer.Option("--sealer", metavar="FILE", help="Key that signs snapshot and timestamp.")]
SignOption = Annotated[
    list[Path] | None, typer.Option("--sign-with", metavar="FILE", help="A holder's key that is on this machine; repeatable.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts that have compared the fingerprints themselves.")]
PlainOption = Annotated[
    bool, typer.Option("--no-passphrase", help="Leave the key in the clear: for demos, and media encrypted themselves.")
]
StartOption = Annotated[str | None, typer.Option("--start", metavar="TIME", help="When added keys begin, by default 00:00 UTC today.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True, help="The root of trust: whom a verifier believes.")
    app.add_typer(group, name="root")
    _register_reading(group)
    _register_keys(group)
    _register_first(group)
    _register_changes(group)


def _register_reading(group: typer.Typer) -> None:
    @verb(group)
    def show(
        cli: Cli,
        save: Annotated[Path | None, typer.Option("--save", metavar="DIR", help="Save the metadata, and root.json: the pin.")] = None,
    ) -> None:
        """Show the published root of trust, verified on this machine; `--save` writes the pin for `attestry verify --root`."""
        from attestry.client.root_steps import FIRST, PIN, published_files, write_folder
        from attestry.evidence.tuf_metadata import verify_metadata

        files = published_files(cli.client)
        verified = verify_metadata(files[FIRST], files)
        verified.require_current(_now_text())
        if save is not None:
            write_folder(save, {**files, PIN: files[FIRST]})
        cli.show(_described(verified, files), lambda told: _shown(told, save and save / PIN))


def _register_keys(group: typer.Typer) -> None:
    @verb(group)
    def key(
        cli: Cli,
        file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private half goes; the public half goes beside it.")],
        plain: PlainOption = False,
    ) -> None:
        """Make a key for a holder of the root, or for the sealer."""
        from attestry.client.root_key_files import make_key, public_path

        public = make_key(file, None if plain else _new_passphrase(cli, file))
        told = {"key": str(file), "public": str(public_path(file)), "keyid": public.keyid}
        cli.show(told, lambda t: f"{t['key']}\nhand over  {t['public']}\nkey ID     {t['keyid']}")


def _register_first(group: typer.Typer) -> None:
    @verb(group)
    def init(
        cli: Cli,
        folder: FolderArgument,
        holder: Annotated[list[Path], typer.Option("--holder", metavar="FILE", help="Public key of a holder; repeatable.")],
        sealer: Annotated[Path, typer.Option("--sealer", metavar="FILE", help="Private key that signs snapshot and timestamp.")],
        sign_with: SignOption = None,
        threshold: Annotated[int, typer.Option("--threshold", min=1, help="How many holders have to sign.")] = 2,
        start: StartOption = None,
        yes: YesOption = False,
    ) -> None:
        """Begin the root of trust over the keys that the deployment signs with; publish it when enough have signed."""
        from attestry.client.root_key_files import load_public, public_path
        from attestry.client.root_steps import begin, today, write_folder

        if folder.exists() and any(folder.iterdir()):
            raise ConflictError(f"{folder} is not empty; a ceremony begins in a folder of its own")
        now = _now()
        publics = [load_public(path) for path in holder]
        files = begin(
            cli.client,
            publics,
            threshold=threshold,
            sealer=load_public(public_path(sealer)),
            demo=False,
            start=_time(start) if start else today(now),
            at=now,
        )
        _confirm_change(cli, files, None, yes)
        write_folder(folder, files)
        _go_on(cli, folder, files, sign_with, sealer)

    @verb(group)
    def sign(cli: Cli, folder: FolderArgument, key: Annotated[Path, typer.Option("--key", metavar="FILE")], yes: YesOption = False) -> None:
        """Sign a draft as one of its holders; needs no connection and no credentials."""
        from attestry.client.root_steps import published_part, read_folder

        files = read_folder(folder)
        _confirm_change(cli, files, published_part(files), yes)
        _go_on(cli, folder, files, [key], None)

    @verb(group)
    def publish(cli: Cli, folder: FolderArgument, sealer: Annotated[Path, typer.Option("--sealer", metavar="FILE")]) -> None:
        """Seal and publish a draft that has its signatures."""
        from attestry.client.root_steps import read_folder

        _go_on(cli, folder, read_folder(folder), None, sealer)


def _register_changes(group: typer.Typer) -> None:
    @verb(group)
    def rotate(
        cli: Cli,
        folder: FolderArgument,
        key: Annotated[list[str] | None, typer.Option("--key", metavar="NAME", help="Only this key; repeatable. By default all.")] = None,
        sign_with: SignOption = None,
        sealer: SealerOption = None,
        start: StartOption = None,
        end: Annotated[str | None, typer.Option("--end", metavar="TIME", help="When replaced keys end, by default in an hour.")] = None,
        yes: YesOption = False,
    ) -> None:
        """Follow the deployment's keys: add those that it signs with, end those that it has replaced."""
        from attestry.client.root_steps import OVERLAP, draft_rotation, published_files, today
        from attestry.domain.events import timestamp

        published, now = published_files(cli.client), _now()
        begins, ends = (_time(start) if start else today(now)), (_time(end) if end else timestamp(now + OVERLAP))
        files = draft_rotation(cli.client, published, only=key or (), start=begins, end=ends, at=now)
        _change(cli, folder, files, published, sign_with, sealer, yes)

    @verb(group)
    def revoke(
        cli: Cli,
        folder: FolderArgument,
        fingerprint: Annotated[str, typer.Option("--key", metavar="FINGERPRINT", help="Beginning of the key's fingerprint.")],
        since: Annotated[str, typer.Option("--since", metavar="TIME", help="What is logged from then on is refused.")],
        sign_with: SignOption = None,
        sealer: SealerOption = None,
        yes: YesOption = False,
    ) -> None:
        """End a key at a time, usually in the past: it was lost or stolen."""
        from attestry.client.root_steps import draft_revocation, published_files

        published = published_files(cli.client)
        _change(cli, folder, draft_revocation(published, fingerprint, since=_time(since), at=_now()), published, sign_with, sealer, yes)

    @verb(group)
    def holders(
        cli: Cli,
        folder: FolderArgument,
        dismiss: Annotated[list[str] | None, typer.Option("--dismiss", metavar="KEYID", help="Holder's key that goes.")] = None,
        appoint: Annotated[list[Path] | None, typer.Option("--appoint", metavar="FILE", help="Public key that comes.")] = None,
        threshold: Annotated[int | None, typer.Option("--threshold", min=1, help="How many have to sign from then on.")] = None,
        appoint_sealer: Annotated[
            Path | None, typer.Option("--appoint-sealer", metavar="FILE", help="Public key of another sealer.")
        ] = None,
        sign_with: SignOption = None,
        sealer: SealerOption = None,
        yes: YesOption = False,
    ) -> None:
        """Change who holds the root, or have the same holders sign it anew; those of the old and of the new root have to sign."""
        from attestry.client.root_key_files import load_public
        from attestry.client.root_steps import draft_holders, published_files

        published = published_files(cli.client)
        appointed = [load_public(path) for path in appoint or ()]
        files = draft_holders(
            published,
            dismissed=dismiss or (),
            appointed=appointed,
            threshold=threshold,
            sealer=load_public(appoint_sealer) if appoint_sealer else None,
            at=_now(),
        )
        _change(cli, folder, files, published, sign_with, sealer, yes)

    @verb(group)
    def renew(cli: Cli, folder: FolderArgument, sealer: Annotated[Path, typer.Option("--sealer", metavar="FILE")]) -> None:
        """Sign snapshot and timestamp again before they expire; it changes nobody's trust."""
        from attestry.client.root_steps import published_files

        _go_on(cli, folder, published_files(cli.client), None, sealer)


def _change(
    cli: Cli,
    folder: Path,
    files: dict[str, bytes],
    published: dict[str, bytes],
    sign_with: Sequence[Path] | None,
    sealer: Path | None,
    yes: bool,
) -> None:
    if files == published:
        cli.show({"changed": False}, lambda _: "nothing changes: the deployment signs with the keys that are published")
        return
    _confirm_change(cli, files, published, yes)
    _go_on(cli, folder, files, sign_with, sealer)


def _go_on(cli: Cli, folder: Path, files: dict[str, bytes], sign_with: Sequence[Path] | None, sealer: Path | None) -> None:
    """Sign with the keys that are here; publish when the signatures are complete and the sealer is here; tell what is to be done next."""
    from attestry.client.ceremony import missing
    from attestry.client.root_steps import FIRST, PIN, publish, sign_all, write_folder

    lacking = sign_all(files, [_signer(cli, path) for path in sign_with or ()])
    write_folder(folder, files)
    if lacking or sealer is None:
        step = f"attestry root sign {folder} --key FILE" if lacking else f"attestry root publish {folder} --sealer FILE"
        told = {"published": False, "missing": missing(files), "folder": str(folder), "next": step}
        lines = [f"{name}: {count} signature(s) missing" for name, count in lacking.items()]
        cli.show(told, lambda t: "\n".join([*lines, f"next: {t['next']}"]))
        return
    verified = publish(cli.client, files, _signer(cli, sealer), at=_now())
    write_folder(folder, {**files, PIN: files[FIRST]})
    cli.show({"published": True, **_described(verified, files), "pin": str(folder / PIN)}, lambda t: _shown(t, folder / PIN))


def _confirm_change(cli: Cli, files: dict[str, bytes], published: dict[str, bytes] | None, yes: bool) -> None:
    """Show what a signature would say, and ask."""
    from attestry.client.root_steps import change_of

    change = change_of(files, published)
    for word, keys in (("trusts", change.added), ("ends", change.ended)):
        for k in keys:
            outside = " (outside)" if k.key.outside else ""
            until = f" until {k.key.end}" if k.key.end else ""
            cli.say(f"{word:6} {k.label}{outside}\n       {k.key.fingerprint}\n       from {k.key.start}{until}  {k.key.key_id}")
    if not (change.added or change.ended):
        cli.say("the trusted keys stay as they are")
    if yes:
        return
    if cli.as_json or not cli.is_watched:
        raise InvalidInputError.of("yes", "confirm", "compare the fingerprints and confirm with --yes; nobody can be asked here")
    if not typer.confirm("Have you compared these fingerprints with what the owners of the keys say?", err=True):
        raise ConflictError("not confirmed; nothing was signed")


def _described(verified: Any, files: dict[str, bytes]) -> dict[str, Any]:
    from attestry.client.ceremony import holders_of
    from attestry.client.key_changes import labelled

    holders, threshold, sealers = holders_of(files)
    keys = [
        {
            "name": k.label,
            "fingerprint": k.key.fingerprint,
            "key_id": k.key.key_id,
            "start": k.key.start,
            "end": k.key.end,
            "outside": k.key.outside,
        }
        for k in labelled(verified.trusted_root)
    ]
    return {
        "registry": verified.trusted_root.registry,
        "demo": verified.trusted_root.demo,
        "first_root_sha256": verified.fingerprint,
        "trusted_root_sha256": verified.trusted_root.sha256,
        "versions": dict(verified.versions),
        "expires": dict(verified.expires),
        "holders": [k.keyid for k in holders],
        "threshold": threshold,
        "sealer": sealers[0].keyid,
        "keys": keys,
    }


def _shown(told: dict[str, Any], pin: Path | None) -> str:
    demo = ["DEMO ROOT: its keys lie on a machine, unguarded; it proves nothing to anybody else", ""] if told["demo"] else []
    lines = [
        *demo,
        f"registry   {told['registry']}",
        f"root       version {told['versions']['root']}, {told['threshold']} of {len(told['holders'])} holders",
        f"pin        SHA-256 {told['first_root_sha256']}",
        f"targets    version {told['versions']['targets']}, trusted root {told['trusted_root_sha256']}",
        f"expires    {min(told['expires'].values())}",
        "",
    ]
    for key in told["keys"]:
        until = f" until {key['end']}" if key["end"] else ""
        lines.append(f"{key['fingerprint'][:32]}  from {key['start']}{until}  {key['name']}{' (outside)' if key['outside'] else ''}")
    return "\n".join([*lines, *(["", f"the pin for verifiers: {pin}"] if pin else [])])


def _signer(cli: Cli, path: Path) -> CryptoSigner:
    from attestry.client.root_key_files import is_encrypted, load_signer

    return load_signer(path, _passphrase(cli, path) if is_encrypted(path) else None)


def _passphrase(cli: Cli, path: Path) -> bytes:
    given = os.environ.get(VARIABLE)
    if given is None and cli.as_json:
        raise InvalidInputError.of("passphrase", "required", f"{path} asks for a passphrase: set {VARIABLE}")
    return (given if given is not None else str(typer.prompt(f"passphrase of {path}", hide_input=True, err=True))).encode()


def _new_passphrase(cli: Cli, path: Path) -> bytes:
    given = os.environ.get(VARIABLE)
    if given is None and cli.as_json:
        raise InvalidInputError.of("passphrase", "required", f"set {VARIABLE}, or say --no-passphrase")
    text = given if given is not None else typer.prompt(f"passphrase for {path}", hide_input=True, confirmation_prompt=True, err=True)
    if len(str(text)) < 12:
        raise InvalidInputError.of("passphrase", "length", "a passphrase has 12 characters at least")
    return str(text).encode()


def _time(text: str) -> str:
    """Return a time that a person typed, as windows carry it.

    Raises:
        InvalidInputError: no time with its offset.
    """
    from attestry.domain.events import timestamp

    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError
    except ValueError as error:
        raise InvalidInputError.of("time", "rfc3339", f"{text!r} is no time such as 2026-03-01T12:00:00Z") from error
    return timestamp(at.astimezone(UTC))


def _now() -> datetime:
    return datetime.now(UTC)


def _now_text() -> str:
    from attestry.domain.events import timestamp

    return timestamp(_now())
