"""Rollouts as people ask for them: what goes on where, and to advance, halt or finish it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attestry.domain.errors import InvalidInputError, NotFoundError
from attestry.domain.principal import Principal
from attestry.domain.version import Version
from attestry.ports import MetaStore
from attestry.usecases.attest import Attestor
from attestry.usecases.canary_counts import count_canary, failures_partition
from attestry.usecases.pointer import ROLLOUTS, number_in, rollout_in
from attestry.usecases.records import model_key, pointer_key
from attestry.usecases.rollout import advance_rollout, finish_rollout, halt_rollout
from attestry.usecases.shadow import comparison, comparison_key

ACTIONS = ("advance", "halt", "finish")
LATEST_FAILURES = 5


def show_rollouts(meta: MetaStore, model: str, environment: str) -> dict[str, Any]:
    """Return what stands in an environment beside the deployed version, and what was seen of it.

    Raises:
        NotFoundError: no such model, or nothing was ever deployed there.
    """
    pointer = meta.get(pointer_key(model, environment))
    if pointer is None:
        if meta.get(model_key(model)) is None:
            raise NotFoundError(f"there is no model {model}")
        raise NotFoundError(f"no version of {model} was ever deployed in {environment}")
    shown: dict[str, Any] = {"model": model, "environment": environment, "deployed": number_in(pointer), "rev": int(pointer.get("rev", 0))}
    canary, shadow = (rollout_in(pointer, standing) for standing in ROLLOUTS)
    shown["canary"] = {**_public(canary), **_seen(meta, model, environment, canary)} if canary else {}
    shown["shadow"] = {**_public(shadow), **_compared(meta, model, environment, shadow)} if shadow else {}
    return shown


def change_rollout(
    meta: MetaStore,
    attestor: Attestor,
    model: str,
    action: Any,
    *,
    environment: str,
    by: Principal,
    reason: str,
    at: datetime,
    number: int | None = None,
    step: int | None = None,
) -> Version:
    """Advance, halt or finish the rollout of an environment, and return its version.

    With `number`, and `step` where it is advanced, the same again changes nothing: whoever got no answer can ask again.

    Args:
        meta: the table.
        attestor: signs with the acting function's key.
        model: the model's name.
        action: `advance`, `halt` or `finish`.
        environment: where.
        by: who.
        reason: why, checked.
        at: the time.
        number: the version that is meant; None for whichever is rolled out there.
        step: the step that the canary is to leave, from 0; None for whichever it is at.

    Raises:
        InvalidInputError: no such action.
        NotFoundError, ConflictError: see `attestry.usecases.rollout`.
    """
    told: dict[str, Any] = {"environment": environment, "by": by, "reason": reason, "at": at}
    if action == "advance":
        return advance_rollout(meta, attestor, model, expected_step=step, number=number, **told).version
    if action == "halt":
        return halt_rollout(meta, attestor, model, number=number, **told).version
    if action == "finish":
        return finish_rollout(meta, attestor, model, number=number, **told).version
    raise InvalidInputError.of("action", "one_of", f"a rollout knows {', '.join(ACTIONS)}")


def _public(place: Mapping[str, Any]) -> dict[str, Any]:
    return {name: place[name] for name in ("number", "version_digest", "share", "step", "begun", "since", "plan") if name in place}


def _seen(meta: MetaStore, model: str, environment: str, place: Mapping[str, Any]) -> dict[str, Any]:
    counts = count_canary(meta, model, environment, place)
    latest = meta.query(failures_partition(model, int(place["number"])), newest_first=True, limit=LATEST_FAILURES)
    failures = [{"at": row["at"], "why": row["why"]} for row in latest if str(row["at"]) >= str(place["since"])]
    return {"answered": counts.answered, "failed": counts.failed, "p95_ms": counts.p95_ms, "failures": failures}


def _compared(meta: MetaStore, model: str, environment: str, place: Mapping[str, Any]) -> dict[str, Any]:
    number = int(place["number"])
    last = (meta.get(comparison_key(model, environment, number)) or {}).get("last_error", "")
    return {"comparison": comparison(meta, model, environment, number), "last_error": last}
