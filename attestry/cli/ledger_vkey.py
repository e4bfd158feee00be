"""The verb `ledger vkey`: the keys of the ledger and its witnesses in the form that note verifiers take (C2SP signed-note)."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attestry.cli.context import Cli, verb

if TYPE_CHECKING:
    from attestry.evidence.trusted_root import TrustedRoot

_SPKI_BYTES = 44
_KEY_BYTES = 32


def register(group: typer.Typer) -> None:
    """Add the verb to the group `ledger`."""

    @verb(group)
    def vkey(
        cli: Cli,
        root: Annotated[Path | None, typer.Option("--root", metavar="ROOT.json", help="The registry's TUF root that you pinned.")] = None,
        every: Annotated[bool, typer.Option("--all", help="Also keys that have ended, which signed earlier checkpoints.")] = False,
        name: Annotated[
            str | None, typer.Option("--name", metavar="NAME", help="Offline, of a key that no root names yet: the key's name.")
        ] = None,
        public_key: Annotated[
            str | None, typer.Option("--public-key", metavar="BASE64", help="With --name: its SubjectPublicKeyInfo, as KMS tells it.")
        ] = None,
        witness: Annotated[bool, typer.Option("--witness", help="With --name: it is the key of a witness.")] = False,
    ) -> None:
        """Print the vkeys of the ledger and of its witnesses, for `--vkey`, for other note verifiers, and for witnesses' configurations.

        Without --root they are what the registry tells: compare them with what you got on a way of your own before you believe them.
        """
        if (name is None) != (public_key is None) or (name is not None and root is not None):
            raise typer.BadParameter("give --name and --public-key together, and then no --root")
        if name is not None:
            told = [_entry("witness" if witness else "ledger", name, _raw(str(public_key)))]
        else:
            told = [k for k in _of_root(_trusted(cli, root)) if every or k["valid"]]
            if root is None:
                cli.say("not pinned: this is what the registry tells; give --root")
        cli.show(told, lambda keys: "\n".join(k["vkey"] + ("" if k["valid"] else f"  # ended {k['end']}") for k in keys))


def _trusted(cli: Cli, pin: Path | None) -> TrustedRoot:
    from attestry.client.root_steps import published_files
    from attestry.evidence.tuf_metadata import verify_metadata

    files = published_files(cli.client)
    start = files["1.root.json"] if pin is None else pin.read_bytes()
    return verify_metadata(start, files).trusted_root


def _of_root(root: TrustedRoot) -> list[dict[str, Any]]:
    from attestry.domain.events import timestamp

    now = timestamp(datetime.now(UTC))
    return [
        {
            **_entry(use, key.name, key.public_bytes),
            "start": key.start,
            "end": key.end,
            "outside": key.outside,
            "valid": key.is_valid_at(now),
        }
        for use, keys in (("ledger", root.ledger_keys()), ("witness", root.witness_keys()))
        for key in keys
    ]


def _entry(use: str, name: str, key: bytes) -> dict[str, Any]:
    from attestry.evidence.note import Algorithm, Verifier

    algorithm = Algorithm.COSIGNATURE if use == "witness" else Algorithm.ED25519
    return {"use": use, "name": name, "vkey": Verifier.of(name, key, algorithm).vkey(), "valid": True}


def _raw(text: str) -> bytes:
    """Return the 32 bytes of an Ed25519 key, given as they are or in a SubjectPublicKeyInfo (RFC 8410)."""
    from attestry.evidence.trusted_key import details_of

    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise typer.BadParameter("the public key is given in base64", param_hint="--public-key") from error
    if len(data) == _SPKI_BYTES:
        details_of(data)
        return data[-_KEY_BYTES:]
    if len(data) != _KEY_BYTES:
        raise typer.BadParameter("an Ed25519 public key is needed, as `aws kms get-public-key` tells it", param_hint="--public-key")
    return data
