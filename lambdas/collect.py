"""Every minute: archive receipts and captured payloads in their versions' folders."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.metrics import Count, count
from attestry.aws.world import World
from attestry.usecases.collect import Collector

SECONDS = 240
logger = logging.getLogger(__name__)
world = World()


def handler(_: dict[str, Any], context: Any) -> dict[str, Any]:
    """Collect once; what could not be collected is logged as an error, counted, and tried again by the next run."""
    configure_logging(context)
    done = Collector(world.meta, world.store, world.clock).collect(seconds=SECONDS)
    collected = asdict(done)
    if done.errors or done.gaps:
        logger.error("receipts are missing or could not be collected", extra=collected)
    else:
        logger.info("collected", extra=collected)
    counts = {Count.RECEIPTS_COLLECTED: done.receipts, Count.SEQUENCE_GAPS: done.gaps, Count.KEYS_NOT_COLLECTED: len(done.errors)}
    count(counts, deployment=world.settings.prefix)
    return collected
