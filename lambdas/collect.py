"""Every minute: archive receipts and captured payloads in their versions' folders."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.world import World
from attestry.usecases.collect import Collector

SECONDS = 240
logger = logging.getLogger(__name__)
world = World()


def handler(_: dict[str, Any], context: Any) -> dict[str, Any]:
    """Collect once; what could not be collected is logged as an error, and is tried again by the next run."""
    configure_logging(context)
    collected = asdict(Collector(world.meta, world.store, world.clock).collect(seconds=SECONDS))
    if collected["errors"] or collected["gaps"]:
        logger.error("receipts are missing or could not be collected", extra=collected)
    else:
        logger.info("collected", extra=collected)
    return collected
