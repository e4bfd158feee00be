"""Webhooks: rows, secrets, what is told to whom, and what is sent, checked by the library of Standard Webhooks itself."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Receiver
from standardwebhooks import WebhookVerificationError

from attestry.aws.deliveries import SqsDeliveries
from attestry.aws.settings import Settings
from attestry.aws.world import World as AwsWorld
from attestry.domain.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError, UnavailableError
from attestry.domain.telling import Told
from attestry.domain.webhooks import State, read_patterns, read_target, require_public
from attestry.evidence.leaf import event_id, parse_event
from attestry.evidence.webhook_signature import secret_message, show_secret, webhook_headers
from attestry.ports import Update
from attestry.usecases.deliver import DELAYS, Deliverer, Outcome, delay_after
from attestry.usecases.tell import Teller
from attestry.usecases.webhooks import (
    WebhookOutlet,
    Wish,
    add_webhook,
    delivery_key,
    list_webhooks,
    ping_webhook,
    read_webhook,
    remove_webhook,
    rotate_webhook,
    show_webhooks,
    webhook_key,
)
from lambdas import deliver
from tests.fakes import Killed, MemoryMetaStore
from tests.unit.ledger_world import World
from tests.versions import session

ADMIN = session("admin", "alex", person="alex")
URL = "https://hooks.example.org/receive?token=s3cret"
PING = f"ping_{'0' * 32}"


class Mac:
    """A key for message authentication codes."""

    def mac(self, message: bytes) -> bytes:
        return hmac.digest(b"k" * 32, message, "sha256")


class Queue:
    """`attestry.ports.Deliveries` that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[Mapping[str, Any]] = []

    def send(self, messages: Sequence[Mapping[str, Any]]) -> None:
        self.messages += messages


class Post:
    """`attestry.ports.Sender` that keeps what it sends and answers as it is told."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, dict[str, str], bytes]] = []

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        self.sent.append((url, dict(headers), body))
        answer = self.answers.pop(0) if self.answers else 204
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def ledger() -> World:
    world = World()
    world.add_events(4)
    world.run()
    return world


def wish(name: str = "chat", **changes: Any) -> Wish:
    return Wish(**{"name": name, "url": URL, "kinds": ("*",), "models": ("*",), "reason": "the team wants to know", **changes})


def add(ledger: World, name: str = "chat", **changes: Any) -> str:
    return add_webhook(ledger.meta, Mac(), wish(name, **changes), by=ADMIN, at=ledger.clock.now())[1]


def rotate(ledger: World, name: str = "chat") -> str:
    return rotate_webhook(ledger.meta, Mac(), name, reason="it leaked", by=ADMIN, at=ledger.clock.now())[1]


def deliverer(ledger: World, sender: Post) -> Deliverer:
    return Deliverer(ledger.meta, ledger.store, Mac(), sender, ledger.clock)


def verify(monkeypatch: pytest.MonkeyPatch, secret: str, headers: Mapping[str, str], body: bytes) -> Any:
    """Verify a request by the library, on the day on which it was sent."""
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"])).astimezone()

    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return at

    monkeypatch.setattr("standardwebhooks.webhooks.datetime", Then)
    return Receiver(secret).verify(body, dict(headers))


class TestRows:
    def test_each_change_is_one_transaction_with_its_event_and_the_event_does_not_tell_the_url(self, ledger: World) -> None:
        ledger.meta.faults.clear()
        add(ledger)
        rotate(ledger)
        remove_webhook(ledger.meta, "chat", reason="nobody listens", by=ADMIN, at=ledger.clock.now())
        rows = [r for k, r in sorted(ledger.meta.rows.items(), key=lambda kr: kr[0].sort) if k.partition == "OUTBOX"]
        events = [parse_event(row["event"]) for row in rows]
        assert [(e["kind"], e["sequence"]) for e in events] == [("webhook.added", 1), ("webhook.changed", 2), ("webhook.removed", 3)]
        assert [e["data"]["secret_number"] for e in events] == [1, 2, 2]
        assert all(
            "s3cret" not in row["event"].decode() and e["data"]["host"] == "hooks.example.org" for row, e in zip(rows, events, strict=True)
        )
        assert ledger.meta.faults.calls.count("MemoryMetaStore.transact") == 3

    def test_the_secret_is_derived_and_stands_in_no_row(self, ledger: World) -> None:
        secret = add(ledger)
        assert secret == show_secret(Mac().mac(b"webhook/chat/1"))
        assert secret_message("chat", 1) == b"webhook/chat/1"
        assert all(secret.removeprefix("whsec_") not in repr(row) for row in ledger.meta.rows.values())

    def test_a_name_is_never_given_a_secret_that_it_had_before(self, ledger: World) -> None:
        secrets = [add(ledger), rotate(ledger)]
        for _ in range(2):
            remove_webhook(ledger.meta, "chat", reason="over", by=ADMIN, at=ledger.clock.now())
            secrets += [add(ledger), rotate(ledger)]
        assert len(set(secrets)) == len(secrets) == 6

    def test_a_name_that_is_taken_is_refused_and_nothing_changes(self, ledger: World) -> None:
        add(ledger)
        before = dict(ledger.meta.rows)
        with pytest.raises(ConflictError, match="attestry webhooks rotate chat"):
            add(ledger, url="https://attacker.example.org/")
        assert ledger.meta.rows == before

    def test_removing_twice_is_removing_once_and_what_never_was_is_not_found(self, ledger: World) -> None:
        add(ledger)
        for _ in range(2):
            assert remove_webhook(ledger.meta, "chat", reason="over", by=ADMIN, at=ledger.clock.now()).state is State.REMOVED
        assert list_webhooks(ledger.meta) == []
        for act in (rotate, lambda w, n: remove_webhook(w.meta, n, reason="x", by=ADMIN, at=w.clock.now())):
            with pytest.raises(NotFoundError):
                act(ledger, "nobody")

    def test_of_two_changes_at_once_one_is_told_to_look_again(self, ledger: World) -> None:
        add(ledger)
        stale = MemoryMetaStore()
        stale.rows = dict(ledger.meta.rows)
        rotate(ledger)
        ledger.meta.get, kept = stale.get, ledger.meta.get  # type: ignore[method-assign]
        with pytest.raises(ConflictError, match="at the same moment"):
            rotate(ledger)
        ledger.meta.get = kept  # type: ignore[method-assign]
        assert read_webhook(ledger.meta, "chat").secret_number == 2


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            *("http://example.org/", "ftp://example.org/", "https://", "https:///x", "file:///etc/passwd", "//example.org", "example.org"),
            *("https://user@example.org/", "https://user:pass@example.org/", "https://example.org/#x", "https://example.org:0/"),
            *("https://example.org:99999/", "https://exa mple.org/", "https://example.org/\r\nX: y", "https://example.org\\@evil.org/"),
            *("https://ex%61mple.org/", "https://éxample.org/", f"https://example.org/{'x' * 600}", "https://[::1", "HTTPS", "", None, 7),
            *("http://127.0.0.1/", "http://localhost:8000/", "https://example.org,evil.org/", "https://example.org?\t"),
        ],
    )
    def test_what_is_no_plain_https_url_is_refused(self, url: object) -> None:
        with pytest.raises(InvalidInputError) as refused:
            read_target(url)
        assert refused.value.problems[0].field == "url"

    def test_a_target_keeps_path_and_query_and_takes_the_port_of_the_scheme(self) -> None:
        target = read_target("https://Hooks.Example.org/a%20b/c?d=e&f")
        assert (target.host, target.port, target.path, target.netloc) == ("hooks.example.org", 443, "/a%20b/c?d=e&f", "hooks.example.org")
        assert read_target("https://h.example:8443").path == "/"
        assert read_target("https://[2606:2800::1]:8443/").host == "2606:2800::1"

    def test_http_goes_to_the_loopback_address_and_only_by_a_setting(self) -> None:
        assert read_target("http://127.0.0.1:9000/x", loopback=True).port == 9000
        for url in ("http://example.org/", "http://127.0.0.1.example.org/", "http://10.0.0.1/", "http://127.0.0.2/"):
            with pytest.raises(InvalidInputError, match="https://"):
                read_target(url, loopback=True)

    @pytest.mark.parametrize(
        "address",
        [
            *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "239.1.1.1"),
            *("255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1"),
            *("fd00:ec2::254", "ff02::1", "::ffff:169.254.169.254", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::a9fe:a9fe"),
            *("2002:7f00:1::", "2001:0:1::", "2001:db8::1", "2130706433", "0x7f.1", "example.org", ""),
        ],
    )
    def test_only_addresses_of_the_internet_are_public(self, address: str) -> None:
        with pytest.raises(InvalidInputError):
            require_public(address)

    @pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:2800:21f::1"])
    def test_addresses_of_the_internet_are_public(self, address: str) -> None:
        assert str(require_public(address)) == address

    @pytest.mark.parametrize(
        "body",
        [
            {"webhook": "chat", "url": "https://169.254.169.254/latest/meta-data/"},
            {"webhook": "chat", "url": "https://[::ffff:169.254.169.254]/"},
            {"webhook": "chat", "url": "https://2130706433/"},
            {"webhook": "Chat!", "url": URL},
            {"webhook": "chat", "url": URL, "kinds": []},
            {"webhook": "chat", "url": URL, "kinds": ["version.*.x"]},
            {"webhook": "chat", "url": URL, "models": ["*risk"]},
            {"webhook": "chat", "url": URL, "models": "credit-risk"},
        ],
    )
    def test_a_wish_that_breaks_a_rule_is_refused(self, body: dict[str, Any]) -> None:
        with pytest.raises(InvalidInputError):
            Wish.read(body, "why", loopback=False)


class TestTelling:
    @pytest.mark.parametrize(
        ("kinds", "models", "kind", "model", "wanted"),
        [
            (None, None, "person.changed", "", True),
            (["version.*"], None, "version.approved", "credit-risk", True),
            (["version.*"], None, "versions.other", "credit-risk", False),
            (["version.approved"], None, "version.approved_not", "credit-risk", False),
            (["*"], ["credit-risk"], "version.approved", "credit-risk", True),
            (["*"], ["credit-risk"], "version.approved", "credit-risk-2", False),
            (["*"], ["credit-*"], "version.approved", "credit-risk-2", True),
            (["*"], ["credit-*"], "person.changed", "", False),
        ],
    )
    def test_patterns_choose_kinds_and_models(
        self, ledger: World, kinds: list[str] | None, models: list[str] | None, kind: str, model: str, wanted: bool
    ) -> None:
        add(ledger, kinds=read_patterns("kinds", kinds), models=read_patterns("models", models))
        assert read_webhook(ledger.meta, "chat").wants(kind, model) == wanted

    def test_a_message_is_queued_for_each_webhook_that_asks_and_names_webhook_and_leaf_alone(self, ledger: World) -> None:
        for name, kinds in (("all", ("*",)), ("none", ("nothing.*",)), ("gone", ("*",))):
            add(ledger, name, kinds=kinds)
        remove_webhook(ledger.meta, "gone", reason="over", by=ADMIN, at=ledger.clock.now())
        queue = Queue()
        assert Teller(ledger.meta, ledger.store, [WebhookOutlet(ledger.meta, queue)]).run().told == {"WEBHOOKS": 4}
        assert queue.messages == [{"webhook": "all", "index": n} for n in range(4)]

    def test_the_queue_is_sent_ten_at_a_time_and_what_it_refuses_is_an_error(self) -> None:
        class Client:
            def __init__(self) -> None:
                self.batches: list[int] = []

            def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:  # noqa: N803
                self.batches.append(len(Entries))
                return {"Failed": [{"Id": "0", "Code": "InternalError"}]} if len(self.batches) == 2 else {"Successful": []}

        client = Client()
        with pytest.raises(UnavailableError, match="1 of 10 deliveries: InternalError"):
            SqsDeliveries(client, "q").send([{"webhook": "chat", "index": n} for n in range(25)])  # type: ignore[arg-type]
        assert client.batches == [10, 10]


class TestDelivery:
    def test_what_is_sent_is_the_leaf_and_the_library_verifies_it(self, ledger: World, monkeypatch: pytest.MonkeyPatch) -> None:
        secret, post = add(ledger), Post()
        assert deliverer(ledger, post).deliver({"webhook": "chat", "index": 2}, 1).outcome is Outcome.DELIVERED
        ((url, headers, body),) = post.sent
        told = verify(monkeypatch, secret, headers, body)
        assert (url, told["data"]["index"]) == (URL, 2)
        assert headers["webhook-id"] == told["data"]["id"] == told["data"]["event"]["id"]
        with pytest.raises(WebhookVerificationError):
            verify(monkeypatch, secret, headers, body.replace(b'"index":2', b'"index":3'))
        with pytest.raises(WebhookVerificationError):
            verify(monkeypatch, show_secret(b"x" * 32), headers, body)

    def test_for_a_day_after_a_rotation_both_secrets_verify_and_then_the_new_one_alone(
        self, ledger: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old, new, post = add(ledger), rotate(ledger), Post()
        one = deliverer(ledger, post)
        one.deliver({"webhook": "chat", "index": 0}, 1)
        for secret in (old, new):
            assert verify(monkeypatch, secret, *post.sent[0][1:])["data"]["index"] == 0
        ledger.clock.advance(hours=24)
        one.deliver({"webhook": "chat", "index": 0}, 2)
        assert verify(monkeypatch, new, *post.sent[1][1:])["data"]["index"] == 0
        with pytest.raises(WebhookVerificationError):
            verify(monkeypatch, old, *post.sent[1][1:])

    def test_each_try_has_a_time_of_its_own_and_the_same_id(self, ledger: World) -> None:
        add(ledger)
        post = Post(503, UnavailableError("no answer"), 200)
        one = deliverer(ledger, post)
        outcomes = []
        for attempt in (1, 2, 3):
            outcomes.append(one.deliver({"webhook": "chat", "index": 1}, attempt).outcome)
            ledger.clock.advance(seconds=30)
        assert outcomes == [Outcome.FAILED, Outcome.FAILED, Outcome.DELIVERED]
        assert len({h["webhook-id"] for _, h, _ in post.sent}) == 1
        assert len({h["webhook-timestamp"] for _, h, _ in post.sent}) == 3
        (shown,) = show_webhooks(ledger.meta)
        assert (shown["last"]["attempt"], shown["last"]["outcome"]) == (3, "delivered: 200")

    @pytest.mark.parametrize("status", [100, 199, 301, 302, 307, 308, 400, 404, 429, 500])
    def test_whatever_is_not_2xx_is_tried_again(self, ledger: World, status: int) -> None:
        add(ledger)
        assert deliverer(ledger, Post(status)).deliver({"webhook": "chat", "index": 0}, 1).outcome is Outcome.FAILED

    def test_410_disables_the_webhook_with_an_event_and_nothing_more_is_sent(self, ledger: World) -> None:
        add(ledger)
        post = Post(410)
        one = deliverer(ledger, post)
        assert one.deliver({"webhook": "chat", "index": 0}, 1).outcome is Outcome.DISABLED
        assert one.deliver({"webhook": "chat", "index": 1}, 1).outcome is Outcome.DROPPED
        assert len(post.sent) == 1
        webhook = read_webhook(ledger.meta, "chat")
        assert (webhook.state, webhook.by, len(webhook.changed)) == (State.DISABLED, "attestry:deliver", 2)
        assert event_id("webhook.changed", "webhook/chat", 2) in {r.get("id") for r in ledger.meta.rows.values()}
        with pytest.raises(ConflictError, match="disabled: the receiver answered 410"):
            ping_webhook(ledger.meta, Queue(), "chat", PING)
        add(ledger)
        assert one.deliver({"webhook": "chat", "index": 1}, 1).outcome is Outcome.DELIVERED

    def test_what_was_queued_for_a_webhook_that_was_removed_is_dropped(self, ledger: World) -> None:
        add(ledger)
        remove_webhook(ledger.meta, "chat", reason="over", by=ADMIN, at=ledger.clock.now())
        post = Post()
        assert deliverer(ledger, post).deliver({"webhook": "chat", "index": 0}, 1).outcome is Outcome.DROPPED
        assert post.sent == []

    def test_a_ping_tells_nothing_of_the_ledger(self, ledger: World, monkeypatch: pytest.MonkeyPatch) -> None:
        secret, queue, post = add(ledger), Queue(), Post()
        ping_webhook(ledger.meta, queue, "chat", PING)
        deliverer(ledger, post).deliver(queue.messages[0], 1)
        told = verify(monkeypatch, secret, *post.sent[0][1:])
        assert (told["type"], told["data"], post.sent[0][1]["webhook-id"]) == ("webhook.ping", {"webhook": "chat"}, PING)

    @pytest.mark.parametrize("after", [False, True])
    def test_a_crash_between_any_two_calls_leaves_a_message_that_is_delivered(self, after: bool) -> None:
        for n in range(1, 20):
            world = World()
            world.add_events(1)
            world.run()
            add(world)
            world.store.faults = world.meta.faults
            (world.meta.faults.fail_after if after else world.meta.faults.fail_before)(n, error=Killed())
            post = Post()
            try:
                deliverer(world, post).deliver({"webhook": "chat", "index": 0}, 1)
            except Killed:
                world.meta.faults.clear()
                assert deliverer(world, post).deliver({"webhook": "chat", "index": 0}, 2).outcome is Outcome.DELIVERED
                assert len({headers["webhook-id"] for _, headers, _ in post.sent}) == 1
                assert world.meta.rows[delivery_key("chat")]["attempt"] == 2
            else:
                assert n > 3
                return
        pytest.fail("the delivery never ended unharmed")

    def test_delays_grow_and_there_is_one_for_each_try_but_the_last(self) -> None:
        assert [delay_after(n) for n in (1, 2, 7, 8, 99)] == [5, 30, 14_400, 14_400, 14_400]
        assert list(DELAYS) == sorted(DELAYS)
        assert timedelta(hours=6) < timedelta(seconds=sum(DELAYS)) < timedelta(hours=12)


class TestForgedMessages:
    """Who may write the queue cannot have anything told that is not in the ledger, nor to whom it was not meant for."""

    @pytest.mark.parametrize(
        "message",
        [
            {},
            {"webhook": "chat"},
            {"webhook": "chat", "index": -1},
            {"webhook": "chat", "index": "0"},
            {"webhook": "chat", "index": True},
            {"webhook": ["chat"], "index": 0},
            {"webhook": "chat", "index": 0, "url": "https://attacker.example.org/"},
            {"webhook": "chat", "index": 0, "body": "{}"},
            {"webhook": "chat", "ping": "x"},
            {"webhook": "chat", "ping": f"{'a' * 64}"},
            {"webhook": "chat", "ping": PING, "index": 0},
        ],
    )
    def test_what_is_no_message_is_an_error_and_nothing_is_sent(self, ledger: World, message: dict[str, Any]) -> None:
        add(ledger)
        post = Post()
        with pytest.raises(InvalidInputError):
            deliverer(ledger, post).deliver(message, 1)
        assert post.sent == []

    def test_a_leaf_that_the_webhook_does_not_ask_for_is_dropped(self, ledger: World) -> None:
        add(ledger, kinds=("nothing.*",))
        post = Post()
        assert deliverer(ledger, post).deliver({"webhook": "chat", "index": 0}, 1).outcome is Outcome.DROPPED
        assert post.sent == []

    def test_a_leaf_beyond_the_published_ledger_is_an_error(self, ledger: World) -> None:
        add(ledger)
        ledger.add_events(3)
        with pytest.raises(InvalidInputError, match="no leaf 5"):
            deliverer(ledger, Post()).deliver({"webhook": "chat", "index": 5}, 1)


class TestFunction:
    @pytest.fixture
    def world(self, ledger: World, monkeypatch: pytest.MonkeyPatch) -> Any:
        class Put(Queue):
            def __init__(self) -> None:
                super().__init__()
                self.put_off: list[tuple[str, int]] = []

            def try_again(self, receipt: str, seconds: int) -> None:
                self.put_off.append((receipt, seconds))

        aws = AwsWorld(Settings({"ATTESTRY_PREFIX": "attestry"}))
        aws.__dict__.update(meta=ledger.meta, store=ledger.store, clock=ledger.clock, deliveries=Put(), sender=Post(500), webhook_key=Mac())
        monkeypatch.setattr(deliver, "world", aws)
        deliver.deliverer.cache_clear()
        yield aws
        deliver.deliverer.cache_clear()

    @staticmethod
    def event(body: Any, attempt: int = 1) -> dict[str, Any]:
        text = body if isinstance(body, str) else json.dumps(body)
        received = {"ApproximateReceiveCount": str(attempt)}
        return {"Records": [{"messageId": "m", "receiptHandle": "r", "body": text, "attributes": received}]}

    def test_what_fails_comes_again_later_and_what_is_delivered_does_not(self, ledger: World, world: Any) -> None:
        add(ledger)
        message = {"webhook": "chat", "index": 0}
        assert deliver.handler(self.event(message, 3), None) == {"batchItemFailures": [{"itemIdentifier": "m"}]}
        assert world.deliveries.put_off == [("r", 120)]
        assert deliver.handler(self.event(message, 4), None) == {"batchItemFailures": []}

    @pytest.mark.parametrize("body", ["", "{", "[]", '"x"', '{"webhook":"chat","index":9}', "nan"])
    def test_what_cannot_be_delivered_ends_in_the_dead_letter_queue_and_not_in_a_loop(self, ledger: World, world: Any, body: str) -> None:
        add(ledger)
        assert deliver.handler(self.event(body), None) == {"batchItemFailures": [{"itemIdentifier": "m"}]}
        assert world.sender.sent == []


def test_an_event_about_a_webhook_that_no_row_bears_out_never_enters_the_ledger(ledger: World) -> None:
    add(ledger)
    rotate(ledger)
    ledger.meta._apply([Update(webhook_key("chat"), {"changed": list(read_webhook(ledger.meta, "chat").changed[:1])})])
    done = ledger.run()
    assert (done.appended, done.conflicts, done.size) == (1, 1, 5)


def test_a_signature_is_the_library_s_own_and_there_is_one_for_each_secret() -> None:
    at = datetime.fromisoformat("2021-02-25T14:00:08+00:00")
    told = Told(7, "2021-02-25T14:00:00.000000Z", {"id": "a" * 64, "kind": "version.approved"})
    headers = webhook_headers([b"k" * 32, b"j" * 32], told.event_id, at, told.body())
    assert len(headers["webhook-signature"].split(" ")) == 2
    library = Receiver(b"k" * 32).sign(told.event_id, at, told.body().decode())
    assert headers["webhook-signature"].split(" ")[0] == library


def snippet(n: int) -> str:
    """A piece of Python from the page on events."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[n]


def test_the_lines_of_the_page_verify_a_webhook(ledger: World) -> None:
    secret, post = add(ledger), Post()
    ledger.clock.at = datetime.now(UTC)
    deliverer(ledger, post).deliver({"webhook": "chat", "index": 2}, 1)
    ((_, headers, body),) = post.sent
    given: dict[str, Any] = {}
    exec(snippet(0), given)
    given["verify"](secret, headers, body)
    for wrong in (({**headers, "webhook-timestamp": "1"}, body), (headers, body + b" "), ({**headers, "webhook-id": "x"}, body)):
        with pytest.raises(ValueError, match=r"too old|not signed"):
            given["verify"](secret, *wrong)


def test_the_lines_of_the_page_check_an_event_against_the_ledger(ledger: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def ledger_file(self, path: str) -> bytes:
            return ledger.object(path)

    monkeypatch.setattr("attestry.client.api.RegistryClient", Client)
    add(ledger)
    post = Post()
    deliverer(ledger, post).deliver({"webhook": "chat", "index": 2}, 1)
    body = post.sent[0][2]
    exec(snippet(1), {"body": body})
    with pytest.raises(IntegrityError):
        exec(snippet(1), {"body": body.replace(b'"sequence":', b'"sequence":1')})
