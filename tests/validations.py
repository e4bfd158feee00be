"""Validation records for tests: made and signed as the client does, handed in to the real use case."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.manifest_sections import RecordGate
from attestry.domain.principal import Principal
from attestry.domain.version import Version
from attestry.evaluation.evaluate import evaluate_record
from attestry.evidence.ssh_signature import RECORD_NAMESPACE
from attestry.evidence.validation_record import ValidationRecord
from attestry.ports import MetaStore, ObjectStore
from attestry.usecases.attest import Attestor
from attestry.usecases.validate import Validated, record_validation
from tests.ssh_keys import SshPerson
from tests.versions import session

VICTOR = session("validator", "victor", person="victor")
VICTORS = SshPerson("victor")
DEMAND = RecordGate("champion-challenger", p_value_at_most=0.05, effect_at_least=0.0, minimum_size=1000)
DEMANDING = ApprovalPolicy(False, ("approver",), 1, records=(DEMAND,))
MADE = "2026-01-02T03:04:05.000000Z"


def trial(better: int = 460, worse: int = 400, size: int = 5000, **more: Any) -> dict[str, Any]:
    """The content of a trial: so many successes of the challenger, and of the champion."""
    arms = {"champion": {"size": size, "successes": worse}, "challenger": {"size": size, "successes": better}}
    return {"metric": "conversion", **arms, **more}


def record_of(
    version: Version, kind: str = "champion-challenger", content: dict[str, Any] | None = None, made: str = MADE
) -> ValidationRecord:
    """The record of a version that says this."""
    said = trial() if content is None else content
    return ValidationRecord.make(kind, version.model, version.number, version.version_digest, made, said)


def sign(record: ValidationRecord, key: SshPerson = VICTORS, **changed: bytes) -> bytes:
    """The validator's own signature."""
    return key.sign(record.sha256, **{"namespace": RECORD_NAMESPACE.encode(), **changed})


def hand_in(
    meta: MetaStore,
    attestor: Attestor,
    store: ObjectStore,
    version: Version,
    record: ValidationRecord,
    at: datetime,
    *,
    by: Principal = VICTOR,
    signature: bytes | None = None,
) -> Validated:
    """Hand in a record, by default with the signature of who hands it in."""
    signed = sign(record, SshPerson(str(by.person))) if signature is None else signature
    what = {"record": record.raw, "signature": signed, "by": by, "at": at}
    return record_validation(meta, attestor, store, evaluate_record, version.model, version.number, **what)
