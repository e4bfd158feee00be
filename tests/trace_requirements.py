"""What a trace has to answer, by the ID of the capability, and how sure the answer must be where the registry could know."""

from __future__ import annotations

from typing import Any

VERIFIED, ATTESTED = ("verified",), ("verified", "attested")
ANY = ("verified", "attested", "claimed")

REQUIREMENTS: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "4B3 version": [("version.model", VERIFIED), ("version.number", VERIFIED)],
    "4B3 artifact digest": [("version.digest", VERIFIED), ("version.artifact", VERIFIED)],
    "4B3 hyperparameters and settings": [
        ("settings.hyperparameters", VERIFIED),
        ("settings.processing", VERIFIED),
        ("settings.training", VERIFIED),
        ("settings.validation", VERIFIED),
        ("settings.gates", VERIFIED),
        ("settings.approval", VERIFIED),
        ("settings.deployment", VERIFIED),
    ],
    "4B3 script location and revision": [
        ("code.scripts", VERIFIED),
        ("code.revision", ANY),
        ("code.repository", ANY),
        ("code.archive_sha256", VERIFIED),
    ],
    "4B3 algorithm, framework and dependency versions": [
        ("environment.framework", ATTESTED),
        ("environment.algorithm", ANY),
        ("environment.dependencies", ATTESTED),
        ("environment.lock_sha256", VERIFIED),
        ("environment.archive_sha256", VERIFIED),
    ],
    "4B3 data set version": [("data.training.digest", VERIFIED), ("data.training.files", VERIFIED), ("data.holdout.digest", VERIFIED)],
    "4B3 preparation processes and their script versions": [
        ("data.preparation", ANY),
        ("code.scripts", VERIFIED),
        ("runs.PROCESSING.code", ATTESTED),
    ],
    "4B3 data source": [
        ("data.source.0.name", VERIFIED),
        ("data.source.0.sha256", VERIFIED),
        ("data.source.0.origin", ANY),
        ("data.source.0.kept_as", ATTESTED),
    ],
    "4B3 approvals and approvers": [
        ("approvals.0.person", ATTESTED),
        ("approvals.0.version_digest", ATTESTED),
        ("people.approved_by", ATTESTED),
    ],
    "3B1 code: git commit": [("runs.PROCESSING.code", ATTESTED), ("runs.TRAINING.code", ATTESTED), ("runs.VALIDATION.code", ATTESTED)],
    "3B2 environment of processing, training and evaluation separately": [
        ("runs.PROCESSING.environment", ATTESTED),
        ("runs.TRAINING.environment", ATTESTED),
        ("runs.VALIDATION.environment", ATTESTED),
    ],
    "3B3 dirty tree": [("code.dirty", ANY)],
    "3B4 all parameters of all steps": [
        ("runs.PROCESSING.parameters", ATTESTED),
        ("runs.TRAINING.parameters", ATTESTED),
        ("settings.processing", VERIFIED),
    ],
    "3B5 hyperparameters": [("settings.hyperparameters", VERIFIED)],
    "3B6 input data": [
        ("runs.PROCESSING.inputs", ATTESTED),
        ("runs.TRAINING.inputs", ATTESTED),
        ("runs.VALIDATION.inputs", ATTESTED),
        ("data.holdout.files", VERIFIED),
    ],
    "3B7 annotations": [
        ("data.label.column", VERIFIED),
        ("data.label.version", ANY),
        ("data.label.source", ANY),
        ("data.label.labeller", ANY),
        ("data.holdout_labels.digest", ATTESTED),
    ],
    "3B8 resources": [
        ("runs.TRAINING.resources", ATTESTED),
        ("runs.TRAINING.observed_machine", ANY),
        ("runs.TRAINING.started", ATTESTED),
        ("runs.TRAINING.ended", ATTESTED),
    ],
    "3B9 who ran, who wrote, who deployed": [("people.ran_by", ATTESTED), ("people.code_author", ANY), ("people.deployed_by", ATTESTED)],
    "3B10 the model, linked to its execution": [
        ("version.execution_id", VERIFIED),
        ("runs.TRAINING.execution", ATTESTED),
        ("runs.TRAINING.outputs", ATTESTED),
    ],
}
"""Capability to the facts that answer it and the grades that are enough; `claimed` only for what nobody but the submitter can know.

The git revision and whether the tree was clean are such claims: the registry does not reach the repository. What it verifies is the
digest of the source archive that ran.
"""

PLACEHOLDERS = (None, "", [], {}, "unknown", "n/a", "none", "0" * 64)


def facts_at(trace: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """Return the fact or facts at a dotted path; a run is found by the name of its stage."""
    found: Any = trace
    for part in path.split("."):
        if isinstance(found, list):
            found = found[int(part)] if part.isdigit() else next(run for run in found if run["stage"]["value"] == part)
        else:
            found = found[part]
    return found if isinstance(found, list) else [found]


def problems_of(trace: dict[str, Any], capability: str) -> list[str]:
    """Return what is missing, a placeholder, or less sure than it could be."""
    problems = []
    for path, grades in REQUIREMENTS[capability]:
        try:
            facts = facts_at(trace, path)
        except (KeyError, IndexError, StopIteration):
            problems.append(f"{path} is missing")
            continue
        if not facts:
            problems.append(f"{path} is empty")
        for fact in facts:
            if fact["value"] in PLACEHOLDERS and fact["value"] is not False:
                problems.append(f"{path} is a placeholder: {fact['value']!r}")
            if fact["grade"] not in grades:
                problems.append(f"{path} is only {fact['grade']}")
    return problems
