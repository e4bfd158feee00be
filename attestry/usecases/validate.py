"""Validate: a validator hands in a record about a version, signed with a key of their own.

Rules:
- The record is kept before the event that names it: a call that was cut off in between leaves objects that no event names, and the same
  call again goes on from there.
- Effect, interval and p-value come from the function that has the packages for it. What the registry has counted itself, the rows of the
  hold-out that are in the training set, is taken from the record of PROCESSING, and what the validator says of it has to agree.
- Nobody validates what they submitted or stand behind, nor a model on which they have a conflict of interest.
- The same record sent again is answered like the first, and does not become the latest again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.conflicts import check_no_conflict
from attestry.domain.custody import require_role
from attestry.domain.errors import ConditionFailedError, ConflictError, IntegrityError, InvalidInputError, SelfApprovalError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.domain.stages import Stage
from attestry.domain.validations import (
    RECORDED,
    RECORDERS,
    LeakageCheck,
    SchemaCheck,
    Trial,
    place_of,
    standing_facts,
    unmet,
)
from attestry.domain.version import Version
from attestry.evidence.validation_record import ValidationRecord, record_key
from attestry.ports import Item, MetaStore, ObjectStore
from attestry.usecases.approver_signature import take_record_signature
from attestry.usecases.attest import Attestor
from attestry.usecases.conflicts import conflicts_of, require_none
from attestry.usecases.records import Move, load_version, move_writes, transition_key, version_key

TRIES: Final = 8

Compute = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Computes a trial: `kind` and `content` in, `attestry.evaluation.evaluate.evaluate_record`'s answer out."""


@dataclass(frozen=True)
class Validated:
    """What a record led to.

    Attributes:
        version: the version after it.
        transition: number of the move that tells of it.
        sha256: digest of the record.
        facts: what the event says of it.
        missing: what the manifest demands and does not stand yet, each a sentence.
    """

    version: Version
    transition: int
    sha256: str
    facts: Mapping[str, Any]
    missing: tuple[str, ...]


def record_validation(
    meta: MetaStore,
    attestor: Attestor,
    store: ObjectStore,
    compute: Compute,
    model: str,
    number: int,
    *,
    record: bytes,
    signature: bytes,
    by: Principal,
    at: datetime,
) -> Validated:
    """Take a validation record of a version.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        store: the model store.
        compute: computes trials.
        model: the model's name.
        number: the version's number.
        record: the record's bytes, see `attestry.evidence.validation_record`.
        signature: the validator's own signature over it.
        by: the authenticated principal, with its person.
        at: the time.

    Raises:
        InvalidInputError: the record breaks a rule, its counts do not agree with the registry's own, or nothing finite follows from them.
        IntegrityError: the record is of another version, or the signature is not over it.
        ForbiddenError, UnprovenIdentityError: the caller acts in no role that may, maps to no person, or has no key registered.
        SelfApprovalError: the caller submitted the version, or stands behind it.
        ConflictOfInterestError: the caller has declared one on the model.
        ConflictError: the version has no digest yet or is out of use, somebody else handed in this record, or others kept changing it.
        NotFoundError: no such version.
        UnavailableError: the trial could not be computed, or the record not be kept; nothing was changed.
    """
    person = require_role("validate", RECORDERS, by, f"{model}@{number}")
    read = ValidationRecord.parse(record)
    computed: Item | None = None
    for _ in range(TRIES):
        version = load_version(meta, model, number)
        _check_may_validate(version, person)
        read.require_of(version.model, version.number, version.version_digest)
        there = _recorded(meta, version, read, person)
        if there is not None:
            return there
        check_no_conflict([vars(d) for d in conflicts_of(meta, model) if d.active], person)
        own, unchanged = take_record_signature(meta, store, version, person, read.sha256, signature)
        computed = computed or _facts(meta, version, read, compute)
        kept = store.put_new(record_key(version.folder, read.sha256), read.raw, content_type="application/json", retain=True)
        signed = {**own.facts, "version_id": own.version_id}
        facts = {"check": read.kind, "made": read.made, **computed, "record": read.sha256}
        facts |= {"record_version_id": kept.version_id, "signature": signed}
        reason = f"{person} recorded a {read.kind}"
        move = Move(version.stage, version.status, version.standing, RECORDED, by, reason, at, read.sha256, facts)
        standing, missing = _after(version, facts, person, at)
        changes = {"validations": standing, "unvalidated": bool(missing)}
        moving = move_writes(version, move, attestor, changes, differs={"submitter_person": person}, lacks={"barred": person})
        try:
            meta.transact([*moving, *unchanged, *require_none(model, {person})])
        except ConditionFailedError:
            continue
        return Validated(load_version(meta, model, number), version.transition + 1, read.sha256, facts, tuple(missing))
    raise ConflictError(f"{model}@{number} is being changed by others; try again")


def _check_may_validate(version: Version, person: str) -> None:
    if not version.version_digest:
        told = f"{version.reference} is in {version.stage} {version.status}"
        raise ConflictError(f"{told}: it has no version digest yet that a record could name")
    if person == version.submitter_person or person in version.barred:
        raise SelfApprovalError(
            f"{person} submitted {version.reference}, or stands behind it, and cannot validate it; another person has to"
        )


def _recorded(meta: MetaStore, version: Version, record: ValidationRecord, person: str) -> Validated | None:
    """Return what the same record led to before."""
    rows = meta.query(transition_key(version.model, version.number, 0).partition, prefix="TRANSITION#")
    row = next((r for r in rows if r["kind"] == RECORDED and r["evidence"] == record.sha256), None)
    if row is None:
        return None
    if row["principal"]["person"] != person:
        raise ConflictError(f"{row['principal']['person']} has handed in this record already; make one of your own")
    demands = ApprovalPolicy.from_item(version.approval_policy).records
    return Validated(version, int(row["number"]), record.sha256, row["data"], tuple(unmet(demands, version.validations)))


def _after(version: Version, facts: Item, person: str, at: datetime) -> tuple[Item, list[str]]:
    """Return the latest records by their places with this one among them, and what is demanded and does not stand then."""
    place = place_of(str(facts["check"]), str(facts.get("metric") or ""))
    standing = {**version.validations, place: standing_facts(facts, version.transition + 1, person, timestamp(at))}
    return standing, unmet(ApprovalPolicy.from_item(version.approval_policy).records, standing)


def _facts(meta: MetaStore, version: Version, record: ValidationRecord, compute: Compute) -> Item:
    finding = record.finding
    if isinstance(finding, Trial):
        return _computed(finding, compute({"kind": record.kind, "content": dict(record.content)}))
    if isinstance(finding, LeakageCheck):
        return count_leakage(finding, processing_record(meta, version))
    return compare_schema(finding, version)


def _computed(trial: Trial, answer: Mapping[str, Any]) -> Item:
    if answer["outcome"] != "SUCCEEDED":
        raise InvalidInputError.of(str(answer["field"]), str(answer["rule"]), str(answer["error"]))
    result = answer["result"]
    if float(result["effect"]) != trial.effect:
        raise IntegrityError("the effect that was computed does not follow from the counts of the record")
    return {"metric": trial.metric, "better": trial.better, "confidence": repr(trial.confidence), "size": trial.smallest, **result}


def count_leakage(check: LeakageCheck, processing: Mapping[str, Any] | None) -> Item:
    """Return the counts of a leakage check: the registry's own where it has prepared the data, else the validator's.

    Args:
        check: what the validator says.
        processing: what the record of PROCESSING says of the data; None where the data were not prepared and counted here.

    Raises:
        InvalidInputError: the counts differ from the registry's, or are missing where it has none.
    """
    given = {name: getattr(check, name) for name in ("training_rows", "holdout_rows", "overlap_rows")}
    if processing is None:
        if check.overlap_rows is None:
            raise InvalidInputError.of(
                "content.overlap_rows", "required", "the data were not prepared and counted here: give the three counts"
            )
        return {**given, "counted_by": "validator"}
    rows = processing["rows"]
    own = {"training_rows": int(rows["train"]), "holdout_rows": int(rows["holdout"]), "overlap_rows": int(processing["overlap_rows"])}
    for name, value in own.items():
        if given[name] not in (None, value):
            raise InvalidInputError.of(f"content.{name}", "registry_counts", f"the registry counted {value} in the prepared data itself")
    return {**own, "counted_by": "registry"}


def compare_schema(check: SchemaCheck, version: Version) -> Item:
    """Return what a schema check comes to, held against the columns that the version takes.

    Raises:
        InvalidInputError: the registry knows no columns of the version.
    """
    if not version.schema:
        raise InvalidInputError.of("kind", "schema_known", f"the registry knows no columns of {version.reference} to hold others against")
    differing, broken = check.differing(version.schema), sum(rows for _, _, rows in check.violations)
    return {"columns": len(check.columns), "rows": check.rows, "differing_columns": differing, "violations": differing + broken}


def processing_record(meta: MetaStore, version: Version) -> Mapping[str, Any] | None:
    """Return what the latest run of PROCESSING that succeeded recorded of the data; None where it counted no rows that are in both sets."""
    rows = meta.query(version_key(version.model, version.number).partition, prefix=f"STAGE#{Stage.PROCESSING.value}#")
    records = [json.loads(r["record"]) for r in rows if r.get("status") == "SUCCEEDED" and r.get("record")]
    return records[-1]["data"] if records and "overlap_rows" in records[-1].get("data", {}) else None
