"""Events on a bus of EventBridge."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import translate
from attestry.domain.errors import UnavailableError
from attestry.domain.telling import SOURCE, Told

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

MAX_ENTRIES: Final = 10
"""What PutEvents takes at once; ten events of 4 KiB are far below its limit in bytes."""

TRIES: Final = 3
_PAUSE = 0.2


class EventBridgeBus:
    """`attestry.ports.EventBus` over a bus of EventBridge.

    PutEvents may take some entries and refuse others, in an answer that is no error; what was refused is put again a few times, and then
    the rest is given up, so that nothing later is told in its place.

    Args:
        client: EventBridge client.
        bus: name of the bus.
        sleep: waits a number of seconds.
    """

    def __init__(self, client: EventBridgeClient, bus: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._bus = bus
        self._sleep = sleep

    def put(self, told: Sequence[Told]) -> None:
        """Put events on the bus, in order.

        Raises:
            UnavailableError: the bus did not take all of them.
        """
        for start in range(0, len(told), MAX_ENTRIES):
            self._put_ten(told[start : start + MAX_ENTRIES])

    def _put_ten(self, told: Sequence[Told]) -> None:
        left = [self._entry(one) for one in told]
        refused = ""
        for attempt in range(TRIES):
            if attempt:
                self._sleep(_PAUSE * 2**attempt)
            try:
                answer = self._client.put_events(Entries=left)
            except (BotoCoreError, ClientError) as error:
                raise translate(error, f"put events on the bus {self._bus}") from error
            if not answer["FailedEntryCount"]:
                return
            failed = [(entry, result) for entry, result in zip(left, answer["Entries"], strict=True) if result.get("ErrorCode")]
            left, refused = [entry for entry, _ in failed], str(failed[0][1].get("ErrorCode"))
        raise UnavailableError(f"the bus {self._bus} did not take {len(left)} of {len(told)} events: {refused}")

    def _entry(self, told: Told) -> PutEventsRequestEntryTypeDef:
        return {
            "EventBusName": self._bus,
            "Source": SOURCE,
            "DetailType": told.kind,
            "Detail": told.detail_bytes().decode(),
            "Time": datetime.fromisoformat(told.logged),
        }
