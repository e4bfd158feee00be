"""Reconcile the root of trust: the row with the event that published it, and the files in the store with the row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attestry.domain.errors import AttestryError, NotFoundError
from attestry.evidence.digests import sha256_hex
from attestry.evidence.leaf import event_id, parse_event
from attestry.evidence.tuf_metadata import MAX_FILE_BYTES
from attestry.ports import Item, Key, MetaStore, ObjectStore
from attestry.usecases.findings import Observed
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.records import OUTBOX
from attestry.usecases.root import ROOT_KEY, Publication, show_root, store_name

PUBLISHED: Final = "root.published"
SUBJECT: Final = "root"
_WHERE: Final = f"{ROOT_KEY.partition}/{ROOT_KEY.sort}"


class RootExaminer:
    """Examines the root of trust.

    Args:
        meta: the table.
        store: the model store.
        ledger: what the ledger says.
    """

    def __init__(self, meta: MetaStore, store: ObjectStore, ledger: LedgerBytes) -> None:
        self._meta = meta
        self._store = store
        self._ledger = ledger

    def examine(self) -> list[Observed]:
        """Return what is not as it was published; a row that is gone is found where the ledger is examined.

        Raises:
            UnavailableError: a service did not answer.
        """
        row = self._meta.get(ROOT_KEY)
        if row is None:
            return []
        try:
            published = show_root(self._meta, self._store)
        except AttestryError as error:
            return [Observed("root.changed", _WHERE, "metadata that its keys signed", error.message)]
        if published is None:
            return []
        observed = list(self._event(row, published))
        return observed or list(self._files(row, published))

    def _event(self, row: Item, published: Publication) -> Iterable[Observed]:
        targets, sha256 = published.verified.versions["targets"], published.verified.trusted_root.sha256
        now, later = (event_id(PUBLISHED, SUBJECT, n) for n in (targets, targets + 1))
        leaves = self._ledger.find([now, later])
        if later in leaves:
            yield Observed("root.set_back", _WHERE, f"targets of version {targets + 1}", f"version {targets}")
            return
        # Metadata that was only signed again moves the row's time and makes no event, so the waiting event is looked for by its own.
        waiting = self._meta.get(Key(OUTBOX, f"{row.get('published')}#{now[:32]}")) if now not in leaves else None
        event = leaves[now].event if now in leaves else parse_event(waiting["event"]) if waiting else None
        told = event["data"]["trusted_root_sha256"] if event else None
        if told != sha256:
            yield Observed("root.without_event", _WHERE, f"an event of the trusted root {sha256}", str(told or "none"))

    def _files(self, row: Item, published: Publication) -> Iterable[Observed]:
        if not row.get("copied"):
            return
        for name, body in sorted(published.files.items()):
            key = store_name(name, published.verified.trusted_root.sha256)
            try:
                there = self._store.read(key, max_bytes=MAX_FILE_BYTES)
            except NotFoundError:
                yield Observed("object.deleted", key, f"SHA-256 {sha256_hex(body)}", "nothing")
                continue
            if there != body:
                yield Observed("object.overwritten", key, f"SHA-256 {sha256_hex(body)}", f"SHA-256 {sha256_hex(there)}")
