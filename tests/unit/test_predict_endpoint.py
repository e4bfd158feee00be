"""Predict where SageMaker serves: what is asked is the version's own variant, and only what that answered is signed for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from attestry.aws.endpoints import MAX_ANSWER_BYTES
from attestry.domain.endpoints import EndpointSettings, Variant, endpoint_name, plan_endpoint, variant_name
from attestry.domain.errors import AttestryError, IntegrityError, InvalidInputError, NotReadyError, PredictionFailedError, UnavailableError
from attestry.domain.manifest_sections import Endpoint
from attestry.domain.version import Version
from attestry.evidence.delegation import verify_delegation
from attestry.evidence.receipt import verify_receipt
from attestry.usecases.ask import EndpointCalls
from attestry.usecases.ask_endpoint import MAX_REQUEST_BYTES, ask_endpoint
from attestry.usecases.predict import Prediction
from attestry.usecases.shadow import ShadowRunner
from attestry.usecases.sign import delegation_key
from tests.deployed import BODY, ENVIRONMENT, MODEL, Scene, make_version, principal
from tests.endpoint_service import Endpoint as Running
from tests.endpoint_service import RefusedError, SageMaker, answer_by_digest

SETTINGS = EndpointSettings((MODEL,), "store", "scratch", "arn:aws:iam::123456789012:role/attestry-serve-")
ASKED = Endpoint("123456789012.dkr.ecr.eu-central-1.amazonaws.com/serving@sha256:" + "ab" * 32, "ml.m7i.xlarge")


class World:
    """Version 1 deployed, served by SageMaker; further ones beside it."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.sagemaker = SageMaker(self.scene.faults)
        self.runtime = self.sagemaker.runtime
        self.calls = EndpointCalls("attestry", lambda: self.runtime)
        self.predictor = self.scene.predictor(endpoints=self.calls)
        self.scene.change_version(1, target="sagemaker")
        self.serve(1)

    def serve(self, *numbers: int) -> None:
        """Let the endpoint serve these versions and no others."""
        plan = plan_endpoint(SETTINGS, "attestry", MODEL, ENVIRONMENT, [Variant(make_version(n), ASKED) for n in numbers])
        self.sagemaker.models = {name: dict(request) for name, request in plan.models.items()}
        self.sagemaker.configs = {plan.config: dict(plan.request)}
        self.sagemaker.endpoints = {plan.name: Running(plan.config, "InService")}

    def canary(self, number: int = 2) -> Version:
        """Let a version of SageMaker's answer every request as canary."""
        version = self.scene.roll_out(number, "CANARY", share=100)
        self.scene.change_version(number, target="sagemaker")
        return version

    def ask(self, body: bytes = BODY) -> Prediction:
        return self.predictor.predict(MODEL, ENVIRONMENT, body, principal("gil"))

    def receipts(self) -> list[dict[str, Any]]:
        return [row for key, row in self.scene.meta.rows.items() if key.sort.startswith("R#")]

    def answers(self, container: Callable[[Mapping[str, Any], bytes], bytes]) -> None:
        self.sagemaker.container = container


@pytest.fixture
def world() -> World:
    return World()


def output(value: Any, number: int = 1, **more: Any) -> bytes:
    return json.dumps({"status": "OK", "output": value, "version_digest": make_version(number).version_digest, **more}).encode()


def test_a_prediction_of_sagemaker_is_signed_for_the_version_that_its_variant_is_of(world: World) -> None:
    prediction = world.ask()
    digest = make_version(1).version_digest
    assert json.loads(prediction.output) == [digest]
    delegation = verify_delegation(
        world.scene.meta.rows[delegation_key(prediction.prediction_id.partition("-")[0])]["delegation"], world.scene.signer.public_key_der()
    )
    assert verify_receipt(prediction.receipt, delegation).version.digest == digest


def test_a_warm_prediction_takes_three_round_trips_by_an_endpoint_too(world: World) -> None:
    world.ask()
    world.scene.faults.clear()
    world.ask()
    assert world.scene.faults.calls == ["MemoryMetaStore.get", "SageMaker.InvokeEndpoint", "MemoryMetaStore.transact"]


def test_the_call_names_endpoint_variant_and_digest_and_the_columns_in_their_order(world: World) -> None:
    asked: list[dict[str, Any]] = []
    world.answers(lambda made, body: asked.append(json.loads(body)) or answer_by_digest(made, body))  # type: ignore[func-returns-value]
    world.ask()
    (body,) = asked
    assert body == {
        "version_digest": make_version(1).version_digest,
        "instances": [{"age": 41, "income": 52000.5}],
        "columns": ["age", "income"],
    }


@pytest.mark.parametrize("answered", ["", "v2-" + "0" * 32, "AllTraffic"])
def test_nothing_is_signed_that_another_variant_answered(world: World, answered: str) -> None:
    world.sagemaker.answers_as = answered
    with pytest.raises(IntegrityError, match="nothing is signed"):
        world.ask()
    assert world.receipts() == []


def test_nothing_is_signed_that_a_container_of_another_version_answered(world: World) -> None:
    world.answers(lambda made, body: output([1], number=2))
    with pytest.raises(IntegrityError, match="another version digest"):
        world.ask()
    assert world.receipts() == []


def test_an_endpoint_that_was_deleted_is_told_and_not_taken_for_the_callers_fault(world: World) -> None:
    world.sagemaker.endpoints.clear()
    with pytest.raises(UnavailableError, match=r"Endpoint attestry-credit-risk-production-\w+ of account") as caught:
        world.ask()
    assert caught.value.status == 503
    assert world.receipts() == []


def test_a_variant_that_is_gone_is_told_by_name(world: World) -> None:
    world.serve(2)
    with pytest.raises(UnavailableError, match="Variant v1-"):
        world.ask()


def test_while_an_endpoint_is_updated_the_variants_that_it_has_answer(world: World) -> None:
    world.sagemaker.endpoints[endpoint_name("attestry", MODEL, ENVIRONMENT)].status = "Updating"
    assert world.ask().number == 1


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("ModelNotReadyException", 429, NotReadyError),
        ("ServiceUnavailable", 503, UnavailableError),
        ("InternalFailure", 500, UnavailableError),
        ("InternalDependencyException", 530, UnavailableError),
        ("ThrottlingException", 400, UnavailableError),
        ("ModelError", 424, PredictionFailedError),
    ],
)
def test_what_sagemaker_answers_instead_is_told_as_what_it_is(world: World, code: str, status: int, error: type[AttestryError]) -> None:
    world.ask()
    world.scene.faults.fail_before(method="InvokeEndpoint", error=RefusedError("not now", code, status, OriginalMessage="out of memory"))
    with pytest.raises(error):
        world.ask()
    assert len(world.receipts()) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no answer that is understood"),
        (b"<html>502</html>", "no answer that is understood"),
        (b"[1]", "no answer that is understood"),
        (b"{}", "no output"),
        (b'{"status":"OK"}', None),
        (output([float("nan")]), "cannot be signed"),
        (output([float("inf")]), "cannot be signed"),
        (output([]), "one element for each of 1"),
        (output([1, 2]), "one element for each of 1"),
        (output({"0": 1}), "one element for each of 1"),
        (output("[1e999]"), "cannot be signed"),
        (output("not json"), "cannot be signed"),
        (json.dumps({"status": "FAILED", "error": "predict_fn: ValueError"}).encode(), "predict_fn: ValueError"),
        (output(["x" * (5 << 20)]), "larger than"),
        (b" " * (MAX_ANSWER_BYTES + 1), "larger than"),
    ],
)
def test_an_answer_that_is_no_prediction_is_never_signed(world: World, body: bytes, said: str | None) -> None:
    world.answers(lambda made, _: body)
    with pytest.raises((PredictionFailedError, IntegrityError), match=said):
        world.ask()
    assert world.receipts() == []


def test_a_request_beyond_what_sagemaker_takes_is_refused_before_it_is_asked() -> None:
    class Runtime:
        def invoke(self, endpoint: str, variant: str, body: bytes) -> Any:
            raise AssertionError("asked")

    payload = {"version_digest": "x", "instances": [{"a": "x" * MAX_REQUEST_BYTES}]}
    with pytest.raises(InvalidInputError, match="SageMaker takes 6291456"):
        ask_endpoint(Runtime(), "attestry", ENVIRONMENT, make_version(1), payload)


def test_what_a_canary_on_sagemaker_fails_the_deployed_version_answers(world: World) -> None:
    world.canary(2)  # and its variant is not there
    prediction = world.ask()
    assert (prediction.number, prediction.standing) == (1, "DEPLOYED")
    failures = [row for key, row in world.scene.meta.rows.items() if key.partition.startswith("CANARY#")]
    assert len(failures) == 1
    assert "Variant v2-" in str(failures[0])


def test_a_canary_whose_answer_is_another_variants_does_not_answer(world: World) -> None:
    world.serve(1, 2)
    version = world.canary(2)
    asked: list[str] = []

    def container(made: Mapping[str, Any], body: bytes) -> bytes:
        digest = str(made["PrimaryContainer"]["Environment"]["ATTESTRY_VERSION_DIGEST"])
        asked.append(digest)
        return output([1], number=1)

    world.answers(container)
    assert world.ask().number == 1
    assert asked == [version.version_digest, make_version(1).version_digest]


def test_a_canary_on_sagemaker_answers_beside_a_version_of_the_function(world: World) -> None:
    world.scene.change_version(1, target="")
    world.serve(2)
    world.canary(2)
    assert world.ask().standing == "CANARY"


def test_a_shadow_on_sagemaker_is_asked_behind_the_callers_back(world: World) -> None:
    world.serve(1, 2)
    world.scene.roll_out(2, "SHADOW")
    world.scene.change_version(2, target="sagemaker")
    assert world.ask().number == 1
    scene = world.scene
    runner = ShadowRunner(
        meta=scene.meta,
        store=scene.store,
        functions=scene.functions,
        keys=scene.keys,
        inference="inference",
        endpoints=world.calls,
        clock=lambda: scene.seconds,
    )
    assert runner.run().compared == 1
    assert len(world.receipts()) == 2


def test_a_registry_without_endpoints_answers_for_no_version_of_sagemakers(world: World) -> None:
    predictor = world.scene.predictor()
    with pytest.raises(UnavailableError, match="no endpoints on"):
        predictor.predict(MODEL, ENVIRONMENT, BODY, principal("gil"))


def test_a_killed_version_answers_no_more_though_its_variant_is_still_there(world: World) -> None:
    world.ask()
    from attestry.ports import Update
    from attestry.usecases.records import pointer_key

    def killed(made: Mapping[str, Any], body: bytes) -> bytes:
        gone = {
            "number": None,
            "version_digest": None,
            "vacant": {"number": 1, "kind": "version.killed", "at": "t", "by": "b", "reason": "r"},
        }
        world.scene.meta._apply([Update(pointer_key(MODEL, ENVIRONMENT), {**gone, "rev": 99})])
        world.scene.seconds += 3.5
        return answer_by_digest(made, body)

    world.answers(killed)
    with pytest.raises(AttestryError, match="was killed"):
        world.ask()
    assert len(world.receipts()) == 1


def test_names_are_those_that_sagemaker_takes_and_differ_where_models_and_environments_do() -> None:
    long = "m" * 63
    names = {endpoint_name("attestry", m, e) for m in (long, long[:-1], "a", "a-b") for e in ("production", "b-production", "staging")}
    assert len(names) == 12
    assert all(len(name) <= 63 and name.startswith("attestry-") and "--" not in name for name in names)
    assert variant_name(10**9, "ab" * 32) == f"v{10**9}-{'ab' * 16}"


def test_a_process_that_serves_by_the_function_loads_nothing_of_endpoints() -> None:
    code = "import sys, lambdas.predict; print([m for m in sys.modules if 'endpoint' in m and m.startswith('attestry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
