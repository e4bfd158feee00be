"""Disposed: which objects of a version were disposed, by the lists that its moves name by their digests.

`<folder>/evidence/disposals/<sha256>.json`     format, version, version_digest, objects: key, version_id, size, sha256 of each

A move `version.disposed` comes before the first deletion of what its list names. So an object that is gone and in no list was not disposed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from attestry.domain.custody import DISPOSED
from attestry.domain.errors import IntegrityError
from attestry.domain.version import FileRef, Version
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.digests import sha256_hex
from attestry.ports import Item, ObjectStore

FORMAT: Final = 1
MAX_LIST_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class Disposals:
    """What was disposed of a version.

    Attributes:
        objects: key and S3 version of an object to its digest.
        told: for people: when and by whom; empty where nothing was.
    """

    objects: Mapping[tuple[str, str], str] = field(default_factory=dict)
    told: str = ""

    def covers(self, file: FileRef) -> bool:
        """Return whether exactly this file was disposed.

        Raises:
            IntegrityError: an object of that place was, with other bytes than the file's.
        """
        digest = self.objects.get((file.key, file.version_id))
        if digest is not None and digest != file.sha256:
            raise IntegrityError(f"{file.path} was disposed with SHA-256 {digest}; recorded is {file.sha256}")
        return digest is not None

    def allows(self, key: str, version_id: str) -> bool:
        """Return whether a version of an object may be gone."""
        return (key, version_id) in self.objects


NONE: Final = Disposals()


def write_list(version: Version, objects: Iterable[FileRef]) -> bytes:
    """Return the list of objects that are disposed together."""
    named = [{"key": o.key, "version_id": o.version_id, "size": o.size, "sha256": o.sha256} for o in objects]
    return canonical_bytes({"format": FORMAT, "version": version.reference, "version_digest": version.version_digest, "objects": named})


def list_key(folder: str, sha256: str) -> str:
    """Return the key of a list."""
    return f"{folder}/evidence/disposals/{sha256}.json"


def read_list(store: ObjectStore, reference: str, move: Mapping[str, Any]) -> list[FileRef]:
    """Return the objects of the list that a move `version.disposed` names.

    Raises:
        NotFoundError: it is gone.
        IntegrityError: it is another one, or that of another version.
    """
    told = move["data"]
    data = store.read(str(told["list"]), str(told["list_version"]), max_bytes=MAX_LIST_BYTES)
    if sha256_hex(data) != move["evidence"]:
        raise IntegrityError(f"{told['list']} is not the list that move {move['number']} names")
    document = json.loads(data)
    if document["version"] != reference:
        raise IntegrityError(f"{told['list']} is the list of {document['version']}")
    return [FileRef(o["key"], o["key"], o["version_id"], int(o["size"]), o["sha256"]) for o in document["objects"]]


def read_disposals(store: ObjectStore, reference: str, transitions: Iterable[Item]) -> Disposals:
    """Return what was disposed by the moves of a version.

    Args:
        store: the model store.
        reference: `MODEL@N`.
        transitions: its transitions, those that are known to have their events.

    Raises:
        NotFoundError, IntegrityError: a list is gone or another one.
    """
    objects: dict[tuple[str, str], str] = {}
    days: dict[str, None] = {}
    for move in transitions:
        if move["kind"] == DISPOSED:
            objects |= {(o.key, o.version_id): o.sha256 for o in read_list(store, reference, move)}
            who = f"disposed on {str(move['at'])[:10]} by {move['data']['requested_by']}, confirmed by {move['data']['confirmed_by']}"
            days[f"{who}, digest kept"] = None
    return Disposals(objects, "; ".join(days)) if objects else NONE
