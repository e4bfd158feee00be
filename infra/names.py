"""Names of functions, roles and state machines, and the ARNs made of them.

Names are fixed by the prefix, so that resources which need each other (the pipeline calls a function that starts the pipeline) can be
told about each other without a cycle in the template.
"""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Aws


@dataclass(frozen=True)
class Names:
    """Names that start with a deployment's prefix."""

    prefix: str

    def function(self, name: str) -> str:
        """Return the AWS name of a function, for example `attestry-prepare-stage` of `prepare_stage`."""
        return f"{self.prefix}-{name.replace('_', '-')}"

    def function_arn(self, name: str) -> str:
        """Return the ARN of a function."""
        return f"arn:{Aws.PARTITION}:lambda:{Aws.REGION}:{Aws.ACCOUNT_ID}:function:{self.function(name)}"

    def function_role(self, name: str) -> str:
        """Return the name of a function's role."""
        return f"{self.function(name)}-function"

    def function_role_arn(self, name: str) -> str:
        """Return the ARN of a function's role."""
        return f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:role/{self.function_role(name)}"

    def log_group(self, name: str) -> str:
        """Return the name of a function's log group."""
        return f"/aws/lambda/{self.function(name)}"

    def role(self, role: str) -> str:
        """Return the name of the IAM role that people of a registry role assume."""
        return f"{self.prefix}-{role}"

    @property
    def ledger_origin(self) -> str:
        """Name of the ledger, which is also the name of its key: one in the world."""
        return f"attestry/{Aws.ACCOUNT_ID}/{Aws.REGION}/{self.prefix}"

    @property
    def witness(self) -> str:
        """Name of the key of the witness that stands under this prefix."""
        return f"{self.ledger_origin}/witness"

    @property
    def pipeline(self) -> str:
        """Name of the state machine that makes a version."""
        return f"{self.prefix}-pipeline"

    @property
    def decision(self) -> str:
        """Name of the state machine that a person starts in the AWS console to decide."""
        return f"{self.prefix}-RegistryDecision"

    def state_machine_arn(self, name: str) -> str:
        """Return the ARN of a state machine."""
        return f"arn:{Aws.PARTITION}:states:{Aws.REGION}:{Aws.ACCOUNT_ID}:stateMachine:{name}"

    def executions_arn(self, name: str) -> str:
        """Return the ARN pattern of a state machine's executions."""
        return f"arn:{Aws.PARTITION}:states:{Aws.REGION}:{Aws.ACCOUNT_ID}:execution:{name}:*"
