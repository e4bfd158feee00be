"""The contracts of signer, pipeline, functions and notifier, for the adapters over the emulator and for the fakes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from attestry.aws.clock import SystemClock
from attestry.aws.functions import LambdaFunctions
from attestry.aws.notifier import SnsNotifier
from attestry.aws.pipeline import StepFunctionsPipeline
from attestry.aws.signer import KmsSigner
from attestry.domain.errors import AttestryError, InvalidInputError, UnavailableError
from attestry.ports import Functions, Pipeline, Signer
from tests.fakes import FixedClock, LocalSigner, MemoryFunctions, MemoryPipeline


@pytest.fixture(params=["memory", "kms"])
def signer(request: pytest.FixtureRequest) -> Signer:
    if request.param == "memory":
        return LocalSigner()
    client = request.getfixturevalue("client_of")("kms")
    return KmsSigner(client, client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"])


def _verify(signer: Signer, message: bytes, signature: bytes) -> None:
    key = serialization.load_der_public_key(signer.public_key_der())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 100_000])
def test_a_message_of_any_length_is_signed_as_r_and_s(signer: Signer, size: int) -> None:
    signature = signer.sign_es256(b"m" * size)
    assert len(signature) == 64
    _verify(signer, b"m" * size, signature)
    with pytest.raises(InvalidSignature):
        _verify(signer, b"m" * size + b"!", signature)


def test_r_and_s_keep_their_leading_zeros(signer: Signer) -> None:
    # One signature in 128 has a half that begins with a zero byte.
    assert {len(signer.sign_es256(bytes([i]))) for i in range(256)} == {64}


def test_a_signer_names_its_key(signer: Signer) -> None:
    assert signer.key_id


@pytest.fixture(params=["memory", "stepfunctions"])
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    if request.param == "memory":
        return MemoryPipeline()
    client = request.getfixturevalue("client_of")("stepfunctions")
    return StepFunctionsPipeline(client, request.getfixturevalue("state_machine"))


def test_an_execution_starts_once_and_the_second_start_names_the_same(pipeline: Pipeline, unique: str) -> None:
    arn = pipeline.start(unique, {"model": "m", "version": 1})
    assert arn.endswith(f":{unique}")
    assert pipeline.start(unique, {"model": "m", "version": 1}) == arn
    assert pipeline.start(unique, {"model": "other"}) == arn
    assert pipeline.status(unique) == "RUNNING"


def test_an_execution_that_was_never_started_has_no_status(pipeline: Pipeline, unique: str) -> None:
    assert pipeline.status(unique) is None


def test_a_token_that_nobody_waits_for_is_told(pipeline: Pipeline) -> None:
    assert pipeline.resume("no-such-token", {}) is False


def test_a_waiting_execution_is_resumed_once(client_of: Callable[..., Any], service_role: str, unique: str) -> None:
    client = client_of("stepfunctions")
    queue = client_of("sqs").create_queue(QueueName=unique)["QueueUrl"]
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Arguments": {"QueueUrl": queue, "MessageBody": "{% $states.context.Task.Token %}"},
        "End": True,
    }
    definition = {"QueryLanguage": "JSONata", "StartAt": "Wait", "States": {"Wait": task}}
    arn = client.create_state_machine(name=unique, definition=json.dumps(definition), roleArn=service_role)["stateMachineArn"]
    pipeline = StepFunctionsPipeline(client, arn)
    pipeline.start(unique, {})
    token = client_of("sqs").receive_message(QueueUrl=queue, WaitTimeSeconds=10)["Messages"][0]["Body"]
    assert pipeline.resume(token, {"decision": "approve"}) is True
    assert pipeline.resume(token, {"decision": "approve"}) is False


@pytest.mark.parametrize("bad", ["", "a/b", "a b", "x" * 81])
def test_an_execution_name_that_aws_would_refuse_is_refused(client_of: Callable[..., Any], state_machine: str, bad: str) -> None:
    with pytest.raises(InvalidInputError, match="execution_id"):
        StepFunctionsPipeline(client_of("stepfunctions"), state_machine).start(bad, {})


def test_a_state_over_256_kib_is_refused(client_of: Callable[..., Any], state_machine: str, unique: str) -> None:
    with pytest.raises(InvalidInputError, match="payload_size"):
        StepFunctionsPipeline(client_of("stepfunctions"), state_machine).start(unique, {"x": "y" * 300_000})


_CODE = """
def handler(event, context):
    if event.get("fail"):
        raise ValueError("told to fail")
    return {"echo": event}
"""


def make_function(client_of: Callable[..., Any], role: str, name: str, **settings: Any) -> str:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("echo.py", _CODE)
    code, client = {"ZipFile": archive.getvalue()}, client_of("lambda")
    client.create_function(FunctionName=name, Runtime="python3.13", Role=role, Handler="echo.handler", Code=code, Timeout=10, **settings)
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
    return name


@pytest.fixture(scope="module")
def echo_function(client_of: Callable[..., Any], service_role: str) -> str:
    return make_function(client_of, service_role, "contract-echo")


@pytest.fixture(params=["memory", "lambda"])
def functions(request: pytest.FixtureRequest) -> tuple[Functions, str]:
    if request.param == "lambda":
        return LambdaFunctions(request.getfixturevalue("client_of")("lambda")), request.getfixturevalue("echo_function")

    def echo(event: Any) -> Any:
        if event.get("fail"):
            raise ValueError("told to fail")
        return {"echo": event}

    return MemoryFunctions({"contract-echo": echo}), "contract-echo"


def test_a_call_returns_the_answer(functions: tuple[Functions, str]) -> None:
    port, name = functions
    assert port.call(name, {"a": [1, "ä"]}) == {"echo": {"a": [1, "ä"]}}


def test_a_function_that_fails_is_unavailable(functions: tuple[Functions, str]) -> None:
    port, name = functions
    with pytest.raises(UnavailableError, match="contract-echo"):
        port.call(name, {"fail": True})


def test_an_event_is_sent_without_waiting(functions: tuple[Functions, str]) -> None:
    port, name = functions
    port.send(name, {"a": 1})


def test_payloads_over_lambdas_limits_are_refused(client_of: Callable[..., Any]) -> None:
    functions = LambdaFunctions(client_of("lambda"))
    with pytest.raises(InvalidInputError, match="payload_size"):
        functions.call("f", {"x": "y" * (6 * 1024 * 1024)})
    with pytest.raises(InvalidInputError, match="payload_size"):
        functions.send("f", {"x": "y" * (256 * 1024)})


def test_a_function_isolated_by_tenant_is_called_with_the_tenant(client_of: Callable[..., Any], service_role: str) -> None:
    name = make_function(client_of, service_role, "contract-tenants", TenancyConfig={"TenantIsolationMode": "PER_TENANT"})
    functions = LambdaFunctions(client_of("lambda"), tenant_isolation=True)
    assert functions.call(name, {"a": 1}, tenant="one") == {"echo": {"a": 1}}
    with pytest.raises(AttestryError, match=r"(?i)tenant"):
        functions.call(name, {"a": 1})


def test_no_tenant_is_named_where_functions_are_not_isolated(client_of: Callable[..., Any], echo_function: str) -> None:
    assert LambdaFunctions(client_of("lambda"), tenant_isolation=False).call(echo_function, {}, tenant="one") == {"echo": {}}


def test_a_notification_reaches_the_topics_subscribers(client_of: Callable[..., Any], unique: str) -> None:
    sns, sqs = client_of("sns"), client_of("sqs")
    topic = sns.create_topic(Name=unique)["TopicArn"]
    queue = sqs.create_queue(QueueName=unique)["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    statement = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": queue_arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn)
    SnsNotifier(sns, topic).notify("über\n" + "x" * 200, {"errors": []})
    body = json.loads(sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"][0]["Body"])
    assert body["Subject"].startswith("?ber?xxx")
    assert json.loads(body["Message"]) == {"errors": []}


def test_a_notification_that_cannot_be_sent_is_logged_and_not_raised(
    client_of: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    SnsNotifier(client_of("sns"), "arn:aws:sns:eu-central-1:000000000000:gone").notify("subject", {})
    assert "notification not sent" in caplog.text


@pytest.mark.parametrize("clock", [SystemClock(), FixedClock()])
def test_a_clock_tells_utc(clock: Any) -> None:
    assert clock.now().utcoffset() == timedelta(0)
