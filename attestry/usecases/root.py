"""Publish and read the root of trust: TUF metadata over the one trusted root.

Rules:
- What is published is verified as any verifier would do it, from the first root on, and follows what was published before: no version goes
  back, no key that was published disappears. The registry holds none of the keys; it could not publish a root of its own making.
- A root or a trusted root that changes takes a new version of the targets, and with it an event in the ledger. Metadata that is only signed
  again (a later expiry) changes nobody's trust and makes none.
- The row is the commit: it carries the files' bytes, in one transaction with the event. Copies in the store follow, written once and
  retained; whatever a crash left uncopied is copied by the next call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal
from attestry.evidence.tuf_metadata import FILE_NAME, MAX_FILE_BYTES, MAX_ROOTS, ROOT_NAME, TARGET, VerifiedRoot, verify_metadata
from attestry.ports import ABSENT, Item, Key, MetaStore, ObjectStore, Put, Update, When, Write
from attestry.usecases.records import outbox_put

ROOT_KEY: Final = Key("ROOT")
FOLDER: Final = "root/"
TIMESTAMP: Final = "timestamp.json"
FIRST_ROOT: Final = "1.root.json"
_MAX_ROW_BYTES: Final = 300_000


@dataclass(frozen=True)
class Publication:
    """The root of trust as it is published.

    Attributes:
        verified: what it says.
        files: all its files by the names that they have in a bundle.
        changed: False when exactly this was published already.
    """

    verified: VerifiedRoot
    files: Mapping[str, bytes]
    changed: bool = False


def root_files(meta: MetaStore, store: ObjectStore) -> dict[str, bytes] | None:
    """Return the published files by their names in a bundle (`<N>.root.json`, `timestamp.json`, ..., `trusted_root.json`), or None."""
    row = meta.get(ROOT_KEY)
    return None if row is None else _files_of(row, store)


def show_root(meta: MetaStore, store: ObjectStore) -> Publication | None:
    """Return what is published, verified from the first root on; None before the first publication.

    Raises:
        IntegrityError: files in the store or the row were changed by hand.
    """
    files = root_files(meta, store)
    return None if files is None else Publication(verify_metadata(files[FIRST_ROOT], files), files)


def publish_root(
    meta: MetaStore, store: ObjectStore, files: Mapping[str, bytes], *, registry: str, by: Principal, at: datetime
) -> Publication:
    """Publish metadata that its keys' holders have signed. The same again is answered like the first time.

    Args:
        meta: the table.
        store: the model store.
        files: the new files; those that are published already may be left out.
        registry: origin of the registry's own ledger.
        by: who publishes.
        at: the time; the metadata must not have expired by then.

    Raises:
        InvalidInputError: names or sizes out of form, or a root of another registry.
        IntegrityError: the metadata does not verify, or goes back behind what is published.
        ConflictError: somebody else publishes at the same time.
    """
    _check_form(files)
    row = meta.get(ROOT_KEY)
    if row is not None and not row["copied"]:
        _copy(meta, store, row)
    current = _files_of(row, store) if row is not None else {}
    merged = _merged(current, files)
    if FIRST_ROOT not in merged:
        raise InvalidInputError.of(FIRST_ROOT, "required", "the first publication begins with the first root")
    verified = verify_metadata(merged[FIRST_ROOT], merged)
    if verified.trusted_root.registry != registry:
        raise InvalidInputError.of("registry", "registry", f"this registry is {registry}; the root is of {verified.trusted_root.registry}")
    kept = {TARGET if name.endswith(f".{TARGET}") else name: merged[name] for name in verified.names}
    if kept == current:
        return Publication(verified, kept)
    verified.require_current(timestamp(at))
    earlier = verify_metadata(current[FIRST_ROOT], current) if current else None
    if earlier is not None:
        verified.require_follows(earlier)
        _require_progress(earlier, verified)
    written = _commit(meta, row, earlier, verified, kept, by, at)
    _copy(meta, store, written)
    return Publication(verified, kept, changed=True)


def store_name(name: str, sha256: str) -> str:
    """Return the key under which a file lies in the store."""
    return f"{FOLDER}{sha256}.{TARGET}" if name == TARGET else f"{FOLDER}{name}"


def _commit(
    meta: MetaStore,
    row: Item | None,
    earlier: VerifiedRoot | None,
    verified: VerifiedRoot,
    kept: Mapping[str, bytes],
    by: Principal,
    at: datetime,
) -> Item:
    # Older roots lie in the store, and only there: the row must not grow with every rotation.
    older = {f"{n}.root.json" for n in range(1, earlier.versions["root"] + 1)} if earlier else set()
    rev = int(row["rev"]) + 1 if row else 1
    sha256 = verified.trusted_root.sha256
    fresh = {name: data for name, data in kept.items() if name not in older}
    if sum(len(data) for data in fresh.values()) > _MAX_ROW_BYTES:
        raise InvalidInputError.of("files", "size", f"the new files have more than {_MAX_ROW_BYTES} bytes together")
    written: Item = {
        "versions": dict(verified.versions),
        "files": fresh,
        "trusted_root_sha256": sha256,
        "fingerprint": verified.fingerprint,
        "published": timestamp(at),
        "by": by.to_item(),
        "copied": False,
        "rev": rev,
    }
    writes: list[Write] = [Put(ROOT_KEY, written, When(exists=True, equals={"rev": rev - 1}) if row else ABSENT)]
    targets = verified.versions["targets"]
    if earlier is None or targets > earlier.versions["targets"]:
        facts = {
            "trusted_root_sha256": sha256,
            "versions": dict(verified.versions),
            "first_root_sha256": verified.fingerprint,
            "demo": verified.trusted_root.demo,
        }
        writes.append(outbox_put(Event("root.published", "root", targets, at, by, facts)))
    try:
        meta.transact(writes)
    except ConditionFailedError as error:
        raise ConflictError("somebody else published a root at the same time; look at it first") from error
    return written


def _copy(meta: MetaStore, store: ObjectStore, row: Mapping[str, Any]) -> None:
    files: dict[str, bytes] = {name: bytes(data) for name, data in row["files"].items()}
    for name in sorted(files.keys() - {TIMESTAMP}):
        store.put_new(store_name(name, row["trusted_root_sha256"]), files[name], content_type="application/json", retain=True)
    # Last, and overwritten: who reads the store alone finds all that it names.
    store.put(f"{FOLDER}{TIMESTAMP}", files[TIMESTAMP], content_type="application/json")
    try:
        meta.transact([Update(ROOT_KEY, {"copied": True}, When(exists=True, equals={"rev": row["rev"]}))])
    except ConditionFailedError:
        # A later publication copies its own files, and has waited for these.
        return


def _files_of(row: Mapping[str, Any], store: ObjectStore) -> dict[str, bytes]:
    files: dict[str, bytes] = {name: bytes(data) for name, data in row["files"].items()}
    for number in range(1, int(row["versions"]["root"]) + 1):
        name = f"{number}.root.json"
        if name not in files:
            files[name] = store.read(f"{FOLDER}{name}", max_bytes=MAX_FILE_BYTES)
    return files


def _merged(current: Mapping[str, bytes], files: Mapping[str, bytes]) -> dict[str, bytes]:
    for name in current.keys() & files.keys():
        if ROOT_NAME.fullmatch(name) and current[name] != files[name]:
            raise ConflictError(f"another {name} is published", details={"file": name})
    return {**current, **files}


def _require_progress(earlier: VerifiedRoot, verified: VerifiedRoot) -> None:
    for role in ("root", "targets"):
        if verified.versions[role] > earlier.versions[role] and verified.versions["targets"] == earlier.versions["targets"]:
            raise InvalidInputError.of(f"{role}.json", "targets_version", "a new root comes with a new version of the targets")
    if verified.versions["timestamp"] == earlier.versions["timestamp"]:
        raise ConflictError(f"timestamp version {verified.versions['timestamp']} is published and says something else")


def _check_form(files: Mapping[str, bytes]) -> None:
    if not files or len(files) > MAX_ROOTS:
        raise InvalidInputError.of("files", "count", f"one to {MAX_ROOTS} files are needed")
    for name, data in files.items():
        if not FILE_NAME.fullmatch(name):
            raise InvalidInputError.of(f"files.{name:.80}", "name", "no name of a file of a root of trust")
        if len(data) > MAX_FILE_BYTES:
            raise InvalidInputError.of(f"files.{name}", "size", f"the file has {len(data)} bytes; the limit is {MAX_FILE_BYTES}")
