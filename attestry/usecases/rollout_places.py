"""Where rollouts stand: the rows that name them, and the writes by which a canary or a shadow leaves its place.

The minute's look finds the rollouts that go on in the partition ROLLOUTS, one row for each environment of a model in which there is one. A
row there says nothing by itself: what stands is read from the pointer.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from attestry.domain.events import shorten
from attestry.domain.principal import Principal
from attestry.domain.stages import IN_ROLLOUT, Standing, Status
from attestry.ports import Delete, Key, MetaStore, Put, When, Write
from attestry.usecases.attest import Attestor
from attestry.usecases.pointer import ROLLOUTS, rollout_in
from attestry.usecases.records import Move, load_version, move_writes

PARTITION: Final = "ROLLOUTS"
HALTED: Final = "rollout.halted"
ENDED: Final = "rollout.ended"


def rollout_key(model: str, environment: str) -> Key:
    """Return the key of the row by which the minute's look finds the rollouts of an environment."""
    return Key(PARTITION, f"{model}#{environment}")


def keep_rollout(model: str, environment: str) -> Put:
    """Return the write that lets a rollout be found."""
    return Put(rollout_key(model, environment), {"model": model, "environment": environment}, When())


def forget_rollouts(pointer: Mapping[str, Any], *numbers: int) -> list[Write]:
    """Return the write that lets the rollouts of a pointer be found no more, where none is left once these versions have gone."""
    there = {int(told["number"]) for standing in ROLLOUTS if (told := rollout_in(pointer, standing))}
    if not there or there - set(numbers):
        return []
    return [Delete(rollout_key(str(pointer["model"]), str(pointer["environment"])), When())]


def leave_writes(
    meta: MetaStore, attestor: Attestor, pointer: Mapping[str, Any], standing: Standing, *, by: Principal, reason: str, at: datetime
) -> list[Write]:
    """Return the writes by which the canary is halted, or the shadow ends, without those of the pointer; none where there is none.

    The version stands APPROVED again. A halted canary is left in DEPLOYMENT FAILED with the reason, so that it can be tried again.
    """
    told = rollout_in(pointer, standing)
    if not told:
        return []
    version = load_version(meta, str(pointer["model"]), int(told["number"]))
    if version.standing not in IN_ROLLOUT:
        return []
    facts: dict[str, Any] = {"environment": str(pointer["environment"])}
    if standing is Standing.CANARY:
        facts |= {"share": int(told["share"]), "step": int(told["step"])}
        move = Move(version.stage, Status.FAILED, Standing.APPROVED, HALTED, by, reason, at, data=facts)
        return move_writes(version, move, attestor, {"error": shorten(f"the canary was halted: {reason}")})
    move = Move(version.stage, Status.SUCCEEDED, Standing.APPROVED, ENDED, by, reason, at, data=facts)
    return move_writes(version, move, attestor, {"error": ""})
