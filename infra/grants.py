"""The statements that functions' rights are made of.

Rows are limited by their partition keys (`dynamodb:LeadingKeys`), objects by their folders, functions and state machines by their ARNs.
The exception is the table's stream, which carries every row and knows no such condition: the roles of the sequencer and of the deploy
function read it, because Lambda polls with the function's role; the functions themselves get what the mappings' filters let by. The right
to sign is not here but in the policies of the keys (`infra/keys.py`).
No statement has a `*` action. A `*` resource stands only where AWS knows no narrower one; `WITHOUT_RESOURCE` lists these actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns

from infra.config import Config
from infra.events_out import EVENT_SOURCE, Outlets
from infra.names import Names
from infra.stores import COLLECTION_INDEX, Stores

WITHOUT_RESOURCE: Mapping[str, str] = {
    "batch:DescribeJobs": "the action has no resource type; the pipeline asks what became of a job",
    "ecr:GetAuthorizationToken": "the action has no resource type; what it helps to pull is named",
    "states:SendTaskSuccess": "a task token names the execution; the action has no resource type",
    "states:SendTaskFailure": "a task token names the execution; the action has no resource type",
    "cloudtrail:LookupEvents": "the event history has no resource type",
    "cloudwatch:DescribeAlarms": "composite alarms are described to callers with the right on every resource alone",
    "cloudwatch:GetMetricData": "metrics have no resource type",
    "cloudwatch:GetMetricStatistics": "metrics have no resource type",
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

READ_ROWS = ("dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query")
KEY_TO_READ_ROWS = ("kms:Decrypt", "kms:DescribeKey")
KEY_TO_WRITE_ROWS = (*KEY_TO_READ_ROWS, "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo")
"""What DynamoDB asks of callers of a table under a key of ours; it uses the key on their behalf."""

ATTESTATIONS = "models/*/evidence/attestations/*"

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
    outlets: Outlets

    def read_rows(self, *partitions: str) -> Statements:
        """Read rows of partitions; a pattern ends in `*`."""
        return [
            self._rows([*READ_ROWS], partitions),
            self._key_through("dynamodb", *KEY_TO_READ_ROWS),
        ]

    def write_rows(self, *partitions: str, delete: bool = False) -> Statements:
        """Write rows of partitions, by themselves or in transactions."""
        actions = ["dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:ConditionCheckItem", *(["dynamodb:DeleteItem"] if delete else [])]
        return [self._rows(actions, partitions), self._key_through("dynamodb", *KEY_TO_WRITE_ROWS)]

    def delete_rows(self, *partitions: str) -> Statements:
        """Delete rows of partitions, by themselves or in transactions, and write none."""
        return [
            self._rows(["dynamodb:ConditionCheckItem", "dynamodb:DeleteItem"], partitions),
            self._key_through("dynamodb", *KEY_TO_WRITE_ROWS),
        ]

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

    def attest(self, *further: str) -> Statements:
        """Write attestations, and `further` evidence, into versions' folders, under Object Lock; a retry reads what is there."""
        patterns = (ATTESTATIONS, *further)
        return [*self.read_objects(self.stores.store, *patterns), *self.write_objects(self.stores.store, *patterns, retain=True)]

    def decide_access(self) -> Statements:
        """Read what decisions on callers rest on: whose login it is, grants, added policies, where a model is placed."""
        return self.read_rows("ACCESS", "GRANT#*", "LOGIN#*", "PLACED#*")

    def audit(self) -> Statements:
        """Note down what was denied, and reads that an auditor would ask for."""
        return self.write_rows("AUDIT")

    def remember_answers(self) -> Statements:
        """Keep what was answered to requests with an idempotency key, so that it is answered again."""
        return [*self.read_rows("IDEMPOTENCY#*"), *self.write_rows("IDEMPOTENCY#*", delete=True)]

    def read_stream(self) -> Statements:
        """Let Lambda poll the table's stream."""
        actions = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"]
        return [
            iam.PolicyStatement(actions=actions, resources=[f"{self.stores.table.table_arn}/stream/*"]),
            self._key_through("dynamodb", *KEY_TO_READ_ROWS),
        ]

    def list_versions(self, bucket: s3.Bucket) -> Statements:
        """List versions and delete markers."""
        return [iam.PolicyStatement(actions=["s3:ListBucketVersions"], resources=[bucket.bucket_arn])]

    def invoke(self, *functions: str, elsewhere: Sequence[str] = ()) -> Statements:
        """Invoke functions of the registry, and those `elsewhere` by their ARNs."""
        arns = [*(self.names.function_arn(f) for f in functions), *elsewhere]
        return [iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=arns)]

    def start_pipeline(self) -> Statements:
        """Start executions of the pipeline and see what became of them."""
        return [
            iam.PolicyStatement(actions=["states:StartExecution"], resources=[self.names.state_machine_arn(self.names.pipeline)]),
            *self.see_pipeline(),
        ]

    def start_scoring(self) -> Statements:
        """Start executions that score files and see what became of them."""
        names = self.names
        return [
            iam.PolicyStatement(actions=["states:StartExecution"], resources=[names.state_machine_arn(names.scoring)]),
            iam.PolicyStatement(actions=["states:DescribeExecution"], resources=[names.executions_arn(names.scoring)]),
        ]

    def see_pipeline(self) -> Statements:
        """See what became of executions of the pipeline."""
        return [iam.PolicyStatement(actions=["states:DescribeExecution"], resources=[self.names.executions_arn(self.names.pipeline)])]

    def find_console_callers(self) -> Statements:
        """Find out who started an execution of `RegistryDecision` and with what, and keep what became of it."""
        described = self.names.executions_arn(self.names.decision)
        return [
            *self.read_rows("CALLER#*"),
            *self.write_rows("CALLER#*"),
            iam.PolicyStatement(actions=["cloudtrail:LookupEvents"], resources=["*"]),
            iam.PolicyStatement(actions=["states:DescribeExecution"], resources=[described]),
        ]

    def ask_approvers(self) -> Statements:
        """Find out whom the approval runbook may ask, and what was answered to it; nothing where there is no runbook."""
        if not self.config.with_runbook:
            return []
        described = iam.PolicyStatement(actions=["ssm:GetAutomationExecution"], resources=[self.names.automations_arn])
        return [*self.read_index("PEOPLE"), described]

    def start_runbook(self) -> Statements:
        """Start the approval runbook; nothing where there is none."""
        if not self.config.with_runbook:
            return []
        definition = f"{self.names.runbook_definition_arn}:*"
        started = iam.PolicyStatement(actions=["ssm:StartAutomationExecution"], resources=[self.names.runbook_arn, definition])
        return [started, pass_automation_role(self.names)]

    def notify(self) -> Statements:
        """Tell people."""
        return [
            iam.PolicyStatement(actions=["sns:Publish"], resources=[self.topics.notifications.topic_arn]),
            self._key_through("sns", "kms:Decrypt", "kms:GenerateDataKey"),
        ]

    def tell(self) -> Statements:
        """Put events on the bus, as the registry's own and as nobody else's."""
        as_registry = {"StringEquals": {"events:source": EVENT_SOURCE}}
        return [iam.PolicyStatement(actions=["events:PutEvents"], resources=[self.names.bus_arn], conditions=as_registry)]

    def queue_deliveries(self) -> Statements:
        """Queue messages to webhooks."""
        return [iam.PolicyStatement(actions=["sqs:SendMessage"], resources=[self.names.queue_arn(self.names.deliveries)])]

    def take_deliveries(self) -> Statements:
        """Let Lambda poll the queue of deliveries with the function's role, and the function put a message off."""
        actions = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ChangeMessageVisibility"]
        return [iam.PolicyStatement(actions=actions, resources=[self.names.queue_arn(self.names.deliveries)])]

    def _rows(self, actions: list[str], partitions: tuple[str, ...]) -> iam.PolicyStatement:
        return iam.PolicyStatement(actions=actions, resources=[self.stores.table.table_arn], conditions=_leading_keys(partitions))

    def _key_through(self, service: str, *actions: str) -> iam.PolicyStatement:
        through = f"{service}.{Aws.REGION}.{Aws.URL_SUFFIX}"
        condition = {"StringEquals": {"kms:ViaService": through}}
        return iam.PolicyStatement(actions=list(actions), resources=[self.key.key_arn], conditions=condition)


def unite_reads(statements: Statements) -> Statements:
    """Return the statements with all reads of rows in one.

    A BatchGetItem over several partitions is allowed where one statement names all of them; two that name some each allow none of it.
    """
    reads = [s for s in statements if s.actions == [*READ_ROWS]]
    if len(reads) < 2:
        return statements
    partitions = {str(p): None for s in reads for p in s.conditions["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]}
    united = iam.PolicyStatement(actions=[*READ_ROWS], resources=reads[0].resources, conditions=_leading_keys(tuple(partitions)))
    return [united, *(s for s in statements if s.actions != [*READ_ROWS])]


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


def pass_automation_role(names: Names) -> iam.PolicyStatement:
    """Return the right to have the runbook run under its role."""
    return iam.PolicyStatement(
        sid="RunApproval",
        actions=["iam:PassRole"],
        resources=[names.automation_role_arn],
        conditions={"StringEquals": {"iam:PassedToService": "ssm.amazonaws.com"}},
    )
