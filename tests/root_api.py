"""The routes of the root of trust in memory: the real handler over the ports in memory, and keys that only have public halves."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.client.errors import ApiError
from attestry.evidence.note import Algorithm, vkey
from attestry.evidence.trusted_root import MAY_SIGN
from lambdas import root as root_function
from tests.fakes import FixedClock, MemoryMetaStore, MemoryObjectStore
from tests.root_of_trust import NOW, REGISTRY, WITNESS, ed, p256

ADMIN = "arn:aws:sts::123456789012:assumed-role/attestry-admin/ada"
OUTSIDE = "witness.example/one"


class PublicKeys:
    """What the handler asks of KMS.

    Attributes:
        keys: ARN to DER.
    """

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}

    def make(self, der: bytes) -> str:
        arn = f"arn:aws:kms:eu-central-1:123456789012:key/{len(self.keys):04d}"
        self.keys[arn] = der
        return arn

    def get_public_key(self, *, KeyId: str) -> dict[str, Any]:  # noqa: N803 - the name of KMS
        return {"PublicKey": self.keys[KeyId]}


@dataclass
class _Clients:
    kms: PublicKeys


class RootRegistry:
    """A registry's root routes; also the `RootApi` of ceremonies.

    Attributes:
        deployed: function to the ARN of its key; change it as a deployment would.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.meta, self.store, self.kms, self.clock = MemoryMetaStore(), MemoryObjectStore(), PublicKeys(), FixedClock(NOW)
        functions = [*MAY_SIGN, "delegate", "sign_artifact"]
        self.deployed = {f: self.kms.make(p256()) for f in functions} | {f: self.kms.make(ed()) for f in ("sequence", "witness")}
        self.witnesses = [
            {"name": WITNESS, "function": "attestry-witness", "vkey": "", "outside": False},
            self.outside_witness("arn:aws:lambda:eu-central-1:999999999999:function:witness"),
        ]
        self._monkeypatch = monkeypatch

    @staticmethod
    def outside_witness(function: str) -> dict[str, Any]:
        return {"name": OUTSIDE, "function": function, "vkey": vkey(OUTSIDE, ed()[-32:], Algorithm.COSIGNATURE), "outside": True}

    def replace_key(self, function: str) -> None:
        """Deploy another key for a function."""
        self.deployed[function] = self.kms.make(ed() if function in ("sequence", "witness") else p256())

    def call(self, route: str, body: Any = None) -> tuple[int, Any]:
        """Answer a request as the function would."""
        settings = {
            "ATTESTRY_ACCOUNT": "123456789012",
            "ATTESTRY_LEDGER_ORIGIN": REGISTRY,
            "ATTESTRY_KEYS": json.dumps(self.deployed),
            "ATTESTRY_WITNESSES": json.dumps(self.witnesses),
        }
        world = World(Settings(settings), _Clients(self.kms))  # type: ignore[arg-type]
        world.__dict__.update(meta=self.meta, store=self.store, clock=self.clock)
        self._monkeypatch.setattr(root_function, "world", world)
        identity = {"userArn": ADMIN, "userId": "AROA:ada"}
        event = {
            "version": "2.0",
            "routeKey": route,
            "requestContext": {"requestId": "r1", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": identity}},
            "body": base64.b64encode(json.dumps(body).encode()).decode() if body is not None else "",
            "isBase64Encoded": body is not None,
        }
        answer = root_function.handler(event, None)
        return answer["statusCode"], json.loads(answer["body"])

    def root(self) -> Any:
        return self._good(*self.call("GET /v1/root"))

    def root_keys(self) -> Any:
        return self._good(*self.call("GET /v1/root/keys"))

    def publish_root(self, files: Mapping[str, str]) -> Any:
        return self._good(*self.call("POST /v1/root", {"files": dict(files)}))

    @staticmethod
    def _good(status: int, body: Any) -> Any:
        if status >= 400:
            raise ApiError.from_answer(status, body)
        return body
