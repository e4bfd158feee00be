"""Cut-over under load: clients predict while versions are deployed, rolled back, rolled out as canaries and killed.

Each version says in its output which one it is, so that what answered is known without the registry's word. Marked long: two cores are
busy with 32 clients for minutes.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from attestry.usecases.sign import receipt_key
from tests.embedded.flows import INFERENCE, Registry, example_rows, until

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.long, pytest.mark.xdist_group("embedded")]

CLIENTS = 32
STALE_SECONDS = 5.0
NAMED = INFERENCE.replace("(radius / 30).clip(0, 1)})", '(radius / 30).clip(0, 1), "made_by": model["threshold"]})')
STANDINGS = frozenset({"DEPLOYED", "CANARY", "SHADOW"})
NO_ANSWER = 0
MAY_BE_ANSWERED = frozenset({NO_ANSWER, 200, 404, 409, 429, 503})
"""No answer in time, an answer, nothing deployed, a pointer that kept moving, too many at once, still loading; no other of the registry."""


@dataclass(frozen=True)
class Asked:
    """One request: when it left, when the answer was there, and what that says; seconds since 1970."""

    arrived: float
    answered: float
    status: int
    body: Any


@dataclass
class Act:
    """One act of an operator: when it was asked for, and when it was known to be done."""

    verb: str
    number: int
    asked: float
    done: float = 0.0


@dataclass
class CutOver:
    """What a run left behind."""

    model: str
    made_by: dict[int, float]
    asked: list[Asked] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)

    @property
    def answers(self) -> list[Asked]:
        return [one for one in self.asked if one.status == 200]


class Operator:
    """Deploys, rolls back and kills one version after the other, and writes down when."""

    def __init__(self, registry: Registry, run: CutOver) -> None:
        self.registry, self.run, self.client = registry, run, registry.client("frank")
        self.alive = sorted(run.made_by)

    def standing(self, number: int) -> str:
        return self.registry.head(self.run.model, number).standing.value

    def in_place(self) -> int | None:
        row = self.client.model(self.run.model)["deployed"][0]
        return row["number"]

    def act(self, verb: str, number: int) -> None:
        model, act = self.run.model, Act(verb, number, time.time())
        if verb == "deploy":
            self.client.deploy(model, number, "cut-over", strategy="all-at-once")
            until(lambda: self.standing(number) == "DEPLOYED", f"{model}@{number} is in place")
        elif verb == "canary":
            self.client.deploy(model, number, "cut-over")
            until(lambda: self.standing(number) == "CANARY", f"{model}@{number} is a canary")
        elif verb == "finish":
            self.client.change_rollout(model, "finish", "cut-over")
        elif verb == "halt":
            self.client.change_rollout(model, "halt", "cut-over")
        elif verb == "rollback":
            self.client.rollback(model, "cut-over", to=number)
        else:
            self.client.kill(model, number, "cut-over")
            self.alive.remove(number)
        act.done = time.time()
        self.run.acts.append(act)

    def go(self, count: int) -> None:
        """Perform that many acts, each kind in turn; a kill only while more than two versions are left."""
        for n in range(count):
            current = self.in_place()
            others = [number for number in self.alive if number != current]
            kind = n % 5
            if current is None:
                self.act("rollback", others[n % len(others)])
            elif kind == 0:
                self.act("deploy", others[n % len(others)])
            elif kind == 1:
                self.act("rollback", others[n % len(others)])
            elif kind in (2, 3):
                self._roll_out(current, "finish" if kind == 2 else "halt")
            elif len(self.alive) > 3:
                self.act("kill", current)
            else:
                self.act("deploy", others[n % len(others)])

    def _roll_out(self, current: int, end: str) -> None:
        """Let a version stand as canary for a moment, one that is neither in place nor kept for rollback."""
        kept = self.client.model(self.run.model)["deployed"][0]["previous"]
        free = [number for number in self.alive if number not in (current, kept)]
        if not free:
            self.act("rollback", next(number for number in self.alive if number != current))
            return
        self.act("canary", free[0])
        time.sleep(0.5)
        self.act(end, free[0])


def make_versions(registry: Registry, model: str, count: int) -> CutOver:
    """Make versions that approve themselves; each comes into place once."""
    run = CutOver(model, {})
    for n in range(count):
        threshold = 15.0 - n / 100

        def edit(manifest: dict[str, Any], threshold: float = threshold) -> None:
            manifest["training"]["hyperparameters"]["threshold"] = threshold
            manifest["approval"] = {"automatic": True}
            canary = {"steps": [50], "minutes": 10_000, "alarm": {"minimum_errors": 100_000}}
            manifest["deployment"] = {**manifest.get("deployment", {}), "strategy": "canary", "canary": canary}

        made, number = registry.submit(registry.small_project(model=model, edit=edit, inference=NAMED))
        until(lambda made=made, number=number: registry.head(made, number).standing.value in STANDINGS, f"{made}@{number} came into place")
        if registry.head(made, number).standing.value == "CANARY":
            registry.client("frank").change_rollout(made, "finish", "the next one comes")
        run.made_by[number] = threshold
    return run


def cut_over(registry: Registry, run: CutOver, acts: int) -> CutOver:
    """Let clients predict while an operator acts."""
    instance = example_rows()[0]
    path, stop = f"/v1/models/{run.model}/predictions", threading.Event()
    until(lambda: registry.call("frank-consumer", "POST", path, {"instances": [instance]}).status == 200, "the model is warm")

    def predict() -> None:
        while not stop.is_set():
            arrived = time.time()
            try:
                answer = registry.call("frank-consumer", "POST", path, {"instances": [instance]})
            except OSError:
                run.asked.append(Asked(arrived, time.time(), NO_ANSWER, None))
                continue
            body = answer.body if answer.status == 200 else answer.code
            run.asked.append(Asked(arrived, time.time(), answer.status, body))

    clients = [threading.Thread(target=predict) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        until(lambda: len(run.answers) > CLIENTS, "the clients are answered")
        Operator(registry, run).go(acts)
        time.sleep(STALE_SECONDS + 1)
    finally:
        stop.set()
        for client in clients:
            client.join()
    return run


@pytest.fixture(scope="module", params=[pytest.param((5, 10), id="short"), pytest.param((12, 50), id="whole")])
def run(request: pytest.FixtureRequest, registry: Registry) -> CutOver:
    versions, acts = request.param
    run = cut_over(registry, make_versions(registry, f"cut-over-{acts}", versions), acts)
    verbs = [act.verb for act in run.acts]
    told = ", ".join(f"{verbs.count(verb)} {verb}" for verb in sorted(set(verbs)))
    slowest = max(act.done - act.asked for act in run.acts if act.verb == "rollback")
    print(f"{len(run.asked)} requests, {len(run.answers)} predictions by {CLIENTS} clients; {told}; slowest rollback {slowest:.1f} s")
    return run


def test_every_prediction_carries_the_version_that_really_answered(run: CutOver) -> None:
    assert len({answer.body["version"] for answer in run.answers}) > 2
    wrong = [a.body for a in run.answers if {row["made_by"] for row in a.body["output"]} != {run.made_by[a.body["version"]]}]
    assert wrong == []


def test_nothing_else_is_answered_than_a_prediction_or_that_there_is_none_now(run: CutOver) -> None:
    strange = [(one.status, one.body) for one in run.asked if one.status not in MAY_BE_ANSWERED and one.body != "gateway"]
    assert strange == []


def test_no_prediction_that_a_caller_has_seen_is_lost(registry: Registry, run: CutOver) -> None:
    ids = [str(answer.body["prediction_id"]) for answer in run.answers]
    assert len(set(ids)) == len(ids)
    keys = {id_: receipt_key(id_.rpartition("-")[0], int(id_.rpartition("-")[2])) for id_ in ids}
    for start in range(0, len(ids), 100):
        part = [keys[id_] for id_ in ids[start : start + 100]]
        assert set(part) - set(registry.meta.get_many(part)) == set()


def test_a_version_that_answered_stood_in_place_between_arrival_and_answer(registry: Registry, run: CutOver) -> None:
    stood = {number: intervals(registry, run, number) for number in run.made_by}
    late = [
        answer
        for answer in run.answers
        if not any(begin <= answer.answered and answer.arrived <= end for begin, end in stood[answer.body["version"]])
    ]
    assert late == []


def test_no_prediction_by_a_killed_version_arrives_later_than_five_seconds_after_the_kill(run: CutOver) -> None:
    killed = {act.number: act.done for act in run.acts if act.verb == "kill"}
    assert killed
    assert [a.body for a in run.answers if a.answered > killed.get(a.body["version"], float("inf")) + STALE_SECONDS] == []


def test_the_answer_says_what_the_version_stood_as(run: CutOver) -> None:
    assert {answer.body["standing"] for answer in run.answers} == {"DEPLOYED", "CANARY"}


def intervals(registry: Registry, run: CutOver, number: int) -> list[tuple[float, float]]:
    """When a version stood in place: from the time of a move, read before it was committed, to when its end was known to be done."""
    found: list[tuple[float, float]] = []
    begun: float | None = None
    for moved in registry.rows(run.model, number, "TRANSITION#"):
        at, stands = datetime.fromisoformat(str(moved["at"])).timestamp(), moved["to"]["standing"] in STANDINGS
        if stands and begun is None:
            begun = at
        elif not stands and begun is not None:
            found.append((begun, max([at, *(act.done for act in run.acts if act.asked - 1 <= at <= act.done)])))
            begun = None
    return [*found, *([(begun, float("inf"))] if begun is not None else [])]
