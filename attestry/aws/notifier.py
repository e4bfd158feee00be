"""Notifications by SNS."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient

MAX_SUBJECT_CHARACTERS: Final = 100
MAX_MESSAGE_BYTES: Final = 256 * 1024

logger = logging.getLogger(__name__)


class SnsNotifier:
    """`attestry.ports.Notifier` over an SNS topic."""

    def __init__(self, client: SNSClient, topic_arn: str) -> None:
        self._client = client
        self._topic = topic_arn

    def notify(self, subject: str, message: Mapping[str, Any]) -> None:
        """Publish; failures are logged, never raised.

        Args:
            subject: cut to what SNS takes: 100 printable ASCII characters.
            message: JSON-ready; one of more than 256 KiB is replaced by a note of its size.
        """
        text = json.dumps(message, default=str, indent=2)
        if len(text.encode()) > MAX_MESSAGE_BYTES:
            text = json.dumps({"truncated": True, "bytes": len(text.encode())})
        line = "".join(c if 32 <= ord(c) < 127 else "?" for c in subject)[:MAX_SUBJECT_CHARACTERS] or "attestry"
        try:
            self._client.publish(TopicArn=self._topic, Subject=line, Message=text)
        except (BotoCoreError, ClientError) as error:
            logger.warning("notification not sent: %s", error, extra={"subject": line})
