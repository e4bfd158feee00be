"""Every few minutes: go on from where a crash left something between two steps, and have retired and lapsed what is due."""

from __future__ import annotations

import logging
from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.metrics import Count, count
from attestry.aws.world import World
from attestry.usecases.custody import due_custody
from attestry.usecases.lapse import due_lapses
from attestry.usecases.revoke import due_retirements
from attestry.usecases.sweep import sweep

logger = logging.getLogger(__name__)
world = World()


def handler(_: dict[str, Any], context: Any) -> dict[str, int]:
    """Sweep once; what could not be mended is logged as an error, counted, and tried again by the next run."""
    configure_logging(context)
    counts = sweep(
        world.meta,
        world.functions,
        world.pipeline,
        gate_function=world.settings.gate_function,
        record_function=world.settings.record_function,
        at=world.clock.now(),
        on_unmended=lambda version, why: logger.error("a version could not be mended", extra={"version": version, "why": why}),
    )
    if due_retirements(world.meta, world.clock.now(), limit=1):
        # The function whose key attests retirements does it.
        world.functions.send(world.settings.operate_function, {"action": "retire_due"})
    if due_lapses(world.meta, world.clock.now(), limit=1):
        world.functions.send(world.settings.operate_function, {"action": "lapse_due"})
    if due_custody(world.meta, world.clock.now(), limit=1):
        world.functions.send(world.settings.custody_function, {"action": "attend_due"})
    logger.info("swept", extra=counts)
    swept = {Count.VERSIONS_SWEPT: counts["started"] + counts["restarted"] + counts["sent"], Count.VERSIONS_UNMENDED: counts["failed"]}
    count(swept, deployment=world.settings.prefix)
    return counts
