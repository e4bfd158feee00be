"""Served: how many predictions a version made in an environment, by the rows of its keys."""

from __future__ import annotations

from attestry.domain.version import Version
from attestry.ports import MetaStore


def predictions_made(meta: MetaStore, version: Version, environment: str) -> int:
    """Return how many predictions a version made in an environment: the last numbers of its keys, whose numbers have no gaps.

    Two reads for a version with one key, and one more for each key that is not closed yet.
    """
    made = 0
    for row in meta.list_collection(f"VERSION_KEYS#{version.model}#{version.number}"):
        if row.get("environment") != environment:
            continue
        if "last" in row:
            made += int(row["last"])
            continue
        latest = meta.query(f"KEY#{row['kid']}", prefix="R#", newest_first=True, limit=1)
        made += int(str(latest[0]["sk"]).removeprefix("R#")) if latest else 0
    return made
