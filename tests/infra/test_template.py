"""The synthesised template as a whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attestry.usecases.deliver import DELAYS
from infra import bundling
from infra.config import Config
from infra.specs import specs
from tests.infra.conftest import ROOT, SOURCE_ONLY, Synthesis, lint
from tests.infra.template import REGION, Template, listed


def test_a_second_synthesis_in_another_process_gives_the_same_bytes_also_when_dependencies_are_bundled(
    synthesis: Synthesis, tmp_path: Path
) -> None:
    """Finding both archives ready, under the same names, the second one needs no package index."""
    for asset in synthesis.outdir.glob("asset.*"):
        shutil.copytree(asset, tmp_path / asset.name)
        (tmp_path / asset.name / bundling.MARKER).write_text("dependencies")
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "7",
        "CDK_OUTDIR": str(tmp_path),
        "CDK_CONTEXT_JSON": json.dumps({"attestry:bundling": "dependencies"}),
    }
    subprocess.run([sys.executable, "app.py"], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert Synthesis(tmp_path).template_path.read_bytes() == synthesis.template_path.read_bytes()
    assert (tmp_path / "Attestry.assets.json").read_bytes() == (synthesis.outdir / "Attestry.assets.json").read_bytes()


def test_cfn_lint_finds_nothing(all_options: Synthesis) -> None:
    """In the fullest configuration; the test below has what makes it stand for the others, which are linted among the long tests."""
    assert [finding for finding in lint(all_options) if not _is_of_a_limit_that_is_an_expression(*finding)] == []


@pytest.mark.parametrize("configuration", ["synthesis", "open_network"])
def test_no_resource_has_a_form_that_was_not_linted(configuration: str, all_options: Synthesis, request: pytest.FixtureRequest) -> None:
    linted = all_options.template.forms()
    for kind, places in request.getfixturevalue(configuration).template.forms().items():
        assert places - linted.get(kind, set()) == set(), kind


@pytest.mark.long
@pytest.mark.parametrize("configuration", ["synthesis", "open_network"])
def test_cfn_lint_finds_nothing_in_other_configurations(configuration: str, request: pytest.FixtureRequest) -> None:
    found = lint(request.getfixturevalue(configuration))
    assert [finding for finding in found if not _is_of_a_limit_that_is_an_expression(*finding)] == []


def _is_of_a_limit_that_is_an_expression(rule: str, message: str) -> bool:
    """cfn-lint's schema of the States Language has yet to learn that a JSONata state's time limit may be an expression."""
    return rule == "E3601" and "{% " in message and message.endswith("/TimeoutSeconds'")


def test_the_fullest_configuration_leaves_room_in_what_cloudformation_and_the_gateway_take(all_options: Synthesis) -> None:
    template = all_options.template
    assert len(template.raw["Resources"]) <= 450  # of 500 resources in a stack
    assert len(template.routes()) <= 280  # of 300 routes in an HTTP API
    assert all_options.template_path.stat().st_size <= 800_000  # of 1,048,576 bytes


def test_the_command_lines_settings_keep_the_template_the_same() -> None:
    """What the CDK command line adds by itself would make its template another than that of `python app.py`."""
    settings = json.loads((ROOT / "cdk.json").read_text())
    assert [settings[name] for name in ("pathMetadata", "assetMetadata", "versionReporting")] == [False, False, False]
    assert "context" not in settings


def test_there_is_no_custom_resource_and_no_function_of_cdks_own(template: Template) -> None:
    kinds = {resource["Type"] for resource in template.raw["Resources"].values()}
    assert not {kind for kind in kinds if kind.startswith("Custom::") or kind == "AWS::CloudFormation::CustomResource"}
    assert len(template.of_type("AWS::Lambda::Function")) == len(specs(Config()))


def test_no_account_region_or_local_path_is_in_the_template(template: Template) -> None:
    assert str(ROOT) not in template.text
    assert all(f'"{region}"' not in template.text for region in ("us-east-1", "eu-west-1", "eu-central-1"))


def test_functions_run_on_arm_with_python_313_and_their_own_log_group(template: Template) -> None:
    for function in template.of_type("AWS::Lambda::Function").values():
        assert function["Runtime"] == "python3.13"
        assert function["Architectures"] == ["arm64"]
        assert function["LoggingConfig"]["LogGroup"]
        assert function["Timeout"] <= 900
    groups = template.of_type("AWS::Logs::LogGroup").values()
    assert all(group["RetentionInDays"] == 365 and group["KmsKeyId"] for group in groups)


def test_functions_behind_the_api_end_before_the_gateway_does(template: Template) -> None:
    answering = {function for _, function in template.routes().values()}
    for function in template.of_type("AWS::Lambda::Function").values():
        if function["FunctionName"] in answering:
            assert function["Timeout"] <= 29


def test_events_that_fail_are_kept(template: Template) -> None:
    functions = template.of_type("AWS::Lambda::Function").values()
    queued = {function["FunctionName"] for function in functions if "DeadLetterConfig" in function}
    asynchronous = ("collect", "console-decision", "custody", "deploy", "predict", "reconcile", "register", "sequence", "sweep", "tell")
    assert queued == {f"attestry-{name}" for name in asynchronous}
    for rule in template.of_type("AWS::Events::Rule").values():
        assert all("DeadLetterConfig" in target for target in rule["Targets"])


def test_a_delivery_is_tried_eight_times_one_at_a_time_and_then_kept(template: Template) -> None:
    queues = {str(q.get("QueueName")): q for q in template.of_type("AWS::SQS::Queue").values()}
    deliveries, kept = queues["attestry-deliveries"], queues["attestry-undelivered"]
    assert int(deliveries["RedrivePolicy"]["maxReceiveCount"]) == len(DELAYS) + 1 == 8
    assert deliveries["VisibilityTimeout"] >= 6 * specs(Config())["deliver"].seconds
    assert kept["MessageRetentionPeriod"] == 14 * 86_400 >= deliveries["MessageRetentionPeriod"] > sum(DELAYS)
    (mapping,) = [m for m in template.of_type("AWS::Lambda::EventSourceMapping").values() if "FilterCriteria" not in m]
    assert (mapping["BatchSize"], mapping["FunctionResponseTypes"]) == (1, ["ReportBatchItemFailures"])
    alarms = {a["AlarmName"]: a for a in template.of_type("AWS::CloudWatch::Alarm").values()}
    assert alarms["attestry-failed-events-deliver"]["MetricName"] == "ApproximateNumberOfMessagesVisible"


def test_no_setting_lets_webhooks_reach_the_loopback_address(template: Template) -> None:
    assert "ATTESTRY_WEBHOOK_LOOPBACK" not in template.text


def test_every_route_is_authorised_by_iam(template: Template) -> None:
    assert {authorization for authorization, _ in template.routes().values()} == {"AWS_IAM"}
    kinds = {resource["Type"] for resource in template.raw["Resources"].values() if "ApiGateway" in resource["Type"]}
    assert kinds == {"AWS::ApiGatewayV2::Api", "AWS::ApiGatewayV2::Stage"}


def test_the_access_log_names_no_header(template: Template) -> None:
    (stage,) = template.of_type("AWS::ApiGatewayV2::Stage").values()
    assert "header" not in stage["AccessLogSettings"]["Format"].lower()
    assert stage["DefaultRouteSettings"]["ThrottlingBurstLimit"] == 400


def test_only_inference_is_isolated_by_tenant(template: Template) -> None:
    functions = template.of_type("AWS::Lambda::Function").values()
    isolated = {f["FunctionName"]: f["TenancyConfig"] for f in functions if "TenancyConfig" in f}
    assert isolated == {"attestry-inference": {"TenantIsolationMode": "PER_TENANT"}}


def test_registered_code_sits_in_subnets_whose_only_way_out_is_s3(template: Template) -> None:
    functions = template.of_type("AWS::Lambda::Function").values()
    assert {f["FunctionName"] for f in functions if "VpcConfig" in f} == {"attestry-inference", "attestry-sandbox"}
    kinds = {resource["Type"] for resource in template.raw["Resources"].values()}
    assert not kinds & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route", "AWS::EC2::VPCGatewayAttachment"}
    (endpoint,) = template.of_type("AWS::EC2::VPCEndpoint").values()
    assert endpoint["VpcEndpointType"] == "Gateway"
    assert endpoint["ServiceName"].endswith(".s3")


def test_through_the_endpoint_only_the_registrys_buckets_are_reached(template: Template) -> None:
    (endpoint,) = template.of_type("AWS::EC2::VPCEndpoint").values()
    statements = endpoint["PolicyDocument"]["Statement"]
    reached = {str(r).split("/")[0] for s in statements for r in listed(s["Resource"])}
    assert len(reached) == 2
    assert all("stores" in bucket for bucket in reached)
    written = [listed(s["Resource"]) for s in statements if "s3:PutObject" in listed(s["Action"])]
    assert [[r.split("/", 1)[1] for r in resources] for resources in written] == [["jobs/*"]]


def test_the_resolver_answers_for_s3_and_nothing_else(template: Template) -> None:
    (group,) = template.of_type("AWS::Route53Resolver::FirewallRuleGroup").values()
    lists = {f"{name}.Id": listed["Domains"] for name, listed in template.of_type("AWS::Route53Resolver::FirewallDomainList").items()}
    rules = sorted(group["FirewallRules"], key=lambda rule: int(rule["Priority"]))
    assert [(rule["Action"], lists[rule["FirewallDomainListId"]]) for rule in rules] == [
        ("ALLOW", [f"{star}s3.{region}amazonaws.com" for region in (f"{REGION}.", "") for star in ("", "*.")]),
        ("BLOCK", ["*"]),
    ]
    assert len(template.of_type("AWS::Route53Resolver::FirewallRuleGroupAssociation")) == 1


def test_functions_that_run_registered_code_are_told_nothing(template: Template) -> None:
    for function in template.of_type("AWS::Lambda::Function").values():
        if function["FunctionName"] in ("attestry-inference", "attestry-sandbox"):
            assert "Environment" not in function


def test_without_isolation_there_is_no_network(open_network: Synthesis) -> None:
    kinds = {resource["Type"] for resource in open_network.template.raw["Resources"].values()}
    assert not {kind for kind in kinds if kind.startswith("AWS::EC2::")}
    assert all("VpcConfig" not in function for function in open_network.template.of_type("AWS::Lambda::Function").values())


def test_settings_reach_the_template(open_network: Synthesis) -> None:
    template = open_network.template
    (subscription,) = template.of_type("AWS::SNS::Subscription").values()
    assert subscription["Endpoint"] == "ops@example.org"
    functions = {f["FunctionName"]: f for f in template.of_type("AWS::Lambda::Function").values()}
    assert functions["registry-two-record-stage"]["Environment"]["Variables"]["ATTESTRY_RETENTION_MODE"] == "COMPLIANCE"
    assert functions["registry-two-prepare-stage"]["Environment"]["Variables"]["ATTESTRY_DATA_BUCKETS"] == "lake-one,lake-two"
    assert all("ReservedConcurrentExecutions" not in function for function in functions.values())
    read = [r for s in template.role_policies("registry-two-prepare-stage-function") for r in listed(s["Resource"])]
    assert {"arn:aws:s3:::lake-one/*", "arn:aws:s3:::lake-two"} <= set(read)
    assert {table["DeletionProtectionEnabled"] for table in template.of_type("AWS::DynamoDB::Table").values()} == {False}


def test_stores_are_as_the_design_says(template: Template) -> None:
    buckets = template.of_type("AWS::S3::Bucket")
    (store,) = [b for name, b in buckets.items() if name.startswith("StoresStore")]
    assert {rule.get("Prefix") for rule in store["LifecycleConfiguration"]["Rules"] if "ExpirationInDays" in rule} == {"ledger/staging/"}
    assert store["ObjectLockEnabled"] is True
    assert "ObjectLockConfiguration" not in store
    assert store["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    (encryption,) = store["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["BucketKeyEnabled"] is True
    assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    for bucket in buckets.values():
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert sum("ObjectLockEnabled" in bucket for bucket in buckets.values()) == 1
    assert {
        r["DeletionPolicy"] for r in template.raw["Resources"].values() if r["Type"] in ("AWS::S3::Bucket", "AWS::DynamoDB::Table")
    } == {"Retain"}


def test_the_table_is_as_the_design_says(template: Template) -> None:
    (table,) = [table for name, table in template.of_type("AWS::DynamoDB::Table").items() if name.startswith("StoresMeta")]
    assert [key["AttributeName"] for key in table["KeySchema"]] == ["pk", "sk"]
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["DeletionProtectionEnabled"] is True
    assert table["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}
    (index,) = table["GlobalSecondaryIndexes"]
    assert (index["IndexName"], index["Projection"]) == ("by_collection", {"ProjectionType": "ALL"})
    assert [key["AttributeName"] for key in index["KeySchema"]] == ["gsi_pk", "gsi_sk"]


def test_uploads_and_console_decisions_and_the_clock_start_functions(template: Template) -> None:
    rules = list(template.of_type("AWS::Events::Rule").values())
    keys = [k for r in rules for k in r.get("EventPattern", {}).get("detail", {}).get("object", {}).get("key", [])]
    assert sorted(json.dumps(k) for k in keys) == [
        '{"prefix": "datasets-in/"}',
        '{"wildcard": "candidates/*/manifest.json"}',
        '{"wildcard": "candidates/*/manifest.yaml"}',
        '{"wildcard": "candidates/*/manifest.yml"}',
    ]
    assert ["ALARM"] in [r.get("EventPattern", {}).get("detail", {}).get("state", {}).get("value") for r in rules]
    assert {rule["ScheduleExpression"] for rule in rules if "ScheduleExpression" in rule} == {
        "rate(1 minute)",
        "rate(5 minutes)",
        "rate(1 hour)",
    }
    assert ["StartExecution"] in [r.get("EventPattern", {}).get("detail", {}).get("eventName") for r in rules]


@pytest.mark.parametrize(("function", "partition"), [("sequence", "OUTBOX"), ("deploy", {"prefix": "CANARY#"})])
def test_a_function_is_woken_by_new_rows_of_its_partition_alone_and_by_the_clock(
    template: Template, function: str, partition: str | dict[str, str]
) -> None:
    mappings = [m for m in template.of_type("AWS::Lambda::EventSourceMapping").values() if "FilterCriteria" in m]
    assert len(mappings) == 2  # as many readers as a shard of a stream has room for
    (mapping,) = [m for m in mappings if function in str(m["FunctionName"]).lower()]
    (pattern,) = mapping["FilterCriteria"]["Filters"]
    assert json.loads(pattern["Pattern"]) == {"eventName": ["INSERT"], "dynamodb": {"Keys": {"pk": {"S": [partition]}}}}
    assert mapping["EventSourceArn"].endswith(".StreamArn")
    assert (mapping["BisectBatchOnFunctionError"], mapping["MaximumRetryAttempts"], mapping["MaximumRecordAgeInSeconds"]) == (False, 2, 60)
    assert mapping["MaximumBatchingWindowInSeconds"] == 1
    clocks = [r for r in template.of_type("AWS::Events::Rule").values() if r.get("ScheduleExpression") == "rate(1 minute)"]
    assert any(f":function:attestry-{function}" in target["Arn"] for rule in clocks for target in rule["Targets"])


def test_one_sequencer_runs_at_a_time(template: Template) -> None:
    (function,) = [f for f in template.of_type("AWS::Lambda::Function").values() if f["FunctionName"] == "attestry-sequence"]
    assert function["ReservedConcurrentExecutions"] == 1


def test_every_alarm_goes_to_the_topic_and_says_what_it_means(template: Template) -> None:
    alarms = template.of_type("AWS::CloudWatch::Alarm").values()
    assert all(len(alarm["AlarmActions"]) == 1 and alarm["AlarmDescription"] for alarm in alarms)
    names = {alarm["AlarmName"] for alarm in alarms}
    assert {f"attestry-errors-{name.replace('_', '-')}" for name in specs(Config())} <= names


@pytest.mark.parametrize("configuration", ["synthesis", "open_network", "all_options"])
def test_limits_of_aws_are_kept(configuration: str, request: pytest.FixtureRequest) -> None:
    """CloudFormation, Lambda, IAM, KMS, S3 and Step Functions refuse what is larger; the embedded AWS does not."""
    template: Template = request.getfixturevalue(configuration).template
    assert len(template.raw["Resources"]) <= 500
    assert len(template.text) < 1024 * 1024
    assert len(template.raw["Outputs"]) <= 200
    for function in template.of_type("AWS::Lambda::Function").values():
        variables = function.get("Environment", {}).get("Variables", {})
        assert len(json.dumps(variables)) < 4096
        assert 128 <= function["MemorySize"] <= 10240
        assert len(function["FunctionName"]) <= 64
    for role in template.of_type("AWS::IAM::Role").values():
        assert sum(len(json.dumps(p["PolicyDocument"], separators=(",", ":"))) for p in role["Policies"]) < 10_240
        assert len(json.dumps(role["AssumeRolePolicyDocument"])) < 2048
        assert len(role.get("RoleName", "")) <= 64
    for policy in template.policies():
        limit = {"key": 32 * 1024, "resource": 20 * 1024}.get(policy.kind, 10_240)
        assert len(json.dumps(policy.document)) < limit
    for machine in template.of_type("AWS::StepFunctions::StateMachine").values():
        assert len(machine["DefinitionString"]) < 1024 * 1024
        assert len(machine["StateMachineName"]) <= 80
    assert all(len(rule.get("Targets", [])) <= 5 for rule in template.of_type("AWS::Events::Rule").values())


def test_clients_find_the_api_by_a_parameter(template: Template) -> None:
    (parameter,) = template.of_type("AWS::SSM::Parameter").values()
    assert parameter["Name"] == "/attestry/api-url"
    assert set(template.raw["Outputs"]) >= {"ApiUrl", "StoreBucket", "ScratchBucket", "MetaTable", "PipelineArn", "DecisionArn"}


def test_source_only_is_no_part_of_the_template(template: Template) -> None:
    assert next(iter(SOURCE_ONLY)) not in template.text
