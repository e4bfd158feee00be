"""What the pipeline passes on from the run of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StageResult:
    """What the pipeline passes on from the run.

    Attributes:
        run: the sandbox's answer, or `{"service", "answer" or "error"}` of a job; None when neither was reached.
        evaluation: the evaluation's answer; None where the stage has none.
        error: what the pipeline caught, or None.
        entered: when the run began, as Step Functions tells it.
    """

    run: Mapping[str, Any] | None
    evaluation: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    entered: str
