"""Making one function: its role, its log group, its dead-letter queue. Which functions there are is in `infra/functions.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import Aws, CfnResource, Duration, RemovalPolicy, Size
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.bundling import ARCHIVES, code_of
from infra.config import Config
from infra.grants import attach_network, write_log
from infra.names import Names
from infra.network import Isolation
from infra.specs import Spec

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


class FunctionMaker:
    """Makes functions in a scope, first their roles and then, when the keys that name the roles are there, themselves.

    Args:
        scope: the construct that holds them.
        config: the deployment's settings.
        key: encrypts the log groups.
        isolation: the network of functions that run registered code, if they have one.

    Attributes:
        names: the deployment's names.
        queues: dead-letter queues of the functions that events invoke, by function.
    """

    def __init__(self, scope: Construct, config: Config, key: kms.Key, isolation: Isolation | None = None) -> None:
        self.names = Names(config.prefix)
        self.queues: dict[str, sqs.Queue] = {}
        self._scope = scope
        self._config = config
        self._key = key
        self._isolation = isolation
        self._codes: dict[str, lambda_.Code] = {}

    def add_role(self, name: str, spec: Spec, may: Sequence[iam.PolicyStatement]) -> iam.Role:
        """Create a function's role, with the right to its own log beside what it `may`."""
        statements = [write_log(self.names, name), *may]
        if spec.untrusted and self._isolation:
            statements += attach_network(self.names, name)
        if spec.asynchronous:
            queue = sqs.Queue(
                self._scope,
                f"{pascal(name)}Failed",
                encryption=sqs.QueueEncryption.SQS_MANAGED,
                enforce_ssl=True,
                retention_period=Duration.days(14),
            )
            self.queues[name] = queue
            statements.append(iam.PolicyStatement(actions=["sqs:SendMessage"], resources=[queue.queue_arn]))
        return iam.Role(
            self._scope,
            f"{pascal(name)}Role",
            role_name=self.names.function_role(name),
            description=f"Attestry function {name}: {spec.what}",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            inline_policies={"function": iam.PolicyDocument(statements=statements, minimize=True)},
        )

    def add_function(self, name: str, spec: Spec, role: iam.Role, environment: Mapping[str, str]) -> lambda_.Function:
        """Create a function; what runs registered code is told nothing by its environment."""
        isolated = self._isolation if spec.untrusted else None
        common = {"ATTESTRY_ACCOUNT": Aws.ACCOUNT_ID, "ATTESTRY_PREFIX": self.names.prefix, "POWERTOOLS_SERVICE_NAME": name}
        function = lambda_.Function(
            self._scope,
            pascal(name),
            function_name=self.names.function(name),
            description=spec.what,
            architecture=lambda_.Architecture.ARM_64,
            code=self._code(spec.archive),
            dead_letter_queue=self.queues.get(name),
            environment={} if spec.untrusted else {**common, **environment},
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

    def _code(self, archive: str) -> lambda_.Code:
        if archive not in self._codes:
            self._codes[archive] = code_of(ARCHIVES[archive](), self._config.bundling)
        return self._codes[archive]

    def _log_group(self, name: str) -> logs.LogGroup:
        return logs.LogGroup(
            self._scope,
            f"{pascal(name)}Log",
            log_group_name=self.names.log_group(name),
            encryption_key=self._key,
            retention=RETENTION_DAYS[self._config.log_retention_days],
            removal_policy=RemovalPolicy.RETAIN if self._config.deletion_protection else RemovalPolicy.DESTROY,
        )


def drop_redundant_dependency(construct: Construct) -> None:
    """Remove the `DependsOn` that CDK writes for a role whose reference says the same; cfn-lint takes it for a mistake."""
    resource = construct.node.default_child
    assert isinstance(resource, CfnResource)  # noqa: S101 - narrows CDK's type
    resource.add_deletion_override("DependsOn")


def pascal(name: str) -> str:
    """Return the construct ID of a function."""
    return "".join(part.capitalize() for part in name.split("_"))
