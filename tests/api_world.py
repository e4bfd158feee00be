"""The API in one process: the handlers of all routes over ports in memory, with a registry that has something of everything.

    world = ApiWorld.install(monkeypatch)
    answer = world.call("GET", "/v1/models", who="auditor/grace")

A request goes the way that the gateway gives it: the path picks the route, its parameters arrive percent-encoded, equal names in the query
are joined by commas, headers have names in lower case.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urlencode

import pytest

from attestry.api.operations import OPERATIONS
from attestry.aws import http
from attestry.aws.rate_limit import CallerShares
from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.evidence.note import Algorithm, Verifier
from attestry.ports import Put
from attestry.usecases.attest import Attestor
from attestry.usecases.conflicts import declare_conflict
from attestry.usecases.predict import Predictor
from attestry.usecases.records import login_key
from lambdas import (
    bundle,
    catalogue,
    custody,
    decide,
    describe,
    gate,
    operate,
    people,
    predict,
    record_stage,
    register,
    registry,
    root,
    runs,
    uploads,
    webhooks,
)
from tests.evidence_world import EvidenceWorld
from tests.fakes import MemoryObjectCustody, MemoryObjectStore, MemoryPipeline
from tests.root_of_trust import REGISTRY, WITNESS
from tests.versions import ACCOUNT, session

MODULES: Mapping[str, Any] = {
    "bundle": bundle,
    "catalogue": catalogue,
    "custody": custody,
    "decide": decide,
    "describe": describe,
    "operate": operate,
    "people": people,
    "predict": predict,
    "registry": registry,
    "root": root,
    "runs": runs,
    "uploads": uploads,
    "webhooks": webhooks,
}
"""Function to module, of those that serve routes."""

ROUTES: Mapping[str, str] = {route: name for name, module in MODULES.items() for route in module.ROUTES}
SETTINGS = {
    "ATTESTRY_ACCOUNT": ACCOUNT,
    "ATTESTRY_DEPLOY_FUNCTION": "deploy",
    "ATTESTRY_EVALUATE_FUNCTION": "evaluate",
    "ATTESTRY_GATE_FUNCTION": "gate",
    "ATTESTRY_DECISION_ARN": "arn:aws:states:eu-central-1:123456789012:stateMachine:RegistryDecision",
    "ATTESTRY_RECORD_FUNCTION": "record",
    "ATTESTRY_REGISTER_FUNCTION": "register",
    "ATTESTRY_LEDGER_ORIGIN": REGISTRY,
    "ATTESTRY_KEYS": json.dumps({"decide": "decide", "operate": "operate"}),
}


def sha256_of(message: bytes) -> bytes:
    """Stand for a key's code over a message."""
    return hashlib.sha256(b"key" + message).digest()


_LITERAL_FIRST = sorted(OPERATIONS, key=lambda o: o.path.count("{"))
_PATTERNS = [(o, re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(o.path)))) for o in _LITERAL_FIRST]


@dataclass(frozen=True)
class Answer:
    """What the API answered."""

    status: int
    headers: Mapping[str, str]
    raw: str

    @property
    def body(self) -> Any:
        return json.loads(self.raw) if self.raw else None


class ApiWorld:
    """See the module."""

    def __init__(self, evidence: EvidenceWorld) -> None:
        self.evidence = evidence
        self.model, self.prediction = "", ""
        self.meta, self.store, self.clock = evidence.meta, evidence.store, evidence.clock
        self.scratch = MemoryObjectStore()
        self.functions = evidence.flow.functions
        self.functions.handlers |= {
            "deploy": lambda _: None,
            "gate": _opened,
            "record": lambda event: record_stage.handler(dict(event), None),
            "register": lambda event: register.handler(dict(event), None),
        }
        self.predictor = Predictor(
            meta=self.meta, store=self.store, functions=self.functions, keys=evidence.keys, inference="inference", clock=lambda: 0.0
        )
        vkey = Verifier.of(WITNESS, evidence.witness_signer.public_key(), Algorithm.COSIGNATURE).vkey()
        witnesses = json.dumps([{"name": WITNESS, "function": "witness", "vkey": vkey}])
        self.settings = Settings({**SETTINGS, "ATTESTRY_WITNESSES": witnesses})

    @classmethod
    def install(cls, patch: pytest.MonkeyPatch) -> ApiWorld:
        """Return a registry with a deployed version and one that waits for its approval, served by the handlers."""
        evidence = EvidenceWorld()
        made = cls(evidence)
        evidence.deploy()
        made.model = evidence.head.model
        made.prediction = evidence.predict()
        evidence.seal()
        made.add_people()
        declare_conflict(
            made.meta, made.model, person="", reason="my own company", by=session("approver", "val", person="val"), at=made.clock.now()
        )
        for name, module in MODULES.items():
            if hasattr(module, "world"):
                patch.setattr(module, "world", made.world_of(name))
        # A test asks faster than anybody may; what a share is, tests/unit/test_api_headers.py says.
        patch.setattr(http, "SHARES", CallerShares(1e9, 1e9))
        # What is imported goes its whole way: `functions.deliver()` has it frozen and its approval opened.
        for name, module in {"gate": gate, "record_stage": record_stage, "register": register}.items():
            patch.setattr(module, "world", made.world_of(name))
        patch.setattr(record_stage, "_sign_artifact", evidence.flow.sign_artifact)
        patch.setattr(predict, "predictor", lambda: made.predictor)
        patch.setattr(root, "KmsSigner", lambda _, arn: evidence.flow.signers[arn])
        return made

    def add_people(self) -> None:
        """Let everybody who calls be somebody."""
        for login in ("dana", "frank", "alex", "val"):
            if self.meta.get(login_key(login)) is None:
                self.meta.transact([Put(login_key(login), {"person": login, "login": login})])

    def world_of(self, function: str) -> World:
        """Return the ports of a function."""
        world = World(self.settings, cast("Any", SimpleNamespace(kms=None)))
        flow = self.evidence.flow
        ports: dict[str, Any] = {name: getattr(self, name) for name in ("meta", "store", "scratch", "functions", "clock")}
        ports |= {"pipeline": flow.pipeline, "scorings": MemoryPipeline(), "notifier": flow.notifier, "delegator": self.evidence.delegator}
        ports["objects"] = MemoryObjectCustody(self.store, lambda: self.clock.at)
        ports["attestor"] = flow.attestors.get(function, Attestor(self.evidence.delegator, self.store))
        ports |= {"deliveries": SimpleNamespace(send=lambda _: None), "webhook_key": SimpleNamespace(mac=sha256_of)}
        world.__dict__.update(ports)
        return world

    def call(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        who: str = "admin/alex",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Send a request; `target` is a path with its query, a body of bytes or text goes as it is."""
        path, _, asked = target.partition("?")
        raw = body if isinstance(body, (bytes, str)) else "" if body is None else json.dumps(body)
        return self.send(method, path, "&".join(filter(None, (asked, urlencode(query or {})))), raw, who=who, headers=headers or {})

    def application(self, environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        """Serve as a WSGI application (PEP 3333); who calls is in the header `x-who`, as the gateway's authoriser would have found out."""
        target = str(environ.get("REQUEST_URI") or quote(environ["PATH_INFO"]))
        headers = {name[5:].replace("_", "-"): str(value) for name, value in environ.items() if name.startswith("HTTP_")}
        path, raw = target.partition("?")[0], environ["wsgi.input"].read()
        who = str(environ.get("HTTP_X_WHO", "admin/alex"))
        answer = self.send(str(environ["REQUEST_METHOD"]), path, str(environ.get("QUERY_STRING", "")), raw, who=who, headers=headers)
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(answer.headers.items()))
        return [answer.raw.encode()]

    def send(self, method: str, path: str, query: str, body: bytes | str, *, who: str, headers: Mapping[str, str]) -> Answer:
        """Send a request as the gateway hands it to a function; 404 by the gateway where no route fits."""
        for operation, pattern in _PATTERNS:
            found = pattern.fullmatch(path)
            if found and operation.method == method:
                event = gateway_event(operation.route, found.groupdict(), query, body, who=who, headers=headers)
                shaped = MODULES[ROUTES[operation.route]].handler(event, None)
                return Answer(int(shaped["statusCode"]), shaped["headers"], shaped["body"])
        return Answer(404, {"content-type": "application/json"}, '{"message": "Not Found"}')


def gateway_event(
    route: str, parameters: Mapping[str, str], query: str, body: bytes | str, *, who: str, headers: Mapping[str, str]
) -> dict[str, Any]:
    """Return an event in payload format 2.0."""
    role, login = who.split("/")
    identity = {"userArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-{role}/{login}", "userId": f"AROA{role.upper()}:{login}"}
    joined: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    encoded = isinstance(body, bytes)
    return {
        "version": "2.0",
        "routeKey": route,
        "rawQueryString": query,
        "headers": {name.lower(): value for name, value in headers.items()},
        **({"queryStringParameters": joined} if joined else {}),
        "pathParameters": dict(parameters),
        "requestContext": {
            "requestId": "r1",
            "http": {"method": route.split(" ")[0], "sourceIp": "192.0.2.7"},
            "authorizer": {"iam": identity},
        },
        "body": base64.b64encode(body).decode() if isinstance(body, bytes) else body,
        "isBase64Encoded": encoded,
    }


def _opened(event: Mapping[str, Any]) -> Any:
    return gate.handler(dict(event), None) if event["action"] == "open_import" else None
