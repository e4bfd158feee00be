"""Watch rollouts: every minute, and when a canary has failed, look at each canary and shadow and do what its plan says.

What is decided follows from the pointer, the counts and the time (`attestry.domain.rollout.judge`). Each move names the step or the version
that it was decided for, so that a run that is cut off, or two at once, do nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from attestry.domain.errors import AttestryError
from attestry.domain.principal import registry_principal
from attestry.domain.rollout import Act, Counts, Plan, Ruling, judge
from attestry.domain.stages import Standing
from attestry.ports import Alarms, Item, MetaStore
from attestry.usecases.attest import Attestor
from attestry.usecases.canary_counts import count_canary
from attestry.usecases.pointer import ROLLOUTS, number_in, rollout_in
from attestry.usecases.records import pointer_key
from attestry.usecases.rollout import advance_rollout, finish_rollout, halt_rollout
from attestry.usecases.rollout_places import PARTITION
from attestry.usecases.shadow import comparison

BY = registry_principal("rollout")
RAISED = "ALARM"


def watch_rollouts(
    meta: MetaStore, attestor: Attestor, alarms: Alarms, *, at: datetime, on_trouble: Callable[[str, str], None] = lambda _where, _why: None
) -> dict[str, int]:
    """Look at every rollout once; the trouble of one does not hold up the others.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        alarms: the alarms of CloudWatch.
        at: the time.
        on_trouble: told `model/environment` and why a rollout could not be moved; the next look tries again.

    Returns:
        How many rollouts were looked at, advanced, finished, halted, ended, and how many could not be moved.
    """
    done = {"seen": 0, **{act.value: 0 for act in Act if act is not Act.WAIT}, "failed": 0}
    for row in meta.query(PARTITION):
        model, environment = str(row["model"]), str(row["environment"])
        pointer = meta.get(pointer_key(model, environment)) or {}
        for standing in ROLLOUTS:
            place = rollout_in(pointer, standing)
            if not place:
                continue
            done["seen"] += 1
            try:
                ruling = look_at(meta, alarms, pointer, standing, at)
                _carry_out(meta, attestor, pointer, standing, ruling, at)
            except AttestryError as error:
                done["failed"] += 1
                on_trouble(f"{model}/{environment}", error.message)
                continue
            if ruling.act is not Act.WAIT:
                done[ruling.act.value] += 1
    return done


def look_at(meta: MetaStore, alarms: Alarms, pointer: Mapping[str, Any], standing: Standing, at: datetime) -> Ruling:
    """Return what is to be done with a canary or shadow of a pointer.

    Beside a vacant place a canary is halted where it fails, but neither advanced nor finished: what stood there was killed or retired, and
    people decide what comes.
    """
    place = rollout_in(pointer, standing)
    plan = Plan.from_item(place["plan"])
    minutes = (at - datetime.fromisoformat(str(place["since"]))).total_seconds() / 60
    ruling = judge(plan, int(place.get("step", 0)), minutes, counts_of(meta, alarms, pointer, standing))
    if number_in(pointer) is None and ruling.act in (Act.ADVANCE, Act.FINISH):
        return Ruling(Act.WAIT, "nothing is deployed beside it; finish or halt it by hand")
    return ruling


def counts_of(meta: MetaStore, alarms: Alarms, pointer: Mapping[str, Any], standing: Standing) -> Counts:
    """Return what was seen of a canary or shadow; an alarm that is not there any more counts as raised."""
    model, environment, place = str(pointer["model"]), str(pointer["environment"]), rollout_in(pointer, standing)
    if standing is Standing.SHADOW:
        told = comparison(meta, model, environment, int(place["number"]))
        return Counts(told["compared"], told["failed"])
    names = Plan.from_item(place["plan"]).alarms
    states = alarms.states(names) if names else {}
    raised = tuple(name for name in names if states.get(name, RAISED) == RAISED)
    return replace(count_canary(meta, model, environment, place), raised=raised)


def _carry_out(meta: MetaStore, attestor: Attestor, pointer: Item, standing: Standing, ruling: Ruling, at: datetime) -> None:
    model, environment, place = str(pointer["model"]), str(pointer["environment"]), rollout_in(pointer, standing)
    number = int(place["number"])
    if ruling.act is Act.ADVANCE:
        step = int(place["step"])
        advance_rollout(meta, attestor, model, environment=environment, by=BY, reason=ruling.why, at=at, expected_step=step)
    elif ruling.act is Act.FINISH:
        finish_rollout(meta, attestor, model, environment=environment, by=BY, reason=ruling.why, at=at, number=number)
    elif ruling.act in (Act.HALT, Act.END):
        halt_rollout(meta, attestor, model, environment=environment, by=BY, reason=ruling.why, at=at, standing=standing, number=number)
