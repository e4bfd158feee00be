"""The ports of one function, from its environment: each made when first used."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from attestry.aws.clients import Clients
from attestry.aws.clock import SystemClock
from attestry.aws.errors import ConfigurationError
from attestry.aws.functions import LambdaFunctions
from attestry.aws.idempotency import IdempotentAnswers
from attestry.aws.meta_store import DynamoMetaStore
from attestry.aws.object_store import S3ObjectStore
from attestry.aws.settings import Settings
from attestry.aws.signer import KmsNoteSigner, KmsSigner

if TYPE_CHECKING:
    from attestry.aws.alarms import CloudWatchAlarms
    from attestry.aws.audit import AuditNotes
    from attestry.aws.automations import SsmAutomations
    from attestry.aws.deliveries import SqsDeliveries
    from attestry.aws.endpoints import SageMakerEndpoints, SageMakerRuntime
    from attestry.aws.event_bus import EventBridgeBus
    from attestry.aws.executions import StepFunctionsExecutions
    from attestry.aws.guard import Guard
    from attestry.aws.mac import KmsMacKey
    from attestry.aws.notifier import SnsNotifier
    from attestry.aws.object_custody import S3ObjectCustody
    from attestry.aws.parameters import SsmParameters
    from attestry.aws.pipeline import StepFunctionsPipeline
    from attestry.aws.trail import CloudTrailTrail
    from attestry.aws.webhook_sender import WebhookSender
    from attestry.aws.witnesses import LambdaWitnesses
    from attestry.evidence.attestor import Attestor


class World:
    """Everything outside that a handler may hand to a use case.

    A handler keeps one for the life of its process and uses the ports that its role allows; the others are never made, and the adapters
    that few functions need are not even imported, for which every cold start would wait.

    Args:
        settings: by default, of the environment.
        clients: by default, with the process's own credentials.
        call_seconds: how long a call of another function may take, where `clients` is not given.
    """

    def __init__(self, settings: Settings | None = None, clients: Clients | None = None, *, call_seconds: int | None = None) -> None:
        self.settings = settings or Settings.from_environment()
        self.clients = clients or (Clients(call_seconds=call_seconds) if call_seconds else Clients())
        self.clock = SystemClock()

    @cached_property
    def meta(self) -> DynamoMetaStore:
        """Return the table."""
        return DynamoMetaStore(self.clients.dynamodb, self.settings.table)

    @cached_property
    def audit(self) -> AuditNotes:
        """Return where audited acts are noted down: what was denied, and reads that an auditor would ask for."""
        from attestry.aws.audit import AuditNotes

        return AuditNotes(self.meta, self.clock, account=self.settings.account, prefix=self.settings.prefix)

    @cached_property
    def guard(self) -> Guard:
        """Return the gate that requests of the API pass."""
        from attestry.aws.guard import Guard

        return Guard(self.meta, self.clock, account=self.settings.account, prefix=self.settings.prefix)

    @cached_property
    def answers(self) -> IdempotentAnswers:
        """Return what was answered to requests with an idempotency key."""
        return IdempotentAnswers(self.meta, self.clock)

    @cached_property
    def store(self) -> S3ObjectStore:
        """Return the model store, with the retention that the function is told to set."""
        return S3ObjectStore(self.clients.s3, self.settings.store, retention=self.settings.retention)

    @cached_property
    def objects(self) -> S3ObjectCustody:
        """Return the locks of the model store's objects."""
        from attestry.aws.object_custody import S3ObjectCustody

        return S3ObjectCustody(self.clients.s3, self.settings.store)

    @cached_property
    def scratch(self) -> S3ObjectStore:
        """Return the scratch bucket, which has no lock."""
        return S3ObjectStore(self.clients.s3, self.settings.scratch)

    @cached_property
    def functions(self) -> LambdaFunctions:
        """Return the other functions."""
        return LambdaFunctions(self.clients.functions, tenant_isolation=self.settings.tenant_isolation)

    @cached_property
    def endpoints(self) -> SageMakerEndpoints:
        """Return SageMaker's endpoints, to make and to remove them."""
        from attestry.aws.endpoints import SageMakerEndpoints

        return SageMakerEndpoints(self.clients.sagemaker)

    @cached_property
    def endpoint_runtime(self) -> SageMakerRuntime:
        """Return SageMaker's endpoints, to call them."""
        from attestry.aws.endpoints import SageMakerRuntime

        return SageMakerRuntime(self.clients.sagemaker_runtime)

    @cached_property
    def pipeline(self) -> StepFunctionsPipeline:
        """Return the pipeline."""
        from attestry.aws.pipeline import StepFunctionsPipeline

        return StepFunctionsPipeline(self.clients.stepfunctions, self.settings.pipeline_arn)

    @cached_property
    def scorings(self) -> StepFunctionsPipeline:
        """Return the executions that score files."""
        from attestry.aws.pipeline import StepFunctionsPipeline

        return StepFunctionsPipeline(self.clients.stepfunctions, self.settings.scoring_arn)

    @cached_property
    def notifier(self) -> SnsNotifier:
        """Return the topic for notifications."""
        from attestry.aws.notifier import SnsNotifier

        return SnsNotifier(self.clients.sns, self.settings.topic_arn)

    @cached_property
    def bus(self) -> EventBridgeBus:
        """Return the bus on which events are told."""
        from attestry.aws.event_bus import EventBridgeBus

        return EventBridgeBus(self.clients.events, self.settings.bus)

    @cached_property
    def deliveries(self) -> SqsDeliveries:
        """Return the queue of deliveries to webhooks."""
        from attestry.aws.deliveries import SqsDeliveries

        return SqsDeliveries(self.clients.sqs, self.settings.deliveries_url)

    @cached_property
    def webhook_key(self) -> KmsMacKey:
        """Return the key that webhooks' secrets are derived by."""
        from attestry.aws.mac import KmsMacKey

        return KmsMacKey(self.clients.kms, self.settings.webhook_key)

    @cached_property
    def sender(self) -> WebhookSender:
        """Return what sends requests to webhooks."""
        from attestry.aws.webhook_sender import WebhookSender

        return WebhookSender(loopback=self.settings.webhook_loopback, refused_ports=self.settings.own_ports)

    @cached_property
    def delegator(self) -> KmsSigner:
        """Return the key that signs delegations."""
        return KmsSigner(self.clients.kms, self.settings.delegator_key)

    @cached_property
    def attestor(self) -> Attestor:
        """Return what attests the moves that this function makes, with the function's own key.

        Raises:
            ConfigurationError: the function has no key, or is not told how long what it attests is to be retained.
        """
        from attestry.evidence.attestor import Attestor

        if self.settings.retention is None:
            raise ConfigurationError("ATTESTRY_RETENTION_MODE is not set: attestations are never written without Object Lock")
        return Attestor(KmsSigner(self.clients.kms, self.settings.signing_key), self.store)

    @cached_property
    def alarms(self) -> CloudWatchAlarms:
        """Return the alarms of the account."""
        from attestry.aws.alarms import CloudWatchAlarms

        return CloudWatchAlarms(self.clients.cloudwatch)

    @cached_property
    def ledger_signer(self) -> KmsNoteSigner:
        """Return the key that signs checkpoints of the ledger."""
        return KmsNoteSigner(self.clients.kms, self.settings.ledger_key)

    @cached_property
    def witnesses(self) -> LambdaWitnesses:
        """Return who cosigns checkpoints of the ledger."""
        from attestry.aws.witnesses import LambdaWitnesses

        return LambdaWitnesses(self.functions, self.settings.witnesses)

    @cached_property
    def parameters(self) -> SsmParameters:
        """Return the parameters of the account."""
        from attestry.aws.parameters import SsmParameters

        return SsmParameters(self.clients.ssm)

    @cached_property
    def trail(self) -> CloudTrailTrail:
        """Return CloudTrail's event history."""
        from attestry.aws.trail import CloudTrailTrail

        return CloudTrailTrail(self.clients.cloudtrail)

    @cached_property
    def executions(self) -> StepFunctionsExecutions:
        """Return the executions that people start in the AWS console."""
        from attestry.aws.executions import StepFunctionsExecutions

        return StepFunctionsExecutions(self.clients.stepfunctions)

    @cached_property
    def automations(self) -> SsmAutomations:
        """Return the automations of Systems Manager in which people approve."""
        from attestry.aws.automations import SsmAutomations

        return SsmAutomations(self.clients.ssm, self.settings.runbook)
