"""What each function may do: one list of statements per function, written from what the function does and nothing more.

Rows are limited by their partition keys (`dynamodb:LeadingKeys`), objects by their folders, functions and state machines by their ARNs.
No statement has a `*` action. A `*` resource stands only where AWS knows no narrower one; `WITHOUT_RESOURCE` lists these actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns

from infra.config import Config
from infra.names import Names
from infra.stores import COLLECTION_INDEX, Stores

WITHOUT_RESOURCE: Mapping[str, str] = {
    "states:SendTaskSuccess": "a task token names the execution; the action has no resource type",
    "states:SendTaskFailure": "a task token names the execution; the action has no resource type",
    "cloudtrail:LookupEvents": "the event history has no resource type",
    "ec2:CreateNetworkInterface": "Lambda makes the interface before it has an ARN; denied to the function's own code",
    "ec2:DescribeNetworkInterfaces": "the action has no resource type; denied to the function's own code",
    "ec2:DeleteNetworkInterface": "the interface's ARN is known to Lambda alone; denied to the function's own code",
    "logs:CreateLogDelivery": "the action has no resource type; state machine logs need it",
    "logs:DeleteLogDelivery": "the action has no resource type; state machine logs need it",
    "logs:DescribeLogGroups": "state machine logs need it for every log group",
    "logs:DescribeResourcePolicies": "the action has no resource type; state machine logs need it",
    "logs:GetLogDelivery": "the action has no resource type; state machine logs need it",
    "logs:ListLogDeliveries": "the action has no resource type; state machine logs need it",
    "logs:PutResourcePolicy": "the action has no resource type; state machine logs need it",
    "logs:UpdateLogDelivery": "the action has no resource type; state machine logs need it",
}
"""Actions that AWS grants on every resource or not at all, with why we need them."""

NETWORK_INTERFACE_ACTIONS = ("ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DeleteNetworkInterface")

KEY_TO_READ_ROWS = ("kms:Decrypt", "kms:DescribeKey")
KEY_TO_WRITE_ROWS = (*KEY_TO_READ_ROWS, "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo")
"""What DynamoDB asks of callers of a table under a key of ours; it uses the key on their behalf."""

FROZEN = "models/*/frozen/*"
TRAINING = "models/*/stages/PROCESSING/*/data/train/*"
HOLDOUT = "models/*/stages/PROCESSING/*/data/holdout/*"
LABELS = "models/*/stages/PROCESSING/*/data/holdout-labels/*"
"""Kept apart from the features, so that the function which makes URLs for scripts cannot make one for the labels."""

Statements = list[iam.PolicyStatement]


@dataclass(frozen=True)
class Topics:
    """Where messages to people go.

    Attributes:
        alarms: to who runs the registry.
        notifications: to who uses it: outcomes of registrations and stages.
    """

    alarms: sns.Topic
    notifications: sns.Topic


@dataclass(frozen=True)
class Grants:
    """Makes statements over the registry's resources."""

    config: Config
    names: Names
    stores: Stores
    key: kms.Key
    topics: Topics

    def read_rows(self, *partitions: str) -> Statements:
        """Read rows of partitions; a pattern ends in `*`."""
        return [
            self._rows(["dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"], partitions),
            self._key_through("dynamodb", *KEY_TO_READ_ROWS),
        ]

    def write_rows(self, *partitions: str, delete: bool = False) -> Statements:
        """Write rows of partitions, by themselves or in transactions."""
        actions = ["dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:ConditionCheckItem", *(["dynamodb:DeleteItem"] if delete else [])]
        return [self._rows(actions, partitions), self._key_through("dynamodb", *KEY_TO_WRITE_ROWS)]

    def check_rows(self, *partitions: str) -> Statements:
        """Take part in transactions by conditions on rows, without writing them."""
        return [self._rows(["dynamodb:ConditionCheckItem"], partitions)]

    def read_index(self, *collections: str) -> Statements:
        """Read collections of the index."""
        return [
            iam.PolicyStatement(
                actions=["dynamodb:Query"],
                resources=[f"{self.stores.table.table_arn}/index/{COLLECTION_INDEX}"],
                conditions=_leading_keys(collections),
            )
        ]

    def read_objects(self, bucket: s3.Bucket, *patterns: str) -> Statements:
        """Read objects, also by version; listing is what turns a missing object's 403 into 404."""
        return [
            iam.PolicyStatement(actions=["s3:GetObject", "s3:GetObjectVersion"], resources=[bucket.arn_for_objects(p) for p in patterns]),
            iam.PolicyStatement(actions=["s3:ListBucket"], resources=[bucket.bucket_arn]),
            self._key_through("s3", "kms:Decrypt"),
        ]

    def presign_objects(self, *patterns: str) -> Statements:
        """Read objects of the store by version, for URLs that others use; no listing."""
        objects = [self.stores.store.arn_for_objects(p) for p in patterns]
        return [
            iam.PolicyStatement(actions=["s3:GetObject", "s3:GetObjectVersion"], resources=objects),
            self._key_through("s3", "kms:Decrypt"),
        ]

    def write_objects(self, bucket: s3.Bucket, *patterns: str, retain: bool = False) -> Statements:
        """Write objects, where `retain` under Object Lock."""
        actions = ["s3:PutObject", "s3:AbortMultipartUpload", *(["s3:PutObjectRetention"] if retain else [])]
        objects = [bucket.arn_for_objects(p) for p in patterns]
        # Completing a multipart upload decrypts its parts' data key.
        return [iam.PolicyStatement(actions=actions, resources=objects), self._key_through("s3", "kms:Decrypt", "kms:GenerateDataKey")]

    def list_versions(self, bucket: s3.Bucket) -> Statements:
        """List versions and delete markers."""
        return [iam.PolicyStatement(actions=["s3:ListBucketVersions"], resources=[bucket.bucket_arn])]

    def invoke(self, *functions: str) -> Statements:
        """Invoke functions."""
        return [iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[self.names.function_arn(f) for f in functions])]

    def start_pipeline(self) -> Statements:
        """Start executions of the pipeline and see what became of them."""
        return [
            iam.PolicyStatement(actions=["states:StartExecution"], resources=[self.names.state_machine_arn(self.names.pipeline)]),
            *self.see_pipeline(),
        ]

    def see_pipeline(self) -> Statements:
        """See what became of executions of the pipeline."""
        return [iam.PolicyStatement(actions=["states:DescribeExecution"], resources=[self.names.executions_arn(self.names.pipeline)])]

    def notify(self) -> Statements:
        """Tell people."""
        return [
            iam.PolicyStatement(actions=["sns:Publish"], resources=[self.topics.notifications.topic_arn]),
            self._key_through("sns", "kms:Decrypt", "kms:GenerateDataKey"),
        ]

    def _rows(self, actions: list[str], partitions: tuple[str, ...]) -> iam.PolicyStatement:
        return iam.PolicyStatement(actions=actions, resources=[self.stores.table.table_arn], conditions=_leading_keys(partitions))

    def _key_through(self, service: str, *actions: str) -> iam.PolicyStatement:
        through = f"{service}.{Aws.REGION}.{Aws.URL_SUFFIX}"
        condition = {"StringEquals": {"kms:ViaService": through}}
        return iam.PolicyStatement(actions=list(actions), resources=[self.key.key_arn], conditions=condition)


def _leading_keys(partitions: tuple[str, ...]) -> dict[str, object]:
    return {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": list(partitions)}}


def write_log(names: Names, function: str) -> iam.PolicyStatement:
    """Return the right to write the function's own log group, which exists already."""
    group = f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:{names.log_group(function)}"
    return iam.PolicyStatement(actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[f"{group}:log-stream:*"])


def attach_network(names: Names, function: str) -> Statements:
    """Return what Lambda needs to attach a function to a VPC, and deny the same to the function's own code.

    Lambda makes these calls with the function's role; `lambda:SourceFunctionArn` is set only on calls that come from the code.
    """
    actions = list(NETWORK_INTERFACE_ACTIONS)
    own_code = {"ArnEquals": {"lambda:SourceFunctionArn": names.function_arn(function)}}
    return [
        iam.PolicyStatement(actions=actions, resources=["*"]),
        iam.PolicyStatement(effect=iam.Effect.DENY, actions=actions, resources=["*"], conditions=own_code),
    ]


def _build_environment(g: Grants) -> Statements:
    return [*g.read_objects(g.stores.store, "environments/*"), *g.write_objects(g.stores.store, "environments/*", retain=True)]


def _collect(g: Grants) -> Statements:
    return [
        *g.read_rows("KEY#*", "KEYS"),
        *g.write_rows("KEY#*", "OUTBOX"),
        *g.write_rows("KEYS", delete=True),
        *g.read_objects(g.stores.store, "models/*/predictions/*"),
        *g.write_objects(g.stores.store, "models/*/predictions/*", retain=True),
    ]


def _console_decision(g: Grants) -> Statements:
    lookup = iam.PolicyStatement(actions=["cloudtrail:LookupEvents"], resources=["*"])
    return [
        *g.read_rows("CALLER#*", "LOGIN#*", "VERSION#*"),
        *g.write_rows("CALLER#*", "OUTBOX", "VERSION#*"),
        *g.invoke("gate"),
        lookup,
    ]


def _decide(g: Grants) -> Statements:
    return [*g.read_rows("LOGIN#*", "VERSION#*"), *g.write_rows("OUTBOX", "VERSION#*"), *g.invoke("gate")]


def _delegate(g: Grants) -> Statements:
    return [
        *g.read_rows("KEY#*", "MODEL#*", "VERSION#*"),
        *g.check_rows("MODEL#*", "VERSION#*"),
        *g.write_rows("KEY#*", "KEYS", "OUTBOX"),
    ]


def _deploy(g: Grants) -> Statements:
    return [
        *g.read_rows("MODEL#*", "VERSION#*"),
        *g.write_rows("MODEL#*", "OUTBOX", "VERSION#*"),
        *g.read_objects(g.stores.store, "environments/*", FROZEN),
        *g.list_versions(g.stores.store),
        *g.invoke("inference"),
    ]


def _evaluate(g: Grants) -> Statements:
    return [
        *g.read_objects(g.stores.store, "environments/*", LABELS),
        *g.read_objects(g.stores.scratch, "jobs/*"),
        *g.write_objects(g.stores.scratch, "jobs/*/evaluated/*"),
    ]


def _gate(g: Grants) -> Statements:
    answer = iam.PolicyStatement(actions=["states:SendTaskSuccess", "states:SendTaskFailure"], resources=["*"])
    return [*g.read_rows("VERSION#*"), *g.write_rows("OUTBOX", "VERSION#*"), *g.start_pipeline(), *g.notify(), answer]


def _nothing(_g: Grants) -> Statements:
    return []


def _operate(g: Grants) -> Statements:
    return [
        *g.read_rows("LOGIN#*", "MODEL#*", "VERSION#*"),
        *g.write_rows("MODEL#*", "OUTBOX", "VERSION#*"),
        *g.invoke("deploy", "gate"),
        *g.start_pipeline(),
    ]


def _people(g: Grants) -> Statements:
    return [*g.read_rows("LOGIN#*", "PERSON#*"), *g.write_rows("LOGIN#*", "OUTBOX", "PERSON#*"), *g.read_index("PEOPLE")]


def _predict(g: Grants) -> Statements:
    return [
        *g.read_rows("KEY#*", "MODEL#*", "VERSION#*"),
        *g.write_rows("KEY#*"),
        *g.presign_objects("environments/*", FROZEN, "models/*/predictions/payloads/*"),
        *g.write_objects(g.stores.store, "models/*/predictions/payloads/*"),
        *g.invoke("delegate", "inference"),
    ]


def _prepare_stage(g: Grants) -> Statements:
    statements = [
        *g.read_rows("CANDIDATE#*", "VERSION#*"),
        *g.write_rows("OUTBOX", "VERSION#*"),
        *g.read_objects(g.stores.store, "candidates/*", "datasets/*", "environments/*", "registered/*", FROZEN, TRAINING, HOLDOUT),
        *g.write_objects(g.stores.store, "datasets/*", "environments/*", retain=True),
        *g.read_objects(g.stores.scratch, "jobs/*/job.json"),
        *g.write_objects(g.stores.scratch, "jobs/*"),
    ]
    if g.config.data_buckets:
        buckets = [f"arn:{Aws.PARTITION}:s3:::{name}" for name in g.config.data_buckets]
        objects = [f"{bucket}/*" for bucket in buckets]
        statements.append(iam.PolicyStatement(actions=["s3:GetObject", "s3:GetObjectVersion"], resources=objects))
        statements.append(iam.PolicyStatement(actions=["s3:ListBucket"], resources=buckets))
    return statements


def _record_stage(g: Grants) -> Statements:
    return [
        *g.read_rows("CANDIDATE#*", "MODEL#*", "VERSION#*"),
        *g.write_rows("OUTBOX", "VERSION#*"),
        *g.read_objects(g.stores.store, "environments/*", "models/*", "registered/*"),
        *g.write_objects(g.stores.store, "models/*", retain=True),
        *g.list_versions(g.stores.store),
        *g.read_objects(g.stores.scratch, "jobs/*"),
        *g.list_versions(g.stores.scratch),
        *g.notify(),
    ]


def _register(g: Grants) -> Statements:
    return [
        *g.read_rows("CANDIDATE#*", "LOGIN#*", "MODEL#*", "UPLOAD#*", "VERSION#*"),
        *g.write_rows("CANDIDATE#*", "MODEL#*", "OUTBOX", "VERSION#*"),
        *g.read_objects(g.stores.store, "candidates/*", "registered/*"),
        *g.write_objects(g.stores.store, "candidates/*.status.json"),
        *g.write_objects(g.stores.store, "registered/*", retain=True),
        *g.start_pipeline(),
        *g.notify(),
    ]


def _registry(g: Grants) -> Statements:
    return [
        *g.read_rows("CANDIDATE#*", "KEY#*", "LOGIN#*", "MODEL#*", "PERSON#*", "VERSION#*"),
        *g.read_index("MODELS", "VERSIONS#*", "VERSION_KEYS#*"),
        *g.read_objects(g.stores.store, "datasets/*", "environments/*", "models/*", "registered/*"),
        *g.list_versions(g.stores.store),
    ]


def _sweep(g: Grants) -> Statements:
    return [
        *g.read_rows("VERSION#*"),
        *g.write_rows("OUTBOX", "VERSION#*"),
        *g.read_index("MODELS", "VERSIONS#*"),
        *g.invoke("gate"),
        *g.start_pipeline(),
    ]


def _uploads(g: Grants) -> Statements:
    return [
        *g.read_rows("LOGIN#*", "UPLOAD#*"),
        *g.write_rows("UPLOAD#*"),
        *g.read_objects(g.stores.store, "candidates/*.status.json"),
        *g.write_objects(g.stores.store, "candidates/*"),
    ]


PERMISSIONS: Mapping[str, Callable[[Grants], Statements]] = {
    "build_environment": _build_environment,
    "collect": _collect,
    "console_decision": _console_decision,
    "decide": _decide,
    "delegate": _delegate,
    "deploy": _deploy,
    "evaluate": _evaluate,
    "gate": _gate,
    "inference": _nothing,
    "operate": _operate,
    "people": _people,
    "predict": _predict,
    "prepare_stage": _prepare_stage,
    "record_stage": _record_stage,
    "register": _register,
    "registry": _registry,
    "sandbox": _nothing,
    "sweep": _sweep,
    "uploads": _uploads,
}
