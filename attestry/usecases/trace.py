"""Trace: from one prediction ID to the version, code, data, settings and people behind it, each step checked.

At most six calls, whatever the number of versions, while the receipt's row is there (35 days; three more afterwards): receipt and
delegation (one read of two rows), the version's partition with a copy of the artifact manifest, the manifest, the listing of the frozen
files, the delegator's public key, and the row that tells the auditors of it, which is the caller's. `deep` reads every file besides, and
what reconciliation has found about the version.

Verdicts: `SIGNED-UNANCHORED` when every step holds, `INCOMPLETE` when something that ought to be there is missing, `BROKEN` when a step
fails. `PROVEN` needs the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from attestry.domain.approvals import ApprovalPolicy, is_met
from attestry.domain.cause import with_inputs
from attestry.domain.custody import DISPOSED
from attestry.domain.errors import AttestryError, IntegrityError, InvalidInputError, NotFoundError
from attestry.domain.events import timestamp
from attestry.domain.imports import ImportDocument
from attestry.domain.manifest import Manifest
from attestry.domain.stages import LAPSED
from attestry.domain.version import FileRef, Version
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.delegation import Delegation, read_unverified_delegation, verify_delegation
from attestry.evidence.digests import digest_stream, sha256_hex, tree_digest
from attestry.evidence.prediction_id import PredictionId
from attestry.evidence.receipt import Receipt, verify_receipt
from attestry.ports import Item, Key, MetaStore, ObjectStore
from attestry.usecases.artifact_copy import copy_among, load_artifact
from attestry.usecases.collect import find_collected
from attestry.usecases.disposed import NONE, Disposals, read_disposals
from attestry.usecases.findings import findings_of
from attestry.usecases.import_version import read_import_document
from attestry.usecases.readiness import check_frozen_files
from attestry.usecases.recorded import check_recorded, event_of_transition
from attestry.usecases.records import approving_persons, load_version, version_key
from attestry.usecases.trace_document import describe
from attestry.usecases.trace_promotion import check_promoted

MAX_DEEP_BYTES = 1024**3


@dataclass
class Steps:
    """The checks of a trace, in order, each with its outcome."""

    done: list[dict[str, str]] = field(default_factory=list)

    def check(self, name: str, run: Callable[[], str | None]) -> bool:
        """Run one check; what it raises is its detail, and what is not found is missing."""
        try:
            detail = run() or ""
        except NotFoundError as error:
            self.done.append({"step": name, "outcome": "missing", "detail": error.message})
            return False
        except AttestryError as error:
            self.done.append({"step": name, "outcome": "failed", "detail": error.message})
            return False
        self.done.append({"step": name, "outcome": "passed", "detail": detail})
        return True

    @property
    def verdict(self) -> str:
        """Return the verdict over all steps."""
        outcomes = {s["outcome"] for s in self.done}
        if "failed" in outcomes:
            return "BROKEN"
        return "INCOMPLETE" if "missing" in outcomes else "SIGNED-UNANCHORED"


@dataclass(frozen=True)
class DelegatorKeys:
    """The keys that may have signed a delegation.

    Attributes:
        current: returns the public key of today's delegator, DER.
        former: returns that of an earlier one, by its name and the time of issue as the delegation tells them; raises IntegrityError for
            one that was never the delegator then. Asked only where the current one did not sign. That the time is true is what a proof
            shows, which judges it by the ledger's.
    """

    current: Callable[[], bytes]
    former: Callable[[str, str], bytes] | None = None

    def verify(self, token: str) -> Delegation:
        """Return the delegation.

        Raises:
            IntegrityError: no delegator signed it.
        """
        try:
            return verify_delegation(token, self.current())
        except IntegrityError:
            if self.former is None:
                raise
            grant = read_unverified_delegation(token).grant
            issued = timestamp(datetime.fromtimestamp(grant.issued, UTC))
            return verify_delegation(token, self.former(grant.issuer, issued))


@dataclass
class Evidence:
    """What a trace has read and checked so far."""

    prediction: PredictionId
    row: Item
    version: Version
    rows: list[Item]
    receipt: Receipt | None = None
    delegation: Delegation | None = None
    artifact: ArtifactManifest | None = None
    manifest: Manifest | None = None
    imported: ImportDocument | None = None
    disposals: Disposals = NONE

    def of_kind(self, prefix: str) -> list[Item]:
        """Return the rows of the version whose sort key has this prefix."""
        return [r for r in self.rows if str(r["sk"]).startswith(prefix)]


def trace_prediction(
    meta: MetaStore,
    store: ObjectStore,
    prediction_id: str,
    *,
    delegator_key: Callable[[], bytes],
    former_key: Callable[[str, str], bytes] | None = None,
    deep: bool = False,
) -> dict[str, Any]:
    """Return the trace document of a prediction (manifests/trace.schema.json).

    Args:
        meta: the table.
        store: the model store.
        prediction_id: `<key ID>-<sequence>`.
        delegator_key: returns the delegator's public key, DER.
        former_key: returns that of a former delegator, see `DelegatorKeys`.
        deep: read and digest every file of the version and its data sets.

    Raises:
        InvalidInputError: no prediction ID.
        NotFoundError: no such prediction, or no such version.
    """
    prediction = PredictionId.parse(prediction_id)
    row_key, delegation_key = Key(f"KEY#{prediction.kid}", f"R#{prediction.sequence:012d}"), Key(f"KEY#{prediction.kid}", "DELEGATION")
    found = meta.get_many([row_key, delegation_key])
    delegation_row = found.get(delegation_key)
    if delegation_row is None:
        raise NotFoundError(f"no prediction {prediction_id} was made here")
    row = found.get(row_key) or find_collected(store, str(delegation_row["folder"]), prediction)
    if row is None:
        raise NotFoundError(f"no prediction {prediction_id} was made here")
    rows = meta.query(version_key(delegation_row["model"], int(delegation_row["number"])).partition)
    head = next((r for r in rows if r["sk"] == "HEAD"), None)
    if head is None:
        raise NotFoundError(f"the version behind {prediction_id} is gone from the table")
    evidence = Evidence(prediction, row, Version.from_item(head), rows)
    steps = Steps()
    _check_signatures(steps, evidence, str(delegation_row["delegation"]), DelegatorKeys(delegator_key, former_key))
    _check_disposals(steps, evidence, meta, store)
    _check_version(steps, evidence, store, deep=deep)
    _check_records(steps, evidence)
    if deep:
        steps.check("reconciliation", lambda: _check_findings(meta, evidence.version))
        _check_bytes(steps, evidence, store)
    return describe(evidence, steps.done, steps.verdict, deep=deep)


def trace_version(meta: MetaStore, store: ObjectStore, model: str, number: int, *, deep: bool = False) -> list[dict[str, str]]:
    """Return the checked steps of a version alone, without a prediction."""
    version = load_version(meta, model, number)
    rows = meta.query(version_key(model, number).partition)
    evidence = Evidence(PredictionId("a" * 52, 1), {}, version, rows)
    steps = Steps()
    _check_disposals(steps, evidence, meta, store)
    _check_version(steps, evidence, store, deep=deep)
    _check_records(steps, evidence)
    if deep:
        _check_bytes(steps, evidence, store)
    return steps.done


def _check_signatures(steps: Steps, evidence: Evidence, token: str, keys: DelegatorKeys) -> None:
    def delegation() -> str:
        evidence.delegation = keys.verify(token)
        if evidence.delegation.kid != evidence.prediction.kid:
            raise IntegrityError("the delegation in the table is not the one that the prediction ID names")
        return f"signed by the delegator key for {evidence.delegation.grant.version.reference} as {evidence.delegation.grant.standing}"

    def receipt() -> str:
        if evidence.delegation is None:
            raise IntegrityError("without a valid delegation the receipt's key is not known")
        evidence.receipt = verify_receipt(str(evidence.row["receipt"]), evidence.delegation)
        if evidence.receipt.prediction_id != evidence.prediction:
            raise IntegrityError("the receipt in the table is of another prediction")
        return f"signed by key {evidence.prediction.kid}"

    def same_version() -> str:
        version = evidence.version
        if evidence.receipt is None:
            raise IntegrityError("without a valid receipt the version is not known")
        signed = evidence.receipt.version
        if (signed.model, signed.number, signed.digest) != (version.model, version.number, version.version_digest):
            raise IntegrityError(f"the receipt names {signed}; the table has {version.reference} with digest {version.version_digest}")
        return str(signed)

    steps.check("delegation", delegation)
    steps.check("receipt", receipt)
    steps.check("version", same_version)


def _check_disposals(steps: Steps, evidence: Evidence, meta: MetaStore, store: ObjectStore) -> None:
    """Read what was disposed of the version, where anything was: by moves that have their events, and lists that these name."""
    version = evidence.version
    moves = [t for t in evidence.of_kind("TRANSITION#") if t["kind"] == DISPOSED]

    def disposal() -> str:
        check_recorded(meta, [event_of_transition(version.model, version.number, move) for move in moves])
        evidence.disposals = read_disposals(store, version.reference, moves)
        return f"{len(evidence.disposals.objects)} objects {evidence.disposals.told}"

    if moves:
        steps.check("disposal", disposal)


def _check_version(steps: Steps, evidence: Evidence, store: ObjectStore, *, deep: bool) -> None:
    version = evidence.version

    def artifact() -> str:
        evidence.artifact, raw = load_artifact(store, version, None if deep else copy_among(evidence.rows))
        return f"SHA-256 of {len(raw)} bytes is the version digest"

    def check_import() -> str:
        document = read_import_document(store, version)
        if evidence.artifact is not None and evidence.artifact.candidate != document.digest:
            raise IntegrityError("the import document has another digest than the candidate that the artifact manifest names")
        if evidence.artifact is not None and (not evidence.artifact.imported or _brought(evidence.artifact) != document.sizes):
            raise IntegrityError("the artifact manifest lists other files than were imported")
        evidence.imported = document
        return "SHA-256 of the import document is the candidate digest in the artifact manifest; what it claims of the run is only said"

    def check_manifest() -> str:
        raw = store.read(version.manifest.key, version.manifest.version_id, max_bytes=version.manifest.size)
        expected = evidence.artifact.candidate if evidence.artifact else version.candidate
        if sha256_hex(raw) != expected:
            raise IntegrityError("the manifest has another digest than the candidate that the artifact manifest names")
        manifest = with_inputs(Manifest.from_mapping(json.loads(raw)), version.cause)
        if evidence.artifact and {s.name: s.sha256 for s in evidence.artifact.source} != {s.name: s.sha256 for s in manifest.data.source}:
            raise IntegrityError("the artifact manifest names other source data than the manifest and the cause of the version")
        evidence.manifest = manifest
        return f"SHA-256 of {len(raw)} bytes is the candidate digest in the artifact manifest"

    def frozen() -> str:
        check_frozen_files(store, version, gone=evidence.disposals.objects.keys())
        if evidence.artifact is not None:
            _require_same_files(evidence.artifact, version.frozen)
        gone = [f for f in version.frozen if evidence.disposals.covers(f)]
        told = f"; {len(gone)} of them {evidence.disposals.told}" if gone else ""
        return f"{len(version.frozen)} files in their recorded S3 versions, nothing added{told}"

    steps.check("artifact manifest", artifact)
    steps.check("manifest", check_import if version.imported else check_manifest)
    steps.check("frozen files", frozen)


def _brought(artifact: ArtifactManifest) -> dict[str, int]:
    """Return path and size of the files that were imported."""
    return {f.path.removeprefix("model/"): f.size for f in artifact.files if f.path.startswith("model/")}


def _require_same_files(artifact: ArtifactManifest, frozen: Iterable[FileRef]) -> None:
    listed = {f.path: (f.size, f.sha256) for f in artifact.files}
    recorded = {f.path: (f.size, f.sha256) for f in frozen}
    if listed != recorded:
        differing = sorted(path for path in listed.keys() | recorded.keys() if listed.get(path) != recorded.get(path))
        raise IntegrityError(f"the table and the artifact manifest differ in {', '.join(differing)}")


def _check_records(steps: Steps, evidence: Evidence) -> None:
    version = evidence.version
    transitions = evidence.of_kind("TRANSITION#")
    rested_on = {str(t["evidence"]) for t in transitions}
    if version.imported:
        steps.check("record of IMPORTED", lambda: _check_import_record(evidence, rested_on))
        steps.check("transitions", lambda: _check_transitions(version, transitions))
        steps.check("approval", lambda: _check_approval(evidence))
        return
    for stage in ("PROCESSING", "TRAINING", "VALIDATION"):
        steps.check(f"record of {stage}", lambda stage=stage: _check_record(evidence, stage, rested_on))  # type: ignore[misc]

    def data() -> str:
        if evidence.artifact is None:
            raise IntegrityError("without the artifact manifest the data sets are not known")
        expected = {
            "training": evidence.artifact.training,
            "holdout": evidence.artifact.holdout,
            **{f"source/{s.name}": s.sha256 for s in evidence.artifact.source},
        }
        for name, digest in expected.items():
            try:
                dataset = version.dataset(name)
            except KeyError:
                raise NotFoundError(f"the data set {name} is not recorded") from None
            actual = dataset.digest if name.startswith("source/") else tree_digest(dataset.files)
            if actual != digest or dataset.digest != digest:
                raise IntegrityError(f"the data set {name} is not the one of the artifact manifest")
        return f"{len(expected)} data sets have the digests of the artifact manifest"

    steps.check("data sets", data)
    steps.check("transitions", lambda: _check_transitions(version, transitions))
    steps.check("approval", lambda: _check_approval(evidence))


def _check_record(evidence: Evidence, stage: str, rested_on: set[str]) -> str:
    rows = [r for r in evidence.of_kind(f"STAGE#{stage}#") if r["status"] == "SUCCEEDED"]
    if not rows:
        raise NotFoundError(f"{stage} has no record of success")
    row = rows[-1]
    digest = sha256_hex(str(row["record"]).encode())
    if digest != row["record_sha256"] or digest not in rested_on:
        raise IntegrityError(f"the record of {stage} is not the one that its transition rests on")
    planned = json.loads(row["plan"])
    record = json.loads(row["record"])
    changed = sorted(k for k, v in planned.items() if record.get(k) != v)
    if changed or sha256_hex(str(row["plan"]).encode()) not in rested_on:
        raise IntegrityError(f"the plan of {stage} that was recorded before it ran differs in {', '.join(changed) or 'its digest'}")
    if stage == "VALIDATION":
        _check_criteria(evidence, planned, record, sha256_hex(str(row["plan"]).encode()))
    return f"record {digest[:12]}… is what the transition rests on"


def _check_import_record(evidence: Evidence, rested_on: set[str]) -> str:
    row = next((r for r in evidence.of_kind("STAGE#IMPORTED#") if r["status"] == "SUCCEEDED"), None)
    if row is None:
        raise NotFoundError("IMPORTED has no record of success")
    digest = sha256_hex(str(row["record"]).encode())
    if digest != row["record_sha256"] or digest not in rested_on:
        raise IntegrityError("the record of IMPORTED is not the one that its transition rests on")
    if json.loads(row["record"])["verified"]["artifact_manifest"] != evidence.version.version_digest:
        raise IntegrityError("the record of IMPORTED is about another version digest")
    return f"record {digest[:12]}… is what the transition rests on; nothing was processed, trained or judged here"


def _check_criteria(evidence: Evidence, planned: Mapping[str, Any], record: Mapping[str, Any], plan_sha256: str) -> None:
    """Check that gates and policy were committed, by an event, before the evaluation ran, and that the version was judged by no others."""
    criteria = planned.get("criteria")
    begun = [t for t in evidence.of_kind("TRANSITION#") if t["kind"] == "stage.started" and t["evidence"] == plan_sha256]
    if not isinstance(criteria, Mapping) or not begun:
        raise IntegrityError("the rules of VALIDATION were not recorded before it ran")
    for name in ("gates", "policy"):
        digest = sha256_hex(canonical_bytes(criteria[name]))
        if digest != criteria[f"{name}_sha256"] or digest != begun[0]["data"].get(f"{name}_sha256"):
            raise IntegrityError(f"the {name} of VALIDATION are not those that were committed before it ran")
    if evidence.manifest is not None and criteria["gates"] != evidence.manifest.to_mapping()["gates"]:
        raise IntegrityError("the gates that were committed before VALIDATION are not those of the manifest")
    if criteria["policy"] != evidence.version.approval_policy:
        raise IntegrityError("the approval policy is not the one that was committed before VALIDATION")
    limits = {(g["metric"], rule): g[rule] for g in criteria["gates"].get("metrics", []) for rule in ("minimum", "maximum") if rule in g}
    judged = {(g["name"], g["rule"]): float(g["threshold"]) for g in record["gates"] if g["rule"] in ("minimum", "maximum")}
    if judged != limits:
        raise IntegrityError("the version was judged by other thresholds than those that were committed before")


def _check_transitions(version: Version, transitions: list[Item]) -> str:
    numbers = [int(t["number"]) for t in transitions]
    if numbers != list(range(1, version.transition + 1)):
        raise IntegrityError(f"the transitions of {version.reference} have gaps: {numbers}")
    for before, after in pairwise(transitions):
        if before["to"] != after["from"]:
            raise IntegrityError(f"transition {after['number']} does not begin where {before['number']} ended")
    last: Mapping[str, Any] = transitions[-1]["to"]
    if last != {"stage": version.stage.value, "status": version.status.value, "standing": version.standing.value}:
        raise IntegrityError("the head row is not where the last transition ended")
    return f"{len(numbers)} transitions, each where the one before ended"


def _check_approval(evidence: Evidence) -> str:
    version = evidence.version
    rows = [r for r in _in_force(evidence) if r["decision"] == "approve"]
    if not rows:
        raise NotFoundError(f"{version.reference} has no approval" + ("" if evidence.delegation is None else " that was in force"))
    for row in rows:
        if row["version_digest"] != version.version_digest:
            raise IntegrityError(f"the approval of {row['person']} is for another version digest")
        if row["person"] == version.submitter_person:
            raise IntegrityError(f"{row['person']} submitted the candidate and approved it")
    policy = ApprovalPolicy.from_item(version.approval_policy)
    if not is_met(policy, approving_persons(rows)):
        raise IntegrityError(f"the policy asks for {policy.needed} approvals; there are {len(rows)} that fill a place of it")
    told = f"approved by {', '.join(str(r['person']) for r in rows)} for this version digest"
    grant = evidence.delegation.grant if evidence.delegation else None
    return told + (check_promoted(version, evidence.rows, grant.environment, _moment_after(grant.issued)) if grant else "")


def _in_force(evidence: Evidence) -> list[Item]:
    """Return the decisions of the approval that was in force when the prediction's key was delegated to; without one, of today."""
    grant = evidence.delegation.grant if evidence.delegation else None
    until = _moment_after(grant.issued) if grant else ""
    ends = [t for t in evidence.of_kind("TRANSITION#") if t["kind"] in ("version.approved", LAPSED) and (not until or str(t["at"]) < until)]
    if not ends:
        return evidence.of_kind("APPROVAL#") if evidence.version.approved else []
    if ends[-1]["kind"] == LAPSED:
        return []
    opened = (ends[-1].get("data") or {}).get("opened")
    return [r for r in evidence.of_kind("APPROVAL#") if r.get("opened") == opened]


def _moment_after(issued: int) -> str:
    """Return the end of the second in which a delegation was issued."""
    return timestamp(datetime.fromtimestamp(issued + 1, UTC))


def _check_findings(meta: MetaStore, version: Version) -> str:
    findings = findings_of(meta, version.model, version.number)
    if findings:
        told = "; ".join(f"{f['what']} at {f['where']} since {f['opened']}" for f in findings)
        raise IntegrityError(f"reconciliation has open findings about {version.reference}: {told}")
    return "reconciliation has no open finding"


def _check_bytes(steps: Steps, evidence: Evidence, store: ObjectStore) -> None:
    """Read every file in its recorded S3 version and digest it.

    Raises:
        InvalidInputError: more bytes than a call of the API has time for.
    """
    version = evidence.version
    total = sum(f.size for f in (*version.frozen, *(f for d in version.datasets for f in d.files)))
    if total > MAX_DEEP_BYTES:
        message = f"{version.reference} has {total} bytes; a deep trace reads {MAX_DEEP_BYTES}; `attestry data` fetches and verifies them"
        raise InvalidInputError.of("deep", "size", message)
    sets: list[tuple[str, tuple[FileRef, ...]]] = [("bytes of the frozen files", version.frozen)]
    sets += [(f"bytes of the data set {d.name}", d.files) for d in version.datasets]
    if version.environment and version.environment.archive:
        sets.append(("bytes of the environment", (version.environment.archive,)))
    for name, files in sets:
        steps.check(name, lambda files=files: _digest_all(store, files, evidence.disposals))  # type: ignore[misc]


def _digest_all(store: ObjectStore, files: tuple[FileRef, ...], disposals: Disposals) -> str:
    there = [file for file in files if not disposals.covers(file)]
    for file in there:
        with store.open(file.key, file.version_id) as stream:
            actual = digest_stream(stream)
        if (actual.sha256, actual.size) != (file.sha256, file.size):
            raise IntegrityError(f"{file.path} has SHA-256 {actual.sha256}; recorded is {file.sha256}")
    told = f"; {len(files) - len(there)} {disposals.told}" if len(there) < len(files) else ""
    return f"{sum(f.size for f in there)} bytes in {len(there)} files{told}"
