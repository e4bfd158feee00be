"""The key ceremony: drafts of TUF metadata, and signatures on them by people who may never meet.

    files = first_metadata(trusted_root, holders, threshold=2, sealer=sealer_key, at=now)
    sign(files, mine)                 # on my machine
    sign(files, yours)                # on yours, from a copy of the files
    missing(files)                    # {} once enough have signed
    seal(files, sealer, at=now)       # snapshot and timestamp, over the finished files
    client.publish_root(files)

A draft is a mapping of file names to bytes, the same names as in the store; it travels as a directory.

Roles: `root` and `targets` have the same holders and threshold. `snapshot` and `timestamp` have one further key, the sealer: it cannot say
who is trusted, only which of what the holders signed is the latest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from attestry.domain.errors import ConflictError, InvalidInputError
from attestry.evidence.trusted_root import TrustedRoot
from attestry.evidence.tuf_metadata import ROOT_NAME, TARGET, TWO_KEY_ROLES, read_metadata

HOLDERS_LIFE: Final = timedelta(days=730)
"""How long root and targets are valid: the holders meet at least every two years."""

SEALER_LIFE: Final = timedelta(days=365)
"""How long snapshot and timestamp are valid: `attestry root renew` is due once a year."""

Files = MutableMapping[str, bytes]


def first_metadata(
    trusted_root: TrustedRoot, holders: Sequence[SSlibKey], *, threshold: int, sealer: SSlibKey, at: datetime
) -> dict[str, bytes]:
    """Return the first root and targets, unsigned.

    Args:
        trusted_root: what the targets will say.
        holders: public keys of those who sign root and targets.
        threshold: how many of them are needed.
        sealer: public key that signs snapshot and timestamp.
        at: the time.

    Raises:
        InvalidInputError: too few holders or too low a threshold, or a key twice.
    """
    root = Root(version=1, expires=at + HOLDERS_LIFE, consistent_snapshot=True)
    _appoint(root, holders, threshold, sealer, demo=trusted_root.demo)
    return {"1.root.json": Metadata(root).to_bytes(), **_targets(trusted_root, 1, at)}


def next_targets(files: Mapping[str, bytes], trusted_root: TrustedRoot, *, at: datetime) -> dict[str, bytes]:
    """Return the files with the next version of the targets, unsigned."""
    number = newest(files, "targets") + 1
    return {**files, **_targets(trusted_root, number, at)}


def next_root(
    files: Mapping[str, bytes], holders: Sequence[SSlibKey], *, threshold: int, sealer: SSlibKey, demo: bool, at: datetime
) -> dict[str, bytes]:
    """Return the files with the next version of the root, unsigned: other holders, or another sealer.

    Raises:
        InvalidInputError: see `first_metadata`.
    """
    number = newest(files, "root") + 1
    root = Root(version=number, expires=at + HOLDERS_LIFE, consistent_snapshot=True)
    _appoint(root, holders, threshold, sealer, demo=demo)
    return {**files, f"{number}.root.json": Metadata(root).to_bytes()}


def sign(files: Files, signer: CryptoSigner) -> list[str]:
    """Sign, in place, whatever of the draft the key may sign and has not yet; a file that has its signatures is left alone.

    Returns:
        Names of the files that were signed.
    """
    signed = []
    keyid = signer.public_key.keyid
    for name in missing(files):
        metadata = _load(files, name)
        may = {k for root in _roots_for(files, name) for k in root.roles[metadata.signed.type].keyids}
        if keyid in may and keyid not in metadata.signatures:
            metadata.sign(signer, append=True)
            files[name] = metadata.to_bytes()
            signed.append(name)
    return signed


def missing(files: Mapping[str, bytes]) -> dict[str, int]:
    """Return which files of the holders lack signatures, and how many: the newest root and the newest targets."""
    lacking = {}
    for name in _held_names(files):
        metadata = _load(files, name)
        results = [
            root.get_verification_result(metadata.signed.type, metadata.signed_bytes, metadata.signatures)
            for root in _roots_for(files, name)
        ]
        count = max(result.missing for result in results)
        if count:
            lacking[name] = count
    return lacking


def seal(files: Files, sealer: CryptoSigner, *, at: datetime) -> None:
    """Add snapshot and timestamp over the finished files, in place, each one version later than what is there.

    Raises:
        ConflictError: signatures of holders are missing.
        InvalidInputError: the key is not the sealer's.
    """
    if lacking := missing(files):
        named = ", ".join(f"{name} ({count})" for name, count in lacking.items())
        raise ConflictError(f"signatures are missing: {named}", details={"missing": lacking})
    root = _root(files, newest(files, "root"))
    if sealer.public_key.keyid not in root.roles[Timestamp.type].keyids:
        raise InvalidInputError.of("key", "sealer", "this key does not sign snapshot and timestamp")
    timestamp = read_metadata(Timestamp, files["timestamp.json"], "timestamp.json").signed if "timestamp.json" in files else None
    number = newest(files, "targets")
    meta = {"targets.json": _meta_file(number, files[f"{number}.targets.json"])}
    version = timestamp.snapshot_meta.version + 1 if timestamp else 1
    snapshot = Metadata(Snapshot(version=version, expires=at + SEALER_LIFE, meta=meta))
    snapshot.sign(sealer)
    files[f"{version}.snapshot.json"] = snapshot.to_bytes()
    latest = Metadata(
        Timestamp(
            version=timestamp.version + 1 if timestamp else 1,
            expires=at + SEALER_LIFE,
            snapshot_meta=_meta_file(version, files[f"{version}.snapshot.json"]),
        )
    )
    latest.sign(sealer)
    files["timestamp.json"] = latest.to_bytes()


def newest(files: Mapping[str, bytes], role: str) -> int:
    """Return the highest version of a role's files.

    Raises:
        InvalidInputError: there is none.
    """
    numbers = [int(name.partition(".")[0]) for name in files if name.endswith(f".{role}.json") and name.partition(".")[0].isdigit()]
    if not numbers:
        raise InvalidInputError.of("files", "draft", f"there is no {role} metadata here")
    return max(numbers)


def holders_of(files: Mapping[str, bytes]) -> tuple[list[SSlibKey], int, list[SSlibKey]]:
    """Return the holders' public keys, their threshold, and the sealer's key, as the newest root names them."""
    root = _root(files, newest(files, "root"))
    holders, sealers = (_keys(root, root.roles[role].keyids) for role in (Root.type, Timestamp.type))
    return holders, root.roles[Root.type].threshold, sealers


def drafted_root(files: Mapping[str, bytes]) -> TrustedRoot:
    """Return the trusted root that the newest targets name: what a holder looks at before signing.

    Raises:
        InvalidInputError: the draft does not hold it.
    """
    name = f"{newest(files, 'targets')}.targets.json"
    digest = read_metadata(Targets, files[name], name).signed.targets[TARGET].hashes["sha256"]
    data = files.get(f"{digest}.{TARGET}") or files.get(TARGET)
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        raise InvalidInputError.of(TARGET, "draft", f"the trusted root that {name} names is not here")
    return TrustedRoot.parse(data)


def _appoint(root: Root, holders: Sequence[SSlibKey], threshold: int, sealer: SSlibKey, *, demo: bool) -> None:
    publics = [str(key.keyval["public"]) for key in (*holders, sealer)]
    if len(set(publics)) != len(publics):
        raise InvalidInputError.of("keys", "distinct", "the same key stands there twice; holders and sealer each have their own")
    if threshold < (1 if demo else 2) or threshold > len(holders):
        raise InvalidInputError.of("threshold", "threshold", f"{threshold} of {len(holders)} keys: outside a demo two are needed at least")
    for role in TWO_KEY_ROLES:
        for key in holders:
            root.add_key(key, role)
        root.roles[role].threshold = threshold
    for role in (Snapshot.type, Timestamp.type):
        root.add_key(sealer, role)


def _targets(trusted_root: TrustedRoot, number: int, at: datetime) -> dict[str, bytes]:
    data = trusted_root.to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    target = TargetFile(length=len(data), hashes={"sha256": digest}, path=TARGET)
    targets = Targets(version=number, expires=at + HOLDERS_LIFE, targets={TARGET: target})
    return {f"{number}.targets.json": Metadata(targets).to_bytes(), f"{digest}.{TARGET}": data}


def _held_names(files: Mapping[str, bytes]) -> list[str]:
    return [f"{newest(files, role)}.{role}.json" for role in TWO_KEY_ROLES]


def _roots_for(files: Mapping[str, bytes], name: str) -> list[Root]:
    """Return the roots whose thresholds a file has to meet: a new root that of the one before, too."""
    number = newest(files, "root")
    roots = [_root(files, number)]
    if ROOT_NAME.fullmatch(name) and number > 1:
        roots.append(_root(files, number - 1))
    return roots


def _root(files: Mapping[str, bytes], number: int) -> Root:
    name = f"{number}.root.json"
    if name not in files:
        raise InvalidInputError.of(name, "draft", f"{name} is missing")
    return read_metadata(Root, files[name], name).signed


def _load(files: Mapping[str, bytes], name: str) -> Metadata[Any]:
    return read_metadata(Root if ROOT_NAME.fullmatch(name) else Targets, files[name], name)


def _keys(root: Root, keyids: Sequence[str]) -> list[SSlibKey]:
    return [key for keyid in keyids if isinstance(key := root.keys[keyid], SSlibKey)]


def _meta_file(version: int, data: bytes) -> MetaFile:
    return MetaFile(version=version, length=len(data), hashes={"sha256": hashlib.sha256(data).hexdigest()})
