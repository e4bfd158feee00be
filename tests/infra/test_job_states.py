"""The states that run a stage as a job: their expressions are evaluated here by a JSONata engine, as Step Functions would."""

from __future__ import annotations

from typing import Any

import jsonata
import pytest

from infra import pipeline_definition as definitions
from infra.job_states import EXECUTION_SECONDS, PAUSES_SECONDS, SCRIPT_STAGES, SERVICES, STAGE_SERVICES, Jobs

State = dict[str, Any]

DAY = 86_400
JOBS = Jobs(("lambda", "sagemaker", "batch", "emr-serverless"), 5 * DAY, DAY, endpoints=True)
STATES = definitions.pipeline_definition(approval_seconds=30 * DAY, jobs=JOBS)["States"]
DONE = {
    "sagemaker-processing": {"ProcessingJobStatus": "Completed"},
    "sagemaker-training": {"TrainingJobStatus": "Completed"},
    "sagemaker-transform": {"TransformJobStatus": "Completed"},
    "batch": {"Status": "SUCCEEDED"},
    "emr-serverless": {"State": "SUCCESS"},
}
STOPPED = {
    "sagemaker-processing": {"ProcessingJobStatus": "Stopped"},
    "sagemaker-training": {"TrainingJobStatus": "Stopped"},
    "sagemaker-transform": {"TransformJobStatus": "Stopped"},
    "batch": {"Status": "FAILED"},
    "emr-serverless": {"State": "CANCELLED"},
}
CASES = [(stage, service) for stage, services in STAGE_SERVICES.items() for service in services]


def value_of(expression: str, **variables: Any) -> Any:
    """Return what an expression comes to with these variables."""
    engine = jsonata.Jsonata(expression.removeprefix("{%").removesuffix("%}"))
    for name, value in variables.items():
        engine.assign(name, value)
    return engine.evaluate(None)


def chosen(choice: State, **variables: Any) -> str:
    """Return the state that a choice leads to."""
    for rule in choice["Choices"]:
        if value_of(rule["Condition"], **variables) is True:
            return str(rule["Next"])
    return str(choice["Default"])


def job_state(stage: str, service: str) -> tuple[str, State]:
    name = chosen(STATES[f"{stage} done before?"], job={"skip": False, "executor": SERVICES[service].executor, "service": service})
    return name, STATES[name]


@pytest.mark.parametrize(("stage", "service"), CASES)
def test_a_stage_runs_on_the_service_that_its_preparation_names(stage: str, service: str) -> None:
    name, state = job_state(stage, service)
    assert name.startswith(f"{stage} on ")
    assert state["Resource"] == SERVICES[service].resource
    assert state["Resource"].endswith(".sync")
    assert value_of(state["Arguments"], job={"request": {"TrainingJobName": "m"}}) == {"TrainingJobName": "m"}


@pytest.mark.parametrize("stage", SCRIPT_STAGES)
def test_a_stage_on_lambda_keeps_the_stages_bare_name(stage: str) -> None:
    assert chosen(STATES[f"{stage} done before?"], job={"skip": False, "executor": "lambda"}) == stage


@pytest.mark.parametrize("stage", SCRIPT_STAGES)
def test_a_stage_that_is_done_is_skipped_whatever_it_would_run_on(stage: str) -> None:
    following = {"PROCESSING": "Prepare TRAINING", "TRAINING": "Prepare VALIDATION", "VALIDATION": "APPROVAL"}
    assert chosen(STATES[f"{stage} done before?"], job={"skip": True}) == following[stage]


@pytest.mark.parametrize(
    ("stage", "service"), [("TRAINING", "emr-serverless"), ("PROCESSING", "sagemaker-training"), ("VALIDATION", "ecs")]
)
def test_a_service_that_runs_no_such_stage_ends_it_with_a_reason(stage: str, service: str) -> None:
    job = {"skip": False, "executor": "some", "service": service}
    name = chosen(STATES[f"{stage} done before?"], job=job)
    assert name == f"{stage} has no executor"
    run = STATES[name]["Assign"]["run"]
    assert value_of(run["service"], job=job) == service
    assert value_of(run["error"]["Cause"], job=job) == "this registry does not run this stage on some"
    assert STATES[name]["Next"] == f"Record {stage}"


def test_an_executor_that_is_not_enabled_never_falls_back_to_the_sandbox() -> None:
    states = definitions.pipeline_definition(approval_seconds=DAY)["States"]
    job = {"skip": False, "executor": "sagemaker", "service": "sagemaker-training", "request": {}}
    assert chosen(states["TRAINING done before?"], job=job) == "TRAINING has no executor"
    assert not [state for state in states.values() if ".sync" in state.get("Resource", "")]


@pytest.mark.parametrize(("stage", "service"), CASES)
def test_what_a_job_came_to_is_given_to_the_function_that_records_the_stage(stage: str, service: str) -> None:
    _, state = job_state(stage, service)
    answered = state["Assign"]["run"]
    assert answered["service"] == service
    assert value_of(answered["answer"], states={"result": DONE[service]}) == DONE[service]
    (caught,) = state["Catch"]
    failed = {"Error": "States.TaskFailed", "Cause": "{}"}
    assert caught["ErrorEquals"] == ["States.ALL"]
    assert caught["Assign"]["run"]["service"] == service
    assert value_of(caught["Assign"]["run"]["error"], states={"errorOutput": failed}) == failed
    assert caught["Next"] == f"Record {stage}"
    assert set(state["Assign"]) == set(caught["Assign"]) == {"run", "entered"}
    assert STATES[f"Record {stage}"]["Arguments"]["Payload"]["run"] == "{% $run %}"


@pytest.mark.parametrize(("stage", "service"), [case for case in CASES if case[0] in definitions.EVALUATED])
def test_outputs_are_evaluated_of_a_job_that_did_its_work_and_of_no_other(stage: str, service: str) -> None:
    ran = STATES[f"{stage} ran?"]
    assert chosen(ran, run={"service": service, "answer": DONE[service]}) == f"Evaluate {stage}"
    assert chosen(ran, run={"service": service, "answer": STOPPED[service]}) == f"Record {stage}"
    assert chosen(ran, run={"service": service, "error": {"Error": "States.TaskFailed", "Cause": "{}"}}) == f"Record {stage}"
    assert chosen(ran, run={"outcome": "SUCCEEDED"}) == f"Evaluate {stage}"
    assert chosen(ran, run={"outcome": "FAILED"}) == f"Record {stage}"


@pytest.mark.parametrize(("stage", "service"), CASES)
def test_a_jobs_state_waits_longer_than_its_script_may_run_and_no_longer_than_the_registrys_limit(stage: str, service: str) -> None:
    _, state = job_state(stage, service)
    assert value_of(state["TimeoutSeconds"], job={"timeout_seconds": 600}) == 600 + DAY
    assert value_of(state["TimeoutSeconds"], job={"timeout_seconds": 30 * DAY}) == 6 * DAY


@pytest.mark.parametrize(("stage", "service"), CASES)
def test_a_job_is_started_again_only_where_the_service_refused_it(stage: str, service: str) -> None:
    _, state = job_state(stage, service)
    (retry,) = state["Retry"]
    assert not {"States.ALL", "States.TaskFailed", "States.Timeout"} & set(retry["ErrorEquals"])
    pauses = [retry["IntervalSeconds"] * retry["BackoffRate"] ** n for n in range(retry["MaxAttempts"])]
    assert round(sum(pauses)) == PAUSES_SECONDS
    assert max(pauses) < 3600


def test_an_execution_lives_as_long_as_three_stages_at_their_limits_the_wait_for_the_decision_and_an_endpoint() -> None:
    definition = definitions.pipeline_definition(approval_seconds=30 * DAY, jobs=JOBS)
    longest_stage = 5 * DAY + DAY + PAUSES_SECONDS
    assert definition["TimeoutSeconds"] == 30 * DAY + definitions.STAGES_SECONDS + 3 * longest_stage + definitions.ENDPOINT_SECONDS
    assert definition["TimeoutSeconds"] <= EXECUTION_SECONDS == 365 * DAY


def test_limits_that_an_execution_cannot_live_to_see_are_refused() -> None:
    with pytest.raises(ValueError, match="an execution lives 31536000 s"):
        definitions.pipeline_definition(approval_seconds=360 * DAY, jobs=JOBS)
