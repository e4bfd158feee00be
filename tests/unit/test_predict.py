"""Predict: the right version, signed, durable, within three round trips; and every way in which it is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.domain.errors import (
    AttestryError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from attestry.evidence.delegation import verify_delegation
from attestry.evidence.receipt import Receipt, check_output, check_request, verify_receipt
from attestry.ports import Put
from attestry.usecases.predict import WHOLE_SECONDS, Prediction, PredictionFailedError
from attestry.usecases.prediction_request import MAX_BODY_BYTES, order_by_schema, parse_prediction_request
from attestry.usecases.records import model_key
from attestry.usecases.sign import delegation_key, receipt_key
from tests.deployed import BODY, ENVIRONMENT, MODEL, Scene, make_version, principal


@pytest.fixture
def scene() -> Scene:
    return Scene()


def predict(scene: Scene, body: bytes = BODY, **changes: Any) -> Prediction:
    values = {"model": MODEL, "environment": ENVIRONMENT, "by": principal("gil"), **changes}
    predictor = values.pop("predictor", None) or scene.predictor()
    return predictor.predict(values["model"], values["environment"], body, values["by"])


def verified(scene: Scene, prediction: Prediction) -> Receipt:
    kid = prediction.prediction_id.partition("-")[0]
    delegation = verify_delegation(scene.meta.rows[delegation_key(kid)]["delegation"], scene.signer.public_key_der())
    return verify_receipt(prediction.receipt, delegation)


def rows(scene: Scene) -> list[dict[str, Any]]:
    return [row for key, row in scene.meta.rows.items() if key.sort.startswith("R#")]


def test_a_prediction_comes_with_a_receipt_that_proves_version_request_and_output(scene: Scene) -> None:
    prediction = predict(scene)
    receipt = verified(scene, prediction)
    assert (receipt.version.number, receipt.version.digest) == (1, make_version(1).version_digest)
    check_request(receipt, prediction.salt, BODY)
    check_output(receipt, prediction.output.encode())


def test_the_answer_holds_the_output_as_it_was_signed_byte_for_byte(scene: Scene) -> None:
    text = '[{"p": 0.10000000000000000001, "q":1E-7}]'
    scene.inference = lambda event: {"status": "OK", "output": text}
    prediction = predict(scene)
    body = prediction.to_json()
    assert f'"output": {text}' in body
    answer = json.loads(body)
    assert answer["prediction_id"] == prediction.prediction_id
    assert answer["version"] == 1
    assert answer["receipt"] == prediction.receipt
    assert verified(scene, prediction).output == text


def test_the_receipt_is_durable_with_principal_and_payload_before_the_answer(scene: Scene) -> None:
    prediction = predict(scene)
    kid, _, sequence = prediction.prediction_id.partition("-")
    row = scene.meta.rows[receipt_key(kid, int(sequence))]
    assert row["receipt"] == prediction.receipt
    assert row["request"] == BODY.decode()
    assert row["output"] == prediction.output
    assert row["principal"]["login"] == "gil"
    assert row["expires"] > scene.clock.now().timestamp() + 34 * 86400


def test_a_rate_of_zero_keeps_the_receipt_and_no_payload() -> None:
    scene = Scene(capture_rate="0")
    predict(scene)
    (row,) = rows(scene)
    assert row["captured"] is False
    assert row["rate"] == "0"
    assert "request" not in row
    assert "output" not in row


def test_a_warm_prediction_takes_three_round_trips(scene: Scene) -> None:
    predictor = scene.predictor()
    predict(scene, predictor=predictor)
    scene.faults.clear()
    predict(scene, predictor=predictor)
    assert scene.faults.calls == ["MemoryMetaStore.get", "MemoryFunctions.call", "MemoryMetaStore.transact"]


def test_a_version_that_is_not_loaded_is_given_urls_of_its_recorded_files(scene: Scene) -> None:
    predict(scene)
    payload = [p for name, p, _ in scene.functions.called if name == "inference"][-1]
    assert f"version={make_version(1).artifact.version_id}" in payload["load"]["artifact_manifest"]["url"]  # type: ignore[union-attr]
    assert [f["path"] for f in payload["load"]["files"]] == ["model/model.joblib"]
    assert payload["load"]["deadline_seconds"] < WHOLE_SECONDS


def test_each_version_is_asked_in_a_tenant_of_its_own(scene: Scene) -> None:
    predict(scene)
    assert {t for name, _, t in scene.functions.called if name == "inference"} == {make_version(1).execution_id}


@pytest.mark.parametrize("status", ["LOADING", "NOT_LOADED"])
def test_a_version_that_loads_too_long_is_answered_with_when_to_come_back(scene: Scene, status: str) -> None:
    scene.inference = lambda event: {"status": status if "load" in event else "NOT_LOADED"}
    with pytest.raises(NotReadyError) as caught:
        predict(scene)
    assert caught.value.retry_after_seconds > 0
    assert rows(scene) == []


def test_no_load_is_begun_that_could_not_end_in_time(scene: Scene) -> None:
    def slow(event: Mapping[str, Any]) -> Mapping[str, Any]:
        scene.seconds += WHOLE_SECONDS - 2
        return {"status": "NOT_LOADED"}

    scene.inference = slow
    with pytest.raises(NotReadyError):
        predict(scene)
    assert sum(name == "inference" for name, _, _ in scene.functions.called) == 1


def test_a_version_whose_files_are_not_as_recorded_is_refused_and_nothing_is_signed(scene: Scene) -> None:
    scene.inference = lambda event: {"status": "REFUSED", "error": "model/model.joblib has another digest"}
    with pytest.raises(IntegrityError, match=r"model/model\.joblib"):
        predict(scene)
    assert rows(scene) == []


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"status": "FAILED", "error": "ValueError: no"},
        {"status": "OK"},
        {"status": "OK", "output": "[NaN]"},
        {"status": "OK", "output": "[1e999]"},
        {"status": "OK", "output": [float("nan")]},
        {"status": "OK", "output": "[]"},
        {"status": "OK", "output": "[1, 2]"},
        {"status": "OK", "output": '{"0": 1}'},
        {"status": "OK", "output": "not json"},
        {"status": "OK", "output": '["\ud800"]'},
        {"status": "OK", "output": '["' + "x" * (5 << 20) + '"]'},
    ],
    ids=lambda a: repr(a)[:60],
)
def test_what_is_no_prediction_is_not_signed(scene: Scene, answer: Any) -> None:
    scene.inference = lambda event: answer
    with pytest.raises(PredictionFailedError):
        predict(scene)
    assert rows(scene) == []


def test_a_refused_output_leaves_no_gap_in_the_sequence(scene: Scene) -> None:
    predictor = scene.predictor()
    first = predict(scene, predictor=predictor)
    scene.inference = lambda event: {"status": "OK", "output": "[NaN]"}
    with pytest.raises(PredictionFailedError):
        predict(scene, predictor=predictor)
    scene.inference = None
    second = predict(scene, predictor=predictor)
    assert [p.prediction_id.rpartition("-")[2] for p in (first, second)] == ["1", "2"]


def test_a_model_that_there_is_not_and_one_of_which_nothing_is_deployed_are_two_sentences(scene: Scene) -> None:
    scene.meta.transact([Put(model_key(MODEL), {"model": MODEL, "next": 2})])
    with pytest.raises(NotFoundError, match="there is no model other"):
        predict(scene, model="other")
    with pytest.raises(NotFoundError, match=f"no version of {MODEL} is deployed in staging"):
        predict(scene, environment="staging")


def test_a_misspelt_feature_is_told_with_the_nearest_that_is_missing(scene: Scene) -> None:
    with pytest.raises(InvalidInputError) as caught:
        predict(scene, b'{"instances":[{"age":41,"incom":1},{"age":41,"income":1,"incomes":1}]}')
    told = {p.field: p.message for p in caught.value.problems}
    assert told["instances[0].incom"].endswith("did you mean 'income'?")
    assert told["instances[1].incomes"] == "the version has no such feature"


def test_a_request_of_ten_thousand_wrong_names_is_refused_as_fast_as_any() -> None:
    schema = [{"name": f"feature number {n}", "type": "double"} for n in range(5000)]
    begun = time.process_time()
    with pytest.raises(InvalidInputError):
        order_by_schema([{f"feature_number_{n}" * 4: 1 for n in range(10000)}], schema)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("model", ["../x", "", "A", "a/b", "x" * 64])
def test_a_model_name_that_would_leave_its_prefix_is_refused(scene: Scene, model: str) -> None:
    with pytest.raises(InvalidInputError):
        predict(scene, model=model)
    assert scene.faults.calls == []


@pytest.mark.parametrize("call", range(1, 8))
@pytest.mark.parametrize("after", [False, True])
def test_a_lost_answer_anywhere_acknowledges_nothing_and_the_next_request_succeeds(scene: Scene, call: int, after: bool) -> None:
    predictor = scene.predictor()
    (scene.faults.fail_after if after else scene.faults.fail_before)(call)
    errors = 0
    for _ in range(3):
        try:
            predict(scene, predictor=predictor)
        except AttestryError:
            errors += 1
    assert errors == 1
    prediction = predict(scene, predictor=predictor)
    assert verified(scene, prediction).prediction_id.sequence in (1, 2, 3, 4)
    for kid in {key.partition for key in scene.meta.rows if key.sort.startswith("R#")}:
        numbers = sorted(int(k.sort[2:]) for k in scene.meta.rows if k.partition == kid and k.sort.startswith("R#"))
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_receipt_that_was_not_written_ends_its_key(scene: Scene) -> None:
    predictor = scene.predictor()
    first = predict(scene, predictor=predictor)
    scene.faults.fail_after(method="transact")
    with pytest.raises(UnavailableError):
        predict(scene, predictor=predictor)
    second = predict(scene, predictor=predictor)
    assert first.prediction_id.partition("-")[0] != second.prediction_id.partition("-")[0]


def test_an_approval_that_no_longer_holds_stops_new_keys(scene: Scene) -> None:
    scene.change_version(1, approved=False)
    with pytest.raises(ConflictError):
        predict(scene)
    assert rows(scene) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["predict", "deploy"]), st.integers(0, 8)), min_size=1, max_size=14))
def test_across_cut_overs_every_answer_carries_the_version_that_made_it(steps: list[tuple[str, int]]) -> None:
    """The pointer moves between requests, and before any call inside one; the fake inference answers with the digest it was asked for."""
    scene = Scene()
    predictor = scene.predictor()
    current = 1
    for kind, moment in steps:
        if kind == "deploy":
            current = current % 3 + 1
            scene.deploy(current)
            continue
        moving = current % 3 + 1
        calls = {"left": moment}

        def run(name: str, act: Any, calls: dict[str, int] = calls, moving: int = moving) -> Any:
            calls["left"] -= 1
            if calls["left"] == 0:
                scene.deploy(moving)
            return act()

        scene.faults.run = run  # type: ignore[method-assign]
        try:
            prediction = predict(scene, predictor=predictor)
        finally:
            if calls["left"] <= 0 < moment:
                current = moving
        receipt = verified(scene, prediction)
        assert json.loads(prediction.output) == [receipt.version.digest]
        assert prediction.number == receipt.version.number
        assert receipt.output == prediction.output


def test_a_pointer_with_another_digest_than_the_version_is_neither_asked_nor_signed_for(scene: Scene) -> None:
    scene.change_version(1, version_digest="0" * 64)
    with pytest.raises(ConflictError):
        predict(scene)
    assert scene.functions.called == []


def test_a_pointer_that_never_stands_still_is_a_conflict(scene: Scene) -> None:
    def always_moved(event: Mapping[str, Any]) -> dict[str, Any]:
        return {"error": ConflictError("moved").to_dict()}

    scene.functions.handlers["delegate"] = always_moved
    with pytest.raises(ConflictError, match="being changed"):
        predict(scene)


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (b"", "", "json"),
        (b"[1]", "", "fields"),
        (b"{}", "", "fields"),
        (b'{"instances":[],"model":"x"}', "", "fields"),
        (b'{"instances":[]}', "instances", "count"),
        (b'{"instances":{}}', "instances", "count"),
        (b'{"instances":[1]}', "instances[0]", "type"),
        (b'{"instances":[' + b",".join([b"{}"] * 1001) + b"]}", "instances", "count"),
        (b'{"instances":[{"age":NaN}]}', "", "json"),
        (b'{"instances":[{"age":1,"age":2}]}', "", "json"),
        (b" " * (MAX_BODY_BYTES + 1), "", "max_bytes"),
        (b'{"instances":[{"age":41}]}', "instances[0].income", "required"),
        (b'{"instances":[{"age":41,"income":1,"sex":1}]}', "instances[0].sex", "unknown"),
        (b'{"instances":[{"age":41.5,"income":1}]}', "instances[0].age", "type"),
        (b'{"instances":[{"age":true,"income":1}]}', "instances[0].age", "type"),
        (b'{"instances":[{"age":9223372036854775808,"income":1}]}', "instances[0].age", "type"),
        (b'{"instances":[{"age":41,"income":"1"}]}', "instances[0].income", "type"),
        (b'{"instances":[{"age":41,"income":null}]}', "instances[0].income", "type"),
        (b'{"instances":[{"age":41,"income":1' + b"0" * 400 + b"}]}", "instances[0].income", "type"),
        (b'{"instances":[{"age":41,"income":1},{"age":"x","income":1}]}', "instances[1].age", "type"),
    ],
    ids=lambda v: repr(v)[:40],
)
def test_a_request_that_breaks_a_rule_names_field_and_rule_and_signs_nothing(scene: Scene, body: bytes, field: str, rule: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        predict(scene, body)
    problem = caught.value.problems[0]
    assert (problem.field, problem.rule) == (field, rule)
    assert rows(scene) == []


def test_columns_reach_the_model_in_the_order_of_the_training_data() -> None:
    schema = [{"name": n, "type": t} for n, t in (("b", "bool"), ("s", "large_string"), ("f", "float"), ("u", "uint8"))]
    instances = parse_prediction_request(b'{"instances":[{"u":255,"f":1,"s":"x","b":false}]}')
    ordered = order_by_schema(instances, schema)[0]
    assert list(ordered.items()) == [("b", False), ("s", "x"), ("f", 1.0), ("u", 255)]
    assert isinstance(ordered["f"], float)


def test_at_most_twenty_problems_are_told() -> None:
    with pytest.raises(InvalidInputError) as caught:
        order_by_schema([{}] * 100, [{"name": "a", "type": "double"}])
    assert len(caught.value.problems) == 20
