"""The gateway's own counts, over CloudWatch's answers as they are documented, by botocore's stubber."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from attestry.aws.gateway_counts import NAMESPACE, RESOURCE, CloudWatchCounts
from attestry.domain.errors import UnavailableError

DAY = date(2026, 1, 2)


@pytest.fixture
def client() -> Any:
    return boto3.client("cloudwatch", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")


def expect(stub: Stubber, metric: str, *sums: float) -> None:
    asked = {
        "Namespace": NAMESPACE,
        "MetricName": metric,
        "Dimensions": [
            {"Name": "ApiId", "Value": "a1"},
            {"Name": "Stage", "Value": "$default"},
            {"Name": "Method", "Value": "POST"},
            {"Name": "Resource", "Value": RESOURCE},
        ],
        "StartTime": datetime(2026, 1, 2, tzinfo=UTC),
        "EndTime": datetime(2026, 1, 3, tzinfo=UTC),
        "Period": 86400,
        "Statistics": ["Sum"],
    }
    points = [{"Timestamp": datetime(2026, 1, 2, tzinfo=UTC), "Sum": value, "Unit": "Count"} for value in sums]
    stub.add_response("get_metric_statistics", {"Label": metric, "Datapoints": points}, asked)


def test_what_was_answered_with_success_is_what_came_without_the_errors(client: Any) -> None:
    with Stubber(client) as stub:
        expect(stub, "Count", 120.0)
        expect(stub, "4xx", 15.0)
        expect(stub, "5xx")
        assert CloudWatchCounts(client, "a1").answered(DAY) == 105
        stub.assert_no_pending_responses()


def test_without_a_number_nothing_is_known(client: Any) -> None:
    with Stubber(client) as stub:
        expect(stub, "Count")
        assert CloudWatchCounts(client, "a1").answered(DAY) is None


@pytest.mark.parametrize("code", ["InvalidAction", "NotImplemented", "UnknownOperationException"])
def test_where_there_are_no_metrics_nothing_is_known(client: Any, code: str) -> None:
    with Stubber(client) as stub:
        stub.add_client_error("get_metric_statistics", code, http_status_code=400)
        assert CloudWatchCounts(client, "a1").answered(DAY) is None


def test_an_answer_that_does_not_come_is_an_error_of_the_registry(client: Any) -> None:
    with Stubber(client) as stub:
        stub.add_client_error("get_metric_statistics", "InternalServiceError", http_status_code=500)
        with pytest.raises(UnavailableError):
            CloudWatchCounts(client, "a1").answered(DAY)
