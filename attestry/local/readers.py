"""Reading back what a deployed resource has, in the shape of its CloudFormation properties, from the services' own APIs.

A reader gives the properties that it can read; a property that it does not give counts as not in force. Where an API's shape
differs from CloudFormation's only by the first letter of the keys, `titled` brings them together.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from botocore.exceptions import ClientError

from attestry.local.deploy import Services
from attestry.local.openapi import read_openapi

Properties = dict[str, Any]
Reader = Callable[[Services, str, Properties], Properties]


def read(services: Services, kind: str, physical: str, expected: Properties) -> Properties:
    """Return the properties of a resource that its service reports.

    Args:
        services: clients.
        kind: resource type.
        physical: physical ID.
        expected: its properties in the template, resolved; some resources can only be found by these.
    """
    reader = _READERS.get(kind)
    if reader is None:
        return {}
    try:
        return reader(services, physical, expected)
    except ClientError:
        return {}


def titled(value: Any) -> Any:
    """Return a document with the first letter of every key in upper case."""
    if isinstance(value, Mapping):
        return {key[:1].upper() + key[1:]: titled(inner) for key, inner in value.items()}
    return [titled(inner) for inner in value] if isinstance(value, list) else value


def _attempt(call: Callable[..., Any], **arguments: Any) -> Properties:
    """Call, and take the absence of what was asked for as nothing."""
    try:
        return dict(call(**arguments))
    except ClientError:
        return {}


def _bucket(services: Services, name: str, _: Properties) -> Properties:
    s3 = services.client("s3")
    encryption = _attempt(s3.get_bucket_encryption, Bucket=name).get("ServerSideEncryptionConfiguration", {})
    lock = _attempt(s3.get_object_lock_configuration, Bucket=name).get("ObjectLockConfiguration", {})
    logging = _attempt(s3.get_bucket_logging, Bucket=name).get("LoggingEnabled", {})
    events = _attempt(s3.get_bucket_notification_configuration, Bucket=name)
    lifecycle = _attempt(s3.get_bucket_lifecycle_configuration, Bucket=name).get("Rules", [])
    return {
        "BucketName": name,
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {**rule, "ServerSideEncryptionByDefault": rule.get("ApplyServerSideEncryptionByDefault")}
                for rule in encryption.get("Rules", [])
            ]
        },
        "LifecycleConfiguration": {"Rules": [_lifecycle_rule(rule) for rule in lifecycle]},
        "LoggingConfiguration": {"DestinationBucketName": logging.get("TargetBucket"), "LogFilePrefix": logging.get("TargetPrefix")},
        "NotificationConfiguration": {"EventBridgeConfiguration": {"EventBridgeEnabled": "EventBridgeConfiguration" in events}},
        "ObjectLockEnabled": lock.get("ObjectLockEnabled") == "Enabled",
        "OwnershipControls": _attempt(s3.get_bucket_ownership_controls, Bucket=name).get("OwnershipControls"),
        "PublicAccessBlockConfiguration": _attempt(s3.get_public_access_block, Bucket=name).get("PublicAccessBlockConfiguration"),
        "VersioningConfiguration": {"Status": _attempt(s3.get_bucket_versioning, Bucket=name).get("Status")},
    }


def _lifecycle_rule(rule: Mapping[str, Any]) -> Properties:
    return {
        "Id": rule.get("ID"),
        "Status": rule.get("Status"),
        "Prefix": rule.get("Filter", {}).get("Prefix", rule.get("Prefix")),
        "ExpirationInDays": rule.get("Expiration", {}).get("Days"),
        "AbortIncompleteMultipartUpload": rule.get("AbortIncompleteMultipartUpload"),
        "NoncurrentVersionExpiration": rule.get("NoncurrentVersionExpiration"),
    }


def _table(services: Services, name: str, _: Properties) -> Properties:
    client = services.client("dynamodb")
    table = client.describe_table(TableName=name)["Table"]
    recovery = _attempt(client.describe_continuous_backups, TableName=name).get("ContinuousBackupsDescription", {})
    expiry = _attempt(client.describe_time_to_live, TableName=name).get("TimeToLiveDescription", {})
    encryption = table.get("SSEDescription") or {}
    status = recovery.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus")
    return {
        **table,
        "BillingMode": table.get("BillingModeSummary", {}).get("BillingMode"),
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": status == "ENABLED"},
        "SSESpecification": {
            "SSEEnabled": encryption.get("Status") == "ENABLED",
            "SSEType": encryption.get("SSEType"),
            "KMSMasterKeyId": encryption.get("KMSMasterKeyArn"),
        },
        "TimeToLiveSpecification": {"AttributeName": expiry.get("AttributeName"), "Enabled": expiry.get("TimeToLiveStatus") == "ENABLED"},
    }


def _function(services: Services, name: str, expected: Properties) -> Properties:
    client = services.client("lambda")
    found = client.get_function(FunctionName=name)
    config, code = found["Configuration"], expected.get("Code") or {}
    digest = _object_digest(services, code.get("S3Bucket", ""), code.get("S3Key", ""))
    return {
        **config,
        "Code": code if config.get("CodeSha256") == digest else None,
        "ReservedConcurrentExecutions": found.get("Concurrency", {}).get("ReservedConcurrentExecutions"),
    }


@cache
def _object_digest(services: Services, bucket: str, key: str) -> str:
    body = services.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def _invoke_config(services: Services, _: str, expected: Properties) -> Properties:
    found = services.client("lambda").get_function_event_invoke_config(
        FunctionName=expected["FunctionName"], Qualifier=expected["Qualifier"]
    )
    return {**found, "FunctionName": expected["FunctionName"], "Qualifier": expected["Qualifier"]}


def _event_source(services: Services, mapping: str, _: Properties) -> Properties:
    found = services.client("lambda").get_event_source_mapping(UUID=mapping)
    return {**found, "FunctionName": str(found.get("FunctionArn", "")).rsplit(":", 1)[-1]}


def _permission(services: Services, _: str, expected: Properties) -> Properties:
    policy = json.loads(services.client("lambda").get_policy(FunctionName=expected["FunctionName"])["Policy"])
    for statement in policy["Statement"]:
        source = (statement.get("Condition", {}).get("ArnLike") or {}).get("AWS:SourceArn")
        if statement["Action"] == expected["Action"] and source == expected.get("SourceArn"):
            principal = statement["Principal"]
            return {**expected, "Principal": principal.get("Service") if isinstance(principal, dict) else principal}
    return {}


def _state_machine(services: Services, arn: str, expected: Properties) -> Properties:
    found = services.client("stepfunctions").describe_state_machine(stateMachineArn=arn)
    substitutions = expected.get("DefinitionSubstitutions") or {}
    wanted = str(expected.get("DefinitionString", ""))
    for name, value in substitutions.items():
        wanted = wanted.replace("${" + name + "}", str(value))
    same = _json(wanted) == _json(found["definition"])
    return {
        "StateMachineName": found["name"],
        "StateMachineType": found["type"],
        "RoleArn": found["roleArn"],
        "LoggingConfiguration": titled(found.get("loggingConfiguration")),
        "DefinitionString": expected.get("DefinitionString") if same else found["definition"],
        "DefinitionSubstitutions": substitutions if same else None,
    }


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def _key(services: Services, key_id: str, _: Properties) -> Properties:
    client = services.client("kms")
    return {
        **client.describe_key(KeyId=key_id)["KeyMetadata"],
        "EnableKeyRotation": _attempt(client.get_key_rotation_status, KeyId=key_id).get("KeyRotationEnabled"),
        "KeyPolicy": _json(client.get_key_policy(KeyId=key_id, PolicyName="default")["Policy"]),
    }


def _alias(services: Services, name: str, _: Properties) -> Properties:
    aliases = services.client("kms").list_aliases()["Aliases"]
    return next(
        (
            {"AliasName": name, "TargetKeyId": f"arn:aws:kms:{services.session.region_name}:{_account(alias)}:key/{alias['TargetKeyId']}"}
            for alias in aliases
            if alias["AliasName"] == name
        ),
        {},
    )


def _account(alias: Mapping[str, Any]) -> str:
    return str(alias["AliasArn"]).split(":")[4]


def _queue(services: Services, url: str, _: Properties) -> Properties:
    found = services.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return {**found, "Policy": _json(found.get("Policy"))}


def _queue_policy(services: Services, _: str, expected: Properties) -> Properties:
    policies = [_queue(services, url, {}).get("Policy") for url in expected["Queues"]]
    return {"Queues": expected["Queues"], "PolicyDocument": policies[0] if all(policy == policies[0] for policy in policies) else None}


def _topic(services: Services, arn: str, _: Properties) -> Properties:
    return dict(services.client("sns").get_topic_attributes(TopicArn=arn)["Attributes"])


def _topic_policy(services: Services, _: str, expected: Properties) -> Properties:
    policies = [_json(_topic(services, arn, {}).get("Policy")) for arn in expected["Topics"]]
    return {"Topics": expected["Topics"], "PolicyDocument": policies[0] if all(policy == policies[0] for policy in policies) else None}


def _bucket_policy(services: Services, _: str, expected: Properties) -> Properties:
    policy = services.client("s3").get_bucket_policy(Bucket=expected["Bucket"])["Policy"]
    return {"Bucket": expected["Bucket"], "PolicyDocument": _json(policy)}


def _log_group(services: Services, name: str, _: Properties) -> Properties:
    found = services.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return next((dict(titled(group)) for group in found if group["logGroupName"] == name), {})


def _rule(services: Services, name: str, _: Properties) -> Properties:
    client = services.client("events")
    rule = client.describe_rule(Name=name)
    return {**rule, "EventPattern": _json(rule.get("EventPattern")), "Targets": client.list_targets_by_rule(Rule=name)["Targets"]}


def _role(services: Services, name: str, _: Properties) -> Properties:
    client = services.client("iam")
    role = client.get_role(RoleName=name)["Role"]
    inline = [
        client.get_role_policy(RoleName=name, PolicyName=policy) for policy in client.list_role_policies(RoleName=name)["PolicyNames"]
    ]
    attached = client.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    return {**role, "Policies": inline, "ManagedPolicyArns": [policy["PolicyArn"] for policy in attached]}


def _role_policy(services: Services, _: str, expected: Properties) -> Properties:
    client = services.client("iam")
    found: list[Properties] = [
        client.get_role_policy(RoleName=role, PolicyName=expected["PolicyName"]) for role in expected.get("Roles", [])
    ]
    same = bool(found) and all(policy["PolicyDocument"] == found[0]["PolicyDocument"] for policy in found)
    return {
        "PolicyName": expected["PolicyName"],
        "Roles": expected.get("Roles"),
        "PolicyDocument": found[0]["PolicyDocument"] if same else None,
    }


def _api_part(method: str, identifier: str) -> Reader:
    def reader(services: Services, physical: str, expected: Properties) -> Properties:
        client = services.client("apigatewayv2")
        items = getattr(client, method)(ApiId=expected["ApiId"])["Items"]
        # The physical ID of a route is `<API>/<route>`; the stage `$default` has no slash.
        found: Properties = next((item for item in items if item[identifier] == physical.rsplit("/", 1)[-1]), {})
        return {**found, "ApiId": expected["ApiId"]}

    return reader


def _api(services: Services, api_id: str, expected: Properties) -> Properties:
    client = services.client("apigatewayv2")
    found = dict(client.get_api(ApiId=api_id))
    if "Body" in expected:
        in_force = _routes_in_force(client, api_id)
        found["Body"] = expected["Body"] if in_force == read_openapi(expected["Body"]).in_force() else in_force
    return found


def _routes_in_force(client: Any, api_id: str) -> dict[str, tuple[str, str, str]]:
    """Return the routes of an API as `Imported.in_force` does those of a document."""
    authorizers = {one["AuthorizerId"]: one["AuthorizerUri"] for one in client.get_authorizers(ApiId=api_id)["Items"]}
    invoked = {one["IntegrationId"]: one["IntegrationUri"] for one in client.get_integrations(ApiId=api_id)["Items"]}
    return {
        route["RouteKey"]: (
            route["AuthorizationType"],
            authorizers.get(route.get("AuthorizerId"), ""),
            invoked[route["Target"].removeprefix("integrations/")],
        )
        for route in client.get_routes(ApiId=api_id)["Items"]
    }


def _parameter(services: Services, name: str, _: Properties) -> Properties:
    client = services.client("ssm")
    described = client.describe_parameters(ParameterFilters=[{"Key": "Name", "Values": [name]}])["Parameters"]
    return {**(described[0] if described else {}), **client.get_parameter(Name=name)["Parameter"]}


def _alarm(services: Services, name: str, _: Properties) -> Properties:
    found = services.client("cloudwatch").describe_alarms(AlarmNames=[name])
    return next((dict(alarm) for alarm in (*found["MetricAlarms"], *found["CompositeAlarms"])), {})


def _metric_filter(services: Services, name: str, expected: Properties) -> Properties:
    group = expected["LogGroupName"]
    answer = services.client("logs").describe_metric_filters(logGroupName=group, filterNamePrefix=name)
    found: Properties = next((dict(one) for one in answer["metricFilters"] if one["filterName"] == name), {})
    # Dimensions are a mapping here, and a list of Key and Value in a template.
    made = [
        {**titled(one), "Dimensions": [{"Key": key, "Value": value} for key, value in one.get("dimensions", {}).items()]}
        for one in found.get("metricTransformations", [])
    ]
    return {**titled(found), "LogGroupName": group, "MetricTransformations": made}


def _vpc(services: Services, vpc: str, _: Properties) -> Properties:
    client = services.client("ec2")
    attributes = {
        name: _attempt(client.describe_vpc_attribute, VpcId=vpc, Attribute=name[:1].lower() + name[1:]).get(name, {}).get("Value")
        for name in ("EnableDnsHostnames", "EnableDnsSupport")
    }
    return {**client.describe_vpcs(VpcIds=[vpc])["Vpcs"][0], **attributes}


def _security_group(services: Services, group: str, _: Properties) -> Properties:
    found = services.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    egress = [
        {"CidrIp": block.get("CidrIp"), "DestinationPrefixListId": prefix.get("PrefixListId"), **permission}
        for permission in found["IpPermissionsEgress"]
        for block in permission.get("IpRanges") or [{}]
        for prefix in permission.get("PrefixListIds") or [{}]
    ]
    return {**found, "GroupDescription": found.get("Description"), "SecurityGroupEgress": egress}


def _association(services: Services, association: str, _: Properties) -> Properties:
    tables = services.client("ec2").describe_route_tables(
        Filters=[{"Name": "association.route-table-association-id", "Values": [association]}]
    )["RouteTables"]
    return next((dict(entry) for table in tables for entry in table["Associations"] if entry["RouteTableAssociationId"] == association), {})


def _endpoint(services: Services, endpoint: str, _: Properties) -> Properties:
    found = services.client("ec2").describe_vpc_endpoints(VpcEndpointIds=[endpoint])["VpcEndpoints"][0]
    return {**found, "PolicyDocument": _json(found.get("PolicyDocument"))}


def _network(method: str, argument: str, answer: str) -> Reader:
    def reader(services: Services, physical: str, _: Properties) -> Properties:
        found = getattr(services.client("ec2"), method)(**{argument: [physical]})[answer]
        return dict(found[0]) if found else {}

    return reader


_READERS: Mapping[str, Reader] = {
    "AWS::ApiGatewayV2::Api": _api,
    "AWS::ApiGatewayV2::Integration": _api_part("get_integrations", "IntegrationId"),
    "AWS::ApiGatewayV2::Route": _api_part("get_routes", "RouteId"),
    "AWS::ApiGatewayV2::Stage": _api_part("get_stages", "StageName"),
    "AWS::CloudWatch::Alarm": _alarm,
    "AWS::DynamoDB::Table": _table,
    "AWS::EC2::RouteTable": _network("describe_route_tables", "RouteTableIds", "RouteTables"),
    "AWS::EC2::SecurityGroup": _security_group,
    "AWS::EC2::Subnet": _network("describe_subnets", "SubnetIds", "Subnets"),
    "AWS::EC2::SubnetRouteTableAssociation": _association,
    "AWS::EC2::VPC": _vpc,
    "AWS::EC2::VPCEndpoint": _endpoint,
    "AWS::Events::Rule": _rule,
    "AWS::IAM::Policy": _role_policy,
    "AWS::IAM::Role": _role,
    "AWS::KMS::Alias": _alias,
    "AWS::KMS::Key": _key,
    "AWS::Lambda::EventInvokeConfig": _invoke_config,
    "AWS::Lambda::EventSourceMapping": _event_source,
    "AWS::Lambda::Function": _function,
    "AWS::Lambda::Permission": _permission,
    "AWS::Logs::LogGroup": _log_group,
    "AWS::Logs::MetricFilter": _metric_filter,
    "AWS::S3::Bucket": _bucket,
    "AWS::S3::BucketPolicy": _bucket_policy,
    "AWS::SNS::Topic": _topic,
    "AWS::SNS::TopicPolicy": _topic_policy,
    "AWS::SQS::Queue": _queue,
    "AWS::SQS::QueuePolicy": _queue_policy,
    "AWS::SSM::Parameter": _parameter,
    "AWS::StepFunctions::StateMachine": _state_machine,
}
