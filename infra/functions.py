"""The functions: what each is given to run with. What each may do is in `infra/permissions.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from aws_cdk import Aws, CfnResource, Duration, RemovalPolicy, Size
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.bundling import code_of, registry_archive, sandbox_archive
from infra.config import CONTEXT_PREFIX, Config, ConfigError
from infra.keys import Keys
from infra.network import Isolation
from infra.permissions import PERMISSIONS, Grants, attach_network, write_log

RETENTION_DAYS = {
    1: logs.RetentionDays.ONE_DAY,
    3: logs.RetentionDays.THREE_DAYS,
    5: logs.RetentionDays.FIVE_DAYS,
    7: logs.RetentionDays.ONE_WEEK,
    14: logs.RetentionDays.TWO_WEEKS,
    30: logs.RetentionDays.ONE_MONTH,
    60: logs.RetentionDays.TWO_MONTHS,
    90: logs.RetentionDays.THREE_MONTHS,
    120: logs.RetentionDays.FOUR_MONTHS,
    150: logs.RetentionDays.FIVE_MONTHS,
    180: logs.RetentionDays.SIX_MONTHS,
    365: logs.RetentionDays.ONE_YEAR,
    400: logs.RetentionDays.THIRTEEN_MONTHS,
    545: logs.RetentionDays.EIGHTEEN_MONTHS,
    731: logs.RetentionDays.TWO_YEARS,
    1096: logs.RetentionDays.THREE_YEARS,
    1827: logs.RetentionDays.FIVE_YEARS,
    2192: logs.RetentionDays.SIX_YEARS,
    2557: logs.RetentionDays.SEVEN_YEARS,
    2922: logs.RetentionDays.EIGHT_YEARS,
    3288: logs.RetentionDays.NINE_YEARS,
    3653: logs.RetentionDays.TEN_YEARS,
}

SANDBOX_DISK_MIB = 10240
"""Ephemeral disk for an unpacked environment, inputs and outputs; the most that Lambda has."""

API_SECONDS = 29
"""Below the gateway's 30 seconds, so that a caller gets our answer and not the gateway's timeout."""


@dataclass(frozen=True)
class Spec:
    """What a function runs with.

    Attributes:
        what: one line for the console.
        seconds: timeout.
        memory_mib: memory; CPU is in proportion.
        storage_mib: ephemeral disk.
        reserved: reserved concurrency, or None.
        tenants: a fresh execution environment per tenant ID.
        untrusted: runs registered code: own archive, no permissions, isolated subnets.
        asynchronous: invoked by events: what fails twice goes to a dead-letter queue.
        tables, store, scratch, retains: which environment it is given.
        extra: names of further environment variables, see `Functions`.
    """

    what: str
    seconds: int
    memory_mib: int = 512
    storage_mib: int = 512
    reserved: int | None = None
    tenants: bool = False
    untrusted: bool = False
    asynchronous: bool = False
    table: bool = True
    store: bool = False
    scratch: bool = False
    retains: bool = False
    extra: tuple[str, ...] = ()


def specs(config: Config) -> Mapping[str, Spec]:
    """Return every function by name, which is also the name of its module below lambdas/.

    Raises:
        infra.config.ConfigError: memory for a function that is not there, or that has a setting of its own.
    """
    table, given = _specs(config), dict(config.function_memory_mib)
    for name in given:
        if name not in table or table[name].untrusted:
            settable = ", ".join(sorted(known for known, spec in table.items() if not spec.untrusted))
            raise ConfigError(f"{CONTEXT_PREFIX}functionMemoryMib: {name!r} is none of {settable}")
    return {name: replace(spec, memory_mib=given.get(name, spec.memory_mib)) for name, spec in table.items()}


def _specs(config: Config) -> dict[str, Spec]:
    return {
        "build_environment": Spec(
            "Builds environment archives from lock files", 900, 2048, 4096, reserved=5, table=False, store=True, retains=True
        ),
        "collect": Spec("Archives receipts and captured payloads", 300, 1024, reserved=1, asynchronous=True, store=True, retains=True),
        "console_decision": Spec(
            "Takes decisions made in the AWS console", 60, asynchronous=True, extra=("ATTESTRY_GATE_FUNCTION", "ATTESTRY_DECISION_ARN")
        ),
        "decide": Spec("API: approve and reject", API_SECONDS, extra=("ATTESTRY_GATE_FUNCTION",)),
        "delegate": Spec("Signs delegations of prediction keys", 10, extra=("ATTESTRY_DELEGATOR_KEY",)),
        "deploy": Spec("Warms a version and swaps the pointer", 600, asynchronous=True, store=True, extra=("ATTESTRY_INFERENCE_FUNCTION",)),
        "evaluate": Spec("Computes metrics from untrusted outputs", 900, 3008, 10240, reserved=10, table=False, store=True, scratch=True),
        "gate": Spec("Waits for decisions and sends task tokens", 60, extra=("ATTESTRY_PIPELINE_ARN", "ATTESTRY_TOPIC_ARN")),
        "inference": Spec(
            "Serves versions; no permissions", 300, config.inference_memory_mib, SANDBOX_DISK_MIB, tenants=True, untrusted=True, table=False
        ),
        "operate": Spec(
            "API: deployment, rollback, retry",
            API_SECONDS,
            extra=("ATTESTRY_DEPLOY_FUNCTION", "ATTESTRY_GATE_FUNCTION", "ATTESTRY_PIPELINE_ARN"),
        ),
        "people": Spec("API: persons and their logins", API_SECONDS),
        "predict": Spec(
            "API: predictions with receipts",
            API_SECONDS,
            1024,
            store=True,
            extra=("ATTESTRY_INFERENCE_FUNCTION", "ATTESTRY_DELEGATE_FUNCTION"),
        ),
        "prepare_stage": Spec(
            "Prepares a stage's job",
            900,
            1024,
            2048,
            store=True,
            scratch=True,
            retains=True,
            extra=("ATTESTRY_DATA_BUCKETS", "ATTESTRY_SANDBOX_DISK_MIB", "ATTESTRY_SANDBOX_MEMORY_MIB"),
        ),
        "record_stage": Spec(
            "Digests, freezes and records a stage", 900, 1024, 10240, store=True, scratch=True, retains=True, extra=("ATTESTRY_TOPIC_ARN",)
        ),
        "register": Spec(
            "Registers an uploaded manifest",
            300,
            1024,
            2048,
            asynchronous=True,
            store=True,
            retains=True,
            extra=("ATTESTRY_FOLDER_NAMING", "ATTESTRY_PIPELINE_ARN", "ATTESTRY_TOPIC_ARN"),
        ),
        "registry": Spec("API: reads", API_SECONDS, 1024, store=True, extra=("ATTESTRY_DELEGATOR_KEY",)),
        "sandbox": Spec(
            "Runs a stage's script; no permissions",
            900,
            config.sandbox_memory_mib,
            SANDBOX_DISK_MIB,
            reserved=20,
            untrusted=True,
            table=False,
        ),
        "sweep": Spec(
            "Finds what was left between", 240, reserved=1, asynchronous=True, extra=("ATTESTRY_GATE_FUNCTION", "ATTESTRY_PIPELINE_ARN")
        ),
        "uploads": Spec("API: upload URLs and submissions", API_SECONDS, store=True),
    }


class Functions(Construct):
    """The functions with their roles, log groups and dead-letter queues.

    Attributes:
        by_name: the functions.
        queues: dead-letter queues of the functions that events invoke.
        delegator: the key that signs delegations.
    """

    def __init__(self, scope: Construct, construct_id: str, grants: Grants, keys: Keys, isolation: Isolation | None) -> None:
        super().__init__(scope, construct_id)
        self._config = grants.config
        self._names = grants.names
        self._grants = grants
        self._isolation = isolation
        self._key = keys.data
        archives = {True: code_of(sandbox_archive(), self._config.bundling), False: code_of(registry_archive(), self._config.bundling)}
        self.queues: dict[str, sqs.Queue] = {}
        self.by_name: dict[str, lambda_.Function] = {}
        table = specs(self._config)
        roles = {name: self._role(name, spec) for name, spec in table.items()}
        self.delegator: kms.Key = keys.add_delegator(self._config, signer=roles["delegate"], readers=[roles["registry"]])
        for name, spec in table.items():
            self.by_name[name] = self._function(name, spec, roles[name], archives[spec.untrusted])

    def _function(self, name: str, spec: Spec, role: iam.Role, code: lambda_.Code) -> lambda_.Function:
        isolated = self._isolation if spec.untrusted else None
        function = lambda_.Function(
            self,
            pascal(name),
            function_name=self._names.function(name),
            description=spec.what,
            architecture=lambda_.Architecture.ARM_64,
            code=code,
            dead_letter_queue=self.queues.get(name),
            environment=self._environment(name, spec),
            ephemeral_storage_size=Size.mebibytes(spec.storage_mib),
            handler=f"lambdas.{name}.handler",
            log_group=self._log_group(name),
            memory_size=spec.memory_mib,
            reserved_concurrent_executions=spec.reserved if self._config.reserved_concurrency else None,
            role=role.without_policy_updates(),
            runtime=lambda_.Runtime.PYTHON_3_13,
            security_groups=[isolated.security_group] if isolated else None,
            tenancy_config=lambda_.TenancyConfig.PER_TENANT if spec.tenants else None,
            timeout=Duration.seconds(spec.seconds),
            vpc=isolated.vpc if isolated else None,
            vpc_subnets=isolated.subnets if isolated else None,
        )
        drop_redundant_dependency(function)
        if spec.asynchronous:
            function.configure_async_invoke(max_event_age=Duration.hours(1), retry_attempts=2)
        return function

    def _role(self, name: str, spec: Spec) -> iam.Role:
        statements = [write_log(self._names, name), *PERMISSIONS[name](self._grants)]
        if spec.untrusted and self._isolation:
            statements += attach_network(self._names, name)
        if spec.asynchronous:
            queue = sqs.Queue(
                self,
                f"{pascal(name)}Failed",
                encryption=sqs.QueueEncryption.SQS_MANAGED,
                enforce_ssl=True,
                retention_period=Duration.days(14),
            )
            self.queues[name] = queue
            statements.append(iam.PolicyStatement(actions=["sqs:SendMessage"], resources=[queue.queue_arn]))
        return iam.Role(
            self,
            f"{pascal(name)}Role",
            role_name=self._names.function_role(name),
            description=f"Attestry function {name}: {spec.what}",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            inline_policies={"function": iam.PolicyDocument(statements=statements, minimize=True)},
        )

    def _log_group(self, name: str) -> logs.LogGroup:
        return logs.LogGroup(
            self,
            f"{pascal(name)}Log",
            log_group_name=self._names.log_group(name),
            encryption_key=self._key,
            retention=RETENTION_DAYS[self._config.log_retention_days],
            removal_policy=RemovalPolicy.RETAIN if self._config.deletion_protection else RemovalPolicy.DESTROY,
        )

    def _environment(self, name: str, spec: Spec) -> dict[str, str]:
        if spec.untrusted:
            return {}
        stores, names = self._grants.stores, self._names
        extra = {
            "ATTESTRY_DATA_BUCKETS": ",".join(self._config.data_buckets),
            "ATTESTRY_DECISION_ARN": names.state_machine_arn(names.decision),
            "ATTESTRY_DELEGATE_FUNCTION": names.function("delegate"),
            "ATTESTRY_DELEGATOR_KEY": self.delegator.key_arn,
            "ATTESTRY_DEPLOY_FUNCTION": names.function("deploy"),
            "ATTESTRY_FOLDER_NAMING": self._config.folder_naming.value,
            "ATTESTRY_GATE_FUNCTION": names.function("gate"),
            "ATTESTRY_INFERENCE_FUNCTION": names.function("inference"),
            "ATTESTRY_PIPELINE_ARN": names.state_machine_arn(names.pipeline),
            "ATTESTRY_SANDBOX_DISK_MIB": str(SANDBOX_DISK_MIB),
            "ATTESTRY_SANDBOX_MEMORY_MIB": str(self._config.sandbox_memory_mib),
            "ATTESTRY_TOPIC_ARN": self._grants.topics.notifications.topic_arn,
        }
        environment = {"ATTESTRY_ACCOUNT": Aws.ACCOUNT_ID, "ATTESTRY_PREFIX": names.prefix, "POWERTOOLS_SERVICE_NAME": name}
        if spec.table:
            environment["ATTESTRY_TABLE"] = stores.table.table_name
        if spec.store:
            environment["ATTESTRY_STORE"] = stores.store.bucket_name
        if spec.scratch:
            environment["ATTESTRY_SCRATCH"] = stores.scratch.bucket_name
        if spec.retains:
            environment["ATTESTRY_RETENTION_MODE"] = self._config.retention_mode
            environment["ATTESTRY_RETENTION_DAYS"] = str(self._config.retention_days)
        return environment | {key: extra[key] for key in spec.extra}


def drop_redundant_dependency(construct: Construct) -> None:
    """Remove the `DependsOn` that CDK writes for a role whose reference says the same; cfn-lint takes it for a mistake."""
    resource = construct.node.default_child
    assert isinstance(resource, CfnResource)  # noqa: S101 - narrows CDK's type
    resource.add_deletion_override("DependsOn")


def pascal(name: str) -> str:
    """Return the construct ID of a function."""
    return "".join(part.capitalize() for part in name.split("_"))
