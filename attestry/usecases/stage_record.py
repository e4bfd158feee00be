"""The record of a stage: what it came to, and the document that is kept, digested and attested of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from attestry.domain.events import timestamp
from attestry.domain.stages import Stage, Status
from attestry.domain.version import FileRef
from attestry.evidence.predicates import Predicate
from attestry.evidence.stage_predicates import judgement_of, provenance_of
from attestry.ports import Write
from attestry.usecases.stage_result import StageResult


@dataclass(frozen=True)
class Recorded:
    """What a stage came to, before it is written.

    Attributes:
        outcome: SUCCEEDED, FAILED or REJECTED.
        error: why not SUCCEEDED.
        outputs: name to digest and files.
        changes: attributes of the version's head.
        facts: for the record: metrics, gates, schema.
        told: further facts for the event.
        rows: further writes of the transaction.
    """

    outcome: Status
    error: str = ""
    outputs: tuple[Mapping[str, Any], ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Write] = ()


def success_of(stage: Stage, recorded: Recorded) -> str:
    """Return the reason of the move of a stage that has succeeded."""
    source = recorded.told.get("reused_from")
    done = f"was taken from {source['version']}, which ran it on the same inputs" if source else "has succeeded"
    return f"{stage.value} {done}"


def write_record(row: Mapping[str, Any], recorded: Recorded, result: StageResult, log: FileRef | None, at: datetime) -> dict[str, Any]:
    """Return the record, JSON values: every line of the plan again, and what came of it.

    Args:
        row: the row of the run, with its plan.
        recorded: what it came to.
        result: what the pipeline passed on.
        log: the script's log; None where there is none.
        at: when it is recorded.
    """
    run, plan = result.run or {}, json.loads(row["plan"])
    # What a job's service tells is among the facts; of a job nothing is claimed, and nothing of a stage that was not run.
    ran = "service" not in run and "reused_from" not in plan
    claimed = {k: run.get(k) for k in ("exit_code", "started", "ended", "machine", "outcome") if ran}
    return {
        **plan,
        "outcome": recorded.outcome.value,
        "error": recorded.error,
        "started": result.entered or row["begun"],
        "ended": timestamp(at),
        "outputs": [dict(o) for o in recorded.outputs],
        "log": log.to_item() if log else None,
        "claimed": json.loads(json.dumps(claimed, default=str)),
        **recorded.facts,
    }


def predicate_of(record: Mapping[str, Any], kept: FileRef) -> Predicate | None:
    """Return what the stage's attestation says; a stage that has failed made nothing that could be attested but the move."""
    if record["outcome"] == Status.FAILED:
        return None
    return judgement_of(record) if record["stage"] == Stage.VALIDATION else provenance_of(record, kept.sha256, kept.key)


def evaluated_with(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return what the registry computed the metrics with, as its own evaluation tells: packages, and the environment they lie in."""
    return {str(name): str(value) for name, value in (summary.get("evaluated_with") or {}).items()}


def without_floats(value: Any) -> Any:
    """Return the summary with numbers that are not whole as text: they are facts to show, not to compute with."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return {k: without_floats(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_floats(v) for v in value]
    return value
