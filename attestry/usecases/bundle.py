"""Make a bundle: collect from table, store and ledger what proves a prediction or a version, and put it into one zip.

Rules:

- Everything is read, nothing is changed; the zip goes to scratch, where it expires, and the caller gets a URL of it.
- What is missing is left out, and the verifier says so (INCOMPLETE); nothing is made up in its place. An event that is not in the ledger
  yet is carried as it waits in the outbox (SIGNED-UNANCHORED).
- A version's evidence is for every caller: it holds no personal data but who acted. A prediction's request and output may be about a
  person, so they are put in only for roles that have a reason to see what was asked, and only for a caller who says that they are
  wanted; without them all but the payload's digests is proven just the same. A short output stands in the receipt itself, which the
  bundle cannot do without.
- What is collected is verified nowhere here: a bundle counts by what its reader verifies under a pin of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from attestry.domain.errors import ForbiddenError, InvalidInputError, NotFoundError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.domain.version import Version
from attestry.evidence.bundle import README, REPORT, BundleIndex, write_bundle
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.checks_person_keys import CHANGED, person_subject
from attestry.evidence.delegation import read_unverified_delegation
from attestry.evidence.digests import sha256_hex
from attestry.evidence.leaf import Leaf, event_id
from attestry.evidence.packet import MAX_PACKET_BYTES
from attestry.evidence.prediction_id import PredictionId
from attestry.evidence.readme import render_readme
from attestry.evidence.report import render_report
from attestry.evidence.seal import CLOSED, SEALED, parse_batch, prove_receipt
from attestry.evidence.tlog import inclusion_proof
from attestry.ports import Item, Key, MetaStore, ObjectStore
from attestry.usecases.collect import MAX_READ_BYTES, find_batches, find_receipt
from attestry.usecases.ledger import LedgerReader, find_leaves
from attestry.usecases.outbox import outbox_key
from attestry.usecases.records import load_version, person_key, version_key
from attestry.usecases.root import root_files
from attestry.usecases.sign import delegation_key

PAYLOAD_READERS: Final = frozenset({"auditor", "deployer", "admin"})
FOLDER: Final = "bundles/"
URL_SECONDS: Final = 15 * 60
MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024
_KEYS_AT_ONCE: Final = 100


@dataclass(frozen=True)
class MadeBundle:
    """A bundle that was made.

    Attributes:
        data: the zip.
        subject: prediction ID or `MODEL@N`.
        payload: whether request and output of the prediction are in it.
        pending: how many of its events are not in the ledger yet.
    """

    data: bytes
    subject: str
    payload: bool = False
    pending: int = 0


@dataclass(frozen=True)
class _Sought:
    """An event by its ID, and the time under which it waits in the outbox; empty where that is not known."""

    event_id: str
    at: str = ""


@dataclass
class _Collected:
    files: dict[str, bytes] = field(default_factory=dict)
    events: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    pending: int = 0


class BundleMaker:
    """Makes bundles.

    Args:
        meta: the table.
        store: the model store.
    """

    def __init__(self, meta: MetaStore, store: ObjectStore) -> None:
        self._meta = meta
        self._store = store

    def of_version(self, model: str, number: int, at: datetime) -> MadeBundle:
        """Return the bundle of a version.

        Raises:
            NotFoundError: no such version.
        """
        version = load_version(self._meta, model, number)
        collected = _Collected()
        rows = self._add_version(collected, version)
        self._add_events(collected, [*_moves_of(version, rows), *self._changes_of_signers(rows)])
        index = BundleIndex("version", version.reference, model, number, version.version_digest, timestamp(at))
        return self._close(index, collected)

    def of_prediction(self, prediction_id: str, at: datetime, *, payload: bool = False) -> MadeBundle:
        """Return the bundle of a prediction.

        Args:
            prediction_id: the prediction.
            at: the time.
            payload: put in request, salt and output, where they were captured and are still there.

        Raises:
            InvalidInputError: no prediction ID.
            NotFoundError: no such prediction.
        """
        prediction = PredictionId.parse(prediction_id)
        delegation = self._meta.get(delegation_key(prediction.kid))
        found = find_receipt(self._meta, self._store, prediction_id)
        if delegation is None or found is None:
            raise NotFoundError(f"no prediction {prediction_id} was made here")
        version = load_version(self._meta, str(delegation["model"]), int(delegation["number"]))
        collected = _Collected()
        rows = self._add_version(collected, version)
        collected.files["prediction/delegation.jwt"] = str(delegation["delegation"]).encode()
        collected.files["prediction/receipt.jws"] = str(found["receipt"]).encode()
        subject = f"key/{prediction.kid}"
        sought = [
            *_moves_of(version, rows),
            *self._changes_of_signers(rows),
            _Sought(event_id("key.delegated", subject, 1), str(delegation["issued"])),
            _Sought(event_id(CLOSED, subject, 1)),
        ]
        batches = {event_id(SEALED, subject, b.first): b for b in find_batches(self._store, str(delegation["folder"]), prediction)}
        self._add_events(collected, [*sought, *map(_Sought, batches)])
        for sealed in batches.keys() & collected.events.keys():
            batch = batches[sealed]
            receipts = [r for _, r in parse_batch(self._store.read(batch.key, batch.version_id, max_bytes=MAX_READ_BYTES))]
            collected.files["prediction/proof.json"] = prove_receipt(receipts, prediction.sequence - batch.first).to_bytes()
        shown = payload and self._add_payload(collected, found)
        digest = read_unverified_delegation(str(delegation["delegation"])).grant.version.digest
        index = BundleIndex("prediction", prediction_id, version.model, version.number, digest, timestamp(at))
        return self._close(index, collected, payload=shown)

    def _add_version(self, collected: _Collected, version: Version) -> list[Item]:
        """Add what a version consists of, and return its rows."""
        rows = self._meta.query(version_key(version.model, version.number).partition)
        manifest, artifact, packet = version.manifest, version.artifact, version.packet
        self._add(collected, "version/manifest.json", manifest.key, manifest.version_id)
        if artifact is not None:
            self._add(collected, "version/artifact-manifest.json", artifact.key, artifact.version_id)
            self._add(collected, "version/model.sig", f"{version.folder}/evidence/model.sig", None)
        if packet:
            self._add(collected, "version/packet.json", str(packet["key"]), str(packet["version_id"]), MAX_PACKET_BYTES)
        for row in rows:
            kind, _, rest = str(row["sk"]).partition("#")
            if kind == "STAGE" and row.get("record_key"):
                name = f"version/records/{row['stage']}-{int(row['attempt'])}.json"
                self._add(collected, name, str(row["record_key"]), str(row["record_version_id"]))
            elif kind == "APPROVAL" and row.get("signature"):
                signature = row["signature"]
                self._add(collected, f"signatures/{rest}.sig", str(signature["key"]), str(signature["version_id"]))
            elif kind == "TRANSITION" and row.get("attestation"):
                attestation = row["attestation"]
                name = f"attestations/{attestation['sha256']}.json"
                self._add(collected, name, str(attestation["key"]), str(attestation["version_id"]))
        for name, body in (root_files(self._meta, self._store) or {}).items():
            collected.files[f"root/{name}"] = body
        return rows

    def _changes_of_signers(self, rows: Iterable[Item]) -> list[_Sought]:
        """Return the events of the persons who signed with keys of their own: they show whose the keys were, and until when."""
        sought: list[_Sought] = []
        for row in rows:
            if not str(row["sk"]).startswith("APPROVAL#") or not row.get("signature"):
                continue
            person = str(row["person"])
            there = self._meta.get(person_key(person)) or {}
            times = dict(enumerate(there.get("changed") or (), start=1))
            last = max(int(there.get("rev") or 1), int(row["signature"].get("person_rev") or 1))
            sought += [_Sought(event_id(CHANGED, person_subject(person), n), str(times.get(n, ""))) for n in range(1, last + 1)]
        return sought

    def _add(self, collected: _Collected, name: str, key: str, version_id: str | None, limit: int = MAX_DOCUMENT_BYTES) -> None:
        """Add an object; one that is gone is left out."""
        try:
            collected.files[name] = self._store.read(key, version_id, max_bytes=limit)
        except NotFoundError:
            return

    def _add_events(self, collected: _Collected, sought: Sequence[_Sought]) -> None:
        """Add the leaves of events with their proofs, and the events that still wait in the outbox."""
        places = self._find([s.event_id for s in sought])
        waiting = self._waiting([s for s in sought if s.event_id not in places])
        # What was in neither may have been moved from one to the other in between.
        places |= self._find([s.event_id for s in sought if s.event_id not in places and s.event_id not in waiting])
        for known, raw in waiting.items():
            if known not in places:
                collected.files[f"ledger/pending/{known}.json"] = raw
                collected.pending += 1
        if not places:
            return
        reader = LedgerReader(self._store)
        # Read after the places: the live checkpoint covers every leaf that has an index row.
        checkpoint, note = reader.checkpoint()
        read_tile = lru_cache(maxsize=256)(reader.read_tile)
        proofs: dict[str, list[str]] = {}
        for index in sorted(places.values()):
            raw = reader.leaf(index, checkpoint.size)
            leaf = Leaf.parse(raw)
            if places.get(leaf.event_id) != index:
                continue  # an index row that the ledger does not bear out: somebody wrote it by hand
            collected.files[f"ledger/leaves/{index:012d}.json"] = raw
            collected.events[leaf.event_id] = leaf.event
            proofs[str(index)] = [h.hex() for h in inclusion_proof(read_tile, index, checkpoint.size)]
        collected.files["ledger/checkpoint"] = note
        collected.files["ledger/proofs.json"] = canonical_bytes({"size": checkpoint.size, "proofs": proofs})

    def _find(self, ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(ids), _KEYS_AT_ONCE):
            found |= find_leaves(self._meta, list(ids[start : start + _KEYS_AT_ONCE]))
        return found

    def _waiting(self, sought: Iterable[_Sought]) -> dict[str, bytes]:
        keys = {outbox_key({"at": s.at, "id": s.event_id}): s.event_id for s in sought if s.at}
        found: dict[Key, Item] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            found |= self._meta.get_many(list(keys)[start : start + _KEYS_AT_ONCE])
        return {keys[key]: bytes(row["event"]) for key, row in found.items()}

    def _add_payload(self, collected: _Collected, row: Mapping[str, Any]) -> bool:
        """Add request, salt and output where they were captured and are still there; return whether any was."""
        request, output = self._payload_part(row, "request"), self._payload_part(row, "output")
        if request is not None and row.get("salt"):
            collected.files |= {"prediction/request.bin": request, "prediction/salt.txt": str(row["salt"]).encode()}
        if output is not None:
            collected.files["prediction/output.json"] = output
        return request is not None or output is not None

    def _payload_part(self, row: Mapping[str, Any], name: str) -> bytes | None:
        if name in row:
            return row[name].encode() if isinstance(row[name], str) else bytes(row[name])
        place = (row.get("payload") or {}).get(name)
        if place is None:
            return None
        try:
            return self._store.read(str(place["key"]), str(place["version_id"]), max_bytes=MAX_PAYLOAD_BYTES)
        except (NotFoundError, InvalidInputError):
            return None

    @staticmethod
    def _close(index: BundleIndex, collected: _Collected, *, payload: bool = False) -> MadeBundle:
        files = collected.files
        documents = {REPORT: render_report(index, files).encode(), README: render_readme(index, files).encode()}
        return MadeBundle(write_bundle(index, {**files, **documents}), index.subject, payload, collected.pending)


def may_have_payload(by: Principal) -> bool:
    """Return whether a caller may have a prediction's request and output."""
    return bool(set(by.roles) & PAYLOAD_READERS)


def require_payload_reader(by: Principal, prediction_id: str) -> None:
    """Refuse a caller who may not see what was asked and answered.

    Raises:
        ForbiddenError: naming the roles that may.
    """
    if not may_have_payload(by):
        roles = ", ".join(sorted(PAYLOAD_READERS))
        raise ForbiddenError(f"request and output of {prediction_id} are shown to {roles} alone; without them the bundle is for everybody")


def hand_out(scratch: ObjectStore, made: MadeBundle) -> dict[str, Any]:
    """Put a bundle where the caller can fetch it, and return `url`, `sha256`, `size`, `subject`, `payload` and `pending`."""
    sha256 = sha256_hex(made.data)
    key = f"{FOLDER}{sha256}.zip"
    scratch.put(key, made.data, content_type="application/zip")
    return {
        "subject": made.subject,
        "url": scratch.presign_get(key, None, seconds=URL_SECONDS),
        "sha256": sha256,
        "size": len(made.data),
        "payload": made.payload,
        "pending": made.pending,
    }


def _moves_of(version: Version, rows: Iterable[Item]) -> list[_Sought]:
    """Return the events of a version's moves, as its transitions name them."""
    transitions = [r for r in rows if str(r["sk"]).startswith("TRANSITION#")]
    return [_Sought(event_id(str(r["kind"]), version.reference, int(r["number"])), str(r["at"])) for r in transitions]
