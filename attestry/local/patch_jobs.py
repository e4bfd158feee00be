"""Patch: services that run jobs, and the `.sync` integrations of Step Functions with them.

What AWS does (Step Functions Developer Guide, "Run a Job (.sync)", "Create and manage Amazon SageMaker AI jobs", and the same for AWS Batch
and EMR Serverless) and the emulator does not: a `.sync` task starts the job with the rights of the state machine's role, which has to be
allowed to pass the job's, waits for its end, gives the job's description as the result, raises `States.TaskFailed` with the description as
the cause where the job failed or was stopped, and stops the job when the execution is stopped or the task's time is up. `TimeoutSeconds`
may be an expression. The services' own operations answer too, under the account's permissions.

Jobs run by the stand-in of `attestry.local.jobs`.
"""

from __future__ import annotations

import contextvars
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attestry.local import patch_states
from attestry.local.jobs.embedded import EmbeddedWorld
from attestry.local.jobs.integrations import INTEGRATIONS, Integration
from attestry.local.jobs.job import Job, Outcome, RefusedError
from attestry.local.jobs.models import UnknownMemberError, named_for_api, operation
from attestry.local.jobs.service import KINDS, StandIn
from attestry.local.patching import load, replace

_execution: contextvars.ContextVar[str] = contextvars.ContextVar("attestry_local_execution", default="")


def apply() -> None:
    """Patch the running of tasks, and add the services.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    stand_in = StandIn(Path(os.environ["TMPDIR"]) / "jobs", EmbeddedWorld(int(os.environ["GATEWAY_PORT"])))
    states = load("ministack.services.stepfunctions")
    replace(states, "_execute_task", "53c818d247dba62c", lambda original: _execute(states, original))
    replace(states, "_invoke_resource_with_timeout", "faeed0bf70d53efc", lambda original: _invoke(states, stand_in, original))
    replace(states, "_stop_execution", "44d2d84ccd5c9702", lambda original: _stop(states, stand_in, original))
    _add_services(stand_in)


def _execute(states: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    def execute(state: dict[str, Any], raw_input: Any, execution: dict[str, Any], ctx: dict[str, Any]) -> Any:
        seconds = state.get("TimeoutSeconds")
        if isinstance(seconds, str):
            state = {**state, "TimeoutSeconds": states._apply_jsonata_template(seconds, raw_input, ctx)}
        token = _execution.set(str((execution or {}).get("executionArn", "")))
        try:
            return original(state, raw_input, execution, ctx)
        finally:
            _execution.reset(token)

    return execute


def _invoke(states: Any, stand_in: StandIn, original: Callable[..., Any]) -> Callable[..., Any]:
    def invoke(resource: str, arguments: Any, timeout: float) -> Any:
        integration = INTEGRATIONS.get(resource)
        if integration is None:
            return original(resource, arguments, timeout)
        job = _start(states, stand_in, integration, arguments)
        if not job.wait(timeout):
            job.stop()
            raise states._ExecutionError("States.Timeout", "")
        described = stand_in.describe_for_states(job)
        if job.outcome is not Outcome.COMPLETED:
            raise states._ExecutionError("States.TaskFailed", json.dumps(described))
        return described

    return invoke


def _start(states: Any, stand_in: StandIn, integration: Integration, arguments: Any) -> Job:
    kind = KINDS[integration.service]
    try:
        request = named_for_api(operation(kind.api, kind.start).input_shape, arguments)
    except UnknownMemberError as error:
        raise states._ExecutionError("States.Runtime", str(error)) from error
    _check_role(states, integration, request)
    try:
        return stand_in.start(integration.service, request, execution=_execution.get())
    except RefusedError as error:
        raise states._ExecutionError(integration.name_of(error.code), error.message) from error


def _check_role(states: Any, integration: Integration, request: Mapping[str, Any]) -> None:
    for resource in integration.resources(request):
        _demand(states, integration, integration.action, resource, {})
    if integration.role and request.get(integration.role):
        passed = {"iam:passedtoservice": integration.principal}
        _demand(states, integration, "iam:PassRole", str(request[integration.role]), passed)


def _demand(states: Any, integration: Integration, action: str, resource: str, keys: Mapping[str, str]) -> None:
    if not patch_states.may(action, resource, keys):
        role = patch_states.role()
        raise states._ExecutionError(
            integration.name_of("AccessDeniedException"), f"User: {role} is not authorized to perform: {action} on resource: {resource}"
        )


def _stop(states: Any, stand_in: StandIn, original: Callable[..., Any]) -> Callable[..., Any]:
    def stop(data: dict[str, Any]) -> Any:
        answer = original(data)
        execution = states._executions.get(data.get("executionArn"))
        if execution and execution["status"] == "ABORTED":
            stand_in.stop_of_execution(str(data["executionArn"]))
        return answer

    return stop


def _add_services(stand_in: StandIn) -> None:
    from attestry.local.jobs import api

    app, actions = load("ministack.app"), load("ministack.core.iam_actions")
    batch = app.SERVICE_HANDLERS["batch"]
    app.SERVICE_HANDLERS["sagemaker"] = api.sagemaker(stand_in)
    app.SERVICE_HANDLERS["emr-serverless"] = api.emr_serverless(stand_in)
    app.SERVICE_HANDLERS["batch"] = api.batch(stand_in, batch)
    actions.SERVICE_TO_IAM_NAMESPACE.update({"sagemaker": "sagemaker", "emr-serverless": "emr-serverless"})
    actions._BOTOCORE_SERVICE_MAP.update({"emr-serverless": ["emr-serverless"]})
