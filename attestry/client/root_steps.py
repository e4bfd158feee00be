"""The steps of a key ceremony between a folder of files and the registry: begin, rotate, publish, renew.

The folder is the draft, and what travels between the holders: it has the files under the names that they have in the store. What a step
would publish is verified here first as the registry and any verifier will do it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from securesystemslib.signer import CryptoSigner, SSlibKey

from attestry.client.ceremony import (
    Files,
    drafted_root,
    first_metadata,
    holders_of,
    missing,
    newest,
    next_root,
    next_targets,
    seal,
    sign,
)
from attestry.client.key_changes import LabelledKey, first_root, labelled, read_deployed, revoke, rotate
from attestry.domain.errors import ConflictError, InvalidInputError, NotFoundError
from attestry.domain.events import timestamp
from attestry.evidence.tuf_metadata import FILE_NAME, MAX_FILE_BYTES, VerifiedRoot, verify_metadata

PIN: Final = "root.json"
"""Name of the file that a verifier is given: the first root."""

FIRST: Final = "1.root.json"

OVERLAP: Final = timedelta(hours=1)
"""How long a replaced key stays valid: what it signed last is logged a little later."""

RENEW_BEFORE: Final = timedelta(days=90)


class RootApi(Protocol):
    """What a ceremony needs of the registry's API."""

    def root(self) -> Any:
        """Return the published root of trust."""

    def root_keys(self) -> Any:
        """Return the public keys that the deployment signs with."""

    def publish_root(self, files: Mapping[str, str]) -> Any:
        """Publish metadata."""


@dataclass(frozen=True)
class Change:
    """What a draft changes.

    Attributes:
        added: keys that become trusted.
        ended: keys whose window gets an end.
    """

    added: tuple[LabelledKey, ...]
    ended: tuple[LabelledKey, ...]


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the files of a draft.

    Raises:
        NotFoundError: there is no draft.
    """
    paths = [p for p in sorted(folder.iterdir()) if FILE_NAME.fullmatch(p.name)] if folder.is_dir() else []
    if not paths:
        raise NotFoundError(f"{folder} holds no metadata of a root of trust")
    if large := [p.name for p in paths if p.stat().st_size > MAX_FILE_BYTES]:
        raise InvalidInputError.of(large[0], "size", "the file is larger than metadata is")
    return {p.name: p.read_bytes() for p in paths}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a draft; others in the folder stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def published_files(api: RootApi) -> dict[str, bytes]:
    """Return the published files.

    Raises:
        NotFoundError: nothing is published. ApiError of the same status where the registry says so.
    """
    return {str(name): str(text).encode() for name, text in api.root()["files"].items() if FILE_NAME.fullmatch(str(name))}


def today(at: datetime) -> str:
    """Return the start of the day in UTC: the default start of a key, so that what it signed earlier that day is covered."""
    return timestamp(at.replace(hour=0, minute=0, second=0, microsecond=0))


def begin(
    api: RootApi, holders: Sequence[SSlibKey], *, threshold: int, sealer: SSlibKey, demo: bool, start: str, at: datetime
) -> dict[str, bytes]:
    """Return the draft of the first root, unsigned, over the keys that the deployment tells.

    Raises:
        InvalidInputError: see `first_metadata`.
    """
    told = api.root_keys()
    trusted_root = first_root(str(told["registry"]), read_deployed(told["keys"], start), demo=demo)
    return first_metadata(trusted_root, holders, threshold=threshold, sealer=sealer, at=at)


def draft_rotation(
    api: RootApi, files: Mapping[str, bytes], *, only: Collection[str] = (), start: str, end: str, at: datetime
) -> dict[str, bytes]:
    """Return the draft in which the deployment's present keys follow the trusted ones; the files themselves when nothing changes.

    Raises:
        InvalidInputError: see `key_changes.rotate`.
        ConflictError: the keys that were told are another registry's.
    """
    current = drafted_root(files)
    told = api.root_keys()
    if told["registry"] != current.registry:
        raise ConflictError(f"the registry is {told['registry']}; the root is of {current.registry}")
    following = rotate(current, read_deployed(told["keys"], start), end=end, only=only)
    return dict(files) if following == current else next_targets(files, following, at=at)


def draft_revocation(files: Mapping[str, bytes], fingerprint: str, *, since: str, at: datetime) -> dict[str, bytes]:
    """Return the draft in which a key has ended.

    Raises:
        InvalidInputError: see `key_changes.revoke`.
    """
    return next_targets(files, revoke(drafted_root(files), fingerprint, since=since), at=at)


def draft_holders(
    files: Mapping[str, bytes],
    *,
    dismissed: Collection[str],
    appointed: Sequence[SSlibKey],
    threshold: int | None,
    sealer: SSlibKey | None,
    at: datetime,
) -> dict[str, bytes]:
    """Return the draft in which other people hold the root: a new root, and targets that are signed by its holders.

    Args:
        files: what is published.
        dismissed: beginnings of the IDs of keys that go.
        appointed: public keys that come.
        threshold: the new threshold, or None for the present one.
        sealer: public key of the new sealer, or None for the present one.
        at: the time.

    Raises:
        InvalidInputError: a beginning that names no holder or several, or too few holders are left.
    """
    holders, present, sealers = holders_of(files)
    for beginning in dismissed:
        named = [k for k in holders if beginning and k.keyid.startswith(beginning)]
        if len(named) != 1:
            raise InvalidInputError.of("dismiss", "holder", f"{len(named)} holders have a key ID that begins with {beginning!r}")
        holders.remove(named[0])
    current = drafted_root(files)
    after = next_root(files, [*holders, *appointed], threshold=threshold or present, sealer=sealer or sealers[0], demo=current.demo, at=at)
    return next_targets(after, current, at=at)


def change_of(files: Mapping[str, bytes], published: Mapping[str, bytes] | None) -> Change:
    """Return what the draft's trusted root changes against the published one; against none, everything is added."""
    before = {k.key.der: k for k in labelled(drafted_root(published))} if published else {}
    now = labelled(drafted_root(files))
    added = tuple(k for k in now if k.key.der not in before)
    ended = tuple(k for k in now if k.key.der in before and k.key.end != before[k.key.der].key.end)
    return Change(added, ended)


def published_part(files: Mapping[str, bytes]) -> dict[str, bytes] | None:
    """Return the files of a draft without its newest targets: what was published before, as far as the folder tells; None at the beginning.

    It is what a holder is shown a draft against, and nothing rests on it: a registry refuses what does not follow its own.
    """
    number = newest(files, "targets")
    if f"{number - 1}.targets.json" not in files:
        return None
    return {name: data for name, data in files.items() if name != f"{number}.targets.json"}


def sign_all(files: Files, signers: Sequence[CryptoSigner]) -> dict[str, int]:
    """Sign the draft in place with each key, and return which files lack how many signatures still.

    Raises:
        InvalidInputError: a key has nothing to sign here.
    """
    for signer in signers:
        if missing(files) and not sign(files, signer):
            raise InvalidInputError.of("key", "holder", f"the key {signer.public_key.keyid[:16]} has nothing (more) to sign in this draft")
    return missing(files)


def publish(api: RootApi, files: Files, sealer: CryptoSigner, *, at: datetime) -> VerifiedRoot:
    """Seal a draft that has its signatures, verify it as anyone will, and publish it.

    Raises:
        ConflictError: signatures are missing, or the registry has something later.
        IntegrityError: the draft does not verify.
        InvalidInputError: the key is not the sealer's.
    """
    seal(files, sealer, at=at)
    verified = verify_metadata(files[FIRST], files)
    verified.require_current(timestamp(at))
    sent = {name: files[name] for name in verified.names}
    api.publish_root({name: data.decode() for name, data in sent.items()})
    return verified


def needs_renewal(verified: VerifiedRoot, at: datetime) -> bool:
    """Return whether something expires so soon that it should be signed again."""
    return min(verified.expires.values()) <= timestamp(at + RENEW_BEFORE)
