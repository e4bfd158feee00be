"""Predictions on the embedded AWS: bad requests, cold versions, and versions whose files were changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from attestry.domain.version import FileRef, Version, encode
from attestry.ports import Update
from attestry.usecases.records import version_key
from tests.embedded.flow_versions import Crowded, Interrupted
from tests.embedded.flows import Answer, Registry, example_rows, until

pytest_plugins = ("tests.embedded.flows", "tests.embedded.flow_versions")
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

GOOD = example_rows()[0]
GATEWAY_SECONDS = 29
MEBIBYTE = 1 << 20


def body_with(**changes: Any) -> bytes:
    """A request for one instance with other values."""
    return json.dumps({"instances": [{**GOOD, **changes}]}).encode()


BAD: dict[str, tuple[bytes, str, str]] = {
    "no JSON": (b"{", "", "json"),
    "no object": (b"[]", "", "fields"),
    "another field": (b'{"rows": []}', "", "fields"),
    "no instances": (b'{"instances": []}', "instances", "count"),
    "too many instances": (json.dumps({"instances": [{}] * 1001}).encode(), "instances", "count"),
    "an instance that is a list": (b'{"instances": [[1, 2]]}', "instances[0]", "type"),
    "a missing feature": (
        json.dumps({"instances": [{k: v for k, v in GOOD.items() if k != "mean_area"}]}).encode(),
        "instances[0].mean_area",
        "required",
    ),
    "an unknown feature": (body_with(shoe_size=43), "instances[0].shoe_size", "unknown"),
    "the label among the features": (body_with(malignant=1), "instances[0].malignant", "unknown"),
    "a text for a number": (body_with(mean_area="large"), "instances[0].mean_area", "type"),
    "a truth value for a number": (body_with(mean_area=True), "instances[0].mean_area", "type"),
    "nothing for a number": (body_with(mean_area=None), "instances[0].mean_area", "type"),
    "not a number": (body_with(mean_area=float("nan")), "", "json"),
    "a feature twice": (b'{"instances": [{"mean_area": 1, "mean_area": 2}]}', "", "json"),
    "more than a mebibyte": (body_with().ljust(MEBIBYTE + 1), "", "max_bytes"),
}


@dataclass(frozen=True)
class Cold:
    """Requests to a version that has to be loaded first and takes longer than a request waits.

    Attributes:
        answers: in order, the last one with a prediction.
    """

    answers: list[Answer]


@dataclass(frozen=True)
class Exchanged:
    """A version with a frozen file of other bytes, at which the table's reference points: somebody had rights on the bucket and the table.

    Attributes:
        file: the file.
        answer: the answer to a request afterwards, by processes that have not loaded the version yet.
        trace: the deep trace of a prediction that was made before.
    """

    file: FileRef
    answer: Answer
    trace: dict[str, Any]


@dataclass(frozen=True)
class Covered:
    """A version with a frozen file on which another S3 version was laid.

    Attributes:
        file: the file.
        trace: the trace of a prediction, afterwards.
        deployment: the version after it was to be deployed again.
    """

    file: FileRef
    trace: dict[str, Any]
    deployment: dict[str, Any]


@pytest.fixture(scope="module")
def cold(registry: Registry, interrupted: Interrupted) -> Cold:
    """See the class; what a caller does who heeds Retry-After."""
    put_in_place(registry, interrupted.model, interrupted.number)
    registry.forget_processes("inference")
    answers: list[Answer] = []
    until(lambda: answers.append(predict(registry, interrupted.model)) or answers[-1].status == 200, "the version was loaded")
    return Cold(answers)


@pytest.fixture(scope="module")
def covered(registry: Registry, crowded: Crowded) -> Covered:
    """See the class; what was laid on top is removed again."""
    put_in_place(registry, crowded.model, crowded.number)
    prediction = str(until(lambda: predict_ready(registry, crowded.model), "a prediction was made"))
    file, s3 = frozen_file(registry, crowded, "model/model.json"), registry.aws("s3")
    laid = s3.put_object(Bucket=registry.bucket, Key=file.key, Body=b'{"threshold": 0, "seconds_to_load": 0}')["VersionId"]
    try:
        trace = registry.client("grace").trace(prediction)
        deployment = deploy(registry, crowded.model, crowded.number)
    finally:
        s3.delete_object(Bucket=registry.bucket, Key=file.key, VersionId=laid)
    return Covered(file, trace, deployment)


@pytest.fixture(scope="module")
def exchanged(registry: Registry, crowded: Crowded, covered: Covered) -> Iterator[Exchanged]:
    """See the class; file and reference are put back."""
    put_in_place(registry, crowded.model, crowded.number)
    prediction = str(until(lambda: predict_ready(registry, crowded.model), "a prediction was made"))
    head, s3 = registry.head(crowded.model, crowded.number), registry.aws("s3")
    file = frozen_file(registry, crowded, "model/model.json")
    other = s3.put_object(Bucket=registry.bucket, Key=file.key, Body=b'{"threshold": 99, "seconds_to_load": 0}')["VersionId"]
    frozen = [replace(f, version_id=other) if f == file else f for f in head.frozen]
    try:
        set_frozen(registry, head, frozen)
        registry.forget_processes("inference")
        registry.forget_processes("predict")
        answer = until(lambda: once_loaded(registry, crowded.model), "the version was loaded, or refused")
        trace = registry.client("grace").trace(prediction, deep=True)
    finally:
        set_frozen(registry, head, head.frozen)
        s3.delete_object(Bucket=registry.bucket, Key=file.key, VersionId=other)
    yield Exchanged(file, answer, trace)
    registry.forget_processes("predict")


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_refused_by_field_and_rule(registry: Registry, deployed: tuple[str, int], case: str) -> None:
    body, field, rule = BAD[case]
    answer = registry.call("frank-consumer", "POST", f"/v1/models/{deployed[0]}/predictions", body)
    assert (answer.status, answer.fields) == (400, {field: rule})


def test_a_bad_request_is_signed_for_by_nobody(registry: Registry, deployed: tuple[str, int]) -> None:
    before = str(until(lambda: predict_ready(registry, deployed[0]), "a prediction was made"))
    assert registry.call("frank-consumer", "POST", f"/v1/models/{deployed[0]}/predictions", b"{").status == 400
    after = str(until(lambda: predict_ready(registry, deployed[0]), "a prediction was made"))
    numbers = [one.rpartition("-") for one in (before, after)]
    assert numbers[0][0] != numbers[1][0] or int(numbers[1][2]) == int(numbers[0][2]) + 1


def test_a_model_that_there_is_not_is_not_found(registry: Registry) -> None:
    answer = registry.call("frank-consumer", "POST", "/v1/models/no-such-model/predictions", body_with())
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize("name", ["..", "Tumour", "a%2F..%2Fb", "x" * 200])
def test_a_model_name_that_breaks_the_rules_is_refused(registry: Registry, name: str) -> None:
    assert registry.call("frank-consumer", "POST", f"/v1/models/{name}/predictions", body_with()).status in (400, 403, 404)


def test_an_environment_that_there_is_not_is_not_found(registry: Registry, deployed: tuple[str, int]) -> None:
    path = f"/v1/models/{deployed[0]}/predictions?environment=staging"
    assert registry.call("frank-consumer", "POST", path, body_with()).status == 404


def test_a_cold_version_is_answered_with_503_first(cold: Cold) -> None:
    assert (cold.answers[0].status, cold.answers[0].code) == (503, "not_ready"), cold.answers[0].body


def test_a_cold_version_tells_when_to_come_back(cold: Cold) -> None:
    assert [a for a in cold.answers if a.status != 200 and int(a.headers["retry-after"]) < 1] == []


def test_a_cold_version_is_never_answered_by_the_gateway_s_timeout(cold: Cold) -> None:
    assert {a.status for a in cold.answers} == {200, 503}
    assert max(a.seconds for a in cold.answers) < GATEWAY_SECONDS


def test_a_frozen_file_under_another_is_named_by_the_trace(covered: Covered) -> None:
    assert covered.trace["verdict"] == "BROKEN"
    assert f"{covered.file.path} was changed" in failures(covered.trace)["frozen files"]


def test_a_version_with_a_file_over_a_frozen_one_is_not_deployed(covered: Covered) -> None:
    assert (covered.deployment["stage"], covered.deployment["status"]) == ("DEPLOYMENT", "FAILED")
    assert f"{covered.file.path} was changed" in covered.deployment["error"]


def test_a_version_with_other_bytes_than_its_digest_says_is_refused_at_load(exchanged: Exchanged) -> None:
    assert (exchanged.answer.status, exchanged.answer.code) == (409, "integrity"), exchanged.answer.body
    assert exchanged.file.path in exchanged.answer.body["detail"]


def test_a_file_of_other_bytes_is_named_by_the_deep_trace(exchanged: Exchanged) -> None:
    assert exchanged.trace["verdict"] == "BROKEN"
    assert exchanged.file.path in failures(exchanged.trace)["bytes of the frozen files"]


def predict(registry: Registry, model: str) -> Answer:
    """One request, without a retry."""
    return registry.call("frank-consumer", "POST", f"/v1/models/{model}/predictions", body_with())


def once_loaded(registry: Registry, model: str) -> Answer | None:
    """The answer to one request, None while the version loads."""
    answer = predict(registry, model)
    return None if answer.status == 503 else answer


def predict_ready(registry: Registry, model: str) -> str:
    """The ID of a prediction, empty while the version loads."""
    answer = predict(registry, model)
    assert answer.status in (200, 503), answer.body
    return str(answer.body.get("prediction_id", ""))


def deploy(registry: Registry, model: str, number: int) -> dict[str, Any]:
    """Ask for a deployment, and return the version once it has ended."""
    answer = registry.call("frank", "POST", f"/v1/models/{model}/versions/{number}/deployment", {"reason": "a test"})
    assert answer.status == 202, answer.body
    shown: Callable[[], dict[str, Any]] = lambda: registry.client("grace").version(model, number)  # noqa: E731 - a local shorthand
    until(lambda: shown()["status"] != "RUNNING", "the deployment ended")
    return shown()


def put_in_place(registry: Registry, model: str, number: int) -> None:
    """Have a version stand DEPLOYED."""
    deployed = deploy(registry, model, number)
    assert (deployed["status"], deployed["standing"]) == ("SUCCEEDED", "DEPLOYED"), deployed["error"]


def frozen_file(registry: Registry, crowded: Crowded, path: str) -> FileRef:
    """One of the version's frozen files."""
    return next(f for f in registry.head(crowded.model, crowded.number).frozen if f.path == path)


def set_frozen(registry: Registry, version: Version, files: Iterable[FileRef]) -> None:
    """Have the table refer to other files."""
    registry.meta.transact([Update(version_key(version.model, version.number), {"frozen": encode(tuple(files))})])


def failures(trace: dict[str, Any]) -> dict[str, str]:
    """The steps of a trace that failed, with what they say."""
    return {step["step"]: step["detail"] for step in trace["steps"] if step["outcome"] != "passed"}
