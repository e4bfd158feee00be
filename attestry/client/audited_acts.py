"""Audited acts as the ledger names them: fetched, each batch checked against its event, and carried away as a bundle.

What the registry says of a batch is not believed: the event is read from the leaf, and the acts count by the digest in it. That the leaf is
in the ledger is what the bundle shows to `attestry verify`, under a pin of the reader's own.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attestry.client.download import download_files
from attestry.client.errors import ApiError
from attestry.client.root_steps import published_files
from attestry.domain.errors import IntegrityError
from attestry.domain.events import timestamp
from attestry.evidence.audit_batch import KIND, SUBJECT, read_named_batch
from attestry.evidence.audit_bundle import write_audit_bundle
from attestry.evidence.leaf import Leaf, event_id
from attestry.evidence.note import Checkpoint, parse_note
from attestry.evidence.tlog import Tile, inclusion_proof

if TYPE_CHECKING:
    from attestry.client.api import RegistryClient


@dataclass(frozen=True)
class AuditBatch:
    """A batch whose acts are those that its event names.

    Attributes:
        number: of the batch.
        index: number of the event's leaf, as the registry tells it.
        leaf: the leaf's bytes.
        data: the object's bytes.
        acts: one for each line.
    """

    number: int
    index: int
    leaf: bytes
    data: bytes
    acts: tuple[dict[str, Any], ...]


def fetch_batch(client: RegistryClient, number: int) -> AuditBatch:
    """Return a batch.

    Raises:
        IntegrityError: the leaf is of another event, or the acts are not those that it names, or the registry says so itself.
        NotFoundError: the store no longer has them.
    """
    try:
        told = client.audit_batch(number)
    except ApiError as error:
        if error.code == IntegrityError.code:
            raise IntegrityError(error.message) from error
        raise
    leaf = Leaf.parse(str(told["leaf"]).encode())
    if leaf.event_id != event_id(KIND, SUBJECT, number):
        raise IntegrityError(f"the registry told of another event than that of batch {number}")
    facts = leaf.event["data"]
    with tempfile.TemporaryDirectory() as folder:
        file = {"path": "batch.jsonl", "sha256": facts["sha256"], "size": told["size"], "url": told["url"]}
        (fetched,) = download_files([file], Path(folder), http=client.http)
        data = fetched.path.read_bytes()
    return AuditBatch(number, int(told["index"]), str(told["leaf"]).encode(), data, tuple(read_named_batch(data, facts)))


def bundle_of(client: RegistryClient, batch: AuditBatch, at: datetime) -> bytes:
    """Return the bundle of a batch, with the ledger's present checkpoint and the published root of trust.

    Raises:
        NotFoundError: no root of trust is published.
    """
    note = client.ledger_file("checkpoint")
    size = Checkpoint.parse(parse_note(note)[0]).size

    def read_tile(level: int, index: int, width: int) -> bytes:
        return client.ledger_file(Tile(level, index, width).path)

    proof = inclusion_proof(read_tile, batch.index, size)
    root = published_files(client)
    return write_audit_bundle(batch.number, batch.data, batch.leaf, batch.index, note, proof, root, made=timestamp(at))
