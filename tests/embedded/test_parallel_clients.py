"""Many clients at once make versions, move aliases and ask for deployments of one model; somebody looks at it all the while."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from attestry.client.api import RegistryClient
from attestry.client.errors import ApiError
from attestry.domain.errors import UnavailableError
from tests.embedded.flows import Registry, until

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.long, pytest.mark.xdist_group("embedded")]

CLIENTS = int(os.environ.get("ATTESTRY_STORM_CLIENTS", "64"))
SECONDS = float(os.environ.get("ATTESTRY_STORM_SECONDS", "60"))
DEPLOYABLE = (1, 2)
SHARED = "shared"
FILE = b"flavors: {}\n"
REFUSED = frozenset({409, 412})
BUSY = frozenset({429, 503})
"""What a client is told when others were faster, and when there are too many of them."""

UNANSWERED = frozenset({500, 502, 503, 504})
"""What the gateway itself says where a function gave no answer in time: whatever was asked for may have been done, or not."""

UNSURE: dict[str, Any] = {}
NOWHERE = 0
"""What an alias names before it is set."""


@dataclass
class Storm:
    """What the clients were told, and what the observer saw.

    Attributes:
        model: the model.
        numbers: submission to the numbers that its imports were answered with.
        aliases: alias to the numbers that it may name in the end: the last one that was acknowledged, and what was not answered after it.
        revisions: revisions of the shared alias that clients were told they had made.
        told: how often each act came to each end.
        seen: how many versions stood DEPLOYED at a time, to how often.
        torn: what the observer saw of pointer and heads that cannot be.
        unexpected: answers that no client may be given.
    """

    model: str
    numbers: dict[str, set[int]] = field(default_factory=dict)
    aliases: dict[str, set[int]] = field(default_factory=dict)
    revisions: list[int] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    seen: Counter[int] = field(default_factory=Counter)
    torn: list[Any] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, act: str, ask: Callable[[], Any]) -> Any:
        """Ask for something, and return the answer; None where it was refused, `UNSURE` where nobody knows whether it was done."""
        try:
            answer = ask()
        except UnavailableError:
            self.note(f"{act} unanswered")
            return UNSURE
        except ApiError as error:
            return self._not_done(act, error)
        self.note(f"{act} done")
        return answer

    def _not_done(self, act: str, error: ApiError) -> Any:
        if error.status in REFUSED:
            self.note(f"{act} refused")
            return None
        if error.status in BUSY or (error.by_gateway and error.status in UNANSWERED):
            self.note(f"{act} {'unanswered' if error.by_gateway else 'busy'}")
            return UNSURE
        self.note(f"{act} {error.status}")
        self.unexpected.append(f"{act}: {error.status} {error.message}")
        return UNSURE

    def note(self, what: str) -> None:
        with self.lock:
            self.told[what] += 1


def test_many_clients_at_once_lose_nothing(registry: Registry, pair: str) -> None:
    judge(registry, storm(registry, pair, clients=CLIENTS, seconds=SECONDS))


@pytest.fixture(scope="module")
def pair(registry: Registry) -> str:
    """A model with two approved versions, of which the second is in place and the first is kept for rollback."""
    model = f"crowd-{uuid.uuid4().hex[:8]}"

    def as_strict(manifest: dict[str, Any]) -> None:
        manifest["training"]["hyperparameters"] = {"threshold": 14.0, "seconds_to_load": 0}

    projects = [registry.small_project(model=model), registry.small_project(model=model, edit=as_strict)]
    for project in projects:
        registry.submit(project)
    for number in DEPLOYABLE:
        registry.rest(model, number)
        registry.approve(model, number)
    return model


def storm(registry: Registry, model: str, *, clients: int, seconds: float) -> Storm:
    """Let so many clients act at once for so long, and return what came of it once everything rests."""
    found, over = Storm(model), threading.Event()
    acts = (_import_versions, _move_aliases, _deploy)
    profiles = ("dana", "dana", "frank")
    clients_of = [RegistryClient(registry.session(profiles[n % 3]), registry.stack.api_url, patience_seconds=30) for n in range(clients)]
    observer = threading.Thread(target=_observe, args=(registry, found, over))
    observer.start()
    end = time.monotonic() + seconds
    try:
        with ThreadPoolExecutor(clients) as pool:
            for done in [pool.submit(acts[n % 3], found, clients_of[n], n, end) for n in range(clients)]:
                done.result()
        until(lambda: _rests(registry, model), "no deployment is under way any more", 120)
    finally:
        over.set()
        observer.join()
    print(f"\n{clients} clients, {seconds:.0f} s: {dict(sorted(found.told.items()))}; DEPLOYED at a time: {dict(found.seen)}")
    return found


def _import_versions(found: Storm, client: RegistryClient, n: int, end: float) -> None:
    announced = [{"name": "MLmodel", "size": len(FILE), "sha256": hashlib.sha256(FILE).hexdigest()}]
    while time.monotonic() < end:
        grant = found.asked("announce", lambda: client.announce_import(announced))
        if not grant:
            continue
        place, submission = grant["uploads"][0], str(grant["submission"])
        assert client.http.put(place["url"], place["headers"], FILE).status_code == 200
        # A client that is not sure asks again: the same submission is the same version.
        for _ in range(2):
            made = found.asked(
                "import", lambda submission=submission: client.import_submission(found.model, submission, {"source": f"{n}"})
            )
            if made:
                with found.lock:
                    found.numbers.setdefault(submission, set()).add(int(made["version"]))


def _move_aliases(found: Storm, client: RegistryClient, n: int, end: float) -> None:
    own, path = f"own-{n}", f"/v1/models/{found.model}/aliases/{SHARED}"
    last, unsure = NOWHERE, set[int]()
    while time.monotonic() < end:
        number = random.choice(DEPLOYABLE)
        moved = found.asked("own alias", lambda number=number: client.set_alias(found.model, own, number))
        if moved is not None:
            # What nobody answered may still be done after what was answered later.
            unsure |= set() if moved else {number}
            last = number if moved else last
            found.aliases[own] = {last} | unsure
        shared = found.asked("read", lambda: {a["alias"]: a for a in client.aliases(found.model)}.get(SHARED))
        rev, other = (int(shared["rev"]), 3 - int(shared["number"])) if shared else (0, 1)
        moved = found.asked("shared alias", lambda body={"number": other, "if_rev": rev}: client.call("PUT", path, body=body))
        if moved:
            with found.lock:
                found.revisions.append(int(moved["rev"]))


def _deploy(found: Storm, client: RegistryClient, n: int, end: float) -> None:
    while time.monotonic() < end:
        number = random.choice(DEPLOYABLE)
        found.asked("transition", lambda number=number: client.transition(found.model, number, "DEPLOYED", f"client {n}"))
        found.asked("rollback", lambda: client.rollback(found.model, f"client {n}"))


def _observe(registry: Registry, found: Storm, over: threading.Event) -> None:
    """Read pointer and heads in one transaction, again and again, as the table has them at that moment."""
    keys = [(f"VERSION#{found.model}#{n}", "HEAD") for n in DEPLOYABLE] + [(f"MODEL#{found.model}", "POINTER#production")]
    table = registry.stack.outputs["MetaTable"]
    items = [{"Get": {"TableName": table, "Key": {"pk": {"S": pk}, "sk": {"S": sk}}}} for pk, sk in keys]
    client = registry.aws("dynamodb")
    while not over.wait(0.02):
        *heads, pointer = (r["Item"] for r in client.transact_get_items(TransactItems=items)["Responses"])
        deployed = [int(h["number"]["N"]) for h in heads if h["standing"]["S"] == "DEPLOYED"]
        found.seen[len(deployed)] += 1
        if deployed != [int(pointer["number"]["N"])]:
            found.torn.append((deployed, pointer["number"]))


def _rests(registry: Registry, model: str) -> bool:
    heads = [registry.head(model, number) for number in DEPLOYABLE]
    return all((head.stage.value, head.status.value) != ("DEPLOYMENT", "RUNNING") for head in heads)


def judge(registry: Registry, found: Storm) -> None:
    """Compare what the clients were told with what is there."""
    assert all(found.told[f"{act} done"] for act in ("import", "own alias", "shared alias", "transition"))
    assert found.unexpected == []
    # Two stood DEPLOYED, or none, at no moment; and the pointer named the one that did.
    assert set(found.seen) == {1}
    assert found.torn == []
    _judge_numbers(registry, found)
    _judge_aliases(registry, found)
    for number in DEPLOYABLE:
        moves = registry.rows(found.model, number, "TRANSITION#")
        assert [int(row["sk"].rpartition("#")[2]) for row in moves] == list(range(1, registry.head(found.model, number).transition + 1))


def _judge_numbers(registry: Registry, found: Storm) -> None:
    """No submission has two numbers, no number has two submissions, and there is no gap."""
    assert all(len(numbers) == 1 for numbers in found.numbers.values())
    given = [number for numbers in found.numbers.values() for number in numbers]
    assert len(given) == len(set(given))
    last = int(registry.meta.query(f"MODEL#{found.model}", prefix="HEAD")[0]["next"]) - 1
    heads = [registry.head(found.model, number) for number in range(1, last + 1)]
    assert set(given) <= {head.number for head in heads}
    assert len({head.candidate for head in heads}) == len({head.execution_id for head in heads}) == last


def _judge_aliases(registry: Registry, found: Storm) -> None:
    """Each alias names what its client was told last, and each change of the shared one was made by one client."""
    there = {alias["alias"]: alias for alias in registry.client("grace").aliases(found.model)}
    named = {alias: int(there[alias]["number"]) if alias in there else NOWHERE for alias in found.aliases}
    assert {alias: number for alias, number in named.items() if number not in found.aliases[alias]} == {}
    assert len(found.revisions) == len(set(found.revisions))
    if not found.told["shared alias busy"] + found.told["shared alias unanswered"]:
        assert there[SHARED]["rev"] == max(found.revisions)
