"""The executions of the pipeline's state machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import error_code, translate
from attestry.domain.errors import InvalidInputError

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

MAX_PAYLOAD_BYTES: Final = 256 * 1024
_EXECUTION_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_NO_LONGER_WAITING = frozenset({"TaskTimedOut", "InvalidToken", "TaskDoesNotExist"})


class StepFunctionsPipeline:
    """`attestry.ports.Pipeline` over a Standard state machine; an execution's name is its ID."""

    def __init__(self, client: SFNClient, state_machine_arn: str) -> None:
        self._client = client
        self._arn = state_machine_arn

    def start(self, execution_id: str, payload: Mapping[str, Any]) -> str:
        """Start an execution and return its ARN; the same ID again is not an error.

        Step Functions accepts the same name and input again only while the execution runs, and refuses it for 90 days
        after; both mean that the execution was started.

        Raises:
            InvalidInputError: the ID is no execution name of Step Functions, or the payload takes more than 256 KiB.
            UnavailableError: Step Functions did not answer.
        """
        if not _EXECUTION_ID.fullmatch(execution_id):
            raise InvalidInputError.of("execution_id", "execution_id", f"`{execution_id}` is not 1 to 80 of letters, digits, '-' and '_'")
        body = _encode(payload)
        try:
            return self._client.start_execution(stateMachineArn=self._arn, name=execution_id, input=body)["executionArn"]
        except ClientError as error:
            if error_code(error) == "ExecutionAlreadyExists":
                return self.arn_of(execution_id)
            raise translate(error, f"start the execution {execution_id}") from error
        except BotoCoreError as error:
            raise translate(error, f"start the execution {execution_id}") from error

    def arn_of(self, execution_id: str) -> str:
        """Return the ARN that the execution has or would have."""
        return f"{self._arn.replace(':stateMachine:', ':execution:', 1)}:{execution_id}"

    def status(self, execution_id: str) -> str | None:
        """Return RUNNING, SUCCEEDED, FAILED, TIMED_OUT, ABORTED, or None where there is no such execution."""
        try:
            return self._client.describe_execution(executionArn=self.arn_of(execution_id))["status"]
        except ClientError as error:
            if error_code(error) == "ExecutionDoesNotExist":
                return None
            raise translate(error, f"look up the execution {execution_id}") from error
        except BotoCoreError as error:
            raise translate(error, f"look up the execution {execution_id}") from error

    def resume(self, token: str, output: Mapping[str, Any]) -> bool:
        """Send a task token; False when the execution no longer waits for it."""
        try:
            self._client.send_task_success(taskToken=token, output=_encode(output))
        except ClientError as error:
            if error_code(error) in _NO_LONGER_WAITING:
                return False
            raise translate(error, "resume the execution") from error
        except BotoCoreError as error:
            raise translate(error, "resume the execution") from error
        return True


def _encode(payload: Mapping[str, Any]) -> str:
    text = json.dumps(payload, separators=(",", ":"), allow_nan=False)
    if len(text.encode()) > MAX_PAYLOAD_BYTES:
        raise InvalidInputError.of("", "payload_size", f"the state takes {len(text.encode())} bytes; the limit is {MAX_PAYLOAD_BYTES}")
    return text
