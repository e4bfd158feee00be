"""Reads the attestations of a version back as a verifier would: from the events, by the digest that they name."""

from __future__ import annotations

import hashlib
from typing import Any

from attestry.evidence.canonical import parse_canonical
from attestry.evidence.dsse import verify_envelope
from attestry.evidence.predicates import MoveFacts, check_attestation
from attestry.evidence.statement import Statement
from attestry.ports import Signer
from attestry.usecases.attest import attestation_key
from attestry.usecases.records import OUTBOX, load_version
from tests.fakes import MemoryMetaStore, MemoryObjectStore


def events_of(meta: MemoryMetaStore, model: str, number: int) -> list[dict[str, Any]]:
    """The events of a version in order."""
    events = [parse_canonical(row["event"]) for row in meta.query(OUTBOX)]
    return sorted((e for e in events if e["subject"] == f"{model}@{number}"), key=lambda e: e["sequence"])


def attested(meta: MemoryMetaStore, store: MemoryObjectStore, signer: Signer, model: str, number: int) -> list[Statement]:
    """Check that each event of a version names an attestation that says the same, and return the statements in order."""
    version = load_version(meta, model, number)
    rows = meta.query(f"VERSION#{model}#{number}", prefix="TRANSITION#")
    events = events_of(meta, model, number)
    assert [e["sequence"] for e in events] == [int(r["number"]) for r in rows] == list(range(1, version.transition + 1))
    found = []
    for event, row in zip(events, rows, strict=True):
        _, sha256 = MoveFacts.from_event(event)
        assert row["attestation"]["sha256"] == sha256
        assert row["attestation"]["key"].endswith(attestation_key("", sha256))
        assert [v.retained for v in store.versions[row["attestation"]["key"]]] == [True]
        raw = store.read(row["attestation"]["key"], row["attestation"]["version_id"], max_bytes=1 << 20)
        assert hashlib.sha256(raw).hexdigest() == sha256
        statement = Statement.parse(verify_envelope(raw, signer.public_key_der()))
        check_attestation(statement, event, candidate=version.candidate)
        found.append(statement)
    return found
