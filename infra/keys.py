"""The KMS keys: one that encrypts what the registry stores, and one for each function that signs.

A signing key's policy gives `kms:Sign`, for one algorithm, to one function's role and to nobody else. The account root holds the
administrative actions by name (AWS refuses a key that nobody can manage) but no cryptographic one beyond reading the public key, so no IAM
policy of the account can hand out signing; changing the key policy itself is what CloudTrail and the reviewers have to watch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

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


class Algorithm(Enum):
    """How a key signs: its spec, KMS's name of the algorithm, and whether KMS is given the message or its digest.

    KMS takes raw messages of at most 4,096 bytes, so ES256 signs digests; pure Ed25519 has no such form, and its messages are short.
    """

    ES256 = (kms.KeySpec.ECC_NIST_P256, "ECDSA_SHA_256", "DIGEST")
    ED25519 = (kms.KeySpec.ECC_NIST_EDWARDS25519, "ED25519_SHA_512", "RAW")


@dataclass(frozen=True)
class SigningKey:
    """A key with which one function signs.

    Attributes:
        name: end of its alias.
        what: what it signs.
        algorithm: how.
        readers: functions that may fetch its public half, besides its own and those of `READERS`.
    """

    name: str
    what: str
    algorithm: Algorithm = Algorithm.ES256
    readers: tuple[str, ...] = ()


ATTESTERS = ("console_decision", "custody", "decide", "deploy", "gate", "operate", "prepare_stage", "record_stage", "register")
"""Functions that move versions: each signs, with a key of its own, what it attests of the move."""

DERIVERS = ("deliver", "webhooks")
"""Functions that derive webhooks' secrets: one signs with them, one shows each once."""

READERS = ("bundle", "registry", "root")
"""Functions that check signatures or list the keys: they may fetch the public half of every signing key."""

SIGNING_KEYS: Mapping[str, SigningKey] = {
    "delegate": SigningKey("delegator", "delegations of prediction keys"),
    "sequence": SigningKey("ledger", "checkpoints of the ledger", Algorithm.ED25519, ("reconcile", "witness")),
    "sign_artifact": SigningKey("artifact", "the files of versions (OpenSSF Model Signing)"),
    "witness": SigningKey("witness", "cosignatures of checkpoints", Algorithm.ED25519, ("sequence",)),
    **{function: SigningKey(f"attest-{function.replace('_', '-')}", f"attestations by {function}") for function in ATTESTERS},
}
"""Function to the key that it signs with."""


class Keys(Construct):
    """The registry's keys.

    Attributes:
        data: encrypts buckets, tables, topics and logs.
    """

    def __init__(self, scope: Construct, construct_id: str, config: Config) -> None:
        super().__init__(scope, construct_id)
        self._prefix = config.prefix
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

    def add_signing_key(self, key: SigningKey, *, signer: iam.IRole, readers: Sequence[iam.IRole] = ()) -> kms.Key:
        """Create a key that signs for one role; `readers` may fetch its public half."""
        spec, algorithm, message_type = key.algorithm.value
        root = iam.PolicyStatement(
            sid="Administration", actions=list(ADMINISTRATION), principals=[iam.AccountRootPrincipal()], resources=["*"]
        )
        only = [iam.ArnPrincipal(signer.role_arn)]
        sign = iam.PolicyStatement(
            sid="Sign",
            actions=["kms:Sign"],
            principals=only,
            resources=["*"],
            conditions={"StringEquals": {"kms:SigningAlgorithm": algorithm, "kms:MessageType": message_type}},
        )
        read = iam.PolicyStatement(
            sid="ReadPublicKey",
            actions=["kms:GetPublicKey"],
            principals=[*only, *(iam.ArnPrincipal(r.role_arn) for r in readers)],
            resources=["*"],
        )
        return kms.Key(
            self,
            "".join(part.capitalize() for part in key.name.split("-")),
            alias=f"{self._prefix}-{key.name}",
            description=f"Attestry: signs {key.what}",
            key_spec=spec,
            key_usage=kms.KeyUsage.SIGN_VERIFY,
            policy=iam.PolicyDocument(statements=[root, sign, read]),
            removal_policy=self._removal,
        )

    def add_mac_key(self, name: str, what: str, *, users: Sequence[iam.IRole]) -> kms.Key:
        """Create an HMAC key, from which `users` derive secrets; nobody reads its material, and no policy of an identity gives its use."""
        root = iam.PolicyStatement(
            sid="Administration", actions=list(ADMINISTRATION), principals=[iam.AccountRootPrincipal()], resources=["*"]
        )
        derive = iam.PolicyStatement(
            sid="Derive",
            actions=["kms:GenerateMac"],
            principals=[iam.ArnPrincipal(user.role_arn) for user in users],
            resources=["*"],
            conditions={"StringEquals": {"kms:MacAlgorithm": "HMAC_SHA_256"}},
        )
        return kms.Key(
            self,
            "".join(part.capitalize() for part in name.split("-")),
            alias=f"{self._prefix}-{name}",
            description=f"Attestry: derives {what}",
            key_spec=kms.KeySpec.HMAC_256,
            key_usage=kms.KeyUsage.GENERATE_VERIFY_MAC,
            policy=iam.PolicyDocument(statements=[root, derive]),
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
