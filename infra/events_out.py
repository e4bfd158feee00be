"""Where events are told: the bus that anybody of the account may put rules on."""

from __future__ import annotations

from aws_cdk import aws_events as events
from constructs import Construct

from infra.config import Config
from infra.names import Names

EVENT_SOURCE = "attestry"
"""The source of the registry's events (`attestry/domain/telling.py`); only the function that tells may put events of it on the bus."""


class Outlets(Construct):
    """Where the ledger is told.

    Attributes:
        bus: every event of the ledger.
    """

    def __init__(self, scope: Construct, construct_id: str, config: Config) -> None:
        super().__init__(scope, construct_id)
        names = Names(config.prefix)
        self.bus = events.EventBus(self, "Bus", event_bus_name=names.bus, description="Attestry: what stands in the ledger")
