"""Steps of a verification: what a version is made of, how it was made, and by which rules it was judged.

Rules:

- The version digest is the SHA-256 of the artifact manifest, and the candidate digest that of the manifest.
- What is attested about a stage follows from the stage's record, and is computed from it anew; the record agrees with
  manifest and artifact manifest; what was planned, and logged, before the stage ran is what the record says ran.
- Gates and policy were logged before the evaluation ended, and are the manifest's. The gates are applied anew to the
  metrics. Of the version that was compared with, the metrics are taken from the recorded thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.cause import REFRESHES, CauseKind, kind_of, with_inputs
from attestry.domain.errors import IntegrityError
from attestry.domain.gates import Deployed, Interval, apply_gates, compare_holdouts
from attestry.domain.manifest_record import Manifest
from attestry.domain.metrics import METRIC_FUNCTIONS
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.evidence.case import Attested, Case, Entry
from attestry.evidence.checks_import import check_import_record, check_imported
from attestry.evidence.checks_reuse import check_reused
from attestry.evidence.digests import sha256_hex, tree_digest
from attestry.evidence.predicates import PROVENANCE, Predicate, read_move
from attestry.evidence.stage_predicates import judgement_of, provenance_of
from attestry.evidence.verdict import MissingError

_SCRIPT_STAGES: Final = ("PROCESSING", "TRAINING", "VALIDATION")
_ENDS: Final = ("stage.succeeded", "stage.failed", "version.rejected")
_RESULTS: Final = frozenset({"outcome", "error", "started", "ended", "outputs", "log", "claimed", "ran"})
"""Fields of a stage's record that its plan does not have."""

_FACTS: Final = {
    "PROCESSING": frozenset({"data"}),
    "TRAINING": frozenset(),
    "VALIDATION": frozenset({"metrics", "gates", "rows", "compared_with", "compared_holdout", "comparisons", "evaluated_with"}),
}


@dataclass(frozen=True)
class _File:
    path: str
    size: int
    sha256: str


def check_artifact(case: Case) -> str:
    """Verify that the version digest is that of the artifact manifest, and the candidate that of the manifest."""
    if case.was_imported():
        return check_imported(case)
    index = case.need_bundle().index
    raw = case.need("version/manifest.json")
    candidate = str(case.need_moves()[0].entry.data["candidate"])
    if sha256_hex(raw) != candidate:
        raise IntegrityError("the manifest is not that of the candidate that was registered")
    manifest = Manifest.from_mapping(parse_canonical(raw))
    if manifest.model.name != index.model:
        raise IntegrityError(f"the manifest is of the model {manifest.model.name}")
    cause = case.need_moves()[0].entry.data.get("cause") or {}
    if cause.get("inputs") and kind_of(cause) not in (*REFRESHES, CauseKind.REPRODUCTION):
        raise IntegrityError("the version was registered by its manifest, and names other data than that")
    # What a refresh was made of is what its first event names in the place of the manifest's data.
    manifest = with_inputs(manifest, cause)
    case.manifest, case.mapping = manifest, manifest.to_mapping()
    if not index.version_digest:
        return "the manifest is the candidate's; no artifact was made yet"
    raw = case.need("version/artifact-manifest.json")
    if sha256_hex(raw) != index.version_digest:
        raise IntegrityError("the artifact manifest does not have the version digest")
    artifact = ArtifactManifest.from_bytes(raw)
    if (artifact.model, artifact.number, artifact.candidate) != (index.model, index.number, candidate):
        raise IntegrityError(f"the artifact manifest is of {artifact.model}@{artifact.number}, candidate {artifact.candidate[:16]}")
    if artifact.environment is None:
        raise IntegrityError("the artifact manifest is that of an imported version, and this one was made by a manifest")
    listed = {f.path: f.sha256 for f in artifact.files}
    expected = {"manifest.json": candidate, "source.tar.gz": manifest.source.sha256, "requirements.lock": artifact.environment.lock_sha256}
    wrong = sorted(path for path, sha256 in expected.items() if listed.get(path) != sha256)
    if wrong:
        raise IntegrityError(f"the artifact manifest lists another {wrong[0]} than the version was made of")
    if {s.name: s.sha256 for s in artifact.source} != {s.name: s.sha256 for s in manifest.data.source}:
        raise IntegrityError("the artifact manifest names other source data than the manifest, or the refresh that made the version")
    case.artifact = artifact
    return f"version digest {index.version_digest[:16]} over {len(artifact.files)} files; candidate {candidate[:16]}"


def check_provenance(case: Case) -> str:
    """Verify the records of the stages, and the provenance of processing and training."""
    if case.was_imported():
        return check_import_record(case)
    records = _take_records(case)
    told = []
    for stage in ("PROCESSING", "TRAINING"):
        succeeded = case.moved("stage.succeeded", stage)
        if stage == "TRAINING" and len(succeeded) > 1:
            raise IntegrityError("the moves show that TRAINING succeeded more than once")
        # Of a stage that was done again the last run counts: the others rest on the chain of moves alone.
        for move in succeeded[-1:]:
            record = _require_attempt(records.get((stage, move.entry.data["attempt"])), move.entry)
            _check_attested(move, record)
            _check_inputs(case, record)
            told.append(f"{stage} attempt {record['attempt']}")
    if case.artifact is not None and len(told) != 2:
        raise IntegrityError("the moves do not show that PROCESSING and TRAINING succeeded once each")
    case.records = {stage: r for (stage, _), r in sorted(records.items()) if r["outcome"] in ("SUCCEEDED", "REJECTED")}
    return f"{', '.join(told) or 'no stage has succeeded'}: record, plan, manifest and artifact manifest agree"


def check_gates(case: Case) -> str:
    """Verify that thresholds and policy were logged before the evaluation, and that the gates give the recorded results."""
    if case.was_imported():
        return "no gate judged it: it was made elsewhere, and the registry computed no metric of it"
    ends = [*case.moved("stage.succeeded", "VALIDATION"), *case.moved("version.rejected", "VALIDATION")]
    if not ends:
        if case.moved("version.approved") or case.moved("stage.started", "APPROVAL"):
            raise IntegrityError("the version went on without a VALIDATION")
        return "VALIDATION has not ended"
    end = ends[-1]
    manifest = case.need_manifest()
    record = _require_attempt(case.records.get("VALIDATION"), end.entry)
    _check_attested(end, record)
    _check_inputs(case, record)
    started = _started(case, end.entry)
    if not started.comes_before(end.entry):
        raise IntegrityError(f"the gates were logged ({started.place}) after the evaluation had ended ({end.entry.place})")
    gates_sha256 = sha256_hex(canonical_bytes(case.mapping["gates"]))
    policy = policy_of(manifest, logged=started.data.get("policy_sha256"))
    if (started.data.get("gates_sha256"), started.data.get("policy_sha256")) != (gates_sha256, policy.digest):
        raise IntegrityError("the gates or the policy that were logged before the evaluation are not the manifest's")
    criteria = {"gates_sha256": gates_sha256, "policy_sha256": policy.digest, "gates": case.mapping["gates"], "policy": policy.to_item()}
    if any(record["criteria"][name] != value for name, value in criteria.items()):
        raise IntegrityError("the record of VALIDATION was judged by other rules than the manifest's")
    results = [r.to_item() for r in apply_gates(manifest, _numbers(record["metrics"]), _compared(manifest, record))]
    if results != record["gates"]:
        raise IntegrityError("the gates, applied anew to the metrics, do not give the recorded results")
    passed = all(r["passed"] for r in results)
    if passed != (end.entry.kind == "stage.succeeded"):
        raise IntegrityError(f"the gates say {'passed' if passed else 'failed'}, the move is {end.entry.kind}")
    return f"{len(results)} gates applied anew; logged before the evaluation ({started.place})"


def policy_of(manifest: Manifest, *, logged: object) -> ApprovalPolicy:
    """Return the approval policy that a version stands under: the manifest's, or the stricter one that the registry makes of it.

    A registry may ask for signatures by risk tier, where the manifest asks for people without.

    Args:
        manifest: the version's manifest.
        logged: digest of the policy that was logged before the evaluation.
    """
    records, promotion = manifest.gates.records, manifest.deployment.promotion
    asked = ApprovalPolicy.of_manifest(manifest.approval, records, promotion=promotion)
    stricter = replace(ApprovalPolicy.of_manifest(manifest.approval, records, signed=True, promotion=promotion), signed=not asked.automatic)
    return stricter if logged == stricter.digest else asked


def _take_records(case: Case) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Return the records in the bundle by stage and attempt; each is what the end of its stage rests on."""
    ends = {
        (m.entry.stage, m.entry.data.get("attempt")): m.entry
        for m in case.need_moves()
        if m.entry.kind in _ENDS and m.entry.stage in _SCRIPT_STAGES and m.entry.data.get("attempt") is not None
    }
    records: dict[tuple[str, int], Mapping[str, Any]] = {}
    for name, raw in case.take_folder("version/records/").items():
        stage, _, attempt = name.removesuffix(".json").rpartition("-")
        place = (stage, int(attempt))
        if place not in ends or sha256_hex(raw) != ends[place].data["evidence"]:
            raise IntegrityError(f"version/records/{name} is not what the end of a stage rests on")
        record = parse_canonical(raw)
        if (record["stage"], record["attempt"], record["model"], record["number"]) != (*place, *_version(case)):
            raise IntegrityError(f"version/records/{name} is the record of another stage or version")
        records[place] = record
    return records


def _require_attempt(record: Mapping[str, Any] | None, entry: Entry) -> Mapping[str, Any]:
    """Return the record of the attempt that a move ended."""
    if record is None or record["attempt"] != entry.data["attempt"]:
        raise MissingError(f"the record of {entry.stage}, attempt {entry.data['attempt']}, is not in the bundle")
    return record


def _check_attested(move: Attested, record: Mapping[str, Any]) -> None:
    """Check that a stage's attestation says what its record says, field by field."""
    _, content = read_move(move.statement)
    expected: Predicate
    if move.statement.predicate_type == PROVENANCE:
        key = str(content["runDetails"]["byproducts"][0]["uri"]).removeprefix("urn:attestry:object:")
        expected = provenance_of(record, str(move.entry.data["evidence"]), key)
    else:
        expected = judgement_of(record)
    if content != dict(expected.content):
        raise IntegrityError(f"the attestation of {record['stage']} says something else than its record")
    if move.entry.data.get("outputs") != {o["name"]: o["digest"] for o in record["outputs"]}:
        raise IntegrityError(f"the event of {record['stage']} names other outputs than its record")


def _check_inputs(case: Case, record: Mapping[str, Any]) -> None:
    """Check a stage's record against its plan, the manifest and the artifact manifest."""
    manifest, stage = case.need_manifest(), str(record["stage"])
    plan = {k: v for k, v in record.items() if k not in _RESULTS | _FACTS[stage]}
    started = _started_of(case, stage, int(record["attempt"]))
    if sha256_hex(canonical_bytes(plan)) != started.data["evidence"]:
        raise IntegrityError(f"{stage} did not run what was planned: the plan that was logged before has another digest")
    settings = case.mapping[stage.lower()]
    expected = {
        "candidate": str(case.need_moves()[0].entry.data["candidate"]),
        "parameters": settings.get("hyperparameters" if stage == "TRAINING" else "parameters", {}),
        "executor": settings["executor"],
    }
    code = {"repository": manifest.source.repository, "revision": manifest.source.revision, "archive_sha256": manifest.source.sha256}
    wrong = [k for k, v in expected.items() if record[k] != v] + [k for k, v in code.items() if record["code"][k] != v]
    if record["code"]["script"] != settings["script"]:
        wrong.append("script")
    if wrong:
        raise IntegrityError(f"{stage} ran with another {wrong[0]} than the manifest says")
    if "reused_from" in record:
        check_reused(case, record)
    else:
        _check_job(record, str(settings.get("container") or manifest.environment.container or ""))
    if case.artifact is not None:
        _check_data(case.artifact, stage, record)


def _check_job(record: Mapping[str, Any], container: str) -> None:
    """Check that a stage which ran as a job of another service was that job, in the manifest's image."""
    stage, planned, ran = record["stage"], record.get("job"), record.get("ran")
    if (planned is None) is not (record["executor"] == "lambda") or (planned is None and ran is not None):
        raise IntegrityError(f"{stage} names a job that its executor does not have, or lacks the one that it has")
    if planned is None:
        return
    if planned["container"] != container:
        raise IntegrityError(f"{stage} ran in another container than the manifest says")
    if record["outcome"] != "SUCCEEDED" and ran is None:
        return
    told = {} if ran is None else ran
    digest = container.partition("@sha256:")[2]
    if told.get("job_name") != planned["name"] or told.get("service") != planned["service"]:
        raise IntegrityError(f"{stage} was run by another job than the plan names")
    if told.get("container_digest") not in ("", digest):
        raise IntegrityError(f"{stage} was run from another image than the manifest names")


def _check_data(artifact: ArtifactManifest, stage: str, record: Mapping[str, Any]) -> None:
    environment = record["environment"]
    same = {name: environment[name] for name in ("id", "lock_sha256", "archive_sha256", "python")} == vars(artifact.environment)
    if not same:
        raise IntegrityError(f"{stage} ran in another environment than the artifact manifest names")
    inputs = {d["name"]: d["digest"] for d in record["inputs"]}
    outputs = {o["name"]: o["digest"] for o in record["outputs"]}
    made = {"training": artifact.training, "holdout": artifact.holdout}
    wanted: Mapping[str, str] = {
        "PROCESSING": {f"source/{s.name}": s.sha256 for s in artifact.source},
        "TRAINING": {"training": artifact.training},
        "VALIDATION": {"holdout": artifact.holdout},
    }[stage]
    if inputs != dict(wanted):
        raise IntegrityError(f"{stage} read other data than the artifact manifest names")
    if stage == "PROCESSING" and {k: outputs.get(k) for k in made} != made:
        raise IntegrityError("PROCESSING made other data sets than the artifact manifest names")
    if stage == "TRAINING" and outputs.get("model") != artifact.version_digest:
        raise IntegrityError("TRAINING made another artifact than the artifact manifest describes")
    if stage == "VALIDATION" and record["version_digest"] != artifact.version_digest:
        raise IntegrityError("VALIDATION judged another version")
    _check_files(stage, [*record["inputs"], *record["outputs"]], {f.path: f.sha256 for f in artifact.files})


def _check_files(stage: str, sets: Sequence[Mapping[str, Any]], frozen: Mapping[str, str]) -> None:
    """Check that each set of files has the digest that it is named by."""
    for named in sets:
        files = [_File(f["path"], f["size"], f["sha256"]) for f in named["files"]]
        if named["name"] == "model":
            holds = {f.path: f.sha256 for f in files} == {p: d for p, d in frozen.items() if p.startswith("model/")}
        elif named["name"] == "predictions" or named["name"].startswith("source/"):
            holds = [f.sha256 for f in files] == [named["digest"]]
        else:
            holds = tree_digest(files) == named["digest"]
        if not holds:
            raise IntegrityError(f"the record of {stage} lists other files of {named['name']} than its digest covers")


def _started(case: Case, end: Entry) -> Entry:
    return _started_of(case, end.stage, int(end.data["attempt"]))


def _started_of(case: Case, stage: str, attempt: int) -> Entry:
    found = [m.entry for m in case.moved("stage.started", stage) if m.entry.data.get("attempt") == attempt]
    if len(found) != 1:
        raise IntegrityError(f"the moves show {len(found)} beginnings of {stage}, attempt {attempt}")
    return found[0]


def _compared(manifest: Manifest, record: Mapping[str, Any]) -> Deployed | None:
    """Return the version that was compared with: its metrics as far as the recorded thresholds tell them, its hold-out as recorded."""
    if not record["compared_with"]:
        return None
    lower = {m.key for m in manifest.validation.metrics if METRIC_FUNCTIONS[m.name].better == "lower"}
    slack = {c.metric: Decimal(str(c.by_more_than)) for c in manifest.gates.no_worse_than_deployed}
    metrics: dict[str, float | None] = {}
    for gate in record["gates"]:
        if gate["rule"] == "no_worse_than_deployed" and gate["threshold"] is not None:
            name = gate["name"]
            metrics[name] = float(Decimal(gate["threshold"]) - (slack[name] if name in lower else -slack[name]))
    theirs = record.get("compared_holdout")
    intervals = {name: Interval.from_item(item) for name, item in record.get("comparisons", {}).items()}
    return Deployed(metrics, compare_holdouts(record["criteria"], theirs) if theirs is not None else "", intervals)


def _numbers(metrics: Mapping[str, str]) -> dict[str, float | None]:
    return {name: float(text) for name, text in metrics.items()}


def _version(case: Case) -> tuple[str, int]:
    index = case.need_bundle().index
    return index.model, index.number
