"""The state machines: the pipeline that makes a version, `RegistryDecision` for decisions in the AWS console, and what scores files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from infra.config import Config
from infra.executor_config import jobs_of
from infra.function_maker import RETENTION_DAYS, drop_redundant_dependency
from infra.functions import Functions
from infra.grants import WITHOUT_RESOURCE, Statements
from infra.names import Names
from infra.pipeline_definition import SUBSTITUTIONS, decision_definition, pipeline_definition
from infra.scoring_definition import scoring_definition

_PIPELINE_FUNCTIONS = ("build_environment", "deploy", "evaluate", "gate", "prepare_stage", "record_stage", "sandbox")


class Pipeline(Construct):
    """The state machines.

    Attributes:
        machine: makes a version.
        scoring: scores a file; None where files are not scored.
        decision: decides on a version or operates it, started by a person in the AWS console.
    """

    def __init__(self, scope: Construct, construct_id: str, config: Config, functions: Functions, key: kms.Key, jobs: Statements) -> None:
        super().__init__(scope, construct_id)
        self._config = config
        self._functions = functions
        self._key = key
        names = Names(config.prefix)
        making = pipeline_definition(approval_seconds=int(Duration.days(config.approval_timeout_days).to_seconds()), jobs=jobs_of(config))
        deciding = decision_definition(wait_seconds=config.decision_wait_seconds)
        self.machine = self._machine("Pipeline", names.pipeline, making, _PIPELINE_FUNCTIONS, jobs)
        self.decision = self._machine("Decision", names.decision, deciding, ("console_decision", "operate"))
        self.scoring: sfn.StateMachine | None = None
        if config.batch_scoring:
            further = _start_itself(names)
            self.scoring = self._machine("Scoring", names.scoring, scoring_definition(), ("deploy",), further)

    def _machine(
        self,
        construct_id: str,
        name: str,
        definition: dict[str, Any],
        functions: tuple[str, ...],
        further: Sequence[iam.PolicyStatement] = (),
    ) -> sfn.StateMachine:
        arns = {function: self._functions.by_name[function].function_arn for function in functions}
        log = logs.LogGroup(
            self,
            f"{construct_id}Log",
            log_group_name=f"/aws/vendedlogs/{self._config.prefix}/{construct_id.lower()}",
            encryption_key=self._key,
            retention=RETENTION_DAYS[self._config.log_retention_days],
            removal_policy=RemovalPolicy.RETAIN if self._config.deletion_protection else RemovalPolicy.DESTROY,
        )
        invoke = iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=list(arns.values()))
        deliver = iam.PolicyStatement(actions=[a for a in WITHOUT_RESOURCE if a.startswith("logs:")], resources=["*"])
        role = iam.Role(
            self,
            f"{construct_id}Role",
            description=f"Attestry state machine {name}",
            assumed_by=iam.ServicePrincipal("states.amazonaws.com"),
            inline_policies={"machine": iam.PolicyDocument(statements=[invoke, deliver, *further], minimize=True)},
        )
        machine = sfn.StateMachine(
            self,
            construct_id,
            state_machine_name=name,
            state_machine_type=sfn.StateMachineType.STANDARD,
            definition_body=sfn.DefinitionBody.from_string(json.dumps(definition)),
            definition_substitutions={SUBSTITUTIONS[function]: arn for function, arn in arns.items()},
            # Execution data stays out of the log: an error's text may quote what a script printed.
            logs=sfn.LogOptions(destination=log, level=sfn.LogLevel.ALL, include_execution_data=False),
            role=role.without_policy_updates(),
        )
        drop_redundant_dependency(machine)
        return machine


def _start_itself(names: Names) -> Statements:
    """Return what a distributed map needs: its items are executions of the state machine that it stands in."""
    children = names.executions_arn(f"{names.scoring}/*")
    return [
        iam.PolicyStatement(actions=["states:StartExecution"], resources=[names.state_machine_arn(names.scoring)]),
        iam.PolicyStatement(actions=["states:DescribeExecution", "states:StopExecution"], resources=[children]),
    ]
