"""The queue of deliveries to webhooks, over SQS."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import translate
from attestry.domain.errors import UnavailableError

MAX_ENTRIES: Final = 10
"""What SendMessageBatch takes at once."""

logger = logging.getLogger(__name__)


class SqsClient(Protocol):
    """What is used of SQS's client."""

    def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:  # noqa: N803 - boto3's names
        """Queue up to ten messages."""

    def change_message_visibility(self, *, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int) -> Any:  # noqa: N803
        """Say when a message that was received is given out again."""


class SqsDeliveries:
    """`attestry.ports.Deliveries` over a queue of SQS.

    Args:
        client: SQS client.
        url: the queue's URL.
    """

    def __init__(self, client: SqsClient, url: str) -> None:
        self._client = client
        self._url = url

    def send(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Queue messages.

        Raises:
            UnavailableError: not all were taken.
        """
        for start in range(0, len(messages), MAX_ENTRIES):
            ten = messages[start : start + MAX_ENTRIES]
            entries = [{"Id": str(n), "MessageBody": json.dumps(message, separators=(",", ":"))} for n, message in enumerate(ten)]
            try:
                answer = self._client.send_message_batch(QueueUrl=self._url, Entries=entries)
            except (BotoCoreError, ClientError) as error:
                raise translate(error, "queue deliveries") from error
            if failed := answer.get("Failed"):
                raise UnavailableError(f"the queue did not take {len(failed)} of {len(ten)} deliveries: {failed[0].get('Code')}")

    def try_again(self, receipt: str, seconds: int) -> None:
        """Have a message that was received given out again after so many seconds; failures are logged, since it comes again anyway."""
        try:
            self._client.change_message_visibility(QueueUrl=self._url, ReceiptHandle=receipt, VisibilityTimeout=seconds)
        except (BotoCoreError, ClientError) as error:
            logger.warning("the next try of a delivery could not be put off: %s", error)
