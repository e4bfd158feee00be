"""What a function is told by its environment.

A function has only the variables that its role can use, so each is read when it is asked for, and its absence is an error then.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from attestry.aws.errors import ConfigurationError


@dataclass(frozen=True)
class Settings:
    """The `ATTESTRY_*` variables, read lazily.

    Attributes:
        environment: the variables.
    """

    environment: Mapping[str, str]

    @classmethod
    def from_environment(cls) -> Settings:
        """Return the settings of this process."""
        return cls(dict(os.environ))

    def text(self, name: str) -> str:
        """Return a variable.

        Raises:
            ConfigurationError: it is missing or empty.
        """
        value = self.environment.get(name, "")
        if not value:
            raise ConfigurationError(f"the environment has no {name}")
        return value

    def number(self, name: str, default: int | None = None) -> int:
        """Return a variable that is a count.

        Raises:
            ConfigurationError: it is no count, or missing without a default.
        """
        if default is not None and not self.environment.get(name):
            return default
        value = self.text(name)
        if not value.isascii() or not value.isdigit():
            raise ConfigurationError(f"{name} is no number: {value!r}")
        return int(value)

    @property
    def account(self) -> str:
        """Return the registry's own account ID."""
        return self.text("ATTESTRY_ACCOUNT")

    @property
    def prefix(self) -> str:
        """Return the prefix of the names of roles and functions."""
        return self.environment.get("ATTESTRY_PREFIX") or "attestry"

    @property
    def table(self) -> str:
        """Return the name of the table."""
        return self.text("ATTESTRY_TABLE")

    @property
    def store(self) -> str:
        """Return the name of the model store's bucket."""
        return self.text("ATTESTRY_STORE")

    @property
    def scratch(self) -> str:
        """Return the name of the scratch bucket."""
        return self.text("ATTESTRY_SCRATCH")

    @property
    def pipeline_arn(self) -> str:
        """Return the ARN of the pipeline's state machine."""
        return self.text("ATTESTRY_PIPELINE_ARN")

    @property
    def decision_arn(self) -> str:
        """Return the ARN of the state machine with which people decide in the AWS console."""
        return self.text("ATTESTRY_DECISION_ARN")

    @property
    def topic_arn(self) -> str:
        """Return the ARN of the topic for notifications."""
        return self.text("ATTESTRY_TOPIC_ARN")

    @property
    def delegator_key(self) -> str:
        """Return the ARN of the key that signs delegations."""
        return self.text("ATTESTRY_DELEGATOR_KEY")

    @property
    def gate_function(self) -> str:
        """Return the name of the function that sends task tokens."""
        return self.text("ATTESTRY_GATE_FUNCTION")

    @property
    def deploy_function(self) -> str:
        """Return the name of the function that deploys."""
        return self.text("ATTESTRY_DEPLOY_FUNCTION")

    @property
    def inference_function(self) -> str:
        """Return the name of the function that runs models."""
        return self.text("ATTESTRY_INFERENCE_FUNCTION")

    @property
    def delegate_function(self) -> str:
        """Return the name of the function that signs delegations."""
        return self.text("ATTESTRY_DELEGATE_FUNCTION")

    @property
    def sandbox_memory_mib(self) -> int:
        """Return the memory of the sandbox function in MiB."""
        return self.number("ATTESTRY_SANDBOX_MEMORY_MIB")

    @property
    def tenant_isolation(self) -> bool:
        """Return whether functions that take a tenant are isolated by it: yes, unless ATTESTRY_TENANT_ISOLATION is `off`."""
        value = self.environment.get("ATTESTRY_TENANT_ISOLATION") or "on"
        if value not in ("on", "off"):
            raise ConfigurationError(f"ATTESTRY_TENANT_ISOLATION is `on` or `off`, not {value!r}")
        return value == "on"

    @property
    def retention(self) -> tuple[Literal["COMPLIANCE", "GOVERNANCE"], int] | None:
        """Return mode and days of the Object Lock of frozen files and evidence; None where the function locks nothing."""
        mode = self.environment.get("ATTESTRY_RETENTION_MODE", "")
        if not mode:
            return None
        if mode not in ("COMPLIANCE", "GOVERNANCE"):
            raise ConfigurationError(f"ATTESTRY_RETENTION_MODE is COMPLIANCE or GOVERNANCE, not {mode!r}")
        return cast("Literal['COMPLIANCE', 'GOVERNANCE']", mode), self.number("ATTESTRY_RETENTION_DAYS")
