"""Judge: the manifest's gates over metrics that the registry computed itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestry.domain.errors import IntegrityError
from attestry.domain.gates import Deployed, Interval, apply_gates, compare_holdouts
from attestry.domain.manifest import Manifest
from attestry.domain.stages import Stage, Status
from attestry.domain.version import FileRef, Version
from attestry.evidence.digests import sha256_hex
from attestry.ports import MetaStore, ObjectStore
from attestry.usecases.manifests import load_manifest
from attestry.usecases.pointer import kept_in, number_in
from attestry.usecases.records import load_version, pointer_key, version_key


@dataclass(frozen=True)
class Judgement:
    """The results of all gates.

    Attributes:
        passed: whether all hold.
        reason: the sentences of those that do not.
        results: each gate with threshold, value and verdict, as stored.
        compared_with: `MODEL@N` of the version that stood DEPLOYED, or empty.
        compared_holdout: digests of that version's `holdout` and `labels`, hex; empty while none is deployed.
    """

    passed: bool
    reason: str
    results: list[dict[str, Any]]
    compared_with: str
    compared_holdout: Mapping[str, str]


@dataclass(frozen=True)
class Champion:
    """The deployed version that a new one is compared with row by row.

    Attributes:
        version: the version.
        predictions: what it predicted on the hold-out.
        columns: `{"prediction", "score"}` of its manifest.
    """

    version: Version
    predictions: FileRef
    columns: Mapping[str, str | None]

    def to_item(self) -> dict[str, Any]:
        """Return what `evaluate` needs of it."""
        return {"reference": self.version.reference, "predictions": self.predictions.to_item(), "columns": dict(self.columns)}


def find_champion(meta: MetaStore, store: ObjectStore, version: Version, manifest: Manifest) -> Champion | None:
    """Return the deployed version if a gate asks for a comparison with confidence and it was measured on the same hold-out.

    Raises:
        IntegrityError: the deployed version's record or manifest is not what was recorded.
    """
    if not any(gate.confidence for gate in manifest.gates.no_worse_than_deployed):
        return None
    other = _deployed(meta, version.model, manifest.deployment.environment)
    if other is None or other.imported or compare_holdouts(_holdout_of(version), _holdout_of(other)) != "the same hold-out":
        return None
    rows = meta.query(version_key(other.model, other.number).partition, prefix=f"STAGE#{Stage.VALIDATION.value}#")
    row = next(r for r in reversed(rows) if r["status"] == Status.SUCCEEDED.value)
    moves = meta.query(version_key(other.model, other.number).partition, prefix="TRANSITION#")
    # The digest beside the record proves nothing: whoever edits one by hand edits the other.
    if sha256_hex(str(row["record"]).encode()) not in {move["evidence"] for move in moves}:
        raise IntegrityError(f"the record of {other.reference}'s VALIDATION is not one that a transition rests on")
    outputs = json.loads(row["record"])["outputs"]
    predictions = next(FileRef.from_item(o["files"][0]) for o in outputs if o["name"] == "predictions")
    columns = load_manifest(store, other).validation.columns
    return Champion(other, predictions, {"prediction": columns.prediction, "score": columns.score})


def judge_gates(
    meta: MetaStore,
    version: Version,
    manifest: Manifest,
    metrics: Mapping[str, float],
    *,
    champion: str = "",
    comparisons: Mapping[str, Mapping[str, Any]] | None = None,
) -> Judgement:
    """Apply the gates; "no worse than deployed" compares with the version that stands deployed at this moment.

    Args:
        meta: the table.
        version: the version that is judged.
        manifest: its manifest.
        metrics: what the registry computed.
        champion: `MODEL@N` that it was compared with row by row, or empty.
        comparisons: metric to that comparison; passed over where another version is deployed by now.
    """
    other = _deployed(meta, version.model, manifest.deployment.environment)
    theirs = _holdout_of(other) if other else {}
    deployed = None
    if other:
        before = {name: float(value) for name, value in other.metrics.items()}
        still = comparisons if comparisons and champion == other.reference else {}
        intervals = {name: Interval.from_item(item) for name, item in still.items()}
        deployed = Deployed(before, compare_holdouts(_holdout_of(version), theirs), intervals)
    results = apply_gates(manifest, metrics, deployed)
    failed = [r.reason for r in results if not r.passed]
    return Judgement(not failed, "; ".join(failed), [r.to_item() for r in results], other.reference if other else "", theirs)


def _holdout_of(version: Version) -> dict[str, str]:
    """Return the digests of a version's hold-out, features and labels, as the criteria of VALIDATION name them."""
    digests = {d.name: d.digest for d in version.datasets}
    return {part: digests[name] for part, name in (("holdout", "holdout"), ("labels", "holdout-labels")) if name in digests}


def _deployed(meta: MetaStore, model: str, environment: str) -> Version | None:
    pointer = meta.get(pointer_key(model, environment))
    number = number_in(pointer)
    # Where what was deployed has been killed, the bar is what is kept for rollback.
    number = number if number is not None else kept_in(pointer)
    return load_version(meta, model, number) if number is not None else None
