"""Bundles of audited acts: one batch, carried away and verified offline.

A bundle of kind `audit` holds the batch, the leaf of the event that names it with its audit path, the checkpoint, and the root of trust.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attestry.domain.errors import IntegrityError
from attestry.evidence.audit_batch import KIND, SUBJECT, read_named_batch
from attestry.evidence.audit_report import render_audit_report
from attestry.evidence.bundle import README, REPORT, BundleIndex, write_bundle
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.case import Case
from attestry.evidence.note import Checkpoint, parse_note
from attestry.evidence.readme import render_readme
from attestry.evidence.verdict import Found, MissingError, Outcome

BATCH: Final = "audit/batch.jsonl"


def write_audit_bundle(
    number: int, batch: bytes, leaf: bytes, index: int, note: bytes, proof: Sequence[bytes], root: Mapping[str, bytes], *, made: str
) -> bytes:
    """Return the bundle of a batch.

    Args:
        number: of the batch.
        batch: its object.
        leaf: the leaf of its event.
        index: the leaf's number.
        note: the checkpoint, signed.
        proof: audit path of the leaf in the checkpoint's tree, 32 bytes each.
        root: the metadata of the root of trust, file name to bytes.
        made: the time, RFC 3339 in UTC with microseconds.
    """
    size = Checkpoint.parse(parse_note(note)[0]).size
    files = {
        BATCH: batch,
        "ledger/checkpoint": note,
        f"ledger/leaves/{index:012d}.json": leaf,
        "ledger/proofs.json": canonical_bytes({"size": size, "proofs": {str(index): [h.hex() for h in proof]}}),
        **{f"root/{name}": body for name, body in root.items()},
    }
    told = BundleIndex("audit", f"{SUBJECT}/{number}", "", number, "", made)
    documents = {REPORT: render_audit_report(told, files).encode(), README: render_readme(told, files).encode()}
    return write_bundle(told, {**files, **documents})


def check_acts(case: Case) -> Found | str:
    """Verify that the acts are those that the one event in the bundle names."""
    index, batch = case.need_bundle().index, case.need(BATCH)
    if not case.entries:
        raise MissingError("the event that names the batch is not in the bundle")
    if len(case.entries) > 1:
        raise IntegrityError("the bundle holds more than the one event that names the batch")
    (entry,) = case.entries
    if (entry.kind, entry.subject, entry.sequence) != (KIND, SUBJECT, index.number):
        raise IntegrityError(f"the event is {entry.kind} of {entry.subject}, number {entry.sequence}, not batch {index.number}")
    acts = read_named_batch(batch, entry.data)
    denied = sum(1 for act in acts if act.get("outcome") == "denied")
    case.facts["acts"] = {"rows": len(acts), "denied": denied, "from": entry.data["from"], "to": entry.data["to"]}
    told = f"{len(acts)} rows of {entry.data['from']} to {entry.data['to']}, {denied} of them denied attempts"
    return Found(Outcome.PENDING, f"{told}; not in the ledger yet") if entry.index is None else told
