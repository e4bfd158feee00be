"""Random sequences of all commands by all kinds of principals on the embedded AWS: its table, its buckets, its keys, by the real adapters.

The executions of the pipeline are played, and so is what scripts leave; every change of the registry's state is the use case's own.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import boto3
import pytest
from botocore.config import Config
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from attestry.aws.meta_store import DynamoMetaStore
from attestry.aws.object_store import S3ObjectStore
from attestry.aws.row_parser import read_rows_as_sent
from attestry.aws.rows import unmarshal_row
from attestry.aws.signer import KmsSigner
from attestry.evidence.trusted_root import MAY_SIGN
from attestry.local import process
from attestry.local.settings import REGION, DataDirectory
from attestry.ports import Key
from tests.machine.flow import MachineFlow, Rows
from tests.machine.machine import RegistryMachine
from tests.unit.test_state_machine import SETTINGS

pytestmark = pytest.mark.embedded


class Server:
    """A server without a stack: buckets and keys for the session, and a table for each sequence."""

    def __init__(self, endpoint_url: str, key_id: str, secret: str) -> None:
        session = boto3.Session(key_id, secret, region_name=REGION)
        read_rows_as_sent(session._session)  # rows and calls as functions have them, which takes a fifth less than the SDK's own way
        config = Config(retries={"mode": "standard", "total_max_attempts": 3}, user_agent="attestry")
        plain = {"endpoint_url": endpoint_url, "config": config}
        self.dynamodb, self.kms = session.client("dynamodb", **plain), session.client("kms", **plain)  # type: ignore[call-overload]
        addressing = Config(signature_version="s3v4", s3={"addressing_style": "path"}, user_agent="attestry")
        self.s3 = session.client("s3", endpoint_url=endpoint_url, config=addressing)
        self.buckets = [f"machine-{name}" for name in ("store", "scratch")]
        for bucket in self.buckets:
            self.s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
            self.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        self.signers = {name: self._signer() for name in (*MAY_SIGN, "delegate", "sign_artifact")}
        self.built: set[str] = set()

    def _signer(self) -> KmsSigner:
        made = self.kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]
        return KmsSigner(self.kms, made["Arn"])

    def make_table(self) -> str:
        """Make an empty table of the registry's form."""
        name = f"machine-{uuid.uuid4().hex[:16]}"
        index = {
            "IndexName": "by_collection",
            "KeySchema": [{"AttributeName": "gsi_pk", "KeyType": "HASH"}, {"AttributeName": "gsi_sk", "KeyType": "RANGE"}],
            "Projection": {"ProjectionType": "ALL"},
        }
        self.dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": a, "AttributeType": "S"} for a in ("pk", "sk", "gsi_pk", "gsi_sk")],
            GlobalSecondaryIndexes=[index],  # type: ignore[list-item]
        )
        return name


class EmbeddedFlow(MachineFlow):
    """Flow over the real adapters."""

    server: ClassVar[Server]

    def __init__(self) -> None:
        super().__init__()
        server = self.server
        self.built = server.built
        self.model = f"m-{uuid.uuid4().hex[:12]}"
        self.table = server.make_table()
        store, scratch = (S3ObjectStore(server.s3, bucket, retention=("GOVERNANCE", 1)) for bucket in server.buckets)
        self.wire(DynamoMetaStore(server.dynamodb, self.table), store, scratch, server.signers)

    def rows(self) -> Rows:
        answer: dict[str, Any] = {"LastEvaluatedKey": None}
        items: list[Any] = []
        while "LastEvaluatedKey" in answer:
            begin = {"ExclusiveStartKey": answer["LastEvaluatedKey"]} if answer["LastEvaluatedKey"] else {}
            answer = dict(self.server.dynamodb.scan(TableName=self.table, ConsistentRead=True, **begin))
            items += answer["Items"]
        rows = [unmarshal_row(item) for item in items]
        return {Key(row["pk"], row["sk"]): row for row in rows}


class EmbeddedMachine(RegistryMachine):
    """The machine on the embedded AWS; a sequence's table goes with it."""

    make_flow = EmbeddedFlow

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "flow"):
            EmbeddedFlow.server.dynamodb.delete_table(TableName=self.flow.table)  # type: ignore[attr-defined]


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    data = DataDirectory.at(tmp_path_factory.mktemp("machine") / "data")
    key = data.prepare()
    running = process.start(data, process.free_port(), key)
    EmbeddedFlow.server = Server(running.endpoint_url, key.key_id, key.secret)
    yield
    process.stop(data)


def test_the_invariants_hold_over_100_random_sequences_of_commands() -> None:
    run_state_machine_as_test(EmbeddedMachine, settings=settings(SETTINGS, stateful_step_count=2))  # type: ignore[no-untyped-call]


@pytest.mark.long
@pytest.mark.parametrize("quarter", [1, 2, 3, 4])
def test_the_invariants_hold_over_2000_random_sequences_of_commands(quarter: int) -> None:
    """Four times 500, so that one that fails says so before all are through, and they can be shared out among processors."""
    long = settings(SETTINGS, max_examples=500, stateful_step_count=4, derandomize=False)
    run_state_machine_as_test(EmbeddedMachine, settings=long)  # type: ignore[no-untyped-call]
