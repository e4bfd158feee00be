"""Traits: what a version's manifest says that versions are searched by, kept in its head so that a search reads no manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attestry.domain.manifest import Manifest
from attestry.domain.search_index import MAX_SOURCES
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.digests import sha256_hex


def traits_of(manifest: Manifest, inputs: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the traits of a version.

    `experiment` is the digest of what makes an experiment: the bytes of its source data, label, preparation, parameters, framework and
    algorithm. Two versions with the same one differ at most in code and environment, so the later may be work that was done before.

    Args:
        manifest: the manifest.
        inputs: source files that are others than the manifest names, see `Version.inputs`.
    """
    others = {str(given["name"]): str(given["sha256"]) for given in inputs}
    sources = {source.name: others.get(source.name, source.sha256) for source in manifest.data.source}
    mapping = manifest.to_mapping()
    experiment = {
        "model": manifest.model.name,
        "sources": sources,
        "label": mapping["data"]["label"],
        "preparation": mapping["data"]["preparation"],
        "processing": mapping["processing"].get("parameters", {}),
        "training": mapping["training"].get("hyperparameters", {}),
        "framework": mapping["environment"]["framework"],
        "algorithm": mapping["environment"]["algorithm"],
    }
    return {
        "owner": manifest.model.owner,
        "team": manifest.model.team,
        "risk_tier": manifest.model.risk_tier,
        "labels": dict(manifest.model.labels),
        "framework": manifest.environment.framework.name,
        "algorithm": manifest.environment.algorithm.name,
        "sources": list(dict.fromkeys(sources.values()))[:MAX_SOURCES],
        "experiment": sha256_hex(canonical_bytes(experiment)),
    }
