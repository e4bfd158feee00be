"""The state machines in Amazon States Language (JSONata), built in Python so that the three script stages are written once.

States are named after the stages, so that the picture in the AWS console is the pipeline. The input names a version and carries no
payload; what functions answer are keys, digests and outcomes. Every task that is a function of ours is tried again, because those are
idempotent; a script is not, save where it never started. Whatever fails ends in `Record failure`, which names the stage.
"""

from __future__ import annotations

from typing import Any

from infra.job_states import EXECUTION_SECONDS, SCRIPT_STAGES, Jobs, job_choices, job_completed, job_states, not_enabled

State = dict[str, Any]
States = dict[str, State]

EVALUATED = ("PROCESSING", "VALIDATION")
"""Stages whose outputs a function of ours reads and measures."""

REUSABLE = ("PROCESSING", "TRAINING")
"""Stages that a refreshed version may take from an earlier one."""

OPERATING = ("hold", "release", "redo", "deploy", "rollback", "kill", "retire")
"""Acts of `RegistryDecision` that are no decision on an approval."""

INVOKE = "arn:aws:states:::lambda:invoke"
"""The commercial partition by name: Lambda's tenant isolation, which inference needs, exists in no other."""

_LAMBDA_FAULTS = ["Lambda.ServiceException", "Lambda.AWSLambdaException", "Lambda.SdkClientException", "Lambda.TooManyRequestsException"]
_SECONDS_OF_FUNCTION = 930
"""A little above a function's own limit of 900 s, so that its answer is the one that counts."""

STAGES_SECONDS = 86_400
"""What all states but APPROVAL and jobs may take together, each at its limit and each tried as often as it is; a test adds it up."""

ENDPOINT_SECONDS = 4 * 3600
"""How long SageMaker may take to bring an endpoint up: an hour to read the files, one to load them, the rest for machines."""

_ENDPOINT_PAUSE_SECONDS = 30

_OTHER_ENDS = {"$outcome.outcome = 'REJECTED'": "Rejected", "$outcome.outcome = 'HELD'": "Held"}

SUBSTITUTIONS = {
    "build_environment": "BuildEnvironment",
    "console_decision": "ConsoleDecision",
    "deploy": "Deploy",
    "evaluate": "Evaluate",
    "gate": "Gate",
    "operate": "Operate",
    "prepare_stage": "PrepareStage",
    "record_stage": "RecordStage",
    "sandbox": "Sandbox",
}
"""Function name to the name of its ARN in the definition."""


def execution_seconds(approval_seconds: int, jobs: Jobs) -> int:
    """Return how long an execution may take that keeps to all limits of its states.

    Args:
        approval_seconds: how long a version waits for its decision.
        jobs: limits of the stages that run elsewhere than on Lambda.
    """
    endpoints = ENDPOINT_SECONDS if jobs.endpoints else 0
    return approval_seconds + STAGES_SECONDS + len(SCRIPT_STAGES) * jobs.stage_seconds + endpoints


def pipeline_definition(*, approval_seconds: int, jobs: Jobs | None = None) -> State:
    """Return the definition of the state machine that makes a version.

    Args:
        approval_seconds: how long a version waits for its decision.
        jobs: the executors besides Lambda; default none.

    Raises:
        ValueError: the limits together are longer than an execution lives.
    """
    jobs = jobs or Jobs()
    seconds = execution_seconds(approval_seconds, jobs)
    if seconds > EXECUTION_SECONDS:
        raise ValueError(f"the limits of the pipeline come to {seconds} s, and an execution lives {EXECUTION_SECONDS} s")
    states: States = {"Read input": _read_input(), "Plan": _plan(), "Prepare environment": _prepare_environments()}
    for stage, following in zip(SCRIPT_STAGES, (*SCRIPT_STAGES[1:], None), strict=True):
        states |= _script_stage(stage, jobs, then=f"Prepare {following}" if following else "APPROVAL")
    states |= _approval(approval_seconds) | _deployment(jobs) | _ends()
    return {
        "Comment": "Attestry: one execution makes one model version",
        "QueryLanguage": "JSONata",
        # Every state has a limit of its own; this one ends an execution that hangs all the same, and is what TIMED_OUT means.
        "TimeoutSeconds": seconds,
        "StartAt": "Read input",
        "States": states,
    }


def decision_definition(*, wait_seconds: int) -> State:
    """Return the definition of the state machine that a person starts in the AWS console to decide or to operate.

    Each function finds out for itself who asks and for what; the choice between them is only which of them could do it.

    Who started it is known from CloudTrail only, and only after a while; until then the function answers WAIT. After `wait_seconds`
    without an answer nothing is decided.
    """
    interval = max(1, min(15, wait_seconds // 20))
    payload = {
        "input": "{% $states.context.Execution.Input %}",
        "execution_arn": "{% $states.context.Execution.Id %}",
    }
    answer = {"answer": "{% $states.result.Payload %}"}
    caught = {"Retry": [_retry()], "Catch": [_catch("'RegistryDecision'", then="Refused")]}
    operating = " or ".join(f"$states.context.Execution.Input.action = '{act}'" for act in OPERATING)
    since = "($toMillis($states.context.State.EnteredTime) - $toMillis($states.context.Execution.StartTime))"
    waited = f"{since} >= {wait_seconds * 1000}"
    # Asked again after half of the time that has passed: CloudTrail tells some callers within a second and others after many minutes.
    pause = f"$max([1, $min([{interval}, $floor({since} / 2000)])])"
    states = {
        "Begin": {"Type": "Pass", "Assign": {"answer": None, "failure": None}, "Next": "Decide or operate?"},
        "Decide or operate?": _choice({operating: "Find caller and operate"}, otherwise="Find caller and decide"),
        "Find caller and decide": _task("console_decision", payload, then="Decided?", assign=answer, seconds=90) | caught,
        "Find caller and operate": _task("operate", payload, then="Decided?", assign=answer, seconds=90) | caught,
        "Decided?": _choice(
            {
                "$answer.outcome = 'DECIDED' or $answer.outcome = 'DONE'": "Done",
                f"$answer.outcome = 'WAIT' and {waited}": "Caller unknown",
                "$answer.outcome = 'WAIT'": "Wait for CloudTrail",
            },
            otherwise="Refused",
        ),
        "Wait for CloudTrail": {"Type": "Wait", "Seconds": f"{{% {pause} %}}", "Next": "Decide or operate?"},
        "Done": {"Type": "Succeed", "Output": "{% $answer %}"},
        "Refused": _fail("Attestry.Refused", "{% $failure = null ? $string($answer) : $string($failure.error) %}"),
        "Caller unknown": _fail("Attestry.CallerUnknown", "CloudTrail did not say in time who started this decision, so nothing was done"),
    }
    return {
        "Comment": "Attestry: decide on a version, or operate it, from the AWS console",
        "QueryLanguage": "JSONata",
        "StartAt": "Begin",
        "States": states,
    }


def _read_input() -> State:
    execution = (
        "{'arn': $states.context.Execution.Id, 'name': $states.context.Execution.Name, 'started': $states.context.Execution.StartTime}"
    )
    version = "'model': $states.input.model, 'version': $states.input.version, 'attempt': $states.input.attempt"
    # Every variable exists from the start: Step Functions fails an expression over one that was never assigned.
    empty = {"evaluation": None, "failure": None, "outcome": {"outcome": "FAILED", "error": ""}}
    return {"Type": "Pass", "Assign": {"of": f"{{% {{{version}, 'execution': {execution}}} %}}"} | empty, "Next": "Plan"}


def _plan() -> State:
    payload = "{% $merge([$of, {'stage': 'ENVIRONMENT'}]) %}"
    assign = {"environments": "{% $states.result.Payload.environments %}"}
    return _task("prepare_stage", payload, then="Prepare environment", assign=assign) | _own("'PROCESSING'")


def _prepare_environments() -> State:
    build = _task("build_environment", {"environments": ["{% $states.input %}"]}, then=None) | {"Retry": [_retry_not_started(), _retry()]}
    processor = {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "Build environment", "States": {"Build environment": build}}
    return {
        "Type": "Map",
        "Items": "{% $environments %}",
        "MaxConcurrency": 4,
        "ItemProcessor": processor,
        "Output": {},
        "Catch": [_catch("'PROCESSING'")],
        "Next": "Prepare PROCESSING",
    }


def _script_stage(stage: str, jobs: Jobs, *, then: str) -> States:
    """Return the states of one stage that runs a script: prepare, run on its executor, evaluate, record."""
    name = f"'{stage}'"
    ran = f"{stage} ran?" if stage in EVALUATED else f"Record {stage}"
    prepare = _task(
        "prepare_stage",
        f"{{% $merge([$of, {{'stage': {name}}}]) %}}",
        then=f"{stage} done before?",
        assign={"job": "{% $states.result.Payload %}", "evaluation": None},
    )
    run = _task(
        "sandbox",
        {"job_url": "{% $job.job_url %}"},
        then=ran,
        assign={"run": "{% $states.result.Payload %}", "entered": "{% $states.context.State.EnteredTime %}"},
    )
    record = {"stage": stage, "entered": "{% $entered %}", "run": "{% $run %}", "evaluation": "{% $evaluation %}", "error": None}
    taken = {"$job.reused = true": f"Take {stage} from an earlier version"} if stage in REUSABLE else {}
    states = {
        f"Prepare {stage}": prepare | _own(name),
        f"{stage} done before?": _choice(
            {"$job.skip = true": then, "$job.held = true": "Held", **taken, "$job.executor = 'lambda'": stage, **job_choices(stage, jobs)},
            otherwise=not_enabled(stage),
        ),
        stage: run | {"Retry": [_retry_not_started()], "Catch": [_catch(name)]},
        **job_states(stage, jobs, then=ran, record=f"Record {stage}"),
    }
    if stage in EVALUATED:
        evaluate = _task(
            "evaluate",
            f"{{% $merge([$job.evaluate, {{'stage': {name}}}]) %}}",
            then=f"Record {stage}",
            assign={"evaluation": "{% $states.result.Payload %}"},
        )
        did = " or ".join(["$run.outcome = 'SUCCEEDED'", *job_completed(stage, jobs)])
        states[ran] = _choice({did: f"Evaluate {stage}"}, otherwise=f"Record {stage}")
        states[f"Evaluate {stage}"] = evaluate | _own(name)
    # Nothing runs; who records the stage takes it from the version that the plan names.
    none = {"run": None, "entered": "{% $states.context.State.EnteredTime %}"}
    states |= {name: {"Type": "Pass", "Assign": none, "Output": {}, "Next": f"Record {stage}"} for name in taken.values()}
    return states | _record(stage, record, then=then)


def _record(stage: str, facts: State, *, then: str) -> States:
    """Return the state that records a stage, and the choice by its outcome."""
    assign = {"outcome": "{% $states.result.Payload %}"}
    payload = {
        "model": "{% $of.model %}",
        "version": "{% $of.version %}",
        "attempt": "{% $of.attempt %}",
        "execution": "{% $of.execution %}",
    }
    record = _task("record_stage", payload | facts, then=f"{stage} passed?", assign=assign) | _own(f"'{stage}'")
    passed = _choice({"$outcome.outcome = 'SUCCEEDED'": then, "$outcome.outcome = 'REPRODUCED'": "Done", **_OTHER_ENDS}, otherwise="Failed")
    return {f"Record {stage}": record, f"{stage} passed?": passed}


def _approval(seconds: int) -> States:
    payload = {
        "action": "wait",
        "model": "{% $of.model %}",
        "version": "{% $of.version %}",
        "attempt": "{% $of.attempt %}",
        "token": "{% $states.context.Task.Token %}",
    }
    wait: State = {
        "Type": "Task",
        "Resource": f"{INVOKE}.waitForTaskToken",
        "Arguments": {"FunctionName": "${Gate}", "Payload": payload},
        "Assign": {"run": "{% $states.result %}", "entered": "{% $states.context.State.EnteredTime %}"},
        "TimeoutSeconds": seconds,
        # A timeout of the decision must not start the wait again, so only faults of the call itself are tried again.
        "Retry": [_retry(_LAMBDA_FAULTS)],
        "Catch": [_catch("'APPROVAL'")],
        "Next": "Record APPROVAL",
    }
    facts = {"stage": "APPROVAL", "entered": "{% $entered %}", "run": "{% $run %}", "evaluation": None, "error": None}
    return {"APPROVAL": wait} | _record("APPROVAL", facts, then="DEPLOYMENT")


def _deployment(jobs: Jobs) -> States:
    """Return the states that put a version in place; where SageMaker may serve it, those that wait for its endpoint."""
    payload = "{% $merge([$of, {'reason': 'approved'}]) %}"
    deploy = _task("deploy", payload, then="DEPLOYMENT passed?", assign={"outcome": "{% $states.result.Payload %}"})
    waiting = {"$outcome.outcome = 'WAITING'": "Wait for the endpoint"} if jobs.endpoints else {}
    passed = _choice({"$outcome.outcome = 'SUCCEEDED'": "Done", **waiting, **_OTHER_ENDS}, otherwise="Failed")
    states: States = {"DEPLOYMENT": deploy | _own("'DEPLOYMENT'"), "DEPLOYMENT passed?": passed}
    if waiting:
        again = "{% $merge([$of, {'reason': 'approved', 'waited': true}]) %}"
        go_on = _task("deploy", again, then="DEPLOYMENT passed?", assign={"outcome": "{% $states.result.Payload %}"})
        states |= {
            "Wait for the endpoint": {"Type": "Wait", "Seconds": _ENDPOINT_PAUSE_SECONDS, "Output": {}, "Next": "Go on with DEPLOYMENT"},
            "Go on with DEPLOYMENT": go_on | _own("'DEPLOYMENT'"),
        }
    return states


def _ends() -> States:
    payload = {
        "model": "{% $of.model %}",
        "version": "{% $of.version %}",
        "attempt": "{% $of.attempt %}",
        "execution": "{% $of.execution %}",
        "stage": "{% $failure.stage %}",
        "outcome": "FAILED",
        "entered": "{% $failure.at %}",
        "run": None,
        "evaluation": None,
        "error": "{% $failure.error %}",
    }
    record = _task("record_stage", payload, then="Failed", assign={"outcome": "{% $states.result.Payload %}"})
    unrecorded = {"ErrorEquals": ["States.ALL"], "Next": "Failed unrecorded"}
    return {
        "Record failure": record | {"Retry": [_retry()], "Catch": [unrecorded]},
        "Done": {"Type": "Succeed", "Output": "{% $outcome %}"},
        "Rejected": {"Type": "Succeed", "Output": "{% $outcome %}"},
        # Nothing went wrong: who releases the version starts the next attempt.
        "Held": {"Type": "Succeed", "Output": {"outcome": "HELD"}},
        "Failed": _fail("Attestry.StageFailed", "{% $outcome.error ? $string($outcome.error) : 'see the failed stage of the version' %}"),
        "Failed unrecorded": _fail("Attestry.FailureNotRecorded", "{% $string($failure) %}"),
    }


def _task(
    function: str, payload: State | str, *, then: str | None, assign: State | None = None, seconds: int = _SECONDS_OF_FUNCTION
) -> State:
    state: State = {
        "Type": "Task",
        "Resource": INVOKE,
        "Arguments": {"FunctionName": f"${{{SUBSTITUTIONS[function]}}}", "Payload": payload},
        "TimeoutSeconds": seconds,
    }
    # What a state needs later is assigned; its output stays empty, so that no state's input grows with what others answered.
    if assign:
        state["Assign"] = assign
    state["Output"] = {}
    return state | ({"Next": then} if then else {"End": True})


def _own(stage: str) -> State:
    """Return what tries a function of ours again, and what catches its failure."""
    return {"Retry": [_retry()], "Catch": [_catch(stage)]}


def _retry(errors: list[str] | None = None) -> State:
    return {"ErrorEquals": errors or ["States.ALL"], "IntervalSeconds": 2, "MaxAttempts": 2, "BackoffRate": 3, "JitterStrategy": "FULL"}


def _retry_not_started() -> State:
    """A throttled call never reached the script, so waiting for room is not a second run."""
    return {"ErrorEquals": ["Lambda.TooManyRequestsException"], "IntervalSeconds": 5, "MaxAttempts": 10, "BackoffRate": 1.5}


def _catch(stage: str, *, then: str = "Record failure") -> State:
    failure = f"{{'stage': {stage}, 'error': $states.errorOutput, 'at': $states.context.State.EnteredTime}}"
    return {"ErrorEquals": ["States.ALL"], "Assign": {"failure": f"{{% {failure} %}}"}, "Next": then}


def _choice(rules: dict[str, str], *, otherwise: str) -> State:
    choices = [{"Condition": f"{{% {condition} %}}", "Next": state} for condition, state in rules.items()]
    return {"Type": "Choice", "Choices": choices, "Default": otherwise}


def _fail(error: str, cause: str) -> State:
    return {"Type": "Fail", "Error": error, "Cause": cause}
