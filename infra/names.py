"""Names of functions, roles and state machines, and the ARNs made of them.

Names are fixed by the prefix, so that resources which need each other (the pipeline calls a function that starts the pipeline) can be
told about each other without a cycle in the template.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from aws_cdk import Aws

MAX_ROLE_NAME = 64
"""IAM's limit, in characters."""


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

    @property
    def job_role_prefix(self) -> str:
        """Return what the names of jobs' roles begin with."""
        return f"{self.prefix}-job-"

    def job_role(self, model: str) -> str:
        """Return the name of the role that a model's jobs run under: the registry's own rule, which has to shorten long names."""
        name = f"{self.job_role_prefix}{model}"
        if len(name) <= MAX_ROLE_NAME:
            return name
        return f"{name[: MAX_ROLE_NAME - 11]}-{hashlib.sha256(model.encode()).hexdigest()[:10]}"

    def job_role_arn(self, name: str) -> str:
        """Return the ARN of a job's role, or of roles by a pattern of their names."""
        return f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:role/{name}"

    @property
    def serve_role_prefix(self) -> str:
        """Return what the names of the roles of endpoints' containers begin with."""
        return f"{self.prefix}-serve-"

    def serve_role(self, model: str) -> str:
        """Return the name of the role that the containers of a model's endpoints run with; shortened as a job's is."""
        name = f"{self.serve_role_prefix}{model}"
        if len(name) <= MAX_ROLE_NAME:
            return name
        return f"{name[: MAX_ROLE_NAME - 11]}-{hashlib.sha256(model.encode()).hexdigest()[:10]}"

    @property
    def endpoints(self) -> str:
        """Pattern of the names of endpoints, of their configurations and their models."""
        return f"{self.prefix}-*"

    @property
    def jobs(self) -> str:
        """Pattern of the names of jobs and job definitions."""
        return f"{self.prefix}-*"

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

    @property
    def scoring(self) -> str:
        """Name of the state machine that scores files."""
        return f"{self.prefix}-scoring"

    @property
    def api_url_parameter(self) -> str:
        """Name of the parameter that tells where the API answers."""
        return f"/{self.prefix}/api-url"

    @property
    def api_url_parameter_arn(self) -> str:
        """ARN of that parameter."""
        return f"arn:{Aws.PARTITION}:ssm:{Aws.REGION}:{Aws.ACCOUNT_ID}:parameter{self.api_url_parameter}"

    @property
    def runbook(self) -> str:
        """Name of the document of Systems Manager in which people approve."""
        return f"{self.prefix}-ApproveVersion"

    @property
    def runbook_arn(self) -> str:
        """ARN of that document."""
        return f"arn:{Aws.PARTITION}:ssm:{Aws.REGION}:{Aws.ACCOUNT_ID}:document/{self.runbook}"

    @property
    def runbook_definition_arn(self) -> str:
        """ARN of that document as what automations are started from; a version follows."""
        return f"arn:{Aws.PARTITION}:ssm:{Aws.REGION}:{Aws.ACCOUNT_ID}:automation-definition/{self.runbook}"

    @property
    def automations_arn(self) -> str:
        """ARN pattern of automations; AWS names them by random IDs."""
        return f"arn:{Aws.PARTITION}:ssm:{Aws.REGION}:{Aws.ACCOUNT_ID}:automation-execution/*"

    @property
    def bus(self) -> str:
        """Name of the bus on which events are told."""
        return f"{self.prefix}-events"

    @property
    def bus_arn(self) -> str:
        """ARN of that bus."""
        return f"arn:{Aws.PARTITION}:events:{Aws.REGION}:{Aws.ACCOUNT_ID}:event-bus/{self.bus}"

    @property
    def deliveries(self) -> str:
        """Name of the queue of deliveries to webhooks."""
        return f"{self.prefix}-deliveries"

    @property
    def undelivered(self) -> str:
        """Name of its dead-letter queue."""
        return f"{self.prefix}-undelivered"

    def queue_arn(self, name: str) -> str:
        """Return the ARN of a queue."""
        return f"arn:{Aws.PARTITION}:sqs:{Aws.REGION}:{Aws.ACCOUNT_ID}:{name}"

    @property
    def automation_role(self) -> str:
        """Name of the role that the runbook runs under."""
        return f"{self.prefix}-approval-runbook"

    @property
    def automation_role_arn(self) -> str:
        """ARN of that role."""
        return f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:role/{self.automation_role}"

    @property
    def automation_topic(self) -> str:
        """Name of the topic that tells approvers; Systems Manager asks for names that begin so."""
        return f"Automation-{self.prefix}-approvals"

    def state_machine_arn(self, name: str) -> str:
        """Return the ARN of a state machine."""
        return f"arn:{Aws.PARTITION}:states:{Aws.REGION}:{Aws.ACCOUNT_ID}:stateMachine:{name}"

    def executions_arn(self, name: str) -> str:
        """Return the ARN pattern of a state machine's executions."""
        return f"arn:{Aws.PARTITION}:states:{Aws.REGION}:{Aws.ACCOUNT_ID}:execution:{name}:*"
