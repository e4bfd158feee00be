"""Predictions while a canary or a shadow stands beside the deployed version."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.domain.errors import AttestryError, ConflictError, NotReadyError, UnavailableError
from attestry.domain.rollout import is_taken
from attestry.domain.stages import Standing
from attestry.evidence.delegation import read_unverified_delegation
from attestry.ports import Update
from attestry.usecases.canary_counts import count_canary, failures_partition
from attestry.usecases.collect import Collector
from attestry.usecases.delegate import delegate_signing
from attestry.usecases.predict import Prediction, PredictionFailedError
from attestry.usecases.reconcile_predictions import UNSEALED, count_day
from attestry.usecases.records import pointer_key
from attestry.usecases.shadow import ShadowRun, ShadowRunner, comparison
from attestry.usecases.shadow_requests import requests_partition
from attestry.usecases.sign import delegation_key
from tests.deployed import BODY, ENVIRONMENT, MODEL, Scene, make_version, principal
from tests.fakes import Killed

DIGEST = {n: make_version(n).version_digest for n in (1, 2, 3)}
KEYS = [f"customer-{n}" for n in range(200)]
TAKEN = next(key for key in KEYS if is_taken(50, DIGEST[2], key.encode()))
OTHER = next(key for key in KEYS if not is_taken(50, DIGEST[2], key.encode()))


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.roll_out(2, "CANARY")
    return scene


def predict(scene: Scene, key: str = TAKEN, predictor: Any = None) -> Prediction:
    return (predictor or scene.predictor()).predict(MODEL, ENVIRONMENT, BODY, principal("gil"), routing_key=key)


def standing_signed(scene: Scene, prediction_id: str) -> str:
    kid = prediction_id.partition("-")[0]
    return read_unverified_delegation(scene.meta.rows[delegation_key(kid)]["delegation"]).grant.standing


def canary(scene: Scene) -> dict[str, Any]:
    return scene.meta.rows[pointer_key(MODEL, ENVIRONMENT)]["canary"]


def failing(digest: str, answer: Mapping[str, Any]) -> Any:
    def infer(event: Mapping[str, Any]) -> Mapping[str, Any]:
        broken = event["version_digest"] == digest
        return answer if broken else {"status": "OK", "output": json.dumps([event["version_digest"]] * len(event["instances"]))}

    return infer


def test_the_answer_names_the_version_that_made_it_and_what_it_stood_as(scene: Scene) -> None:
    by_canary, by_deployed = predict(scene), predict(scene, OTHER)
    assert (by_canary.number, by_canary.standing, json.loads(by_canary.output)) == (2, "CANARY", [DIGEST[2]])
    assert (by_deployed.number, by_deployed.standing, json.loads(by_deployed.output)) == (1, "DEPLOYED", [DIGEST[1]])
    assert standing_signed(scene, by_canary.prediction_id) == "CANARY"
    assert standing_signed(scene, by_deployed.prediction_id) == "DEPLOYED"
    assert json.loads(by_canary.to_json())["standing"] == "CANARY"


@pytest.mark.parametrize("shadowed", [False, True])
def test_a_warm_prediction_takes_three_round_trips_beside_a_canary_and_a_shadow(scene: Scene, shadowed: bool) -> None:
    if shadowed:
        scene.roll_out(3, "SHADOW")
    predictor = scene.predictor()
    for key in (TAKEN, OTHER):
        predict(scene, key, predictor)
    for key in (TAKEN, OTHER, TAKEN):
        scene.faults.clear()
        predict(scene, key, predictor)
        assert scene.faults.calls == ["MemoryMetaStore.get", "MemoryFunctions.call", "MemoryMetaStore.transact"]


def test_without_a_routing_key_requests_go_by_chance(scene: Scene) -> None:
    predictor = scene.predictor()
    numbers = {predict(scene, "", predictor).number for _ in range(60)}
    assert numbers == {1, 2}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 99), st.lists(st.text("abc", min_size=1, max_size=8), min_size=1, max_size=10))
def test_each_request_is_answered_by_whom_its_key_says(share: int, keys: list[str]) -> None:
    scene = Scene()
    scene.roll_out(2, "CANARY", share=share)
    predictor = scene.predictor()
    for key in keys:
        answered = predict(scene, key, predictor)
        number = 2 if is_taken(share, DIGEST[2], key.encode()) else 1
        assert (answered.number, json.loads(answered.output)) == (number, [DIGEST[number]])


@pytest.mark.parametrize("answer", [{"status": "FAILED", "error": "boom"}, {"status": "OK", "output": "[NaN]"}, {"status": "REFUSED"}])
def test_what_a_canary_fails_the_deployed_version_answers_and_the_failure_counts(scene: Scene, answer: dict[str, Any]) -> None:
    scene.inference = failing(DIGEST[2], answer)
    answered = predict(scene)
    assert (answered.number, answered.standing) == (1, "DEPLOYED")
    assert count_canary(scene.meta, MODEL, ENVIRONMENT, canary(scene)).failed == 1


def test_a_request_that_no_version_can_answer_is_no_failure_of_the_canary(scene: Scene) -> None:
    """Else a caller could halt any canary by sending such requests."""
    scene.inference = lambda event: {"status": "FAILED", "error": "such an income is impossible"}
    with pytest.raises(PredictionFailedError, match="credit-risk@1"):
        predict(scene)
    assert count_canary(scene.meta, MODEL, ENVIRONMENT, canary(scene)).failed == 0


def test_a_canary_that_is_loading_sends_the_caller_to_the_deployed_version_and_did_not_fail(scene: Scene) -> None:
    scene.inference = failing(DIGEST[2], {"status": "LOADING"})
    assert predict(scene).number == 1
    assert count_canary(scene.meta, MODEL, ENVIRONMENT, canary(scene)).failed == 0


def test_a_canary_that_takes_all_the_time_has_failed(scene: Scene) -> None:
    def hang(event: Mapping[str, Any]) -> Mapping[str, Any]:
        scene.seconds += 21
        raise UnavailableError("no answer")

    scene.inference = hang
    with pytest.raises(UnavailableError):
        predict(scene)
    assert len(scene.meta.query(failures_partition(MODEL, 2))) == 1


def test_a_canary_that_may_not_be_signed_for_answers_nobody(scene: Scene) -> None:
    scene.change_version(2, approved=False)
    assert predict(scene).number == 1


def test_a_canary_that_was_put_in_place_while_it_answered_has_answered(scene: Scene) -> None:
    def slow(event: Mapping[str, Any]) -> Mapping[str, Any]:
        scene.seconds += 3.5
        row = scene.meta.rows[pointer_key(MODEL, ENVIRONMENT)]
        changes = {name: row["canary"][name] for name in ("number", "version_digest", "execution_id", "folder")} if "canary" in row else {}
        scene.meta._apply([Update(pointer_key(MODEL, ENVIRONMENT), {**changes, "canary": None})])
        return {"status": "OK", "output": json.dumps([event["version_digest"]])}

    scene.inference = slow
    assert predict(scene).number == 2


def test_a_canary_that_was_halted_while_it_answered_for_long_gives_no_answer(scene: Scene) -> None:
    def slow(event: Mapping[str, Any]) -> Mapping[str, Any]:
        if event["version_digest"] == DIGEST[2]:
            scene.seconds += 3.5
            scene.meta._apply([Update(pointer_key(MODEL, ENVIRONMENT), {"canary": None})])
        return {"status": "OK", "output": json.dumps([event["version_digest"]])}

    scene.inference = slow
    assert predict(scene).number == 1


def test_a_key_that_was_delegated_to_a_canary_signs_no_more_once_it_is_deployed(scene: Scene) -> None:
    predictor = scene.predictor()
    first = predict(scene, TAKEN, predictor)
    scene.deploy(2)
    second = predict(scene, TAKEN, predictor)
    assert (first.number, second.number) == (2, 2)
    assert first.prediction_id.partition("-")[0] != second.prediction_id.partition("-")[0]
    assert standing_signed(scene, second.prediction_id) == "DEPLOYED"


@pytest.mark.parametrize(
    ("standing", "head"), [("CANARY", "DEPLOYED"), ("CANARY", "APPROVED"), ("SHADOW", "CANARY"), ("DEPLOYED", "ROLLBACK")]
)
def test_nothing_is_delegated_to_a_version_that_pointer_and_head_name_differently(standing: str, head: str) -> None:
    scene = Scene()
    if standing != "DEPLOYED":
        scene.roll_out(2, standing)
    scene.change_version(1 if standing == "DEPLOYED" else 2, standing=Standing(head))
    with pytest.raises(ConflictError, match=f"stands {head}, not {standing}"):
        delegate(scene, standing)


@pytest.mark.parametrize("standing", ["CANARY", "SHADOW"])
def test_nothing_is_delegated_as_canary_or_shadow_where_there_is_none(standing: str) -> None:
    with pytest.raises(ConflictError, match=f"no version of credit-risk stands {standing}"):
        delegate(Scene(), standing)
    with pytest.raises(AttestryError, match="stands DEPLOYED, CANARY, SHADOW"):
        delegate(Scene(), "APPROVED")


def delegate(scene: Scene, standing: str) -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}
    ports: Any = (scene.meta, scene.signer)
    delegate_signing(*ports, model=MODEL, environment=ENVIRONMENT, jwk=jwk, at=scene.clock.now(), standing=standing)


def test_the_predictions_of_a_canary_are_counted_from_its_receipts_since_the_step_began(scene: Scene) -> None:
    predictor = scene.predictor()
    for _ in range(25):
        predict(scene, TAKEN, predictor)
    seen = count_canary(scene.meta, MODEL, ENVIRONMENT, canary(scene))
    assert (seen.answered, seen.p95_ms) == (25, 0)
    scene.clock.at += timedelta(minutes=1)
    since = {**canary(scene), "since": scene.clock.at.isoformat(timespec="microseconds").replace("+00:00", "Z")}
    assert count_canary(scene.meta, MODEL, ENVIRONMENT, since).answered == 0
    for _ in range(7):
        predict(scene, TAKEN, predictor)
    assert count_canary(scene.meta, MODEL, ENVIRONMENT, since).answered == 7
    assert count_canary(scene.meta, MODEL, ENVIRONMENT, canary(scene)).answered == 32


# Shadows


@pytest.fixture
def shadowed() -> Scene:
    scene = Scene()
    scene.roll_out(3, "SHADOW", minutes=60)
    return scene


def run(scene: Scene, seconds: float = 20.0) -> ShadowRun:
    ports: Any = {"meta": scene.meta, "store": scene.store, "functions": scene.functions, "keys": scene.keys}
    return ShadowRunner(**ports, inference="inference", clock=lambda: scene.seconds).run(seconds)


def shadow_receipts(scene: Scene) -> list[dict[str, Any]]:
    return [row for row in scene.meta.rows.values() if "shadow_of" in row]


def test_a_shadow_answers_afterwards_and_its_prediction_is_signed_and_kept_as_a_shadows(shadowed: Scene) -> None:
    answered = predict(shadowed)
    assert (answered.number, shadow_receipts(shadowed)) == (1, [])
    assert run(shadowed).compared == 1
    (row,) = shadow_receipts(shadowed)
    assert row["shadow_of"] == answered.prediction_id
    assert (row["request"], json.loads(row["output"])) == (BODY.decode(), [DIGEST[3]])
    assert standing_signed(shadowed, row["pk"].removeprefix("KEY#") + "-1") == "SHADOW"
    assert shadowed.meta.query(requests_partition(MODEL, ENVIRONMENT)) == []
    assert comparison(shadowed.meta, MODEL, ENVIRONMENT, 3) == {
        "compared": 1,
        "instances": 1,
        "agreed": 0,
        "numeric": 0,
        "failed": 0,
        "skipped": 0,
        "difference": "0",
    }


def test_what_a_shadow_fails_is_counted_and_touches_no_caller(shadowed: Scene) -> None:
    shadowed.inference = failing(DIGEST[3], {"status": "FAILED", "error": "boom"})
    assert predict(shadowed).number == 1
    assert run(shadowed).failed == 1
    assert comparison(shadowed.meta, MODEL, ENVIRONMENT, 3)["failed"] == 1
    assert shadow_receipts(shadowed) == []


@pytest.mark.parametrize("error", [UnavailableError("no answer"), NotReadyError("loading", retry_after_seconds=1)])
def test_where_the_shadow_cannot_be_asked_the_requests_wait(shadowed: Scene, error: AttestryError) -> None:
    predict(shadowed)

    def fail(event: Mapping[str, Any]) -> Mapping[str, Any]:
        raise error

    shadowed.inference = fail
    assert run(shadowed) == ShadowRun(left=True)
    shadowed.inference = None
    assert run(shadowed).compared == 1


def test_a_killed_shadow_predicts_nothing_that_was_left_for_it(shadowed: Scene) -> None:
    predict(shadowed)
    shadowed.meta._apply([Update(pointer_key(MODEL, ENVIRONMENT), {"shadow": None})])
    assert run(shadowed) == ShadowRun()
    assert shadow_receipts(shadowed) == []


def test_a_shadow_that_was_killed_while_it_answered_signs_nothing_after_five_seconds(shadowed: Scene) -> None:
    predict(shadowed)

    def slow(event: Mapping[str, Any]) -> Mapping[str, Any]:
        shadowed.seconds += 4
        shadowed.meta._apply([Update(pointer_key(MODEL, ENVIRONMENT), {"shadow": None})])
        return {"status": "OK", "output": json.dumps([0])}

    shadowed.inference = slow
    assert run(shadowed).left
    assert shadow_receipts(shadowed) == []


def test_a_request_too_large_for_a_row_is_counted_as_skipped(shadowed: Scene) -> None:
    shadowed.inference = lambda event: {"status": "OK", "output": json.dumps(["x" * 300_000])}
    predict(shadowed)
    assert run(shadowed).skipped == 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [UnavailableError("injected fault: no answer"), Killed()], ids=["no answer", "killed"])
def test_a_crash_at_any_call_compares_no_request_twice_and_none_less(after: bool, error: BaseException) -> None:
    for n in range(1, 60):
        scene = Scene()
        scene.roll_out(3, "SHADOW", minutes=60)
        predict(scene)
        predict(scene)
        scene.faults.clear()
        (scene.faults.fail_after if after else scene.faults.fail_before)(n, error=error)
        with contextlib.suppress(AttestryError, Killed):
            run(scene)
        harmed = not scene.faults._planned
        scene.faults.clear()
        run(scene)
        run(scene)
        assert comparison(scene.meta, MODEL, ENVIRONMENT, 3)["compared"] == 2
        assert len(shadow_receipts(scene)) == 2
        assert scene.meta.query(requests_partition(MODEL, ENVIRONMENT)) == []
        if not harmed:
            assert n > 8
            return
    raise AssertionError("it never ended")


def test_the_receipts_of_a_shadow_do_not_count_as_answers_that_were_given(shadowed: Scene) -> None:
    """Else answers without receipts could hide behind them."""
    for _ in range(3):
        predict(shadowed)
    run(shadowed)
    Collector(shadowed.meta, shadowed.store, shadowed.clock).collect()
    today = shadowed.clock.now().date()
    gateway: Any = SimpleNamespace(answered=lambda day: 4)
    counted = count_day(shadowed.meta, gateway, today)
    assert (counted.sealed, counted.outcome) == ({MODEL: 3}, UNSEALED)
