"""The pipeline's states `Record ...`: digest, freeze, record, and move the version on."""

from __future__ import annotations

from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.metrics import Count, count
from attestry.aws.world import World
from attestry.domain.stages import Stage, Status
from attestry.usecases.freeze_import import freeze_import
from attestry.usecases.record_stage import StageRecorder
from attestry.usecases.sign_artifact import ArtifactSignature, request_artifact_signature
from attestry.usecases.stage_result import StageResult

SIGN_SECONDS = 120
"""How long the signing function may take; it lists a folder and reads one document."""

world = World(call_seconds=SIGN_SECONDS)


def _sign_artifact(folder: str, version_digest: str) -> ArtifactSignature:
    return request_artifact_signature(world.functions, world.settings.sign_artifact_function, folder, version_digest)


def _freeze_import(model: str, number: int) -> dict[str, str]:
    """Freeze an imported version, and have its approval opened; what cannot be reached is tried again by the sweep."""
    ports: Any = (world.meta, world.attestor, world.store, world.notifier)
    version = freeze_import(*ports, model=model, number=number, sign_artifact=_sign_artifact, at=world.clock.now())
    if (version.stage, version.status) == (Stage.IMPORTED, Status.SUCCEEDED):
        world.functions.send(world.settings.gate_function, {"action": "open_import", "model": model, "version": number})
    return {"outcome": version.status.value, "error": version.error}


def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Record what a stage came to, and count it; a call that is tried again is counted again."""
    configure_logging(context)
    if event.get("action") == "freeze_import":
        return _freeze_import(str(event["model"]), int(event["version"]))
    recorder = StageRecorder(world.meta, world.attestor, world.store, world.scratch, world.notifier, sign_artifact=_sign_artifact)
    result = StageResult(event.get("run"), event.get("evaluation"), event.get("error"), str(event.get("entered") or ""))
    stage = Stage(event["stage"])
    answer = recorder.record(str(event["model"]), int(event["version"]), int(event["attempt"]), stage, result, world.clock.now())
    count({Count.STAGES_ENDED: 1}, deployment=world.settings.prefix, stage=stage.value, outcome=answer["outcome"])
    return answer
