"""What each function may do, in force: every act is tried with the credentials of every function's own role.

An act is written so that it changes nothing where it is allowed: a condition that cannot hold, a checksum that is wrong, a token that is
none, an invocation that is a dry run.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from attestry.local.settings import ACCOUNT
from tests.embedded.flow_versions import FUNCTIONS
from tests.embedded.flows import Registry, refusal

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

Act = Callable[[Registry, str], str]
"""Does something with a profile, and returns the error's code."""

DENIED = ("AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException")
DIGEST = {"MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"}
WRONG_SHA256 = base64.b64encode(bytes(32)).decode()


def read_row(partition: str) -> Act:
    def act(registry: Registry, profile: str) -> str:
        key = {"pk": {"S": partition}, "sk": {"S": "HEAD"}}
        return refusal(registry.aws("dynamodb", profile).get_item, TableName=registry.stack.outputs["MetaTable"], Key=key)

    return act


def write_row(partition: str) -> Act:
    def act(registry: Registry, profile: str) -> str:
        item = {"pk": {"S": partition}, "sk": {"S": "NONE"}}
        put = registry.aws("dynamodb", profile).put_item
        return refusal(put, TableName=registry.stack.outputs["MetaTable"], Item=item, ConditionExpression="attribute_exists(pk)")

    return act


def delete_row(partition: str) -> Act:
    def act(registry: Registry, profile: str) -> str:
        key = {"pk": {"S": partition}, "sk": {"S": "NONE"}}
        delete = registry.aws("dynamodb", profile).delete_item
        return refusal(delete, TableName=registry.stack.outputs["MetaTable"], Key=key, ConditionExpression="attribute_exists(pk)")

    return act


def read_object(key: str, bucket: str = "StoreBucket") -> Act:
    return lambda registry, profile: refusal(registry.aws("s3", profile).get_object, Bucket=registry.stack.outputs[bucket], Key=key)


def write_object(key: str, bucket: str = "StoreBucket") -> Act:
    def act(registry: Registry, profile: str) -> str:
        put = registry.aws("s3", profile).put_object
        target = {"Bucket": registry.stack.outputs[bucket], "Key": key}
        return refusal(put, **target, Body=b"x", IfNoneMatch="*", ChecksumSHA256=WRONG_SHA256)

    return act


def overwrite_frozen(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("s3", profile).put_object, Bucket=registry.bucket, Key="models/probe/frozen/x", Body=b"y")


def delete_frozen(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("s3", profile).delete_object, Bucket=registry.bucket, Key="models/probe/frozen/x")


def delete_version(key: str) -> Act:
    """Delete a version that is not there: S3 asks for the right first."""
    return lambda registry, profile: refusal(
        registry.aws("s3", profile).delete_object, Bucket=registry.bucket, Key=key, VersionId="no-such-version"
    )


def place_legal_hold(registry: Registry, profile: str) -> str:
    hold = registry.aws("s3", profile).put_object_legal_hold
    return refusal(hold, Bucket=registry.bucket, Key="models/probe/1/frozen/none", LegalHold={"Status": "OFF"})


def overwrite_tile(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("s3", profile).put_object, Bucket=registry.bucket, Key="ledger/tile/probe/x", Body=b"y")


def delete_tile(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("s3", profile).delete_object, Bucket=registry.bucket, Key="ledger/tile/probe/x")


def invoke(function: str) -> Act:
    return lambda registry, profile: refusal(
        registry.aws("lambda", profile).invoke, FunctionName=f"attestry-{function}", InvocationType="DryRun"
    )


def start(machine: str) -> Act:
    return lambda registry, profile: refusal(
        registry.aws("stepfunctions", profile).start_execution,
        stateMachineArn=registry.stack.outputs[machine],
        name="no such name!",
        input="{}",
    )


def send_token(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("stepfunctions", profile).send_task_success, taskToken="none", output="{}")


def sign(key: str) -> Act:
    """Sign with the key of an alias, in the one way that its policy allows."""
    ledger = key in ("ledger", "witness")
    how = {"MessageType": "RAW", "SigningAlgorithm": "ED25519_SHA_512"} if ledger else DIGEST
    return lambda registry, profile: refusal(registry.aws("kms", profile).sign, KeyId=f"alias/attestry-{key}", Message=b"x" * 32, **how)


def read_public_key(key: str) -> Act:
    return lambda registry, profile: refusal(registry.aws("kms", profile).get_public_key, KeyId=f"alias/attestry-{key}")


def put_event(registry: Registry, profile: str) -> str:
    entry = {"EventBusName": registry.stack.outputs["EventBus"], "Source": "attestry", "DetailType": "probe", "Detail": "{}"}
    return refusal(registry.aws("events", profile).put_events, Entries=[entry])


def queue_delivery(registry: Registry, profile: str) -> str:
    return refusal(
        registry.aws("sqs", profile).send_message, QueueUrl=registry.stack.outputs["DeliveriesQueue"], MessageBody="{}", DelaySeconds=900
    )


def take_delivery(registry: Registry, profile: str) -> str:
    change = registry.aws("sqs", profile).change_message_visibility
    return refusal(change, QueueUrl=registry.stack.outputs["DeliveriesQueue"], ReceiptHandle="none", VisibilityTimeout=1)


def derive_secret(registry: Registry, profile: str) -> str:
    mac = registry.aws("kms", profile).generate_mac
    return refusal(mac, KeyId="alias/attestry-webhooks", Message=b"webhook/probe/1", MacAlgorithm="HMAC_SHA_256")


def read_metrics(registry: Registry, profile: str) -> str:
    now = datetime.now(UTC)
    get = registry.aws("cloudwatch", profile).get_metric_statistics
    times = {"StartTime": now - timedelta(hours=1), "EndTime": now, "Period": 3600}
    return refusal(get, Namespace="AWS/ApiGateway", MetricName="Count", Statistics=["Sum"], **times)


def look_up_events(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("cloudtrail", profile).lookup_events, MaxResults=1)


def assume_approver(registry: Registry, profile: str) -> str:
    arn = f"arn:aws:iam::{ACCOUNT}:role/attestry-approver"
    return refusal(registry.aws("sts", profile).assume_role, RoleArn=arn, RoleSessionName="erin")


def call_api(registry: Registry, profile: str) -> str:
    return "AccessDenied" if registry.call(profile, "GET", "/v1/me").status == 403 else ""


def read_parameter(registry: Registry, profile: str) -> str:
    return refusal(registry.aws("ssm", profile).get_parameter, Name="/attestry/api-url")


NOBODY: tuple[str, ...] = ()
VERSION_WRITERS = (
    "console_decision",
    "custody",
    "decide",
    "deploy",
    "gate",
    "operate",
    "prepare_stage",
    "record_stage",
    "register",
    "sweep",
)
MOVERS = tuple(function for function in VERSION_WRITERS if function != "sweep")
READERS = ("bundle", "reconcile", "registry")
"""What answers questions about everything, and what compares everything."""

API = (
    "bundle",
    "catalogue",
    "custody",
    "decide",
    "mlflow",
    "operate",
    "people",
    "predict",
    "registry",
    "root",
    "runs",
    "uploads",
    "webhooks",
)
"""What serves routes, each of which asks first whether the caller is let."""

GATES = (*API, "console_decision", "register")
"""What decides who is let, by whichever way they come."""

MAY: dict[str, tuple[Act, tuple[str, ...]]] = {
    "read a version": (read_row("VERSION#probe#0"), (*VERSION_WRITERS, *READERS, "catalogue", "delegate", "mlflow", "predict", "runs")),
    "read a model": (
        read_row("MODEL#probe"),
        (
            *READERS,
            "catalogue",
            "decide",
            "delegate",
            "deploy",
            "gate",
            "mlflow",
            "operate",
            "predict",
            "prepare_stage",
            "record_stage",
            "register",
        ),
    ),
    "read a candidate": (read_row("CANDIDATE#probe"), (*READERS, "prepare_stage", "record_stage", "register")),
    "read a login": (
        read_row("LOGIN#probe"),
        (
            *READERS,
            "catalogue",
            "console_decision",
            "custody",
            "decide",
            "mlflow",
            "operate",
            "people",
            "predict",
            "register",
            "root",
            "runs",
            "uploads",
            "webhooks",
        ),
    ),
    "read what was granted": (read_row("GRANT#probe"), (*GATES, "reconcile", "sequence")),
    "read a person": (read_row("PERSON#probe"), (*READERS, "console_decision", "decide", "people", "sequence")),
    "read whose SSH key it is": (read_row("SSHKEY#probe"), ("people", "reconcile")),
    "read a policy": (read_row("POLICY#probe"), ("bundle", "people", "reconcile", "register", "registry")),
    "read what is known of refreshes": (read_row("REFRESH#probe"), ("register", "registry")),
    "read who waits for an alarm": (read_row("ALARM#probe"), ("register",)),
    "read who uploads": (read_row("UPLOAD#probe"), ("register", "uploads")),
    "read a receipt": (read_row("KEY#probe"), (*READERS, "collect", "delegate", "deploy", "gate", "predict")),
    "read the open keys": (read_row("KEYS"), ("collect", "reconcile")),
    "read who started a decision": (read_row("CALLER#probe"), ("console_decision", "operate")),
    "read the outbox": (read_row("OUTBOX"), (*READERS, "delegate", "deploy", "sequence")),
    "read an event's place in the ledger": (read_row("LEAF#probe"), (*READERS, "delegate", "deploy", "sequence")),
    "read a scoring": (read_row("SCORING#probe"), ("deploy", "predict")),
    "read the ledger's head": (read_row("LEDGER"), (*READERS, "sequence")),
    "read an audited act": (read_row("AUDIT"), ("reconcile", "sequence")),
    "read what does not fit the ledger": (read_row("CONFLICT"), ("reconcile", "sequence")),
    "read a finding": (read_row("FINDINGS#probe#0"), (*READERS, "gate")),
    "read an edge of the lineage": (read_row("EDGE#probe"), ("reconcile", "registry")),
    "read what was told": (read_row("TOLD"), ("tell",)),
    "read the root's versions": (read_row("ROOT"), (*READERS, "root", "sequence")),
    "read what was sealed on a day": (read_row("SEALED#probe"), ("reconcile",)),
    "read whose objects are attended to": (read_row("CUSTODY"), ("custody", "sweep")),
    "read scheduled retirements": (read_row("RETIREMENTS"), ("operate", "reconcile", "sweep")),
    "read what people say of a model": (
        read_row("CATALOGUE#probe"),
        ("catalogue", "deliver", "mlflow", "reconcile", "register", "registry"),
    ),
    "read the index": (read_row("INDEX#probe"), ("mlflow", "reconcile", "register", "registry", "runs")),
    "write what people say of a model": (write_row("CATALOGUE#probe"), ("catalogue", "mlflow", "register")),
    "delete what people say of a model": (delete_row("CATALOGUE#probe"), ("catalogue", "mlflow")),
    "write an entry of the index": (write_row("INDEX#probe"), (*MOVERS, "catalogue", "mlflow")),
    "delete an entry of the index": (delete_row("INDEX#probe"), (*MOVERS, "catalogue", "mlflow")),
    "write a version": (write_row("VERSION#probe#0"), VERSION_WRITERS),
    "write a model or its pointer": (write_row("MODEL#probe"), ("deploy", "operate", "register")),
    "write a scoring": (write_row("SCORING#probe"), ("deploy", "predict")),
    "write a candidate": (write_row("CANDIDATE#probe"), ("register",)),
    "write a login": (write_row("LOGIN#probe"), ("people",)),
    "write a person": (write_row("PERSON#probe"), ("people",)),
    "grant a role": (write_row("GRANT#probe"), ("people",)),
    "place a model": (write_row("PLACED#probe"), ("people",)),
    "add an access policy": (write_row("ACCESS"), ("people",)),
    "write whose SSH key it is": (write_row("SSHKEY#probe"), ("people",)),
    "write a policy": (write_row("POLICY#probe"), ("people",)),
    "write what is known of refreshes": (write_row("REFRESH#probe"), ("register",)),
    "write who waits for an alarm": (write_row("ALARM#probe"), ("register",)),
    "write who uploads": (write_row("UPLOAD#probe"), ("uploads",)),
    "write a receipt": (write_row("KEY#probe"), ("collect", "delegate", "predict")),
    "write the open keys": (write_row("KEYS"), ("collect", "delegate")),
    "write who started a decision": (write_row("CALLER#probe"), ("console_decision", "operate")),
    "write an event": (
        write_row("OUTBOX"),
        (
            *VERSION_WRITERS,
            "catalogue",
            "collect",
            "delegate",
            "deliver",
            "mlflow",
            "people",
            "reconcile",
            "root",
            "runs",
            "sequence",
            "webhooks",
        ),
    ),
    "write an event's place in the ledger": (write_row("LEAF#probe"), ("sequence",)),
    "write the ledger's head": (write_row("LEDGER"), ("sequence",)),
    "write an audited act": (
        write_row("AUDIT"),
        (
            "authenticate",
            "bundle",
            "catalogue",
            "console_decision",
            "custody",
            "decide",
            "mlflow",
            "operate",
            "people",
            "predict",
            "registry",
            "root",
            "runs",
            "uploads",
            "webhooks",
        ),
    ),
    "read what was answered": (read_row("IDEMPOTENCY#probe"), ("catalogue", "custody", "decide", "operate", "people", "root", "runs")),
    "remember an answer": (write_row("IDEMPOTENCY#probe"), ("catalogue", "custody", "decide", "operate", "people", "root", "runs")),
    "forget an answer": (delete_row("IDEMPOTENCY#probe"), ("catalogue", "custody", "decide", "operate", "people", "root", "runs")),
    "write what does not fit the ledger": (write_row("CONFLICT"), ("sequence",)),
    "write a finding": (write_row("FINDINGS#probe#0"), ("reconcile",)),
    "write how far reconciliation came": (write_row("RECONCILE"), ("reconcile",)),
    "write an edge of the lineage": (write_row("EDGE#probe"), ("record_stage",)),
    "write the root's versions": (write_row("ROOT"), ("root",)),
    "write what was sealed on a day": (write_row("SEALED#probe"), ("collect",)),
    "read a webhook": (read_row("WEBHOOK#probe"), ("deliver", "reconcile", "sequence", "webhooks")),
    "write a webhook": (write_row("WEBHOOK#probe"), ("deliver", "webhooks")),
    "read a development run": (read_row("RUN#probe"), ("reconcile", "register", "runs", "sequence")),
    "write a development run": (write_row("RUN#probe"), ("runs",)),
    "delete a development run": (delete_row("RUN#probe"), NOBODY),
    "write what became of a delivery": (write_row("DELIVERY#probe"), ("deliver",)),
    "write what was told": (write_row("TOLD"), ("tell",)),
    "write whose objects are attended to": (write_row("CUSTODY"), ("custody", "operate")),
    "write scheduled retirements": (write_row("RETIREMENTS"), ("deploy", "operate")),
    "delete a version": (delete_row("VERSION#probe#0"), NOBODY),
    "delete an event": (delete_row("OUTBOX"), ("sequence",)),
    "delete an event's place in the ledger": (delete_row("LEAF#probe"), NOBODY),
    "delete an audited act": (delete_row("AUDIT"), ("sequence",)),
    "delete a finding": (delete_row("FINDINGS#probe#0"), NOBODY),
    "delete what is known of refreshes": (delete_row("REFRESH#probe"), ("register",)),
    "delete an open key": (delete_row("KEYS"), ("collect",)),
    "delete a scheduled retirement": (delete_row("RETIREMENTS"), ("operate",)),
    "read an upload": (read_object("candidates/probe/x"), ("prepare_stage", "register")),
    "read a file to import": (read_object("candidates/probe/0/import/x"), ("prepare_stage", "record_stage", "register")),
    "read a data set": (read_object("datasets/probe/x"), ("prepare_stage", "register", "registry")),
    "read data that come in": (read_object("datasets-in/probe/source/x/y"), ("register",)),
    "read an environment": (
        read_object("environments/probe/x"),
        ("build_environment", "deploy", "evaluate", "predict", "prepare_stage", "record_stage", "registry"),
    ),
    "read a registered source": (
        read_object("registered/probe/x"),
        ("bundle", "custody", "gate", "prepare_stage", "reconcile", "record_stage", "register", "registry"),
    ),
    "read a frozen file": (
        read_object("models/probe/1/frozen/x"),
        (*READERS, "custody", "deploy", "gate", "mlflow", "predict", "prepare_stage", "record_stage", "sign_artifact"),
    ),
    "read the hold-out's labels": (
        read_object("models/probe/1/stages/PROCESSING/1/data/holdout-labels/x"),
        ("custody", "evaluate", "record_stage", "registry"),
    ),
    "read a captured payload": (read_object("models/probe/1/predictions/x.jsonl"), (*READERS, "collect", "custody", "record_stage")),
    "read a decision packet": (
        read_object("models/probe/1/evidence/packet-000001.json"),
        (*READERS, "console_decision", "custody", "decide", "gate", "record_stage"),
    ),
    "read the ledger": (read_object("ledger/checkpoint"), (*READERS, "deliver", "sequence", "tell")),
    "read the root of trust": (read_object("root/timestamp.json"), (*READERS, "root")),
    "read a job": (read_object("jobs/probe/TRAINING/1/job.json", "ScratchBucket"), ("evaluate", "prepare_stage", "record_stage")),
    "read a bundle": (read_object("bundles/x", "ScratchBucket"), ("bundle",)),
    "read the input of a scoring": (read_object("scoring/probe/0/input.csv", "ScratchBucket"), ("deploy", "predict")),
    "read a chunk of a scoring": (read_object("scoring/probe/0/out/x", "ScratchBucket"), ("deploy",)),
    "write the input of a scoring": (write_object("scoring/probe/1/input.csv", "ScratchBucket"), ("deploy", "predict")),
    "write a chunk of a scoring": (write_object("scoring/probe/0/out/y", "ScratchBucket"), ("deploy",)),
    "write the output of a scoring": (
        write_object("models/probe/1/predictions/payloads/scorings/y.jsonl"),
        ("collect", "deploy", "predict"),
    ),
    "write an upload": (write_object("candidates/probe/y"), ("uploads",)),
    "write an outcome beside a manifest": (write_object("candidates/probe/manifest.json.status.json"), ("register", "uploads")),
    "write a data set": (write_object("datasets/probe/y"), ("prepare_stage", "register")),
    "put data where they come in": (write_object("datasets-in/probe/source/x/z"), NOBODY),
    "write an environment": (write_object("environments/probe/y"), ("build_environment", "prepare_stage")),
    "write a registered source": (write_object("registered/probe/y"), ("register",)),
    "write a frozen file": (write_object("models/probe/1/frozen/y"), ("record_stage",)),
    "write a captured payload": (write_object("models/probe/1/predictions/y.jsonl"), ("collect",)),
    "write an attestation": (
        write_object("models/probe/1/evidence/attestations/y.json"),
        tuple(function for function in VERSION_WRITERS if function != "sweep"),
    ),
    "write a decision packet": (write_object("models/probe/1/evidence/packet-000002.json"), ("gate",)),
    "write an approver's signature": (write_object("models/probe/1/evidence/signatures/y.sig"), ("decide",)),
    "write a validation record": (write_object("models/probe/1/evidence/validations/y.json"), ("decide",)),
    "write a list of what is disposed": (write_object("models/probe/1/evidence/disposals/y.json"), ("custody",)),
    "write an artifact's signature": (write_object("models/probe/1/evidence/model.sig"), ("sign_artifact",)),
    "write a tile": (write_object("ledger/tile/0/y"), ("sequence",)),
    "write the checkpoint": (write_object("ledger/checkpoint"), ("sequence",)),
    "write the root of trust": (write_object("root/99.root.json"), ("root",)),
    "write a job": (write_object("jobs/probe/TRAINING/1/job.json", "ScratchBucket"), ("prepare_stage",)),
    "write a bundle": (write_object("bundles/y", "ScratchBucket"), ("bundle",)),
    "write what was evaluated": (
        write_object("jobs/probe/TRAINING/1/evaluated/y", "ScratchBucket"),
        ("evaluate", "prepare_stage"),
    ),
    "overwrite a frozen file": (overwrite_frozen, NOBODY),
    "hide a frozen file": (delete_frozen, NOBODY),
    "delete a version of a frozen file": (delete_version("models/probe/1/frozen/model/x"), ("custody",)),
    "delete a version of an artifact manifest": (delete_version("models/probe/1/frozen/artifact-manifest.json"), NOBODY),
    "delete a version of evidence": (delete_version("models/probe/1/evidence/packet-000001.json"), NOBODY),
    "delete a version of a record": (delete_version("models/probe/1/stages/TRAINING/1/record.json"), NOBODY),
    "delete a version of a data set": (delete_version("datasets/probe/x"), NOBODY),
    "place a legal hold": (place_legal_hold, ("custody",)),
    "overwrite a tile": (overwrite_tile, NOBODY),
    "delete a tile": (delete_tile, NOBODY),
    "invoke the gate": (invoke("gate"), ("console_decision", "decide", "operate", "record_stage", "sweep")),
    "invoke evaluate": (invoke("evaluate"), ("decide",)),
    "invoke who delivers": (invoke("deliver"), ("webhooks",)),
    "invoke who keeps webhooks": (invoke("webhooks"), ("mlflow",)),
    "invoke deploy": (invoke("deploy"), ("operate",)),
    "invoke inference": (invoke("inference"), ("deploy", "predict")),
    "invoke delegate": (invoke("delegate"), ("predict",)),
    "invoke operate": (invoke("operate"), ("mlflow", "sweep")),
    "invoke custody": (invoke("custody"), ("sweep",)),
    "invoke the signer of artifacts": (invoke("sign-artifact"), ("record_stage",)),
    "invoke who records stages": (invoke("record-stage"), ("register", "sweep")),
    "invoke who takes imports": (invoke("uploads"), ("mlflow",)),
    "invoke who makes versions": (invoke("register"), ("operate", "uploads")),
    "invoke the witness": (invoke("witness"), ("sequence",)),
    "invoke who tells": (invoke("tell"), ("sequence",)),
    "invoke the sequencer": (invoke("sequence"), NOBODY),
    "invoke decide": (invoke("decide"), NOBODY),
    "invoke the sandbox": (invoke("sandbox"), NOBODY),
    "queue a delivery": (queue_delivery, ("tell", "webhooks")),
    "take a delivery": (take_delivery, ("deliver",)),
    "derive a webhook's secret": (derive_secret, ("deliver", "webhooks")),
    "tell an event": (put_event, ("tell",)),
    "start the pipeline": (start("PipelineArn"), ("gate", "operate", "register", "sweep")),
    "start a scoring": (start("ScoringArn"), ("predict",)),
    "start a decision": (start("DecisionArn"), NOBODY),
    "send a task token": (send_token, ("gate",)),
    "sign a delegation": (sign("delegator"), ("delegate",)),
    "sign a checkpoint": (sign("ledger"), ("sequence",)),
    "cosign a checkpoint": (sign("witness"), ("witness",)),
    "sign an artifact": (sign("artifact"), ("sign_artifact",)),
    **{
        f"attest as {function}": (sign(f"attest-{function.replace('_', '-')}"), (function,))
        for function in VERSION_WRITERS
        if function != "sweep"
    },
    "read the delegator's public key": (read_public_key("delegator"), ("bundle", "delegate", "registry", "root")),
    "read the ledger's public key": (
        read_public_key("ledger"),
        (*READERS, "root", "sequence", "witness"),
    ),
    "read the gate's public key": (read_public_key("attest-gate"), ("bundle", "gate", "registry", "root")),
    "look into CloudTrail": (look_up_events, ("console_decision", "operate")),
    "read the gateway's counts": (read_metrics, ("reconcile",)),
    "assume the approver's role": (assume_approver, NOBODY),
    "call the API": (call_api, NOBODY),
    "read where the API answers": (read_parameter, ("mlflow",)),
}
"""What is tried, how, and which functions may do it."""

UNTRUSTED = ("inference", "sandbox")


@pytest.fixture(scope="session")
def answers(registry: Registry) -> Mapping[tuple[str, str], str]:
    """Act and function to the code that came back."""
    store, scratch = registry.bucket, registry.stack.outputs["ScratchBucket"]
    for key in ("candidates/probe/x", "datasets/probe/x", "environments/probe/x", "registered/probe/x", "models/probe/frozen/x"):
        registry.aws("s3").put_object(Bucket=store, Key=key, Body=b"x")
    registry.aws("s3").put_object(Bucket=store, Key="ledger/tile/probe/x", Body=b"x")
    for key in ("frozen/x", "stages/PROCESSING/1/data/holdout-labels/x", "predictions/x.jsonl", "evidence/packet-000001.json"):
        registry.aws("s3").put_object(Bucket=store, Key=f"models/probe/1/{key}", Body=b"x")
    for key in ("jobs/probe/TRAINING/1/job.json", "bundles/x", "scoring/probe/0/input.csv", "scoring/probe/0/out/x"):
        registry.aws("s3").put_object(Bucket=scratch, Key=key, Body=b"x")
    profiles = {function: registry.as_function(function) for function in FUNCTIONS}

    def of(function: str) -> dict[tuple[str, str], str]:
        return {(name, function): act(registry, profiles[function]) for name, (act, _) in MAY.items()}

    with ThreadPoolExecutor(4) as pool:
        return {key: code for found in pool.map(of, FUNCTIONS) for key, code in found.items()}


@pytest.mark.parametrize("act", MAY)
def test_an_act_is_allowed_to_exactly_the_functions_that_need_it(answers: Mapping[tuple[str, str], str], act: str) -> None:
    allowed = {function for function in FUNCTIONS if answers[act, function] not in DENIED}
    assert allowed == set(MAY[act][1])


@pytest.mark.parametrize("function", UNTRUSTED)
def test_a_function_that_runs_registered_code_may_do_nothing(answers: Mapping[tuple[str, str], str], function: str) -> None:
    assert [act for act in MAY if answers[act, function] not in DENIED] == []


@pytest.mark.parametrize(
    ("function", "acts"),
    [
        ("authenticate", ["read a login", "read what was granted", "read an audited act", "write a login", "invoke decide"]),
        ("build_environment", ["read a version", "write a frozen file", "read a data set"]),
        ("bundle", ["write a version", "read the hold-out's labels", "write an event", "sign a checkpoint"]),
        ("collect", ["write a version", "read a frozen file", "sign a delegation"]),
        ("console_decision", ["write a model or its pointer", "send a task token", "start the pipeline"]),
        ("custody", ["write a model or its pointer", "write a frozen file", "hide a frozen file", "delete a version of a data set"]),
        ("decide", ["write a model or its pointer", "send a task token", "write a login"]),
        ("delegate", ["write a version", "write a model or its pointer", "read an environment"]),
        ("deploy", ["write a frozen file", "sign a delegation", "write a receipt"]),
        ("evaluate", ["read a version", "write a version", "write a frozen file"]),
        ("gate", ["write a model or its pointer", "write a frozen file", "write an approver's signature", "invoke deploy"]),
        ("inference", ["read an environment", "read a frozen file", "write a receipt"]),
        ("operate", ["send a task token", "write a frozen file", "invoke inference"]),
        ("people", ["write a version", "read a version", "write a model or its pointer"]),
        ("predict", ["write a version", "sign a delegation", "write a frozen file"]),
        ("prepare_stage", ["read the hold-out's labels", "write a frozen file", "write a model or its pointer"]),
        ("reconcile", ["write a version", "write a model or its pointer", "write a tile", "delete a finding"]),
        ("record_stage", ["send a task token", "write a model or its pointer", "read a login"]),
        ("register", ["send a task token", "write a login", "write a frozen file"]),
        ("registry", ["write a version", "write a receipt", "write a frozen file", "sign a delegation"]),
        ("root", ["sign a checkpoint", "write a tile", "write a version", "sign a delegation"]),
        ("sandbox", ["read a data set", "read the hold-out's labels", "write a job"]),
        ("sequence", ["write a version", "cosign a checkpoint", "write the root of trust", "overwrite a tile", "attest as gate"]),
        ("sign_artifact", ["write a frozen file", "write an attestation", "read a version", "read the hold-out's labels"]),
        ("sweep", ["send a task token", "write a model or its pointer", "read a frozen file"]),
        ("deliver", ["write a version", "queue a delivery", "tell an event", "read a version", "write a tile"]),
        (
            "tell",
            ["write a version", "write an event", "write a tile", "sign a checkpoint", "derive a webhook's secret", "write a webhook"],
        ),
        ("webhooks", ["take a delivery", "tell an event", "write a version", "write a person", "read the ledger"]),
        ("uploads", ["write a version", "read an upload", "write a candidate"]),
        ("witness", ["sign a checkpoint", "read the ledger", "read the ledger's head", "write the ledger's head"]),
    ],
)
def test_a_function_is_denied_what_would_break_the_separation(
    answers: Mapping[tuple[str, str], str], function: str, acts: list[str]
) -> None:
    assert [act for act in acts if answers[act, function] not in DENIED] == []


def test_every_function_of_the_stack_is_tried(registry: Registry) -> None:
    pages = registry.aws("lambda").get_paginator("list_functions").paginate()
    names = {f["FunctionName"] for page in pages for f in page["Functions"]}
    assert {name for name in names if name.startswith("attestry-")} == {f"attestry-{f.replace('_', '-')}" for f in FUNCTIONS}
