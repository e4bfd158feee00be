"""Setting through the services' APIs what the emulator's CloudFormation drops in silence.

A setter takes the resolved value of one property, and the others of the resource beside it. It need not know whether it took effect:
the resource is read again afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attestry.local.deploy import Services
from attestry.local.readers import Properties

Setter = Callable[[Services, str, Any, Properties], None]


def setter_of(kind: str, name: str) -> Setter | None:
    """Return what sets a property of a resource type, or None."""
    return _SETTERS.get((kind, name))


def _bucket_encryption(services: Services, bucket: str, value: Properties, _: Properties) -> None:
    rules = [
        {
            "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
            "BucketKeyEnabled": rule.get("BucketKeyEnabled", False),
        }
        for rule in value["ServerSideEncryptionConfiguration"]
    ]
    services.client("s3").put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})


def _object_lock(services: Services, bucket: str, value: Any, _: Properties) -> None:
    if str(value).lower() == "true":
        services.client("s3").put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})


def _lifecycle(services: Services, bucket: str, value: Properties, _: Properties) -> None:
    rules = []
    for rule in value["Rules"]:
        made: Properties = {"ID": rule["Id"], "Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
        if "ExpirationInDays" in rule:
            made["Expiration"] = {"Days": rule["ExpirationInDays"]}
        for same in ("AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"):
            if same in rule:
                made[same] = rule[same]
        rules.append(made)
    services.client("s3").put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})


def _bucket_logging(services: Services, bucket: str, value: Properties, _: Properties) -> None:
    enabled = {"TargetBucket": value["DestinationBucketName"], "TargetPrefix": value.get("LogFilePrefix", "")}
    services.client("s3").put_bucket_logging(Bucket=bucket, BucketLoggingStatus={"LoggingEnabled": enabled})


def _bucket_notification(services: Services, bucket: str, value: Properties, _: Properties) -> None:
    if value.get("EventBridgeConfiguration", {}).get("EventBridgeEnabled"):
        services.client("s3").put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )


def _ownership(services: Services, bucket: str, value: Properties, _: Properties) -> None:
    services.client("s3").put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=value)


def _public_access(services: Services, bucket: str, value: Properties, _: Properties) -> None:
    services.client("s3").put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=value)


def _recovery(services: Services, table: str, value: Properties, _: Properties) -> None:
    services.client("dynamodb").update_continuous_backups(TableName=table, PointInTimeRecoverySpecification=value)


def _table_encryption(services: Services, table: str, value: Properties, _: Properties) -> None:
    specification = {"Enabled": value["SSEEnabled"], "SSEType": value.get("SSEType", "KMS"), "KMSMasterKeyId": value["KMSMasterKeyId"]}
    services.client("dynamodb").update_table(TableName=table, SSESpecification=specification)


def _expiry(services: Services, table: str, value: Properties, _: Properties) -> None:
    services.client("dynamodb").update_time_to_live(TableName=table, TimeToLiveSpecification=value)


def _function_setting(argument: str) -> Setter:
    def setter(services: Services, function: str, value: Any, _: Properties) -> None:
        services.client("lambda").update_function_configuration(FunctionName=function, **{argument: value})

    return setter


def _reserved(services: Services, function: str, value: Any, _: Properties) -> None:
    services.client("lambda").put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=int(value))


def _machine_logging(services: Services, arn: str, value: Properties, _: Properties) -> None:
    destinations = [
        {"cloudWatchLogsLogGroup": {"logGroupArn": entry["CloudWatchLogsLogGroup"]["LogGroupArn"]}} for entry in value["Destinations"]
    ]
    services.client("stepfunctions").update_state_machine(
        stateMachineArn=arn,
        loggingConfiguration={
            "level": value["Level"],
            "includeExecutionData": bool(value.get("IncludeExecutionData")),
            "destinations": destinations,
        },
    )


def _rotation(services: Services, key: str, value: Any, _: Properties) -> None:
    if str(value).lower() == "true":
        services.client("kms").enable_key_rotation(KeyId=key)


def _queue_attribute(name: str) -> Setter:
    def setter(services: Services, url: str, value: Any, _: Properties) -> None:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        services.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={name: text})

    return setter


def _topic_attribute(name: str) -> Setter:
    def setter(services: Services, arn: str, value: Any, _: Properties) -> None:
        services.client("sns").set_topic_attributes(TopicArn=arn, AttributeName=name, AttributeValue=str(value))

    return setter


def _log_key(services: Services, group: str, value: Any, _: Properties) -> None:
    services.client("logs").associate_kms_key(logGroupName=group, kmsKeyId=str(value))


def _log_retention(services: Services, group: str, value: Any, _: Properties) -> None:
    services.client("logs").put_retention_policy(logGroupName=group, retentionInDays=int(value))


def _stage_settings(services: Services, stage: str, value: Any, expected: Properties) -> None:
    services.client("apigatewayv2").update_stage(ApiId=expected["ApiId"], StageName=stage, DefaultRouteSettings=value)


def _rule_targets(services: Services, rule: str, value: Any, _: Properties) -> None:
    services.client("events").put_targets(Rule=rule, Targets=value)


def _role_setting(argument: str) -> Setter:
    def setter(services: Services, role: str, value: Any, _: Properties) -> None:
        services.client("iam").update_role(RoleName=role, **{argument: int(value) if argument == "MaxSessionDuration" else value})

    return setter


_SETTERS: Mapping[tuple[str, str], Setter] = {
    ("AWS::ApiGatewayV2::Stage", "DefaultRouteSettings"): _stage_settings,
    ("AWS::DynamoDB::Table", "PointInTimeRecoverySpecification"): _recovery,
    ("AWS::DynamoDB::Table", "SSESpecification"): _table_encryption,
    ("AWS::DynamoDB::Table", "TimeToLiveSpecification"): _expiry,
    ("AWS::Events::Rule", "Targets"): _rule_targets,
    ("AWS::IAM::Role", "Description"): _role_setting("Description"),
    ("AWS::IAM::Role", "MaxSessionDuration"): _role_setting("MaxSessionDuration"),
    ("AWS::KMS::Key", "EnableKeyRotation"): _rotation,
    ("AWS::Lambda::Function", "DeadLetterConfig"): _function_setting("DeadLetterConfig"),
    ("AWS::Lambda::Function", "ReservedConcurrentExecutions"): _reserved,
    ("AWS::Lambda::Function", "TracingConfig"): _function_setting("TracingConfig"),
    ("AWS::Lambda::Function", "VpcConfig"): _function_setting("VpcConfig"),
    ("AWS::Logs::LogGroup", "KmsKeyId"): _log_key,
    ("AWS::Logs::LogGroup", "RetentionInDays"): _log_retention,
    ("AWS::S3::Bucket", "BucketEncryption"): _bucket_encryption,
    ("AWS::S3::Bucket", "LifecycleConfiguration"): _lifecycle,
    ("AWS::S3::Bucket", "LoggingConfiguration"): _bucket_logging,
    ("AWS::S3::Bucket", "NotificationConfiguration"): _bucket_notification,
    ("AWS::S3::Bucket", "ObjectLockEnabled"): _object_lock,
    ("AWS::S3::Bucket", "OwnershipControls"): _ownership,
    ("AWS::S3::Bucket", "PublicAccessBlockConfiguration"): _public_access,
    ("AWS::SNS::Topic", "DisplayName"): _topic_attribute("DisplayName"),
    ("AWS::SNS::Topic", "KmsMasterKeyId"): _topic_attribute("KmsMasterKeyId"),
    ("AWS::SQS::Queue", "MessageRetentionPeriod"): _queue_attribute("MessageRetentionPeriod"),
    ("AWS::SQS::Queue", "SqsManagedSseEnabled"): _queue_attribute("SqsManagedSseEnabled"),
    ("AWS::StepFunctions::StateMachine", "LoggingConfiguration"): _machine_logging,
}
