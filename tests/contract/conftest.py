"""A server of its own for the contract suite: a bare table, bucket, key, topic and state machine, in about a second."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from attestry.local import process
from attestry.local.settings import REGION, DataDirectory, RootKey


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, RootKey]]:
    """Endpoint and root key of an embedded AWS without the registry."""
    data = DataDirectory.at(tmp_path_factory.mktemp("contract") / "data")
    key = data.prepare()
    server = process.start(data, process.free_port(), key)
    yield server.endpoint_url, key
    process.stop(data)


@pytest.fixture(scope="session")
def client_of(emulator: tuple[str, RootKey]) -> Callable[..., Any]:
    """Return a maker of boto3 clients of the emulator."""
    endpoint_url, key = emulator

    def make(service: str, **config: Any) -> Any:
        settings: dict[str, Any] = {"signature_version": "s3v4", "s3": {"addressing_style": "path"}} if service == "s3" else {}
        return boto3.client(
            service,
            endpoint_url=endpoint_url,
            region_name=REGION,
            aws_access_key_id=key.key_id,
            aws_secret_access_key=key.secret,
            config=Config(retries={"mode": "standard", "total_max_attempts": 3}, **{**settings, **config}),
        )

    return make


@pytest.fixture(scope="session")
def table(client_of: Callable[..., Any]) -> str:
    name = "contract"
    client_of("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": a, "AttributeType": "S"} for a in ("pk", "sk", "gsi_pk", "gsi_sk")],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by_collection",
                "KeySchema": [
                    {"AttributeName": "gsi_pk", "KeyType": "HASH"},
                    {"AttributeName": "gsi_sk", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
    )
    return name


@pytest.fixture(scope="session")
def bucket(client_of: Callable[..., Any]) -> str:
    client, name = client_of("s3"), f"contract-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture(scope="session")
def service_role(client_of: Callable[..., Any]) -> str:
    """ARN of a role that the emulated services may assume; it may do anything within them."""
    trusted = {
        "Effect": "Allow",
        "Principal": {"Service": ["lambda.amazonaws.com", "states.amazonaws.com"]},
        "Action": "sts:AssumeRole",
    }
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    iam = client_of("iam")
    trust = json.dumps({"Version": "2012-10-17", "Statement": [trusted]})
    role = iam.create_role(RoleName="contract", AssumeRolePolicyDocument=trust)["Role"]
    document = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
    iam.put_role_policy(RoleName="contract", PolicyName="all", PolicyDocument=document)
    return str(role["Arn"])


@pytest.fixture(scope="session")
def state_machine(client_of: Callable[..., Any], service_role: str) -> str:
    definition = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 600, "End": True}}}
    answer = client_of("stepfunctions").create_state_machine(name="contract", definition=json.dumps(definition), roleArn=service_role)
    return str(answer["stateMachineArn"])


@pytest.fixture
def unique() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex[:16]
