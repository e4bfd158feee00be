"""Reconcile the ledger with itself, with its index, and with the rows that its events tell of; and what waits to enter it.

A part is one entry bundle: 256 leaves. Looking at it costs a bundle, a tile, one proof, and a few reads of rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from attestry.access.events import ABOUT, row_of
from attestry.domain.errors import AttestryError, IntegrityError, InvalidInputError, NotFoundError
from attestry.domain.events import timestamp
from attestry.domain.policies import PUBLISHED, policy_subject
from attestry.domain.webhooks import KINDS as WEBHOOK_KINDS
from attestry.evidence.leaf import Leaf
from attestry.evidence.note import Checkpoint, Verifier, open_note
from attestry.evidence.tlog import TILE_WIDTH, leaf_hash, split_hashes, tile_at, verify_inclusion
from attestry.ports import Item, Key, MetaStore, ObjectStore
from attestry.usecases.findings import Observed
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.ledger_head import COMMIT, LIVE, leaf_key
from attestry.usecases.policies import COLLECTION, policy_key
from attestry.usecases.reconcile_catalogue import catalogue_row_of
from attestry.usecases.reconcile_runs import GONE, UNLISTED
from attestry.usecases.records import OUTBOX, model_key, person_key, version_key
from attestry.usecases.root import ROOT_KEY
from attestry.usecases.run_rows import LANES, STARTED, lane_key, run_key, run_of_event
from attestry.usecases.sign import delegation_key
from attestry.usecases.webhooks import row_of_subject

CONFLICTS: Final = "CONFLICT"
WAITING: Final = timedelta(minutes=30)
"""How long an event may wait for the ledger, which appends every minute."""

MAX_CONFLICTS: Final = 100


class LedgerExaminer:
    """Examines the ledger.

    Args:
        meta: the table.
        store: the model store.
        ledger: what the ledger says.
        verifiers: the ledger's keys, the present one first; none where they are not known, and signatures are not checked.
    """

    def __init__(self, meta: MetaStore, store: ObjectStore, ledger: LedgerBytes, verifiers: Sequence[Verifier]) -> None:
        self._meta = meta
        self._store = store
        self._ledger = ledger
        self._verifiers = tuple(verifiers)

    def parts(self) -> int:
        """Return how many parts the ledger has."""
        return -(-self._ledger.size() // TILE_WIDTH)

    def examine_head(self, at: datetime) -> list[Observed]:
        """Return what is wrong with the checkpoint, the outbox, and what the sequencer has set aside."""
        observed = [
            Observed("outbox.conflict", f"{CONFLICTS}/{row['sk']}", "one event of an ID, as the registry writes it", str(row.get("reason")))
            for row in self._meta.query(CONFLICTS, limit=MAX_CONFLICTS)
        ]
        oldest = self._meta.query(OUTBOX, limit=1)
        if oldest and str(oldest[0]["sk"]) < timestamp(at - WAITING):
            observed.append(Observed("outbox.stuck", OUTBOX, f"nothing older than {WAITING}", f"an event since {oldest[0]['sk'][:27]}"))
        return observed + list(self._checkpoint())

    def _checkpoint(self) -> Iterable[Observed]:
        row = self._meta.get(COMMIT)
        where = f"{COMMIT.partition}/{COMMIT.sort}"
        try:
            live, note = self._ledger.reader.checkpoint()
        except NotFoundError:
            if row is not None and row.get("published"):
                yield Observed("checkpoint.deleted", LIVE, "the signed checkpoint", "nothing")
            return
        except InvalidInputError as error:
            yield Observed("checkpoint.changed", LIVE, "a signed checkpoint", error.message)
            return
        if row is None:
            yield Observed("checkpoint.row_deleted", where, f"{live.size} leaves", "nothing")
            return
        try:
            committed = Checkpoint.parse(self._open(str(row["note"]).encode()))
            shown = Checkpoint.parse(self._open(note))
        except (IntegrityError, InvalidInputError) as error:
            yield Observed("checkpoint.signature", LIVE, "checkpoints signed by the ledger's key", error.message)
            return
        if (committed.size, committed.root.hex()) != (int(row["size"]), str(row["root"])):
            yield Observed("checkpoint.row_changed", where, f"{committed.size} leaves", f"{row['size']} leaves, root {row['root']}")
        elif row.get("published") and shown != committed:
            yield Observed("checkpoint.changed", LIVE, f"{committed.size} leaves", f"{shown.size} leaves, root {shown.root.hex()}")

    def _open(self, note: bytes) -> str:
        return open_note(note, self._verifiers).text if self._verifiers else note.decode().rpartition("\n\n")[0] + "\n"

    def examine_part(self, part: int) -> list[Observed]:
        """Return what is wrong with 256 leaves: their tile, their way to the root (of one of them), their index, and their rows."""
        try:
            checkpoint, _ = self._ledger.reader.checkpoint()
        except (NotFoundError, InvalidInputError):
            return []
        first, size = part * TILE_WIDTH, checkpoint.size
        if first >= size:
            return []
        tile = tile_at(0, part, size)
        try:
            leaves = list(self._ledger.reader.leaves(first, first + tile.width))
            hashes = [leaf_hash(leaf) for leaf in leaves]
            if list(split_hashes(self._ledger.reader.read_tile(0, part, tile.width))) != hashes:
                return [Observed("ledger.changed", f"ledger/{tile.path}", "the hashes of its entries", "others")]
            chosen = random.SystemRandom().randrange(tile.width)
            proof = self._ledger.reader.inclusion_proof(first + chosen, size)
            verify_inclusion(hashes[chosen], first + chosen, size, proof, checkpoint.root)
            parsed = [Leaf.parse(leaf) for leaf in leaves]
        except AttestryError as error:
            return [Observed("ledger.changed", f"ledger/{tile.path}", "leaves that lead to the signed root", error.message)]
        return [*self._index(first, parsed), *self._told(parsed)]

    def _index(self, first: int, leaves: Sequence[Leaf]) -> Iterable[Observed]:
        rows = self._rows([leaf_key(leaf.event_id) for leaf in leaves])
        for index, leaf in enumerate(leaves, start=first):
            row = rows.get(leaf_key(leaf.event_id))
            expected = (index, leaf.event_sha256, leaf.logged)
            given = None if row is None else (row.get("index"), row.get("sha256"), row.get("logged"))
            if given != expected:
                what = "index.deleted" if given is None else "index.changed"
                yield Observed(what, leaf_key(leaf.event_id).partition, str(expected), str(given or "nothing"))

    def _told(self, leaves: Sequence[Leaf]) -> Iterable[Observed]:
        """Yield what has gone from the table so thoroughly that nothing there leads to it any more."""
        keys: dict[Key, str] = {}
        for leaf in leaves:
            keys |= _rows_of(leaf.event)
        rows = self._rows(list(keys))
        gone_models = {k.partition.removeprefix("MODEL#") for k, what in keys.items() if what == "model.gone" and k not in rows}
        for key, what in keys.items():
            if key in rows:
                if what == "policy.gone" and rows[key].get("gsi_pk") != COLLECTION:
                    # Policies in force are found by their collection, so one that is not in it is in force no more.
                    yield Observed("policy.unlisted", f"{key.partition}/{key.sort}", f"a row of {COLLECTION}", "one that is not listed")
                if what == UNLISTED and rows[key].get("gsi_pk") != LANES:
                    yield Observed(UNLISTED, f"{key.partition}/{key.sort}", f"a row of {LANES}", "one that is not listed")
                continue
            if what == "version.gone" and key.partition.split("#")[1] not in gone_models:
                continue  # found where the version is examined
            yield Observed(what, f"{key.partition}/{key.sort}", "a row that the ledger tells of", "nothing")

    def _rows(self, keys: Sequence[Key]) -> dict[Key, Item]:
        found: dict[Key, Item] = {}
        for start in range(0, len(keys), 100):
            found |= self._meta.get_many(list(keys[start : start + 100]))
        return found


def _rows_of(event: Mapping[str, Any]) -> dict[Key, str]:
    """Return the rows that an event tells of, and what it is called where one of them is gone."""
    kind, subject = str(event["kind"]), str(event["subject"])
    if kind in ("candidate.registered", "version.imported"):
        model, _, number = subject.partition("@")
        return {model_key(model): "model.gone", version_key(model, int(number)): "version.gone"}
    if kind == "key.delegated":
        return {delegation_key(str(event["data"]["kid"])): "delegation.deleted"}
    if kind == "person.changed":
        return {person_key(subject.removeprefix("person/")): "person.gone"}
    if kind == "root.published":
        return {ROOT_KEY: "root.gone"}
    if kind == PUBLISHED:
        return {policy_key(subject.removeprefix(policy_subject(""))): "policy.gone"}
    if kind in WEBHOOK_KINDS:
        return {row_of_subject(subject): "webhook.gone"}
    if kind in ABOUT:
        return {row_of(event): f"{ABOUT[kind]}.gone"}
    if kind == STARTED:
        run = run_of_event(event)
        return {run_key(run): GONE, lane_key(run, "ALL"): UNLISTED}
    described = catalogue_row_of(event)
    return {} if described is None else {described: "catalogue.gone"}
