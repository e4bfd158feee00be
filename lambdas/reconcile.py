"""Every hour: compare table, ledger and store, and open a finding for whatever was done by hand."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import cache
from typing import Any

from attestry.aws.gateway_counts import CloudWatchCounts
from attestry.aws.logging import configure_logging
from attestry.aws.metrics import Count, count
from attestry.aws.world import World
from attestry.evidence.note import Verifier, parse_vkey
from attestry.usecases.reconcile import Reconciler

SECONDS = 720
logger = logging.getLogger(__name__)
world = World()


@cache
def verifiers() -> tuple[Verifier, ...]:
    """Return the ledger's keys: the present one, and those before it."""
    present = Verifier.of(world.settings.ledger_origin, world.ledger_signer.public_key())
    return (present, *(parse_vkey(key) for key in world.settings.ledger_former_keys))


def handler(_: dict[str, Any], context: Any) -> dict[str, Any]:
    """Reconcile for some minutes, from where the last run stopped; what was opened is logged as an error and counted."""
    configure_logging(context)
    gateway = CloudWatchCounts(world.clients.cloudwatch, world.settings.api_id)
    done = Reconciler(world.meta, world.store, gateway, world.clock, verifiers=verifiers()).run(seconds=SECONDS)
    told = asdict(done)
    if done.opened or done.errors:
        logger.error("table, ledger and store do not agree, or could not be compared", extra=told)
    else:
        logger.info("reconciled", extra=told)
    count({Count.FINDINGS_OPENED: done.opened}, deployment=world.settings.prefix)
    return told
