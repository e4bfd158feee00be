"""Attacks by registered code: it looks for what it was not given, and says of itself what is not so."""

from __future__ import annotations

import json

import pytest

from attestry.sandbox import confine
from tests.attacks.conftest import Tell
from tests.attacks.scene import Scene
from tests.embedded.flows import refusal

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

needs_landlock = pytest.mark.skipif(not confine.landlock_version(), reason="this kernel cannot keep a script from files and connections")
DENIED = ("AccessDenied", "AccessDeniedException")


def log_of(scene: Scene) -> str:
    """What the liar's training script found."""
    return str(scene.registry.client("dana").log(*scene.liar, "TRAINING")["text"])


def test_metrics_that_a_script_did_not_earn_pass_no_gate(scene: Scene, tell: Tell) -> None:
    shown = scene.registry.client("grace").version(*scene.liar)
    assert '"recall_score": 1.0' in log_of(scene)
    assert (shown["stage"], shown["status"], shown["standing"]) == ("VALIDATION", "REJECTED", "REJECTED")
    assert shown["metrics"]["recall_score"] == "0.0"
    assert [g["passed"] for g in shown["gates"] if g["name"] == "recall_score"] == [False]
    tell("metrics are computed by the registry on held-out labels: REJECTED with recall 0.0")


def test_a_rejected_version_is_brought_back_by_nobody(scene: Scene, tell: Tell) -> None:
    model, number = scene.liar
    path = f"/v1/models/{model}/versions/{number}"
    answers = [
        scene.registry.call("erin", "POST", f"{path}/decision", {"decision": "approve", "reason": "it says 1.0"}),
        scene.registry.call("frank", "POST", f"{path}/deployment", {"reason": "anyway"}),
        scene.registry.call("dana", "POST", f"{path}/retry", {"reason": "again"}),
    ]
    assert [(a.status, a.code) for a in answers] == [(409, "conflict")] * 3
    tell("API refuses decision, deployment and retry: 409 `conflict`")


@needs_landlock
@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("credentials", "AWS credentials on the machine"),
        ("keys", "the registry's keys on the machine"),
        ("other versions", "the files of other versions"),
        ("the worker", "the memory of the process that started it"),
        ("AWS", "an AWS endpoint"),
        ("the internet", "the internet"),
    ],
)
def test_sandboxed_code_does_not_reach(scene: Scene, tell: Tell, what: str, told: str) -> None:
    (line,) = [line for line in log_of(scene).splitlines() if line.startswith((f"FOUND {what} ", f"REFUSED {what} "))]
    assert line.startswith("REFUSED"), line
    tell(f"{told}: refused ({line.rsplit(maxsplit=1)[-1]})")


def test_sandboxed_code_is_given_no_credentials_and_no_client(scene: Scene, tell: Tell) -> None:
    log = log_of(scene)
    (line,) = [line for line in log.splitlines() if line.startswith("VARIABLES")]
    names = json.loads(line.removeprefix("VARIABLES ").replace("'", '"'))
    assert [n for n in names if n.startswith(("AWS", "ATTESTRY", "LAMBDA"))] == []
    assert "REFUSED boto3" in log
    tell("its environment is made anew: no variable of AWS, Lambda or the registry, no client of AWS")


@pytest.mark.parametrize("function", ["sandbox", "inference"])
def test_who_breaks_out_of_the_sandbox_holds_a_role_without_rights(scene: Scene, tell: Tell, function: str) -> None:
    """The credentials of the function's own role, as if the code had got them."""
    registry, file = scene.registry, scene.file(scene.second)
    profile = registry.as_function(function)
    table, kms = registry.stack.outputs["MetaTable"], registry.aws("kms", profile)
    digest = {"MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"}
    refused = {
        "read another version's file": refusal(registry.aws("s3", profile).get_object, Bucket=registry.bucket, Key=file.key),
        "list the store": refusal(registry.aws("s3", profile).list_objects_v2, Bucket=registry.bucket),
        "read the table": refusal(registry.aws("dynamodb", profile).scan, TableName=table),
        "sign a delegation": refusal(kms.sign, KeyId="alias/attestry-delegator", Message=b"x" * 32, **digest),
        "have one issued": refusal(registry.aws("lambda", profile).invoke, FunctionName="attestry-delegate", Payload=b"{}"),
        "send a token": refusal(registry.aws("stepfunctions", profile).send_task_success, taskToken="x", output="{}"),
        "become an approver": refusal(
            registry.aws("sts", profile).assume_role, RoleArn="arn:aws:iam::000000000000:role/attestry-approver", RoleSessionName="erin"
        ),
    }
    assert [what for what, code in refused.items() if code not in DENIED] == [], refused
    tell(f"IAM denies all of {len(refused)} acts")
