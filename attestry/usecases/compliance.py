"""Compliance: which versions in production have a lineage that is not complete and verified.

For each deployed version the checks of a trace run, from the artifact manifest to the approval. What no check passed is listed by name, so
that the answer is either an empty list or exactly what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attestry.domain.errors import AttestryError
from attestry.ports import Item, MetaStore, ObjectStore
from attestry.usecases.records import MODELS, model_key
from attestry.usecases.trace import trace_version

SECONDS = 20.0


def review_deployed(
    meta: MetaStore, store: ObjectStore, *, after: str = "", seconds: float = SECONDS, monotonic: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Return every deployed version with the checks that its lineage does not pass.

    Args:
        meta: the table.
        store: the model store.
        after: go on behind this model, as `next` of the answer before says.
        seconds: how long to take on further models.
        monotonic: the clock for that.

    Returns:
        `{"deployed": [{"model", "version", "environment", "version_digest", "complete", "failed": [{"step", "outcome", "detail"}]}],
        "incomplete": how many, "next": the model to go on behind, or None}`.
    """
    end = monotonic() + seconds
    deployed: list[dict[str, Any]] = []
    following = None
    for row in meta.list_collection(MODELS):
        model = str(row["model"])
        if model <= after:
            continue
        if monotonic() >= end and deployed:
            following = deployed[-1]["model"]
            break
        pointers = meta.query(model_key(model).partition, prefix="POINTER#")
        deployed += [_review(meta, store, pointer) for pointer in pointers if pointer.get("number") is not None]
    return {"deployed": deployed, "incomplete": sum(not d["complete"] for d in deployed), "next": following}


def _review(meta: MetaStore, store: ObjectStore, pointer: Item) -> dict[str, Any]:
    model, number = str(pointer["model"]), int(pointer["number"])
    try:
        steps = trace_version(meta, store, model, number)
    except AttestryError as error:
        steps = [{"step": "version", "outcome": "missing", "detail": error.message}]
    failed = [s for s in steps if s["outcome"] != "passed"]
    return {
        "model": model,
        "version": number,
        "environment": pointer["environment"],
        "version_digest": pointer["version_digest"],
        "complete": not failed,
        "failed": failed,
    }
