"""The embedded AWS hands a stream's records over together, not one by one, where their mapping has a batching window."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

from ministack.services import lambda_svc

from attestry.local.patch_windows import _poll_with_windows
from attestry.local.patching import expect

MAPPING = ("000000000000", "us-east-1", "a-mapping")


class Functions(SimpleNamespace):
    """As much of the emulator's module as polling needs: one mapping, and records that are taken when it does not pause."""

    def __init__(self, window: float, pause: float = 0) -> None:
        positions, pauses = SimpleNamespace(_data={MAPPING: 0}), SimpleNamespace(_data={MAPPING: pause} if pause else {})
        super().__init__(_dynamodb_stream_positions=positions, _esm_backoff_until=pauses, _esm_wake=threading.Event(), written=0, handed=[])
        self.mapping = {"UUID": MAPPING[2], "MaximumBatchingWindowInSeconds": window}

    def _iter_all_esms(self) -> Any:
        return [(*MAPPING[:2], self.mapping)]

    def poll(self) -> bool:
        position = self._dynamodb_stream_positions._data[MAPPING]
        if self.written == position or self._esm_backoff_until._data.get(MAPPING, 0) > time.time():
            return False
        self.handed.append(self.written - position)
        self._dynamodb_stream_positions._data[MAPPING] = self.written
        return True


def test_a_record_that_comes_alone_is_handed_over_at_once_and_those_behind_it_together() -> None:
    functions = Functions(window=0.2)
    poll = _poll_with_windows(functions, functions.poll)
    functions.written = 1
    assert poll()
    for _ in range(5):
        functions.written += 1
        assert not poll()
    assert functions._esm_wake.wait(10)
    time.sleep(0.01)
    assert poll()
    assert functions.handed == [1, 5]


def test_without_a_window_nothing_waits() -> None:
    functions = Functions(window=0)
    poll = _poll_with_windows(functions, functions.poll)
    for _ in range(3):
        functions.written += 1
        assert poll()
    assert functions.handed == [1, 1, 1]


def test_a_mapping_that_took_nothing_begins_no_window() -> None:
    functions = Functions(window=60)
    poll = _poll_with_windows(functions, functions.poll)
    assert not poll()
    functions.written = 1
    assert poll()


def test_the_function_that_is_replaced_is_the_one_this_was_written_for() -> None:
    assert callable(expect(lambda_svc, "_poll_dynamodb_streams", "2b2460e933a9f3c3"))
