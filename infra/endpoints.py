"""Endpoints of SageMaker: the roles that containers run with, and who may make and call endpoints. Nothing where nothing is enabled.

The endpoints themselves are made by the deploy function, each when the first version of a model is deployed, and removed by it. A container
runs without network, so without credentials; the role is what SageMaker itself uses to read the version's files, to pull the image and to
write the log. The model store's bucket policy and Object Lock keep those files as they were frozen, and the container checks them again.
"""

from __future__ import annotations

from typing import Any

from aws_cdk import Aws, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.endpoint_config import with_endpoints
from infra.grants import Grants, Statements
from infra.job_access import SAGEMAKER_NETWORK, arn, pull_images, use_volumes
from infra.names import Names

_KINDS = {"Model": "model", "EndpointConfig": "endpoint-config", "Endpoint": "endpoint"}


class EndpointRoles(Construct):
    """The role of each model that SageMaker may serve."""

    def __init__(self, scope: Construct, construct_id: str, grants: Grants) -> None:
        super().__init__(scope, construct_id)
        self._config, self._names, self._grants = grants.config, grants.names, grants
        own_account = {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}
        for model in self._config.endpoint_models:
            iam.Role(
                self,
                f"Serve-{model}",
                role_name=self._names.serve_role(model),
                description=f"Attestry: endpoints of {model}",
                assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com", conditions=own_account),
                inline_policies={"serve": iam.PolicyDocument(statements=serve_statements(grants, model), minimize=True)},
            )

    def setting(self) -> str:
        """Return what functions are told: `attestry.domain.endpoints.EndpointSettings` as JSON; empty where there are no endpoints."""
        config, stores = self._config, self._grants.stores
        if not with_endpoints(config):
            return ""
        told: dict[str, Any] = {
            "models": list(config.endpoint_models),
            "store": stores.store.bucket_name,
            "scratch": stores.scratch.bucket_name,
            "role_prefix": self._names.job_role_arn(self._names.serve_role_prefix),
            "volume_kms_key": config.job_volume_key,
            "capture_kms_key": self._grants.key.key_arn,
            "subnets": list(config.job_subnets),
            "security_groups": list(config.job_security_groups),
        }
        return Stack.of(self).to_json_string({name: value for name, value in told.items() if value not in ("", [])})


def serve_statements(grants: Grants, model: str) -> Statements:
    """Return what SageMaker may do for the endpoints of a model.

    Args:
        grants: the registry's resources.
        model: the model.
    """
    config, stores = grants.config, grants.stores
    frozen, captured = f"models/{model}/*/frozen/", f"captured/{model}/*"
    listing = {"StringLike": {"s3:prefix": [f"{frozen}*"]}}
    through_s3 = {"StringEquals": {"kms:ViaService": f"s3.{Aws.REGION}.{Aws.URL_SUFFIX}"}}
    group = arn("logs", f"log-group:/aws/sagemaker/Endpoints/{config.prefix}-*")
    return [
        iam.PolicyStatement(actions=["s3:GetObject"], resources=[stores.store.arn_for_objects(f"{frozen}*")]),
        iam.PolicyStatement(actions=["s3:ListBucket"], resources=[stores.store.bucket_arn], conditions=listing),
        iam.PolicyStatement(actions=["s3:PutObject"], resources=[stores.scratch.arn_for_objects(captured)]),
        iam.PolicyStatement(actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[grants.key.key_arn], conditions=through_s3),
        iam.PolicyStatement(actions=["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], resources=[group]),
        *use_volumes(config.job_volume_key),
        *pull_images(config),
        *([iam.PolicyStatement(actions=list(SAGEMAKER_NETWORK), resources=["*"])] if config.job_subnets else []),
    ]


def keep_endpoints(grants: Grants) -> Statements:
    """Return what it takes to make, change and remove endpoints: those of this deployment, with the roles of its models and no other."""
    if not with_endpoints(grants.config):
        return []
    names = grants.names
    made = [arn("sagemaker", f"{resource}/{names.endpoints}") for resource in _KINDS.values()]
    actions = [f"sagemaker:{verb}{kind}" for kind in _KINDS for verb in ("Create", "Describe", "Delete")]
    condition = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    return [
        *grants.read_rows("ENDPOINTS"),
        *grants.write_rows("ENDPOINTS", delete=True),
        *grants.read_objects(grants.stores.store, "registered/*"),
        iam.PolicyStatement(actions=[*actions, "sagemaker:UpdateEndpoint", "sagemaker:AddTags"], resources=made),
        iam.PolicyStatement(actions=["iam:PassRole"], resources=[names.job_role_arn(f"{names.serve_role_prefix}*")], conditions=condition),
        *(call_endpoints(grants) if grants.config.batch_scoring else []),
    ]


def call_endpoints(grants: Grants) -> Statements:
    """Return what it takes to call endpoints: those of this deployment."""
    if not with_endpoints(grants.config):
        return []
    return [iam.PolicyStatement(actions=["sagemaker:InvokeEndpoint"], resources=[endpoints_arn(grants.names)])]


def endpoints_arn(names: Names) -> str:
    """Return the ARN pattern of the deployment's endpoints."""
    return arn("sagemaker", f"endpoint/{names.endpoints}")
