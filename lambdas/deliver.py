"""From the queue of deliveries: send one message to its webhook; what fails comes again, later each time, until the queue gives it up.

Besides, it sends the tests that MLflow's clients ask for, once each.
"""

from __future__ import annotations

import json
import logging
from functools import cache
from typing import Any

from attestry.aws.logging import configure_logging
from attestry.aws.metrics import Count, count
from attestry.aws.world import World
from attestry.domain.errors import AttestryError, InvalidInputError
from attestry.usecases.deliver import Deliverer, Delivery, Outcome, delay_after

logger = logging.getLogger(__name__)
world = World()


@cache
def deliverer() -> Deliverer:
    """Return what delivers, which remembers derived secrets while the process is warm."""
    return Deliverer(world.meta, world.store, world.webhook_key, world.sender, world.clock)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Deliver the messages of an event, one as a rule, and tell the queue which of them have failed."""
    configure_logging(context)
    if event.get("action") == "test":
        status, why = deliverer().test(str(event["webhook"]), str(event["event"]), str(event["id"]))
        return {"status": status, "why": why}
    failed = [record["messageId"] for record in event["Records"] if not _deliver(record)]
    count({Count.DELIVERIES: len(event["Records"]), Count.DELIVERIES_FAILED: len(failed)}, deployment=world.settings.prefix)
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}


def _deliver(record: dict[str, Any]) -> bool:
    attempt = int(record["attributes"]["ApproximateReceiveCount"])
    try:
        delivery = deliverer().deliver(_message(record["body"]), attempt)
    except AttestryError as error:
        delivery = Delivery(Outcome.FAILED, error.message)
    told = {"outcome": delivery.outcome.value, "why": delivery.why, "attempt": attempt, "queued": record["body"][:200]}
    if delivery.outcome is not Outcome.FAILED:
        logger.info("delivered", extra=told)
        return True
    logger.warning("a delivery failed", extra=told)
    world.deliveries.try_again(record["receiptHandle"], delay_after(attempt))
    return False


def _message(body: str) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise InvalidInputError.of("", "json", "the message is not JSON") from error
    if not isinstance(message, dict):
        raise InvalidInputError.of("", "message", "the message is no object")
    return message
