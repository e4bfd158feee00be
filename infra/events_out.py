"""Where events are told: the bus that anybody of the account may put rules on, and the queue of deliveries to webhooks."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.config import Config
from infra.names import Names

EVENT_SOURCE = "attestry"
"""The source of the registry's events (`attestry/domain/telling.py`); only the function that tells may put events of it on the bus."""

TRIES = 8
"""How often a delivery is tried; when each comes is in `attestry/usecases/deliver.py`."""

DELIVER_SECONDS = 30
"""Time limit of the function that delivers: a request takes ten seconds at most."""


class Outlets(Construct):
    """Where the ledger is told.

    Attributes:
        bus: every event of the ledger.
    """

    def __init__(self, scope: Construct, construct_id: str, config: Config) -> None:
        super().__init__(scope, construct_id)
        names = Names(config.prefix)
        self.bus = events.EventBus(self, "Bus", event_bus_name=names.bus, description="Attestry: what stands in the ledger")
        self._queues = Queues(self, names) if config.webhooks else None

    def queues(self) -> Queues:
        """Return the queues of webhooks, in a stack that has them."""
        assert self._queues is not None  # noqa: S101 - narrows the type
        return self._queues


class Queues:
    """The queues of webhooks.

    Attributes:
        deliveries: one message for each event and webhook.
        undelivered: what was tried in vain.
    """

    def __init__(self, scope: Construct, names: Names) -> None:
        kept, encryption = Duration.days(14), sqs.QueueEncryption.SQS_MANAGED
        self.undelivered = sqs.Queue(
            scope, "Undelivered", queue_name=names.undelivered, encryption=encryption, enforce_ssl=True, retention_period=kept
        )
        self.deliveries = sqs.Queue(
            scope,
            "Deliveries",
            queue_name=names.deliveries,
            # Six times the function's limit, as Lambda asks for: a message is not given out again while it is being delivered.
            visibility_timeout=Duration.seconds(6 * DELIVER_SECONDS),
            dead_letter_queue=sqs.DeadLetterQueue(max_receive_count=TRIES, queue=self.undelivered),
            encryption=encryption,
            enforce_ssl=True,
            retention_period=kept,
        )

    def deliver_by(self, function: lambda_.Function) -> None:
        """Give each message to a function, one at a time, so that a slow receiver holds up its own alone."""
        function.add_event_source_mapping(
            "Deliveries",
            event_source_arn=self.deliveries.queue_arn,
            batch_size=1,
            max_concurrency=10,
            report_batch_item_failures=True,
        )
