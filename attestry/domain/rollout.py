"""Rollouts: how a version comes into place by steps, and what a step needs before the next.

Rules:
- A canary answers a share of the requests, by steps; the deployed version answers the others. A shadow answers none: it is asked as well,
  afterwards, and its predictions are kept as a shadow's.
- Which requests a canary answers follows from a hash of the request's key and the version digest, so who stands under a share of 5 percent
  stands under every larger one, and another canary takes others.
- A canary's failure is a request that it failed and the deployed version answered. What both fail is the request's fault, so that nobody
  halts a canary by sending requests that no version can answer.
- A step goes on once its minutes are over and it has answered as many predictions as the plan asks for. It is halted as soon as one of its
  alarms is raised; a rate counts only from a number of failures on, and a latency from a number of predictions.
- What is decided follows from the plan, the time and the counts alone: the same again decides the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from attestry.domain.manifest_sections import Deployment

ALL_AT_ONCE: Final = "all-at-once"
CANARY: Final = "canary"
SHADOW: Final = "shadow"
STRATEGIES: Final = (ALL_AT_ONCE, CANARY, SHADOW)

PERCENTILE_NEEDS: Final = 20
"""Predictions below which a 95th percentile says nothing."""


@dataclass(frozen=True)
class Plan:
    """How a version is rolled out.

    Attributes:
        strategy: one of `STRATEGIES`.
        steps: of a canary, the shares in percent, rising.
        minutes: of a canary, how long each step lasts at least; of a shadow, the whole.
        predictions: of a canary, how many each step answers at least; of a shadow, after how many it ends (0: by time alone).
        error_rate: of a canary, the share of failures above which it is halted, as decimal text.
        minimum_errors: failures below which the rate says nothing.
        latency_p95_ms: 95th percentile of the time that the version takes, in milliseconds, above which it is halted; 0 for none.
        alarms: names of CloudWatch alarms that halt it.
        column: column of the answer in which a shadow is compared.
    """

    strategy: str = ALL_AT_ONCE
    steps: tuple[int, ...] = ()
    minutes: int = 0
    predictions: int = 0
    error_rate: str = "0"
    minimum_errors: int = 1
    latency_p95_ms: int = 0
    alarms: tuple[str, ...] = ()
    column: str = "prediction"

    def to_item(self) -> dict[str, Any]:
        """Return the plan as rows hold it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_item` wrote; of nothing, all at once."""
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in item.items()}
        return cls(**values)

    @classmethod
    def of(cls, deployment: Deployment, *, column: str) -> Plan:
        """Return the plan that a manifest asks for.

        Args:
            deployment: the manifest's section.
            column: column of the answer that holds the prediction.
        """
        # Here alone: the signing path, which only asks whether a canary takes a request, starts without manifests.
        from attestry.domain.manifest_sections import Canary, Shadow

        if deployment.strategy == CANARY:
            told = deployment.canary or Canary()
            alarm = told.alarm
            return cls(
                CANARY,
                tuple(told.steps),
                told.minutes,
                told.predictions,
                str(Decimal(str(alarm.error_rate))),
                alarm.minimum_errors,
                alarm.latency_p95_ms,
                tuple(alarm.cloudwatch),
                column,
            )
        if deployment.strategy == SHADOW:
            length = deployment.shadow or Shadow()
            return cls(SHADOW, minutes=length.minutes, predictions=length.predictions, column=column)
        return cls()


@dataclass(frozen=True)
class Counts:
    """What was seen of a version in the current step.

    Attributes:
        answered: predictions that it made.
        failed: requests that it failed and the deployed version answered.
        p95_ms: 95th percentile of the time that it took; None where too few were seen.
        raised: names of the plan's CloudWatch alarms that are raised.
    """

    answered: int = 0
    failed: int = 0
    p95_ms: int | None = None
    raised: tuple[str, ...] = field(default=())


class Act(StrEnum):
    """What is to be done with a rollout."""

    WAIT = "wait"
    ADVANCE = "advance"
    FINISH = "finish"
    HALT = "halt"
    END = "end"


@dataclass(frozen=True)
class Ruling:
    """What was decided, and why."""

    act: Act
    why: str


def judge(plan: Plan, step: int, minutes: float, counts: Counts) -> Ruling:
    """Decide what is to be done with a canary or a shadow.

    Args:
        plan: the plan.
        step: number of the current step, from 0.
        minutes: how long it lasts already.
        counts: what was seen in it.
    """
    if plan.strategy == SHADOW:
        enough = plan.predictions and counts.answered + counts.failed >= plan.predictions
        if enough or minutes >= plan.minutes:
            return Ruling(Act.END, f"{counts.answered} predictions were compared in {minutes:.0f} minutes")
        return Ruling(Act.WAIT, "the shadow is being compared")
    alarm = raised_alarm(plan, counts)
    if alarm:
        return Ruling(Act.HALT, alarm)
    if minutes < plan.minutes:
        return Ruling(Act.WAIT, f"the step lasts {plan.minutes} minutes")
    if counts.answered < plan.predictions:
        return Ruling(Act.WAIT, f"the step needs {plan.predictions} predictions, and has {counts.answered}")
    told = f"{counts.answered} predictions, {counts.failed} failures in {minutes:.0f} minutes at {plan.steps[step]} percent"
    return Ruling(Act.FINISH if step + 1 >= len(plan.steps) else Act.ADVANCE, told)


def raised_alarm(plan: Plan, counts: Counts) -> str:
    """Return which alarm of a canary is raised, as a sentence; empty where none is."""
    if counts.raised:
        return f"the alarm {counts.raised[0]} is raised"
    asked = counts.answered + counts.failed
    if counts.failed >= plan.minimum_errors and Decimal(counts.failed) > Decimal(plan.error_rate) * asked:
        return f"{counts.failed} of {asked} requests failed; at most {Decimal(plan.error_rate) * 100:f} percent may"
    if plan.latency_p95_ms and counts.p95_ms is not None and counts.p95_ms > plan.latency_p95_ms:
        return f"95 percent of the predictions took up to {counts.p95_ms} ms; at most {plan.latency_p95_ms} ms are allowed"
    return ""


def percentile_95(milliseconds: Sequence[int]) -> int | None:
    """Return the 95th percentile by the nearest rank, or None of fewer than `PERCENTILE_NEEDS`."""
    if len(milliseconds) < PERCENTILE_NEEDS:
        return None
    return sorted(milliseconds)[-(-len(milliseconds) * 95 // 100) - 1]


def is_taken(share: int, version_digest: str, key: bytes) -> bool:
    """Return whether a canary answers a request.

    It does when the first 8 bytes, big-endian, of SHA-256 over `canary`, a newline, the version digest, a newline and the key are less than
    share/100 x 2^64.

    Args:
        share: percent of the requests that it answers.
        version_digest: the canary's.
        key: what the caller names for requests that belong together, or random bytes.
    """
    place = int.from_bytes(hashlib.sha256(f"canary\n{version_digest}\n".encode() + key).digest()[:8], "big")
    return place * 100 < share * 2**64
