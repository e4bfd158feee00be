"""How a verifier comes from a pinned root to the trusted root: the metadata of The Update Framework (TUF 1.0), read by python-tuf.

    verified = verify_metadata(pin, files)            # who the keys are
    ...                                               # check the checkpoint with verified.trusted_root; it gives the ledger time
    verified.require_current(checkpoint_time)         # the metadata was in force then

Everything is bytes in a mapping of file names; there is no I/O and no clock.

Rules, beyond those of the TUF client workflow (section 5), which are: each newer root is signed by a threshold of the keys of the root
before it and of its own; the last root's keys sign timestamp, snapshot and targets; each file names the next by version and SHA-256.
- The pin is the verifier's. A file that claims the pinned version and says something else is another registry's root.
- A key counts once: two key IDs of one public key are refused, because python-tuf would count two signatures. Only Ed25519 is accepted.
- The targets are exactly one, `trusted_root.json`; nothing is delegated further.
- Outside a demo, root and targets need two keys at least.
- Expiry is judged at a ledger time, in a second step: the checkpoint that gives the time is checked with keys that the metadata names.
  Expired metadata tells nothing about now: who holds an old ledger key can make it say an old time, and only a witness's cosignature,
  or newer metadata, shows that.
- `require_follows` refuses metadata that is older than what was seen before (rollback).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.canonical import parse_strict
from attestry.evidence.trusted_key import check_time
from attestry.evidence.trusted_root import TrustedRoot

TARGET: Final = "trusted_root.json"
ROLES: Final = ("root", "timestamp", "snapshot", "targets")
TWO_KEY_ROLES: Final = ("root", "targets")
MAX_FILE_BYTES: Final = 512 * 1024
MAX_ROOTS: Final = 1000

ROOT_NAME: Final = re.compile(r"([1-9][0-9]{0,5})\.root\.json")
FILE_NAME: Final = re.compile(r"[1-9][0-9]{0,5}\.(?:root|snapshot|targets)\.json|timestamp\.json|(?:[0-9a-f]{64}\.)?trusted_root\.json")
"""Names of the files of a root of trust, in the store and in a bundle."""

_PUBLIC = re.compile(r"[0-9a-f]{64}")

Signed = TypeVar("Signed", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True)
class VerifiedRoot:
    """What a chain of metadata came to.

    Attributes:
        trusted_root: the keys.
        versions: role to the version that was verified.
        expires: role to when it expires, RFC 3339 UTC with microseconds.
        names: names of the files that the chain consists of, the pinned root among them.
        fingerprint: SHA-256 of the signed part of the pinned root, in hex: what people compare.
    """

    trusted_root: TrustedRoot
    versions: Mapping[str, int]
    expires: Mapping[str, str]
    names: tuple[str, ...]
    fingerprint: str

    def require_current(self, at: str) -> None:
        """Refuse metadata that had expired.

        Args:
            at: ledger time, RFC 3339 UTC with microseconds.

        Raises:
            IntegrityError: naming the role that had expired.
        """
        check_time(at)
        for role in ROLES:
            if at >= self.expires[role]:
                raise IntegrityError(
                    f"the {role} metadata expired at {self.expires[role]}, before {at}",
                    details={"role": role, "expires": self.expires[role], "at": at},
                )

    def require_follows(self, earlier: VerifiedRoot) -> None:
        """Refuse metadata that goes back behind what was seen before.

        Raises:
            IntegrityError: a version is lower, the same version says something else, or the trusted root does not continue.
        """
        for role in ROLES:
            if self.versions[role] < earlier.versions[role]:
                raise IntegrityError(
                    f"rollback: {role} version {self.versions[role]} after {earlier.versions[role]}",
                    details={"role": role, "version": self.versions[role], "seen": earlier.versions[role]},
                )
        if self.versions["targets"] == earlier.versions["targets"] and self.trusted_root != earlier.trusted_root:
            raise IntegrityError(f"two trusted roots claim to be version {self.versions['targets']}")
        self.trusted_root.require_continues(earlier.trusted_root)


def verify_metadata(pin: bytes, files: Mapping[str, bytes]) -> VerifiedRoot:
    """Go from the pinned root to the trusted root.

    Args:
        pin: a TUF root.json that the verifier got on a way of its own.
        files: `<N>.root.json`, `timestamp.json`, `<N>.snapshot.json`, `<N>.targets.json`, and the trusted root as
            `<sha256>.trusted_root.json` or `trusted_root.json`; other names are passed over.

    Raises:
        IntegrityError: the chain does not hold, naming the file.
        InvalidInputError: the trusted root is signed, and is no trusted root.
    """
    pinned = read_root(pin)
    root, names = _last_root(pinned, files)
    timestamp = _delegated(root, Timestamp, files, "timestamp.json")
    snapshot_name = f"{timestamp.snapshot_meta.version}.snapshot.json"
    snapshot = _named_by(root, Snapshot, timestamp.snapshot_meta, files, snapshot_name)
    if snapshot.meta.keys() != {"targets.json"}:
        raise IntegrityError(f"{snapshot_name} names other than one targets file")
    targets_meta = snapshot.meta["targets.json"]
    targets_name = f"{targets_meta.version}.targets.json"
    targets = _named_by(root, Targets, targets_meta, files, targets_name)
    target = _only_target(targets, targets_name)
    target_name = f"{target.hashes['sha256']}.{TARGET}"
    if target_name not in files:
        target_name = TARGET
    data = _file(files, target_name)
    _require_match(target, data, target_name)
    trusted_root = TrustedRoot.parse(data)
    for role in TWO_KEY_ROLES:
        if not trusted_root.demo and root.roles[role].threshold < 2:
            raise IntegrityError(f"one key is enough for {role}, and this is no demo root")
    signed: dict[str, Root | Timestamp | Snapshot | Targets] = {
        "root": root,
        "timestamp": timestamp,
        "snapshot": snapshot,
        "targets": targets,
    }
    return VerifiedRoot(
        trusted_root=trusted_root,
        versions={role: part.version for role, part in signed.items()},
        expires={role: _moment(part.expires) for role, part in signed.items()},
        names=(*names, "timestamp.json", snapshot_name, targets_name, target_name),
        fingerprint=hashlib.sha256(pinned.signed_bytes).hexdigest(),
    )


def read_root(data: bytes) -> Metadata[Root]:
    """Return a root that is signed by a threshold of its own keys. It says nothing about whose root it is.

    Raises:
        IntegrityError: it is not, or breaks a rule of the module.
    """
    metadata = read_metadata(Root, data, "the root")
    _require_signed(metadata.signed, metadata, "the root")
    return metadata


def read_metadata(role: type[Signed], data: bytes, name: str) -> Metadata[Signed]:
    """Return metadata of a role, its signatures not checked.

    Args:
        role: the role's class.
        data: the file.
        name: what to call it in an error.

    Raises:
        IntegrityError: the file is no metadata of the role as this registry writes it.
    """
    if len(data) > MAX_FILE_BYTES:
        raise IntegrityError(f"{name} has {len(data)} bytes; the limit is {MAX_FILE_BYTES}")
    try:
        value = parse_strict(data)
        # python-tuf's own compact form; what is read must be what was written, byte for byte.
        exact = json.dumps(value, sort_keys=True, separators=(",", ":")).encode() == data
        if not exact or not isinstance(value, dict) or value.keys() != {"signatures", "signed"}:
            raise IntegrityError(f"{name} is not in the form in which metadata is written")
        metadata: Metadata[Signed] = Metadata[Signed].from_bytes(data)
    except (InvalidInputError, RepositoryError) as error:
        raise IntegrityError(f"{name} is no TUF metadata: {error.__cause__ or error}") from error
    if metadata.signed.type != role.type:
        raise IntegrityError(f"{name} is metadata of {metadata.signed.type}, not of {role.type}")
    if isinstance(metadata.signed, Root):
        _check_root(metadata.signed, name)
    return metadata


def _last_root(pinned: Metadata[Root], files: Mapping[str, bytes]) -> tuple[Root, list[str]]:
    root = pinned.signed
    name = f"{root.version}.root.json"
    names = [name]
    if name in files and read_metadata(Root, files[name], name).signed_bytes != pinned.signed_bytes:
        raise IntegrityError(f"{name} is not the pinned root: this is the evidence of another registry, or the root was swapped")
    numbers = sorted(int(match[1]) for match in map(ROOT_NAME.fullmatch, files) if match)
    newer = [n for n in numbers if n > root.version]
    if len(newer) > MAX_ROOTS:
        raise IntegrityError(f"there are {len(newer)} newer roots; the limit is {MAX_ROOTS}")
    for number in newer:
        name = f"{number}.root.json"
        if number != root.version + 1:
            raise IntegrityError(f"{root.version + 1}.root.json is missing, so {name} cannot be reached from the pin")
        following = read_metadata(Root, files[name], name)
        if following.signed.version != number:
            raise IntegrityError(f"{name} says that it is version {following.signed.version}")
        _require_signed(root, following, name)
        _require_signed(following.signed, following, name)
        root = following.signed
        names.append(name)
    return root, names


def _delegated(root: Root, role: type[Signed], files: Mapping[str, bytes], name: str) -> Signed:
    metadata = read_metadata(role, _file(files, name), name)
    _require_signed(root, metadata, name)
    return metadata.signed


def _named_by(root: Root, role: type[Signed], meta: MetaFile, files: Mapping[str, bytes], name: str) -> Signed:
    _require_match(meta, _file(files, name), name)
    signed = _delegated(root, role, files, name)
    if signed.version != meta.version:
        raise IntegrityError(f"{name} is version {signed.version}; version {meta.version} is named")
    return signed


def _only_target(targets: Targets, name: str) -> TargetFile:
    if targets.delegations is not None or targets.targets.keys() != {TARGET}:
        raise IntegrityError(f"{name} names other than the one target {TARGET}")
    target = targets.targets[TARGET]
    if "sha256" not in target.hashes:
        raise IntegrityError(f"{name} gives no SHA-256 of {TARGET}")
    return target


def _require_match(named: MetaFile | TargetFile, data: bytes, name: str) -> None:
    if not named.hashes or "sha256" not in named.hashes:
        raise IntegrityError(f"no SHA-256 of {name} is named")
    try:
        named.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise IntegrityError(f"{name} is not the file that is named: its length or SHA-256 differs") from error


def _require_signed(delegator: Root, metadata: Metadata[Signed], name: str) -> None:
    role = metadata.signed.type
    result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    if not result.verified:
        raise IntegrityError(
            f"{name} has {len(result.signed)} valid signatures by the keys that root version {delegator.version} names for {role}; "
            f"{result.threshold} are needed",
            details={"file": name, "valid": len(result.signed), "needed": result.threshold},
        )


def _check_root(root: Root, name: str) -> None:
    if not root.consistent_snapshot or root.version > 999_999:
        raise IntegrityError(f"{name} is of a repository of another kind")
    for role_name, role in root.roles.items():
        keys = [root.keys.get(keyid) for keyid in role.keyids]
        publics = [str(key.keyval.get("public")) for key in keys if key is not None]
        if len(publics) != len(keys) or len(set(publics)) != len(publics):
            raise IntegrityError(f"{name} lists a key of {role_name} twice, or one that it does not give")
        if any(key is None or key.keytype != "ed25519" or key.scheme != "ed25519" for key in keys):
            raise IntegrityError(f"{name} has a key of {role_name} that is not Ed25519")
        if not all(_PUBLIC.fullmatch(public) for public in publics):
            raise IntegrityError(f"{name} has a malformed key of {role_name}")
        if len(keys) < role.threshold:
            raise IntegrityError(f"{name} asks for {role.threshold} keys of {role_name} and names {len(keys)}")


def _file(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise IntegrityError(f"{name} is missing", details={"missing": name})
    return files[name]


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
