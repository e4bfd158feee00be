"""The embedded AWS starts no more processes of a function than its machine can make use of, and has nobody wait for good."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from ministack.core import lambda_runtime

from attestry.local.patch_environments import AT_ONCE, Turns, _acquire_in_turn, _release_and_tell

LONG = 60.0


class Leases:
    """The emulator's own leases of its own workers, which are not started, in turn."""

    def __init__(self, patience: float) -> None:
        turns = Turns(patience)
        self.turns, self.release = turns, _release_and_tell(turns, lambda_runtime.release_worker)
        self._acquire = _acquire_in_turn(lambda_runtime, turns, lambda_runtime.acquire_worker)
        self._threads = ThreadPoolExecutor(32)

    def acquire(self, name: str = "predict") -> Any:
        arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
        worker, _ = self._acquire(name, {"FunctionArn": arn, "Runtime": "python3.13"}, b"")
        return worker

    def ask(self, name: str = "predict") -> Future[Any]:
        """Ask in a thread of its own, and return when the request stands in its line or is served."""
        before = self.in_line()
        asked = self._threads.submit(self.acquire, name)
        while not asked.done() and self.in_line() == before:
            time.sleep(0.001)
        return asked

    def in_line(self) -> int:
        return sum(len(line) for line in list(self.turns._lines.values()))


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    pools: dict[str, list[Any]] = {}
    monkeypatch.setattr(lambda_runtime, "_workers", pools)
    return pools


@pytest.fixture
def leases(workers: dict[str, list[Any]]) -> Iterator[Leases]:
    made = Leases(patience=LONG)
    yield made
    for pool in workers.values():
        for worker in pool:
            made.release(worker)


def test_a_request_waits_while_its_function_has_enough_and_takes_what_becomes_free(leases: Leases, workers: dict[str, list[Any]]) -> None:
    taken = [leases.acquire() for _ in range(AT_ONCE)]
    next_one = leases.ask()
    assert not next_one.done()
    leases.release(taken[1])
    assert next_one.result(10) is taken[1]
    assert [len(pool) for pool in workers.values()] == [AT_ONCE]


def test_whoever_came_first_is_served_first(leases: Leases) -> None:
    taken = [leases.acquire() for _ in range(AT_ONCE)]
    asked = [leases.ask() for _ in range(5)]
    for earlier, worker in enumerate(taken[:4]):
        leases.release(worker)
        assert asked[earlier].result(10) is worker
        assert not any(later.done() for later in asked[earlier + 1 :])


def test_one_function_does_not_wait_for_another(leases: Leases) -> None:
    for _ in range(AT_ONCE):
        leases.acquire("predict")
    assert leases.ask("delegate").result(10) is not None


def test_nobody_waits_for_good_since_a_function_may_wait_for_one_that_waits_for_it(workers: dict[str, list[Any]]) -> None:
    leases = Leases(patience=0.05)
    taken = [leases.acquire() for _ in range(AT_ONCE)]
    one_more = leases.acquire()
    assert one_more not in taken
    assert leases.in_line() == 0
    assert [len(pool) for pool in workers.values()] == [AT_ONCE + 1]


def test_no_request_is_lost_and_none_shares_an_environment_when_many_come_at_once(leases: Leases, workers: dict[str, list[Any]]) -> None:
    used, lock, served = set[int](), threading.Lock(), []

    def call() -> None:
        worker = leases.acquire()
        with lock:
            assert id(worker) not in used
            used.add(id(worker))
        time.sleep(0.001)
        with lock:
            used.remove(id(worker))
            served.append(worker)
        leases.release(worker)

    with ThreadPoolExecutor(32) as threads:
        for done in [threads.submit(call) for _ in range(200)]:
            done.result(30)
    assert len(served) == 200
    assert [len(pool) for pool in workers.values()] == [AT_ONCE]
