"""What the pipeline's role and the jobs' roles may do: statements per executor, and none for one that is not enabled.

The pipeline's role starts, watches and stops jobs whose names begin with the deployment's prefix, and passes them the jobs' own roles and
no other. How `.sync` watches a job is Step Functions' own: by a managed rule of EventBridge under a fixed name, and by describing the job
(Step Functions Developer Guide, "How Step Functions generates IAM policies for integrated services").

A job's role is one model's. It reads what the registry laid out for the model's jobs (`in/`) and writes beside it (`out/`), in scratch. It
reaches neither what its jobs left, the hold-out with its labels among that, nor what the registry computed of it. Jobs of Batch have no
role: they hold URLs of their own files.
"""

from __future__ import annotations

from aws_cdk import Aws
from aws_cdk import aws_iam as iam

from infra.config import Config
from infra.grants import Statements
from infra.job_states import SERVICES
from infra.names import Names

_SAGEMAKER_JOBS = {"TrainingJob": "training-job", "ProcessingJob": "processing-job", "TransformJob": "transform-job"}
_SAGEMAKER_LOGS = ("ProcessingJobs", "TrainingJobs", "TransformJobs")
_PRINCIPALS = {"sagemaker": "sagemaker.amazonaws.com", "emr-serverless": "emr-serverless.amazonaws.com"}
SAGEMAKER_NETWORK = (
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
)


def executors_elsewhere(config: Config) -> tuple[str, ...]:
    """Return the enabled executors besides Lambda."""
    known = dict.fromkeys(service.executor for service in SERVICES.values())
    return tuple(executor for executor in known if executor in config.executors)


def trusted_services(config: Config) -> list[str]:
    """Return the services that may use a job's role."""
    return [principal for executor, principal in _PRINCIPALS.items() if executor in config.executors]


def run_jobs(config: Config, names: Names, *, queues: list[str], definitions: list[str], applications: list[str]) -> Statements:
    """Return what the pipeline's role needs to run jobs.

    Args:
        config: settings.
        names: the deployment's names.
        queues: ARNs of Batch job queues.
        definitions: ARNs of Batch job definitions, with their revisions.
        applications: ARNs of EMR Serverless applications.
    """
    enabled = executors_elsewhere(config)
    statements: Statements = []
    if "sagemaker" in enabled:
        statements += _run_sagemaker(names)
    if "batch" in enabled:
        statements += _run_batch([*queues, *definitions])
    if "emr-serverless" in enabled:
        statements += _run_emr_serverless(applications)
    if services := trusted_services(config):
        condition = {"StringEquals": {"iam:PassedToService": services}}
        roles = [names.job_role_arn(f"{names.job_role_prefix}*")]
        statements.append(iam.PolicyStatement(actions=["iam:PassRole"], resources=roles, conditions=condition))
    return statements


def job_statements(config: Config, model: str, *, scratch: str, key: str, subnets: bool) -> Statements:
    """Return what a model's jobs may do.

    Args:
        config: settings.
        model: the model.
        scratch: ARN of the scratch bucket.
        key: ARN of the key of the scratch bucket.
        subnets: whether SageMaker runs jobs in subnets of the account.
    """
    enabled, folder = executors_elsewhere(config), f"jobs/{model}"
    listing = {"StringLike": {"s3:prefix": [f"{folder}/*"]}}
    through_s3 = {"StringEquals": {"kms:ViaService": f"s3.{Aws.REGION}.{Aws.URL_SUFFIX}"}}
    outputs, checkpoints = f"{scratch}/{folder}/*/out/*", f"{scratch}/{folder}/*/checkpoints/*"
    # Spark commits what it wrote by reading, copying and deleting it; each run is narrowed to its own folder by a session policy.
    read, write = [f"{scratch}/{folder}/*/in/*"], [outputs]
    statements = [
        iam.PolicyStatement(actions=["s3:ListBucket"], resources=[scratch], conditions=listing),
        iam.PolicyStatement(actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[key], conditions=through_s3),
    ]
    if "emr-serverless" in enabled:
        read.append(outputs)
        statements.append(iam.PolicyStatement(actions=["s3:DeleteObject"], resources=[outputs]))
    if "sagemaker" in enabled:
        read.append(checkpoints)
        write.append(checkpoints)
        statements += [*_log_to_sagemaker(config), *use_volumes(config.job_volume_key), *pull_images(config)]
        statements += [iam.PolicyStatement(actions=list(SAGEMAKER_NETWORK), resources=["*"])] if subnets else []
    return [
        iam.PolicyStatement(actions=["s3:GetObject"], resources=read),
        iam.PolicyStatement(actions=["s3:PutObject", "s3:AbortMultipartUpload"], resources=write),
        *statements,
    ]


def pull_images(config: Config) -> Statements:
    """Return what it takes to pull images of the configured repositories."""
    if not config.job_repositories:
        return []
    pull = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    return [
        iam.PolicyStatement(actions=["ecr:GetAuthorizationToken"], resources=["*"]),
        iam.PolicyStatement(actions=pull, resources=list(config.job_repositories)),
    ]


def arn(service: str, resource: str) -> str:
    """Return the ARN of a resource of this account and region."""
    return f"arn:{Aws.PARTITION}:{service}:{Aws.REGION}:{Aws.ACCOUNT_ID}:{resource}"


def _run_sagemaker(names: Names) -> Statements:
    statements = []
    for job, resource in _SAGEMAKER_JOBS.items():
        actions = [f"sagemaker:{verb}{job}" for verb in ("Create", "Describe", "Stop")]
        jobs = [arn("sagemaker", f"{resource}/{names.jobs}")]
        statements.append(iam.PolicyStatement(actions=[*actions, "sagemaker:AddTags", "sagemaker:ListTags"], resources=jobs))
        statements.append(_watch(f"SageMaker{job}sRule"))
    return statements


def _run_batch(queues_and_definitions: list[str]) -> Statements:
    return [
        iam.PolicyStatement(actions=["batch:SubmitJob", "batch:TagResource"], resources=queues_and_definitions),
        # A job has an ID that Batch makes up, so its ARN is not known before.
        iam.PolicyStatement(actions=["batch:TagResource", "batch:TerminateJob"], resources=[arn("batch", "job/*")]),
        iam.PolicyStatement(actions=["batch:DescribeJobs"], resources=["*"]),
        _watch("BatchJobsRule"),
    ]


def _run_emr_serverless(applications: list[str]) -> Statements:
    runs = [f"{application}/jobruns/*" for application in applications]
    return [
        iam.PolicyStatement(actions=["emr-serverless:StartJobRun", "emr-serverless:TagResource"], resources=applications),
        iam.PolicyStatement(
            actions=["emr-serverless:CancelJobRun", "emr-serverless:GetJobRun", "emr-serverless:TagResource"], resources=runs
        ),
        _watch("EMRServerlessJobRule"),
    ]


def _watch(rule: str) -> iam.PolicyStatement:
    actions = ["events:DescribeRule", "events:PutRule", "events:PutTargets"]
    return iam.PolicyStatement(actions=actions, resources=[arn("events", f"rule/StepFunctionsGetEventsFor{rule}")])


def _log_to_sagemaker(config: Config) -> Statements:
    groups = [arn("logs", f"log-group:/aws/sagemaker/{group}") for group in _SAGEMAKER_LOGS]
    streams = [f"{group}:log-stream:{config.prefix}-*" for group in groups]
    return [
        iam.PolicyStatement(actions=["logs:CreateLogGroup"], resources=groups),
        iam.PolicyStatement(actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=streams),
    ]


def use_volumes(key: str) -> Statements:
    """Let SageMaker attach encrypted volumes: it does so by a grant, which services of AWS alone can use."""
    if not key:
        return []
    return [
        iam.PolicyStatement(actions=["kms:CreateGrant"], resources=[key], conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}}),
        iam.PolicyStatement(actions=["kms:DescribeKey"], resources=[key]),
    ]
