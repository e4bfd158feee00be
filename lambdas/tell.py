"""After the ledger has grown, and every minute: tell what stands in it outside. What woke it does not matter."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.metrics import Count, count
from attestry.aws.world import World
from attestry.domain.errors import UnavailableError
from attestry.usecases.tell import BusOutlet, Teller
from attestry.usecases.webhooks import WebhookOutlet

SECONDS = 40
logger = logging.getLogger(__name__)
world = World()


def handler(_: dict[str, Any], context: Any) -> dict[str, Any]:
    """Tell once.

    Raises:
        UnavailableError: an outlet did not take what it was told; the next run goes on, and the function's alarm rings.
    """
    configure_logging(context)
    webhooks = [WebhookOutlet(world.meta, world.deliveries)] if world.settings.has_webhooks else []
    done = Teller(world.meta, world.store, [BusOutlet(world.bus), *webhooks]).run(SECONDS)
    count({Count.EVENTS_TOLD: sum(done.told.values()), Count.EVENTS_UNTOLD: len(done.errors)}, deployment=world.settings.prefix)
    if done.errors:
        raise UnavailableError("; ".join(f"{name}: {why}" for name, why in sorted(done.errors.items())))
    logger.info("told", extra=asdict(done))
    return asdict(done)
