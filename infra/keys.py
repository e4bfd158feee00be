"""The KMS keys: one that encrypts what the registry stores, and one that signs delegations.

The delegator key's policy gives `kms:Sign` to the delegate function's role and to nobody else. The account root holds the administrative
actions by name (AWS refuses a key that nobody can manage) but no cryptographic one beyond reading the public key, so no IAM policy of the
account can hand out signing; changing the key policy itself is what CloudTrail and the reviewers have to watch.
"""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Aws, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.config import Config

ADMINISTRATION = (
    "kms:CancelKeyDeletion",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:GetKeyPolicy",
    "kms:GetPublicKey",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateKeyDescription",
)
"""What the account may do with a signing key. No Sign, no CreateGrant: a grant would be a way around the policy."""


class Keys(Construct):
    """The registry's keys."""

    def __init__(self, scope: Construct, construct_id: str, config: Config) -> None:
        super().__init__(scope, construct_id)
        self._removal = RemovalPolicy.RETAIN if config.deletion_protection else RemovalPolicy.DESTROY
        self.data = kms.Key(
            self,
            "Data",
            alias=f"{config.prefix}-data",
            description="Attestry: encrypts buckets, table, topics and logs",
            enable_key_rotation=True,
            removal_policy=self._removal,
        )
        self.data.add_to_resource_policy(_use_by_logs(config.prefix))
        self.data.add_to_resource_policy(_use_by_publishers())

    def add_delegator(self, config: Config, *, signer: iam.IRole, readers: Sequence[iam.IRole]) -> kms.Key:
        """Create the key that signs delegations, for one role; `readers` may fetch its public half."""
        root = iam.PolicyStatement(
            sid="Administration", actions=list(ADMINISTRATION), principals=[iam.AccountRootPrincipal()], resources=["*"]
        )
        only = [iam.ArnPrincipal(signer.role_arn)]
        sign = iam.PolicyStatement(
            sid="SignDelegations",
            actions=["kms:Sign"],
            principals=only,
            resources=["*"],
            conditions={"StringEquals": {"kms:SigningAlgorithm": "ECDSA_SHA_256"}},
        )
        read = iam.PolicyStatement(
            sid="ReadPublicKey",
            actions=["kms:GetPublicKey"],
            principals=[*only, *(iam.ArnPrincipal(r.role_arn) for r in readers)],
            resources=["*"],
        )
        return kms.Key(
            self,
            "Delegator",
            alias=f"{config.prefix}-delegator",
            description="Attestry: signs delegations of prediction keys (ES256)",
            key_spec=kms.KeySpec.ECC_NIST_P256,
            key_usage=kms.KeyUsage.SIGN_VERIFY,
            policy=iam.PolicyDocument(statements=[root, sign, read]),
            removal_policy=self._removal,
        )


def _use_by_logs(prefix: str) -> iam.PolicyStatement:
    groups = [f"/aws/lambda/{prefix}-*", f"/aws/vendedlogs/{prefix}/*"]
    arns = [f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:{group}" for group in groups]
    return iam.PolicyStatement(
        sid="EncryptLogGroups",
        actions=["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:DescribeKey"],
        principals=[iam.ServicePrincipal(f"logs.{Aws.REGION}.{Aws.URL_SUFFIX}")],
        resources=["*"],
        conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": arns}},
    )


def _use_by_publishers() -> iam.PolicyStatement:
    return iam.PolicyStatement(
        sid="PublishAlarms",
        actions=["kms:Decrypt", "kms:GenerateDataKey"],
        principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com"), iam.ServicePrincipal("events.amazonaws.com")],
        resources=["*"],
        conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
    )
