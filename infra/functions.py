"""The registry's functions. What each is given to run with is in `infra/specs.py`, what each may do in `infra/permissions.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass

from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.function_maker import FunctionMaker
from infra.grants import Grants, unite_reads
from infra.keys import DERIVERS, READERS, SIGNING_KEYS, Keys
from infra.network import Isolation
from infra.permissions import PERMISSIONS
from infra.specs import SANDBOX_DISK_MIB, Spec, specs
from infra.witness import Witness


@dataclass(frozen=True)
class Told:
    """What functions are told about services that the registry may use, each as JSON."""

    jobs: str
    endpoints: str


class Functions(Construct):
    """The functions with their roles, log groups and dead-letter queues, and the keys that they sign with.

    Attributes:
        by_name: the functions.
        queues: dead-letter queues of the functions that events or messages invoke.
        signing_keys: the key of each function that signs.
        witness: the built-in witness of the ledger.
    """

    def __init__(self, scope: Construct, construct_id: str, grants: Grants, keys: Keys, isolation: Isolation | None, told: Told) -> None:
        super().__init__(scope, construct_id)
        self._config = grants.config
        self._told = told
        self._grants = grants
        maker = FunctionMaker(self, self._config, keys.data, isolation)
        self.witness = Witness(self, "Witness", self._config, keys.data)
        table = {name: spec for name, spec in specs(self._config).items() if name in PERMISSIONS}
        roles = {name: maker.add_role(name, spec, unite_reads(PERMISSIONS[name](grants))) for name, spec in table.items()}
        signers = {**roles, "witness": self.witness.role}
        self.signing_keys: dict[str, kms.Key] = {
            name: keys.add_signing_key(key, signer=signers[name], readers=[signers[reader] for reader in (*key.readers, *READERS)])
            for name, key in SIGNING_KEYS.items()
        }
        self._webhooks: dict[str, str] = {}
        if self._config.webhooks:
            key = keys.add_mac_key("webhooks", "webhooks' secrets", users=[roles[name] for name in DERIVERS])
            self._webhooks = {"ATTESTRY_DELIVERIES_URL": grants.outlets.queues().deliveries.queue_url, "ATTESTRY_WEBHOOK_KEY": key.key_arn}
        self.by_name: dict[str, lambda_.Function] = {
            name: maker.add_function(name, spec, roles[name], self._environment(name, spec)) for name, spec in table.items()
        }
        logs = {grants.names.ledger_origin: [self.signing_keys["sequence"].key_arn, *self._config.ledger_former_keys]}
        self.by_name["witness"] = self.witness.add_function(self.signing_keys["witness"], logs)
        self.queues = maker.queues
        if self._config.webhooks:
            queues = grants.outlets.queues()
            queues.deliver_by(self.by_name["deliver"])
            self.queues = {**maker.queues, "deliver": queues.undelivered}

    def _environment(self, name: str, spec: Spec) -> dict[str, str]:
        stores = self._grants.stores
        environment: dict[str, str] = {}
        if spec.table:
            environment["ATTESTRY_TABLE"] = stores.table.table_name
        if spec.store:
            environment["ATTESTRY_STORE"] = stores.store.bucket_name
        if spec.scratch:
            environment["ATTESTRY_SCRATCH"] = stores.scratch.bucket_name
        if spec.retains:
            environment["ATTESTRY_RETENTION_MODE"] = self._config.retention_mode
            environment["ATTESTRY_RETENTION_DAYS"] = str(self._config.retention_days)
        known = self._extra(name)
        return environment | {key: known[key] for key in spec.extra}

    def _extra(self, name: str) -> dict[str, str]:
        """Return the variables of `Spec.extra`; a key that a function signs with is its own."""
        names, keys = self._grants.names, self.signing_keys
        own = {"ATTESTRY_SIGNING_KEY": keys[name].key_arn} if name in keys else {}
        return (
            own
            | self._webhooks
            | {
                "ATTESTRY_API_URL_PARAMETER": names.api_url_parameter,
                "ATTESTRY_ARTIFACT_KEY": keys["sign_artifact"].key_arn,
                "ATTESTRY_BUS": names.bus,
                "ATTESTRY_CONSOLE_APPROVALS": self._config.console_approvals.value,
                "ATTESTRY_CONSOLE_MFA": "required" if self._config.console_mfa else "",
                "ATTESTRY_CUSTODY_FUNCTION": names.function("custody"),
                "ATTESTRY_DATA_BUCKETS": ",".join(self._config.data_buckets),
                "ATTESTRY_DECISION_ARN": names.state_machine_arn(names.decision),
                "ATTESTRY_DELEGATE_FUNCTION": names.function("delegate"),
                "ATTESTRY_DELEGATOR_KEY": keys["delegate"].key_arn,
                "ATTESTRY_DELIVER_FUNCTION": names.function("deliver"),
                "ATTESTRY_DEPLOY_FUNCTION": names.function("deploy"),
                "ATTESTRY_ENDPOINTS": self._told.endpoints,
                "ATTESTRY_EVALUATE_FUNCTION": names.function("evaluate"),
                "ATTESTRY_FOLDER_NAMING": self._config.folder_naming.value,
                "ATTESTRY_GATE_FUNCTION": names.function("gate"),
                "ATTESTRY_OPERATE_FUNCTION": names.function("operate"),
                "ATTESTRY_INFERENCE_FUNCTION": names.function("inference"),
                "ATTESTRY_JOBS": self._told.jobs,
                "ATTESTRY_KEYS": json.dumps({function: key.key_arn for function, key in sorted(keys.items())}),
                "ATTESTRY_LEDGER_FORMER_KEYS": json.dumps(self._config.ledger_former_keys),
                "ATTESTRY_LEDGER_KEY": keys["sequence"].key_arn,
                "ATTESTRY_LEDGER_ORIGIN": names.ledger_origin,
                "ATTESTRY_MLFLOW_POLICY": self._config.mlflow_policy.value,
                "ATTESTRY_PIPELINE_ARN": names.state_machine_arn(names.pipeline),
                "ATTESTRY_RECORD_FUNCTION": names.function("record_stage"),
                "ATTESTRY_REGISTER_FUNCTION": names.function("register"),
                "ATTESTRY_RUNBOOK": names.runbook if self._config.with_runbook else "",
                "ATTESTRY_SANDBOX_DISK_MIB": str(SANDBOX_DISK_MIB),
                "ATTESTRY_SANDBOX_MEMORY_MIB": str(self._config.sandbox_memory_mib),
                "ATTESTRY_SCORING_ARN": names.state_machine_arn(names.scoring),
                "ATTESTRY_SIGN_ARTIFACT_FUNCTION": names.function("sign_artifact"),
                "ATTESTRY_SIGNED_APPROVAL_TIERS": ",".join(self._config.signed_approval_tiers),
                "ATTESTRY_TELL_FUNCTION": names.function("tell"),
                "ATTESTRY_TOPIC_ARN": self._grants.topics.notifications.topic_arn,
                "ATTESTRY_UPLOADS_FUNCTION": names.function("uploads"),
                "ATTESTRY_WEBHOOKS_FUNCTION": names.function("webhooks") if self._config.webhooks else "",
                "ATTESTRY_WITNESSES": json.dumps(self._witnesses()),
            }
        )

    def _witnesses(self) -> list[dict[str, object]]:
        """Return the built-in witness, whose key the sequencer asks KMS for, and those of other accounts."""
        names = self._grants.names
        built_in = {"name": names.witness, "function": names.function("witness"), "vkey": "", "outside": False}
        return [built_in, *({**vars(witness), "outside": True} for witness in self._config.witnesses)]
