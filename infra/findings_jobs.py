"""What cdk-nag finds besides `infra/findings.py` where stages may run elsewhere than on Lambda, for the models of the tests."""

from __future__ import annotations

from infra.nag import Acknowledgement

_JOBS = ("Executors/Job-diabetes-progression", "Executors/Job-tumour-diagnosis")
_PIPELINE = ("Pipeline/PipelineRole",)
_EXECUTION = ("Executors/BatchExecution",)
_HERE = "<AWS::Region>:<AWS::AccountId>"

ACKNOWLEDGED_JOBS = (
    Acknowledgement(
        ("IAMNoInlinePolicy",),
        (*_JOBS, *_EXECUTION),
        "The policy fits this role alone; inline it goes with its role, and cannot be attached to another.",
    ),
    *(
        Acknowledgement(
            ("IAM5",),
            _JOBS,
            "Executions, stages and attempts of the model are not known before; only what is laid out for its jobs, or what they leave.",
            f"Resource::<StoresScratch*.Arn>/jobs/*/[*]/{folder}/[*]",
        )
        for folder in ("in", "out", "checkpoints")
    ),
    Acknowledgement(
        ("IAM5",),
        (*_JOBS, *_EXECUTION),
        "ecr:GetAuthorizationToken has no resource type; the images that it helps to pull are named.",
        "Resource::[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _JOBS,
        "SageMaker names the streams of a job after it; only those of jobs of this deployment.",
        f"Resource::arn:<AWS::Partition>:logs:{_HERE}:log-group:/aws/sagemaker/*Jobs:log-stream:attestry-[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _EXECUTION,
        "The streams of the deployment's own log group; ECS names them.",
        f"Resource::arn:<AWS::Partition>:logs:{_HERE}:log-group:/aws/vendedlogs/attestry/batch:log-stream:[*]",
    ),
    *(
        Acknowledgement(
            ("IAM5",),
            _PIPELINE,
            "A job's name derives from its model, version and stage, which are made after the deployment; only jobs of this deployment.",
            f"Resource::arn:<AWS::Partition>:sagemaker:{_HERE}:{job}/attestry-[*]",
        )
        for job in ("processing-job", "training-job", "transform-job")
    ),
    Acknowledgement(
        ("IAM5",),
        _PIPELINE,
        "Batch makes up the ID of a job, which has no name of ours in its ARN; jobs are started in the queues named.",
        f"Resource::arn:<AWS::Partition>:batch:{_HERE}:job/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _PIPELINE,
        "EMR Serverless makes up the ID of a run; only runs of the deployment's own applications.",
        f"Resource::arn:<AWS::Partition>:emr-serverless:{_HERE}:/applications/*/jobruns/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _PIPELINE,
        "One role for each model, all made by this stack under this name; passed to SageMaker and EMR Serverless only.",
        "Resource::arn:<AWS::Partition>:iam::<AWS::AccountId>:role/attestry-job-[*]",
    ),
)
