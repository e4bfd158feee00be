"""The handlers of predict, delegate and collect: events in, answers out; errors are answers."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.evidence.delegation import jwk_of
from lambdas import collect as collect_function
from lambdas import delegate as delegate_function
from lambdas import predict as predict_function
from tests.deployed import BODY, ENVIRONMENT, MODEL, Scene, make_version

ARN = "arn:aws:sts::123456789012:assumed-role/attestry-consumer/gil"
SETTINGS = {
    "ATTESTRY_ACCOUNT": "123456789012",
    "ATTESTRY_DELEGATE_FUNCTION": "delegate",
    "ATTESTRY_INFERENCE_FUNCTION": "inference",
}


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    scene = Scene()
    world = World(Settings(SETTINGS))
    ports = {"meta": scene.meta, "store": scene.store, "functions": scene.functions, "delegator": scene.signer}
    world.__dict__.update(ports, clock=scene.clock)
    for module in (predict_function, delegate_function, collect_function):
        monkeypatch.setattr(module, "world", world)
    predict_function.predictor.cache_clear()
    yield scene
    predict_function.predictor.cache_clear()


def post(body: bytes = BODY, *, encoded: bool = False, **changes: Any) -> dict[str, Any]:
    identity = {"userArn": ARN, "userId": "AROA:gil"}
    event = {
        "version": "2.0",
        "routeKey": "POST /v1/models/{model}/predictions",
        "pathParameters": {"model": MODEL},
        "requestContext": {"requestId": "r1", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": identity}},
        "body": base64.b64encode(body).decode() if encoded else body.decode(),
        "isBase64Encoded": encoded,
    }
    return predict_function.handler({**event, **changes}, None)


def error_of(answer: dict[str, Any]) -> tuple[int, str]:
    return answer["statusCode"], json.loads(answer["body"])["code"]


def rows(scene: Scene) -> list[dict[str, Any]]:
    return [row for key, row in scene.meta.rows.items() if key.sort.startswith("R#")]


@pytest.mark.parametrize("encoded", [False, True])
def test_a_prediction_is_answered_with_id_output_and_receipt(scene: Scene, encoded: bool) -> None:
    answer = post(encoded=encoded)
    assert answer["statusCode"] == 200
    body = json.loads(answer["body"])
    assert body.keys() == {"prediction_id", "model", "version", "standing", "output", "receipt", "request_salt"}
    assert body["output"] == [make_version(1).version_digest]
    assert rows(scene)[0]["receipt"] == body["receipt"]
    assert rows(scene)[0]["principal"]["subject"] == ARN
    assert rows(scene)[0]["principal"]["address"] == "192.0.2.7"


def test_a_key_is_kept_between_requests(scene: Scene) -> None:
    ids = [json.loads(post()["body"])["prediction_id"] for _ in range(3)]
    assert [i.rpartition("-")[2] for i in ids] == ["1", "2", "3"]
    assert len({i.rpartition("-")[0] for i in ids}) == 1


def test_a_cold_version_answers_503_with_retry_after(scene: Scene) -> None:
    scene.inference = lambda event: {"status": "LOADING" if "load" in event else "NOT_LOADED"}
    answer = post()
    assert error_of(answer) == (503, "not_ready")
    assert int(answer["headers"]["retry-after"]) > 0


@pytest.mark.parametrize(
    ("inference", "status", "code"),
    [
        ({"status": "REFUSED", "error": "model/model.joblib"}, 409, "integrity"),
        ({"status": "FAILED", "error": "ValueError"}, 502, "prediction_failed"),
        ({"status": "OK", "output": "[NaN]"}, 502, "prediction_failed"),
    ],
)
def test_what_is_not_signed_is_an_error_with_its_status(scene: Scene, inference: dict[str, Any], status: int, code: str) -> None:
    scene.inference = lambda event: inference
    assert error_of(post()) == (status, code)
    assert rows(scene) == []


def test_a_bad_request_names_its_field(scene: Scene) -> None:
    answer = post(b'{"instances":[{"age":"x","income":1}]}')
    assert error_of(answer) == (400, "invalid_input")
    assert json.loads(answer["body"])["field"] == "instances[0].age"


def test_a_request_without_an_identity_is_refused(scene: Scene) -> None:
    assert error_of(post(requestContext={}))[0] == 403
    assert scene.faults.calls == []


def test_a_lost_receipt_is_503_and_not_a_crash(scene: Scene) -> None:
    scene.faults.fail_after(2, method="transact")
    assert error_of(post()) == (503, "unavailable")
    assert post()["statusCode"] == 200


def test_the_delegate_function_answers_a_delegation(scene: Scene) -> None:
    answer = delegate_function.handler({"model": MODEL, "environment": ENVIRONMENT, "jwk": jwk_of(bytes(range(32)))}, None)
    assert answer.keys() == {"delegation", "kid"}


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({}, "invalid_input"),
        ({"model": MODEL, "environment": ENVIRONMENT, "jwk": "x"}, "invalid_input"),
        ({"model": "../x", "environment": ENVIRONMENT, "jwk": {}}, "invalid_input"),
        ({"model": MODEL, "environment": ENVIRONMENT, "jwk": {}}, "invalid_input"),
        ({"model": "other", "environment": ENVIRONMENT, "jwk": jwk_of(bytes(32))}, "not_found"),
        ({"model": MODEL, "environment": ENVIRONMENT, "jwk": jwk_of(bytes(32)), "version_digest": "x"}, "conflict"),
    ],
    ids=lambda v: repr(v)[:50],
)
def test_the_delegate_function_answers_its_refusals(scene: Scene, event: dict[str, Any], code: str) -> None:
    assert delegate_function.handler(event, None)["error"]["code"] == code


def test_the_collect_function_tells_what_it_did(scene: Scene) -> None:
    post()
    assert collect_function.handler({}, None)["receipts"] == 1


def test_the_predict_function_starts_without_what_it_does_not_need() -> None:
    code = "import lambdas.predict, sys; print(*sorted({'joserfc', 'pydantic', 'jsonschema', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
