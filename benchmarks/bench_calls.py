"""AWS round trips and DynamoDB capacity of each operation: the real handlers, in this process, against the embedded AWS.

What a handler has another function do (inference, delegation, the gate) is one round trip of its own; the other function's calls are
counted where it is measured itself. Stage scripts run in the deployed sandbox.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from types import ModuleType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestry.aws.http import read_request
from attestry.aws.identity import caller
from attestry.aws.world import World
from attestry.client.submit import PreparedSubmission, prepare_submission
from attestry.domain.approvals import Verdict
from attestry.evidence.delegation import jwk_of
from attestry.evidence.prediction_id import PredictionId
from attestry.usecases.decide import decide_approval
from attestry.usecases.records import person_of
from attestry.usecases.sign import receipt_key
from benchmarks.counting import Count
from benchmarks.embedded import INVOCATION, MODEL, EmbeddedRegistry
from benchmarks.result import Cell, Result, Table, Target
from lambdas import collect, decide, delegate, deploy, gate, operate, predict, prepare_stage, record_stage, register, registry, uploads

WARM_PREDICTIONS = 10
FEW, MANY = 3, 60
TARGET_PREDICT, TARGET_TRACE = 3, 7
"""Of a trace one at the gate, in a process that has not decided on the caller within the last seconds."""
STAGES = ("PROCESSING", "TRAINING", "VALIDATION")
SERVICES = ("dynamodb", "s3", "lambda", "kms", "sfn", "sns")
NOTES = (
    "Of n counts the largest. Write units by the emulator's ReturnConsumedCapacity, read units by the size of what was read.",
    "EventBridge rules are off meanwhile, so that no deployed function does the same work a second time.",
    "A trace that reads every file has one more for each file; one whose row has expired (35 days) three more for the archived receipt.",
    "Neither is judged.",
)


@dataclass
class Counts:
    """The counts by operation, in the order in which they were made; of several of one operation the largest counts.

    Attributes:
        by_operation: the counts.
    """

    embedded: EmbeddedRegistry
    by_operation: dict[str, list[Count]] = field(default_factory=dict)

    def measure(self, operation: str, act: Callable[[], Any]) -> Any:
        """Do something once, and count."""
        with self.embedded.calls.counting() as count:
            answer = act()
        self.by_operation.setdefault(operation, []).append(count)
        return answer

    def largest(self, operation: str) -> Count:
        """Return the largest count of an operation."""
        return max(self.by_operation[operation], key=lambda count: count.round_trips)

    @property
    def rows(self) -> tuple[tuple[Cell, ...], ...]:
        """The table's rows."""
        return tuple(self._row(operation) for operation in self.by_operation)

    def _row(self, operation: str) -> tuple[Cell, ...]:
        count = self.largest(operation)
        services = (count.of(service) or None for service in SERVICES)
        return operation, count.round_trips, *services, count.read_units, count.write_units, len(self.by_operation[operation])


def run(embedded: EmbeddedRegistry) -> Result:
    """Count every operation, and judge predict and trace."""
    counts = Counts(embedded)
    story = _Story(embedded, counts)
    _ = embedded.first_version
    with story.quiet_rules():
        story.approve_first()
        prediction = story.predict()
        story.make_second()
        story.register_until(FEW)
        story.trace(prediction, FEW)
        story.register_until(MANY)
        story.trace(prediction, MANY)
        story.collect()
        story.trace_collected(prediction)
    columns = ("operation", "round trips", *SERVICES, "read units", "write units", "n")
    table = Table("AWS round trips and capacity", columns, counts.rows, NOTES)
    detail = {name: counts.largest(name).to_dict() for name in counts.by_operation}
    return Result("calls", (table,), _targets(counts), {"operations": detail})


def _targets(counts: Counts) -> tuple[Target, ...]:
    few, many = (counts.largest(f"trace among {number} versions").round_trips for number in (FEW, MANY))
    return (
        Target("round trips of a warm predict", counts.largest("predict, warm").round_trips, TARGET_PREDICT),
        Target(f"round trips of a trace among {FEW} versions", few, TARGET_TRACE),
        Target(f"round trips of a trace among {MANY} versions", many, TARGET_TRACE),
        Target(f"round trips that {MANY - FEW} more versions add to a trace", many - few, 0),
    )


class _Story:
    """The life of two versions, step by step."""

    def __init__(self, embedded: EmbeddedRegistry, counts: Counts) -> None:
        self._embedded = embedded
        self._counts = counts
        self._pipeline = ""
        self._versions = 1
        self._worlds: dict[str, World] = {}

    @contextmanager
    def quiet_rules(self) -> Iterator[None]:
        """Keep uploads and the clock from starting functions, and give `register` a pipeline that does nothing."""
        session = self._embedded.stack.session("root")
        events, states, roles = session.client("events"), session.client("stepfunctions"), session.client("iam")
        rules = [rule["Name"] for rule in events.list_rules()["Rules"]]
        for rule in rules:
            events.disable_rule(Name=rule)
        nothing = json.dumps({"StartAt": "Nothing", "States": {"Nothing": {"Type": "Succeed"}}})
        role = next(r["Arn"] for r in roles.list_roles()["Roles"] if "gate" in r["RoleName"])
        made = states.create_state_machine(name="benchmark", definition=nothing, roleArn=role)
        self._pipeline = made["stateMachineArn"]
        try:
            yield
        finally:
            for rule in rules:
                events.enable_rule(Name=rule)

    def approve_first(self) -> None:
        """Approve version 1, which the real pipeline then deploys."""
        route = "POST /v1/models/{model}/versions/{number}/decision"
        event = self._embedded.event(route, "erin", body={"decision": "approve", "reason": "measured"}, model=MODEL, number=1)
        with self._world(decide):
            self._counts.measure("approve", partial(_answer, decide.handler, event))
        self._embedded.await_deployed(1)

    def predict(self) -> str:
        """Predict from a cold process on, and return a prediction's ID."""
        embedded = self._embedded
        rows = embedded.rows
        prediction = ""
        with self._world(predict):
            predict.predictor.cache_clear()
            for index in range(1 + WARM_PREDICTIONS):
                body = {"instances": [rows[index]]}
                event = embedded.event("POST /v1/models/{model}/predictions", "frank-consumer", body=body, model=MODEL)
                name = "predict, warm" if index else "predict, first of a process"
                prediction = self._counts.measure(name, partial(_answer, predict.handler, event))["prediction_id"]
            predict.predictor.cache_clear()
        key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        with self._world(delegate):
            asked = {"model": MODEL, "environment": "production", "jwk": dict(jwk_of(key))}
            self._counts.measure("delegate", lambda: delegate.handler(asked, INVOCATION)["delegation"])
        return prediction

    def make_second(self) -> None:
        """Take version 2 through every step of the pipeline, deploy it, and roll back."""
        number = self._submit()
        self._run_stages(number)
        by = self._approver()
        world = self._embedded.world("decide")
        decision = {"reason": "measured", "by": by, "at": datetime.now(UTC)}
        decide_approval(world.meta, world.attestor, world.store, MODEL, number, Verdict.APPROVE, **decision)
        with self._world(deploy):
            event = {"model": MODEL, "version": number, "attempt": 1, "reason": "measured"}
            answer = self._counts.measure("deploy", lambda: deploy.handler(event, INVOCATION))
        if answer["outcome"] != "SUCCEEDED":
            raise RuntimeError(f"version {number} was not deployed: {answer['error']}")
        with self._world(operate):
            back = self._embedded.event("POST /v1/models/{model}/rollback", "frank", body={"reason": "measured"}, model=MODEL)
            self._counts.measure("rollback", partial(_answer, operate.handler, back))

    def register_until(self, number: int) -> None:
        """Register versions, by the real path, until there are `number`."""
        while self._versions < number:
            self._register(self._prepared(), self._folder_of(f"more-{self._versions}"))

    def trace(self, prediction: str, versions: int) -> None:
        """Trace a prediction while there are so many versions."""
        self._trace(f"trace among {versions} versions", prediction)
        if versions == MANY:
            self._trace("trace, every file read", prediction, deep="true")

    def collect(self) -> None:
        """Archive the receipts."""
        with self._world(collect):
            self._counts.measure(f"collect ({WARM_PREDICTIONS + 1} receipts)", lambda: collect.handler({}, INVOCATION))

    def trace_collected(self, prediction: str) -> None:
        """Trace a prediction whose row has expired, so that its receipt is read from the archive."""
        found = PredictionId.parse(prediction)
        row = receipt_key(found.kid, found.sequence)
        table = self._embedded.stack.session("root").client("dynamodb")
        table.delete_item(TableName=self._embedded.stack.outputs["MetaTable"], Key={"pk": {"S": row.partition}, "sk": {"S": row.sort}})
        self._trace("trace, row expired", prediction)

    def _trace(self, name: str, prediction: str, **query: str) -> None:
        event = self._embedded.event("GET /v1/predictions/{id}/trace", "grace", query=query, id=prediction)
        self._worlds.pop("registry", None)  # as in a new process, which has not read the delegator's public key yet
        with self._world(registry):
            document = self._counts.measure(name, partial(_answer, registry.handler, event))
        # A deep trace is proven as well, as far as the ledger has come, which stands still here.
        if document["verdict"] == "BROKEN" or (not query and document["verdict"] != "SIGNED-UNANCHORED"):
            raise RuntimeError(f"the trace is {document['verdict']}")

    def _submit(self) -> int:
        prepared = self._prepared()
        announced = {"files": [{"name": f.name, "size": f.size, "sha256": f.sha256} for f in prepared.files]}
        with self._world(uploads):
            event = self._embedded.event("POST /v1/uploads", "dana", body=announced)
            grant = self._counts.measure("upload grant", partial(_answer, uploads.handler, event))
        return self._register(prepared, str(grant["prefix"]), "register")

    def _register(self, prepared: PreparedSubmission, folder: str, operation: str = "register, a further version") -> int:
        """Put the files where an upload would, and register them."""
        world = self._world_of(register)
        key = ""
        for file in prepared.files:
            content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
            key = folder + file.name
            world.store.put_new(key, content)
        event = {"detail": {"object": {"key": key}}}
        with self._world(register, world):
            status = self._counts.measure(operation, lambda: register.handler(event, INVOCATION))
        if status["state"] != "REGISTERED":
            raise RuntimeError(f"the registration was refused: {status['errors']}")
        self._versions = int(status["version"])
        return self._versions

    def _prepared(self) -> PreparedSubmission:
        """Return the example as another candidate than any before: with another strength of regularisation."""
        prepared = self._example
        mapping = json.loads(json.dumps(prepared.mapping))
        mapping["training"]["hyperparameters"]["C"] = 0.1 + self._versions / 1000
        raw = json.dumps(mapping, ensure_ascii=False, indent=2).encode()
        *others, manifest = prepared.files
        changed = type(manifest)(manifest.name, len(raw), hashlib.sha256(raw).hexdigest(), raw)
        return PreparedSubmission((*others, changed), mapping, prepared.source)

    @cached_property
    def _example(self) -> PreparedSubmission:
        return prepare_submission(self._embedded.project)

    def _folder_of(self, submission: str) -> str:
        return f"candidates/AROABENCHMARK:dana/{submission}/"

    def _run_stages(self, number: int) -> None:
        execution = {"arn": f"{self._pipeline}:benchmark", "name": "benchmark", "started": datetime.now(UTC).isoformat()}
        of = {"model": MODEL, "version": number, "attempt": 1, "execution": execution}
        with self._world(prepare_stage), self._world(record_stage):
            self._counts.measure("plan environments", lambda: prepare_stage.handler({**of, "stage": "ENVIRONMENT"}, INVOCATION))
            for stage in STAGES:
                self._run_stage({**of, "stage": stage})
        with self._world(gate):
            waiting = {**of, "action": "wait", "token": base64.b64encode(b"benchmark").decode()}
            self._counts.measure("open approval", lambda: gate.handler(waiting, INVOCATION))

    def _run_stage(self, of: Mapping[str, Any]) -> None:
        stage = of["stage"]
        job = self._counts.measure(f"prepare {stage}", lambda: prepare_stage.handler(dict(of), INVOCATION))
        entered = datetime.now(UTC).isoformat()
        ran = self._embedded.invoke("sandbox", {"job_url": job["job_url"]})
        evaluation = self._embedded.invoke("evaluate", {**job["evaluate"], "stage": stage}) if job["evaluate"] else None
        event = {**of, "entered": entered, "run": ran, "evaluation": evaluation, "error": None}
        recorded = self._counts.measure(f"record {stage}", lambda: record_stage.handler(event, INVOCATION))
        if recorded["outcome"] != "SUCCEEDED":
            raise RuntimeError(f"{stage} ended {recorded['outcome']}: {recorded['error']}")

    def _approver(self) -> Any:
        world = self._embedded.world("decide")
        return person_of(world.meta, caller(read_request(self._embedded.event("", "erin")), world.settings))

    def _world_of(self, function: ModuleType) -> World:
        name = function.__name__.rpartition(".")[2]
        if name not in self._worlds:
            changed = {"ATTESTRY_PIPELINE_ARN": self._pipeline} if name == "register" else {}
            self._worlds[name] = self._embedded.world(name, **changed)
        return self._worlds[name]

    @contextmanager
    def _world(self, function: Any, world: World | None = None) -> Iterator[None]:
        """Let a handler's module work with the embedded AWS."""
        before = function.world
        function.world = world or self._world_of(function)
        try:
            yield
        finally:
            function.world = before


def _answer(handler: Callable[..., dict[str, Any]], event: dict[str, Any]) -> Any:
    return _ok(handler(event, INVOCATION))


def _ok(answer: Mapping[str, Any]) -> Any:
    """Return the body of an answer of the API.

    Raises:
        RuntimeError: it is an error.
    """
    body = json.loads(answer["body"])
    if answer["statusCode"] >= 300:
        raise RuntimeError(f"the API answered {answer['statusCode']}: {body}")
    return body
