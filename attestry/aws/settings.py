"""What a function is told by its environment.

A function has only the variables that its role can use, so each is read when it is asked for, and its absence is an error then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from attestry.aws.errors import ConfigurationError
from attestry.domain.errors import InvalidInputError

if TYPE_CHECKING:
    from attestry.access.issuers import Issuer
    from attestry.domain.endpoints import EndpointSettings
    from attestry.domain.jobs import JobSettings


@dataclass(frozen=True)
class WitnessSetting:
    """A witness of the ledger.

    Attributes:
        name: its key's name.
        function: name or ARN of its function.
        vkey: its verifier key; empty for the registry's own, whose key no setting names.
        outside: whether it stands in an account that the registry's owner does not control.
    """

    name: str
    function: str
    vkey: str = ""
    outside: bool = False


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
    def scoring_arn(self) -> str:
        """Return the ARN of the state machine that scores files."""
        return self.text("ATTESTRY_SCORING_ARN")

    @property
    def decision_arn(self) -> str:
        """Return the ARN of the state machine with which people decide in the AWS console."""
        return self.text("ATTESTRY_DECISION_ARN")

    @property
    def topic_arn(self) -> str:
        """Return the ARN of the topic for notifications."""
        return self.text("ATTESTRY_TOPIC_ARN")

    @property
    def console_approvals(self) -> frozenset[str]:
        """Return the ways in which people approve in the AWS console: ATTESTRY_CONSOLE_APPROVALS, `decision`, `ssm` or `both`."""
        value = self.environment.get("ATTESTRY_CONSOLE_APPROVALS") or "decision"
        ways = {"decision": ("decision",), "ssm": ("ssm",), "both": ("decision", "ssm")}
        if value not in ways:
            raise ConfigurationError(f"ATTESTRY_CONSOLE_APPROVALS is `decision`, `ssm` or `both`, not {value!r}")
        return frozenset(ways[value])

    @property
    def runbook(self) -> str:
        """Return the name of the approval runbook in Systems Manager."""
        return self.text("ATTESTRY_RUNBOOK")

    @property
    def api_url(self) -> str:
        """Return where the API answers; empty where the function is not told."""
        return self.environment.get("ATTESTRY_API_URL", "")

    @property
    def api_url_parameter(self) -> str:
        """Return the name of the parameter that tells where the API answers."""
        return self.text("ATTESTRY_API_URL_PARAMETER")

    @property
    def mlflow_policy(self) -> str:
        """Return the mode of models that are made through MLflow: `governed` or `open`."""
        value = self.text("ATTESTRY_MLFLOW_POLICY")
        if value not in ("open", "governed"):
            raise ConfigurationError(f"ATTESTRY_MLFLOW_POLICY is `open` or `governed`, not {value!r}")
        return value

    @property
    def console_mfa(self) -> bool:
        """Return whether who acts in the AWS console needs a session with a second factor: ATTESTRY_CONSOLE_MFA, `required` or nothing."""
        value = self.environment.get("ATTESTRY_CONSOLE_MFA", "")
        if value not in ("", "required"):
            raise ConfigurationError(f"ATTESTRY_CONSOLE_MFA is `required` or empty, not {value!r}")
        return value == "required"

    @property
    def delegator_key(self) -> str:
        """Return the ARN of the key that signs delegations."""
        return self.text("ATTESTRY_DELEGATOR_KEY")

    @property
    def signing_key(self) -> str:
        """Return the ARN of the function's own key, with which it attests the moves that it makes."""
        return self.text("ATTESTRY_SIGNING_KEY")

    @property
    def ledger_key(self) -> str:
        """Return the ARN of the key that signs checkpoints of the ledger."""
        return self.text("ATTESTRY_LEDGER_KEY")

    @property
    def ledger_origin(self) -> str:
        """Return the identity of the ledger, the first line of its checkpoints."""
        return self.text("ATTESTRY_LEDGER_ORIGIN")

    @property
    def ledger_former_keys(self) -> tuple[str, ...]:
        """Return the verifier keys that signed checkpoints before the present one: ATTESTRY_LEDGER_FORMER_KEYS, a JSON list."""
        keys = self._json_list("ATTESTRY_LEDGER_FORMER_KEYS")
        if not all(isinstance(k, str) for k in keys):
            raise ConfigurationError("ATTESTRY_LEDGER_FORMER_KEYS is a JSON list of verifier keys")
        return tuple(keys)

    @property
    def witnesses(self) -> tuple[WitnessSetting, ...]:
        """Return who is asked to cosign checkpoints: ATTESTRY_WITNESSES, a JSON list of objects; without it, nobody."""
        try:
            return tuple(WitnessSetting(**entry) for entry in self._json_list("ATTESTRY_WITNESSES"))
        except TypeError as error:
            raise ConfigurationError("a witness in ATTESTRY_WITNESSES has name, function, vkey and outside") from error

    def _json_list(self, name: str) -> list[Any]:
        try:
            value = json.loads(self.environment.get(name) or "[]")
        except ValueError as error:
            raise ConfigurationError(f"{name} is not JSON") from error
        if not isinstance(value, list):
            raise ConfigurationError(f"{name} is a JSON list")
        return value

    @property
    def jobs(self) -> JobSettings:
        """Return what the deployment says about jobs of other services: ATTESTRY_JOBS, a JSON object; without it, there are none."""
        # Here alone: most functions start without it, the signing path above all.
        from attestry.domain.jobs import JobSettings

        try:
            told = json.loads(self.environment.get("ATTESTRY_JOBS") or "{}")
            return JobSettings.from_item(told if told.get("bucket") else {**told, "bucket": self.environment.get("ATTESTRY_SCRATCH", "")})
        except (ValueError, AttributeError) as error:
            raise ConfigurationError("ATTESTRY_JOBS is a JSON object") from error
        except InvalidInputError as error:
            raise ConfigurationError(f"ATTESTRY_JOBS: {error.message}") from error

    @property
    def endpoints(self) -> EndpointSettings:
        """Return what the deployment says about SageMaker's endpoints: ATTESTRY_ENDPOINTS, a JSON object; without it, there are none."""
        # Here alone, as above.
        from attestry.domain.endpoints import EndpointSettings

        try:
            return EndpointSettings.from_item(json.loads(self.environment.get("ATTESTRY_ENDPOINTS") or "{}"))
        except (ValueError, AttributeError) as error:
            raise ConfigurationError("ATTESTRY_ENDPOINTS is a JSON object") from error
        except InvalidInputError as error:
            raise ConfigurationError(f"ATTESTRY_ENDPOINTS: {error.message}") from error

    @property
    def has_endpoints(self) -> bool:
        """Return whether versions may be served by SageMaker."""
        return bool(self.environment.get("ATTESTRY_ENDPOINTS"))

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """Return whose bearer tokens count: ATTESTRY_OIDC, a JSON list of objects; without it, nobody's."""
        # Here alone, as above: it is the authorizer's.
        from attestry.access.issuers import read_issuers

        try:
            return read_issuers(self._json_list("ATTESTRY_OIDC"))
        except (InvalidInputError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"ATTESTRY_OIDC: {error}") from error

    @property
    def deliver_function(self) -> str:
        """Return the name of the function that delivers to webhooks."""
        return self.text("ATTESTRY_DELIVER_FUNCTION")

    @property
    def webhooks_function(self) -> str:
        """Return the name of the function that keeps webhooks; empty where the deployment has none."""
        return self.environment.get("ATTESTRY_WEBHOOKS_FUNCTION", "")

    @property
    def evaluate_function(self) -> str:
        """Return the name of the function that computes trials."""
        return self.text("ATTESTRY_EVALUATE_FUNCTION")

    @property
    def gate_function(self) -> str:
        """Return the name of the function that sends task tokens."""
        return self.text("ATTESTRY_GATE_FUNCTION")

    @property
    def bus(self) -> str:
        """Return the name of the bus on which events are told."""
        return self.text("ATTESTRY_BUS")

    @property
    def deliveries_url(self) -> str:
        """Return the URL of the queue of deliveries to webhooks."""
        return self.text("ATTESTRY_DELIVERIES_URL")

    @property
    def has_webhooks(self) -> bool:
        """Return whether the deployment has webhooks."""
        return bool(self.environment.get("ATTESTRY_DELIVERIES_URL"))

    @property
    def webhook_key(self) -> str:
        """Return the ARN of the key that webhooks' secrets are derived by."""
        return self.text("ATTESTRY_WEBHOOK_KEY")

    @property
    def webhook_loopback(self) -> bool:
        """Return whether webhooks may go to the loopback address, by http: ATTESTRY_WEBHOOK_LOOPBACK, `on` or nothing.

        The embedded AWS sets it; no setting of a deployment does.
        """
        return self.environment.get("ATTESTRY_WEBHOOK_LOOPBACK", "") == "on"

    @property
    def own_ports(self) -> frozenset[int]:
        """Return the port of the embedded AWS's endpoint, if this is one."""
        port = urlsplit(self.environment.get("AWS_ENDPOINT_URL", "")).port
        return frozenset({port} if port else ())

    @property
    def tell_function(self) -> str:
        """Return the name of the function that tells events outside."""
        return self.text("ATTESTRY_TELL_FUNCTION")

    @property
    def api_id(self) -> str:
        """Return the ID of the HTTP API, under which its gateway counts."""
        return self.text("ATTESTRY_API_ID")

    @property
    def custody_function(self) -> str:
        """Return the name of the function that locks and disposes objects."""
        return self.text("ATTESTRY_CUSTODY_FUNCTION")

    @property
    def operate_function(self) -> str:
        """Return the name of the function that kills and retires versions."""
        return self.text("ATTESTRY_OPERATE_FUNCTION")

    @property
    def uploads_function(self) -> str:
        """Return the name of the function that takes uploads and imports."""
        return self.text("ATTESTRY_UPLOADS_FUNCTION")

    @property
    def register_function(self) -> str:
        """Return the name of the function that makes versions."""
        return self.text("ATTESTRY_REGISTER_FUNCTION")

    @property
    def record_function(self) -> str:
        """Return the name of the function that records stages and freezes versions."""
        return self.text("ATTESTRY_RECORD_FUNCTION")

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
    def sign_artifact_function(self) -> str:
        """Return the name of the function that signs the files of versions."""
        return self.text("ATTESTRY_SIGN_ARTIFACT_FUNCTION")

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
    def signed_approval_tiers(self) -> frozenset[str]:
        """Return the risk tiers whose approvals need the approvers' own signatures: ATTESTRY_SIGNED_APPROVAL_TIERS, a comma between two."""
        value = self.environment.get("ATTESTRY_SIGNED_APPROVAL_TIERS", "")
        tiers = frozenset(part.strip() for part in value.split(",") if part.strip())
        if tiers - {"low", "medium", "high"}:
            raise ConfigurationError(f"ATTESTRY_SIGNED_APPROVAL_TIERS names low, medium and high alone, not {value!r}")
        return tiers

    @property
    def retention(self) -> tuple[Literal["COMPLIANCE", "GOVERNANCE"], int] | None:
        """Return mode and days of the Object Lock of frozen files and evidence; None where the function locks nothing."""
        mode = self.environment.get("ATTESTRY_RETENTION_MODE", "")
        if not mode:
            return None
        if mode not in ("COMPLIANCE", "GOVERNANCE"):
            raise ConfigurationError(f"ATTESTRY_RETENTION_MODE is COMPLIANCE or GOVERNANCE, not {mode!r}")
        return cast("Literal['COMPLIANCE', 'GOVERNANCE']", mode), self.number("ATTESTRY_RETENTION_DAYS")
