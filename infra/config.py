"""Configuration of a deployment, read from CDK context keys `attestry:<name>`; every value has a safe default.

Context values arrive as JSON values from cdk.json and as text from `cdk -c`, so both are understood. An unknown key or a value out of
range stops the synthesis with a sentence that names the key: a typing error must not turn a protection off in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from ipaddress import IPv4Network, ip_network
from typing import Any

from infra import endpoint_config
from infra.executor_config import broken_rule
from infra.witness_config import ED25519, LogConfig, WitnessConfig, vkey_name

CONTEXT_PREFIX = "attestry:"

LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
"""The periods that CloudWatch Logs offers."""


class ConfigError(ValueError):
    """A setting that cannot be used."""


class RetentionMode(StrEnum):
    """Object Lock modes; COMPLIANCE cannot be lifted by anybody before the period ends."""

    GOVERNANCE = "GOVERNANCE"
    COMPLIANCE = "COMPLIANCE"


class FolderNaming(StrEnum):
    """What follows the number in the name of a version's folder; the registry's own names for the same choice."""

    REVISION_AND_EXECUTION = "revision-execution"
    REVISION = "revision"
    EXECUTION = "execution"
    DATE = "date"


class Bundling(StrEnum):
    """What goes into the functions' archives: sources and dependencies, or sources alone (the embedded AWS has the dependencies)."""

    DEPENDENCIES = "dependencies"
    SOURCE = "source"


class MlflowPolicy(StrEnum):
    """The mode of models that are made through MLflow; the registry's own names for the same choice."""

    OPEN = "open"
    GOVERNED = "governed"


class ConsoleApprovals(StrEnum):
    """How people approve in the AWS console: by executions of RegistryDecision, by a runbook of Systems Manager, or by either."""

    DECISION = "decision"
    SSM = "ssm"
    BOTH = "both"


class StackKind(StrEnum):
    """Which stack is made: the registry, or a witness for the ledgers of registries in other accounts."""

    REGISTRY = "registry"
    WITNESS = "witness"


JsonObject = str
"""An object, as JSON."""


@dataclass(frozen=True)
class Config:
    """Settings of one deployment.

    Attributes:
        stack: which stack is made; the settings below are for the registry, but `prefix`, `bundling`, `log_retention_days`,
            `function_memory_mib`, `reserved_concurrency`, `deletion_protection` and `witness_logs` for the witness as well.
        prefix: start of the names of functions, roles and state machines; two deployments in one account need two prefixes.
        bundling: what the functions' archives hold; does not change the template.
        retention_mode: Object Lock mode of frozen files and evidence.
        retention_days: Object Lock period of frozen files and evidence.
        log_retention_days: how long log groups keep their entries.
        access_log_retention_days: how long S3 server access logs are kept.
        scratch_retention_days: after how many days the stages' working files expire.
        alarm_address: e-mail address that alarms go to; empty for none.
        vpc_isolation: put the functions that run registered code into subnets whose only way out is S3.
        vpc_cidr: addresses of that VPC, from /16 to /19; it is connected to nothing, so any private range will do.
        sandbox_memory_mib: memory of the function that runs a stage's script; CPU is in proportion.
        inference_memory_mib: memory of the function that serves predictions.
        function_memory_mib: memory of further functions by name; what is not named keeps what `infra/functions.py` gives it.
        approval_timeout_days: how long a version waits for its approval.
        decision_wait_seconds: how long a decision made in the AWS console waits for CloudTrail to say who made it.
        console_approvals: how people approve in the AWS console: `decision` for RegistryDecision, `ssm` for a runbook of Systems Manager,
            which the gate then starts for each version that waits, or `both`. What else RegistryDecision does it does in any case.
        console_mfa: ask for a second factor of who acts in the AWS console. AWS tells of one only where its own MFA was used: sessions of
            an identity provider, IAM Identity Center included, never have it.
        reserved_concurrency: cap the functions that must not take the whole account's concurrency, nor run beside themselves. An
            account whose own limit is still 10 (new accounts) has to turn this off.
        folder_naming: what follows the number in the name of a version's folder in the model store.
        mlflow_policy: mode of models that are made through MLflow: `governed`, or `open` with MLflow's own semantics.
        trusted_account: the account whose IAM users may assume the registry's roles; empty means the registry's own. One alone: the user
            name is the login, and two accounts may have a user of the same name.
        data_buckets: buckets outside the registry that manifests may name as source data.
        oidc_issuers: identity providers whose bearer tokens the API takes, each an object as JSON (docs/access.md); beside the IAM roles.
        user_pool: make a Cognito user pool, whose groups stand for the registry's roles.
        webhooks: have webhooks.
        batch_scoring: have files of rows scored.
        saml_metadata_url: where the metadata of a SAML provider is through which people sign in to the pool.
        deletion_protection: keep table, buckets and keys from being deleted with the stack.
        throttle_rate: requests per second that the API accepts in the steady state.
        throttle_burst: requests that the API accepts at once.
        signed_approval_tiers: risk tiers (low, medium, high) of which an approval counts only with the approver's own signature.
        ledger_former_keys: vkeys with which the ledger was signed before its present key; the newest last.
        witnesses: witnesses in other accounts that cosign the ledger's checkpoints, besides the built-in one.
        witness_logs: ledgers that the witness's stack is for, by their vkeys; two of one ledger while it changes its key.
        executors: where stages may run: `lambda` always, and `sagemaker`, `batch`, `emr-serverless` where they are named.
        job_models: models whose stages may run on SageMaker or EMR Serverless; each gets a role for its jobs.
        batch_images: images with digest that Batch may run; it takes them from job definitions and not with a job.
        emr_images: images with digest that EMR Serverless may run; it takes them from applications and not with a job.
        job_repositories: ECR repositories that jobs' images come from; a pattern ends in `*`.
        job_network_isolation: processing on SageMaker gets no network at all, as training and validation there never do.
        job_limit_hours: the longest that a script may run as a job.
        job_wait_hours: the longest that a job may wait for machines, start and end around its script.
        job_subnets: subnets of the account's own that jobs run in; by default those of the isolated network.
        job_security_groups: security groups to these.
        job_volume_key: KMS key of the volumes of SageMaker's machines; by default the service's own. Machines with disks of their own take
            none.
        batch_queue: a job queue of the account's own, for example with GPUs; by default one on Fargate, which has none, is made.
        batch_spot_queue: the same for spare capacity.
        batch_definitions: by image, the ARN of a job definition of the account's own; for `batch_images` one on Fargate is made.
        batch_max_vcpus: vCPUs that each queue made here may use at once.
        emr_applications: by image, the ID of an EMR Serverless application of the account's own; for `emr_images` one is made.
        emr_release: EMR release of those made here.
        emr_max_vcpus: vCPUs that each of them may use at once.
        deployment_targets: what may serve versions: `function` always, and `sagemaker` where it is named.
        endpoint_models: models that SageMaker may serve; each gets a role for its containers. Images, subnets and volumes follow the
            settings of jobs.
    """

    stack: StackKind = StackKind.REGISTRY
    prefix: str = "attestry"
    bundling: Bundling = Bundling.DEPENDENCIES
    retention_mode: RetentionMode = RetentionMode.GOVERNANCE
    retention_days: int = 365
    log_retention_days: int = 365
    access_log_retention_days: int = 365
    scratch_retention_days: int = 7
    alarm_address: str = ""
    vpc_isolation: bool = True
    vpc_cidr: str = "10.90.0.0/16"
    sandbox_memory_mib: int = 3008
    inference_memory_mib: int = 2048
    function_memory_mib: tuple[tuple[str, int], ...] = ()
    approval_timeout_days: int = 30
    decision_wait_seconds: int = 900
    console_approvals: ConsoleApprovals = ConsoleApprovals.DECISION
    console_mfa: bool = False
    reserved_concurrency: bool = True
    folder_naming: FolderNaming = FolderNaming.REVISION_AND_EXECUTION
    mlflow_policy: MlflowPolicy = MlflowPolicy.GOVERNED
    trusted_account: str = ""
    data_buckets: tuple[str, ...] = ()
    oidc_issuers: tuple[JsonObject, ...] = ()
    user_pool: bool = False
    webhooks: bool = True
    batch_scoring: bool = False
    saml_metadata_url: str = ""
    deletion_protection: bool = True
    throttle_rate: int = 200
    throttle_burst: int = 400
    signed_approval_tiers: tuple[str, ...] = ()
    ledger_former_keys: tuple[str, ...] = ()
    witnesses: tuple[WitnessConfig, ...] = ()
    witness_logs: tuple[LogConfig, ...] = ()
    executors: tuple[str, ...] = ("lambda",)
    job_models: tuple[str, ...] = ()
    batch_images: tuple[str, ...] = ()
    emr_images: tuple[str, ...] = ()
    job_repositories: tuple[str, ...] = ()
    job_network_isolation: bool = True
    job_limit_hours: int = 120
    job_wait_hours: int = 24
    job_subnets: tuple[str, ...] = ()
    job_security_groups: tuple[str, ...] = ()
    job_volume_key: str = ""
    batch_queue: str = ""
    batch_spot_queue: str = ""
    batch_definitions: tuple[tuple[str, str], ...] = ()
    batch_max_vcpus: int = 64
    emr_applications: tuple[tuple[str, str], ...] = ()
    emr_release: str = "emr-7.9.0"
    emr_max_vcpus: int = 400
    deployment_targets: tuple[str, ...] = ("function",)
    endpoint_models: tuple[str, ...] = ()

    @property
    def with_tokens(self) -> bool:
        """Whether the API takes bearer tokens."""
        return self.user_pool or bool(self.oidc_issuers)

    @property
    def with_runbook(self) -> bool:
        """Whether people approve in Systems Manager."""
        return self.console_approvals is not ConsoleApprovals.DECISION

    def __post_init__(self) -> None:
        _check_text(
            "prefix", self.prefix, r"[a-z][a-z0-9-]{1,18}[a-z0-9]", "3 to 20 lower-case letters, digits and hyphens, starting with a letter"
        )
        _check_range("retentionDays", self.retention_days, 1, 36500)
        _check_range("accessLogRetentionDays", self.access_log_retention_days, 1, 36500)
        _check_range("scratchRetentionDays", self.scratch_retention_days, 1, 365)
        _check_range("sandboxMemoryMib", self.sandbox_memory_mib, 512, 10240)
        _check_range("inferenceMemoryMib", self.inference_memory_mib, 512, 10240)
        _check_range("approvalTimeoutDays", self.approval_timeout_days, 1, 364)
        _check_range("decisionWaitSeconds", self.decision_wait_seconds, 10, 3600)
        _check_range("throttleRate", self.throttle_rate, 1, 10000)
        _check_range("throttleBurst", self.throttle_burst, 1, 5000)
        for function, memory in self.function_memory_mib:
            _check_range(f"functionMemoryMib: {function}", memory, 128, 10240)
        _check_network("vpcCidr", self.vpc_cidr)
        if self.log_retention_days not in LOG_RETENTION_DAYS:
            raise ConfigError(f"{CONTEXT_PREFIX}logRetentionDays must be one of {', '.join(map(str, LOG_RETENTION_DAYS))}")
        if self.alarm_address:
            _check_text("alarmAddress", self.alarm_address, r"[^@\s]+@[^@\s]+\.[^@\s]+", "an e-mail address")
        _check_sign_in(self)
        if self.trusted_account:
            _check_text("trustedAccount", self.trusted_account, r"\d{12}", "an account ID of 12 digits")
        for bucket in self.data_buckets:
            _check_text("dataBuckets", bucket, r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "bucket names")
        for tier in self.signed_approval_tiers:
            _check_text("signedApprovalTiers", tier, r"low|medium|high", "of low, medium and high")
        for vkey in self.ledger_former_keys:
            _check_vkey("ledgerFormerKeys", vkey)
        if len({witness.name for witness in self.witnesses}) < len(self.witnesses) or len(self.witnesses) > 5:
            raise ConfigError(f"{CONTEXT_PREFIX}witnesses are at most five, each under a name of its own")
        if len(set(self.witness_logs)) < len(self.witness_logs) or len(self.witness_logs) > 5:
            raise ConfigError(f"{CONTEXT_PREFIX}witnessLogs are at most five, each named once")
        if self.stack is StackKind.WITNESS and not self.witness_logs:
            raise ConfigError(f"{CONTEXT_PREFIX}witnessLogs must name a ledger where {CONTEXT_PREFIX}stack is {self.stack}")
        if broken := broken_rule(self) or endpoint_config.broken_rule(self):
            raise ConfigError(f"{CONTEXT_PREFIX}{_camel(broken[0])} {broken[1]}")

    @classmethod
    def from_context(cls, context: Mapping[str, Any]) -> Config:
        """Return the settings that the context gives, defaults for the rest.

        Raises:
            ConfigError: an unknown key, or a value that is not allowed.
        """
        names = {_camel(f.name): f for f in fields(cls)}
        given = {key.removeprefix(CONTEXT_PREFIX): value for key, value in context.items() if key.startswith(CONTEXT_PREFIX)}
        if unknown := sorted(set(given) - set(names)):
            raise ConfigError(f"unknown setting {CONTEXT_PREFIX}{unknown[0]}; known are {', '.join(sorted(names))}")
        return cls(**{names[key].name: _READERS[str(names[key].type)](key, value) for key, value in given.items()})


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _read_bool(key: str, value: object) -> bool:
    if value in (True, "true", "True"):
        return True
    if value in (False, "false", "False"):
        return False
    raise ConfigError(f"{CONTEXT_PREFIX}{key} must be true or false")


def _read_int(key: str, value: object) -> int:
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", text):
        raise ConfigError(f"{CONTEXT_PREFIX}{key} must be a whole number")
    return int(text)


def _parse(key: str, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{CONTEXT_PREFIX}{key} is no JSON: {error}") from error


def _read_names(key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = _parse(key, value) if value.startswith("[") else [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ConfigError(f"{CONTEXT_PREFIX}{key} must be a list of texts")
    return tuple(value)


def _read_amounts(key: str, value: object) -> tuple[tuple[str, int], ...]:
    """Read whole numbers by name: an object, or the text of one, or `name=1,other=2`."""
    if isinstance(value, str):
        pairs = [part.partition("=")[::2] for part in value.split(",") if part.strip()]
        value = _parse(key, value) if value.startswith("{") else {name.strip(): amount.strip() for name, amount in pairs}
    if not isinstance(value, dict):
        raise ConfigError(f"{CONTEXT_PREFIX}{key} must be whole numbers by name")
    return tuple(sorted((str(name), _read_int(f"{key}: {name}", amount)) for name, amount in value.items()))


def _read_texts(key: str, value: object) -> tuple[tuple[str, str], ...]:
    found = _parse(key, value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise ConfigError(f"{CONTEXT_PREFIX}{key} must be an object of texts by name")
    return tuple(sorted((str(name), _read_text(f"{key}: {name}", text)) for name, text in found.items()))


def _read_objects(key: str, value: object) -> tuple[JsonObject, ...]:
    found = _parse(key, value) if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ConfigError(f"{CONTEXT_PREFIX}{key} must be a list of objects")
    return tuple(json.dumps(entry, sort_keys=True) for entry in found)


def _read_witnesses(key: str, value: object) -> tuple[WitnessConfig, ...]:
    found = _parse(key, value) if isinstance(value, str) else value
    names = {field.name for field in fields(WitnessConfig)}
    if not isinstance(found, list) or not all(isinstance(entry, dict) and set(entry) == names for entry in found):
        raise ConfigError(f"{CONTEXT_PREFIX}{key} must be a list of objects of name, function and vkey")
    texts = [{name: _read_text(key, text) for name, text in entry.items()} for entry in found]
    try:
        return tuple(WitnessConfig(**entry) for entry in texts)
    except ValueError as error:
        raise ConfigError(f"{CONTEXT_PREFIX}{key}: {error}") from error


def _read_logs(key: str, value: object) -> tuple[LogConfig, ...]:
    names = _read_names(key, value)
    try:
        return tuple(LogConfig(text) for text in names)
    except ValueError as error:
        raise ConfigError(f"{CONTEXT_PREFIX}{key}: {error}") from error


def _read_text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{CONTEXT_PREFIX}{key} must be a text")
    return value


def _one_of(kind: type[StrEnum]) -> Callable[[str, object], StrEnum]:
    def read(key: str, value: object) -> StrEnum:
        try:
            return kind(str(value))
        except ValueError as error:
            raise ConfigError(f"{CONTEXT_PREFIX}{key} must be one of {', '.join(kind)}") from error

    return read


_READERS: dict[str, Callable[[str, object], Any]] = {
    "bool": _read_bool,
    "int": _read_int,
    "str": _read_text,
    "tuple[str, ...]": _read_names,
    "tuple[tuple[str, int], ...]": _read_amounts,
    "tuple[tuple[str, str], ...]": _read_texts,
    "tuple[JsonObject, ...]": _read_objects,
    "tuple[WitnessConfig, ...]": _read_witnesses,
    "tuple[LogConfig, ...]": _read_logs,
    "ConsoleApprovals": _one_of(ConsoleApprovals),
    "StackKind": _one_of(StackKind),
    "RetentionMode": _one_of(RetentionMode),
    "Bundling": _one_of(Bundling),
    "FolderNaming": _one_of(FolderNaming),
    "MlflowPolicy": _one_of(MlflowPolicy),
}


def _check_range(key: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{CONTEXT_PREFIX}{key} must be from {low} to {high}, not {value}")


def _check_network(key: str, value: str) -> None:
    try:
        network = ip_network(value)
    except ValueError as error:
        raise ConfigError(f"{CONTEXT_PREFIX}{key} must be a network such as 10.90.0.0/16, not {value!r}") from error
    if not (isinstance(network, IPv4Network) and network.is_private and 16 <= network.prefixlen <= 19):
        raise ConfigError(f"{CONTEXT_PREFIX}{key} must be a private IPv4 network from /16 to /19, not {value!r}")


def _check_sign_in(config: Config) -> None:
    for issuer in config.oidc_issuers:
        _check_issuer("oidcIssuers", json.loads(issuer))
    if config.saml_metadata_url:
        _check_text("samlMetadataUrl", config.saml_metadata_url, r"https://\S+", "an HTTPS address")
        if not config.user_pool:
            raise ConfigError(f"{CONTEXT_PREFIX}samlMetadataUrl needs {CONTEXT_PREFIX}userPool: SAML goes through the pool")


def _check_issuer(key: str, entry: Mapping[str, Any]) -> None:
    """Check what the function would refuse as well, so that a deployment and not a caller hears of it."""
    _check_text(
        f"{key}: alias", str(entry.get("alias", "")), r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", "lower-case letters, digits and hyphens"
    )
    _check_text(f"{key}: issuer", str(entry.get("issuer", "")), r"https://\S+|http://(127\.0\.0\.1|localhost)[:/]\S*", "an HTTPS address")
    audiences = entry.get("audiences")
    if not isinstance(audiences, list) or not audiences:
        raise ConfigError(f"{CONTEXT_PREFIX}{key}: {entry.get('alias')} needs audiences")


def _check_vkey(key: str, value: str) -> None:
    try:
        vkey_name(value, ED25519)
    except ValueError as error:
        raise ConfigError(f"{CONTEXT_PREFIX}{key}: {error}") from error


def _check_text(key: str, value: str, pattern: str, rule: str) -> None:
    if not re.fullmatch(pattern, value):
        raise ConfigError(f"{CONTEXT_PREFIX}{key} must be {rule}, not {value!r}")
