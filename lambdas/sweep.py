"""Every few minutes: go on from where a crash left something between two steps."""

from __future__ import annotations

import logging
from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.world import World
from attestry.usecases.sweep import sweep

logger = logging.getLogger(__name__)
world = World()


def handler(_: dict[str, Any], context: Any) -> dict[str, int]:
    """Sweep once."""
    configure_logging(context)
    counts = sweep(world.meta, world.functions, world.pipeline, gate_function=world.settings.gate_function, at=world.clock.now())
    logger.info("swept", extra=counts)
    return counts
