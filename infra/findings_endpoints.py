"""What cdk-nag finds besides `infra/findings.py` where SageMaker may serve versions, for the model of the tests."""

from __future__ import annotations

from infra.nag import Acknowledgement

_SERVE = ("Endpoints/Serve-tumour-diagnosis",)
_DEPLOY, _PREDICT = ("Functions/DeployRole",), ("Functions/PredictRole",)
_HERE = "<AWS::Region>:<AWS::AccountId>"

ACKNOWLEDGED_ENDPOINTS = (
    Acknowledgement(
        ("IAMNoInlinePolicy",),
        _SERVE,
        "The policy fits this role alone; inline it goes with its role, and cannot be attached to another.",
    ),
    Acknowledgement(
        ("IAM5",),
        _SERVE,
        "Versions are made after the deployment; only what was frozen of this model's.",
        "Resource::<StoresStore*.Arn>/models/*/[*]/frozen/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _SERVE,
        "SageMaker names what its data capture writes; only below the model's own prefix of the scratch bucket.",
        "Resource::<StoresScratch*.Arn>/captured/*/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _SERVE,
        "SageMaker names log groups after endpoints, which are made after the deployment; only those of this deployment.",
        f"Resource::arn:<AWS::Partition>:logs:{_HERE}:log-group:/aws/sagemaker/Endpoints/attestry-[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _SERVE,
        "ecr:GetAuthorizationToken has no resource type; the images that it helps to pull are named.",
        "Resource::[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _DEPLOY,
        "Candidates are made after the deployment; their manifests are read, whose digests the versions name.",
        "Resource::<StoresStore*.Arn>/registered/[*]",
    ),
    Acknowledgement(
        ("IAM5",),
        _DEPLOY,
        "One role for each model, all made by this stack under this name; passed to SageMaker only.",
        "Resource::arn:<AWS::Partition>:iam::<AWS::AccountId>:role/attestry-serve-[*]",
    ),
    *(
        Acknowledgement(
            ("IAM5",),
            _DEPLOY,
            "An endpoint's name derives from model and environment, which are named after the deployment; only this deployment's.",
            f"Resource::arn:<AWS::Partition>:sagemaker:{_HERE}:{kind}/attestry-[*]",
        )
        for kind in ("endpoint", "endpoint-config", "model")
    ),
    Acknowledgement(
        ("IAM5",),
        _PREDICT,
        "An endpoint's name derives from model and environment, which are named after the deployment; only this deployment's.",
        f"Resource::arn:<AWS::Partition>:sagemaker:{_HERE}:endpoint/attestry-[*]",
    ),
)
