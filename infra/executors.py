"""What stages run on besides Lambda: roles of jobs, Batch queues and definitions, Spark applications. Nothing where nothing is enabled."""

from __future__ import annotations

from aws_cdk import Aws, RemovalPolicy, Stack
from aws_cdk import aws_batch as batch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_emrserverless as emr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.function_maker import RETENTION_DAYS
from infra.grants import Grants, Statements
from infra.job_access import arn, executors_elsewhere, job_statements, pull_images, run_jobs, trusted_services
from infra.network import Isolation

_IDLE_MINUTES = 15
_GIB_PER_VCPU = 4
"""Memory of a Spark application in proportion to its vCPUs: the middle one of the sizes of EMR Serverless workers."""

_FARGATE_DISK_GIB = 200
"""The most that Fargate has."""

_DIGEST_DIGITS = 12


class Executors(Construct):
    """Executors besides Lambda.

    Attributes:
        queues: ARN of the Batch queue of each kind, `FARGATE` and `FARGATE_SPOT`; empty where Batch is not enabled.
        definitions: ARN of the Batch job definition of each image.
        applications: ID of the Spark application of each image.
    """

    def __init__(self, scope: Construct, construct_id: str, grants: Grants, isolation: Isolation | None) -> None:
        super().__init__(scope, construct_id)
        self._config, self._names, self._grants, self._isolation = grants.config, grants.names, grants, isolation
        self._enabled = executors_elsewhere(self._config)
        self.queues: dict[str, str] = {}
        self.definitions: dict[str, str] = {}
        self.applications: dict[str, str] = {}
        for model in self._config.job_models if trusted_services(self._config) else ():
            self._add_job_role(model)
        if "batch" in self._enabled:
            self._add_batch()
        if "emr-serverless" in self._enabled:
            group = self._spark_security_groups() if self._config.emr_images else []
            made = {image: self._application(image, group) for image in self._config.emr_images}
            self.applications = {**made, **dict(self._config.emr_applications)}

    @property
    def sagemaker_subnets(self) -> list[str]:
        """Subnets in which SageMaker runs jobs; none where it runs them without any network."""
        if self._config.job_subnets:
            return list(self._config.job_subnets)
        return [] if self._config.job_network_isolation else self._subnets()

    def pipeline_statements(self) -> Statements:
        """Return what the pipeline's role needs to run jobs."""
        applications = [arn("emr-serverless", f"/applications/{application}") for application in self.applications.values()]
        return run_jobs(
            self._config,
            self._names,
            queues=list(self.queues.values()),
            definitions=list(self.definitions.values()),
            applications=applications,
        )

    def setting(self) -> str:
        """Return what the functions that register candidates and prepare stages are told: `attestry.domain.jobs.JobSettings` as JSON."""
        config = self._config
        if not self._enabled:
            return "{}"
        told: dict[str, object] = {
            "executors": list(config.executors),
            "bucket": self._grants.stores.scratch.bucket_name,
            "role_prefix": self._names.job_role_arn(self._names.job_role_prefix),
            "kms_key": self._grants.key.key_arn,
            "volume_kms_key": config.job_volume_key,
            "network_isolation": config.job_network_isolation,
            "subnets": self.sagemaker_subnets,
            "security_groups": self._security_groups() if self.sagemaker_subnets else [],
            "batch_queue": self.queues.get("FARGATE", ""),
            "batch_spot_queue": self.queues.get("FARGATE_SPOT", ""),
            "batch_definitions": self.definitions,
            "emr_applications": self.applications,
        }
        return Stack.of(self).to_json_string({name: value for name, value in told.items() if value not in ("", [], {})})

    def _add_job_role(self, model: str) -> None:
        stores, key = self._grants.stores, self._grants.key.key_arn
        statements = job_statements(self._config, model, scratch=stores.scratch.bucket_arn, key=key, subnets=bool(self.sagemaker_subnets))
        own_account = {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}
        services = [iam.ServicePrincipal(service, conditions=own_account) for service in trusted_services(self._config)]
        iam.Role(
            self,
            f"Job-{model}",
            role_name=self._names.job_role(model),
            description=f"Attestry: jobs of {model}",
            assumed_by=iam.CompositePrincipal(*services),
            inline_policies={"job": iam.PolicyDocument(statements=statements, minimize=True)},
        )

    def _add_batch(self) -> None:
        config = self._config
        own = {"FARGATE": config.batch_queue, "FARGATE_SPOT": config.batch_spot_queue}
        self.queues = {kind: queue or self._queue(kind) for kind, queue in own.items()}
        self.definitions = dict(config.batch_definitions)
        if config.batch_images:
            role, log = self._batch_execution()
            self.definitions |= {image: self._definition(image, role, log) for image in config.batch_images}

    def _batch_execution(self) -> tuple[str, str]:
        """Return the role with which Fargate pulls images and writes logs, and the log group."""
        log = logs.LogGroup(
            self,
            "BatchLog",
            # Below the names that the key lets CloudWatch Logs encrypt.
            log_group_name=f"/aws/vendedlogs/{self._config.prefix}/batch",
            encryption_key=self._grants.key,
            retention=RETENTION_DAYS[self._config.log_retention_days],
            removal_policy=RemovalPolicy.RETAIN if self._config.deletion_protection else RemovalPolicy.DESTROY,
        )
        group = arn("logs", f"log-group:/aws/vendedlogs/{self._config.prefix}/batch")
        write = iam.PolicyStatement(actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[f"{group}:log-stream:*"])
        own_account = {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}
        role = iam.Role(
            self,
            "BatchExecution",
            description="Attestry: pulls the images of Batch jobs and writes their logs",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com", conditions=own_account),
            inline_policies={"execution": iam.PolicyDocument(statements=[write, *pull_images(self._config)])},
        )
        return role.role_arn, log.log_group_name

    def _queue(self, kind: str) -> str:
        name = f"{self._config.prefix}-{kind.lower().replace('_', '-')}"
        part = "Spot" if kind.endswith("SPOT") else "Fargate"
        environment = batch.CfnComputeEnvironment(
            self,
            f"{part}Environment",
            compute_environment_name=name,
            type="MANAGED",
            state="ENABLED",
            compute_resources=batch.CfnComputeEnvironment.ComputeResourcesProperty(
                type=kind,
                maxv_cpus=self._config.batch_max_vcpus,
                subnets=self._subnets(),
                security_group_ids=self._security_groups(),
            ),
        )
        order = batch.CfnJobQueue.ComputeEnvironmentOrderProperty(compute_environment=environment.attr_compute_environment_arn, order=1)
        queue = batch.CfnJobQueue(self, f"{part}Queue", job_queue_name=name, priority=1, state="ENABLED", compute_environment_order=[order])
        return queue.attr_job_queue_arn

    def _definition(self, image: str, role: str, log: str) -> str:
        """Return the job definition of an image. It names no job role: what a job may read and write it is given as URLs."""
        options = {"awslogs-group": log, "awslogs-region": Aws.REGION, "awslogs-stream-prefix": self._config.prefix}
        needed = [
            batch.CfnJobDefinition.ResourceRequirementProperty(type=kind, value=value)
            for kind, value in (("VCPU", "1"), ("MEMORY", "2048"))
        ]
        container = batch.CfnJobDefinition.ContainerPropertiesProperty(
            image=image,
            command=["false"],
            execution_role_arn=role,
            resource_requirements=needed,
            network_configuration=batch.CfnJobDefinition.NetworkConfigurationProperty(assign_public_ip="DISABLED"),
            ephemeral_storage=batch.CfnJobDefinition.EphemeralStorageProperty(size_in_gib=_FARGATE_DISK_GIB),
            log_configuration=batch.CfnJobDefinition.LogConfigurationProperty(log_driver="awslogs", options=options),
        )
        definition = batch.CfnJobDefinition(
            self,
            f"Image{_short(image)}",
            job_definition_name=f"{self._config.prefix}-{_short(image)}",
            type="container",
            platform_capabilities=["FARGATE"],
            container_properties=container,
            retry_strategy=batch.CfnJobDefinition.RetryStrategyProperty(attempts=1),
        )
        return definition.ref

    def _application(self, image: str, security_groups: list[str]) -> str:
        vcpus = self._config.emr_max_vcpus
        application = emr.CfnApplication(
            self,
            f"Spark{_short(image)}",
            name=f"{self._config.prefix}-{_short(image)}",
            type="SPARK",
            release_label=self._config.emr_release,
            architecture="X86_64",
            image_configuration=emr.CfnApplication.ImageConfigurationInputProperty(image_uri=image),
            auto_start_configuration=emr.CfnApplication.AutoStartConfigurationProperty(enabled=True),
            auto_stop_configuration=emr.CfnApplication.AutoStopConfigurationProperty(enabled=True, idle_timeout_minutes=_IDLE_MINUTES),
            maximum_capacity=emr.CfnApplication.MaximumAllowedResourcesProperty(cpu=f"{vcpus} vCPU", memory=f"{vcpus * _GIB_PER_VCPU} GB"),
            network_configuration=emr.CfnApplication.NetworkConfigurationProperty(
                subnet_ids=self._subnets(), security_group_ids=security_groups
            ),
        )
        return application.attr_application_id

    def _subnets(self) -> list[str]:
        if self._config.job_subnets or not self._isolation:
            return list(self._config.job_subnets)
        return list(self._isolation.vpc.select_subnets(subnet_type=self._isolation.subnets.subnet_type).subnet_ids)

    def _security_groups(self) -> list[str]:
        if self._config.job_security_groups or not self._isolation:
            return list(self._config.job_security_groups)
        return [self._isolation.security_group.security_group_id]

    def _spark_security_groups(self) -> list[str]:
        """Return the groups of Spark's workers, which talk to each other and, beside that, to S3."""
        if self._config.job_security_groups or not self._isolation:
            return list(self._config.job_security_groups)
        description = "Workers of Spark jobs that run registered code"
        group = ec2.SecurityGroup(self, "SparkGroup", vpc=self._isolation.vpc, description=description, allow_all_outbound=False)
        for add in (group.add_ingress_rule, group.add_egress_rule):
            add(group, ec2.Port.all_tcp(), "Drivers and executors of one application")
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "HTTPS; the route table knows S3 alone")
        return [group.security_group_id]


def _short(image: str) -> str:
    return image.partition("@sha256:")[2][:_DIGEST_DIGITS]
