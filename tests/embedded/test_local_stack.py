"""The embedded registry as its users meet it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from attestry.local import process, synthesis
from attestry.local.errors import DataDirectoryError, LocalError, NotRunningError, PortTakenError, StartFailedError
from attestry.local.parity import Outcome
from attestry.local.settings import HOST, REGION, DataDirectory
from attestry.local.stack import LocalStack, Person, connect, down, status, up
from tests.embedded.bare_server import BareServer, document, refused, wait_for

pytestmark = pytest.mark.embedded

Sessions = Callable[[str], boto3.Session]


def call(stack: LocalStack, session: boto3.Session | None, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    request = AWSRequest(method, stack.api_url + path, data=body, headers={"Content-Type": "application/json"})
    if session is not None:
        credentials = session.get_credentials()
        assert credentials is not None
        SigV4Auth(credentials.get_frozen_credentials(), "execute-api", REGION).add_auth(request)
    try:
        with urllib.request.urlopen(urllib.request.Request(request.url, body or None, dict(request.headers), method=method)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_each_profile_acts_as_its_role_under_the_person_s_own_name(session_for: Sessions) -> None:
    expected = {
        "admin": "assumed-role/attestry-admin/admin",
        "dana": "assumed-role/attestry-scientist/dana",
        "erin": "assumed-role/attestry-approver/erin",
        "frank": "assumed-role/attestry-deployer/frank",
        "frank-consumer": "assumed-role/attestry-consumer/frank",
        "grace": "assumed-role/attestry-auditor/grace",
    }
    arns = {profile: session_for(profile).client("sts").get_caller_identity()["Arn"].split(":")[-1] for profile in expected}

    assert arns == expected


def test_nobody_assumes_a_registry_role_under_the_name_of_somebody_else(stack: LocalStack) -> None:
    stack.add_people(Person("mallory", ("scientist", "approver")))
    sts = stack.session("mallory-user").client("sts")
    role = "arn:aws:iam::000000000000:role/attestry-approver"

    assert refused(sts.assume_role, RoleArn=role, RoleSessionName="erin") == "AccessDenied"
    assert refused(sts.assume_role, RoleArn=role, RoleSessionName="mallory") == ""


def test_a_role_that_the_stack_has_not_is_refused(stack: LocalStack) -> None:
    with pytest.raises(LocalError, match="attestry-janitor"):
        stack.add_people(Person("mallory", ("janitor",)))


def test_credentials_are_readable_by_their_owner_alone(stack: LocalStack) -> None:
    for path in (stack.data.aws_credentials, stack.data.aws_config, stack.data.path / "attestry-local.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_api_demands_a_signature_and_the_right_of_the_route(stack: LocalStack, session_for: Sessions) -> None:
    decision = "/v1/models/m/versions/1/decision"

    assert call(stack, None, "GET", "/v1/me")[0] == 403
    assert call(stack, session_for("dana"), "POST", decision, b"{}")[0] == 403
    assert call(stack, session_for("frank-consumer"), "POST", "/v1/people", b"{}")[0] == 403


def test_every_profile_finds_the_api(stack: LocalStack, session_for: Sessions) -> None:
    for profile in stack.profiles:
        found = session_for(profile).client("ssm").get_parameter(Name="/attestry/api-url")["Parameter"]["Value"]
        assert found == stack.api_url


def test_people_cannot_reach_the_table_or_the_keys_beside_the_api(stack: LocalStack, session_for: Sessions) -> None:
    for profile in stack.profiles:
        table = session_for(profile).client("dynamodb")
        assert (
            refused(table.get_item, TableName=stack.outputs["MetaTable"], Key={"pk": {"S": "x"}, "sk": {"S": "HEAD"}})
            == "AccessDeniedException"
        )


def test_what_is_deployed_is_the_template_less_the_printed_list(stack: LocalStack) -> None:
    template = synthesis.read(synthesis_dir()).template
    deployed = json.loads(stack.data.parity.read_text())["differences"]
    gone = {entry["resource"] for entry in deployed if entry["part"] == "resource"}
    emptied = {entry["resource"] for entry in deployed if entry["part"].startswith("PolicyDocument.Statement")}
    root = stack.session("root").client("cloudformation")
    names = {
        entry["LogicalResourceId"]
        for page in root.get_paginator("list_stack_resources").paginate(StackName="Attestry")
        for entry in page["StackResourceSummaries"]
    }

    assert template["Resources"].keys() - names <= gone | emptied
    assert names <= template["Resources"].keys()
    assert {entry["outcome"] for entry in deployed} <= {str(outcome) for outcome in Outcome}


def synthesis_dir() -> Path:
    return Path(os.environ["ATTESTRY_SYNTHESIS_DIR"])


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("AWS::S3::Bucket", "BucketEncryption"),
        ("AWS::S3::Bucket", "ObjectLockEnabled"),
        ("AWS::S3::Bucket", "LifecycleConfiguration"),
        ("AWS::DynamoDB::Table", "PointInTimeRecoverySpecification"),
        ("AWS::DynamoDB::Table", "SSESpecification"),
        ("AWS::DynamoDB::Table", "TimeToLiveSpecification"),
        ("AWS::Lambda::Function", "ReservedConcurrentExecutions"),
        ("AWS::Lambda::Function", "DeadLetterConfig"),
        ("AWS::StepFunctions::StateMachine", "LoggingConfiguration"),
    ],
)
def test_what_cloudformation_drops_is_set_through_the_api(stack: LocalStack, kind: str, part: str) -> None:
    found = {entry.outcome for entry in stack.parity.differences if (entry.type, entry.part) == (kind, part)}

    assert found == {Outcome.SET}


def test_a_locked_object_cannot_be_deleted(stack: LocalStack) -> None:
    s3, bucket = stack.session("root").client("s3"), stack.outputs["StoreBucket"]
    kept = s3.put_object(Bucket=bucket, Key="models/locked/x", Body=b"1", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=4102444800)

    assert refused(s3.delete_object, Bucket=bucket, Key="models/locked/x", VersionId=kept["VersionId"]) == "AccessDenied"


def test_a_scientist_uploads_below_their_own_user_id_only(stack: LocalStack, session_for: Sessions) -> None:
    dana, bucket = session_for("dana"), stack.outputs["StoreBucket"]
    user_id = dana.client("sts").get_caller_identity()["UserId"]
    s3 = dana.client("s3")

    assert refused(s3.put_object, Bucket=bucket, Key=f"candidates/{user_id}/probe/note.txt", Body=b"1") == ""
    assert refused(s3.put_object, Bucket=bucket, Key="candidates/AROAOTHER:erin/probe/note.txt", Body=b"1") == "AccessDenied"


def test_up_again_finds_the_running_registry(stack: LocalStack) -> None:
    said: list[str] = []

    again = up(stack.data.path, progress=said.append)

    assert (again.api_url, again.resources) == (stack.api_url, stack.resources)
    assert "nothing changed since the last deployment" in said
    assert status(stack.data.path).api_url == stack.api_url


def test_another_port_for_a_running_registry_is_refused(stack: LocalStack) -> None:
    with pytest.raises(DataDirectoryError, match=f"port {stack.port}"):
        up(stack.data.path, process.free_port())


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=str(port)):
            up(tmp_path / "data", port)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(DataDirectoryError, match="not empty"):
        up(tmp_path, process.free_port())
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_data_directory_of_another_version_is_refused(tmp_path: Path) -> None:
    data = DataDirectory.at(tmp_path / "data")
    data.prepare()
    marker = data.path / "attestry-local.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "emulator": "0.0.1"}))

    with pytest.raises(DataDirectoryError, match=r"0\.0\.1"):
        up(data.path, process.free_port())


def test_a_start_that_fails_shows_the_end_of_the_log(tmp_path: Path) -> None:
    data = DataDirectory.at(tmp_path / "data")
    key = data.prepare()
    data.state.rmdir()
    data.scratch.rmdir()
    data.scratch.write_text("in the way")

    with pytest.raises(StartFailedError, match="tmp"):
        process.start(data, process.free_port(), key)


def test_a_second_server_on_a_data_directory_is_refused(tmp_path: Path) -> None:
    data = DataDirectory.at(tmp_path / "data")
    key = data.prepare()
    process.start(data, process.free_port(), key)
    try:
        with pytest.raises(StartFailedError, match="in use by another server"):
            process.start(data, process.free_port(), key)
    finally:
        process.stop(data)


def test_nothing_runs_where_nothing_was_started(tmp_path: Path) -> None:
    assert not status(tmp_path / "data").running
    assert not down(tmp_path / "data")
    with pytest.raises(NotRunningError):
        connect(tmp_path / "data")


def test_data_outlives_down_and_up(tmp_path: Path) -> None:
    data = DataDirectory.at(tmp_path / "data")
    key = data.prepare()
    port = process.free_port()
    bare = BareServer(data, process.start(data, port, key), key)
    try:
        table, s3 = bare.client("dynamodb"), bare.client("s3")
        table.create_table(
            TableName="rows",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        )
        table.put_item(TableName="rows", Item={"pk": {"S": "a"}, "n": {"N": "1"}})
        s3.create_bucket(Bucket="kept")
        s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
        versions = [s3.put_object(Bucket="kept", Key="k", Body=body)["VersionId"] for body in (b"one", b"two")]
        session = bare.user("dana", {"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": "*"})

        assert process.stop(data)
        assert process.port_is_free(port)
        process.start(data, port, key)

        assert bare.client("dynamodb", session).get_item(TableName="rows", Key={"pk": {"S": "a"}})["Item"]["n"] == {"N": "1"}
        assert [s3.get_object(Bucket="kept", Key="k", VersionId=version)["Body"].read() for version in versions] == [b"one", b"two"]
    finally:
        process.stop(data)


def test_the_server_listens_on_the_loopback_address_only(stack: LocalStack) -> None:
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {fields[1].split(":")[0] for fields in listening if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == stack.port}

    assert addresses == {"0100007F"}


def test_functions_see_neither_the_starter_s_environment_nor_the_root_key_s_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARTER_SECRET", "s3cret")
    data = DataDirectory.at(tmp_path / "data")
    key = data.prepare()
    bare = BareServer(data, process.start(data, process.free_port(), key), key)
    try:
        bare.function("env", "import os\ndef handler(event, context):\n    return dict(os.environ)\n")
        environment = json.load(bare.client("lambda").invoke(FunctionName="env", Payload=b"{}")["Payload"])
    finally:
        process.stop(data)

    assert "STARTER_SECRET" not in environment
    assert key.key_id not in environment.values()
    assert key.secret not in environment.values()
    assert environment["AWS_ACCESS_KEY_ID"].startswith("ASIA")


def test_rows_are_limited_by_their_partition_key(tmp_path: Path) -> None:
    data = DataDirectory.at(tmp_path / "data")
    key = data.prepare()
    bare = BareServer(data, process.start(data, process.free_port(), key), key)
    try:
        bare.client("dynamodb").create_table(
            TableName="rows",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        )
        user = bare.user(
            "dana",
            {
                "Effect": "Allow",
                "Action": "dynamodb:*",
                "Resource": "*",
                "Condition": {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["OWN#*"]}},
            },
        )
        table = bare.client("dynamodb", user)

        def transact(*keys: str) -> str:
            puts = [{"Put": {"TableName": "rows", "Item": {"pk": {"S": key}}}} for key in keys]
            return refused(table.transact_write_items, TransactItems=puts)

        def query(key: str) -> str:
            return refused(
                table.query,
                TableName="rows",
                KeyConditionExpression="#p = :p",
                ExpressionAttributeNames={"#p": "pk"},
                ExpressionAttributeValues={":p": {"S": key}},
            )

        assert refused(table.put_item, TableName="rows", Item={"pk": {"S": "OWN#1"}}) == ""
        assert refused(table.put_item, TableName="rows", Item={"pk": {"S": "OTHER#1"}}) == "AccessDeniedException"
        assert (transact("OWN#2", "OWN#3"), transact("OWN#4", "OTHER#4")) == ("", "AccessDeniedException")
        assert (query("OWN#1"), query("OTHER#1")) == ("", "AccessDeniedException")
        assert refused(table.batch_get_item, RequestItems={"rows": {"Keys": [{"pk": {"S": "OTHER#1"}}]}}) == "AccessDeniedException"
    finally:
        process.stop(data)


def test_a_key_policy_can_demand_the_signing_algorithm(tmp_path: Path) -> None:
    data = DataDirectory.at(tmp_path / "data")
    key = data.prepare()
    bare = BareServer(data, process.start(data, process.free_port(), key), key)
    try:
        user = bare.user("dana")
        arn = bare.client("sts", user).get_caller_identity()["Arn"]
        policy = document(
            {
                "Effect": "Allow",
                "Principal": {"AWS": arn},
                "Action": "kms:Sign",
                "Resource": "*",
                "Condition": {"StringEquals": {"kms:SigningAlgorithm": "ECDSA_SHA_256", "kms:MessageType": "DIGEST"}},
            }
        )
        made = bare.client("kms").create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY", Policy=json.dumps(policy))["KeyMetadata"][
            "KeyId"
        ]
        kms = bare.client("kms", user)

        def sign(kind: str) -> str:
            return refused(kms.sign, KeyId=made, Message=b"x" * 32, MessageType=kind, SigningAlgorithm="ECDSA_SHA_256")

        assert (sign("DIGEST"), sign("RAW")) == ("", "AccessDeniedException")
    finally:
        process.stop(data)


def test_a_kill_loses_nothing_that_was_written_some_seconds_before(tmp_path: Path) -> None:
    data = DataDirectory.at(tmp_path / "data")
    key = data.prepare()
    port = process.free_port()
    started = process.start(data, port, key)
    bare = BareServer(data, started, key)
    try:
        bare.client("ssm").put_parameter(Name="kept", Value="x", Type="String")
        wait_for(lambda: (data.state / "ssm.json").exists())
        os.kill(started.pid, signal.SIGKILL)
        os.waitpid(started.pid, 0)
        process.start(data, port, key)

        assert bare.client("ssm").get_parameter(Name="kept")["Parameter"]["Value"] == "x"
    finally:
        process.stop(data)
