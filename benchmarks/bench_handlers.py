"""How long each handler takes without AWS: the real handlers and use cases over the ports in memory.

A row passes through DynamoDB's wire format as with the real table; everything else of AWS costs nothing. Inference and scripts are not
part of it: they leave ready outputs. The unit beside the milliseconds is SHA-256 over one mebibyte, measured between the handlers, so
that a result of one machine can be held against that of another.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.approvals import Verdict
from attestry.domain.stages import SCRIPT_STAGES, Stage
from attestry.evidence.delegation import jwk_of
from attestry.ports import Put
from attestry.usecases.decide import decide_approval
from attestry.usecases.prepare_stage import StagePreparer
from attestry.usecases.records import login_key
from attestry.usecases.stage_plan import Sandbox
from benchmarks.embedded import INVOCATION, quiet_logs
from benchmarks.result import Result, Spread, Table

# The ports in memory belong to the tests, which are not written for the strict checks of this package.
flow: Any = importlib.import_module("tests.flow")

ACCOUNT = "123456789012"
MODEL = "tumour-diagnosis"
ONCE, OFTEN, PREDICTIONS = 15, 200, 25
MEBIBYTE = bytes(1 << 20)
VARIABLES = {
    "ATTESTRY_ACCOUNT": ACCOUNT,
    "ATTESTRY_DELEGATE_FUNCTION": "delegate",
    "ATTESTRY_DEPLOY_FUNCTION": "deploy",
    "ATTESTRY_GATE_FUNCTION": "gate",
    "ATTESTRY_INFERENCE_FUNCTION": "inference",
    "ATTESTRY_SANDBOX_MEMORY_MIB": "2048",
    "ATTESTRY_SIGN_ARTIFACT_FUNCTION": "sign_artifact",
}

Act = Callable[[], Any]
Setup = Callable[[], Act]


def run() -> Result:
    """Measure every handler."""
    quiet_logs()
    unit: list[float] = []
    rows = []
    cases = {**dict.fromkeys(_once(), ONCE), **dict.fromkeys(_often(), OFTEN)}
    setups = {**_once(), **_often()}
    for name, times in cases.items():
        unit += [_timed(lambda: hashlib.sha256(MEBIBYTE).digest()) for _ in range(5)]
        rows.append((name, _measure(setups[name], times, repeat=times == OFTEN)))
    whole = Spread.of(unit).median
    table = Table(
        "Handlers without AWS",
        ("handler", "ms", "least", "greatest", "n", "x SHA-256 of 1 MiB"),
        tuple((name, *spread.cells, round(spread.median / whole, 2)) for name, spread in rows),
        (f"SHA-256 of 1 MiB took {whole:.2f} ms (median of {len(unit)}).",),
    )
    return Result("handlers", (table,))


def _measure(setup: Setup, times: int, *, repeat: bool) -> Spread:
    """Return milliseconds; what changes its own world gets a new one for each run."""
    act = setup()
    values = []
    gc.collect()
    gc.disable()
    try:
        for index in range(times):
            if index and not repeat:
                act = setup()
            values.append(_timed(act))
    finally:
        gc.enable()
    return Spread.of(values)


def _timed(act: Act) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def _handler(function: str, made: Any, **ports: Any) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function's handler, whose module works with the ports of a flow from here on."""
    module = importlib.import_module(f"lambdas.{function}")
    world = World(Settings(VARIABLES))
    known = {port: getattr(made, port) for port in ("meta", "attestor", "store", "scratch", "functions", "pipeline", "notifier", "clock")}
    vars(world).update({**known, **ports})
    vars(module)["world"] = world
    return lambda event: module.handler(dict(event), INVOCATION)


def _event(route: str, role: str, who: str, *, body: Any = None, query: Mapping[str, str] | None = None, **path: Any) -> dict[str, Any]:
    iam = {"userArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-{role}/{who}", "userId": f"AROA{role.upper()}:{who}"}
    return {
        "routeKey": route,
        "pathParameters": {name: str(value) for name, value in path.items()},
        "queryStringParameters": dict(query or {}),
        "requestContext": {"requestId": "r", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": iam}},
        "body": None if body is None else json.dumps(body),
    }


def _api(handler: Callable[[Mapping[str, Any]], Any], event: Mapping[str, Any]) -> Act:
    """Return a request that has to succeed."""

    def act() -> None:
        answer = handler(event)
        if answer["statusCode"] >= 300:
            raise RuntimeError(f"{event['routeKey']} was answered {answer['statusCode']}: {answer['body']}")

    return act


def _once() -> dict[str, Setup]:
    """Return the handlers that change their world, so that each run needs a new one."""
    return {
        "register": _register,
        **{f"prepare_stage {stage}": partial(_prepare, stage) for stage in SCRIPT_STAGES},
        **{f"record_stage {stage}": partial(_record, stage) for stage in SCRIPT_STAGES},
        "gate": _gate,
        "decide": _decide,
        "deploy": _deploy,
        "operate (rollback)": _roll_back,
        f"collect ({PREDICTIONS} receipts)": _collect,
    }


def _often() -> dict[str, Setup]:
    """Return the handlers that can be called again and again."""
    return {
        "predict": _predict,
        "delegate": _delegate,
        "uploads": _uploads,
        "registry (version)": lambda: _read("GET /v1/models/{model}/versions/{number}", model=MODEL, number=1),
        "registry (trace)": _trace,
    }


def _registered() -> tuple[Any, Any]:
    """Return a flow with a registered version whose environments are built."""
    made = flow.Flow()
    lock = files("attestry.evaluation").joinpath("requirements.lock").read_bytes()
    made.preparer = StagePreparer(made.meta, made.attestor, made.store, made.scratch, Sandbox(2048, 10240, "arm64"), evaluation_lock=lock)
    version = made.register_example()
    made.build_environments(version)
    return made, version


def _at(stage: Stage) -> tuple[Any, Any]:
    """Return a flow with a version at the beginning of a stage."""
    made, version = _registered()
    for before in SCRIPT_STAGES[: SCRIPT_STAGES.index(stage)]:
        made.pass_stage(version, before)
    return made, version


def _of(version: Any, stage: Stage) -> dict[str, Any]:
    execution = {"arn": "arn:aws:states:eu-central-1:123456789012:execution:p:x", "name": "x", "started": "2026-01-02T03:04:05Z"}
    return {"model": version.model, "version": version.number, "attempt": 1, "stage": stage.value, "execution": execution}


def _register() -> Act:
    made = flow.Flow()
    source = flow.example_source()
    upload = made.upload(flow.example_manifest(source), source)
    handler = _handler("register", made)
    return lambda: handler({"detail": {"object": {"key": upload.key}}})


def _prepare(stage: Stage) -> Act:
    made, version = _at(stage)
    handler = _handler("prepare_stage", made)
    return lambda: handler(_of(version, stage))


def _record(stage: Stage) -> Act:
    made, version = _at(stage)
    made.prepare(version, stage)
    result = made.run(made.head(version), stage)
    event = {**_of(version, stage), "run": result.run, "evaluation": result.evaluation, "error": None, "entered": result.entered}
    made.functions.handlers["sign_artifact"] = lambda asked: made.sign_artifact(asked["folder"], asked["version_digest"]).to_item()
    handler = _handler("record_stage", made)
    return lambda: handler(event)


def _gate() -> Act:
    made, version = _at(Stage.VALIDATION)
    made.pass_stage(version, Stage.VALIDATION)
    handler = _handler("gate", made)
    return lambda: handler({"action": "wait", "model": version.model, "version": version.number, "token": "token"})


def _decide() -> Act:
    made = flow.Flow()
    version = made.register_example()
    made.to_approval(version)
    made.meta.transact([Put(login_key("erin"), {"person": "erin", "login": "erin"})])
    route = "POST /v1/models/{model}/versions/{number}/decision"
    body = {"decision": "approve", "reason": "measured"}
    return _api(_handler("decide", made), _event(route, "approver", "erin", body=body, model=version.model, number=version.number))


def _deploy() -> Act:
    made = flow.Flow()
    version = made.register_example()
    made.to_approval(version)
    decision = {"reason": "good", "by": flow.APPROVER, "at": made.clock.now()}
    decide_approval(made.meta, made.attestor, made.store, version.model, version.number, Verdict.APPROVE, **decision)
    made.functions.handlers["inference"] = lambda _: {"status": "READY"}
    handler = _handler("deploy", made)
    return lambda: handler({"model": version.model, "version": version.number, "attempt": 1, "reason": "measured"})


def _roll_back() -> Act:
    serving = flow.Serving()

    def less(manifest: Any) -> None:
        manifest["training"]["hyperparameters"]["C"] = 1.0

    serving.deploy(serving.flow.register_example(edit=less))
    event = _event("POST /v1/models/{model}/rollback", "deployer", "frank", body={"reason": "measured"}, model=MODEL)
    return _api(_handler("operate", serving.flow), event)


def _collect() -> Act:
    serving = flow.Serving()
    for _ in range(PREDICTIONS):
        serving.predict()
    handler = _handler("collect", serving.flow)
    return lambda: handler({})


def _predict() -> Act:
    handler = _handler("predict", flow.Serving().flow)
    importlib.import_module("lambdas.predict").predictor.cache_clear()
    body = {"instances": [{"a": 1.5, "b": 2.0}]}
    act = _api(handler, _event("POST /v1/models/{model}/predictions", "consumer", "frank", body=body, model=MODEL))
    act()
    return act


def _delegate() -> Act:
    serving = flow.Serving()
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    handler = _handler("delegate", serving.flow, delegator=serving.signer)

    def act() -> None:
        # Another second is another delegation of the same key; the same one again would be refused.
        serving.flow.clock.advance(seconds=1)
        answer = handler({"model": MODEL, "environment": "production", "jwk": dict(jwk_of(key))})
        if "delegation" not in answer:
            raise RuntimeError(f"no delegation: {answer}")

    return act


def _uploads() -> Act:
    announced = {"files": [{"name": name, "size": 1000, "sha256": "0" * 64} for name in ("manifest.yaml", "source.tar.gz", "data/a.csv")]}
    return _api(_handler("uploads", flow.Flow()), _event("POST /v1/uploads", "scientist", "dana", body=announced))


def _read(route: str, **path: Any) -> Act:
    return _api(_handler("registry", flow.Serving().flow), _event(route, "auditor", "grace", **path))


def _trace() -> Act:
    serving = flow.Serving()
    event = _event("GET /v1/predictions/{id}/trace", "auditor", "grace", id=serving.predict())
    return _api(_handler("registry", serving.flow, delegator=serving.signer), event)
