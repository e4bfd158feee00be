"""Webhooks of MLflow's clients: made through the function that answers MLflow, told in MLflow's words, and the attacks on both."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from attestry.aws.settings import Settings
from attestry.aws.world import World as AwsWorld
from attestry.domain.catalogue import ModelSubject, VersionSubject
from attestry.domain.errors import IntegrityError, UnavailableError
from attestry.domain.telling import Told
from attestry.domain.webhooks import State
from attestry.evidence.leaf import Leaf
from attestry.evidence.webhook_secret import open_secret, seal_message, seal_secret
from attestry.evidence.webhook_signature import mlflow_headers
from attestry.mlflow.webhooks import KINDS
from attestry.ports import Update
from attestry.usecases.aliases import delete_alias
from attestry.usecases.catalogue import create_model, delete_tag, set_alias, set_tag
from attestry.usecases.deliver import Outcome
from attestry.usecases.ledger import LedgerReader
from attestry.usecases.ledger_bytes import LedgerBytes
from attestry.usecases.mlflow_telling import tell_mlflow
from attestry.usecases.reconcile_access import AccessExaminer
from attestry.usecases.webhooks import WebhookOutlet, list_webhooks, read_webhook, rotate_webhook, webhook_key
from lambdas import deliver, mlflow, webhooks
from tests.fakes import MemoryFunctions
from tests.mlflow_environment import run
from tests.unit.ledger_world import World
from tests.unit.test_webhooks import Mac, Post, Queue
from tests.versions import add_logins, make_version, session

HOOKS = mlflow.WEBHOOKS
URL = "https://hooks.example.org/mlflow"
SECRET = "s3cret-of-ours"
ADMIN = session("admin", "alex", person="alex")
EVENTS = [{"entity": "REGISTERED_MODEL", "action": "CREATED"}, {"entity": "MODEL_VERSION_TAG", "action": "SET"}]
SETTINGS = {
    "ATTESTRY_ACCOUNT": "123456789012",
    "ATTESTRY_DELIVER_FUNCTION": "deliver",
    "ATTESTRY_PREFIX": "attestry",
    "ATTESTRY_WEBHOOKS_FUNCTION": "webhooks",
}


class Desk:
    """Both functions and the one that delivers, over a ledger in memory."""

    def __init__(self, patch: pytest.MonkeyPatch, **settings: str) -> None:
        self.ledger, self.post, self.queue, self.told = World(), Post(), Queue(), 0
        self.functions = MemoryFunctions({"webhooks": lambda e: webhooks.handler(e, None), "deliver": lambda e: deliver.handler(e, None)})
        ledger = self.ledger
        ports = {"meta": ledger.meta, "store": ledger.store, "clock": ledger.clock, "functions": self.functions}
        for module in (mlflow, webhooks, deliver):
            world = AwsWorld(Settings({**SETTINGS, **settings}))
            world.__dict__.update({**ports, "webhook_key": Mac(), "sender": self.post, "deliveries": self.queue})
            patch.setattr(module, "world", world)
        deliver.deliverer.cache_clear()
        add_logins(ledger.meta, alex="alex", dana="dana", grace="grace")

    def ask(self, method: str, path: str = "", *, by: str = "alex", role: str = "admin", raw: str = "", **body: Any) -> tuple[int, Any]:
        identity = {"userArn": f"arn:aws:sts::123456789012:assumed-role/attestry-{role}/{by}", "userId": f"AROA:{by}"}
        first, _, rest = path.strip("/").partition("/")
        template = "".join(f"/{part}" for part in ("{webhook_id}" if first else "", rest) if part)
        event = {
            "version": "2.0",
            "routeKey": f"{method} {HOOKS}{template}",
            "rawQueryString": raw,
            "pathParameters": {"webhook_id": first} if first else {},
            "requestContext": {"requestId": "r1", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": identity}},
            "body": json.dumps(body) if method != "GET" else "",
            "isBase64Encoded": False,
        }
        answer = mlflow.handler(event, None)
        return int(answer["statusCode"]), json.loads(answer["body"])

    def make(self, **changed: Any) -> dict[str, Any]:
        status, body = self.ask("POST", **{"name": "ci", "url": URL, "events": EVENTS, "secret": SECRET, **changed})
        assert status == 200, body
        return dict(body["webhook"])

    def tell(self) -> list[Any]:
        """Put what waits into the ledger, queue what webhooks ask for, and deliver it."""
        self.ledger.run()
        reader, ledger = deliver.deliverer(), LedgerReader(self.ledger.store)
        size = ledger.checkpoint()[0].size
        leaves = [Leaf.parse(ledger.leaf(index, size)) for index in range(self.told, size)]
        told = [Told(self.told + n, leaf.logged, leaf.event) for n, leaf in enumerate(leaves)]
        self.told = size
        self.queue.messages.clear()
        WebhookOutlet(self.ledger.meta, self.queue).tell(told)
        return [reader.deliver(message, 1) for message in self.queue.messages]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


def verify(headers: Mapping[str, str], body: bytes, secret: str = SECRET) -> Any:
    """Verify a request as MLflow's documentation has receivers do it."""
    signed = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.{body.decode()}"
    expected = base64.b64encode(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()).decode()
    assert hmac.compare_digest(headers["x-mlflow-signature"], f"v1,{expected}")
    return json.loads(body)


def test_a_webhook_is_made_shown_listed_changed_and_removed_and_no_answer_shows_its_secret(desk: Desk) -> None:
    made = desk.make(description="builds")
    expected = {"name": "ci", "url": URL, "description": "builds", "events": EVENTS, "status": "ACTIVE"}
    assert {k: made[k] for k in expected} == expected
    id_ = made["webhook_id"]
    assert desk.ask("GET", f"/{id_}") == (200, {"webhook": made})
    assert desk.ask("GET")[1]["webhooks"] == [made]
    desk.ledger.clock.advance(seconds=5)
    status, changed = desk.ask("PATCH", f"/{id_}", description="more", status="DISABLED")
    assert (status, changed["webhook"]["status"], changed["webhook"]["url"]) == (200, "DISABLED", URL)
    assert changed["webhook"]["last_updated_timestamp"] > changed["webhook"]["creation_timestamp"] == made["creation_timestamp"]
    assert desk.ask("PATCH", f"/{id_}", status="ACTIVE")[1]["webhook"]["status"] == "ACTIVE"
    assert desk.ask("DELETE", f"/{id_}") == (200, {})
    assert desk.ask("GET", f"/{id_}")[1]["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert all(SECRET not in repr(row) for row in desk.ledger.meta.rows.values())


def test_pages_of_webhooks_go_on_and_those_that_no_mlflow_client_made_are_not_among_them(desk: Desk) -> None:
    made = {desk.make(name=f"n{n}")["webhook_id"] for n in range(3)}
    status, first = desk.ask("GET", raw="max_results=2")
    _, second = desk.ask("GET", raw=f"max_results=2&page_token={first['next_page_token']}")
    assert (status, len(first["webhooks"]), "next_page_token" in second) == (200, 2, False)
    assert {w["webhook_id"] for w in (*first["webhooks"], *second["webhooks"])} == made
    assert desk.ask("GET", raw="page_token=none")[1]["error_code"] == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "a/b"},
        {"name": ""},
        {"events": []},
        {"events": [{"entity": "PROMPT", "action": "CREATED"}]},
        {"events": [{"entity": "REGISTERED_MODEL", "action": "DELETED"}]},
        {"events": ["registered_model.created"]},
        {"url": ""},
        {"url": "http://hooks.example.org/"},
        {"url": "https://169.254.169.254/latest/meta-data"},
        {"url": "https://[::ffff:10.0.0.1]/"},
        {"url": "https://user:pass@hooks.example.org/"},
        {"status": "GONE"},
        {"secret": "x" * 1001},
        {"secret": 7},
    ],
)
def test_what_breaks_a_rule_of_mlflow_or_of_webhooks_here_is_refused_with_mlflows_code_and_changes_nothing(
    desk: Desk, changed: dict[str, Any]
) -> None:
    status, body = desk.ask("POST", **{"name": "ci", "url": URL, "events": EVENTS, **changed})
    assert (status, body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert list_webhooks(desk.ledger.meta) == []


@pytest.mark.parametrize(("by", "role", "allowed"), [("dana", "scientist", ()), ("grace", "auditor", ("GET",)), ("erin", "approver", ())])
def test_admins_alone_change_webhooks_and_auditors_look_at_them(desk: Desk, by: str, role: str, allowed: tuple[str, ...]) -> None:
    id_ = desk.make()["webhook_id"]
    for method, path in (
        ("GET", ""),
        ("GET", f"/{id_}"),
        ("POST", ""),
        ("PATCH", f"/{id_}"),
        ("DELETE", f"/{id_}"),
        ("POST", f"/{id_}/test"),
    ):
        status, body = desk.ask(method, path, by=by, role=role, name="x", url=URL, events=EVENTS)
        assert (status == 200) == (method in allowed), (method, path)
        assert status == 200 or body["error_code"] == "PERMISSION_DENIED"
    assert desk.post.sent == []


def test_where_a_deployment_has_no_webhooks_the_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, ATTESTRY_WEBHOOKS_FUNCTION="")
    status, body = desk.ask("GET")
    assert (status, body["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert "has no webhooks" in body["message"]


def test_a_model_its_tags_and_aliases_are_told_in_mlflows_words_and_verify_by_its_recipe(desk: Desk) -> None:
    every = [dict(zip(("entity", "action"), name.upper().split("."), strict=True)) for name in mlflow_events()]
    desk.make(events=every)
    meta, clock = desk.ledger.meta, desk.ledger.clock
    create_model(meta, "Iris_v2", description="flowers", tags={"tier": "low"}, by=ADMIN, at=clock.now())
    model = next(str(row["model"]) for key, row in meta.rows.items() if key.partition.startswith("CATALOGUE#") and "model" in row)
    make_version(meta, model=model, number=1)
    registered = Told(0, "t", {"kind": "version.imported", "subject": f"{model}@1", "data": {}})
    set_tag(meta, VersionSubject(model, 1), "stage", "gold", by=ADMIN, at=clock.now())
    set_tag(meta, VersionSubject(model, 1), "attestry.mlflow.source", "s3://elsewhere", by=ADMIN, at=clock.now())
    set_tag(meta, ModelSubject(model), "tier", "high", by=ADMIN, at=clock.now())
    told = {"name": "Iris_v2", "version": "1", "source": "s3://elsewhere", "run_id": None, "tags": {"stage": "gold"}, "description": None}
    assert tell_mlflow(meta, registered) == ("model_version.created", told)
    delete_tag(meta, VersionSubject(model, 1), "stage", by=ADMIN, at=clock.now())
    set_alias(meta, model, "champion", 1, by=ADMIN, at=clock.now())
    delete_alias(meta, model, "champion", by=ADMIN, at=clock.now())
    delivered = desk.tell()
    assert {d.outcome for d in delivered} == {Outcome.DELIVERED, Outcome.DROPPED}
    sent = [(f"{b['entity']}.{b['action']}", b["data"]) for _, headers, body in desk.post.sent for b in [verify(headers, body)]]
    # The version was put into the table without an event.
    assert {name for name, _ in sent} == set(mlflow_events()) - {"model_version.created"}
    by_name = dict(sent)
    assert by_name["registered_model.created"] == {"name": "Iris_v2", "tags": {"tier": "high"}, "description": "flowers"}
    assert [data for name, data in sent if name == "model_version_tag.set"] == [
        {"name": "Iris_v2", "version": "1", "key": "stage", "value": "gold"}
    ]
    assert by_name["model_version_tag.deleted"] == {"name": "Iris_v2", "version": "1", "key": "stage"}
    assert by_name["model_version_alias.created"] == {"name": "Iris_v2", "alias": "champion", "version": "1"}
    assert by_name["model_version_alias.deleted"] == {"name": "Iris_v2", "alias": "champion"}


def mlflow_events() -> list[str]:
    return list(KINDS)


def test_a_try_that_failed_comes_again_under_the_same_id_with_a_signature_of_its_own(desk: Desk) -> None:
    desk.make()
    create_model(desk.ledger.meta, "iris", by=ADMIN, at=desk.ledger.clock.now())
    desk.post.answers = [503]
    assert [d.outcome for d in desk.tell()] == [Outcome.FAILED]
    desk.ledger.clock.advance(seconds=60)
    (message,) = desk.queue.messages
    assert deliver.deliverer().deliver(message, 2).outcome is Outcome.DELIVERED
    (_, first, one), (_, second, two) = desk.post.sent
    assert (first["x-mlflow-delivery-id"], one) == (second["x-mlflow-delivery-id"], two)
    assert first["x-mlflow-signature"] != second["x-mlflow-signature"]
    verify(first, one)
    verify(second, two)


def test_a_webhook_without_a_secret_is_told_without_a_signature_and_a_changed_secret_signs_at_once(desk: Desk) -> None:
    id_ = desk.make(secret="")["webhook_id"]
    desk.ask("POST", f"/{id_}/test")
    assert "x-mlflow-signature" not in desk.post.sent[-1][1]
    desk.ask("PATCH", f"/{id_}", secret="another")
    assert desk.ask("POST", f"/{id_}/test") == (200, {"result": {"success": True, "response_status": 204}})
    _, headers, body = desk.post.sent[-1]
    assert verify(headers, body, "another")["data"]["name"] == "example"


def test_a_test_tells_the_status_that_came_back_and_nothing_of_the_answer(desk: Desk) -> None:
    id_ = desk.make()["webhook_id"]
    desk.post.answers = [500, UnavailableError("hooks.example.org has no address")]
    assert desk.ask("POST", f"/{id_}/test")[1]["result"] == {"success": False, "response_status": 500}
    refused = {"success": False, "error_message": "hooks.example.org has no address"}
    assert desk.ask("POST", f"/{id_}/test", event=EVENTS[1])[1]["result"] == refused
    assert json.loads(desk.post.sent[-1][2])["entity"] == "model_version_tag"


def test_a_secret_that_was_moved_changed_or_sealed_for_another_number_opens_nothing() -> None:
    key = Mac().mac(seal_message("mlflow-1", 1))
    sealed = seal_secret(key, "mlflow-1", SECRET, b"n" * 12)
    assert open_secret(key, "mlflow-1", sealed) == SECRET
    for other, name, text in (
        (key, "mlflow-2", sealed),
        (Mac().mac(seal_message("mlflow-1", 2)), "mlflow-1", sealed),
        (key, "mlflow-1", "AA="),
    ):
        with pytest.raises(IntegrityError):
            open_secret(other, name, text)


def test_its_secret_is_not_rotated_by_the_registry(desk: Desk) -> None:
    id_ = desk.make()["webhook_id"]
    with pytest.raises(Exception, match="choose its secret themselves"):
        rotate_webhook(desk.ledger.meta, Mac(), id_, reason="r", by=ADMIN, at=desk.ledger.clock.now())


def test_an_edit_by_hand_of_what_is_told_is_found(desk: Desk) -> None:
    id_ = desk.make()["webhook_id"]
    desk.ledger.run()
    examiner = AccessExaminer(desk.ledger.meta, LedgerBytes(desk.ledger.meta, desk.ledger.store))
    assert [o.what for o in examiner.examine() if o.what.startswith("webhook")] == []
    spoken = dict(read_webhook(desk.ledger.meta, id_).mlflow)
    desk.ledger.meta.transact([Update(webhook_key(id_), {"mlflow": {**spoken, "sealed": ""}})])
    assert [o.what for o in examiner.examine() if o.what.startswith("webhook")] == ["webhook.changed"]
    assert read_webhook(desk.ledger.meta, id_).state is State.ACTIVE


@contextmanager
def served(desk: Desk) -> Iterator[str]:
    """The function that answers MLflow, behind an address of this machine."""

    class Gateway(BaseHTTPRequestHandler):
        def do(self) -> None:
            path, _, query = self.path.partition("?")
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}") if length else {}
            status, told = desk.ask(self.command, path.removeprefix(HOOKS), raw=query, **body)
            raw = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PATCH = do_DELETE = do  # noqa: N815 - the standard library's names

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.long
def test_mlflows_own_client_makes_changes_tests_and_removes_a_webhook(desk: Desk) -> None:
    with served(desk) as url:
        told = json.loads(run("webhooks.py", url, URL).splitlines()[-1])
    assert told["made"] == told["got"] == ["ci", URL, ["model_version_tag.set", "registered_model.created"], "builds", "ACTIVE"]
    assert (told["secret"], told["listed"]) == (None, [told["id"]])
    assert told["changed"] == ["ci", URL, ["model_version_alias.created"], "more builds", "DISABLED"]
    assert told["tested"] == [True, 204, None]
    assert told["other_event"] is True
    assert (told["bad_event"], told["bad_url"], told["gone"]) == (
        "INVALID_PARAMETER_VALUE",
        "INVALID_PARAMETER_VALUE",
        "RESOURCE_DOES_NOT_EXIST",
    )
    at = datetime.fromtimestamp(1767323045).astimezone() + timedelta(0)
    assert mlflow_headers(SECRET, "test_1", at, b'{"a": 1}')["x-mlflow-signature"] == told["signature"]
