"""The state machine that scores a file, in Amazon States Language (JSONPath): plan, every chunk in a distributed map, finish.

The input names a scoring and carries no payload; chunks are numbers. Every task is a function of ours that is safe to be tried again. A
chunk is an execution of its own, so that the history of one execution does not bound the file.
"""

from __future__ import annotations

from typing import Any

from infra.pipeline_definition import INVOKE, SUBSTITUTIONS

State = dict[str, Any]

CHUNKS_AT_ONCE = 8
"""How many chunks are answered beside each other: of the account's concurrent functions predictions need theirs."""

_SECONDS = 630
"""A little above the function's own limit of 600 s, so that its answer is the one that counts."""

_DAY = 86_400
_RETRY = {"ErrorEquals": ["States.ALL"], "IntervalSeconds": 2, "MaxAttempts": 4, "BackoffRate": 3}


def scoring_definition() -> State:
    """Return the definition."""
    caught = {"Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.failure", "Next": "Record failure"}]}
    named = {"scoring.$": "$.scoring"}
    chunk = _task({"action": "score_chunk", "scoring.$": "$.scoring", "chunk.$": "$.chunk"}) | {"ResultPath": None, "End": True}
    return {
        "Comment": "Attestry: one execution scores one file",
        "StartAt": "Plan file",
        "TimeoutSeconds": _DAY,
        "States": {
            "Plan file": _task({"action": "plan_scoring", **named})
            | {"ResultSelector": {"chunks.$": "$.Payload.chunks"}, "ResultPath": "$.plan", **caught, "Next": "Score chunks"},
            "Score chunks": {
                "Type": "Map",
                "ItemsPath": "$.plan.chunks",
                "ItemSelector": {"scoring.$": "$.scoring", "chunk.$": "$$.Map.Item.Value"},
                "MaxConcurrency": CHUNKS_AT_ONCE,
                "Label": "Chunks",
                "ItemProcessor": {
                    "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                    "StartAt": "Score chunk",
                    "States": {"Score chunk": chunk},
                },
                "ResultPath": None,
                **caught,
                "Next": "Finish file",
            },
            "Finish file": _task({"action": "finish_scoring", **named})
            | {"ResultSelector": {"state.$": "$.Payload.state"}, "ResultPath": "$.finished", **caught, "Next": "Done?"},
            "Done?": {
                "Type": "Choice",
                "Choices": [{"Variable": "$.finished.state", "StringEquals": "DONE", "Next": "Done"}],
                "Default": "Failed",
            },
            "Done": {"Type": "Succeed"},
            "Record failure": _task({"action": "fail_scoring", **named, "error.$": "$.failure.Error"}) | {"Next": "Failed"},
            "Failed": {"Type": "Fail", "Error": "Attestry.ScoringFailed", "Cause": "the row of the scoring tells why"},
        },
    }


def _task(payload: State) -> State:
    return {
        "Type": "Task",
        "Resource": INVOKE,
        "Parameters": {"FunctionName": f"${{{SUBSTITUTIONS['deploy']}}}", "Payload": payload},
        "TimeoutSeconds": _SECONDS,
        "Retry": [_RETRY],
    }
