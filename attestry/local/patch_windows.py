"""Patch: the batching window of a stream's mapping.

What AWS does (Lambda Developer Guide, "Batching behavior") and the emulator does not: a mapping with a window gathers records for so long
and hands them over together, so that a thousand writes in a second are one invocation and not a thousand.

Not as on AWS: the window begins with an invocation and not with the first record, so a record that comes alone is handed over at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from attestry.local.patching import load, replace


def apply() -> None:
    """Patch the reading of streams.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    functions = load("ministack.services.lambda_svc")
    replace(functions, "_poll_dynamodb_streams", "2b2460e933a9f3c3", lambda original: _poll_with_windows(functions, original))


def _poll_with_windows(functions: Any, original: Callable[[], bool]) -> Callable[[], bool]:
    def poll() -> bool:
        before = dict(functions._dynamodb_stream_positions._data)
        found = original()
        after = functions._dynamodb_stream_positions._data
        for scoped, seconds in _windows(functions):
            if after.get(scoped) != before.get(scoped):
                # A pause after an error is longer, and stays.
                until = max(time.time() + seconds, functions._esm_backoff_until._data.get(scoped, 0))
                functions._esm_backoff_until._data[scoped] = until
                timer = threading.Timer(seconds, functions._esm_wake.set)
                timer.daemon = True
                timer.start()
        return found

    return poll


def _windows(functions: Any) -> Iterator[tuple[Any, float]]:
    for account, region, mapping in functions._iter_all_esms():
        if seconds := float(mapping.get("MaximumBatchingWindowInSeconds") or 0):
            yield (account, region, mapping["UUID"]), seconds
