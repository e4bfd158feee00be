"""Judge: the manifest's gates over metrics that the registry computed itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestry.domain.gates import apply_gates
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
    """

    passed: bool
    reason: str
    results: list[dict[str, Any]]
    compared_with: str


def judge_gates(meta: MetaStore, version: Version, manifest: Manifest, metrics: Mapping[str, float]) -> Judgement:
    """Apply the gates; "no worse than deployed" compares with the version that stands deployed at this moment."""
    deployed = _deployed(meta, version.model, manifest.deployment.environment)
    before = {name: float(value) for name, value in deployed.metrics.items()} if deployed else None
    results = apply_gates(manifest, metrics, before)
    failed = [r.reason for r in results if not r.passed]
    return Judgement(not failed, "; ".join(failed), [r.to_item() for r in results], deployed.reference if deployed else "")


def _deployed(meta: MetaStore, model: str, environment: str) -> Version | None:
    pointer = meta.get(pointer_key(model, environment))
    number = number_in(pointer)
    # Where what was deployed has been killed, the bar is what is kept for rollback.
    number = number if number is not None else kept_in(pointer)
    return load_version(meta, model, number) if number is not None else None
