"""What each function may do, in force: every act is tried with the credentials of every function's own role.

An act is written so that it changes nothing where it is allowed: a condition that cannot hold, a checksum that is wrong, a token that is
none, an invocation that is a dry run.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from attestry.local.settings import ACCOUNT
from tests.embedded.flow_versions import FUNCTIONS
from tests.embedded.flows import Registry, refusal

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

Act = Callable[[Registry, str], str]
"""Does something with a profile, and returns the error's code."""

DENIED = ("AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException")
WRONG_SHA256 = base64.b64encode(bytes(32)).decode()


def read_row(partition: str) -> Act:
    def act(registry: Registry, profile: str) -> str:
        key = {"pk": {"S": partition}, "sk": {"S": "HEAD"}}
        return refusal(registry.aws("dynamodb", profile).get_item, TableName=registry.stack.outputs["MetaTable"], Key=key)

    return act


def write_row(partition: str) -> Act:
    def act(registry: Registry, profile: str) -> str:
        item = {"pk": {"S": partition}, "sk": {"S": "NONE"}}
        put = registry.aws("dynamodb", profile).put_item
        return refusal(put, TableName=registry.stack.outputs["MetaTable"], Item=item, ConditionExpression="attribute_exists(pk)")

    return act


def delete_row(partition: str) -> Act:
    def act(registry: Registry, profile: str) -> str:
        key = {"pk": {"S": partition}, "sk": {"S": "NONE"}}
        delete = registry.aws("dynamodb", profile).delete_item
        return refusal(delete, TableName=registry.stack.outputs["MetaTable"], Key=key, ConditionExpression="attribute_exists(pk)")

    return act


def read_object(key: str, bucket: str = "StoreBucket") -> Act:
    return lambda registry, profile: refusal(registry.aws("s3", profile).get_object, Bucket=registry.stack.outputs[bucket], Key=key)


def write_object(key: str, bucket: str = "StoreBucket") -> Act:
    def act(registry: Registry, profile: str) -> str:
        put = registry.aws("s3", profile).put_object
        target = {"Bucket": registry.stack.outputs[bucket], "Key": key}
        return refusal(put, **target, Body=b"x", IfNoneMatch="*", ChecksumSHA256=WRONG_SHA256)

    return act


def overwrite_frozen(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("s3", profile).put_object, Bucket=registry.bucket, Key="models/probe/frozen/x", Body=b"y")


def delete_frozen(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("s3", profile).delete_object, Bucket=registry.bucket, Key="models/probe/frozen/x")


def invoke(function: str) -> Act:
    return lambda registry, profile: refusal(
        registry.aws("lambda", profile).invoke, FunctionName=f"attestry-{function}", InvocationType="DryRun"
    )


def start(machine: str) -> Act:
    return lambda registry, profile: refusal(
        registry.aws("stepfunctions", profile).start_execution,
        stateMachineArn=registry.stack.outputs[machine],
        name="no such name!",
        input="{}",
    )


def send_token(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("stepfunctions", profile).send_task_success, taskToken="none", output="{}")


def sign(registry: Registry, profile: str) -> str:
    how = {"MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"}
    return refusal(registry.aws("kms", profile).sign, KeyId=delegator(registry), Message=b"x" * 32, **how)


def read_public_key(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("kms", profile).get_public_key, KeyId=delegator(registry))


def look_up_events(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("cloudtrail", profile).lookup_events, MaxResults=1)


def assume_approver(registry: Registry, profile: str) -> str:
    arn = f"arn:aws:iam::{ACCOUNT}:role/attestry-approver"
    return refusal(registry.aws("sts", profile).assume_role, RoleArn=arn, RoleSessionName="erin")


def call_api(registry: Registry, profile: str) -> str:
    return "AccessDenied" if registry.call(profile, "GET", "/v1/me").status == 403 else ""


def read_parameter(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("ssm", profile).get_parameter, Name="/attestry/api-url")


def delegator(registry: Registry) -> str:
    """The ARN of the delegator's key, as functions are told it."""
    configuration = registry.aws("lambda").get_function_configuration(FunctionName="attestry-delegate")
    return str(configuration["Environment"]["Variables"]["ATTESTRY_DELEGATOR_KEY"])


NOBODY: tuple[str, ...] = ()
VERSION_WRITERS = ("console_decision", "decide", "deploy", "gate", "operate", "prepare_stage", "record_stage", "register", "sweep")
MAY: dict[str, tuple[Act, tuple[str, ...]]] = {
    "read a version": (
        read_row("VERSION#probe#0"),
        (*VERSION_WRITERS, "delegate", "predict", "registry"),
    ),
    "read a model": (read_row("MODEL#probe"), ("delegate", "deploy", "operate", "predict", "record_stage", "register", "registry")),
    "read a candidate": (read_row("CANDIDATE#probe"), ("prepare_stage", "record_stage", "register", "registry")),
    "read a login": (
        read_row("LOGIN#probe"),
        ("console_decision", "decide", "operate", "people", "register", "registry", "uploads"),
    ),
    "read a person": (read_row("PERSON#probe"), ("people", "registry")),
    "read who uploads": (read_row("UPLOAD#probe"), ("register", "uploads")),
    "read a receipt": (read_row("KEY#probe"), ("collect", "delegate", "predict", "registry")),
    "read the open keys": (read_row("KEYS"), ("collect",)),
    "read who started a decision": (read_row("CALLER#probe"), ("console_decision",)),
    "read the outbox": (read_row("OUTBOX"), NOBODY),
    "write a version": (write_row("VERSION#probe#0"), VERSION_WRITERS),
    "write a model or its pointer": (write_row("MODEL#probe"), ("deploy", "operate", "register")),
    "write a candidate": (write_row("CANDIDATE#probe"), ("register",)),
    "write a login": (write_row("LOGIN#probe"), ("people",)),
    "write a person": (write_row("PERSON#probe"), ("people",)),
    "write who uploads": (write_row("UPLOAD#probe"), ("uploads",)),
    "write a receipt": (write_row("KEY#probe"), ("collect", "delegate", "predict")),
    "write the open keys": (write_row("KEYS"), ("collect", "delegate")),
    "write who started a decision": (write_row("CALLER#probe"), ("console_decision",)),
    "write an event": (write_row("OUTBOX"), (*VERSION_WRITERS, "collect", "delegate", "people")),
    "delete a version": (delete_row("VERSION#probe#0"), NOBODY),
    "delete an event": (delete_row("OUTBOX"), NOBODY),
    "delete an open key": (delete_row("KEYS"), ("collect",)),
    "read an upload": (read_object("candidates/probe/x"), ("prepare_stage", "register")),
    "read a data set": (read_object("datasets/probe/x"), ("prepare_stage", "registry")),
    "read an environment": (
        read_object("environments/probe/x"),
        ("build_environment", "deploy", "evaluate", "predict", "prepare_stage", "record_stage", "registry"),
    ),
    "read a registered source": (read_object("registered/probe/x"), ("prepare_stage", "record_stage", "register", "registry")),
    "read a frozen file": (
        read_object("models/probe/1/frozen/x"),
        ("deploy", "predict", "prepare_stage", "record_stage", "registry"),
    ),
    "read the hold-out's labels": (
        read_object("models/probe/1/stages/PROCESSING/1/data/holdout-labels/x"),
        ("evaluate", "record_stage", "registry"),
    ),
    "read a captured payload": (read_object("models/probe/1/predictions/x.jsonl"), ("collect", "record_stage", "registry")),
    "read a job": (read_object("jobs/probe/TRAINING/1/job.json", "ScratchBucket"), ("evaluate", "prepare_stage", "record_stage")),
    "write an upload": (write_object("candidates/probe/y"), ("uploads",)),
    "write an outcome beside a manifest": (write_object("candidates/probe/manifest.json.status.json"), ("register", "uploads")),
    "write a data set": (write_object("datasets/probe/y"), ("prepare_stage",)),
    "write an environment": (write_object("environments/probe/y"), ("build_environment", "prepare_stage")),
    "write a registered source": (write_object("registered/probe/y"), ("register",)),
    "write a frozen file": (write_object("models/probe/1/frozen/y"), ("record_stage",)),
    "write a captured payload": (write_object("models/probe/1/predictions/y.jsonl"), ("collect", "record_stage")),
    "write a job": (write_object("jobs/probe/TRAINING/1/job.json", "ScratchBucket"), ("prepare_stage",)),
    "write what was evaluated": (
        write_object("jobs/probe/TRAINING/1/evaluated/y", "ScratchBucket"),
        ("evaluate", "prepare_stage"),
    ),
    "overwrite a frozen file": (overwrite_frozen, NOBODY),
    "delete a frozen file": (delete_frozen, NOBODY),
    "invoke the gate": (invoke("gate"), ("console_decision", "decide", "operate", "sweep")),
    "invoke deploy": (invoke("deploy"), ("operate",)),
    "invoke inference": (invoke("inference"), ("deploy", "predict")),
    "invoke delegate": (invoke("delegate"), ("predict",)),
    "invoke decide": (invoke("decide"), NOBODY),
    "invoke the sandbox": (invoke("sandbox"), NOBODY),
    "start the pipeline": (start("PipelineArn"), ("gate", "operate", "register", "sweep")),
    "start a decision": (start("DecisionArn"), NOBODY),
    "send a task token": (send_token, ("gate",)),
    "sign a delegation": (sign, ("delegate",)),
    "read the delegator's public key": (read_public_key, ("delegate", "registry")),
    "look into CloudTrail": (look_up_events, ("console_decision",)),
    "assume the approver's role": (assume_approver, NOBODY),
    "call the API": (call_api, NOBODY),
    "read a parameter": (read_parameter, NOBODY),
}
"""What is tried, how, and which functions may do it."""

UNTRUSTED = ("inference", "sandbox")


@pytest.fixture(scope="session")
def answers(registry: Registry) -> Mapping[tuple[str, str], str]:
    """Act and function to the code that came back."""
    store, scratch = registry.bucket, registry.stack.outputs["ScratchBucket"]
    for key in ("candidates/probe/x", "datasets/probe/x", "environments/probe/x", "registered/probe/x", "models/probe/frozen/x"):
        registry.aws("s3").put_object(Bucket=store, Key=key, Body=b"x")
    for key in ("frozen/x", "stages/PROCESSING/1/data/holdout-labels/x", "predictions/x.jsonl"):
        registry.aws("s3").put_object(Bucket=store, Key=f"models/probe/1/{key}", Body=b"x")
    registry.aws("s3").put_object(Bucket=scratch, Key="jobs/probe/TRAINING/1/job.json", Body=b"x")
    profiles = {function: registry.as_function(function) for function in FUNCTIONS}

    def of(function: str) -> dict[tuple[str, str], str]:
        return {(name, function): act(registry, profiles[function]) for name, (act, _) in MAY.items()}

    with ThreadPoolExecutor(4) as pool:
        return {key: code for found in pool.map(of, FUNCTIONS) for key, code in found.items()}


@pytest.mark.parametrize("act", MAY)
def test_an_act_is_allowed_to_exactly_the_functions_that_need_it(answers: Mapping[tuple[str, str], str], act: str) -> None:
    allowed = {function for function in FUNCTIONS if answers[act, function] not in DENIED}
    assert allowed == set(MAY[act][1])


@pytest.mark.parametrize("function", UNTRUSTED)
def test_a_function_that_runs_registered_code_may_do_nothing(answers: Mapping[tuple[str, str], str], function: str) -> None:
    assert [act for act in MAY if answers[act, function] not in DENIED] == []


@pytest.mark.parametrize(
    ("function", "acts"),
    [
        ("build_environment", ["read a version", "write a frozen file", "read a data set"]),
        ("collect", ["write a version", "read a frozen file", "sign a delegation"]),
        ("console_decision", ["write a model or its pointer", "send a task token", "start the pipeline"]),
        ("decide", ["write a model or its pointer", "send a task token", "write a login"]),
        ("delegate", ["write a version", "write a model or its pointer", "read an environment"]),
        ("deploy", ["write a frozen file", "sign a delegation", "write a receipt"]),
        ("evaluate", ["read a version", "write a version", "write a frozen file"]),
        ("gate", ["write a model or its pointer", "read a frozen file", "invoke deploy"]),
        ("inference", ["read an environment", "read a frozen file", "write a receipt"]),
        ("operate", ["send a task token", "write a frozen file", "invoke inference"]),
        ("people", ["write a version", "read a version", "write a model or its pointer"]),
        ("predict", ["write a version", "sign a delegation", "write a frozen file"]),
        ("prepare_stage", ["read the hold-out's labels", "write a frozen file", "write a model or its pointer"]),
        ("record_stage", ["send a task token", "write a model or its pointer", "read a login"]),
        ("register", ["send a task token", "write a login", "write a frozen file"]),
        ("registry", ["write a version", "write a receipt", "write a frozen file", "sign a delegation"]),
        ("sandbox", ["read a data set", "read the hold-out's labels", "write a job"]),
        ("sweep", ["send a task token", "write a model or its pointer", "read a frozen file"]),
        ("uploads", ["write a version", "read an upload", "write a candidate"]),
    ],
)
def test_a_function_is_denied_what_would_break_the_separation(
    answers: Mapping[tuple[str, str], str], function: str, acts: list[str]
) -> None:
    assert [act for act in acts if answers[act, function] not in DENIED] == []


def test_every_function_of_the_stack_is_tried(registry: Registry) -> None:
    pages = registry.aws("lambda").get_paginator("list_functions").paginate()
    names = {f["FunctionName"] for page in pages for f in page["Functions"]}
    assert {name for name in names if name.startswith("attestry-")} == {f"attestry-{f.replace('_', '-')}" for f in FUNCTIONS}
