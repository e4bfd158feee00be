"""The embedded AWS saves its state in a copy of its process, and whoever calls meanwhile does not wait."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from attestry.local.saving import Message, Saver, Saving, _write_whole, is_read

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the server saves by itself")


def until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.01)


@pytest.fixture
def savers() -> Iterator[list[Saver]]:
    made: list[Saver] = []
    yield made
    for saver in made:
        saver.end()


def test_what_is_saved_is_the_state_at_the_instant_at_which_saving_began(tmp_path: Path, savers: list[Saver]) -> None:
    state, go, saved = {"rows": 1}, tmp_path / "go", tmp_path / "saved"

    def save() -> None:
        until(go.exists)
        saved.write_text(json.dumps(state))

    saver = Saver(save)
    savers.append(saver)
    assert saver.begin()
    state["rows"] = 2
    go.touch()
    until(lambda: not saver.is_busy())
    assert json.loads(saved.read_text()) == {"rows": 1}


def test_whoever_waits_for_an_answer_comes_before_the_copy(tmp_path: Path, savers: list[Saver]) -> None:
    saved = tmp_path / "saved"

    def save() -> None:
        saved.write_text(str(os.getpriority(os.PRIO_PROCESS, 0)))

    saver = Saver(save)
    savers.append(saver)
    assert saver.begin()
    until(lambda: not saver.is_busy())
    assert int(saved.read_text()) > os.getpriority(os.PRIO_PROCESS, 0)


def test_one_copy_saves_at_a_time_and_the_next_may_begin_when_it_is_done(tmp_path: Path, savers: list[Saver]) -> None:
    go = tmp_path / "go"
    saver = Saver(lambda: until(go.exists))
    savers.append(saver)
    assert saver.begin()
    assert not saver.begin()
    go.touch()
    until(saver.begin)


def test_saving_takes_no_more_of_a_processor_than_its_share(savers: list[Saver]) -> None:
    def save() -> None:
        until_then = time.process_time() + 0.1
        while time.process_time() < until_then:
            pass

    saver = Saver(save, share=0.1)
    savers.append(saver)
    assert saver.begin()
    until(lambda: not saver.is_busy())
    done = time.monotonic()
    until(saver.begin)
    assert time.monotonic() - done > 0.9


@pytest.mark.parametrize(
    ("method", "target", "reads"),
    [
        ("GET", b"", True),
        ("POST", b"", False),
        ("POST", b"DynamoDB_20120810.GetItem", True),
        ("POST", b"DynamoDB_20120810.Query", True),
        ("POST", b"DynamoDB_20120810.PutItem", False),
        ("POST", b"DynamoDB_20120810.TransactWriteItems", False),
        ("POST", b"AWSStepFunctions.DescribeExecution", False),
        ("PUT", b"DynamoDB_20120810.GetItemX", False),
    ],
)
def test_reading_a_table_is_no_change(method: str, target: bytes, reads: bool) -> None:
    headers = [(b"host", b"localhost"), (b"x-amz-target", target)] if target else []
    assert is_read({"method": method, "headers": headers}) is reads


def test_a_copy_that_fails_leaves_the_server_as_it_was(savers: list[Saver]) -> None:
    def save() -> None:
        raise OSError("the disk is full")

    saver = Saver(save)
    savers.append(saver)
    assert saver.begin()
    until(saver.begin)


def test_where_no_process_can_be_forked_the_next_try_saves(savers: list[Saver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise BlockingIOError("no more processes")

    saver = Saver((tmp_path / "saved").touch)
    savers.append(saver)
    with monkeypatch.context() as crowded:
        crowded.setattr(os, "fork", fail)
        assert not saver.begin()
    assert saver.begin()
    until((tmp_path / "saved").exists)


def test_a_copy_that_is_at_work_ends_with_the_server(tmp_path: Path) -> None:
    late = tmp_path / "late"

    def save() -> None:
        time.sleep(2)
        late.touch()

    saver = Saver(save)
    saver.begin()
    child = saver._child
    saver.end()
    assert child is not None
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert not late.exists()


def test_a_copy_holds_neither_the_port_nor_a_lock(savers: list[Saver], tmp_path: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    saver = Saver(lambda: time.sleep(20))
    savers.append(saver)
    saver.begin()
    descriptors = Path(f"/proc/{saver._child}/fd")
    until(lambda: {int(entry.name) for entry in descriptors.iterdir()} <= {0, 1, 2})
    listening.close()
    socket.create_server(("127.0.0.1", port)).close()


def test_the_state_is_saved_once_it_was_quiet_and_not_again_until_something_changed() -> None:
    begun: list[float] = []
    saver = SimpleNamespace(begin=lambda: begun.append(time.monotonic()) or True, end=lambda: None)

    async def application(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()

    async def life() -> None:
        over = asyncio.Event()

        async def receive() -> Message:
            await over.wait()
            return {"type": "lifespan.shutdown"}

        saving = Saving(application, saver, quiet_seconds=0.05)  # type: ignore[arg-type]
        running = asyncio.create_task(saving({"type": "lifespan"}, receive, None))  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        assert begun == []
        await saving({"type": "http", "method": "GET"}, receive, None)  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        assert begun == []
        await saving({"type": "http", "method": "POST"}, receive, None)  # type: ignore[arg-type]
        while not begun:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert len(begun) == 1
        over.set()
        await running

    asyncio.run(asyncio.wait_for(life(), 20))


def test_before_the_application_saves_at_its_end_a_copy_at_work_is_ended() -> None:
    told: list[str] = []
    saver = SimpleNamespace(begin=lambda: True, end=lambda: told.append("ended"))

    async def application(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        told.append("saved")

    async def shutdown() -> Message:
        return {"type": "lifespan.shutdown"}

    asyncio.run(Saving(application, saver)({"type": "lifespan"}, shutdown, None))  # type: ignore[arg-type]
    assert told[:2] == ["ended", "saved"]


def test_a_service_that_cannot_be_written_keeps_what_was_saved_of_it(tmp_path: Path) -> None:
    persistence = SimpleNamespace(PERSIST_STATE=True, STATE_DIR=str(tmp_path), _state_format_version=lambda _: 2, _json_default=str)
    persistence._json_default = lambda value: (_ for _ in ()).throw(TypeError(f"{type(value)} is not JSON"))
    save = _write_whole(persistence)
    save("sqs", {"queues": {"a": 1}})
    save("sqs", {"queues": object()})
    assert json.loads((tmp_path / "sqs.json").read_text()) == {"__ministack_format__": 2, "payload": {"queues": {"a": 1}}}
