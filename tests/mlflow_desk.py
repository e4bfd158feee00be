"""The function that answers MLflow over the ports in memory, with the real function behind it that moves versions."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from attestry.access.issuers import TokenHolder
from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.usecases.foresight import Foresight
from lambdas import mlflow, operate
from tests.fakes import FixedClock, MemoryFunctions, MemoryMetaStore, MemoryObjectStore, MemoryPipeline
from tests.versions import AT, ATTESTOR, add_logins, make_version

MODELS, VERSIONS, FILES = mlflow.MODELS, mlflow.VERSIONS, "/api/2.0/mlflow-artifacts"
API_URL = "https://api.example"
SETTINGS = {
    "ATTESTRY_ACCOUNT": "123456789012",
    "ATTESTRY_API_URL_PARAMETER": "/attestry/api-url",
    "ATTESTRY_DEPLOY_FUNCTION": "deploy",
    "ATTESTRY_GATE_FUNCTION": "gate",
    "ATTESTRY_MLFLOW_POLICY": "governed",
    "ATTESTRY_OPERATE_FUNCTION": "operate",
    "ATTESTRY_UPLOADS_FUNCTION": "uploads",
    "ATTESTRY_STORE": "attestry-store",
}


class Parameters:
    """The parameters of the account."""

    def read(self, name: str) -> str:
        assert name == "/attestry/api-url"
        return API_URL


class Desk:
    """A client of the function.

    Attributes:
        meta, store, functions, clock: the ports behind it.
        asked: routes of the function behind that were asked for.
        imports: models and bodies of the imports that were asked for; each submission is one version.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, policy: str = "governed") -> None:
        self.meta, self.store, self.clock = MemoryMetaStore(), MemoryObjectStore(), FixedClock(AT)
        self.asked: list[str] = []
        self.imports: list[tuple[str, dict[str, Any]]] = []
        self.functions = MemoryFunctions({"operate": self._operate, "uploads": self._uploads})
        ports = {"meta": self.meta, "store": self.store, "functions": self.functions, "clock": self.clock}
        for module in (mlflow, operate):
            world = World(Settings({**SETTINGS, "ATTESTRY_MLFLOW_POLICY": policy}))
            world.__dict__.update({**ports, "attestor": ATTESTOR, "pipeline": MemoryPipeline(), "parameters": Parameters()})
            monkeypatch.setattr(module, "world", world)
        monkeypatch.setattr(mlflow, "foresight", Foresight())
        mlflow._api_url.cache_clear()
        add_logins(self.meta, dana="dana", erin="erin", frank="frank")

    def ask(
        self, method: str, route: str, *, by: str = "dana", role: str = "scientist", holder: TokenHolder | None = None, **values: Any
    ) -> tuple[int, Any]:
        """Send a request as MLflow's clients do, signed or as the holder of a token, and return status and body."""
        query = urlencode([(k, v) for k, value in values.items() for v in (value if isinstance(value, list) else [value])])
        identity = {"userArn": f"arn:aws:sts::123456789012:assumed-role/attestry-{role}/{by}", "userId": f"AROA:{by}"}
        key, parameters = f"{method} {route}", {}
        for greedy in (f"{FILES}/artifacts/", f"{FILES}/presigned/"):
            if route.startswith(greedy):
                key, parameters = f"{method} {greedy}{{path+}}", {"path": route.removeprefix(greedy)}
        if route.startswith(f"{mlflow.WEBHOOKS}/"):
            webhook, slash, act = route.removeprefix(f"{mlflow.WEBHOOKS}/").partition("/")
            key, parameters = f"{method} {mlflow.WEBHOOKS}/{{webhook_id}}{slash}{act}", {"webhook_id": webhook}
        event = {
            "version": "2.0",
            "routeKey": key if holder is None else key.replace(" /", " /oidc/", 1),
            "rawQueryString": query if method == "GET" else "",
            "pathParameters": parameters,
            "requestContext": {
                "requestId": "r1",
                "http": {"sourceIp": "192.0.2.7"},
                "authorizer": {"iam": identity} if holder is None else {"lambda": holder.to_context()},
            },
            "body": "" if method == "GET" else json.dumps(values),
            "isBase64Encoded": False,
        }
        answer = mlflow.handler(event, None)
        if answer["isBase64Encoded"]:
            return answer["statusCode"], base64.b64decode(answer["body"])
        return answer["statusCode"], json.loads(answer["body"])

    def ok(self, method: str, route: str, **values: Any) -> Any:
        """Send a request that succeeds, and return the body."""
        status, body = self.ask(method, route, **values)
        assert status == 200, body
        return body

    def refused(self, method: str, route: str, **values: Any) -> tuple[int, str, str]:
        """Send a request that is refused, and return status, code and message."""
        status, body = self.ask(method, route, **values)
        assert status >= 400, body
        assert set(body) == {"error_code", "message"}
        return status, body["error_code"], body["message"]

    def _operate(self, event: Any) -> Any:
        self.asked.append(event["routeKey"])
        return operate.handler(dict(event), None)

    def _uploads(self, event: Any) -> Any:
        """Answer as the native import does: the same submission is the same version."""
        self.asked.append(event["routeKey"])
        model, body = event["pathParameters"]["model"], json.loads(event["body"])
        submissions = [b["submission"] for _, b in self.imports]
        if body["submission"] not in submissions:
            make_version(self.meta, model=model, number=len(submissions) + 1)
        self.imports.append((model, body))
        number = list(dict.fromkeys(b["submission"] for _, b in self.imports)).index(body["submission"]) + 1
        return {"statusCode": 202, "body": json.dumps({"model": model, "version": number})}

    def create(self, name: str, **values: Any) -> Any:
        """Make a model."""
        return self.ok("POST", f"{MODELS}/create", name=name, **values)["registered_model"]

    def version(self, name: str, number: int, **values: Any) -> Any:
        """Return a version."""
        return self.ok("GET", f"{VERSIONS}/get", name=name, version=str(number), **values)["model_version"]

    def events(self) -> list[dict[str, Any]]:
        """Return the events that were committed, oldest first."""
        rows = sorted(self.meta.query("OUTBOX"), key=lambda row: str(row["sk"]))
        return [json.loads(row["event"]) for row in rows]
