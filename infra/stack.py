"""The stack, and the application that holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aws_cdk import App, CfnOutput, Stack
from constructs import Construct

from infra.api import Api
from infra.bundling import remove_other_bundles
from infra.config import Config, StackKind
from infra.endpoints import EndpointRoles
from infra.events_out import Outlets
from infra.executors import Executors
from infra.functions import Functions, Told
from infra.grants import Grants
from infra.identity import Identity
from infra.keys import Keys
from infra.monitoring import Alarms, Triggers, make_topics
from infra.names import Names
from infra.network import Isolation
from infra.pipeline import Pipeline
from infra.runbook import ApprovalRunbook
from infra.stores import Stores
from infra.user_pool import UserPool
from infra.witness import STACK_NAME as WITNESS_STACK_NAME
from infra.witness import WitnessStack

STACK_NAME = "Attestry"

FEATURE_FLAGS = {
    "@aws-cdk/aws-iam:minimizePolicies": True,
    "@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy": True,
}
"""Set in code and not in cdk.json, so that the template is the same with and without the CDK command line."""


class AttestryStack(Stack):
    """Everything of one deployment. It names no account and no region, so one template serves all."""

    def __init__(self, scope: Construct, construct_id: str, config: Config) -> None:
        super().__init__(
            scope,
            construct_id,
            description="Attestry: model registry with traceable predictions",
            analytics_reporting=False,
            suppress_template_indentation=True,  # nearly half of the megabyte that CloudFormation takes would be spaces
        )
        self.config = config
        keys = Keys(self, "Keys", config)
        stores = Stores(self, "Stores", config, keys.data)
        topics = make_topics(self, config, keys.data)
        outlets = Outlets(self, "Outlets", config)
        isolation = Isolation(self, "Isolation", config, stores) if config.vpc_isolation else None
        grants = Grants(config, Names(config.prefix), stores, keys.data, topics, outlets)
        executors = Executors(self, "Executors", grants, isolation)
        endpoints = EndpointRoles(self, "Endpoints", grants)
        functions = Functions(self, "Functions", grants, keys, isolation, Told(executors.setting(), endpoints.setting()))
        pipeline = Pipeline(self, "Pipeline", config, functions, keys.data, executors.pipeline_statements())
        api = Api(self, "Api", config, functions, keys.data)
        Identity(self, "Identity", config, api, pipeline, stores)
        outputs = self._set_issuers(config, functions)
        # The gateway's own counts are what the registry's are compared with.
        functions.by_name["reconcile"].add_environment("ATTESTRY_API_ID", api.api.api_id)
        for asking in ("console_decision", "gate"):
            functions.by_name[asking].add_environment("ATTESTRY_API_URL", api.url)
        if config.with_runbook:
            ApprovalRunbook(self, "ApprovalRunbook", config, keys.data)
        Triggers(self, "Triggers", config, functions, stores)
        Alarms(self, "Monitoring", config, topics, functions, pipeline, api)
        self._outputs(
            {
                "ApiUrl": api.url,
                "StoreBucket": stores.store.bucket_name,
                "ScratchBucket": stores.scratch.bucket_name,
                "MetaTable": stores.table.table_name,
                "PipelineArn": pipeline.machine.state_machine_arn,
                "DecisionArn": pipeline.decision.state_machine_arn,
                "NotificationsTopic": topics.notifications.topic_arn,
                **({"ScoringArn": pipeline.scoring.state_machine_arn} if pipeline.scoring else {}),
                **({"DeliveriesQueue": outlets.queues().deliveries.queue_url} if config.webhooks else {}),
                "EventBus": outlets.bus.event_bus_name,
                "LedgerOrigin": grants.names.ledger_origin,
                "LedgerKeyArn": functions.signing_keys["sequence"].key_arn,
                **outputs,
            }
        )

    def _set_issuers(self, config: Config, functions: Functions) -> dict[str, str]:
        """Tell the authorizer whose tokens count, and return what people need to sign in to the pool."""
        pool = UserPool(self, "UserPool", config) if config.user_pool else None
        issuers = [*map(json.loads, config.oidc_issuers), *([pool.issuer()] if pool else [])]
        functions.by_name["authenticate"].add_environment("ATTESTRY_OIDC", self.to_json_string(issuers))
        if pool is None:
            return {}
        return {
            "UserPoolClient": pool.client.user_pool_client_id,
            "SignInIssuer": pool.issuer()["issuer"],
            "SignInUrl": pool.domain.base_url(),
        }

    def _outputs(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            CfnOutput(self, name, value=value)


def build_app(context: Mapping[str, Any] | None = None, outdir: str | None = None) -> App:
    """Return the application, ready to be synthesised.

    Args:
        context: settings that come before those of cdk.json and the command line.
        outdir: where the template goes; by default where the CDK command line says, or `cdk.out`.

    Raises:
        infra.config.ConfigError: a setting that cannot be used.
    """
    # Context given to the constructor is overridden by CDK_CONTEXT_JSON, which is right for settings from the command line.
    app = App(context={**FEATURE_FLAGS, **(context or {})}, outdir=outdir, analytics_reporting=False)
    config = Config.from_context(app.node.get_all_context())
    remove_other_bundles(Path(app.outdir), config.bundling)
    if config.stack is StackKind.WITNESS:
        WitnessStack(app, WITNESS_STACK_NAME, config)
    else:
        AttestryStack(app, STACK_NAME, config)
    return app
