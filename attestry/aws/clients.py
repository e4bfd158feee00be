"""The AWS clients of a function, made when first used and kept for the life of the process."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import botocore.session
from botocore.config import Config

from attestry.aws.row_parser import read_rows_as_sent
from attestry.aws.row_requests import send_rows_as_written

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_cloudtrail import CloudTrailClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_stepfunctions import SFNClient

    from attestry.aws.deliveries import SqsClient

CONNECT_SECONDS: Final = 2
READ_SECONDS: Final = 10
"""Well below the gateway's 30 seconds, so that one dead connection leaves time for a retry."""

_USER_AGENT: Final = "attestry"
"""Who asks, in CloudTrail too; the SDK adds itself. Else it would put a longer one together for each call, twice: a seventh of its time."""

_ATTEMPTS = 3
_POOL = 25


class Clients:
    """Clients with tight timeouts and retries in mode `standard`.

    An endpoint in AWS_ENDPOINT_URL is honoured by botocore itself; a loopback one makes S3 use paths, since it has no name per bucket. The
    process's own session is botocore's: boto3 beside it adds a fifth of a cold start and nothing that is used here.

    Args:
        session: credentials and region; the process's own by default.
        call_seconds: how long a call of another function may take; such a call is not retried when it takes longer.
    """

    def __init__(self, session: boto3.Session | None = None, *, call_seconds: int = READ_SECONDS) -> None:
        self._session = session or cast("boto3.Session", _OwnSession())
        self._call_seconds = call_seconds

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        """Return the client of DynamoDB; of the process's own session, it gives rows as they were sent (`attestry.aws.row_parser`).

        The SDK does not hold requests against its model of the service either: one adapter makes them, which writes the types itself, and
        DynamoDB judges them anyway (`attestry.aws.row_requests`).
        """
        client = self._session.client("dynamodb", config=_config(parameter_validation=False))
        send_rows_as_written(client)
        return client

    @cached_property
    def s3(self) -> S3Client:
        """Return the client of S3: SigV4, regional host names, checksums only where they are asked for.

        The SDK's own checksums are off because every object is digested by the registry itself, on the way in and out.
        """
        style = "path" if is_local(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")) else "virtual"
        return self._session.client(
            "s3",
            config=_config(
                read_timeout=60,
                signature_version="s3v4",
                s3={"addressing_style": style, "us_east_1_regional_endpoint": "regional"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    @cached_property
    def kms(self) -> KMSClient:
        """Return the client of KMS."""
        return self._session.client("kms", config=_config())

    @cached_property
    def functions(self) -> LambdaClient:
        """Return the client of Lambda; one try, because a call that timed out may still be running."""
        retries = {"mode": "standard", "total_max_attempts": 1}
        return self._session.client("lambda", config=_config(read_timeout=self._call_seconds, retries=retries))

    @cached_property
    def stepfunctions(self) -> SFNClient:
        """Return the client of Step Functions."""
        return self._session.client("stepfunctions", config=_config())

    @cached_property
    def sns(self) -> SNSClient:
        """Return the client of SNS."""
        return self._session.client("sns", config=_config())

    @cached_property
    def events(self) -> EventBridgeClient:
        """Return the client of EventBridge."""
        return self._session.client("events", config=_config())

    @cached_property
    def sqs(self) -> SqsClient:
        """Return the client of SQS."""
        client: SqsClient = self._own("sqs")
        return client

    @cached_property
    def ssm(self) -> SSMClient:
        """Return the client of Systems Manager."""
        return self._session.client("ssm", config=_config())

    @cached_property
    def cloudwatch(self) -> CloudWatchClient:
        """Return the client of CloudWatch's metrics."""
        return self._session.client("cloudwatch", config=_config())

    @cached_property
    def cloudtrail(self) -> CloudTrailClient:
        """Return the client of CloudTrail."""
        return self._session.client("cloudtrail", config=_config())

    @cached_property
    def sagemaker(self) -> Any:
        """Return the client of SageMaker."""
        return self._own("sagemaker")

    @cached_property
    def sagemaker_runtime(self) -> Any:
        """Return the client of SageMaker's endpoints; one try, because a call that timed out may still be running."""
        return self._own("sagemaker-runtime", read_timeout=self._call_seconds, retries={"mode": "standard", "total_max_attempts": 1})

    def _own(self, name: str, **changes: Any) -> Any:
        """Return the client of a service for which there are no stubs here."""
        return cast("_OwnSession", self._session).client(name, config=_config(**changes))


class _OwnSession:
    """The credentials and the region of this process, with boto3's way to make a client."""

    def __init__(self) -> None:
        self._session = botocore.session.get_session()
        read_rows_as_sent(self._session)

    def client(self, name: str, *, config: Config) -> Any:
        return self._session.create_client(name, config=config)


def is_local(url: str | None) -> bool:
    """Return whether an endpoint is on this machine's loopback address."""
    return url is not None and urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def _config(**changes: Any) -> Config:
    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": _ATTEMPTS},
        "max_pool_connections": _POOL,
        "tcp_keepalive": True,
        "user_agent": _USER_AGENT,
    }
    return Config(**{**settings, **changes})
