"""Where things are kept: the model store, the scratch bucket, the table, and the buckets' own access logs."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.config import Config
from infra.names import Names

WRITE_ONCE = ("datasets", "environments", "models", "registered")
"""Folders of the store in which an object is written once."""

PUBLISHED_ONCE = (
    "ledger/audit/*",
    "ledger/checkpoints/*",
    "ledger/staging/*",
    "ledger/tile/*",
    "root/*.root.json",
    "root/*.snapshot.json",
    "root/*.targets.json",
    "root/*.trusted_root.json",
)
"""What is published for verifiers and written once."""

PUBLISHED: Mapping[str, str] = {"ledger": "sequence", "root": "root"}
"""Folders of the store to the one function that writes there. In each, one object is replaced from time to time (`ledger/checkpoint`,
`root/timestamp.json`); what is signed in it is what keeps it honest."""

NEVER_DELETED = (
    "datasets/*",
    "environments/*",
    "registered/*",
    "models/*/frozen/artifact-manifest.json",
    "models/*/frozen/manifest.json",
    "models/*/stages/*/record.json",
    "models/*/stages/*/log.txt",
    "models/*/evidence/*",
    "models/*/predictions/*.jsonl",
    "models/*/predictions/*.jwt",
    "ledger/tile/*",
    "ledger/checkpoint",
    "ledger/checkpoints/*",
    "ledger/audit/*",
    "root/*",
)
"""Objects that nobody deletes. The rest below models/ is what may have to be erased one day: captured payloads, and the private half of a
batch of receipts (`*.private.ndjson`)."""

DISPOSED_OF = ("models/*/frozen/*", "models/*/stages/*")
"""Objects that one function alone deletes: that which disposes of what a version left, once its retention is over."""

DISPOSER = "custody"

UPLOADS = "candidates"
DATA_IN = "datasets-in"
"""Where new versions of source data come in: `datasets-in/<model>/<source name>/<user id>/<file>`."""

GATEWAYS_TO_UPLOADS = ("uploads", "register")
"""Functions that write below other identities' upload prefixes: one presigns for them, one writes the outcome beside the manifest."""

OWN_PREFIXES = (f"{UPLOADS}/${{aws:userid}}/*", f"{DATA_IN}/*/*/${{aws:userid}}/*")
"""Where a caller may put files by hand: below its own user ID, so that the key says who it was."""

COLLECTION_INDEX = "by_collection"
_MULTIPART_DAYS = 7
_STAGING_DAYS = 90


class Stores(Construct):
    """Buckets and table.

    Attributes:
        store: the model store; versioned, under Object Lock.
        scratch: the stages' working files; expires.
        table: the rows of the registry.
        access_logs: S3 server access logs and VPC flow logs.
    """

    def __init__(self, scope: Construct, construct_id: str, config: Config, key: kms.Key) -> None:
        super().__init__(scope, construct_id)
        self._config = config
        self._removal = RemovalPolicy.RETAIN if config.deletion_protection else RemovalPolicy.DESTROY
        self.access_logs = self._access_logs()
        self.store = self._store(key)
        self.scratch = self._scratch(key)
        self.table = self._table(key)

    def _access_logs(self) -> s3.Bucket:
        expiry = s3.LifecycleRule(
            id="Expire",
            expiration=Duration.days(self._config.access_log_retention_days),
            noncurrent_version_expiration=Duration.days(1),
            abort_incomplete_multipart_upload_after=Duration.days(_MULTIPART_DAYS),
        )
        return s3.Bucket(
            self,
            "AccessLogs",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            # S3 delivers server access logs only to buckets with its own encryption keys.
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            lifecycle_rules=[expiry],
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=self._removal,
            versioned=True,
        )

    def _store(self, key: kms.Key) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            "Store",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            bucket_key_enabled=True,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=key,
            enforce_ssl=True,
            lifecycle_rules=[
                s3.LifecycleRule(id="AbortUploads", abort_incomplete_multipart_upload_after=Duration.days(_MULTIPART_DAYS)),
                # What was staged lies in tiles as soon as it is published, which takes seconds, or a repair of days at the most.
                s3.LifecycleRule(
                    id="ExpireStaging",
                    prefix="ledger/staging/",
                    expiration=Duration.days(_STAGING_DAYS),
                    noncurrent_version_expiration=Duration.days(_STAGING_DAYS),
                ),
            ],
            object_lock_enabled=True,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=self._removal,
            server_access_logs_bucket=self.access_logs,
            server_access_logs_prefix="store/",
            versioned=True,
        )
        for statement in _store_rules(bucket, Names(self._config.prefix)):
            bucket.add_to_resource_policy(statement)
        notify_event_bridge(bucket)
        return bucket

    def _scratch(self, key: kms.Key) -> s3.Bucket:
        expiry = s3.LifecycleRule(
            id="Expire",
            expiration=Duration.days(self._config.scratch_retention_days),
            noncurrent_version_expiration=Duration.days(1),
            abort_incomplete_multipart_upload_after=Duration.days(1),
        )
        return s3.Bucket(
            self,
            "Scratch",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            bucket_key_enabled=True,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=key,
            enforce_ssl=True,
            lifecycle_rules=[expiry],
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=self._removal,
            server_access_logs_bucket=self.access_logs,
            server_access_logs_prefix="scratch/",
            versioned=True,
        )

    def _table(self, key: kms.Key) -> dynamodb.Table:
        text = dynamodb.AttributeType.STRING
        table = dynamodb.Table(
            self,
            "Meta",
            partition_key=dynamodb.Attribute(name="pk", type=text),
            sort_key=dynamodb.Attribute(name="sk", type=text),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            deletion_protection=self._config.deletion_protection,
            encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED,
            encryption_key=key,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(point_in_time_recovery_enabled=True),
            removal_policy=self._removal,
            stream=dynamodb.StreamViewType.NEW_AND_OLD_IMAGES,
            time_to_live_attribute="expires",
        )
        table.add_global_secondary_index(
            index_name=COLLECTION_INDEX,
            partition_key=dynamodb.Attribute(name="gsi_pk", type=text),
            sort_key=dynamodb.Attribute(name="gsi_sk", type=text),
            projection_type=dynamodb.ProjectionType.ALL,
        )
        return table


def notify_event_bridge(bucket: s3.Bucket) -> None:
    """Send the bucket's events to EventBridge; set on the L1, because the L2 does it by a custom resource."""
    resource = bucket.node.default_child
    assert isinstance(resource, s3.CfnBucket)  # noqa: S101 - narrows CDK's type
    events = s3.CfnBucket.EventBridgeConfigurationProperty(event_bridge_enabled=True)
    resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(event_bridge_configuration=events)


def _store_rules(bucket: s3.Bucket, names: Names) -> list[iam.PolicyStatement]:
    """Return the rules that hold for everybody, administrators of the account included, until they change the policy itself."""
    everybody = [iam.AnyPrincipal()]
    own = [bucket.arn_for_objects(f"{folder}/*") for folder in WRITE_ONCE]
    once = [*own, *(bucket.arn_for_objects(pattern) for pattern in PUBLISHED_ONCE)]
    published = {folder: bucket.arn_for_objects(f"{folder}/*") for folder in PUBLISHED}
    never_delete = iam.PolicyStatement(
        sid="DenyDelete",
        effect=iam.Effect.DENY,
        principals=everybody,
        actions=["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"],
        resources=[bucket.arn_for_objects(pattern) for pattern in NEVER_DELETED],
    )
    dispose = iam.PolicyStatement(
        sid="DenyForeignDisposal",
        effect=iam.Effect.DENY,
        principals=everybody,
        actions=["s3:DeleteObjectVersion"],
        resources=[bucket.arn_for_objects(pattern) for pattern in DISPOSED_OF],
        conditions={"ArnNotEquals": {"aws:PrincipalArn": names.function_role_arn(DISPOSER)}},
    )
    no_way_around = iam.PolicyStatement(
        sid="DenyBypass",
        effect=iam.Effect.DENY,
        principals=everybody,
        # A delete marker would hide a version without deleting it; what is disposed is deleted by its version.
        actions=["s3:DeleteObject", "s3:BypassGovernanceRetention"],
        resources=[bucket.arn_for_objects(pattern) for pattern in DISPOSED_OF],
    )
    write_once = iam.PolicyStatement(
        sid="DenyOverwrite",
        effect=iam.Effect.DENY,
        principals=everybody,
        actions=["s3:PutObject"],
        resources=once,
        # CreateMultipartUpload and UploadPart carry no such header and make no object; the completing call does both.
        conditions={"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}},
    )
    own_prefix = iam.PolicyStatement(
        sid="DenyForeignUpload",
        effect=iam.Effect.DENY,
        principals=everybody,
        actions=["s3:PutObject"],
        not_resources=[*own, *published.values(), *(bucket.arn_for_objects(pattern) for pattern in OWN_PREFIXES)],
        conditions={"ArnNotEquals": {"aws:PrincipalArn": [names.function_role_arn(name) for name in GATEWAYS_TO_UPLOADS]}},
    )
    publishers = [
        iam.PolicyStatement(
            sid=f"DenyForeign{folder.capitalize()}",
            effect=iam.Effect.DENY,
            principals=everybody,
            actions=["s3:PutObject"],
            resources=[published[folder]],
            conditions={"ArnNotEquals": {"aws:PrincipalArn": names.function_role_arn(function)}},
        )
        for folder, function in PUBLISHED.items()
    ]
    return [never_delete, dispose, no_way_around, write_once, own_prefix, *publishers]
