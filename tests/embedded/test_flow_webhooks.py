"""Events out on the embedded AWS: on the bus, and by signed requests to receivers that fail, answer, and are gone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook as Receiver

from attestry.client.imports import import_model
from attestry.evidence.leaf import Leaf, event_id
from attestry.usecases.ledger import LedgerReader
from tests.embedded.flows import Registry, until
from tests.mlflow_environment import run

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
        """The deliveries of what came first, which may be of somebody who was added before, and that of the one who was added."""
        came = receivers.of("/busy")
        again = [r for r in came if r[0]["webhook-id"] == came[0][0]["webhook-id"]]
        mine = [r for r in came if b"person/webhooked" in r[1]]
        return (again, mine[-1]) if len(again) == 2 and mine else None

    (first, second), mine = until(delivered, "the webhook was tried again")
    assert (first[0]["webhook-id"], first[1]) == (second[0]["webhook-id"], second[1])
    assert first[0]["webhook-timestamp"] <= second[0]["webhook-timestamp"]
    told = Receiver(secret).verify(mine[1], mine[0])["data"]
    leaf = Leaf.parse(LedgerReader(registry.store).leaf(told["index"], LedgerReader(registry.store).checkpoint()[0].size))
    assert (leaf.event_id, leaf.event, leaf.logged) == (told["id"], told["event"], told["logged"])
    until(lambda: (shown(registry, "people")["last"] or {}).get("outcome") == "delivered: 204", "the outcome is shown")
    assert receivers.of("/else") == []

    messages = until(lambda: sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"), "the bus told it")
    on_bus = json.loads(messages[0]["Body"])
    assert (on_bus["source"], on_bus["detail-type"], on_bus["detail"]) == ("attestry", "person.changed", told)


MLFLOW = "/api/2.0/mlflow"
HOOKED = ("registered_model.created", "model_version.created", "model_version_tag.set", "model_version_alias.created")


def test_a_webhook_of_mlflow_is_told_of_acts_through_the_queue_and_signed_as_mlflow_itself_signs(
    registry: Registry, receivers: Receivers, tmp_path: Any
) -> None:
    name, secret = f"hooked-{uuid.uuid4().hex[:8]}", "s3cret of ours"
    events = [dict(zip(("entity", "action"), event.upper().split("."), strict=True)) for event in HOOKED]
    receivers.answers["/mlflow"] = [503, 204]
    asked = {"name": "ci", "url": receivers.url("/mlflow"), "events": events, "secret": secret}
    made = registry.call("admin", "POST", f"{MLFLOW}/webhooks", asked)
    assert made.status == 200, made.body
    assert secret not in made.raw.decode()

    def act(route: str, **body: str) -> None:
        answer = registry.call("dana", "POST", f"{MLFLOW}/{route}", {"name": name, **body})
        assert answer.status == 200, answer.body

    (tmp_path / "weights.txt").write_text("0.5")
    act("registered-models/create", description="told outside")
    assert import_model(registry.client("dana"), tmp_path, name, {}).number == 1
    act("model-versions/set-tag", version="1", key="checked", value="yes & no")
    act("registered-models/alias", version="1", alias="champion")

    def delivered() -> dict[str, tuple[dict[str, str], bytes]] | None:
        mine = [(json.loads(body), headers, body) for headers, body in receivers.of("/mlflow") if name.encode() in body]
        found = {f"{told['entity']}.{told['action']}": (headers, body) for told, headers, body in mine}
        return found if set(found) == set(HOOKED) else None

    told = until(delivered, "each of the acts was told")
    given = [
        {"secret": secret, "id": h["x-mlflow-delivery-id"], "timestamp": h["x-mlflow-timestamp"], "body": body.decode()}
        for h, body in told.values()
    ]
    # By MLflow's own code, and by what its documentation has receivers do.
    by_mlflow = json.loads(run("receive.py", given=json.dumps(given)))
    for (headers, body), request, judged in zip(told.values(), given, by_mlflow, strict=True):
        signed = f"{request['id']}.{request['timestamp']}.{body.decode()}".encode()
        code = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
        assert headers["x-mlflow-signature"] == judged["signature"] == f"v1,{code}"
        assert judged["differs"] == []
        assert abs(datetime.now().timestamp() - int(headers["x-mlflow-timestamp"])) < 300  # noqa: DTZ005 - a moment, whatever the zone
    data = {event: json.loads(body)["data"] for event, (_, body) in told.items()}
    assert data["registered_model.created"] == {"name": name, "tags": {}, "description": "told outside"}
    assert (data["model_version.created"]["name"], data["model_version.created"]["version"]) == (name, "1")
    assert data["model_version_tag.set"] == {"name": name, "version": "1", "key": "checked", "value": "yes & no"}
    assert data["model_version_alias.created"] == {"name": name, "alias": "champion", "version": "1"}

    # What was refused came again under its ID, and the ID is that of the event in the ledger.
    def came() -> list[tuple[str, bytes]]:
        return [(h["x-mlflow-delivery-id"], body) for h, body in receivers.of("/mlflow")]

    until(lambda: came().count(came()[0]) == 2, "what was refused came again")
    assert told["registered_model.created"][0]["x-mlflow-delivery-id"] == event_id("model.created", f"model/{name}", 1)
    assert registry.call("admin", "DELETE", f"{MLFLOW}/webhooks/{made.body['webhook']['webhook_id']}").status == 200


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
