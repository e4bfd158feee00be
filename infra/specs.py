"""What each function runs with: time, memory, archive, environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from infra.bundling import REGISTRY, SANDBOX, SIGNING
from infra.config import CONTEXT_PREFIX, Config, ConfigError
from infra.endpoint_config import with_endpoints
from infra.events_out import DELIVER_SECONDS

SANDBOX_DISK_MIB = 10240
"""Ephemeral disk for an unpacked environment, inputs and outputs; the most that Lambda has."""

API_SECONDS = 29
"""Below the gateway's 30 seconds, so that a caller gets our answer and not the gateway's timeout."""

WEBHOOK_FUNCTIONS = ("deliver", "webhooks")
"""What there is for webhooks alone."""

ENDPOINT_FUNCTIONS = ("deploy", "predict", "register")
"""What is told about endpoints of SageMaker."""

_LEDGER = ("ATTESTRY_LEDGER_FORMER_KEYS", "ATTESTRY_LEDGER_KEY", "ATTESTRY_LEDGER_ORIGIN")
"""What it takes to check the ledger's checkpoints."""


@dataclass(frozen=True)
class Spec:
    """What a function runs with.

    Attributes:
        what: one line for the console.
        seconds: timeout.
        memory_mib: memory; CPU is in proportion.
        storage_mib: ephemeral disk.
        reserved: reserved concurrency, or None.
        archive: name of the archive that holds its code.
        tenants: a fresh execution environment per tenant ID.
        asynchronous: invoked by events: what fails twice goes to a dead-letter queue.
        table, store, scratch, retains: which environment it is given.
        extra: names of further environment variables, see `Functions`.
    """

    what: str
    seconds: int
    memory_mib: int = 512
    storage_mib: int = 512
    reserved: int | None = None
    archive: str = REGISTRY
    tenants: bool = False
    asynchronous: bool = False
    table: bool = True
    store: bool = False
    scratch: bool = False
    retains: bool = False
    extra: tuple[str, ...] = ()

    @property
    def untrusted(self) -> bool:
        """Whether it runs registered code: no permissions, no environment, isolated subnets."""
        return self.archive == SANDBOX


def specs(config: Config) -> Mapping[str, Spec]:
    """Return every function by name, which is also the name of its module below lambdas/.

    Raises:
        infra.config.ConfigError: memory for a function that is not there, or that has a setting of its own.
    """
    table, given = _stages(config) | _serving(config) | _people() | _evidence(), dict(config.function_memory_mib)
    if not config.webhooks:
        table = {name: spec for name, spec in table.items() if name not in WEBHOOK_FUNCTIONS}
        table["tell"] = replace(table["tell"], extra=("ATTESTRY_BUS",))
    if config.batch_scoring:
        table["deploy"] = replace(table["deploy"], scratch=True)
        table["predict"] = replace(table["predict"], scratch=True, extra=(*table["predict"].extra, "ATTESTRY_SCORING_ARN"))
    if with_endpoints(config):
        for name in ENDPOINT_FUNCTIONS:
            table[name] = replace(table[name], extra=(*table[name].extra, "ATTESTRY_ENDPOINTS"))
    for name in given:
        if name not in table or table[name].untrusted:
            settable = ", ".join(sorted(known for known, spec in table.items() if not spec.untrusted))
            raise ConfigError(f"{CONTEXT_PREFIX}functionMemoryMib: {name!r} is none of {settable}")
    return {name: replace(table[name], memory_mib=given.get(name, table[name].memory_mib)) for name in sorted(table)}


def _attests(spec: Spec) -> Spec:
    """Give a function what it needs to sign attestations and to write them into a version's evidence, under Object Lock."""
    return replace(spec, store=True, retains=True, extra=("ATTESTRY_SIGNING_KEY", *spec.extra))


def _stages(config: Config) -> dict[str, Spec]:
    """Return what makes a version out of an upload."""
    return {
        "build_environment": Spec(
            "Builds environment archives from lock files", 900, 2048, 4096, reserved=5, table=False, store=True, retains=True
        ),
        "evaluate": Spec("Computes metrics from untrusted outputs", 900, 3008, 10240, reserved=10, table=False, store=True, scratch=True),
        "gate": _attests(
            Spec(
                "Waits for decisions and sends task tokens",
                60,
                1024,
                extra=(
                    "ATTESTRY_CONSOLE_APPROVALS",
                    "ATTESTRY_DECISION_ARN",
                    "ATTESTRY_PIPELINE_ARN",
                    "ATTESTRY_RUNBOOK",
                    "ATTESTRY_TOPIC_ARN",
                ),
            )
        ),
        "prepare_stage": _attests(
            Spec(
                "Prepares a stage's job",
                900,
                1024,
                2048,
                scratch=True,
                extra=("ATTESTRY_DATA_BUCKETS", "ATTESTRY_JOBS", "ATTESTRY_SANDBOX_DISK_MIB", "ATTESTRY_SANDBOX_MEMORY_MIB"),
            )
        ),
        "record_stage": _attests(
            Spec(
                "Digests, freezes and records a stage, and what is imported",
                900,
                1024,
                10240,
                scratch=True,
                extra=("ATTESTRY_GATE_FUNCTION", "ATTESTRY_SIGN_ARTIFACT_FUNCTION", "ATTESTRY_TOPIC_ARN"),
            )
        ),
        "register": _attests(
            Spec(
                "Makes versions of manifests, imports, new data, schedules and alarms",
                900,
                1024,
                2048,
                asynchronous=True,
                extra=(
                    "ATTESTRY_FOLDER_NAMING",
                    "ATTESTRY_JOBS",
                    "ATTESTRY_PIPELINE_ARN",
                    "ATTESTRY_RECORD_FUNCTION",
                    "ATTESTRY_SANDBOX_MEMORY_MIB",
                    "ATTESTRY_SIGNED_APPROVAL_TIERS",
                    "ATTESTRY_TOPIC_ARN",
                ),
            )
        ),
        "sandbox": Spec(
            "Runs a stage's script; no permissions",
            900,
            config.sandbox_memory_mib,
            SANDBOX_DISK_MIB,
            reserved=20,
            archive=SANDBOX,
            table=False,
        ),
        "sign_artifact": Spec(
            "Signs a version's files with OpenSSF Model Signing",
            120,
            1024,
            archive=SIGNING,
            table=False,
            store=True,
            retains=True,
            extra=("ATTESTRY_ARTIFACT_KEY",),
        ),
        "sweep": Spec(
            "Finds what was left between",
            240,
            reserved=1,
            asynchronous=True,
            extra=(
                "ATTESTRY_CUSTODY_FUNCTION",
                "ATTESTRY_GATE_FUNCTION",
                "ATTESTRY_OPERATE_FUNCTION",
                "ATTESTRY_PIPELINE_ARN",
                "ATTESTRY_RECORD_FUNCTION",
            ),
        ),
    }


def _serving(config: Config) -> dict[str, Spec]:
    """Return what deploys, predicts, and keeps the receipts."""
    return {
        "collect": Spec("Archives receipts and captured payloads", 300, 1024, reserved=1, asynchronous=True, store=True, retains=True),
        "delegate": Spec("Signs delegations of prediction keys", 10, extra=("ATTESTRY_DELEGATOR_KEY",)),
        "deploy": _attests(
            Spec("Warms a version, swaps the pointer, watches rollouts", 600, asynchronous=True, extra=("ATTESTRY_INFERENCE_FUNCTION",))
        ),
        "inference": Spec(
            "Serves versions; no permissions",
            300,
            config.inference_memory_mib,
            SANDBOX_DISK_MIB,
            archive=SANDBOX,
            tenants=True,
            table=False,
        ),
        "predict": Spec(
            "API: predictions with receipts; shadows",
            API_SECONDS,
            1024,
            asynchronous=True,
            store=True,
            extra=("ATTESTRY_INFERENCE_FUNCTION", "ATTESTRY_DELEGATE_FUNCTION"),
        ),
    }


def _people() -> dict[str, Spec]:
    """Return what people and services call, and what decides."""
    checks = ("ATTESTRY_DELEGATOR_KEY", "ATTESTRY_KEYS", *_LEDGER)
    return {
        "authenticate": Spec("API: checks bearer tokens", 10),
        "bundle": Spec("API: evidence bundles", API_SECONDS, 2048, 2048, store=True, scratch=True, extra=checks),
        "catalogue": Spec("API: descriptions, tags, aliases, labels, remarks", API_SECONDS),
        "console_decision": _attests(
            Spec(
                "Takes decisions made in the AWS console",
                60,
                asynchronous=True,
                extra=(
                    "ATTESTRY_CONSOLE_APPROVALS",
                    "ATTESTRY_CONSOLE_MFA",
                    "ATTESTRY_DECISION_ARN",
                    "ATTESTRY_GATE_FUNCTION",
                    "ATTESTRY_RUNBOOK",
                ),
            )
        ),
        "deliver": Spec(
            "Delivers events to webhooks",
            DELIVER_SECONDS,
            store=True,
            extra=("ATTESTRY_DELIVERIES_URL", "ATTESTRY_WEBHOOK_KEY"),
        ),
        "describe": Spec("API: its own description; no permissions", API_SECONDS, table=False),
        "custody": _attests(Spec("API: legal holds and disposals; locks and deletes objects", API_SECONDS, 1024, asynchronous=True)),
        "decide": _attests(
            Spec("API: approve, reject and validate", API_SECONDS, extra=("ATTESTRY_EVALUATE_FUNCTION", "ATTESTRY_GATE_FUNCTION"))
        ),
        "mlflow": Spec(
            "API: MLflow's model registry",
            API_SECONDS,
            1024,
            store=True,
            extra=(
                "ATTESTRY_API_URL_PARAMETER",
                "ATTESTRY_MLFLOW_POLICY",
                "ATTESTRY_OPERATE_FUNCTION",
                "ATTESTRY_UPLOADS_FUNCTION",
                "ATTESTRY_WEBHOOKS_FUNCTION",
            ),
        ),
        "operate": _attests(
            Spec(
                "Deployment, rollout, rollback, retry, redo, hold, release, kill, retirement, capture: API and AWS console",
                API_SECONDS,
                extra=(
                    "ATTESTRY_CONSOLE_MFA",
                    "ATTESTRY_DECISION_ARN",
                    "ATTESTRY_DEPLOY_FUNCTION",
                    "ATTESTRY_GATE_FUNCTION",
                    "ATTESTRY_PIPELINE_ARN",
                    "ATTESTRY_REGISTER_FUNCTION",
                    "ATTESTRY_TOPIC_ARN",
                ),
            )
        ),
        "people": Spec("API: persons and their logins", API_SECONDS),
        "registry": Spec("API: reads", API_SECONDS, 1024, store=True, extra=checks),
        "root": Spec(
            "API: the root of trust",
            API_SECONDS,
            store=True,
            retains=True,
            extra=("ATTESTRY_KEYS", "ATTESTRY_LEDGER_ORIGIN", "ATTESTRY_WITNESSES"),
        ),
        "runs": Spec("API: development runs", API_SECONDS),
        "uploads": Spec("API: upload URLs, submissions, imports", API_SECONDS, store=True, extra=("ATTESTRY_REGISTER_FUNCTION",)),
        "webhooks": Spec(
            "API: webhooks", API_SECONDS, extra=("ATTESTRY_DELIVERIES_URL", "ATTESTRY_DELIVER_FUNCTION", "ATTESTRY_WEBHOOK_KEY")
        ),
    }


def _evidence() -> dict[str, Spec]:
    """Return what keeps the ledger and compares with it."""
    return {
        "reconcile": Spec(
            "Compares table, ledger and store",
            900,
            1024,
            reserved=1,
            asynchronous=True,
            store=True,
            extra=_LEDGER,
        ),
        "sequence": Spec(
            "Appends events to the ledger",
            120,
            1024,
            reserved=1,
            asynchronous=True,
            store=True,
            retains=True,
            extra=(*_LEDGER, "ATTESTRY_TELL_FUNCTION", "ATTESTRY_WITNESSES"),
        ),
        "tell": Spec(
            "Tells what stands in the ledger outside",
            120,
            reserved=1,
            asynchronous=True,
            store=True,
            extra=("ATTESTRY_BUS", "ATTESTRY_DELIVERIES_URL"),
        ),
        "witness": Spec("Cosigns checkpoints of the ledger", 30, table=False),
    }
