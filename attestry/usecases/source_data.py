"""New source data of a refresh: digested where they were put, and copied to where nobody can change them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attestry.domain.errors import IntegrityError, NotFoundError
from attestry.domain.manifest import DataSource
from attestry.evidence.digests import digest_stream
from attestry.ports import ObjectStore


@dataclass(frozen=True)
class NewData:
    """A file that takes the place of a source file.

    Attributes:
        sha256: hex.
        size: bytes.
        key: object key that it was put under.
        version_id: S3 version of it.
        by: the person who put it there; empty where that is not known.
    """

    sha256: str
    size: int
    key: str
    version_id: str
    by: str = ""


def read_data(store: ObjectStore, key: str, version_id: str | None, *, by: str = "") -> NewData:
    """Return the file under a key with its digest.

    Raises:
        NotFoundError: there is none.
    """
    exactly = version_id
    if not exactly:
        found = store.stat(key)
        if found is None:
            raise NotFoundError(f"there is no object {key}")
        exactly = found.version_id
    with store.open(key, exactly) as stream:
        digested = digest_stream(stream)
    return NewData(digested.sha256, digested.size, key, exactly, by)


def place_data(store: ObjectStore, source: DataSource, new: NewData) -> dict[str, Any]:
    """Copy a file to `datasets/<sha256>/` under the name that the manifest gives the source, and return it for `Version.inputs`.

    Raises:
        IntegrityError: the bytes are not those that were digested.
    """
    key = f"datasets/{new.sha256}/{source.file_name}"
    with store.open(new.key, new.version_id) as stream:
        placed = store.put_new(key, stream, retain=True)
    if placed.sha256 != new.sha256:
        raise IntegrityError(f"{new.key} changed while it was copied")
    return {
        "name": source.name,
        "sha256": placed.sha256,
        "size": placed.size,
        "key": placed.key,
        "version_id": placed.version_id,
        "from": new.key,
        "by": new.by,
    }
