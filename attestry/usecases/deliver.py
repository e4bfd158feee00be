"""Deliver one message of the queue to its webhook.

Rules:
- A message names a webhook and a leaf. What is sent is read from the ledger, where to from the webhook's row, and whether the webhook asks
  for it is judged again: a message that somebody made up, or an old one, is dropped or tells the truth to who asked for it.
- 2xx is delivered. 410 disables the webhook. Everything else is tried again, until the queue gives the message to its dead-letter queue.
- Each try has a time and a signature of its own; the ID stays, so a receiver knows what it has had.
- A webhook of MLflow's clients is told in MLflow's words and headers; what MLflow has no event for is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import rfc8785

from attestry.domain.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from attestry.domain.events import timestamp
from attestry.domain.telling import Told
from attestry.domain.webhooks import State, Webhook
from attestry.evidence.leaf import Leaf
from attestry.evidence.webhook_secret import open_secret, seal_message
from attestry.evidence.webhook_signature import mlflow_headers, secret_message, webhook_headers
from attestry.mlflow.webhooks import EXAMPLES, body_of
from attestry.ports import Clock, MacKey, MetaStore, ObjectStore, Put, Sender, When
from attestry.usecases.ledger import LedgerReader
from attestry.usecases.mlflow_telling import tell_mlflow
from attestry.usecases.webhooks import delivery_key, disable_webhook, read_webhook

PING: Final = "webhook.ping"
GONE: Final = 410
DELAYS: Final = (5, 30, 120, 600, 1_800, 7_200, 14_400)
"""Seconds until the next try, after the first, the second, ... failed one: about seven hours in all, eight tries."""

_PING_ID = re.compile(r"ping_[0-9a-f]{32}")


class Outcome(StrEnum):
    """What became of a message."""

    DELIVERED = "delivered"
    DROPPED = "dropped"
    DISABLED = "disabled"
    FAILED = "failed"


@dataclass(frozen=True)
class Delivery:
    """What became of a message.

    Attributes:
        outcome: what became of it.
        why: the status that came back, or the reason.
    """

    outcome: Outcome
    why: str


@dataclass(frozen=True)
class Letter:
    """What is sent.

    Attributes:
        message_id: the event's ID, or that of a ping.
        body: the body's bytes.
        told: the event; None of a ping.
    """

    message_id: str
    body: bytes
    told: Told | None = None


def delay_after(attempt: int) -> int:
    """Return how many seconds to wait after a failed try, counted from 1."""
    return DELAYS[min(max(attempt, 1), len(DELAYS)) - 1]


class Deliverer:
    """Delivers messages. A warm process keeps one, which remembers the secrets that it derived.

    Args:
        meta: the table.
        store: the model store, in which the ledger is published.
        key: derives secrets.
        sender: sends requests.
        clock: the time.
    """

    def __init__(self, meta: MetaStore, store: ObjectStore, key: MacKey, sender: Sender, clock: Clock) -> None:
        self._meta = meta
        self._reader = LedgerReader(store)
        self._sender = sender
        self._clock = clock
        self._mac = lru_cache(maxsize=512)(key.mac)

    def deliver(self, message: Mapping[str, Any], attempt: int) -> Delivery:
        """Deliver one message.

        Args:
            message: `webhook` and `index`, or `webhook` and `ping`.
            attempt: which try this is, from 1.

        Raises:
            InvalidInputError: it is no message of the registry's.
            UnavailableError: table, store or key did not answer.
        """
        name, index, ping = _read(message)
        try:
            webhook = read_webhook(self._meta, name)
        except NotFoundError:
            return Delivery(Outcome.DROPPED, "there is no such webhook any more")
        if webhook.state is not State.ACTIVE:
            return Delivery(Outcome.DROPPED, "the webhook is disabled")
        letter = self._read_leaf(index) if index is not None else _ping(webhook, ping, timestamp(self._clock.now()))
        if letter.told and not webhook.wants(letter.told.kind, letter.told.model):
            return Delivery(Outcome.DROPPED, "the webhook does not ask for it")
        if webhook.mlflow and letter.told:
            said = tell_mlflow(self._meta, letter.told)
            if said is None or said[0] not in webhook.mlflow["events"]:
                return Delivery(Outcome.DROPPED, "MLflow's clients are told nothing of it")
            letter = replace(letter, body=body_of(said[0], letter.told.logged, said[1]))
        delivery = self._send(webhook, letter)
        self._keep(webhook, letter, delivery, attempt)
        return delivery

    def test(self, name: str, event: str, delivery_id: str) -> tuple[int, str]:
        """Send an example of an event to a webhook of MLflow's clients, once, whatever its state.

        Args:
            name: the webhook.
            event: MLflow's event.
            delivery_id: ID of the request.

        Returns:
            The status that came back, and an empty text; or 0, and why nothing was sent or no answer came.

        Raises:
            NotFoundError: there is none.
            InvalidInputError: it is none of MLflow's clients, or the event is none of MLflow's.
            UnavailableError: table or key did not answer.
        """
        webhook = read_webhook(self._meta, name)
        if not webhook.mlflow or event not in EXAMPLES:
            raise InvalidInputError.of("event", "enum", f"one of {', '.join(EXAMPLES)}, to a webhook of MLflow's clients")
        at = self._clock.now()
        letter = Letter(delivery_id, body_of(event, timestamp(at), EXAMPLES[event]))
        headers = self._headers(webhook, letter, at)
        try:
            return self._sender.post(webhook.url, headers, letter.body), ""
        except (InvalidInputError, UnavailableError) as error:
            return 0, error.message

    def _headers(self, webhook: Webhook, letter: Letter, at: datetime) -> dict[str, str]:
        if webhook.mlflow:
            key = self._mac(seal_message(webhook.name, webhook.secret_number)) if webhook.mlflow["sealed"] else b""
            return mlflow_headers(open_secret(key, webhook.name, webhook.mlflow["sealed"]), letter.message_id, at, letter.body)
        secrets = [self._mac(secret_message(webhook.name, number)) for number in webhook.signs_with(at)]
        return webhook_headers(secrets, letter.message_id, at, letter.body)

    def _read_leaf(self, index: int) -> Letter:
        checkpoint, _ = self._reader.checkpoint()
        leaf = Leaf.parse(self._reader.leaf(index, checkpoint.size))
        told = Told(index, leaf.logged, leaf.event)
        return Letter(told.event_id, told.body(), told)

    def _send(self, webhook: Webhook, letter: Letter) -> Delivery:
        at = self._clock.now()
        try:
            status = self._sender.post(webhook.url, self._headers(webhook, letter, at), letter.body)
        except (InvalidInputError, UnavailableError) as error:
            return Delivery(Outcome.FAILED, error.message)
        if 200 <= status < 300:
            return Delivery(Outcome.DELIVERED, str(status))
        if status != GONE:
            return Delivery(Outcome.FAILED, f"the receiver answered {status}")
        try:
            disable_webhook(self._meta, webhook, reason="the receiver answered 410: it is gone", at=at)
        except ConflictError as error:
            return Delivery(Outcome.FAILED, error.message)
        return Delivery(Outcome.DISABLED, "the receiver answered 410: it is gone")

    def _keep(self, webhook: Webhook, letter: Letter, delivery: Delivery, attempt: int) -> None:
        at = timestamp(self._clock.now())
        outcome = f"{delivery.outcome.value}: {delivery.why}"[:300]
        row = {"at": at, "id": letter.message_id, "outcome": outcome, "attempt": attempt}
        self._meta.transact([Put(delivery_key(webhook.name), row, When())])


def _read(message: Mapping[str, Any]) -> tuple[str, int | None, str]:
    name, index, ping = message.get("webhook"), message.get("index"), message.get("ping")
    if isinstance(name, str) and set(message) == {"webhook", "index"} and type(index) is int and index >= 0:
        return name, index, ""
    if isinstance(name, str) and set(message) == {"webhook", "ping"} and isinstance(ping, str) and _PING_ID.fullmatch(ping):
        return name, None, ping
    raise InvalidInputError.of("", "message", "a message names a webhook and a leaf, or a ping")


def _ping(webhook: Webhook, ping: str, at: str) -> Letter:
    return Letter(ping, rfc8785.dumps({"type": PING, "timestamp": at, "data": {"webhook": webhook.name}}))
