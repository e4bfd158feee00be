"""Every minute, and when an event was committed: take what waits in the outbox into the ledger. What woke it does not matter."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import cache
from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.metrics import Count, count
from attestry.aws.world import World
from attestry.domain.errors import AttestryError
from attestry.evidence.note import parse_vkey
from attestry.usecases.audit import drain_audit
from attestry.usecases.sequence import Sequenced, Sequencer

SECONDS = 60
WITNESS_SECONDS = 10
logger = logging.getLogger(__name__)
world = World(call_seconds=WITNESS_SECONDS)


@cache
def sequencer() -> Sequencer:
    """Return the sequencer, which remembers the ledger's right edge while the process is warm."""
    former = [parse_vkey(key) for key in world.settings.ledger_former_keys]
    signer, origin = world.ledger_signer, world.settings.ledger_origin
    return Sequencer(world.meta, world.store, signer, world.witnesses, world.clock, origin, former=former)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Sequence once.

    A failure is raised to the schedule, which tries again and alarms; not to the stream, whose records would come again and again.
    """
    configure_logging(context)
    try:
        _take_up_audit()
        done = sequencer().run(SECONDS)
    except AttestryError as error:
        if "Records" not in event:
            raise
        logger.exception("the ledger could not be appended to", extra={"code": error.code})
        return {"error": error.to_dict()}
    _report(done)
    if done.appended or done.replayed:
        _have_it_told()
    return asdict(done)


def _take_up_audit() -> None:
    """Make the audited acts of past minutes an event; the ledger goes on without them where that fails."""
    try:
        drain_audit(world.meta, world.store, world.clock.now())
    except AttestryError:
        logger.exception("the audited acts could not be taken up")


def _have_it_told() -> None:
    """Wake the function that tells events outside; the ledger waits for nobody, and a wake that gets lost is made up for by the clock."""
    try:
        world.functions.send(world.settings.tell_function, {})
    except AttestryError:
        logger.exception("who tells the events outside could not be woken")


def _report(done: Sequenced) -> None:
    set_aside = done.conflicts + done.malformed
    if set_aside or done.findings:
        logger.error("the ledger or its outbox was not as it had been left", extra=asdict(done))
    elif done.lacking and not done.contended:
        logger.warning("the checkpoint lacks cosignatures", extra=asdict(done))
    else:
        logger.info("sequenced", extra=asdict(done))
    # Beside another sequencer a witness may have seen more than this one: that says nothing.
    unwitnessed = 0 if done.contended else len(done.lacking)
    counts = {Count.LEDGER_LEAVES: done.appended, Count.LEDGER_CONFLICTS: set_aside, Count.LEDGER_UNWITNESSED: unwitnessed}
    count(counts, deployment=world.settings.prefix)
