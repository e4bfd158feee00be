"""`attestry.usecases.reconcile_predictions.GatewayCounts` over CloudWatch's metrics of the HTTP API, by route.

API Gateway counts every request of the prediction route, and those that were answered with 4xx and 5xx; what is left was answered with
success. Where CloudWatch has no number for the day, as where it is emulated without metrics, nothing is known.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import translate

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

NAMESPACE: Final = "AWS/ApiGateway"
METHOD, RESOURCE, STAGE = "POST", "/v1/models/{model}/predictions", "$default"
_NO_METRICS = frozenset({"InvalidAction", "NotImplemented", "UnknownOperationException"})
"""How an emulator says that it has no metrics; AWS never does."""

_REQUESTS, _ERRORS = "Count", ("4xx", "5xx")


class CloudWatchCounts:
    """Counts by CloudWatch.

    Args:
        client: boto3's client of CloudWatch.
        api_id: ID of the HTTP API.
    """

    def __init__(self, client: CloudWatchClient, api_id: str) -> None:
        self._client = client
        self._api_id = api_id

    def answered(self, day: date) -> int | None:
        """Return how many predictions were answered with success on a day (UTC), or None where CloudWatch has no number.

        Raises:
            UnavailableError: CloudWatch did not answer.
        """
        requests = self._sum(_REQUESTS, day)
        if requests is None:
            return None
        return max(0, requests - sum(self._sum(name, day) or 0 for name in _ERRORS))

    def _sum(self, metric: str, day: date) -> int | None:
        start = datetime.combine(day, time(), UTC)
        names = {"ApiId": self._api_id, "Stage": STAGE, "Method": METHOD, "Resource": RESOURCE}
        try:
            answer = self._client.get_metric_statistics(
                Namespace=NAMESPACE,
                MetricName=metric,
                Dimensions=[{"Name": name, "Value": value} for name, value in names.items()],
                StartTime=start,
                EndTime=start + timedelta(days=1),
                Period=86400,
                Statistics=["Sum"],
            )
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and error.response["Error"].get("Code") in _NO_METRICS:
                return None
            raise translate(error, f"read the gateway's metric {metric}") from error
        points = answer["Datapoints"]
        return round(sum(point["Sum"] for point in points)) if points else None
