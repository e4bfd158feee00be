"""Approvals in AWS Systems Manager: the runbook, the role that it runs under, and the topic that tells approvers."""

from __future__ import annotations

from aws_cdk import Aws, Duration
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from infra.config import Config
from infra.grants import pass_automation_role
from infra.names import Names
from infra.runbook_document import runbook_document


class ApprovalRunbook(Construct):
    """The runbook that people approve in.

    Attributes:
        topic: where Systems Manager tells approvers that it waits for them.
    """

    def __init__(self, scope: Construct, construct_id: str, config: Config, key: kms.Key) -> None:
        super().__init__(scope, construct_id)
        names = Names(config.prefix)
        self.topic = sns.Topic(
            self,
            "Topic",
            # Systems Manager publishes to topics of such a name alone.
            topic_name=names.automation_topic,
            display_name="Attestry approvals",
            master_key=key,
            enforce_ssl=True,
        )
        role = iam.Role(
            self,
            "Role",
            role_name=names.automation_role,
            description="Attestry: the approval runbook asks the registry and records answers",
            assumed_by=iam.PrincipalWithConditions(
                iam.ServicePrincipal("ssm.amazonaws.com"), {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}
            ),
            inline_policies={"runbook": iam.PolicyDocument(statements=_statements(names, self.topic, key))},
        )
        document = runbook_document(
            function_arn=names.function_arn("console_decision"),
            role_arn=role.role_arn,
            topic_arn=self.topic.topic_arn,
            wait_seconds=int(Duration.days(config.approval_timeout_days).to_seconds()),
        )
        ssm.CfnDocument(
            self,
            "Document",
            name=names.runbook,
            content=document,
            document_type="Automation",
            document_format="JSON",
            # A new version and not another document: executions name the version that they ran.
            update_method="NewVersion",
        )


def _statements(names: Names, topic: sns.Topic, key: kms.Key) -> list[iam.PolicyStatement]:
    through = {"StringEquals": {"kms:ViaService": f"sns.{Aws.REGION}.{Aws.URL_SUFFIX}"}}
    return [
        iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[names.function_arn("console_decision")]),
        iam.PolicyStatement(actions=["sns:Publish"], resources=[topic.topic_arn]),
        iam.PolicyStatement(actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[key.key_arn], conditions=through),
    ]


def approve_in_systems_manager(names: Names) -> list[iam.PolicyStatement]:
    """Return what people need to start the runbook and to answer it.

    Signals cannot be limited to a document's automations: the right to send them holds for every automation of the account, and the
    approvers that an `aws:approve` step lists are what limits it.
    """
    return [
        iam.PolicyStatement(
            sid="StartApproval",
            actions=["ssm:StartAutomationExecution", "ssm:DescribeDocument", "ssm:GetDocument"],
            resources=[names.runbook_arn, f"{names.runbook_definition_arn}:*"],
        ),
        pass_automation_role(names),
        iam.PolicyStatement(
            sid="AnswerApproval", actions=["ssm:GetAutomationExecution", "ssm:SendAutomationSignal"], resources=[names.automations_arn]
        ),
    ]
