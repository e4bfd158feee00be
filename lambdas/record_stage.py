"""The pipeline's states `Record ...`: digest, freeze, record, and move the version on."""

from __future__ import annotations

from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.metrics import Count, count
from attestry.aws.world import World
from attestry.domain.stages import Stage
from attestry.usecases.record_stage import StageRecorder, StageResult

world = World()


def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Record what a stage came to, and count it; a call that is tried again is counted again."""
    configure_logging(context)
    recorder = StageRecorder(world.meta, world.store, world.scratch, world.notifier)
    result = StageResult(event.get("run"), event.get("evaluation"), event.get("error"), str(event.get("entered") or ""))
    stage = Stage(event["stage"])
    answer = recorder.record(str(event["model"]), int(event["version"]), int(event["attempt"]), stage, result, world.clock.now())
    count({Count.STAGES_ENDED: 1}, deployment=world.settings.prefix, stage=stage.value, outcome=answer["outcome"])
    return answer
