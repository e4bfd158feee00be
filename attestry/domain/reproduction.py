"""Reproduction: whether a second run of the same recipe gave the same.

Rules:
- `bit-equal`: the prepared data sets and the model's files are equal, byte for byte.
- `within tolerance`: they are not, but every metric of the first run is there again and differs by at most the tolerance that the manifest
  declares.
- `different`: everything else, above all where the manifest declares no tolerance. What differs is named either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from attestry.domain.manifest_sections import Reproduction
from attestry.domain.version import Version

MAX_NAMED = 100
"""How many files that differ are named; their number is told in any case."""

_PREPARED = ("training", "holdout", "holdout-labels")


class Verdict(StrEnum):
    """What a reproduction came to."""

    BIT_EQUAL = "bit-equal"
    WITHIN_TOLERANCE = "within tolerance"
    DIFFERENT = "different"


@dataclass(frozen=True)
class Comparison:
    """Two runs of one recipe.

    Attributes:
        verdict: see `Verdict`.
        differs: what differs, each `what`, `first` and `again` (digests, or metrics as text; empty where one has none).
        tolerance: greatest difference of a metric that the manifest allows, as text; empty where it allows none.
        metrics: name to the value of the first run and of the second, as text.
    """

    verdict: Verdict
    differs: tuple[Mapping[str, str], ...]
    tolerance: str
    metrics: Mapping[str, Mapping[str, str]]

    def to_item(self) -> dict[str, Any]:
        """Return the comparison as record and attestation hold it."""
        return {
            "verdict": self.verdict.value,
            "differs": [dict(d) for d in self.differs[:MAX_NAMED]],
            "differing": len(self.differs),
            "tolerance": self.tolerance,
            "metrics": {name: dict(pair) for name, pair in self.metrics.items()},
        }


def compare_runs(first: Version, again: Version, declared: Reproduction) -> Comparison:
    """Compare a version with the run that was to reproduce it.

    Args:
        first: the version.
        again: the other run of its recipe, with its VALIDATION ended.
        declared: what the manifest says that a second run must give.
    """
    digests = [_differing(name, _dataset(first, name), _dataset(again, name)) for name in _PREPARED]
    mine, theirs = _model_files(first), _model_files(again)
    digests += [_differing(path, mine.get(path, ""), theirs.get(path, "")) for path in sorted(mine.keys() | theirs.keys())]
    names = sorted(first.metrics.keys() | again.metrics.keys())
    metrics = {n: {"first": first.metrics.get(n, ""), "again": again.metrics.get(n, "")} for n in names}
    differs = [d for d in digests if d is not None]
    told = [_differing(f"metric {n}", pair["first"], pair["again"]) for n, pair in metrics.items()]
    tolerance = "" if declared.tolerance is None else str(declared.tolerance)
    if not differs:
        verdict = Verdict.BIT_EQUAL
    elif tolerance and metrics and all(_near(pair, Decimal(tolerance)) for pair in metrics.values()):
        verdict = Verdict.WITHIN_TOLERANCE
    else:
        verdict = Verdict.DIFFERENT
    return Comparison(verdict, (*differs, *(d for d in told if d is not None)), tolerance, metrics)


def _differing(what: str, first: str, again: str) -> dict[str, str] | None:
    return None if first == again else {"what": what, "first": first, "again": again}


def _dataset(version: Version, name: str) -> str:
    return next((d.digest for d in version.datasets if d.name == name), "")


def _model_files(version: Version) -> dict[str, str]:
    return {f.path: f.sha256 for f in version.frozen if f.path.startswith("model/")}


def _near(pair: Mapping[str, str], tolerance: Decimal) -> bool:
    """Return whether both values are there, are numbers, and differ by at most the tolerance."""
    if not pair["first"] or not pair["again"]:
        return False
    first, again = Decimal(pair["first"]), Decimal(pair["again"])
    return first.is_finite() and again.is_finite() and abs(first - again) <= tolerance
