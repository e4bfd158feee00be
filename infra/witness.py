"""The witness of a ledger: it keeps the last checkpoint that it saw, and cosigns what follows from it.

The same construct stands in the registry's own stack and, alone, in a stack for another account (`attestry:stack=witness`). Who owns the
registry's account owns the built-in one, so only a witness elsewhere says anything about the registry's owner (docs/operations.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from aws_cdk import Aws, CfnOutput, RemovalPolicy, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.config import Config
from infra.function_maker import FunctionMaker
from infra.grants import KEY_TO_WRITE_ROWS
from infra.keys import SIGNING_KEYS, Keys
from infra.names import Names
from infra.specs import specs

STACK_NAME = "AttestryWitness"

WITNESSED = "LOG#*"
"""Partitions of the logs that a witness knows."""


class Witness(Construct):
    """A witness: a table of its own, a role that reaches it and nothing else, and the function.

    Attributes:
        table: the last checkpoint by log.
        role: the function's role, which the policy of its key has to name.
    """

    def __init__(self, scope: Construct, construct_id: str, config: Config, key: kms.Key) -> None:
        super().__init__(scope, construct_id)
        self._maker = FunctionMaker(self, config, key)
        self._spec = specs(config)["witness"]
        self.table = dynamodb.Table(
            self,
            "Seen",
            partition_key=dynamodb.Attribute(name="pk", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="sk", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            deletion_protection=config.deletion_protection,
            encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED,
            encryption_key=key,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(point_in_time_recovery_enabled=True),
            removal_policy=RemovalPolicy.RETAIN if config.deletion_protection else RemovalPolicy.DESTROY,
        )
        rows = iam.PolicyStatement(
            actions=["dynamodb:ConditionCheckItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"],
            resources=[self.table.table_arn],
            conditions={"ForAllValues:StringLike": {"dynamodb:LeadingKeys": [WITNESSED]}},
        )
        encrypt = iam.PolicyStatement(
            actions=list(KEY_TO_WRITE_ROWS),
            resources=[key.key_arn],
            conditions={"StringEquals": {"kms:ViaService": f"dynamodb.{Aws.REGION}.{Aws.URL_SUFFIX}"}},
        )
        self.role = self._maker.add_role("witness", self._spec, [rows, encrypt])

    def add_function(self, key: kms.Key, logs: Mapping[str, Sequence[str]]) -> lambda_.Function:
        """Create the function.

        Args:
            key: what it cosigns with.
            logs: the logs that it knows: origin to keys, each a vkey or the ARN of the KMS key to read the public half of.
        """
        environment = {
            "ATTESTRY_WITNESS_KEY": key.key_arn,
            "ATTESTRY_WITNESS_LOGS": json.dumps(logs),
            "ATTESTRY_WITNESS_NAME": self._maker.names.witness,
            "ATTESTRY_WITNESS_TABLE": self.table.table_name,
        }
        return self._maker.add_function("witness", self._spec, self.role, environment)


class WitnessStack(Stack):
    """A witness for ledgers of other accounts: their sequencers' roles may call it, and nobody else from there."""

    def __init__(self, scope: Construct, construct_id: str, config: Config) -> None:
        super().__init__(scope, construct_id, description="Attestry: witness of ledgers in other accounts", analytics_reporting=False)
        keys = Keys(self, "Keys", config)
        witness = Witness(self, "Witness", config, keys.data)
        key = keys.add_signing_key(SIGNING_KEYS["witness"], signer=witness.role)
        logs: dict[str, list[str]] = {}
        for log in config.witness_logs:
            logs.setdefault(log.name, []).append(log.text)
        function = witness.add_function(key, logs)
        for index, (account, prefix) in enumerate(sorted({(log.account, log.prefix) for log in config.witness_logs}), 1):
            sequencer = f"arn:{Aws.PARTITION}:iam::{account}:role/{Names(prefix).function_role('sequence')}"
            function.add_permission(f"Log{index}", principal=iam.ArnPrincipal(sequencer), action="lambda:InvokeFunction")
        outputs = {"WitnessFunctionArn": function.function_arn, "WitnessKeyArn": key.key_arn, "WitnessName": Names(config.prefix).witness}
        for name, value in outputs.items():
            CfnOutput(self, name, value=value)
