"""What each function may do: one list of statements per function, written from what the function does and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aws_cdk import Aws
from aws_cdk import aws_iam as iam

from infra.endpoint_config import with_endpoints
from infra.endpoints import call_endpoints, keep_endpoints
from infra.grants import Grants, Statements

FROZEN = "models/*/frozen/*"
TRAINING = "models/*/stages/PROCESSING/*/data/train/*"
HOLDOUT_PREDICTIONS = "models/*/stages/VALIDATION/*/predictions.json"
HOLDOUT = "models/*/stages/PROCESSING/*/data/holdout/*"
LABELS = "models/*/stages/PROCESSING/*/data/holdout-labels/*"
"""Kept apart from the features, so that the function which makes URLs for scripts cannot make one for the labels."""

IMPORTS = "candidates/*/import/*"
"""Files of versions that were made elsewhere, as they were uploaded."""

RECORDS = "models/*/stages/*/record.json"
RECEIPTS = "models/*/predictions/*"
EVIDENCE = "models/*/evidence/*"
PACKETS = "models/*/evidence/packet-*"
SIGNATURES = "models/*/evidence/signatures/*"
VALIDATIONS = "models/*/evidence/validations/*"
ARTIFACT_SIGNATURE = "models/*/evidence/model.sig"

DISPOSED = (
    FROZEN,
    "models/*/stages/PROCESSING/*/data/*",
    HOLDOUT_PREDICTIONS,
    "models/*/predictions/payloads/*",
    "models/*/predictions/*.private.ndjson",
)
"""Payload: what is deleted in the end. The bucket's policy keeps the artifact manifest and the manifest among the frozen files."""

SCORED = "models/*/predictions/payloads/scorings/*"
"""Output of files that were scored: payload like the rest of its folder."""

SCORING_INPUT = "scoring/*/input.*"
"""In the scratch bucket: what callers hand in, each below its own user ID."""

DISPOSALS = "models/*/evidence/disposals/*"

EVERY_ROW = (
    "ACCESS",
    "AUDIT",
    "CANDIDATE#*",
    "CATALOGUE#*",
    "CONFLICT",
    "EDGE#*",
    "FINDINGS#*",
    "GRANT#*",
    "INDEX#*",
    "KEY#*",
    "KEYS",
    "LEAF#*",
    "LEDGER",
    "LOGIN#*",
    "MODEL#*",
    "OUTBOX",
    "PERSON#*",
    "PLACED#*",
    "POLICY#*",
    "RECONCILE",
    "RETIREMENTS",
    "ROOT",
    "RUN#*",
    "SEALED#*",
    "SSHKEY#*",
    "VERSION#*",
    "WEBHOOK#*",
)
"""Partitions that the ledger or the store says something about."""


def _authenticate(g: Grants) -> Statements:
    return g.audit()


def _build_environment(g: Grants) -> Statements:
    return [*g.read_objects(g.stores.store, "environments/*"), *g.write_objects(g.stores.store, "environments/*", retain=True)]


def _bundle(g: Grants) -> Statements:
    return [
        *g.read_rows("CANDIDATE#*", "FINDINGS#*", "KEY#*", "LEAF#*", "LEDGER", "LOGIN#*", "MODEL#*", "OUTBOX", "PERSON#*", "VERSION#*"),
        *g.read_rows("POLICY#*", "ROOT"),
        *g.read_index("VERSION_KEYS#*"),
        *g.audit(),
        *g.decide_access(),
        *g.read_objects(g.stores.store, "ledger/*", "registered/*", "root/*", FROZEN, EVIDENCE, RECORDS, RECEIPTS),
        *g.list_versions(g.stores.store),
        *g.read_objects(g.stores.scratch, "bundles/*"),
        *g.write_objects(g.stores.scratch, "bundles/*"),
    ]


def _catalogue(g: Grants) -> Statements:
    return [
        *g.read_rows("CATALOGUE#*", "LOGIN#*", "MODEL#*", "VERSION#*"),
        *g.check_rows("MODEL#*", "VERSION#*"),
        *g.write_rows("CATALOGUE#*", "INDEX#*", delete=True),
        *g.write_rows("OUTBOX"),
        *g.remember_answers(),
        *g.audit(),
        *g.decide_access(),
    ]


def _collect(g: Grants) -> Statements:
    return [
        *g.read_rows("KEY#*", "KEYS", "VOLUME#*"),
        *g.write_rows("KEY#*", "LAPSES", "OUTBOX", "VOLUME#*"),
        *g.write_rows("KEYS", delete=True),
        *g.write_rows("SEALED#*"),
        *g.list_versions(g.stores.store),
        *g.read_objects(g.stores.store, RECEIPTS),
        *g.write_objects(g.stores.store, RECEIPTS, retain=True),
    ]


def _console_decision(g: Grants) -> Statements:
    return [
        *g.write_rows("INDEX#*", delete=True),
        *g.decide_access(),
        *g.read_rows("CONFLICT#*", "LOGIN#*", "PERSON#*", "VERSION#*"),
        *g.check_rows("CONFLICT#*"),
        *g.write_rows("LAPSES", "OUTBOX", "VERSION#*", "VOLUME#*"),
        *g.find_console_callers(),
        *g.ask_approvers(),
        *g.read_objects(g.stores.store, PACKETS),
        *g.attest(),
        *g.audit(),
        *g.invoke("gate"),
    ]


def _custody(g: Grants) -> Statements:
    versions = g.stores.store.arn_for_objects("models/*")
    read = ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention", "s3:GetObjectLegalHold"]
    gone = [g.stores.store.arn_for_objects(pattern) for pattern in DISPOSED]
    return [
        *g.read_rows("CUSTODY", "LOGIN#*", "VERSION#*"),
        *g.write_rows("OUTBOX", "VERSION#*"),
        *g.write_rows("CUSTODY", "INDEX#*", delete=True),
        *g.read_objects(g.stores.store, "registered/*"),
        *g.list_versions(g.stores.store),
        *g.attest(DISPOSALS),
        *g.audit(),
        *g.decide_access(),
        *g.remember_answers(),
        # S3 tells checksum and lock of an object to whoever may read it.
        iam.PolicyStatement(actions=read, resources=[versions]),
        iam.PolicyStatement(actions=["s3:PutObjectLegalHold", "s3:PutObjectRetention"], resources=[versions]),
        iam.PolicyStatement(actions=["s3:DeleteObjectVersion"], resources=gone),
    ]


def _decide(g: Grants) -> Statements:
    return [
        *g.write_rows("INDEX#*", delete=True),
        *g.read_rows("CONFLICT#*", "LOGIN#*", "MODEL#*", "PERSON#*", "VERSION#*"),
        *g.check_rows("PERSON#*"),
        *g.write_rows("CONFLICT#*", "LAPSES", "OUTBOX", "VERSION#*", "VOLUME#*"),
        *g.read_objects(g.stores.store, PACKETS),
        *g.attest(SIGNATURES, VALIDATIONS),
        *g.remember_answers(),
        *g.audit(),
        *g.decide_access(),
        # Trials of validation records are computed where the packages for it are.
        *g.invoke("evaluate", "gate"),
    ]


def _delegate(g: Grants) -> Statements:
    return [
        *g.read_rows("KEY#*", "LEAF#*", "MODEL#*", "OUTBOX", "VERSION#*", "VOLUME#*"),
        *g.check_rows("MODEL#*", "VERSION#*"),
        *g.write_rows("KEY#*", "KEYS", "OUTBOX", "VOLUME#*"),
    ]


def _deliver(g: Grants) -> Statements:
    return [
        # What MLflow's clients are told names models as they do, with tags and sources.
        *g.read_rows("CATALOGUE#*", "WEBHOOK#*"),
        *g.write_rows("DELIVERY#*", "OUTBOX", "WEBHOOK#*"),
        *g.read_objects(g.stores.store, "ledger/*"),
        *g.take_deliveries(),
    ]


def _deploy(g: Grants) -> Statements:
    return [
        *g.read_stream(),
        *g.write_rows("INDEX#*", delete=True),
        *g.read_rows("CANARY#*", "KEY#*", "MODEL#*", "ROLLOUTS", "SHADOWED#*", "VERSION#*", "VOLUME#*"),
        *g.write_rows("MODEL#*", "OUTBOX", "RETIREMENTS", "VERSION#*"),
        *g.write_rows("ROLLOUTS", delete=True),
        *g.read_index("VERSION_KEYS#*"),
        # Composite alarms are described to callers with the right on every resource alone.
        iam.PolicyStatement(actions=["cloudwatch:DescribeAlarms"], resources=["*"]),
        *g.read_objects(g.stores.store, "environments/*", FROZEN),
        *g.attest(),
        *g.list_versions(g.stores.store),
        *g.invoke("inference"),
        *keep_endpoints(g),
        *(_score(g) if g.config.batch_scoring else []),
    ]


def _score(g: Grants) -> Statements:
    """Score files: check what delegations are checked for, keep chunks, write the output."""
    return [
        *g.read_rows("LEAF#*", "OUTBOX", "SCORING#*"),
        *g.write_rows("LAPSES", "SCORING#*", "VOLUME#*"),
        *g.read_objects(g.stores.scratch, "scoring/*"),
        *g.write_objects(g.stores.scratch, "scoring/*"),
        *g.read_objects(g.stores.store, SCORED),
        *g.write_objects(g.stores.store, SCORED),
    ]


def _ask_scoring(g: Grants) -> Statements:
    """Take up requests to score a file, and hand out where its input goes."""
    return [
        *g.read_rows("SCORING#*"),
        *g.write_rows("SCORING#*"),
        *g.read_objects(g.stores.scratch, SCORING_INPUT),
        *g.write_objects(g.stores.scratch, SCORING_INPUT),
        *g.start_scoring(),
    ]


def _evaluate(g: Grants) -> Statements:
    return [
        *g.read_objects(g.stores.store, "environments/*", LABELS, HOLDOUT_PREDICTIONS),
        *g.read_objects(g.stores.scratch, "jobs/*"),
        *g.write_objects(g.stores.scratch, "jobs/*/evaluated/*"),
        # Spark leaves prepared data as objects, not as one archive.
        *(g.list_versions(g.stores.scratch) if "emr-serverless" in g.config.executors else []),
    ]


def _gate(g: Grants) -> Statements:
    answer = iam.PolicyStatement(actions=["states:SendTaskSuccess", "states:SendTaskFailure"], resources=["*"])
    return [
        *g.write_rows("INDEX#*", delete=True),
        # Keys: how many predictions a version made where it stands, for the packet of its promotion.
        *g.read_rows("CONFLICT#*", "FINDINGS#*", "KEY#*", "MODEL#*", "VERSION#*"),
        *g.read_index("VERSION_KEYS#*"),
        *g.write_rows("LAPSES", "OUTBOX", "VERSION#*", "VOLUME#*"),
        *g.read_objects(g.stores.store, "registered/*", FROZEN),
        *g.attest(PACKETS),
        *g.start_pipeline(),
        *g.start_runbook(),
        *g.notify(),
        answer,
    ]


def _mlflow(g: Grants) -> Statements:
    return [
        *g.read_rows("CATALOGUE#*", "INDEX#*", "LOGIN#*", "MODEL#*", "VERSION#*"),
        *g.check_rows("MODEL#*", "VERSION#*"),
        *g.write_rows("CATALOGUE#*", "INDEX#*", delete=True),
        *g.write_rows("OUTBOX"),
        *g.audit(),
        *g.decide_access(),
        *g.read_objects(g.stores.store, FROZEN),
        # Versions are made, moved and retired by the functions that have the keys for it.
        *g.invoke("operate", "uploads", *(["webhooks"] if g.config.webhooks else [])),
        iam.PolicyStatement(actions=["ssm:GetParameter"], resources=[g.names.api_url_parameter_arn]),
    ]


def _nothing(_g: Grants) -> Statements:
    return []


def _operate(g: Grants) -> Statements:
    return [
        *g.write_rows("INDEX#*", delete=True),
        *g.read_rows("LAPSES", "LOGIN#*", "MODEL#*", "RETIREMENTS", "VERSION#*", "VOLUME#*"),
        *g.write_rows("CUSTODY", "MODEL#*", "OUTBOX", "VERSION#*"),
        *g.write_rows("LAPSES", "RETIREMENTS", "ROLLOUTS", delete=True),
        *g.find_console_callers(),
        *g.attest(),
        *g.remember_answers(),
        *g.audit(),
        *g.decide_access(),
        *g.invoke("deploy", "gate", "register"),
        # A version comes back only while its variant is there.
        *([*g.read_rows("ENDPOINTS"), *g.check_rows("ENDPOINTS")] if with_endpoints(g.config) else []),
        *g.start_pipeline(),
        *g.notify(),
    ]


def _people(g: Grants) -> Statements:
    return [
        *g.read_rows("LOGIN#*", "PERSON#*", "POLICY#*", "SSHKEY#*"),
        *g.write_rows("ACCESS", "GRANT#*", "LOGIN#*", "OUTBOX", "PERSON#*", "PLACED#*", "POLICY#*", "SSHKEY#*"),
        *g.remember_answers(),
        *g.audit(),
        *g.decide_access(),
        *g.read_index("GRANTS", "PEOPLE", "POLICIES"),
    ]


def _predict(g: Grants) -> Statements:
    return [
        *g.read_rows("KEY#*", "MODEL#*", "ROLLOUTS", "SHADOW#*", "SHADOWED#*", "VERSION#*"),
        *g.write_rows("CANARY#*", "KEY#*", "SHADOWED#*"),
        *g.write_rows("SHADOW#*", delete=True),
        *g.audit(),
        *g.decide_access(),
        *g.presign_objects("environments/*", FROZEN, "models/*/predictions/payloads/*"),
        *g.write_objects(g.stores.store, "models/*/predictions/payloads/*"),
        *g.invoke("delegate", "inference"),
        *call_endpoints(g),
        *(_ask_scoring(g) if g.config.batch_scoring else []),
    ]


def _prepare_stage(g: Grants) -> Statements:
    statements = [
        *g.write_rows("INDEX#*", delete=True),
        *g.read_rows("CANDIDATE#*", "MODEL#*", "VERSION#*"),
        *g.write_rows("OUTBOX", "VERSION#*"),
        *g.read_objects(g.stores.store, "candidates/*", "datasets/*", "environments/*", "registered/*", FROZEN, TRAINING, HOLDOUT),
        *g.write_objects(g.stores.store, "datasets/*", "environments/*", retain=True),
        *g.attest(),
        # Inputs that a crashed try has laid out for a job are compared, not written again.
        *g.read_objects(g.stores.scratch, "jobs/*/job.json", "jobs/*/in/*"),
        *g.write_objects(g.stores.scratch, "jobs/*"),
    ]
    if g.config.data_buckets:
        buckets = [f"arn:{Aws.PARTITION}:s3:::{name}" for name in g.config.data_buckets]
        objects = [f"{bucket}/*" for bucket in buckets]
        statements.append(iam.PolicyStatement(actions=["s3:GetObject", "s3:GetObjectVersion"], resources=objects))
        statements.append(iam.PolicyStatement(actions=["s3:ListBucket"], resources=buckets))
    return statements


def _record_stage(g: Grants) -> Statements:
    return [
        *g.write_rows("INDEX#*", delete=True),
        *g.read_rows("CANDIDATE#*", "MODEL#*", "VERSION#*"),
        *g.write_rows("EDGE#*", "OUTBOX", "VERSION#*"),
        *g.read_objects(g.stores.store, "environments/*", IMPORTS, "models/*", "registered/*"),
        *g.write_objects(g.stores.store, FROZEN, "models/*/stages/*", retain=True),
        *g.attest(),
        *g.list_versions(g.stores.store),
        *g.read_objects(g.stores.scratch, "jobs/*"),
        *g.list_versions(g.stores.scratch),
        *g.invoke("gate", "sign_artifact"),
        *g.notify(),
    ]


def _register(g: Grants) -> Statements:
    return [
        *g.write_rows("INDEX#*", delete=True),
        *g.read_rows("ALARM#*", "CANDIDATE#*", "LOGIN#*", "MODEL#*", "POLICY#*", "REFRESH#*", "UPLOAD#*", "VERSION#*"),
        # The run that an import leads to.
        *g.read_rows("CATALOGUE#*", "INDEX#*", "RUN#*"),
        *g.decide_access(),
        *g.read_index("DROPS", "POLICIES", "REFRESHES"),
        *g.write_rows("ALARM#*", "CANDIDATE#*", "CATALOGUE#*", "MODEL#*", "OUTBOX", "VERSION#*"),
        # A version is made under the condition that the policies that it keeps are still those in force.
        *g.check_rows("POLICY#*"),
        *g.write_rows("REFRESH#*", delete=True),
        *g.read_objects(g.stores.store, "candidates/*", "datasets/*", "datasets-in/*", "registered/*"),
        *g.write_objects(g.stores.store, "candidates/*.status.json"),
        *g.write_objects(g.stores.store, "datasets/*", "registered/*", retain=True),
        # The files of an import are pinned by their S3 versions; who records stages copies them.
        *g.list_versions(g.stores.store),
        *g.invoke("record_stage"),
        *g.attest(),
        # Composite alarms are described to callers with the right on every resource alone.
        iam.PolicyStatement(actions=["cloudwatch:DescribeAlarms"], resources=["*"]),
        *g.start_pipeline(),
        *g.notify(),
    ]


def _reconcile(g: Grants) -> Statements:
    return [
        *g.read_rows(*EVERY_ROW),
        *g.read_index(
            "CATALOGUE", "FINDINGS", "GRANTS", "MODELS", "PEOPLE", "PLACED", "POLICIES", "RUNS", "VERSIONS#*", "VERSION_KEYS#*", "WEBHOOKS"
        ),
        *g.write_rows("FINDINGS#*", "OUTBOX", "RECONCILE"),
        *g.read_objects(g.stores.store, "ledger/*", "registered/*", "root/*", FROZEN, EVIDENCE, RECORDS, RECEIPTS),
        *g.list_versions(g.stores.store),
        iam.PolicyStatement(actions=["cloudwatch:GetMetricData", "cloudwatch:GetMetricStatistics"], resources=["*"]),
    ]


def _registry(g: Grants) -> Statements:
    return [
        *g.read_rows("CANDIDATE#*", "EDGE#*", "FINDINGS#*", "KEY#*", "LEAF#*", "LEDGER", "LOGIN#*", "MODEL#*", "PERSON#*", "VERSION#*"),
        *g.read_rows("CANARY#*", "CATALOGUE#*", "INDEX#*", "OUTBOX", "POLICY#*", "REFRESH#*", "ROOT", "SHADOWED#*"),
        *g.read_index("CATALOGUE", "FINDINGS", "MODELS", "POLICIES", "VERSIONS#*", "VERSION_KEYS#*"),
        *g.audit(),
        *g.decide_access(),
        *g.read_objects(g.stores.store, "datasets/*", "environments/*", "ledger/*", "models/*", "registered/*", "root/*"),
        *g.list_versions(g.stores.store),
    ]


def _root(g: Grants) -> Statements:
    return [
        *g.read_rows("LOGIN#*", "ROOT"),
        *g.write_rows("OUTBOX", "ROOT"),
        *g.remember_answers(),
        *g.audit(),
        *g.decide_access(),
        *g.read_objects(g.stores.store, "root/*"),
        *g.write_objects(g.stores.store, "root/*", retain=True),
    ]


def _runs(g: Grants) -> Statements:
    return [
        # The versions that were imported from a run are found by the index, and their heads bear it out.
        *g.read_rows("INDEX#*", "LOGIN#*", "RUN#*", "VERSION#*"),
        *g.write_rows("OUTBOX", "RUN#*"),
        *g.read_index("RUNS", "RUNS#*"),
        *g.remember_answers(),
        *g.audit(),
        *g.decide_access(),
    ]


def _sequence(g: Grants) -> Statements:
    return [
        *g.read_stream(),
        *g.read_rows(
            "ACCESS", "AUDIT", "CONFLICT", "GRANT#*", "LEAF#*", "LEDGER", "OUTBOX", "PERSON#*", "PLACED#*", "ROOT", "RUN#*", "WEBHOOK#*"
        ),
        *g.write_rows("CONFLICT", "LEAF#*", "LEDGER", "OUTBOX"),
        *g.delete_rows("AUDIT", "OUTBOX"),
        *g.read_objects(g.stores.store, "ledger/*"),
        *g.write_objects(g.stores.store, "ledger/*", retain=True),
        *g.list_versions(g.stores.store),
        *g.invoke("tell", "witness", elsewhere=[witness.function for witness in g.config.witnesses]),
    ]


def _sign_artifact(g: Grants) -> Statements:
    return [
        *g.read_objects(g.stores.store, FROZEN, ARTIFACT_SIGNATURE),
        *g.write_objects(g.stores.store, ARTIFACT_SIGNATURE, retain=True),
        *g.list_versions(g.stores.store),
    ]


def _sweep(g: Grants) -> Statements:
    return [
        *g.read_rows("CUSTODY", "LAPSES", "RETIREMENTS", "VERSION#*"),
        *g.write_rows("OUTBOX", "VERSION#*"),
        *g.read_index("MODELS", "VERSIONS#*"),
        *g.invoke("custody", "gate", "operate", "record_stage"),
        *g.start_pipeline(),
    ]


def _tell(g: Grants) -> Statements:
    return [
        *g.read_rows("TOLD"),
        *g.write_rows("TOLD"),
        *g.read_index("WEBHOOKS"),
        *g.read_objects(g.stores.store, "ledger/*"),
        *g.tell(),
        *(g.queue_deliveries() if g.config.webhooks else []),
    ]


def _uploads(g: Grants) -> Statements:
    return [
        *g.read_rows("LOGIN#*", "UPLOAD#*"),
        *g.write_rows("UPLOAD#*"),
        *g.audit(),
        *g.decide_access(),
        *g.read_objects(g.stores.store, "candidates/*.status.json"),
        *g.write_objects(g.stores.store, "candidates/*"),
        *g.invoke("register"),
    ]


def _webhooks(g: Grants) -> Statements:
    return [
        *g.read_rows("DELIVERY#*", "LOGIN#*", "WEBHOOK#*"),
        *g.write_rows("OUTBOX", "WEBHOOK#*"),
        *g.read_index("WEBHOOKS"),
        *g.audit(),
        *g.decide_access(),
        *g.queue_deliveries(),
        *g.invoke("deliver"),
    ]


PERMISSIONS: Mapping[str, Callable[[Grants], Statements]] = {
    "authenticate": _authenticate,
    "build_environment": _build_environment,
    "bundle": _bundle,
    "catalogue": _catalogue,
    "collect": _collect,
    "console_decision": _console_decision,
    "custody": _custody,
    "decide": _decide,
    "delegate": _delegate,
    "deliver": _deliver,
    "deploy": _deploy,
    "describe": _nothing,
    "evaluate": _evaluate,
    "gate": _gate,
    "inference": _nothing,
    "mlflow": _mlflow,
    "operate": _operate,
    "people": _people,
    "predict": _predict,
    "prepare_stage": _prepare_stage,
    "reconcile": _reconcile,
    "record_stage": _record_stage,
    "register": _register,
    "registry": _registry,
    "root": _root,
    "runs": _runs,
    "sandbox": _nothing,
    "sequence": _sequence,
    "sign_artifact": _sign_artifact,
    "sweep": _sweep,
    "tell": _tell,
    "uploads": _uploads,
    "webhooks": _webhooks,
}
"""What each function may do; the witness, which stands in other stacks as well, brings its rights along (`infra/witness.py`)."""
