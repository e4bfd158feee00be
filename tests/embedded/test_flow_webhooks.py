"""Events out on the embedded AWS: on the bus, and by signed requests to receivers that fail, answer, and are gone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook as Receiver

from attestry.evidence.leaf import Leaf
from attestry.usecases.ledger import LedgerReader
from tests.embedded.flows import Registry, until

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]


@dataclass
class Receivers:
    """What was received, by path; a path answers what it is told to, one answer after the other, and the last one for good."""

    port: int = 0
    answers: dict[str, list[int]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def of(self, path: str) -> list[tuple[dict[str, str], bytes]]:
        return [(headers, body) for at, headers, body in self.requests if at == path]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture(scope="module")
def receivers() -> Iterator[Receivers]:
    kept = Receivers()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kept.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            answers = kept.answers.setdefault(self.path, [204])
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield kept
    server.shutdown()
    server.server_close()


def add(registry: Registry, name: str, url: str, **changes: Any) -> str:
    answer = registry.call("admin", "POST", "/v1/webhooks", {"webhook": name, "url": url, "reason": "the flow test asks", **changes})
    assert answer.status == 201, answer.body
    return str(answer.body["secret"])


def shown(registry: Registry, name: str) -> dict[str, Any]:
    answer = registry.call("admin", "GET", "/v1/webhooks")
    return next(one for one in answer.body["webhooks"] if one["webhook"] == name)


def test_an_act_is_told_on_the_bus_and_by_a_signed_request_and_stands_in_the_ledger_where_it_says(
    registry: Registry, receivers: Receivers
) -> None:
    sqs, events = registry.aws("sqs"), registry.aws("events")
    queue = sqs.create_queue(QueueName="subscriber")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    bus = registry.stack.outputs["EventBus"]
    pattern = {"source": ["attestry"], "detail-type": ["person.changed"], "detail": {"event": {"subject": ["person/webhooked"]}}}
    events.put_rule(Name="subscriber", EventBusName=bus, EventPattern=json.dumps(pattern))
    events.put_targets(Rule="subscriber", EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])
    receivers.answers["/busy"] = [500, 204]
    secret = add(registry, "people", receivers.url("/busy"), kinds=["person.*"])
    add(registry, "else", receivers.url("/else"), kinds=["version.*"], models=["no-such-model"])
    added = registry.call("admin", "POST", "/v1/people", {"person": "webhooked", "logins": ["webhooked"]})
    assert added.status == 201

    def delivered() -> Any:
        mine = [r for r in receivers.of("/busy") if b"person/webhooked" in r[1]]
        return mine if len(mine) == 2 else None

    first, second = until(delivered, "the webhook was tried again")
    assert (first[0]["webhook-id"], first[1]) == (second[0]["webhook-id"], second[1])
    assert first[0]["webhook-timestamp"] <= second[0]["webhook-timestamp"]
    told = Receiver(secret).verify(second[1], second[0])["data"]
    leaf = Leaf.parse(LedgerReader(registry.store).leaf(told["index"], LedgerReader(registry.store).checkpoint()[0].size))
    assert (leaf.event_id, leaf.event, leaf.logged) == (told["id"], told["event"], told["logged"])
    until(lambda: (shown(registry, "people")["last"] or {}).get("outcome") == "delivered: 204", "the outcome is shown")
    assert receivers.of("/else") == []

    messages = until(lambda: sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"), "the bus told it")
    on_bus = json.loads(messages[0]["Body"])
    assert (on_bus["source"], on_bus["detail-type"], on_bus["detail"]) == ("attestry", "person.changed", told)


def test_a_receiver_that_is_gone_is_told_no_more_and_a_ping_says_so(registry: Registry, receivers: Receivers) -> None:
    receivers.answers["/gone"] = [410]
    add(registry, "gone", receivers.url("/gone"), kinds=["nothing.*"])
    ping = registry.call("admin", "POST", "/v1/webhooks/gone/ping", {})
    assert ping.status == 202
    until(lambda: shown(registry, "gone")["state"] == "DISABLED", "the webhook was disabled")
    ((headers, _),) = receivers.of("/gone")
    assert headers["webhook-id"] == ping.body["ping"]
    assert registry.call("admin", "POST", "/v1/webhooks/gone/ping", {}).status == 409


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest/", "https://127.0.0.1/", "http://10.0.0.1/", "https://user:x@example.org/"])
def test_a_url_that_leads_inside_is_refused(registry: Registry, url: str) -> None:
    answer = registry.call("admin", "POST", "/v1/webhooks", {"webhook": "inside", "url": url, "reason": "an attack"})
    assert (answer.status, answer.body["field"]) == (400, "url")


def test_the_embedded_aws_itself_is_no_receiver(registry: Registry) -> None:
    add(registry, "itself", f"http://127.0.0.1:{registry.stack.port}/_ministack/reset", kinds=["nothing.*"])
    assert registry.call("admin", "POST", "/v1/webhooks/itself/ping", {}).status == 202
    last = until(lambda: shown(registry, "itself")["last"], "the try was noted")
    assert "the embedded AWS's own" in last["outcome"]
    assert registry.call("admin", "DELETE", "/v1/webhooks/itself?reason=over").status == 200


def test_who_is_no_admin_changes_no_webhook(registry: Registry) -> None:
    body = {"webhook": "mine", "url": "https://example.org/", "reason": "an attack"}
    for profile in ("dana", "erin", "frank"):
        assert registry.call(profile, "POST", "/v1/webhooks", body).status == 403
        assert registry.call(profile, "GET", "/v1/webhooks").status == 403
