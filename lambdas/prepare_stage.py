"""The pipeline's states `Plan` and `Prepare ...`: what has to be built, and the job of a stage."""

from __future__ import annotations

import platform
from importlib.resources import files
from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.object_store import S3ObjectStore
from attestry.aws.world import World
from attestry.domain.stages import Stage
from attestry.usecases.prepare_stage import StagePreparer
from attestry.usecases.stage_plan import Execution, Sandbox

world = World()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Prepare a stage; `ENVIRONMENT` is not a stage but the step before the first."""
    configure_logging(context)
    preparer = _preparer()
    model, number = str(event["model"]), int(event["version"])
    if event["stage"] == "ENVIRONMENT":
        return {"environments": preparer.plan_environments(model, number)}
    execution = Execution(**{k: str(event["execution"][k]) for k in ("arn", "name", "started")})
    return preparer.prepare(model, number, int(event["attempt"]), Stage(event["stage"]), execution, world.clock.now())


def _preparer() -> StagePreparer:
    settings = world.settings
    sandbox = Sandbox(
        settings.sandbox_memory_mib,
        settings.number("ATTESTRY_SANDBOX_DISK_MIB", 10240),
        platform.machine(),
        settings.environment.get("ATTESTRY_SANDBOX_FUNCTION", ""),
    )
    lock = files("attestry.evaluation").joinpath("requirements.lock").read_bytes()
    names = [n for n in settings.environment.get("ATTESTRY_DATA_BUCKETS", "").split(",") if n]
    buckets = {name: S3ObjectStore(world.clients.s3, name) for name in names}
    return StagePreparer(
        world.meta, world.attestor, world.store, world.scratch, sandbox, evaluation_lock=lock, jobs=settings.jobs, data_buckets=buckets
    )
