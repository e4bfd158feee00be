"""A registry in memory whose real handlers run as functions do: one process each, that may be killed at any call of a port.

What survives a crash is in the ports: the table, the buckets, the executions, what was sent and not delivered. What a process remembers is
in its handler's module: the ports it made, the signing keys of predictions. `Snapshot` holds the former, so that any moment of a story can
be gone back to; `restart` forgets the latter.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from attestry.aws.settings import Settings
from attestry.aws.witnesses import LambdaWitnesses
from attestry.aws.world import World
from attestry.domain.errors import UnavailableError
from attestry.evidence.attestor import Attestor
from attestry.evidence.note import Algorithm, Verifier
from attestry.evidence.trusted_root import MAY_SIGN
from attestry.oms.bundle import OmsSigner
from attestry.ports import CallRecord, ExecutionDescription, Item, Key
from attestry.usecases.predict import Predictor
from attestry.usecases.witness import Witness
from lambdas import (
    collect,
    console_decision,
    custody,
    decide,
    delegate,
    deploy,
    gate,
    operate,
    people,
    predict,
    prepare_stage,
    record_stage,
    register,
    root,
    sequence,
    sign_artifact,
    sweep,
    uploads,
    witness,
)
from tests.evidence_world import TickingClock, spki
from tests.fakes import (
    Faults,
    Killed,
    LocalNoteSigner,
    LocalSigner,
    MemoryAlarms,
    MemoryFunctions,
    MemoryMetaStore,
    MemoryNotifier,
    MemoryObjectCustody,
    MemoryObjectStore,
    MemoryPipeline,
    _Execution,
    _Faulty,
    _Stored,
)
from tests.root_of_trust import REGISTRY, START, WITNESS, People, a_trusted_root, entry

ACCOUNT = "123456789012"
KEYS = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key"
DECISIONS = f"arn:aws:states:eu-central-1:{ACCOUNT}:stateMachine:attestry-RegistryDecision"
MODULES: dict[str, Any] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        collect,
        console_decision,
        custody,
        decide,
        delegate,
        deploy,
        gate,
        operate,
        people,
        predict,
        prepare_stage,
        record_stage,
        register,
        root,
        sequence,
        sign_artifact,
        sweep,
        uploads,
        witness,
    )
}
ENVIRONMENT = {
    "ATTESTRY_ACCOUNT": ACCOUNT,
    "ATTESTRY_CUSTODY_FUNCTION": "custody",
    "ATTESTRY_DECISION_ARN": DECISIONS,
    "ATTESTRY_DELEGATE_FUNCTION": "delegate",
    "ATTESTRY_DEPLOY_FUNCTION": "deploy",
    "ATTESTRY_GATE_FUNCTION": "gate",
    "ATTESTRY_RECORD_FUNCTION": "record_stage",
    "ATTESTRY_INFERENCE_FUNCTION": "inference",
    "ATTESTRY_LEDGER_ORIGIN": REGISTRY,
    "ATTESTRY_OPERATE_FUNCTION": "operate",
    "ATTESTRY_REGISTER_FUNCTION": "register",
    "ATTESTRY_SANDBOX_MEMORY_MIB": "2048",
    "ATTESTRY_SIGN_ARTIFACT_FUNCTION": "sign_artifact",
}


class Tolerant(MemoryNotifier):
    """`attestry.ports.Notifier` that swallows what goes wrong, as its contract says, but for the death of its process."""

    def notify(self, subject: str, message: Mapping[str, Any]) -> None:
        try:
            super().notify(subject, message)
        except UnavailableError:
            return


class SilentTrail(_Faulty):
    """`attestry.ports.Trail` that knows of nothing: what CloudTrail told was kept before."""

    def find_start(self, execution_arn: str, *, since: datetime) -> CallRecord | None:
        return cast("CallRecord | None", self._call("find_start", lambda: None))


class InConsole(_Faulty):
    """`attestry.ports.Executions` over what the registry's facts say that people started."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry.faults)
        self._registry = registry

    def describe(self, execution_arn: str) -> ExecutionDescription | None:
        found = dict(self._registry.facts.get("started", ()))
        return cast("ExecutionDescription | None", self._call("describe", lambda: found.get(execution_arn)))


class AskedOnce:
    """A signer in one process: asks the key for its public half once, as the adapters over KMS do."""

    def __init__(self, signer: Any) -> None:
        self._signer = signer
        self._public: bytes | None = None
        self.key_id = signer.key_id
        self.sign_es256 = getattr(signer, "sign_es256", None)
        self.sign_ed25519 = getattr(signer, "sign_ed25519", None)

    def public_key_der(self) -> bytes:
        return self._ask(self._signer.public_key_der)

    def public_key(self) -> bytes:
        return self._ask(self._signer.public_key)

    def _ask(self, read: Callable[[], bytes]) -> bytes:
        if self._public is None:
            self._public = self._signer._call("get_public_key", read)
        assert self._public is not None
        return self._public


@dataclass(frozen=True)
class Snapshot:
    """A moment: what is in the ports, and what the serving process remembers."""

    tables: tuple[dict[Key, Item], ...]
    buckets: tuple[dict[str, list[_Stored]], ...]
    executions: dict[str, _Execution]
    waiting: dict[str, str]
    resumed: dict[str, Any]
    sent: list[tuple[str, Any]]
    at: datetime
    facts: dict[str, Any]
    predictor: Predictor | None


class Registry:
    """Ports, keys and handlers.

    Attributes:
        faults: counts the calls of all ports.
        facts: what people and services outside remember: uploads, tokens, predictions that were answered.
    """

    def __init__(self) -> None:
        self.faults, self.clock = Faults(), TickingClock()
        self.meta, self.witness_meta = MemoryMetaStore(self.faults), MemoryMetaStore(self.faults)
        self.store, self.scratch = MemoryObjectStore(self.faults), MemoryObjectStore(self.faults)
        self.pipeline, self.notifier = MemoryPipeline(self.faults), Tolerant(self.faults)
        self.trail = SilentTrail(self.faults)
        self.executions, self.alarms = InConsole(self), MemoryAlarms(self.faults)
        called = {name: self._nested(name) for name in ("delegate", "gate", "register", "sign_artifact", "witness")}
        self.functions = MemoryFunctions({**called, "inference": _infer}, self.faults)
        self.facts: dict[str, Any] = {"acknowledged": ()}
        self.clients = SimpleNamespace()
        self._make_keys()
        self.people = People()
        self.trusted_root = a_trusted_root(self._deployed_keys(), start=START)
        self.root_files = self.people.begin(self.trusted_root)
        self._predictor: Predictor | None = None

    def _make_keys(self) -> None:
        self.signers = {f: LocalSigner(f"{KEYS}/{f}", self.faults) for f in (*MAY_SIGN, "delegate", "sign_artifact")}
        self.ledger_signer, self.witness_signer = LocalNoteSigner("ledger", self.faults), LocalNoteSigner("witness", self.faults)
        self.log_key = Verifier.of(REGISTRY, self.ledger_signer.public_key())
        vkey = Verifier.of(WITNESS, self.witness_signer.public_key(), Algorithm.COSIGNATURE).vkey()
        listed = json.dumps([{"name": WITNESS, "function": "witness", "vkey": vkey}])
        self.settings = Settings({**ENVIRONMENT, "ATTESTRY_WITNESSES": listed})

    def _deployed_keys(self) -> list[dict[str, Any]]:
        signer = {f: s.public_key_der() for f, s in self.signers.items()}
        return [
            entry("tlogs", REGISTRY, spki(self.ledger_signer.public_key())),
            entry("witnesses", WITNESS, spki(self.witness_signer.public_key())),
            entry("delegators", "", signer["delegate"], key_id=self.signers["delegate"].key_id),
            *(entry("signers", f, signer[f], key_id=self.signers[f].key_id) for f in MAY_SIGN),
            entry("artifactSigners", "", signer["sign_artifact"], key_id=self.signers["sign_artifact"].key_id),
        ]

    @property
    def pin(self) -> bytes:
        """The root that a verifier pinned."""
        return self.root_files["1.root.json"]

    # Processes

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let the handlers run over these ports."""
        for name, module in MODULES.items():
            if name not in ("sign_artifact", "witness"):
                patch.setattr(module, "world", None)
        patch.setattr(sign_artifact, "_ports", lambda: (self.store, OmsSigner(self._own("sign_artifact"))))
        patch.setattr(witness, "witness", self._witness)
        patch.setattr(predict, "predictor", self._predict)
        self.restart(*MODULES)

    def restart(self, *functions: str) -> None:
        """Begin new processes, which remember nothing."""
        for name in functions:
            if name == "predict":
                self._predictor = None
            if name == "sequence":
                sequence.sequencer.cache_clear()
            if name not in ("sign_artifact", "witness"):
                MODULES[name].world = self._world(name)

    def invoke(self, function: str, event: Mapping[str, Any]) -> Any:
        """Run a handler; where its process is killed, the next call finds a new one."""
        try:
            return MODULES[function].handler(dict(event), None)
        except Killed:
            self.restart(function)
            raise

    def api(self, function: str, route: str, who: str, body: Any, **parameters: Any) -> dict[str, Any]:
        """Send a request as the client does.

        Args:
            function: whose route it is.
            route: method and path template.
            who: role and login, `approver/erin`.
            body: JSON.
            parameters: of the path.

        Raises:
            UnavailableError: the registry asks for the request to be sent again.
        """
        answer = self.request(function, route, who, body, **parameters)
        if answer["statusCode"] in (429, 503):
            raise UnavailableError(answer["body"])
        assert answer["statusCode"] < 400, answer["body"]
        return cast("dict[str, Any]", json.loads(answer["body"]))

    def request(self, function: str, route: str, who: str, body: Any, **parameters: Any) -> dict[str, Any]:
        """Send a request and return the answer, whatever it is."""
        role, login = who.split("/")
        identity = {"userArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-{role}/{login}", "userId": f"AROA{role.upper()}:{login}"}
        event = {
            "version": "2.0",
            "routeKey": route,
            "pathParameters": {name: str(value) for name, value in parameters.items()},
            "requestContext": {"requestId": "r1", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": identity}},
            "body": json.dumps(body),
            "isBase64Encoded": False,
        }
        return cast("dict[str, Any]", self.invoke(function, event))

    def deliver(self) -> None:
        """Run what was sent, as Lambda does: an event goes away when its function has ended well."""
        while self.functions.sent:
            function, payload = self.functions.sent[0]
            self.invoke(function, payload)
            self.functions.sent.pop(0)

    def _world(self, function: str) -> World:
        world = World(self.settings, cast("Any", self.clients))
        ports: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("meta", "store", "scratch", "functions", "pipeline", "notifier", "clock", "trail", "executions", "alarms")
        }
        if function in MAY_SIGN:
            ports["attestor"] = Attestor(self._own(function), self.store)
        if function == "custody":
            ports["objects"] = MemoryObjectCustody(self.store, lambda: self.clock.at, self.faults)
        if function == "delegate":
            ports["delegator"] = self._own("delegate")
        if function == "sequence":
            ports |= {"ledger_signer": AskedOnce(self.ledger_signer), "witnesses": LambdaWitnesses(self.functions, self.settings.witnesses)}
        world.__dict__.update(ports)
        return world

    def _own(self, function: str) -> Any:
        return AskedOnce(self.signers[function])

    def _witness(self) -> Witness:
        signer = cast("Any", AskedOnce(self.witness_signer))
        return Witness(self.witness_meta, signer, self.clock, WITNESS, {REGISTRY: [self.log_key]})

    def _predict(self) -> Predictor:
        if self._predictor is None:
            keys = predict.SigningKeys(predict.FunctionDelegator(self.functions, "delegate"), self.clock)
            self._predictor = Predictor(
                meta=self.meta, store=self.store, functions=self.functions, keys=keys, inference="inference", clock=lambda: 0.0
            )
        return self._predictor

    def _nested(self, function: str) -> Callable[[Any], Any]:
        """A function that another one calls: it dies alone, and its caller hears that it failed."""

        def handler(payload: Any) -> Any:
            try:
                return self.invoke(function, payload)
            except Killed as error:
                raise UnavailableError("the process exited before it completed the request") from error

        return handler

    # Moments

    def snapshot(self) -> Snapshot:
        """Return this moment."""
        return Snapshot(
            tables=(dict(self.meta.rows), dict(self.witness_meta.rows)),
            buckets=tuple(_copied(bucket.versions) for bucket in (self.store, self.scratch)),
            executions={name: copy(execution) for name, execution in self.pipeline.executions.items()},
            waiting=dict(self.pipeline.waiting),
            resumed=dict(self.pipeline.resumed),
            sent=list(self.functions.sent),
            at=self.clock.at,
            facts=dict(self.facts),
            predictor=_forked(self._predictor),
        )

    def restore(self, moment: Snapshot) -> None:
        """Go back to a moment, with new processes but for the one that serves."""
        self.faults.clear()
        self.meta.rows, self.witness_meta.rows = (dict(rows) for rows in moment.tables)
        self.store.versions, self.scratch.versions = (_copied(versions) for versions in moment.buckets)
        self.pipeline.executions = {name: copy(execution) for name, execution in moment.executions.items()}
        self.pipeline.waiting, self.pipeline.resumed = dict(moment.waiting), dict(moment.resumed)
        self.functions.sent, self.functions.called = list(moment.sent), []
        self.clock.at, self.facts = moment.at, dict(moment.facts)
        self.restart(*MODULES)
        self._predictor = _forked(moment.predictor)

    # What others do, outside of the registry

    def put_object(self, bucket: MemoryObjectStore, key: str, body: bytes) -> None:
        """Write an object without a call of ours: a client with a URL, the sandbox, the builder of environments."""
        bucket._append(key, body, "application/octet-stream")

    def outside(self, bucket: MemoryObjectStore) -> Any:
        """A bucket as those outside see it."""
        return SimpleNamespace(put=lambda key, body: self.put_object(bucket, key, body))

    def wait(self, **time: float) -> None:
        """Let time pass."""
        self.clock.at += timedelta(**time)


def _copied(versions: Mapping[str, list[_Stored]]) -> dict[str, list[_Stored]]:
    return {key: [_Stored(**vars(stored)) for stored in kept] for key, kept in versions.items()}


def _forked(predictor: Predictor | None) -> Predictor | None:
    """A serving process as it was at a moment, with keys that go on counting for themselves."""
    if predictor is None:
        return None
    fork = copy(predictor)
    fork.keys, fork._versions = copy(predictor.keys), copy(predictor._versions)
    fork.keys._keys = OrderedDict((place, copy(key)) for place, key in predictor.keys._keys.items())
    fork._versions._versions = OrderedDict(predictor._versions._versions)
    return fork


def _infer(event: Mapping[str, Any]) -> dict[str, Any]:
    """What the inference function answers: it loads, or gives a number for each instance."""
    if event["instances"] is None:
        return {"status": "READY"}
    return {"status": "OK", "output": json.dumps([0.25] * len(event["instances"]))}
