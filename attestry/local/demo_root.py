"""The root of trust of the embedded registry: made by itself, with keys that lie in the data directory.

It is a demo root, and says so in its signed document: whoever can read the directory can sign whatever they like. It exists so that every
step of a verification runs on one machine; what it proves, it proves to nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner

from attestry.client.root_key_files import load_signer, make_key
from attestry.client.root_steps import (
    FIRST,
    OVERLAP,
    PIN,
    RootApi,
    begin,
    draft_rotation,
    needs_renewal,
    publish,
    published_files,
    sign_all,
    today,
    write_folder,
)
from attestry.domain.errors import AttestryError
from attestry.domain.events import timestamp
from attestry.evidence.tuf_metadata import verify_metadata

HOLDERS: Final = ("holder-1.key", "holder-2.key")
SEALER: Final = "sealer.key"

Say = Callable[[str], None]


def make_demo_root(api: RootApi, folder: Path, *, at: datetime, say: Say) -> Path:
    """Make the root of trust, or have it follow the deployment's keys and renew what expires soon; the same again changes nothing.

    Args:
        api: the registry's API, as an admin.
        folder: where keys, metadata and pin lie; made for its owner alone.
        at: the time.
        say: tells a person what happens.

    Returns:
        The pin for verifiers: the first root.

    Raises:
        AttestryError: the registry refused, or a root is published whose keys are not in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    holders, sealer = [_key(folder / name) for name in HOLDERS], _key(folder / SEALER)
    files = _published(api)
    if files is None:
        publics = [h.public_key for h in holders]
        drafted = begin(api, publics, threshold=len(holders), sealer=sealer.public_key, demo=True, start=today(at), at=at)
        what = "made"
    else:
        end = timestamp(at + OVERLAP)
        drafted = draft_rotation(api, files, start=today(at), end=end, at=at)
        what = "follows the deployment's keys" if drafted != files else "is signed again"
    if files is None or drafted != files or needs_renewal(verify_metadata(files[FIRST], files), at):
        sign_all(drafted, holders)
        publish(api, drafted, sealer, at=at)
        say(f"DEMO ROOT: {what}; its keys lie in {folder} and prove nothing to anybody else")
    write_folder(folder, {**drafted, PIN: drafted[FIRST]})
    return folder / PIN


def _published(api: RootApi) -> dict[str, bytes] | None:
    try:
        return published_files(api)
    except AttestryError as error:
        if error.status == 404:
            return None
        raise


def _key(path: Path) -> CryptoSigner:
    if not path.exists():
        make_key(path, None)
    return load_signer(path, None)
