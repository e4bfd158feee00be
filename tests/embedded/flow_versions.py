"""Two versions of a small model, each the outcome of a story: everything that happened on the way is kept for the tests.

`crowded`: sent on by its token without a decision, then decided on by sixteen people at once.
`interrupted`: its execution dies in a stage, its first decision comes from the AWS console, and its second is cut off before the gate.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from attestry.domain.approvals import Verdict
from attestry.domain.principal import identify
from attestry.domain.version import Version
from attestry.local.settings import ACCOUNT
from attestry.ports import Update
from attestry.usecases.decide import decide_approval
from attestry.usecases.records import person_of, version_key
from attestry.usecases.sweep import GRACE
from tests.embedded.flows import APPROVERS, STRANGER, Answer, Registry, at_once, refusal, until

FUNCTIONS = (
    "authenticate",
    "build_environment",
    "bundle",
    "catalogue",
    "collect",
    "console_decision",
    "custody",
    "decide",
    "delegate",
    "deliver",
    "deploy",
    "describe",
    "evaluate",
    "gate",
    "inference",
    "mlflow",
    "operate",
    "people",
    "predict",
    "prepare_stage",
    "reconcile",
    "record_stage",
    "register",
    "registry",
    "root",
    "runs",
    "sandbox",
    "sequence",
    "sign_artifact",
    "sweep",
    "tell",
    "uploads",
    "webhooks",
    "witness",
)
PROFILES = ("admin", "dana", "erin", "frank", "frank-consumer", "grace")
LONG_LOAD = 12
"""Seconds that the slow model takes to load: more than a request waits for it."""

NO_LONGER_WAITING = ("TaskTimedOut", "TaskDoesNotExist", "InvalidToken")
LONG_AGO = GRACE + timedelta(minutes=1)


@dataclass(frozen=True)
class Crowded:
    """A version on which sixteen people decided at once.

    Attributes:
        model, number: the version, in place at the end.
        sent_by: what Step Functions said to the token when it was sent with the role of each function and profile.
        by_submitter: the answer to the submitter's own approval.
        by_stranger: the answer to the approval of a login that maps to no person.
        undecided: status of the execution whose token was sent by the gate's role without a decision.
        after_undecided: the version after that.
        decisions: the answers to sixteen approvals at once.
    """

    model: str
    number: int
    sent_by: Mapping[str, str]
    by_submitter: Answer
    by_stranger: Answer
    undecided: str
    after_undecided: Version
    decisions: list[Answer]


@dataclass(frozen=True)
class Interrupted:
    """A version that went on after two crashes.

    Attributes:
        model, number: the version, in place at the end; its model takes `LONG_LOAD` seconds to load.
        begun_by: what Step Functions said when `RegistryDecision` was started with the role of each function.
        in_console: executions of `RegistryDecision` by who started them.
        cut_off: the version after the decision whose function died before it called the gate.
        waiting: status of the pipeline's execution at that time.
        token: the token of that execution, used by now.
    """

    model: str
    number: int
    begun_by: Mapping[str, str]
    in_console: Mapping[str, Mapping[str, Any]]
    cut_off: Version
    waiting: str
    token: str


@pytest.fixture(scope="session")
def crowded(registry: Registry) -> Crowded:
    """See the module."""
    model, number = registry.made(registry.small_project())
    decision = f"/v1/models/{model}/versions/{number}/decision"
    approve = {"decision": "approve", "reason": "the gates hold"}
    token = registry.head(model, number).token
    senders = [*PROFILES, *(registry.as_function(f) for f in FUNCTIONS if f != "gate")]
    sent_by = {s: refusal(registry.aws("stepfunctions", s).send_task_success, taskToken=token, output="{}") for s in senders}
    by_submitter = registry.call("dana-approver", "POST", decision, approve)
    by_stranger = registry.call(STRANGER, "POST", decision, approve)
    registry.aws("stepfunctions", registry.as_function("gate")).send_task_success(taskToken=token, output="{}")
    undecided = ended(registry, model, number)
    after_undecided = registry.head(model, number)
    people = ("erin", *APPROVERS)
    decisions = at_once(len(people), lambda n: registry.call(people[n], "POST", decision, approve))
    registry.rest(model, number, through_approval=True)
    return Crowded(model, number, sent_by, by_submitter, by_stranger, undecided, after_undecided, decisions)


@pytest.fixture(scope="session")
def interrupted(registry: Registry, crowded: Crowded) -> Interrupted:
    """See the module."""

    def edit(manifest: dict[str, Any]) -> None:
        manifest["training"]["hyperparameters"] = {"threshold": 14.0, "seconds_to_load": LONG_LOAD}
        manifest["approval"] = {"people": {"roles": ["approver"], "count": 2}}
        manifest["gates"]["no_worse_than_deployed"] = [{"metric": "recall_score", "by_more_than": 0.3, "confidence": 0.9}]

    model, number = registry.submit(registry.small_project(edit=edit))
    until(lambda: registry.head(model, number).stage == "TRAINING", "training began")
    stop_and_forget(registry, model, number)
    registry.invoke("sweep", {})
    registry.rest(model, number)
    token = registry.head(model, number).token
    machine = registry.stack.outputs["DecisionArn"]
    functions = {f: registry.aws("stepfunctions", registry.as_function(f)) for f in FUNCTIONS}
    begun_by = {f: refusal(c.start_execution, stateMachineArn=machine, input="{}") for f, c in functions.items()}
    in_console = decide_in_console(registry, model, number)
    cut_off = decide_and_die(registry, model, number, APPROVERS[0])
    waiting = execution_status(registry, model, number)
    registry.invoke("sweep", {})
    registry.rest(model, number, through_approval=True)
    return Interrupted(model, number, begun_by, in_console, cut_off, waiting, token)


def decide_in_console(registry: Registry, model: str, number: int) -> dict[str, Mapping[str, Any]]:
    """Have three people start `RegistryDecision` at once: the submitter, somebody who calls himself erin, and erin."""
    starters = ("dana-approver", registry.assume(operators_role(registry), "erin"), "erin")
    body = {"model": model, "version": number, "decision": "approve", "reason": "the gates hold"}
    ended_executions = at_once(len(starters), lambda n: registry.decide_in_console(starters[n], body))
    return dict(zip(("submitter", "impostor", "erin"), ended_executions, strict=True))


def operators_role(registry: Registry) -> str:
    """A role of the account that may start `RegistryDecision`, is none of the registry's, and takes any session name."""
    iam, name = registry.aws("iam"), "operators"
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    start = {"Effect": "Allow", "Action": "states:StartExecution", "Resource": registry.stack.outputs["DecisionArn"]}
    refusal(iam.create_role, RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}))
    iam.put_role_policy(RoleName=name, PolicyName="start", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [start]}))
    return name


def decide_and_die(registry: Registry, model: str, number: int, login: str) -> Version:
    """Decide as the function does that answers the API, up to the call of the gate, some minutes ago."""
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-approver/{login}"
    by = identify(arn, f"AROAAPPROVER:{login}", account=ACCOUNT, prefix="attestry", method="AWS_IAM SigV4", address="127.0.0.1")
    before = datetime.now(UTC) - LONG_AGO
    attestor, by = registry.attestor("decide"), person_of(registry.meta, by)
    reason = "the gates hold"
    decide_approval(registry.meta, attestor, registry.store, model, number, Verdict.APPROVE, reason=reason, by=by, at=before)
    return registry.head(model, number)


def stop_and_forget(registry: Registry, model: str, number: int) -> None:
    """Have the pipeline's execution die, some minutes ago as far as the table knows."""
    registry.aws("stepfunctions").stop_execution(executionArn=execution_arn(registry, model, number))
    before = (datetime.now(UTC) - LONG_AGO).isoformat(timespec="microseconds").replace("+00:00", "Z")
    registry.meta.transact([Update(version_key(model, number), {"updated": before})])


def execution_arn(registry: Registry, model: str, number: int) -> str:
    """The ARN of the execution of a version's latest attempt."""
    version = registry.head(model, number)
    machine = registry.stack.outputs["PipelineArn"].replace(":stateMachine:", ":execution:")
    return f"{machine}:{model}-{number}-{version.attempt}-{version.candidate[:12]}"


def execution_status(registry: Registry, model: str, number: int) -> str:
    """The status of the execution of a version's latest attempt."""
    described = registry.aws("stepfunctions").describe_execution(executionArn=execution_arn(registry, model, number))
    return str(described["status"])


def ended(registry: Registry, model: str, number: int) -> str:
    """The status that the execution of a version's latest attempt ends in."""
    arn = execution_arn(registry, model, number)
    states = registry.aws("stepfunctions")
    return str(until(lambda: (s := states.describe_execution(executionArn=arn)["status"]) != "RUNNING" and s, "the execution ended"))


@contextmanager
def no_pipeline(registry: Registry, model: str) -> Iterator[None]:
    """Stop every execution of a model as soon as it runs; in the end the registry records that they failed, so that nothing goes on."""
    states, machine = registry.aws("stepfunctions"), registry.stack.outputs["PipelineArn"]
    over = threading.Event()

    def stop() -> None:
        while not over.wait(0.05):
            running = states.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"]
            for arn in (e["executionArn"] for e in running if e["name"].startswith(model)):
                states.stop_execution(executionArn=arn)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        yield
    finally:
        numbers = [v["number"] for v in registry.client("grace").versions(model)]
        for number in numbers:
            ended(registry, model, number)
        over.set()
        thread.join()
    for number in numbers:
        version = {"model": model, "version": number, "attempt": 1, "stage": "PROCESSING"}
        error = {"Error": "Stopped", "Cause": "stopped by the test"}
        registry.invoke("record_stage", {**version, "entered": "", "run": None, "evaluation": None, "error": error})
