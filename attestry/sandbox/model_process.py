"""One confined process that holds a model and answers predictions over pipes of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attestry.sandbox.child import drain
from attestry.sandbox.errors import ServingError
from attestry.sandbox.log import BoundedLog
from attestry.sandbox.processes import descendants, private_memory, send

MAX_ANSWER_BYTES = 6 << 20
_LOG_BYTES = 64 << 10
_WATCH_SECONDS = 0.5


class ModelProcess:
    """A model in a process of its own, for one thread at a time.

    Args:
        begin: gets the descriptors of requests and answers, starts the process that uses them, and returns it with the descriptor that its
            output arrives on.
        memory_bytes: private memory that the process and all it starts may use.
    """

    def __init__(self, begin: Callable[[int, int], tuple[subprocess.Popen[bytes], int]], *, memory_bytes: int) -> None:
        self.log = BoundedLog(_LOG_BYTES)
        self._buffer = bytearray()
        self._sent = 0
        request_reader, self._requests = os.pipe()
        self._answers, answer_writer = os.pipe()
        self._memory_bytes = memory_bytes
        self._pid: int | None = None
        self._error = ""
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._live, args=(begin, (request_reader, answer_writer), started), name="model", daemon=True
        )
        self._thread.start()
        started.wait()
        os.set_blocking(self._requests, False)
        os.set_blocking(self._answers, False)

    def _live(
        self, begin: Callable[[int, int], tuple[subprocess.Popen[bytes], int]], ends: tuple[int, int], started: threading.Event
    ) -> None:
        """Start the process and watch it; this thread lives as long, because the kernel ends a child with the thread that started it."""
        try:
            process, reader = begin(*ends)
            self._pid = process.pid
        except OSError as error:
            self._error = f"the model's process cannot be started: {error}"
            return
        finally:
            started.set()
            for descriptor in ends:
                os.close(descriptor)
        while process.poll() is None:
            select.select([reader], [], [], _WATCH_SECONDS)
            if drain(reader, self.log, seconds=_WATCH_SECONDS):
                break
            if private_memory([process.pid, *descendants(process.pid)]) > self._memory_bytes:
                self._error = f"it needed more than its memory, {self._memory_bytes >> 20} MiB"
                send(process.pid, signal.SIGKILL)
        process.wait()
        drain(reader, self.log, seconds=0.1)
        os.close(reader)

    @property
    def pid(self) -> int | None:
        """Return the process ID, None where none was started."""
        return self._pid

    def wait_ready(self, deadline: float) -> bool:
        """Return whether the model is loaded by the deadline (monotonic seconds).

        Raises:
            ServingError: loading failed, or the process died.
        """
        answer = self._read(deadline)
        if answer is None:
            return False
        if "error" in answer:
            raise ServingError(str(answer["error"])[:2000])
        return True

    def predict(self, instances: Sequence[Mapping[str, Any]], columns: Sequence[str] | None, deadline: float) -> list[Any]:
        """Return one element for each instance.

        Raises:
            ServingError: the script failed, its answer breaks a rule, the process died, or no answer came by the deadline; after the last
                two the process is of no use any more, see `alive`.
        """
        self._sent += 1
        number = self._sent
        self._write(json.dumps({"id": number, "instances": list(instances), "columns": columns}).encode() + b"\n", deadline)
        answer = self._read(deadline)
        if answer is None:
            self.end()
            raise ServingError("predict_fn gave no answer in time; the model is loaded anew for the next request")
        if answer.get("id") != number:
            self.end()
            raise ServingError("the model's process answered another request than it was asked")
        if "error" in answer:
            raise ServingError(str(answer["error"])[:2000])
        output = answer.get("output")
        if not isinstance(output, list) or len(output) != len(instances):
            raise ServingError(f"predict_fn did not answer one element for each of {len(instances)} instances")
        return output

    @property
    def alive(self) -> bool:
        """Return whether the process can be asked."""
        return self._pid is not None and self._thread.is_alive()

    def end(self) -> None:
        """Kill the process and wait until it is gone."""
        if self._pid is not None and self._thread.is_alive():
            send(-self._pid, signal.SIGKILL)
            send(self._pid, signal.SIGKILL)
        self._thread.join(5)
        for descriptor in (self._requests, self._answers):
            try:
                os.close(descriptor)
            except OSError:  # closed by an earlier call
                continue
        self._requests = self._answers = -1

    def _write(self, line: bytes, deadline: float) -> None:
        left = memoryview(line)
        while left:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                self.end()
                raise ServingError("the model's process takes no request; it is loaded anew for the next one")
            if not select.select([], [self._requests], [], remaining)[1]:
                continue
            try:
                left = left[os.write(self._requests, left) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise ServingError(self._death()) from error

    def _read(self, deadline: float) -> dict[str, Any] | None:
        while b"\n" not in self._buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([self._answers], [], [], remaining)[0]:
                return None
            chunk = os.read(self._answers, 1 << 20)
            if not chunk:
                raise ServingError(self._death())
            self._buffer += chunk
            if len(self._buffer) > MAX_ANSWER_BYTES:
                self.end()
                raise ServingError(f"the output is larger than {MAX_ANSWER_BYTES} bytes")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        try:
            answer = json.loads(line, parse_constant=_refuse)
        except ValueError as error:
            self.end()
            raise ServingError("the model's process gave no JSON") from error
        if not isinstance(answer, dict):
            self.end()
            raise ServingError("the model's process gave no JSON object")
        return answer

    def _death(self) -> str:
        self._thread.join(2)
        return f"the model's process ended: {self._error or self.log.last_line() or 'it said nothing'}"


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON knows")
