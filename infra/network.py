"""The network of the functions that run registered code: subnets whose only way out is S3, and there only the registry's buckets."""

from __future__ import annotations

from aws_cdk import Aws, CfnTag
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_route53resolver as resolver
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.config import Config
from infra.stores import WRITE_ONCE, Stores

_CONTAINER_SERVICES = {
    "EcrApi": ec2.InterfaceVpcEndpointAwsService.ECR,
    "EcrDocker": ec2.InterfaceVpcEndpointAwsService.ECR_DOCKER,
    "Logs": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
}
_PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetAuthorizationToken", "ecr:GetDownloadUrlForLayer")
_CONTAINER_ACTIONS = {"EcrApi": _PULL, "EcrDocker": _PULL, "Logs": ("logs:CreateLogStream", "logs:PutLogEvents")}
CONTAINER_NAMES = tuple(f"{name}.{Aws.REGION}.{Aws.URL_SUFFIX}" for name in ("api.ecr", "*.dkr.ecr", "logs"))
"""Names that Fargate looks up to start a container."""


class Isolation(Construct):
    """A VPC without internet gateway or NAT, and without interface endpoint where no container is started in it.

    Attributes:
        vpc: the VPC.
        subnets: the isolated subnets.
        security_group: no inbound rule; outbound HTTPS, which the routes limit to S3.
    """

    def __init__(self, scope: Construct, construct_id: str, config: Config, stores: Stores) -> None:
        super().__init__(scope, construct_id)
        isolated = ec2.SubnetConfiguration(name="Isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=20)
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(config.vpc_cidr),
            max_azs=2,
            nat_gateways=0,
            create_internet_gateway=False,
            # Closing the default group takes a custom resource; nothing is ever placed in it.
            restrict_default_security_group=False,
            subnet_configuration=[isolated],
        )
        self.subnets = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
        self.security_group = ec2.SecurityGroup(
            self, "SecurityGroup", vpc=self.vpc, description="Functions that run registered code", allow_all_outbound=False
        )
        self.security_group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "HTTPS; the route table knows S3 alone")
        endpoint = self.vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3, subnets=[self.subnets])
        containers = pulls_images(config)
        for statement in [*_reachable(stores.store, stores.scratch), *_reachable_by_jobs(config, stores.scratch)]:
            endpoint.add_to_policy(statement)
        if containers:
            self._add_container_endpoints()
        self._add_name_filter(CONTAINER_NAMES if containers else ())
        self._add_flow_log(stores.access_logs)

    def _add_container_endpoints(self) -> None:
        """Let Fargate fetch images and write logs from subnets without internet; nobody of another account gets through."""
        own_account = {"StringEquals": {"aws:PrincipalAccount": Aws.ACCOUNT_ID}}
        inside = ec2.SecurityGroup(self, "EndpointGroup", vpc=self.vpc, description="Endpoints of ECR and logs", allow_all_outbound=False)
        inside.add_ingress_rule(self.security_group, ec2.Port.tcp(443), "HTTPS of jobs")
        for name, service in _CONTAINER_SERVICES.items():
            endpoint = self.vpc.add_interface_endpoint(name, service=service, subnets=self.subnets, security_groups=[inside], open=False)
            endpoint.add_to_policy(
                iam.PolicyStatement(
                    actions=list(_CONTAINER_ACTIONS[name]), principals=[iam.AnyPrincipal()], resources=["*"], conditions=own_account
                )
            )

    def _add_name_filter(self, further: tuple[str, ...]) -> None:
        """Answer questions about S3's names, and `further` ones: queries to the VPC's resolver would carry data out of any subnet."""
        endpoint = f"s3.{Aws.REGION}.{Aws.URL_SUFFIX}"
        global_endpoint = f"s3.{Aws.URL_SUFFIX}"
        s3_names = resolver.CfnFirewallDomainList(
            self, "S3Names", domains=[endpoint, f"*.{endpoint}", global_endpoint, f"*.{global_endpoint}", *further]
        )
        all_names = resolver.CfnFirewallDomainList(self, "AllNames", domains=["*"])
        rules = [
            resolver.CfnFirewallRuleGroup.FirewallRuleProperty(
                priority=100,
                action="ALLOW",
                firewall_domain_list_id=s3_names.attr_id,
                # S3's names lead on to names of its fleet, which are not ours to list.
                firewall_domain_redirection_action="TRUST_REDIRECTION_DOMAIN",
            ),
            resolver.CfnFirewallRuleGroup.FirewallRuleProperty(
                priority=200, action="BLOCK", block_response="NXDOMAIN", firewall_domain_list_id=all_names.attr_id
            ),
        ]
        group = resolver.CfnFirewallRuleGroup(self, "NameRules", firewall_rules=rules)
        resolver.CfnFirewallRuleGroupAssociation(
            self, "NameFilter", firewall_rule_group_id=group.attr_id, priority=101, vpc_id=self.vpc.vpc_id
        )

    def _add_flow_log(self, bucket: s3.Bucket) -> None:
        """Record refused and accepted connections: the sandbox has no reason to try anything but S3."""
        source = {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}
        delivery = iam.ServicePrincipal("delivery.logs.amazonaws.com")
        prefix = f"flow/AWSLogs/{Aws.ACCOUNT_ID}"
        write = iam.PolicyStatement(
            sid="FlowLogWrite",
            actions=["s3:PutObject"],
            principals=[delivery],
            resources=[bucket.arn_for_objects(f"{prefix}/*")],
            conditions=source,
        )
        check = iam.PolicyStatement(
            sid="FlowLogAclCheck", actions=["s3:GetBucketAcl"], principals=[delivery], resources=[bucket.bucket_arn], conditions=source
        )
        for statement in (write, check):
            bucket.add_to_resource_policy(statement)
        log = ec2.CfnFlowLog(
            self,
            "FlowLog",
            resource_id=self.vpc.vpc_id,
            resource_type="VPC",
            traffic_type="ALL",
            log_destination_type="s3",
            log_destination=f"{bucket.bucket_arn}/flow",
            tags=[CfnTag(key="Name", value="Attestry isolation")],
        )
        if bucket.policy:
            log.node.add_dependency(bucket.policy)


def pulls_images(config: Config) -> bool:
    """Return whether Fargate starts containers in the isolated subnets."""
    return "batch" in config.executors and bool(config.batch_images) and not config.job_subnets


def _reachable_by_jobs(config: Config, scratch: s3.Bucket) -> list[iam.PolicyStatement]:
    """Return what executors besides Lambda need of S3 beyond what the functions do."""
    everybody, statements = [iam.AnyPrincipal()], []
    if {"sagemaker", "emr-serverless"} & set(config.executors):
        own = {"StringLike": {"s3:prefix": ["jobs/*"]}}
        statements += [
            iam.PolicyStatement(
                sid="ListInputs", actions=["s3:ListBucket"], principals=everybody, resources=[scratch.bucket_arn], conditions=own
            ),
            iam.PolicyStatement(
                sid="CommitOutputs",
                actions=["s3:AbortMultipartUpload", "s3:DeleteObject"],
                principals=everybody,
                resources=[scratch.arn_for_objects("jobs/*/out/*")],
            ),
        ]
    if pulls_images(config):
        layers = f"arn:{Aws.PARTITION}:s3:::prod-{Aws.REGION}-starport-layer-bucket/*"
        statements.append(iam.PolicyStatement(sid="ReadLayers", actions=["s3:GetObject"], principals=everybody, resources=[layers]))
    return statements


def _reachable(store: s3.Bucket, scratch: s3.Bucket) -> list[iam.PolicyStatement]:
    """Return what may be reached through the endpoint, whoever's credentials a request carries.

    Code that smuggles in credentials of another account finds no bucket of that account here.
    """
    readable = [store.arn_for_objects(f"{folder}/*") for folder in WRITE_ONCE]
    read = iam.PolicyStatement(
        sid="ReadInputs",
        actions=["s3:GetObject", "s3:GetObjectVersion"],
        principals=[iam.AnyPrincipal()],
        resources=[*readable, scratch.arn_for_objects("jobs/*")],
    )
    write = iam.PolicyStatement(
        sid="WriteOutputs", actions=["s3:PutObject"], principals=[iam.AnyPrincipal()], resources=[scratch.arn_for_objects("jobs/*")]
    )
    return [read, write]
