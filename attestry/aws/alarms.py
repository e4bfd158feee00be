"""The alarms of CloudWatch, in the registry's own account and region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import translate
from attestry.domain.events import timestamp
from attestry.ports import AlarmState

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient


class CloudWatchAlarms:
    """`attestry.ports.Alarms` and `attestry.ports.AlarmReader` over CloudWatch.

    Args:
        client: CloudWatch client.
    """

    def __init__(self, client: CloudWatchClient) -> None:
        self._client = client

    def states(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return the states of alarms, metric and composite ones, by their names; see `attestry.ports.Alarms`."""
        try:
            answer = self._client.describe_alarms(AlarmNames=list(names), AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        except (BotoCoreError, ClientError) as error:
            raise translate(error, "read alarms") from error
        found = {str(alarm["AlarmName"]): str(alarm["StateValue"]) for alarm in answer.get("MetricAlarms", [])}
        return found | {str(alarm["AlarmName"]): str(alarm["StateValue"]) for alarm in answer.get("CompositeAlarms", [])}

    def find(self, name: str) -> AlarmState | None:
        """Return one alarm with the time since when it is in its state; see `attestry.ports.AlarmReader`."""
        try:
            answer = self._client.describe_alarms(AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"read the alarm {name}") from error
        for alarm in (*answer.get("MetricAlarms", []), *answer.get("CompositeAlarms", [])):
            if alarm["AlarmName"] == name:
                return AlarmState(name, str(alarm["StateValue"]), timestamp(alarm["StateUpdatedTimestamp"]))
        return None
