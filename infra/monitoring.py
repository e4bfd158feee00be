"""What starts functions by event or clock, and what raises an alarm."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import Aws, Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.api import Api
from infra.config import Config
from infra.functions import Functions
from infra.grants import Topics
from infra.names import Names
from infra.pipeline import Pipeline
from infra.stores import DATA_IN, UPLOADS, Stores

NAMESPACE = "Attestry"
"""Of the metrics that functions count (attestry/aws/metrics.py), and of those that are made of the access log."""

COUNTED = {
    "sequence-gaps": ("collect", "SequenceGaps", "A number is missing in a signing key's sequence: a prediction is being withheld, or was"),
    "keys-not-collected": ("collect", "KeysNotCollected", "Receipts of a key could not be archived; their rows expire after 35 days"),
    "versions-unmended": ("sweep", "VersionsUnmended", "A version stands still and could not be mended; the log of sweep names it"),
    "ledger-conflicts": ("sequence", "LedgerConflicts", "One event ID came with two contents: somebody wrote an outbox row by hand"),
    "ledger-unwitnessed": ("sequence", "LedgerUnwitnessed", "A witness did not cosign a checkpoint: it is gone, or saw another ledger"),
    "audit-notes-lost": ("audit", "AuditNotesLost", "A denied attempt or a read could not be noted down; a function's log names the act"),
    "events-untold": ("tell", "EventsUntold", "The bus, or the queue of webhooks, did not take events; they are told once it does"),
    "findings-opened": ("reconcile", "FindingsOpened", "Table, ledger and store do not agree: something was changed by hand"),
}
"""Alarm to the function that counts, the metric's name, and what it means; one is enough."""

STALLED = {
    "ledger-stalled": ("sequence", "LedgerLeaves", 5, "No run of sequence has ended well for 15 minutes: events wait in the outbox"),
    "telling-stalled": ("tell", "EventsTold", 5, "No run of tell has come to its end for 15 minutes: nobody outside is told anything"),
    "reconciliation-stalled": ("reconcile", "FindingsOpened", 60, "No run of reconcile has ended well for three hours"),
}
"""Alarm to the function that counts on every good run, the metric's name, the minutes of one of three periods, and what silence means."""

ERRORS = '{ ($.status = "5*") && (($.status != "503") || ($.answered != "503")) }'
"""5xx but for a function's own 503, which says that a version is being loaded. The gateway's own 503 counts."""

BUSY = '{ ($.status = "503") && ($.answered = "503") }'

MANIFEST_NAMES = ("manifest.yaml", "manifest.yml", "manifest.json")


def make_topics(scope: Construct, config: Config, key: kms.Key) -> Topics:
    """Create the encrypted topics; the alarm address, if there is one, is subscribed to alarms."""
    alarms = sns.Topic(scope, "Alarms", display_name="Attestry alarms", master_key=key, enforce_ssl=True)
    alarms.add_to_resource_policy(
        iam.PolicyStatement(
            sid="AlarmsMayPublish",
            actions=["sns:Publish"],
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            resources=[alarms.topic_arn],
            conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
        )
    )
    if config.alarm_address:
        alarms.add_subscription(subscriptions.EmailSubscription(config.alarm_address))
    return Topics(alarms, sns.Topic(scope, "Notifications", display_name="Attestry", master_key=key, enforce_ssl=True))


class Triggers(Construct):
    """Rules of EventBridge: uploads, decisions in the console, and the clock."""

    def __init__(self, scope: Construct, construct_id: str, config: Config, functions: Functions, stores: Stores) -> None:
        super().__init__(scope, construct_id)
        self._functions = functions
        names = Names(config.prefix)
        keys = [{"wildcard": f"{UPLOADS}/*/{name}"} for name in MANIFEST_NAMES]
        self._rule(
            "Upload",
            "register",
            "A manifest was uploaded",
            pattern=events.EventPattern(
                source=["aws.s3"],
                detail_type=["Object Created"],
                detail={"bucket": {"name": [stores.store.bucket_name]}, "object": {"key": keys}},
            ),
        )
        data_in = {"bucket": {"name": [stores.store.bucket_name]}, "object": {"key": [{"prefix": f"{DATA_IN}/"}]}}
        self._rule(
            "DataIn",
            "register",
            "New source data have come in",
            pattern=events.EventPattern(source=["aws.s3"], detail_type=["Object Created"], detail=data_in),
        )
        self._rule(
            "Alarm",
            "register",
            "An alarm rang; a model may be refreshed on it",
            pattern=events.EventPattern(
                source=["aws.cloudwatch"], detail_type=["CloudWatch Alarm State Change"], detail={"state": {"value": ["ALARM"]}}
            ),
        )
        self._rule("RefreshesDue", "register", "Make the versions that are due", schedule=events.Schedule.rate(Duration.minutes(5)))
        self._rule(
            "ConsoleDecision",
            "console_decision",
            "CloudTrail says who started a decision",
            pattern=events.EventPattern(
                source=["aws.states"],
                detail_type=["AWS API Call via CloudTrail"],
                detail={
                    "eventSource": ["states.amazonaws.com"],
                    "eventName": ["StartExecution"],
                    "requestParameters": {"stateMachineArn": [names.state_machine_arn(names.decision)]},
                },
            ),
        )
        if config.with_runbook:
            self._rule(
                "ApprovalSignal",
                "console_decision",
                "CloudTrail says who answered an approval in Systems Manager",
                pattern=events.EventPattern(
                    source=["aws.ssm"],
                    detail_type=["AWS API Call via CloudTrail"],
                    detail={"eventSource": ["ssm.amazonaws.com"], "eventName": ["SendAutomationSignal"]},
                ),
            )
        self._rule("EveryMinute", "collect", "Archive receipts", schedule=events.Schedule.rate(Duration.minutes(1)))
        self._rule("LedgerEveryMinute", "sequence", "Append what waits", schedule=events.Schedule.rate(Duration.minutes(1)))
        self._rule("TellEveryMinute", "tell", "Tell what has not been told", schedule=events.Schedule.rate(Duration.minutes(1)))
        self._rule("EveryHour", "reconcile", "Compare table, ledger and store", schedule=events.Schedule.rate(Duration.hours(1)))
        self._rule("EveryFiveMinutes", "sweep", "Find what was left between", schedule=events.Schedule.rate(Duration.minutes(5)))
        every_minute = events.Schedule.rate(Duration.minutes(1))
        self._rule("RolloutsEveryMinute", "deploy", "Watch rollouts", schedule=every_minute, message={"action": "watch_rollouts"})
        self._rule("ShadowsEveryMinute", "predict", "Ask shadows what waits", schedule=every_minute, message={"action": "shadow"})
        self._wake("sequence", stores, "Outbox", lambda_.FilterRule.is_equal("OUTBOX"))
        self._wake("deploy", stores, "CanaryFailures", lambda_.FilterRule.begins_with("CANARY#"))

    def _wake(self, function: str, stores: Stores, construct_id: str, partition: object) -> None:
        """Wake a function when a row was put into a partition; what is in it does not matter, and the schedule finds what got lost.

        Not more than once a second and shard, whatever is written: records gather for so long, and a shard waits for the answer.
        """
        insert = {"eventName": lambda_.FilterRule.is_equal("INSERT"), "dynamodb": {"Keys": {"pk": {"S": partition}}}}
        self._functions.by_name[function].add_event_source_mapping(
            construct_id,
            event_source_arn=stores.table.table_stream_arn,
            starting_position=lambda_.StartingPosition.LATEST,
            filters=[lambda_.FilterCriteria.filter(insert)],
            batch_size=1000,
            max_batching_window=Duration.seconds(1),
            bisect_batch_on_error=False,
            max_record_age=Duration.minutes(1),
            retry_attempts=2,
        )

    def _rule(
        self,
        construct_id: str,
        function: str,
        description: str,
        *,
        pattern: events.EventPattern | None = None,
        schedule: events.Schedule | None = None,
        message: Mapping[str, str] | None = None,
    ) -> None:
        rule = events.Rule(self, construct_id, description=description, event_pattern=pattern, schedule=schedule)
        target = targets.LambdaFunction(
            self._functions.by_name[function],
            event=events.RuleTargetInput.from_object(dict(message)) if message else None,
            dead_letter_queue=self._functions.queues[function],
            max_event_age=Duration.hours(1),
            retry_attempts=8,
        )
        rule.add_target(target)


class Alarms(Construct):
    """Alarms; each says in its description what to look at."""

    def __init__(
        self, scope: Construct, construct_id: str, config: Config, topics: Topics, functions: Functions, pipeline: Pipeline, api: Api
    ) -> None:
        super().__init__(scope, construct_id)
        self._prefix = config.prefix
        self._action = actions.SnsAction(topics.alarms)
        five = Duration.minutes(5)
        for name, queue in functions.queues.items():
            metric = queue.metric_approximate_number_of_messages_visible(period=five, statistic="Maximum")
            self._alarm(
                f"failed-events-{name}", metric, f"Events that {name} could not handle wait in its dead-letter queue; see docs/deploy.md"
            )
        for name, function in functions.by_name.items():
            self._alarm(f"errors-{name}", function.metric_errors(period=five, statistic="Sum"), f"{name} raised; its log group says what")
        for name in ("predict", "register", "sandbox"):
            throttles = _throttles(functions.by_name[name])
            self._alarm(f"throttles-{name}", throttles, f"{name} met a concurrency limit", threshold=10)
        failed = pipeline.machine.metric_failed(period=five, statistic="Sum")
        self._alarm("pipeline-failed", failed, "An execution failed; its version has a failed stage with error and log")
        timed_out = pipeline.machine.metric_timed_out(period=five, statistic="Sum")
        self._alarm("pipeline-timed-out", timed_out, "An execution hung: it went on a day longer than an approval may take")
        refused = pipeline.decision.metric_failed(period=five, statistic="Sum")
        self._alarm("decision-refused", refused, "A decision in the AWS console was refused or its caller stayed unknown")
        for name, (service, counted, description) in COUNTED.items():
            self._alarm(name, self._counted(counted, service=service), description)
        for name, (service, counted, minutes, description) in STALLED.items():
            runs = self._counted(counted, service=service).with_(statistic="SampleCount", period=Duration.minutes(minutes))
            self._alarm(name, runs, description, periods=3, silence=True)
        errors = self._logged("ApiErrors", api.access_log, ERRORS)
        self._alarm("api-errors", errors, "The API answered 5xx, cold versions not counted", threshold=5)
        busy = self._logged("ApiBusy", api.access_log, BUSY)
        self._alarm(
            "api-busy", busy, "Functions have answered 503 for 15 minutes: a version that does not load, or AWS", threshold=5, periods=3
        )

    def _counted(self, name: str, **dimensions: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=NAMESPACE,
            metric_name=name,
            dimensions_map={"deployment": self._prefix, **dimensions},
            period=Duration.minutes(5),
            statistic="Sum",
        )

    def _logged(self, name: str, log: logs.LogGroup, pattern: str) -> cloudwatch.Metric:
        """Count the lines of the access log that fit a pattern."""
        logs.MetricFilter(
            self,
            f"{name}Filter",
            log_group=log,
            filter_pattern=logs.FilterPattern.literal(pattern),
            metric_namespace=NAMESPACE,
            metric_name=name,
            metric_value="1",
            dimensions={"deployment": "$.deployment"},
        )
        return self._counted(name)

    def _alarm(
        self, name: str, metric: cloudwatch.IMetric, description: str, *, threshold: int = 1, periods: int = 1, silence: bool = False
    ) -> None:
        """Raise an alarm at the threshold or above it, or where `silence` alarms, below it and when nothing is measured."""
        operators = cloudwatch.ComparisonOperator
        alarm = cloudwatch.Alarm(
            self,
            "".join(part.capitalize() for part in name.replace("_", "-").split("-")),
            alarm_name=f"{self._prefix}-{name.replace('_', '-')}",
            alarm_description=description,
            metric=metric,
            threshold=threshold,
            evaluation_periods=periods,
            comparison_operator=operators.LESS_THAN_THRESHOLD if silence else operators.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING if silence else cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(self._action)


def _throttles(function: lambda_.Function) -> cloudwatch.Metric:
    return function.metric_throttles(period=Duration.minutes(5), statistic="Sum")
