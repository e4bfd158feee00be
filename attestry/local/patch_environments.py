"""Patch: how many execution environments a function has at once.

AWS starts another execution environment for each request that finds none free, on machines of its own. Here all share one machine: for 32
clients 32 processes would load the same model, each would wait for the processor, and all would run into their time limits. So a request
waits its turn while its function has as many environments as the machine's processors can make use of. It never waits for good: a function
may wait for one that waits for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from attestry.local.patching import load, replace, share

T = TypeVar("T")

AT_ONCE = max(4, 2 * (os.cpu_count() or 1))
"""So many environments of one function, or of one of its tenants, are started without anybody waiting."""

PATIENCE_SECONDS = 20.0
"""After so long a request gets an environment of its own; less than the gateway's 30 seconds."""


def apply() -> None:
    """Patch the lease of execution environments.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    runtime, functions = load("ministack.core.lambda_runtime"), load("ministack.services.lambda_svc")
    turns = Turns()
    replace(runtime, "acquire_worker", "5017d144adb5b983", lambda original: _acquire_in_turn(runtime, turns, original))
    replace(runtime, "release_worker", "25d5dd7d42b6e30c", lambda original: _release_and_tell(turns, original))
    for name in ("acquire_worker", "release_worker"):
        share(runtime, name, functions)


class Turns:
    """Who waits for an environment of which function; whoever came first is served first.

    Args:
        patience: for how long one waits, in seconds.
    """

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._lines: dict[str, list[object]] = {}

    def take(self, key: str, lease: Callable[[], T | None]) -> T | None:
        """Return what `lease` gives, when it is this request's turn.

        Args:
            key: the function's.
            lease: returns None while there is nothing to be had.

        Returns:
            None if nothing was to be had for as long as one waits.
        """
        place, until = object(), time.monotonic() + self._patience
        with self._changed:
            line = self._lines.setdefault(key, [])
            line.append(place)
            try:
                while (left := until - time.monotonic()) > 0:
                    if line[0] is place and (found := lease()) is not None:
                        return found
                    self._changed.wait(left)
            finally:
                line.remove(place)
                if not line:
                    del self._lines[key]
                self._changed.notify_all()
        return None

    def freed(self) -> None:
        """Have those that wait look again."""
        with self._changed:
            self._changed.notify_all()


def _acquire_in_turn(runtime: Any, turns: Turns, original: Callable[..., Any]) -> Callable[..., Any]:
    def acquire(
        func_name: str, config: dict[str, Any], code_zip: bytes, qualifier: str = "$LATEST", max_concurrency: int | None = None
    ) -> Any:
        def lease() -> Any:
            found = original(func_name, config, code_zip, qualifier=qualifier, max_concurrency=max_concurrency or AT_ONCE)
            return found if found[0] is not None else None

        key = runtime._worker_key(func_name, config, qualifier)
        return turns.take(key, lease) or original(func_name, config, code_zip, qualifier=qualifier, max_concurrency=max_concurrency)

    return acquire


def _release_and_tell(turns: Turns, original: Callable[[Any], None]) -> Callable[[Any], None]:
    def release(worker: Any) -> None:
        original(worker)
        turns.freed()

    return release
