"""Compare development runs: what they were told of, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PARTS = ("parameters", "metrics", "tags", "files", "source", "packages")


def compare_runs(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return in what runs differ, part by part: `{"part", "name", "values"}`, a value of each run, None where it has none.

    Args:
        runs: as `RegistryClient.run` returns them.
    """
    found: list[dict[str, Any]] = []
    for part in PARTS:
        each = [_part(run, part) for run in runs]
        for name in sorted({name for one in each for name in one}):
            values = [one.get(name) for one in each]
            if any(value != values[0] for value in values):
                found.append({"part": part, "name": name, "values": values})
    return found


def _part(run: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return name to value of a part; of a metric its last value, of a file its digest."""
    if part == "packages":
        return dict(run["environment"].get("packages") or {})
    inner = {"metrics": "value", "files": "sha256"}.get(part)
    return {name: value[inner] if inner else value for name, value in run[part].items()}
