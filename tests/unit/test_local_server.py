"""What serves the embedded AWS: it says who is connected, and that it did not start."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import Any

from attestry.local.process import free_port
from attestry.local.saving import Message
from attestry.local.server import run, server_of


def test_who_calls_is_who_is_connected_whatever_a_header_says() -> None:
    async def application(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": f"{(await receive())['type']}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps([scope["client"][0], scope["scheme"]]).encode()})

    port = free_port()
    server = server_of(application, port)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.01)
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        client.request("GET", "/", headers={"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Forwarded": "for=203.0.113.9"})
        answer = client.getresponse()
        assert json.loads(answer.read()) == ["127.0.0.1", "http"]
        assert answer.headers["server"] is None
        client.close()
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def test_that_nothing_could_be_served_is_not_taken_for_a_data_directory_in_use() -> None:
    async def application(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "there is nothing to serve"})

    assert run(server_of(application, free_port())) == 1
