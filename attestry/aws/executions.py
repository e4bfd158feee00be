"""Executions that people start in the AWS console, as Step Functions describes them."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import error_code, translate
from attestry.ports import ExecutionDescription

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

_UNKNOWN: Final = frozenset({"ExecutionDoesNotExist", "InvalidArn"})


class StepFunctionsExecutions:
    """`attestry.ports.Executions` over DescribeExecution."""

    def __init__(self, client: SFNClient) -> None:
        self._client = client

    def describe(self, execution_arn: str) -> ExecutionDescription | None:
        """Return what the service says of an execution, or None where there is none.

        Raises:
            UnavailableError: Step Functions did not answer.
        """
        try:
            found = self._client.describe_execution(executionArn=execution_arn)
        except ClientError as error:
            if error_code(error) in _UNKNOWN:
                return None
            raise translate(error, f"describe the execution {execution_arn}") from error
        except BotoCoreError as error:
            raise translate(error, f"describe the execution {execution_arn}") from error
        return ExecutionDescription(
            arn=found["executionArn"],
            state_machine_arn=found["stateMachineArn"],
            name=found.get("name", ""),
            started=found["startDate"].astimezone(UTC),
            input=found.get("input", ""),
            redrives=int(found.get("redriveCount", 0)),
        )
