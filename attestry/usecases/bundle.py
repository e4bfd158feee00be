"""Make a bundle: collect from table, store and ledger what proves a prediction or a version, and put it into one zip.

Rules:

- Everything is read, nothing is changed; the zip goes to scratch, where it expires, and the caller gets a URL of it.
- Where table and store both tell something, what is written once and named by a digest counts, not the row: a receipt of a sealed batch, an
  attestation that an event names, a move that the ledger has.
- What is missing is left out, and the verifier says so (INCOMPLETE); nothing is made up in its place. An event that is not in the ledger
  yet is carried as it waits in the outbox (SIGNED-UNANCHORED).
- A version's evidence is for every caller: it holds no personal data but who acted. A prediction's request and output may be about a
  person, so they are put in only for roles that have a reason to see what was asked, and only for a caller who says that they are
  wanted; without them all but the payload's digests is proven just the same. A short output stands in the receipt itself, which the
  bundle cannot do without.
- What is collected is verified nowhere here: a bundle counts by what its reader verifies under a pin of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from attestry.domain.errors import ForbiddenError, IntegrityError, InvalidInputError, NotFoundError
from attestry.domain.events import timestamp
from attestry.domain.policies import EditionName, named_editions
from attestry.domain.principal import Principal
from attestry.domain.stages import PROMOTION_OPENED, Stage
from attestry.domain.validations import RECORDED
from attestry.domain.version import Version
from attestry.evidence.bundle import README, REPORT, BundleIndex, policy_file, write_bundle
from attestry.evidence.delegation import key_id, read_unverified_delegation
from attestry.evidence.digests import sha256_hex
from attestry.evidence.leaf import event_id
from attestry.evidence.packet import MAX_PACKET_BYTES, packet_key
from attestry.evidence.prediction_id import PredictionId
from attestry.evidence.promotion_packet import promotion_packet_key
from attestry.evidence.readme import render_readme
from attestry.evidence.report import render_report
from attestry.evidence.seal import CLOSED, SEALED, parse_batch, prove_receipt
from attestry.evidence.validation_record import kept_of
from attestry.ports import Item, MetaStore, ObjectStore
from attestry.usecases.bundle_events import Collected, EventCollector, Sought
from attestry.usecases.collect import MAX_READ_BYTES, BatchPlace, find_batches, find_collected
from attestry.usecases.policies import edition_key
from attestry.usecases.records import load_version, stage_key, transition_key, version_key
from attestry.usecases.root import root_files
from attestry.usecases.sign import delegation_key, predictions_folder, receipt_key

PAYLOAD_READERS: Final = frozenset({"auditor", "deployer", "admin"})
FOLDER: Final = "bundles/"
URL_SECONDS: Final = 15 * 60
MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
MAX_PAYLOAD_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True)
class MadeBundle:
    """A bundle that was made.

    Attributes:
        data: the zip.
        subject: prediction ID or `MODEL@N`.
        model: the model's name.
        payload: whether request and output of the prediction are in it.
        pending: how many of its events are not in the ledger yet.
    """

    data: bytes
    subject: str
    model: str
    payload: bool = False
    pending: int = 0


class BundleMaker:
    """Makes bundles: those of one request, which share the root of trust and what is read of the ledger.

    Args:
        meta: the table.
        store: the model store.
    """

    def __init__(self, meta: MetaStore, store: ObjectStore) -> None:
        self._meta = meta
        self._store = store
        self._events = EventCollector(meta, store)

    @cached_property
    def root(self) -> Mapping[str, bytes]:
        """Return the files of the published root of trust, name to bytes; empty where none is published."""
        return root_files(self._meta, self._store) or {}

    def of_version(self, model: str, number: int, at: datetime) -> MadeBundle:
        """Return the bundle of a version.

        Raises:
            NotFoundError: no such version.
        """
        version = load_version(self._meta, model, number)
        collected = Collected()
        rows = self._add_version(collected, version)
        self._events.add(collected, self._events_of(collected, version, rows))
        self._add_attestations(collected, version)
        self._add_validations(collected, version)
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
        found = self._kept(str(delegation["folder"]), prediction) if delegation else None
        if delegation is None or found is None:
            raise NotFoundError(f"no prediction {prediction_id} was made here")
        version = load_version(self._meta, str(delegation["model"]), int(delegation["number"]))
        collected = Collected()
        rows = self._add_version(collected, version)
        subject = f"key/{prediction.kid}"
        sought = [
            *self._events_of(collected, version, rows),
            Sought(event_id("key.delegated", subject, 1), str(delegation["issued"])),
            Sought(event_id(CLOSED, subject, 1)),
        ]
        batches = {event_id(SEALED, subject, b.first): b for b in find_batches(self._store, str(delegation["folder"]), prediction)}
        self._events.add(collected, [*sought, *map(Sought, batches)])
        token = self._token(delegation, prediction)
        collected.files["prediction/delegation.jwt"] = token.encode()
        collected.files["prediction/receipt.jws"] = str(found["receipt"]).encode()
        for sealed in batches.keys() & collected.events.keys():
            self._add_sealed(collected, batches[sealed], prediction, str(collected.events[sealed]["data"]["object_sha256"]))
        self._add_attestations(collected, version)
        self._add_validations(collected, version)
        shown = payload and self._add_payload(collected, found)
        digest = read_unverified_delegation(token).grant.version.digest
        index = BundleIndex("prediction", prediction_id, version.model, version.number, digest, timestamp(at))
        return self._close(index, collected, payload=shown)

    def _events_of(self, collected: Collected, version: Version, rows: list[Item]) -> list[Sought]:
        """Add the policies that a version was held against, and return the events of it, of them, and of who signed."""
        named = _editions_of(version, rows)
        for edition in named:
            row = self._meta.get(edition_key(edition.name, edition.number))
            if row is not None and sha256_hex(bytes(row["document"])) == edition.sha256:
                collected.files[policy_file(edition.name, edition.number)] = bytes(row["document"])
        events = self._events
        return [*events.moves_of(version, rows), *events.publications(named), *events.changes_of_signers(rows)]

    def _kept(self, folder: str, prediction: PredictionId) -> Item | None:
        """Return what is kept of a prediction: of what row and batch object both tell, the batch's counts, which is written once."""
        row = self._meta.get(receipt_key(prediction.kid, prediction.sequence))
        return {**(row or {}), **(find_collected(self._store, folder, prediction) or {})} or None

    def _token(self, delegation: Mapping[str, Any], prediction: PredictionId) -> str:
        """Return the delegation that the key's ID is the digest of: the row's, or where that was edited the one beside the batches."""
        token = str(delegation["delegation"])
        if key_id(token) == prediction.kid:
            return token
        place = f"{predictions_folder(str(delegation['folder']))}{prediction.kid}/delegation.jwt"
        try:
            kept = self._store.read(place, max_bytes=MAX_DOCUMENT_BYTES).decode("ascii", "replace")
        except NotFoundError:
            return token
        return kept if key_id(kept) == prediction.kid else token

    def _add_sealed(self, collected: Collected, batch: BatchPlace, prediction: PredictionId, sha256: str) -> None:
        """Add the proof that a batch gives; where it is the object that its seal names, its receipt counts and not the row's."""
        raw = self._store.read(batch.key, batch.version_id, max_bytes=MAX_READ_BYTES)
        receipts = dict(parse_batch(raw))
        if prediction.sequence not in receipts:
            return
        if sha256_hex(raw) == sha256:
            collected.files["prediction/receipt.jws"] = receipts[prediction.sequence]
        proof = prove_receipt(list(receipts.values()), prediction.sequence - batch.first)
        collected.files["prediction/proof.json"] = proof.to_bytes()

    def _add_attestations(self, collected: Collected, version: Version) -> None:
        """Add the attestations that events name and no row led to, from where they are kept; leave out those that no event names."""
        moves = _moves_in(collected, version)
        named = {f"attestations/{move['data']['attestation']}.json": str(move["data"]["attestation"]) for move in moves}
        for name, sha256 in named.items():
            if sha256_hex(collected.files.get(name, b"")) != sha256:
                self._add(collected, name, f"{version.folder}/evidence/{name}", None)
        for name in [n for n in collected.files if n.startswith("attestations/") and n not in named]:
            del collected.files[name]

    def _add_validations(self, collected: Collected, version: Version) -> None:
        """Add the validation records that events name, with the validators' signatures."""
        for move in _moves_in(collected, version):
            if move["kind"] == RECORDED:
                sha256, person = str(move["data"]["evidence"]), str(move["principal"]["person"])
                kept = kept_of(version.folder, sha256, move["data"], person)
                names = (f"version/validations/{sha256}.json", f"signatures/{person}#{sha256}.sig")
                for name, (key, version_id) in zip(names, kept.items(), strict=True):
                    self._add(collected, name, key, version_id)

    def _add_version(self, collected: Collected, version: Version) -> list[Item]:
        """Add what a version consists of, and return its rows."""
        rows = self._meta.query(version_key(version.model, version.number).partition)
        manifest, artifact, packet = version.manifest, version.artifact, version.packet
        content = "version/import.json" if version.imported else "version/manifest.json"
        self._add(collected, content, manifest.key, manifest.version_id)
        if artifact is not None:
            self._add(collected, "version/artifact-manifest.json", artifact.key, artifact.version_id)
            self._add(collected, "version/model.sig", f"{version.folder}/evidence/model.sig", None)
        if packet:
            self._add(collected, "version/packet.json", str(packet["key"]), str(packet["version_id"]), MAX_PACKET_BYTES)
            self._add_earlier_packets(collected, version, rows)
        for row in rows:
            kind, _, rest = str(row["sk"]).partition("#")
            if kind == "STAGE" and row.get("record_key"):
                name = f"version/records/{row['stage']}-{int(row['attempt'])}.json"
                self._add(collected, name, str(row["record_key"]), str(row["record_version_id"]))
                self._add_reused(collected, version, row)
            elif kind in ("APPROVAL", "PROMOTION") and row.get("signature"):
                signature = row["signature"]
                # On a promotion the file is named by person and opening, as on an approval that was opened again.
                name = rest if kind == "APPROVAL" else f"{row['person']}#{int(row['opened']):06d}"
                self._add(collected, f"signatures/{name}.sig", str(signature["key"]), str(signature["version_id"]))
            elif kind == "TRANSITION" and row.get("attestation"):
                attestation = row["attestation"]
                name = f"attestations/{attestation['sha256']}.json"
                self._add(collected, name, str(attestation["key"]), str(attestation["version_id"]))
        for name, body in self.root.items():
            collected.files[f"root/{name}"] = body
        return rows

    def _add_reused(self, collected: Collected, version: Version, row: Item) -> None:
        """Add the record of the run that a stage was taken from, where it was not run."""
        place = json.loads(row["plan"]).get("reused_from") if row.get("plan") else None
        run = self._meta.get(stage_key(version.model, int(place["number"]), Stage(row["stage"]), int(place["attempt"]))) if place else None
        if run is not None and run.get("record_key"):
            self._add(collected, f"version/reused/{row['stage']}.json", str(run["record_key"]), str(run["record_version_id"]))

    def _add_earlier_packets(self, collected: Collected, version: Version, rows: Iterable[Item]) -> None:
        """Add the packets of promotions, and of earlier openings of an approval that lapsed or failed; what was judged again needs none."""
        moves = [r for r in rows if str(r["sk"]).startswith("TRANSITION#")]
        since = max((int(m["number"]) for m in moves if m["kind"] == "stage.reopened"), default=0)
        for move in moves:
            opened = move["kind"] == "stage.started" and move["to"]["stage"] == "APPROVAL"
            if opened and since < int(move["number"]) < version.opening:
                key = packet_key(version.folder, int(move["number"]))
                self._add(collected, f"version/packets/{int(move['number']):06d}.json", key, None, MAX_PACKET_BYTES)
            elif move["kind"] == PROMOTION_OPENED:
                key = promotion_packet_key(version.folder, str(move["evidence"]))
                self._add(collected, f"version/packets/{int(move['number']):06d}.json", key, None, MAX_PACKET_BYTES)

    def _add(self, collected: Collected, name: str, key: str, version_id: str | None, limit: int = MAX_DOCUMENT_BYTES) -> None:
        """Add an object; one that is gone is left out."""
        try:
            collected.files[name] = self._store.read(key, version_id, max_bytes=limit)
        except NotFoundError:
            return

    def _add_payload(self, collected: Collected, row: Mapping[str, Any]) -> bool:
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
    def _close(index: BundleIndex, collected: Collected, *, payload: bool = False) -> MadeBundle:
        files = collected.files
        documents = {REPORT: render_report(index, files).encode(), README: render_readme(index, files).encode()}
        return MadeBundle(write_bundle(index, {**files, **documents}), index.subject, index.model, payload, collected.pending)


def _editions_of(version: Version, rows: Iterable[Item]) -> list[EditionName]:
    """Return the policies that a version was held against, by the row of its first move; none where that is gone or was edited."""
    place = transition_key(version.model, version.number, 1).sort
    first = next((row for row in rows if row["sk"] == place), None)
    try:
        return named_editions(first["data"]) if first is not None else []
    except IntegrityError:
        return []


def _moves_in(collected: Collected, version: Version) -> list[Mapping[str, Any]]:
    """Return the events of a version's moves, those that still wait for the ledger included."""
    waiting = [json.loads(body) for name, body in collected.files.items() if name.startswith("ledger/pending/")]
    return [e for e in (*collected.events.values(), *waiting) if e["subject"] == version.reference]


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
