"""Judge: the manifest's gates over metrics that the registry computed itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestry.domain.gates import Deployed, apply_gates, compare_holdouts
from attestry.domain.manifest import Manifest
from attestry.domain.version import Version
from attestry.ports import MetaStore
from attestry.usecases.pointer import kept_in, number_in
from attestry.usecases.records import load_version, pointer_key


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


def judge_gates(meta: MetaStore, version: Version, manifest: Manifest, metrics: Mapping[str, float]) -> Judgement:
    """Apply the gates; "no worse than deployed" compares with the version that stands deployed at this moment."""
    other = _deployed(meta, version.model, manifest.deployment.environment)
    theirs = _holdout_of(other) if other else {}
    deployed = None
    if other:
        before = {name: float(value) for name, value in other.metrics.items()}
        deployed = Deployed(before, compare_holdouts(_holdout_of(version), theirs))
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
