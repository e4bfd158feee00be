"""Freshness: what was killed answers nothing from 5 seconds after the kill on, however long its last request took."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.domain.errors import AttestryError, ConflictError, NotFoundError, UnavailableError
from attestry.domain.stages import Standing
from attestry.usecases.freshness import FRESH_SECONDS, STALE_SECONDS, PointerMovedError, PointerWatch
from attestry.usecases.group_signing import GroupSigner
from attestry.usecases.pointer import KILLED, vacate
from attestry.usecases.records import load_version, pointer_key
from tests.deployed import AT, BODY, ENVIRONMENT, MODEL, Scene, make_version, principal

DIGEST = make_version(1).version_digest
POINTER = pointer_key(MODEL, ENVIRONMENT)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def kill(scene: Scene) -> None:
    """Empty the pointer and retire the version, as a kill does in one transaction."""
    version = load_version(scene.meta, MODEL, 1)
    scene.meta._apply([vacate(scene.meta.rows[POINTER], version, kind=KILLED, by=principal("erin"), reason="it leaks", at=AT)])
    told = {"kind": KILLED, "by": "erin", "reason": "it leaks", "at": "now"}
    scene.change_version(1, standing=Standing.RETIRED, retirement=told)


def predict(scene: Scene) -> Any:
    return scene.predictor().predict(MODEL, ENVIRONMENT, BODY, principal("gil"))


def during_inference(scene: Scene, seconds: float, act: Callable[[], Any]) -> None:
    infer = scene.infer

    def slow(event: Any) -> Any:
        scene.inference = None
        act()
        scene.seconds += seconds
        return infer({**event, "load": {}})

    scene.inference = slow


def during_write(scene: Scene, seconds: float, act: Callable[[], Any]) -> None:
    """Let the write of a receipt take long; what happens meanwhile happens after the receipt is durable."""
    apply = scene.meta._apply

    def slow(writes: Any) -> None:
        apply(writes)
        if any(w.key.sort.startswith("R#") for w in writes):
            scene.meta._apply = apply  # type: ignore[method-assign]
            act()
            scene.seconds += seconds

    scene.meta._apply = slow  # type: ignore[method-assign]


def pointer_readings(scene: Scene, act: Callable[[], Any]) -> int:
    get, seen = scene.meta.get, []

    def counting(key: Any) -> Any:
        seen.append(key)
        return get(key)

    scene.meta.get = counting  # type: ignore[method-assign]
    act()
    scene.meta.get = get  # type: ignore[method-assign]
    return seen.count(POINTER)


def receipts(scene: Scene) -> int:
    return sum(key.sort.startswith("R#") for key in scene.meta.rows)


def test_a_fast_request_reads_the_pointer_once_and_a_slow_one_again(scene: Scene) -> None:
    predictor = scene.predictor()

    def ask() -> None:
        predictor.predict(MODEL, ENVIRONMENT, BODY, principal("gil"))

    ask()
    assert pointer_readings(scene, ask) == 1
    during_inference(scene, FRESH_SECONDS, lambda: None)
    assert pointer_readings(scene, ask) == 1
    during_inference(scene, FRESH_SECONDS + 0.1, lambda: None)
    assert pointer_readings(scene, ask) == 2
    during_inference(scene, 4, lambda: None)
    during_write(scene, 4, lambda: None)
    assert pointer_readings(scene, ask) == 3


def test_a_version_killed_while_it_computes_gives_no_answer_and_no_receipt(scene: Scene) -> None:
    predict(scene)
    during_inference(scene, 4, lambda: kill(scene))
    with pytest.raises(NotFoundError, match=r"credit-risk@1 was killed at .* by erin: it leaks"):
        predict(scene)
    assert receipts(scene) == 1


def test_a_version_killed_while_its_receipt_is_written_gives_no_answer(scene: Scene) -> None:
    during_write(scene, 4, lambda: kill(scene))
    with pytest.raises(NotFoundError, match="killed"):
        predict(scene)
    assert receipts(scene) == 1


def test_a_request_that_was_slow_while_another_version_came_is_answered_by_that(scene: Scene) -> None:
    during_inference(scene, 4, lambda: scene.deploy(2))
    assert predict(scene).number == 2
    during_write(scene, 4, lambda: scene.deploy(1))
    assert predict(scene).number == 1


def test_a_request_for_which_no_time_is_left_is_told_to_come_again(scene: Scene) -> None:
    during_inference(scene, 21, lambda: scene.deploy(2))
    with pytest.raises(PointerMovedError, match="credit-risk@2 stands deployed"):
        predict(scene)


def test_a_pointer_that_cannot_be_read_in_time_gives_no_answer(scene: Scene) -> None:
    watch = PointerWatch(scene.meta, MODEL, ENVIRONMENT, lambda: scene.seconds)
    watch.read()
    get = scene.meta.get

    def slow(key: Any) -> Any:
        found = get(key)
        scene.seconds += 4
        return found

    scene.meta.get = slow  # type: ignore[method-assign]
    scene.seconds += 4
    with pytest.raises(UnavailableError, match="in time"):
        watch.confirm(DIGEST)


def test_the_age_of_a_reading_counts_from_before_it_was_asked_for(scene: Scene) -> None:
    watch = PointerWatch(scene.meta, MODEL, ENVIRONMENT, lambda: scene.seconds)
    get = scene.meta.get

    def slow(key: Any) -> Any:
        scene.meta.get = get  # type: ignore[method-assign]
        found = get(key)
        scene.seconds += 4
        kill(scene)
        return found

    scene.meta.get = slow  # type: ignore[method-assign]
    watch.read()
    with pytest.raises(NotFoundError):
        watch.confirm(DIGEST)


def test_a_watch_that_has_read_nothing_confirms_nothing_unread(scene: Scene) -> None:
    kill(scene)
    with pytest.raises(NotFoundError):
        PointerWatch(scene.meta, MODEL, ENVIRONMENT, lambda: 0.0).confirm(DIGEST)


@settings(max_examples=150, deadline=None)
@given(st.floats(0, 9), st.floats(0, 9), st.floats(0, 20))
def test_no_answer_leaves_more_than_five_seconds_after_the_kill(inference: float, write: float, killed_at: float) -> None:
    """Time passes in small steps through inference and write; the kill falls anywhere."""
    scene = Scene()
    scene.loaded.add(DIGEST)
    state = {"killed": False}

    def pass_time(seconds: float) -> None:
        before = scene.seconds
        if not state["killed"] and before <= killed_at < before + seconds:
            scene.seconds = killed_at
            kill(scene)
            state["killed"] = True
        scene.seconds = before + seconds

    infer, apply = scene.infer, scene.meta._apply

    def slow_inference(event: Any) -> Any:
        scene.inference = None
        pass_time(inference)
        return infer(event)

    def slow_write(writes: Any) -> None:
        pass_time(write / 2 if any(w.key.sort.startswith("R#") for w in writes) else 0)
        apply(writes)
        pass_time(write / 2 if any(w.key.sort.startswith("R#") for w in writes) else 0)

    scene.inference = slow_inference
    scene.meta._apply = slow_write  # type: ignore[method-assign]
    try:
        predict(scene)
    except AttestryError:
        return
    assert not state["killed"] or scene.seconds - killed_at <= STALE_SECONDS


def group_signer(scene: Scene) -> GroupSigner:
    return GroupSigner(
        meta=scene.meta,
        store=scene.store,
        keys=scene.keys,
        model=MODEL,
        environment=ENVIRONMENT,
        version_digest=DIGEST,
        clock=lambda: scene.seconds,
    )


def test_a_signer_signs_nothing_for_a_killed_version(scene: Scene) -> None:
    signer = group_signer(scene)
    signer.sign(b"", b"[1]")
    kill(scene)
    with pytest.raises(NotFoundError, match="killed"):
        signer.sign(b"", b"[1]")
    assert receipts(scene) == 1


@pytest.mark.parametrize("act", [kill, lambda scene: scene.deploy(2)], ids=["killed", "replaced"])
def test_a_signature_whose_write_was_slow_is_not_returned_for_a_version_that_left(scene: Scene, act: Any) -> None:
    signer = group_signer(scene)
    during_write(scene, 4, lambda: act(scene))
    with pytest.raises((NotFoundError, ConflictError)):
        signer.sign(b"", b"[1]")


def test_a_slow_delegation_is_followed_by_another_reading(scene: Scene) -> None:
    delegate = scene.delegate

    def slow(event: Any) -> Any:
        answer = delegate(event)
        scene.seconds += 4
        kill(scene)
        return answer

    scene.functions.handlers["delegate"] = slow
    with pytest.raises(NotFoundError, match="killed"):
        group_signer(scene).sign(b"", b"[1]")
    assert receipts(scene) == 0


def test_a_thread_that_waited_behind_a_slow_leader_reads_again_before_it_returns(scene: Scene) -> None:
    """The first group is durable; while its member waits for the lock a second leader takes long, and the version is killed."""
    signer = group_signer(scene)
    signer.sign(b"", b"[1]")
    apply, first, go_on = scene.meta._apply, threading.Event(), threading.Event()

    def held(writes: Any) -> None:
        first.set()
        go_on.wait(5)
        apply(writes)

    scene.meta._apply = held  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(signer.sign, b"1", b"[1]")
        first.wait(5)
        two = pool.submit(signer.sign, b"2", b"[1]")
        scene.seconds += 4
        scene.meta._apply = apply  # type: ignore[method-assign]
        kill(scene)
        go_on.set()
        for pending in (one, two):
            with pytest.raises(NotFoundError):
                pending.result(5)
