"""Holds: who holds a version, by what its moves say.

A hold is a move like any other: `version.held` sets it, `version.resumed` ends it. What it stops is in `attestry.domain.stages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

HELD: Final = "version.held"
RESUMED: Final = "version.resumed"


def held_after(moves: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the hold that stands after some moves, as the head of a version has it; empty where there is none.

    Args:
        moves: in order, each with `kind`, `principal`, `reason` and `at`.
    """
    held: dict[str, str] = {}
    for move in moves:
        if move["kind"] == HELD:
            held = {"by": str(move["principal"].get("person")), "reason": str(move["reason"]), "at": str(move["at"])}
        elif move["kind"] == RESUMED:
            held = {}
    return held
