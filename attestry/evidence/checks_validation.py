"""Steps of a verification: what validators recorded of a version.

Rules:

- Each record is the one whose digest the move names, of this version digest, and signed by a key that was the validator's own then, in the
  namespace of validation records.
- The validator acted in a role that hands in records, and neither submitted the version nor stands behind it.
- What the move says of a record follows from it: metric, direction, confidence, sizes and effect of a trial are computed anew; interval and
  p-value are attested by the function that had them computed, and contradict neither the effect nor each other.
- Rows of the hold-out that are in the training set are those that the record of PROCESSING counts, where the data were prepared here.
- Which records an approval needs, and that they stood, is judged with the approvals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.errors import IntegrityError
from attestry.domain.validations import RECORDED, RECORDERS, LeakageCheck, SchemaCheck, Trial
from attestry.evidence.case import Attested, Case
from attestry.evidence.checks_approval import submitters_of
from attestry.evidence.checks_person_keys import check_key
from attestry.evidence.digests import sha256_hex
from attestry.evidence.validation_record import ValidationRecord
from attestry.evidence.verdict import MissingError

_COUNTS: Final = ("training_rows", "holdout_rows", "overlap_rows")
_COMMON: Final = {"check", "made", "record", "record_version_id", "signature"}
_FACTS: Final = {
    Trial: {"metric", "better", "confidence", "size", "effect", "low", "high", "p_value", "method"},
    LeakageCheck: {*_COUNTS, "counted_by"},
    SchemaCheck: {"columns", "rows", "differing_columns", "violations"},
}


def check_validations(case: Case) -> str:
    """Verify every validation record that the moves of the version name."""
    moves = case.moved(RECORDED)
    for move in moves:
        # All are taken first: where one is not there, the others are no strangers.
        for name in _files(move):
            case.take(name)
    told = [_check_record(case, move) for move in moves]
    case.facts["validations"] = told
    if not told:
        return "no validator recorded anything"
    return "; ".join(f"{t['check']} by {t['person']} (signed by person)" for t in told)


def _check_record(case: Case, move: Attested) -> dict[str, Any]:
    entry, data = move.entry, move.entry.data
    principal: Mapping[str, Any] = entry.event["principal"]
    person, index = str(principal["person"]), case.need_bundle().index
    where = f"the validation record of {person} ({entry.place})"
    if not principal["person"] or not set(principal["roles"]) & set(RECORDERS):
        raise IntegrityError(f"{where} was not handed in by a person in the role {' or '.join(RECORDERS)}")
    if person in submitters_of(case):
        raise IntegrityError(f"{where} is by somebody who submitted the version, or stands behind it")
    raw = case.need(_files(move)[0])
    if sha256_hex(raw) != data["evidence"] or data["record"] != data["evidence"]:
        raise IntegrityError(f"{where} is not the one that the move names")
    record = ValidationRecord.parse(raw)
    record.require_of(index.model, index.number, index.version_digest)
    _check_signature(case, move, person, where)
    facts = {name: value for name, value in data.items() if name not in _MOVE}
    finding = record.finding
    if (data["check"], data["made"]) != (record.kind, record.made) or set(facts) != _COMMON | _FACTS[type(finding)]:
        raise IntegrityError(f"{where}: the move tells of it in another way than it is")
    if isinstance(finding, Trial):
        _check_trial(where, finding, facts)
    elif isinstance(finding, LeakageCheck):
        _check_leakage(case, where, finding, facts)
    else:
        _check_schema(case, where, finding, facts)
    shown = {name: value for name, value in facts.items() if name not in ("record_version_id", "signature")}
    return {**shown, "person": person, "grade": "signed by person", "leaf": entry.index, "at": entry.at}


_MOVE: Final = frozenset({"from", "to", "reason", "evidence", "version_digest", "attestation"})
"""What the event of every move has besides its facts."""


def _files(move: Attested) -> tuple[str, str]:
    """Return the names of record and signature in a bundle."""
    digest, person = move.entry.data["evidence"], move.entry.event["principal"]["person"]
    return f"version/validations/{digest}.json", f"signatures/{person}#{digest}.sig"


def _check_signature(case: Case, move: Attested, person: str, where: str) -> None:
    from attestry.evidence.ssh_signature import RECORD_NAMESPACE, signing_key, verify_approval

    recorded, digest = move.entry.data["signature"], str(move.entry.data["evidence"])
    armored = case.need(_files(move)[1])
    key = signing_key(armored)
    if sha256_hex(armored) != recorded["sha256"] or key.fingerprint != recorded["fingerprint"]:
        raise IntegrityError(f"{where}: the signature is not the one that the move names")
    verify_approval(armored, digest, [key.text], namespace=RECORD_NAMESPACE)
    check_key(case, person, recorded, move.entry)


def _check_trial(where: str, trial: Trial, facts: Mapping[str, Any]) -> None:
    expected = {
        "metric": trial.metric,
        "better": trial.better,
        "confidence": repr(trial.confidence),
        "size": trial.smallest,
        "effect": repr(trial.effect),
    }
    wrong = sorted(name for name, value in expected.items() if facts[name] != value)
    if wrong:
        raise IntegrityError(f"{where}: {wrong[0]} does not follow from its counts")
    try:
        low, high, p_value = (float(facts[name]) for name in ("low", "high", "p_value"))
    except (TypeError, ValueError) as error:
        raise IntegrityError(f"{where}: its interval or p-value is no number") from error
    if not (low <= trial.effect <= high and 0 <= p_value <= 1):
        raise IntegrityError(f"{where}: its interval does not hold its effect, or its p-value is none")


def _check_leakage(case: Case, where: str, check: LeakageCheck, facts: Mapping[str, Any]) -> None:
    counted: dict[str, Any] = {name: facts[name] for name in _COUNTS}
    given = {name: getattr(check, name) for name in _COUNTS}
    data = {} if case.was_imported() else _prepared(case)
    expected, by = given, "validator"
    if "overlap_rows" in data:
        expected = {"training_rows": data["rows"]["train"], "holdout_rows": data["rows"]["holdout"], "overlap_rows": data["overlap_rows"]}
        by = "registry"
    if counted != expected or facts["counted_by"] != by or any(given[name] not in (None, counted[name]) for name in _COUNTS):
        raise IntegrityError(f"{where}: its counts are not those of the data that the version was made of")


def _check_schema(case: Case, where: str, check: SchemaCheck, facts: Mapping[str, Any]) -> None:
    if case.was_imported():
        raise IntegrityError(f"{where}: the version was made elsewhere, so there is no schema that data could be held against")
    data, broken = _prepared(case), sum(rows for _, _, rows in check.violations)
    features = set(data["feature_columns"])
    differing = check.differing([c for c in data["schema"] if c["name"] in features])
    expected = {"columns": len(check.columns), "rows": check.rows, "differing_columns": differing, "violations": differing + broken}
    if {name: facts[name] for name in expected} != expected:
        raise IntegrityError(f"{where}: what it comes to does not follow from it")


def _prepared(case: Case) -> Mapping[str, Any]:
    """Return what the record of PROCESSING says of the data."""
    record = case.records.get("PROCESSING")
    if record is None:
        raise MissingError("the record of PROCESSING, which counts the rows of the data, is not in the bundle")
    return dict(record["data"])
