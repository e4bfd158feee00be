"""An emulator of its own for the contract suite: a bare table, bucket, key, topic and state machine, in about a second."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
import pytest
from botocore.config import Config

REGION = "eu-central-1"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def emulator_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("emulator")
    port = _free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
        "MINISTACK_REGION": REGION,
    }
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "ministack"]
        server = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urlopen(f"{url}/_ministack/health", timeout=1):
                    break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"the emulator did not start: {(folder / 'log').read_text()[-2000:]}")
                time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="session")
def client_of(emulator_url: str) -> Callable[..., Any]:
    """Return a maker of boto3 clients of the emulator."""

    def make(service: str, **config: Any) -> Any:
        settings: dict[str, Any] = {"signature_version": "s3v4", "s3": {"addressing_style": "path"}} if service == "s3" else {}
        return boto3.client(
            service,
            endpoint_url=emulator_url,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
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
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}, ObjectLockEnabledForBucket=True)
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
