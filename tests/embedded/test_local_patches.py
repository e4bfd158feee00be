"""The emulator's patches: each behaviour is what AWS documents, and was missing."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from attestry.local import process
from attestry.local.settings import ACCOUNT, REGION, DataDirectory
from infra.api_body import SIGNED, Operation, Tree, bearer_scheme, lambda_uri, openapi
from tests.embedded.bare_server import BareServer, account_principal, allow, document, refused, wait_for

pytestmark = pytest.mark.embedded

OWN_SESSION_NAME = {
    "Effect": "Allow",
    "Action": "sts:AssumeRole",
    "Principal": account_principal(),
    "Condition": {"StringEquals": {"sts:RoleSessionName": "${aws:username}"}},
}
ASSUME_ANY = allow("sts:AssumeRole", "*")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareServer]:
    data = DataDirectory.at(tmp_path_factory.mktemp("bare") / "data")
    key = data.prepare()
    yield BareServer(data, process.start(data, process.free_port(), key), key)
    process.stop(data)


@pytest.fixture
def name() -> str:
    return f"n{uuid.uuid4().hex[:10]}"


def test_a_role_is_refused_under_the_session_name_of_somebody_else(bare: BareServer, name: str) -> None:
    role = bare.role(name, OWN_SESSION_NAME)
    user = bare.user(f"{name}-dana", ASSUME_ANY)

    assert refused(bare.client("sts", user).assume_role, RoleArn=role, RoleSessionName=f"{name}-erin") == "AccessDenied"
    assert refused(bare.client("sts", user).assume_role, RoleArn=role, RoleSessionName=f"{name}-dana") == ""


def test_a_role_session_has_no_user_name_and_so_cannot_assume_the_next_role(bare: BareServer, name: str) -> None:
    role = bare.role(name, OWN_SESSION_NAME, ASSUME_ANY)
    session = bare.assume(bare.user(f"{name}-dana", ASSUME_ANY), role, f"{name}-dana")

    assert refused(bare.client("sts", session).assume_role, RoleArn=role, RoleSessionName=f"{name}-dana") == "AccessDenied"


def test_the_user_id_in_an_identity_policy_limits_a_session_to_its_own_prefix(bare: BareServer, name: str) -> None:
    bare.client("s3").create_bucket(Bucket=name)
    role = bare.role(name, OWN_SESSION_NAME, allow("s3:PutObject", f"arn:aws:s3:::{name}/candidates/${{aws:userid}}/*"))
    session = bare.assume(bare.user(f"{name}-dana", ASSUME_ANY), role, f"{name}-dana")
    s3 = bare.client("s3", session)
    user_id = bare.client("sts", session).get_caller_identity()["UserId"]

    assert refused(s3.put_object, Bucket=name, Key=f"candidates/{user_id}/x", Body=b"1") == ""
    assert refused(s3.put_object, Bucket=name, Key="candidates/AROAOTHER:erin/x", Body=b"1") == "AccessDenied"
    assert refused(s3.put_object, Bucket=name, Key="candidates/${aws:userid}/x", Body=b"1") == "AccessDenied"


def test_the_user_id_in_a_bucket_policy_denies_a_foreign_prefix(bare: BareServer, name: str) -> None:
    bare.client("s3").create_bucket(Bucket=name)
    bare.client("s3").put_bucket_policy(
        Bucket=name,
        Policy=json.dumps(
            document(
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:PutObject",
                    "NotResource": f"arn:aws:s3:::{name}/candidates/${{aws:userid}}/*",
                }
            )
        ),
    )
    user = bare.user(f"{name}-dana", allow("s3:PutObject", "*"))
    user_id = bare.client("sts", user).get_caller_identity()["UserId"]
    s3 = bare.client("s3", user)

    assert refused(s3.put_object, Bucket=name, Key=f"candidates/{user_id}/x", Body=b"1") == ""
    assert refused(s3.put_object, Bucket=name, Key="candidates/other/x", Body=b"1") == "AccessDenied"


def test_a_tag_of_the_caller_stands_for_itself_in_a_resource(bare: BareServer, name: str) -> None:
    bare.client("s3").create_bucket(Bucket=name)
    user = bare.user(f"{name}-dana", allow("s3:PutObject", f"arn:aws:s3:::{name}/${{aws:PrincipalTag/team}}/*"), tags={"team": "imaging"})
    s3 = bare.client("s3", user)

    assert refused(s3.put_object, Bucket=name, Key="imaging/x", Body=b"1") == ""
    assert refused(s3.put_object, Bucket=name, Key="pathology/x", Body=b"1") == "AccessDenied"


def test_a_variable_without_a_value_matches_nothing(bare: BareServer, name: str) -> None:
    bare.client("s3").create_bucket(Bucket=name)
    user = bare.user(f"{name}-dana", allow("s3:PutObject", f"arn:aws:s3:::{name}/${{aws:PrincipalTag/absent}}/*"))

    assert refused(bare.client("s3", user).put_object, Bucket=name, Key="/x", Body=b"1") == "AccessDenied"


def test_the_principal_arn_of_a_session_is_its_role(bare: BareServer, name: str) -> None:
    bare.client("s3").create_bucket(Bucket=name)
    trust = {**allow("sts:AssumeRole"), "Principal": account_principal()}
    writer, other = (bare.role(f"{name}-{kind}", trust, allow("s3:PutObject", "*")) for kind in ("writer", "other"))
    bare.client("s3").put_bucket_policy(
        Bucket=name,
        Policy=json.dumps(
            document(
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:PutObject",
                    "Resource": f"arn:aws:s3:::{name}/*",
                    "Condition": {"ArnNotEquals": {"aws:PrincipalArn": writer}},
                }
            )
        ),
    )
    user = bare.user(f"{name}-dana", ASSUME_ANY)

    def put(role: str) -> str:
        return refused(bare.client("s3", bare.assume(user, role, "any")).put_object, Bucket=name, Key="x", Body=b"1")

    assert (put(writer), put(other)) == ("", "AccessDenied")


def test_a_bucket_policy_can_demand_conditional_writes(bare: BareServer, name: str) -> None:
    bare.client("s3").create_bucket(Bucket=name)
    bare.client("s3").put_bucket_policy(
        Bucket=name,
        Policy=json.dumps(
            document(
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:PutObject",
                    "Resource": f"arn:aws:s3:::{name}/frozen/*",
                    "Condition": {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}},
                }
            )
        ),
    )
    s3 = bare.client("s3", bare.user(f"{name}-dana", allow("s3:PutObject", "*")))
    upload = s3.create_multipart_upload(Bucket=name, Key="frozen/large")["UploadId"]
    part = s3.upload_part(Bucket=name, Key="frozen/large", UploadId=upload, PartNumber=1, Body=b"1")
    complete = {
        "Bucket": name,
        "Key": "frozen/large",
        "UploadId": upload,
        "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    }

    assert refused(s3.put_object, Bucket=name, Key="frozen/x", Body=b"1") == "AccessDenied"
    assert refused(s3.put_object, Bucket=name, Key="frozen/x", Body=b"1", IfNoneMatch="*") == ""
    assert refused(s3.put_object, Bucket=name, Key="frozen/x", Body=b"1", IfNoneMatch="*") == "PreconditionFailed"
    assert refused(s3.complete_multipart_upload, **complete) == "AccessDenied"
    assert refused(s3.complete_multipart_upload, **complete, IfNoneMatch="*") == ""


def test_only_the_key_of_the_data_directory_is_root(bare: BareServer) -> None:
    for key in ("test", ACCOUNT):
        assert refused(bare.client("s3", boto3.Session(key, "test", region_name=REGION)).list_buckets) != ""


@pytest.mark.parametrize("path", ["/_ministack/reset", "/_ministack/config"])
def test_unsigned_administration_is_refused(bare: BareServer, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(bare.server.endpoint_url + path, method="POST", data=b"{}"))


STATE_MACHINE = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 1, "End": True}}}


def machine(bare: BareServer, name: str, definition: dict[str, Any], *policies: dict[str, Any]) -> str:
    role = bare.role(f"{name}-states", {**allow("sts:AssumeRole"), "Principal": {"Service": "states.amazonaws.com"}}, *policies)
    return str(
        bare.client("stepfunctions").create_state_machine(name=name, definition=json.dumps(definition), roleArn=role)["stateMachineArn"]
    )


def test_cloudtrail_names_the_session_that_started_an_execution(bare: BareServer, name: str) -> None:
    arn = machine(bare, name, STATE_MACHINE)
    role = bare.role(f"{name}-approver", OWN_SESSION_NAME, allow("states:StartExecution", "*"))
    session = bare.assume(bare.user(f"{name}-erin", ASSUME_ANY), role, f"{name}-erin")
    identity = bare.client("sts", session).get_caller_identity()

    started = bare.client("stepfunctions", session).start_execution(stateMachineArn=arn, input='{"secret": 1}')

    events = bare.client("cloudtrail").lookup_events(LookupAttributes=[{"AttributeKey": "Username", "AttributeValue": f"{name}-erin"}])[
        "Events"
    ]
    found = next(event for event in events if event["EventName"] == "StartExecution")
    record = json.loads(found["CloudTrailEvent"])
    user = record["userIdentity"]
    assert (user["type"], user["arn"], user["principalId"]) == ("AssumedRole", identity["Arn"], identity["UserId"])
    assert user["sessionContext"]["sessionIssuer"]["arn"] == role
    assert record["responseElements"]["executionArn"] == started["executionArn"]
    assert record["requestParameters"]["stateMachineArn"] == arn
    assert "secret" not in found["CloudTrailEvent"]
    assert record["sourceIPAddress"] == "127.0.0.1"


def test_event_bridge_hears_of_a_started_execution(bare: BareServer, name: str) -> None:
    queue = bare.client("sqs").create_queue(QueueName=name)["QueueUrl"]
    queue_arn = bare.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    arn = machine(bare, name, STATE_MACHINE)
    bare.client("events").put_rule(
        Name=name,
        EventPattern=json.dumps(
            {
                "source": ["aws.states"],
                "detail-type": ["AWS API Call via CloudTrail"],
                "detail": {"eventName": ["StartExecution"], "requestParameters": {"stateMachineArn": [arn]}},
            }
        ),
    )
    bare.client("events").put_targets(Rule=name, Targets=[{"Id": "1", "Arn": queue_arn}])

    started = bare.client("stepfunctions").start_execution(stateMachineArn=arn)

    def received() -> Any:
        return bare.client("sqs").receive_message(QueueUrl=queue).get("Messages")

    detail = json.loads(wait_for(received)[0]["Body"])["detail"]
    assert detail["responseElements"]["executionArn"] == started["executionArn"]
    assert detail["userIdentity"]["type"] == "Root"


RAISES = """
import os
class OutOfStockError(Exception): pass
def handler(event, context):
    if event.get("raise"): raise OutOfStockError("none left")
    return {"pid": os.getpid(), "tenant": context.tenant_id}
"""


def test_the_class_of_an_exception_arrives_and_the_environment_lives_on(bare: BareServer, name: str) -> None:
    bare.function(name, RAISES)
    client = bare.client("lambda")
    before = json.load(client.invoke(FunctionName=name, Payload=b"{}")["Payload"])

    answer = client.invoke(FunctionName=name, Payload=b'{"raise": true}')
    error = json.load(answer["Payload"])

    assert answer["FunctionError"] == "Unhandled"
    assert (error["errorType"], error["errorMessage"]) == ("OutOfStockError", "none left")
    assert "OutOfStockError" in "".join(error["stackTrace"])
    assert json.load(client.invoke(FunctionName=name, Payload=b"{}")["Payload"]) == before


def test_step_functions_catches_by_class_and_only_under_its_role(bare: BareServer, name: str) -> None:
    function = bare.function(name, RAISES)
    definition = {
        "QueryLanguage": "JSONata",
        "StartAt": "Call",
        "States": {
            "Call": {
                "Type": "Task",
                "Resource": "arn:aws:states:::lambda:invoke",
                "Arguments": {"FunctionName": function, "Payload": {"raise": True}},
                "Catch": [{"ErrorEquals": ["OutOfStockError"], "Next": "Caught"}],
                "End": True,
            },
            "Caught": {"Type": "Succeed"},
        },
    }

    def outcome(arn: str) -> dict[str, Any]:
        states = bare.client("stepfunctions")
        execution = states.start_execution(stateMachineArn=arn)["executionArn"]
        return dict(wait_for(lambda: (found := states.describe_execution(executionArn=execution))["status"] != "RUNNING" and found))

    allowed = outcome(machine(bare, f"{name}-a", definition, allow("lambda:InvokeFunction", function)))
    denied = outcome(machine(bare, f"{name}-d", definition, allow("lambda:InvokeFunction", f"{function}-other")))
    assert allowed["status"] == "SUCCEEDED"
    assert (denied["status"], denied["error"]) == ("FAILED", "Lambda.AWSLambdaException")


FORGES = """
import subprocess, sys
def handler(event, context):
    code = 'import sys, json; print(json.dumps({"status": "ok", "result": "forged"})); print(repr(sys.stdin.read()))'
    subprocess.run([sys.executable, "-c", code])
    return "genuine"
"""


def test_a_child_that_prints_an_answer_is_not_believed(bare: BareServer, name: str) -> None:
    bare.function(name, FORGES, Timeout=20)

    assert json.load(bare.client("lambda").invoke(FunctionName=name, Payload=b"{}")["Payload"]) == "genuine"


def test_the_log_of_an_invocation_holds_its_lines_and_no_others(bare: BareServer, name: str) -> None:
    bare.function(name, "def handler(event, context):\n    for number in range(event['lines']):\n        print('line', number)\n")
    client = bare.client("lambda")

    def log(lines: int) -> list[str]:
        answer = client.invoke(FunctionName=name, Payload=json.dumps({"lines": lines}).encode(), LogType="Tail")
        return base64.b64decode(answer.get("LogResult", "")).decode().splitlines()

    assert (log(0), log(3), log(0)) == ([], ["line 0", "line 1", "line 2"], [])


def test_tenants_run_in_execution_environments_of_their_own(bare: BareServer, name: str) -> None:
    bare.function(name, RAISES, TenancyConfig={"TenantIsolationMode": "PER_TENANT"})
    client = bare.client("lambda")

    def call(tenant: str) -> dict[str, Any]:
        return dict(json.load(client.invoke(FunctionName=name, Payload=b"{}", TenantId=tenant)["Payload"]))

    first, second, again = call("model-1"), call("model-2"), call("model-1")
    assert (first["tenant"], second["tenant"]) == ("model-1", "model-2")
    assert first["pid"] != second["pid"]
    assert first == again
    assert refused(client.invoke, FunctionName=name, Payload=b"{}") == "InvalidParameterValueException"


COUNTS = """
import boto3, os
def handler(event, context):
    boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody="x")
    raise RuntimeError("again")
"""


def test_a_rule_s_function_is_retried_and_then_its_dead_letter_queue_gets_the_event(bare: BareServer, name: str) -> None:
    sqs, iam, client = bare.client("sqs"), bare.client("iam"), bare.client("lambda")
    calls, dead = (sqs.create_queue(QueueName=f"{name}-{kind}")["QueueUrl"] for kind in ("calls", "dead"))
    dead_arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    function = bare.function(name, COUNTS, Environment={"Variables": {"QUEUE": calls}}, DeadLetterConfig={"TargetArn": dead_arn})
    iam.put_role_policy(RoleName=f"{name}-function", PolicyName="all", PolicyDocument=json.dumps(document(allow("sqs:SendMessage", "*"))))
    client.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=2)
    bare.client("events").put_rule(Name=name, EventPattern=json.dumps({"source": [name]}))
    bare.client("events").put_targets(Rule=name, Targets=[{"Id": "1", "Arn": function}])

    bare.client("events").put_events(Entries=[{"Source": name, "DetailType": "t", "Detail": "{}"}])

    def waiting(queue: str) -> int:
        found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"])
        return int(found["Attributes"]["ApproximateNumberOfMessages"])

    assert wait_for(lambda: waiting(dead)) == 1
    assert waiting(calls) == 3


def test_object_lock_outlives_a_restart(tmp_path: Path) -> None:
    data = DataDirectory.at(tmp_path / "data")
    key = data.prepare()
    port = process.free_port()
    bare = BareServer(data, process.start(data, port, key), key)
    try:
        s3 = bare.client("s3")
        s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        kept = s3.put_object(Bucket="locked", Key="k", Body=b"1", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=4102444800)
        process.stop(data)
        process.start(data, port, key)

        assert s3.get_object(Bucket="locked", Key="k", VersionId=kept["VersionId"])["Body"].read() == b"1"
        assert refused(s3.delete_object, Bucket="locked", Key="k", VersionId=kept["VersionId"]) == "AccessDenied"
    finally:
        process.stop(data)


def test_the_first_row_after_a_restart_reaches_the_function_behind_the_stream(tmp_path: Path) -> None:
    data, seen = DataDirectory.at(tmp_path / "data"), tmp_path / "seen"
    source = f"def handler(event, context):\n    for r in event['Records']: print(r['dynamodb']['Keys'], file=open({str(seen)!r}, 'a'))\n"
    key = data.prepare()
    bare = BareServer(data, process.start(data, process.free_port(), key), key)

    def put(*names: str) -> None:
        for name in names:
            bare.client("dynamodb").put_item(TableName="rows", Item={"pk": {"S": name}})

    def saw(name: str) -> bool:
        return seen.exists() and name in seen.read_text()

    try:
        table = bare.client("dynamodb").create_table(
            TableName="rows",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )["TableDescription"]
        bare.function("reader", source)
        wanted = json.dumps({"eventName": ["INSERT"], "dynamodb": {"Keys": {"pk": {"S": ["first", "second"]}}}})
        filters = {"Filters": [{"Pattern": wanted}]}
        create = bare.client("lambda").create_event_source_mapping
        create(EventSourceArn=table["LatestStreamArn"], FunctionName="reader", StartingPosition="LATEST", FilterCriteria=filters)
        put("first")
        wait_for(lambda: saw("first"))
        process.stop(data)
        bare = BareServer(data, process.start(data, process.free_port(), key), key)
        put("second", "third")
        wait_for(lambda: saw("second"))
        assert not saw("third")
    finally:
        process.stop(data)


def test_routes_of_an_openapi_document_replace_those_that_were_there_resources_of_their_own_included(bare: BareServer, name: str) -> None:
    cloudformation, gateway = bare.client("cloudformation"), bare.client("apigatewayv2")
    uri = lambda_uri("aws", REGION, f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}")

    def template(*trees: Tree) -> str:
        api = {"Type": "AWS::ApiGatewayV2::Api", "Properties": {"Body": openapi(name, "", {"show": uri}, trees), "FailOnWarnings": True}}
        return json.dumps({"Resources": {"Api": api}})

    def template_of_resources() -> str:
        of_api = {"ApiId": {"Ref": "Api"}}
        invoke = {"IntegrationType": "AWS_PROXY", "IntegrationUri": uri, "PayloadFormatVersion": "2.0"}
        target = {"Fn::Join": ["", ["integrations/", {"Ref": "Show"}]]}
        route = {"RouteKey": "GET /a/{x}", "AuthorizationType": "AWS_IAM", "Target": target}
        resources = {
            "Api": {"Type": "AWS::ApiGatewayV2::Api", "Properties": {"Name": name, "ProtocolType": "HTTP"}},
            "Show": {"Type": "AWS::ApiGatewayV2::Integration", "Properties": {**of_api, **invoke}},
            "Route": {"Type": "AWS::ApiGatewayV2::Route", "Properties": {**of_api, **route}},
        }
        return json.dumps({"Resources": resources})

    def are_in_force(**routes: str) -> bool:
        found = [api["ApiId"] for api in gateway.get_apis()["Items"] if api["Name"] == name]
        status = cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
        if len(found) != 1 or not status.endswith("_COMPLETE") or len(gateway.get_integrations(ApiId=found[0])["Items"]) != 1:
            return False
        return routes == {r["RouteKey"]: r["AuthorizationType"] for r in gateway.get_routes(ApiId=found[0])["Items"]}

    signed = Tree("signed", SIGNED, (Operation("GET", "/a/{x}", "show"), Operation("POST", "/a/{x}", "show")))
    cloudformation.create_stack(StackName=name, TemplateBody=template_of_resources())
    wait_for(lambda: are_in_force(**{"GET /a/{x}": "AWS_IAM"}))
    cloudformation.update_stack(StackName=name, TemplateBody=template(signed))
    wait_for(lambda: are_in_force(**{"GET /a/{x}": "AWS_IAM", "POST /a/{x}": "AWS_IAM"}))

    fewer = Tree("signed", SIGNED, (Operation("GET", "/a/{x}", "show"),))
    by_token = Tree("bearer", bearer_scheme(uri, 60), (Operation("GET", "/oidc/a/{x}", "show"),))
    cloudformation.update_stack(StackName=name, TemplateBody=template(fewer, by_token))
    wait_for(lambda: are_in_force(**{"GET /a/{x}": "AWS_IAM", "GET /oidc/a/{x}": "CUSTOM"}))
