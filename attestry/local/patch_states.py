"""Patch: Step Functions calls functions with the permissions of the state machine's role.

What AWS does (Step Functions Developer Guide, "How Step Functions generates IAM policies for integrated services") and the
emulator does not: a task that invokes a function needs `lambda:InvokeFunction` on it in the role of its state machine.
Without it the task fails with `Lambda.AWSLambdaException`, which Retry and Catch see.

Not covered: other integrations than functions, and than the jobs of `attestry.local.patch_jobs`; a nested state machine runs under the role
of its parent.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from typing import Any

from attestry.local.patching import load, replace

_role: contextvars.ContextVar[str] = contextvars.ContextVar("attestry_local_state_machine_role", default="")


def apply() -> None:
    """Patch the running of state machines.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    states = load("ministack.services.stepfunctions")
    replace(states, "_run_execution", "996dff84e0e0605a", lambda original: _run_under_role(states, original))
    replace(states, "_call_lambda", "25830369b12636da", lambda original: _call_if_allowed(states, original))


def _run_under_role(states: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    def run(execution_arn: str) -> Any:
        execution = states._executions.get(execution_arn) or {}
        machine = states._state_machines.get(execution.get("stateMachineArn", "")) or {}
        token = _role.set(str(machine.get("roleArn") or ""))
        try:
            return original(execution_arn)
        finally:
            _role.reset(token)

    return run


def _call_if_allowed(states: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(reference: str, event: Any) -> Any:
        _, config, name = load("ministack.services.lambda_svc")._get_func_record_for_ref(reference)
        if config and _role.get() and not may("lambda:InvokeFunction", str(config["FunctionArn"])):
            raise states._ExecutionError(
                "Lambda.AWSLambdaException", f"User: {_role.get()} is not authorized to perform: lambda:InvokeFunction on resource: {name}"
            )
        return original(reference, event)

    return call


def role() -> str:
    """Return the ARN of the role under which the running execution acts; empty where none runs."""
    return _role.get()


def may(action: str, resource: str, keys: Mapping[str, str] | None = None) -> bool:
    """Return whether the role of the running execution may do something.

    Args:
        action: for example `lambda:InvokeFunction`.
        resource: ARN that it is done to.
        keys: condition keys, in lower case, and their values.
    """
    evaluator = load("ministack.core.iam_evaluator")
    _, partition, _, _, account, name = role().split(":", 5)
    name = name.rsplit("/", 1)[-1]
    context = evaluator.EvalContext(
        principal_arn=f"arn:{partition}:sts::{account}:assumed-role/{name}/states",
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource,
        region=resource.split(":")[3],
        service_context=dict(keys or {}),
    )
    return bool(evaluator.evaluate(context, evaluator._gather_role_policies(name, account)).decision == "Allow")
