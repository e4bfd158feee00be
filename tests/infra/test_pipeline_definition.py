"""The state machines: their shape, and that they carry no payload."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonata
import pytest

from attestry.domain.console_request import DECISIONS, IN_CONSOLE
from attestry.domain.stages import PIPELINE as STAGES
from attestry.domain.stages import SCRIPT_STAGES
from infra import pipeline_definition as definitions
from infra.config import Config, ConfigError
from infra.job_states import SCRIPT_STAGES as JOB_STAGES

State = dict[str, Any]

PIPELINE = definitions.pipeline_definition(approval_seconds=86400)
PIPELINE_STATES = PIPELINE["States"]
DECISION_STATES = definitions.decision_definition(wait_seconds=900)["States"]
BOTH = pytest.mark.parametrize("states", [PIPELINE_STATES, DECISION_STATES], ids=["pipeline", "decision"])
VARIABLES = {"of", "environments", "job", "run", "entered", "evaluation", "outcome", "failure", "answer"}


def tasks(states: dict[str, State]) -> Iterator[tuple[str, State]]:
    for name, state in states.items():
        if state["Type"] == "Task":
            yield name, state
        elif state["Type"] == "Map":
            yield from tasks(state["ItemProcessor"]["States"])


def following(state: State) -> Iterator[str]:
    if "Next" in state:
        yield state["Next"]
    yield from (choice["Next"] for choice in state.get("Choices", []))
    if "Default" in state:
        yield state["Default"]
    yield from (catcher["Next"] for catcher in state.get("Catch", []))


def expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for entry in value.values():
            yield from expressions(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from expressions(entry)
    elif isinstance(value, str) and value.startswith("{%"):
        yield value


def test_states_are_named_after_the_stages() -> None:
    assert {stage.value for stage in STAGES} <= set(PIPELINE_STATES)
    assert tuple(stage.value for stage in SCRIPT_STAGES) == JOB_STAGES


def test_stages_follow_each_other_in_order() -> None:
    order, name = [], "Plan"
    while name != "Done":
        state = PIPELINE_STATES[name]
        if name in {stage.value for stage in STAGES}:
            order.append(name)
        if state["Type"] == "Choice":
            wanted = [c["Next"] for c in state["Choices"] if "'SUCCEEDED'" in c["Condition"] or "'lambda'" in c["Condition"]]
            name = wanted[0] if wanted else state["Default"]
        else:
            name = state["Next"]
    assert order == [stage.value for stage in STAGES]


@BOTH
def test_every_state_can_be_reached_and_leads_somewhere_that_exists(states: dict[str, State]) -> None:
    start = "Begin" if "Begin" in states else "Read input"
    seen, todo = set(), [start]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += list(following(states[name]))
    assert seen == set(states)


@BOTH
def test_every_task_is_caught(states: dict[str, State]) -> None:
    for name, state in tasks(states):
        caught = [error for catcher in state.get("Catch", []) for error in catcher["ErrorEquals"]]
        assert caught == ["States.ALL"] or name == "Build environment", name
    assert "Prepare environment" not in states or states["Prepare environment"]["Catch"][0]["ErrorEquals"] == ["States.ALL"]


def test_every_failure_is_recorded_with_its_stage() -> None:
    for name, state in PIPELINE_STATES.items():
        for catcher in state.get("Catch", []):
            if name != "Record failure":
                assert catcher["Next"] == "Record failure"
                assert "'stage': '" in catcher["Assign"]["failure"]
    arguments = PIPELINE_STATES["Record failure"]["Arguments"]["Payload"]
    assert arguments["outcome"] == "FAILED"
    assert PIPELINE_STATES["Record failure"]["Next"] == "Failed"


def test_a_stage_that_is_taken_from_an_earlier_version_is_recorded_without_a_run() -> None:
    for stage in ("PROCESSING", "TRAINING"):
        choices = {c["Condition"]: c["Next"] for c in PIPELINE_STATES[f"{stage} done before?"]["Choices"]}
        taken = PIPELINE_STATES[choices["{% $job.reused = true %}"]]
        assert (taken["Type"], taken["Next"], taken["Assign"]["run"]) == ("Pass", f"Record {stage}", None)
        # Whether a version is held or done before is asked first, on which executor it would have run afterwards.
        assert list(choices).index("{% $job.reused = true %}") == 2
    assert "Take VALIDATION from an earlier version" not in PIPELINE_STATES
    assert not any("reused" in c["Condition"] for c in PIPELINE_STATES["VALIDATION done before?"]["Choices"])


def test_a_script_is_never_run_twice_by_a_retry() -> None:
    for stage in JOB_STAGES:
        assert [retry["ErrorEquals"] for retry in PIPELINE_STATES[stage]["Retry"]] == [["Lambda.TooManyRequestsException"]]


def test_a_timeout_of_the_approval_does_not_start_the_wait_again() -> None:
    approval = PIPELINE_STATES["APPROVAL"]
    assert approval["Resource"].endswith(".waitForTaskToken")
    assert approval["TimeoutSeconds"] == 86400
    retried = {error for retry in approval["Retry"] for error in retry["ErrorEquals"]}
    assert not retried & {"States.ALL", "States.Timeout", "States.TaskFailed"}


def test_the_sandbox_is_told_nothing_but_where_its_job_is() -> None:
    for stage in JOB_STAGES:
        assert PIPELINE_STATES[stage]["Arguments"]["Payload"] == {"job_url": "{% $job.job_url %}"}


def test_no_state_hands_on_what_functions_answer() -> None:
    for name, state in tasks(PIPELINE_STATES):
        if not state["Resource"].endswith(".waitForTaskToken"):
            assert state["Output"] == {}, name


@BOTH
def test_every_task_has_a_time_limit(states: dict[str, State]) -> None:
    assert all(state.get("TimeoutSeconds", 0) > 0 for _, state in tasks(states))


def longest(state: State) -> float:
    """Return the seconds that a task may take with all that it is tried again: each try at its limit, each pause at its longest."""
    seconds = state["TimeoutSeconds"]
    for retry in state.get("Retry", []):
        pauses = [retry["IntervalSeconds"] * retry["BackoffRate"] ** n for n in range(retry["MaxAttempts"])]
        # A call that met no room ends at once, so the tries of a script cost their pauses alone.
        tried = 0 if retry["ErrorEquals"] == ["Lambda.TooManyRequestsException"] else retry["MaxAttempts"]
        seconds += sum(pauses) + tried * state["TimeoutSeconds"]
    return float(seconds)


def test_an_execution_that_hangs_ends_and_one_that_keeps_to_its_states_limits_is_not_cut_off() -> None:
    stages = sum(longest(state) for name, state in tasks(PIPELINE_STATES) if name != "APPROVAL")
    assert stages <= definitions.STAGES_SECONDS <= 86_400
    assert PIPELINE["TimeoutSeconds"] == PIPELINE_STATES["APPROVAL"]["TimeoutSeconds"] + definitions.STAGES_SECONDS


def test_the_longest_wait_for_an_approval_stays_within_the_year_of_an_execution() -> None:
    longest_wait = 364
    with pytest.raises(ConfigError, match="approvalTimeoutDays"):
        Config(approval_timeout_days=longest_wait + 1)
    definition = definitions.pipeline_definition(approval_seconds=longest_wait * 86_400)
    assert definition["TimeoutSeconds"] <= 365 * 86_400


@BOTH
def test_expressions_use_known_variables_only(states: dict[str, State]) -> None:
    for expression in expressions(states):
        names = set(re.findall(r"\$([a-z]\w*)(?!\w*\()", expression)) - {"states"}
        assert names <= VARIABLES, expression


def test_variables_exist_before_they_are_read() -> None:
    assert set(PIPELINE_STATES["Read input"]["Assign"]) >= {"of", "evaluation", "failure", "outcome"}
    assert set(DECISION_STATES["Begin"]["Assign"]) == {"answer", "failure"}


def test_a_decision_without_a_known_caller_fails_closed() -> None:
    choices = DECISION_STATES["Decided?"]
    assert choices["Default"] == "Refused"
    assert DECISION_STATES["Refused"]["Type"] == DECISION_STATES["Caller unknown"]["Type"] == "Fail"
    waited_too_long = [c for c in choices["Choices"] if c["Next"] == "Caller unknown"]
    assert len(waited_too_long) == 1
    assert "900000" in waited_too_long[0]["Condition"]


@pytest.mark.parametrize("action", [operation.value for operation in IN_CONSOLE])
def test_each_act_of_the_console_goes_to_a_function_that_may_do_it(action: str) -> None:
    choice = DECISION_STATES["Decide or operate?"]
    (operating,) = choice["Choices"]
    decides = action in {operation.value for operation in DECISIONS}
    assert (f"= '{action}'" in operating["Condition"]) != decides
    assert choice["Default"] == "Find caller and decide"
    assert operating["Next"] == "Find caller and operate"


@BOTH
def test_definitions_are_far_below_the_limit_of_one_mebibyte(states: dict[str, State]) -> None:
    assert len(json.dumps(states)) < 100_000


def test_a_waiting_decision_stays_below_the_limit_of_25000_history_events() -> None:
    states = definitions.decision_definition(wait_seconds=3600)["States"]
    pause = states["Wait for CloudTrail"]["Seconds"].strip("{%} ")
    elapsed = rounds = 0
    while elapsed < 3600:
        context = {"State": {"EnteredTime": f"2026-01-01T{elapsed // 3600:02}:{elapsed // 60 % 60:02}:{elapsed % 60:02}Z"}}
        engine = jsonata.Jsonata(pause)
        engine.assign("states", {"context": context | {"Execution": {"StartTime": "2026-01-01T00:00:00Z"}}})
        seconds = engine.evaluate(None)
        assert 1 <= seconds <= 15
        elapsed, rounds = elapsed + int(seconds), rounds + 1
    assert rounds * 10 < 25_000
