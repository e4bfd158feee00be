"""Compliance: which versions in production have a lineage that is not complete and verified.

For each deployed version three things are asked: the checks of a trace, from the artifact manifest to the approval; what the offline
verifier finds in the version's bundle, under the registry's published root: that its moves are in the ledger, each attested by who may make
it, that the files are signed and the gates met; and what reconciliation has found and nobody has mended. What no check passed is listed by
name, so that the answer is either an empty list or exactly what is missing.

Nothing is read leaf by leaf: places are looked up a hundred at a time, and the parts of the ledger that versions share are read once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from attestry.domain.errors import AttestryError
from attestry.ports import Item, MetaStore, ObjectStore
from attestry.usecases.bundle import BundleMaker
from attestry.usecases.each_row import each_row
from attestry.usecases.findings import list_findings
from attestry.usecases.prove import prove_version
from attestry.usecases.records import MODELS, model_key
from attestry.usecases.trace import trace_version

SECONDS = 20.0


def review_deployed(
    meta: MetaStore,
    store: ObjectStore,
    at: datetime,
    *,
    after: str = "",
    seconds: float = SECONDS,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Return every deployed version with the checks that its lineage does not pass.

    Args:
        meta: the table.
        store: the model store.
        after: go on behind this model, as `next` of the answer before says.
        at: the time.
        seconds: how long to take on further models.
        monotonic: the clock for that.

    Returns:
        `{"deployed": [{"model", "version", "environment", "version_digest", "complete", "failed": [{"step", "outcome", "detail"}]}],
        "incomplete": how many, "next": the model to go on behind, or None}`.
    """
    end = monotonic() + seconds
    review = _Review(meta, store, at)
    deployed: list[dict[str, Any]] = []
    following = None
    for row in each_row(meta, MODELS, after=after):
        model = str(row["model"])
        if monotonic() >= end and deployed:
            following = deployed[-1]["model"]
            break
        pointers = meta.query(model_key(model).partition, prefix="POINTER#")
        deployed += [review.of(pointer) for pointer in pointers if pointer.get("number") is not None]
    return {"deployed": deployed, "incomplete": sum(not d["complete"] for d in deployed), "next": following}


class _Review:
    """Reviews versions one after the other."""

    def __init__(self, meta: MetaStore, store: ObjectStore, at: datetime) -> None:
        self._meta = meta
        self._store = store
        self._at = at
        self._maker = BundleMaker(meta, store)
        self._findings = list_findings(meta)

    def of(self, pointer: Item) -> dict[str, Any]:
        """Return the review of the version that a pointer names."""
        model, number = str(pointer["model"]), int(pointer["number"])
        steps: list[dict[str, str]] = []
        for check in (self._trace, self._proof, self._reconciliation):
            try:
                steps += check(model, number)
            except AttestryError as error:
                steps.append({"step": "version", "outcome": "missing", "detail": error.message})
        failed = [s for s in steps if s["outcome"] != "passed"]
        return {
            "model": model,
            "version": number,
            "environment": pointer["environment"],
            "version_digest": pointer["version_digest"],
            "complete": not failed,
            "failed": failed,
        }

    def _trace(self, model: str, number: int) -> list[dict[str, str]]:
        return trace_version(self._meta, self._store, model, number)

    def _proof(self, model: str, number: int) -> list[dict[str, str]]:
        steps = prove_version(self._maker, model, number, self._at).steps
        return [{"step": f"evidence: {s.name}", "outcome": s.outcome.value, "detail": s.detail} for s in steps]

    def _reconciliation(self, model: str, number: int) -> list[dict[str, str]]:
        found = [f for f in self._findings if f["model"] == model and f["number"] in (0, number)]
        return [
            {"step": "reconciliation", "outcome": "failed", "detail": f"{f['what']} at {f['where']} since {f['opened']}"} for f in found
        ]
