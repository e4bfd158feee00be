"""The embedded AWS saves its state while it runs, without making anybody wait for it.

A copy of the process writes the state: what it has in memory is the state at one instant, and the server goes on meanwhile. Where a system
forks no processes with threads (anything but Linux), the server stops for as long as it takes.

The state is one JSON file for each service, replaced whole; rows of tables have files of their own (`attestry.local.row_files`). A crash
in between leaves files of two instants; only a stop saves a state that is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from attestry.local.patching import load, replace

__all__ = ["Saver", "Saving", "apply", "save_state"]

QUIET_SECONDS = 2.0
"""The state is saved once nothing changed for so long."""

LONGEST_SECONDS = 120.0
"""It is saved after so long even when something changes all the time."""

SHARE = 0.2
"""Saving takes no more of a processor than this."""

CHILD_SECONDS = 120
"""A process that saves for longer hangs, on a lock that another thread held when it was forked, and is ended."""

_NICE = 10
"""Whoever waits for an answer comes first."""

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_READING = re.compile(rb"DynamoDB_\d+\.(GetItem|BatchGetItem|TransactGetItems|Query|Scan|Describe\w+)")
_LOG = logging.getLogger("attestry.local.saving")

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


def apply() -> None:
    """Patch the writing of a service's state.

    The emulator streams JSON into the file, which the interpreter does in Python; as one text it is made in C, four times as fast.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    persistence = load("ministack.core.persistence")
    replace(persistence, "save_state", "58a9551109738f64", lambda _: _write_whole(persistence))


def _write_whole(persistence: Any) -> Callable[..., None]:
    def save(service: str, data: Any) -> None:
        if not persistence.PERSIST_STATE:
            return
        folder = Path(persistence.STATE_DIR)
        written = folder / f"{service}.json.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            wrapped = {"__ministack_format__": persistence._state_format_version(service), "payload": data}
            written.write_text(json.dumps(wrapped, default=persistence._json_default), encoding="utf-8")
            written.replace(folder / f"{service}.json")
        except Exception:  # noqa: BLE001 - as the emulator does: one service that cannot be saved does not keep the others from it
            _LOG.exception("the state of %s was not saved", service)

    return save


def save_state() -> None:
    """Write the state of every service."""
    load("ministack.core.persistence").save_all(load("ministack.app")._build_persistence_save_dict())


class Saver:
    """Saves in a copy of this process, one at a time.

    Args:
        save: writes the state.
        share: see `SHARE`.
        hand_over: called before a copy is made, or before this process saves by itself.
        settle: called when a copy is at its end, however it came there, or this process has saved.
    """

    def __init__(
        self,
        save: Callable[[], None] = save_state,
        *,
        share: float = SHARE,
        hand_over: Callable[[], None] = lambda: None,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._save, self._hand_over, self._settle = save, hand_over, settle
        self._share = share
        self._child: int | None = None
        self._rests_until = 0.0

    def begin(self) -> bool:
        """Begin to save, and return True; False while a copy is at work, soon after one, or where no process can be forked now."""
        if self.is_busy() or time.monotonic() < self._rests_until:
            return False
        self._hand_over()
        if sys.platform != "linux":
            self._save()
            self._settle()
            return True
        try:
            pid = os.fork()
        except OSError:
            _LOG.exception("the state is not saved now: no process can be forked")
            return False
        if pid == 0:
            self._be_the_copy()
        self._child = pid
        return True

    def is_busy(self) -> bool:
        """Return whether a copy is at work."""
        if self._child is not None:
            with contextlib.suppress(ChildProcessError):
                ended, _, used = os.wait4(self._child, os.WNOHANG)
                if ended == 0:
                    return True
                self._rests_until = time.monotonic() + (used.ru_utime + used.ru_stime) / self._share
            self._child = None
            self._settle()
        return False

    def end(self) -> None:
        """End a copy that is at work: whoever asks saves the whole by itself, into the same files."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._child, signal.SIGKILL)
                os.waitpid(self._child, 0)
            self._child = None
            self._settle()

    def _be_the_copy(self) -> None:
        status = 1
        try:
            # Neither the port nor the lock of the data directory is held by who only writes files.
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.nice(_NICE)
            signal.alarm(CHILD_SECONDS)
            self._save()
            status = 0
        except BaseException:  # noqa: BLE001 - this process ends with whatever it is, and the log tells
            _LOG.exception("the state was not saved")
        finally:
            os._exit(status)


def is_read(scope: Message) -> bool:
    """Return whether a request changes nothing, as far as can be told before it is answered."""
    if scope["method"] in _READS:
        return True
    return any(name == b"x-amz-target" and _READING.fullmatch(value) is not None for name, value in scope.get("headers", ()))


class Saving:
    """The emulator's application, its state saved from time to time while it changes.

    Args:
        application: the emulator, an ASGI application.
        saver: saves its state.
        quiet_seconds: see `QUIET_SECONDS`.
    """

    def __init__(self, application: Application, saver: Saver, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._application = application
        self._saver = saver
        self._quiet_seconds = quiet_seconds
        self._changed_at: float | None = None
        self._saved_at = time.monotonic()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request, or the life of the server."""
        if scope["type"] == "http" and not is_read(scope):
            self._changed_at = time.monotonic()
        if scope["type"] != "lifespan":
            await self._application(scope, receive, send)
            return
        task = asyncio.create_task(self._save_now_and_then())

        async def receive_life() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":  # upon which the application saves by itself
                task.cancel()
                self._saver.end()
            return message

        try:
            await self._application(scope, receive_life, send)
        finally:
            task.cancel()
            self._saver.end()

    async def _save_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._quiet_seconds / 2)
            now = time.monotonic()
            is_due = now - self._saved_at > LONGEST_SECONDS
            if self._changed_at is not None and (is_due or now - self._changed_at > self._quiet_seconds) and self._saver.begin():
                self._changed_at, self._saved_at = None, time.monotonic()
