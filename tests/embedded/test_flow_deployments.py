"""Deployments and rollbacks of two versions, many at once, on the embedded AWS."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from attestry.domain.errors import ConflictError
from attestry.domain.principal import registry_principal
from attestry.usecases.deploy import swap_pointer
from attestry.usecases.records import pointer_key
from attestry.usecases.sign import delegation_key
from tests.embedded.flow_versions import Crowded, Interrupted
from tests.embedded.flows import Answer, Registry, at_once, example_rows, until

pytest_plugins = ("tests.embedded.flows", "tests.embedded.flow_versions")
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

CALLERS = 16
BETWEEN = next(row for row in example_rows() if 14.0 < row["mean_radius"] <= 15.0)
"""Called benign by the first version, whose threshold is 15, and malignant by the second, whose threshold is 14."""


@dataclass(frozen=True)
class Swapped:
    """What sixteen deployments at once came to.

    Attributes:
        outcomes: of each: whether it changed the pointer, or the error's code.
        answers: predictions made meanwhile, one after the other.
    """

    outcomes: list[str]
    answers: list[Answer]


@pytest.fixture(scope="module")
def model(crowded: Crowded, interrupted: Interrupted) -> str:
    """The model with two deployed versions."""
    assert crowded.model == interrupted.model
    return crowded.model


@pytest.fixture(scope="module")
def swapped(registry: Registry, model: str, crowded: Crowded, interrupted: Interrupted) -> Swapped:
    """Sixteen deployments at once, of either version, while a consumer predicts."""
    answers: list[Answer] = []
    stop = threading.Event()
    attestor = registry.attestor("deploy")

    def predict() -> None:
        while not stop.is_set():
            answers.append(predicted(registry, model))

    def put_in_place(number: int) -> str:
        by, at = registry_principal("test"), datetime.now(UTC)
        try:
            done = swap_pointer(
                registry.meta, attestor, model, number, environment="production", capture_rate="1", by=by, reason="many at once", at=at
            )
        except ConflictError as error:
            return error.code
        return "changed" if done.changed else "in place"

    numbers = (crowded.number, interrupted.number)
    for number in numbers:  # as the function that deploys has each warm before it swaps
        put_in_place(number)
        until(lambda number=number: predicted(registry, model).body.get("version") == number, "the version is in place and warm")
    consumer = threading.Thread(target=predict)
    consumer.start()
    outcomes = at_once(CALLERS, lambda index: put_in_place(numbers[index % 2]))
    until(lambda: len(answers) > 20, "predictions went on")
    stop.set()
    consumer.join()
    return Swapped(outcomes, answers)


@pytest.fixture(scope="module")
def rolled_back(registry: Registry, model: str, swapped: Swapped) -> list[Answer]:
    """Sixteen rollbacks at once through the API."""
    return at_once(CALLERS, lambda _: registry.call("frank", "POST", f"/v1/models/{model}/rollback", {"reason": "many at once"}))


def test_the_difference_of_two_versions_names_what_was_changed(registry: Registry, crowded: Crowded, interrupted: Interrupted) -> None:
    rows = registry.client("grace").diff(crowded.model, crowded.number, interrupted.number)
    changed = {row["field"]: (row["before"], row["after"]) for row in rows if row["section"] == "hyperparameters"}
    assert changed == {"threshold": (15.0, 14.0), "seconds_to_load": (0, 12)}


def test_a_version_is_compared_row_by_row_with_the_one_that_was_deployed(registry: Registry, interrupted: Interrupted) -> None:
    gates = registry.client("grace").version(interrupted.model, interrupted.number)["gates"]
    (compared,) = (gate for gate in gates if gate["rule"] == "no_worse_with_confidence")
    assert (compared["passed"], compared["compared_on"]) == (True, "the same hold-out")
    assert -0.3 <= float(compared["value"]) < 1
    assert "at 90% confidence (p " in compared["reason"]


def test_sixteen_deployments_at_once_leave_one_version_deployed(registry: Registry, model: str, swapped: Swapped) -> None:
    assert "changed" in swapped.outcomes
    check_one_deployed(registry, model)


def test_sixteen_deployments_at_once_leave_transitions_without_a_gap(registry: Registry, model: str, swapped: Swapped) -> None:
    check_transitions(registry, model)


def test_no_prediction_fails_while_the_pointer_moves(swapped: Swapped) -> None:
    assert {answer.status for answer in swapped.answers} == {200}


def test_every_prediction_names_the_version_that_made_it_while_the_pointer_moves(
    swapped: Swapped, crowded: Crowded, interrupted: Interrupted
) -> None:
    made = {0: crowded.number, 1: interrupted.number}
    wrong = [a.body for a in swapped.answers if made[a.body["output"][0]["malignant"]] != a.body["version"]]
    assert wrong == []


def test_every_receipt_is_signed_for_the_version_that_its_answer_names(registry: Registry, swapped: Swapped) -> None:
    assert [a.body for a in swapped.answers if signed_number(registry, a.body) != a.body["version"]] == []


def test_sixteen_rollbacks_at_once_are_done_or_refused_and_none_fails(rolled_back: list[Answer]) -> None:
    assert {answer.status for answer in rolled_back} <= {200, 409}
    assert any(answer.status == 200 for answer in rolled_back)


def test_sixteen_rollbacks_at_once_leave_one_version_deployed(registry: Registry, model: str, rolled_back: list[Answer]) -> None:
    check_one_deployed(registry, model)


def test_sixteen_rollbacks_at_once_leave_transitions_without_a_gap(registry: Registry, model: str, rolled_back: list[Answer]) -> None:
    check_transitions(registry, model)


def test_a_deployment_by_hand_puts_the_kept_version_in_place(registry: Registry, model: str, rolled_back: list[Answer]) -> None:
    pointer = pointer_of(registry, model)
    kept = int(pointer["previous"])
    answer = registry.call("frank", "POST", f"/v1/models/{model}/versions/{kept}/deployment", {"reason": "the kept one again"})
    assert answer.status == 202
    until(lambda: pointer_of(registry, model)["number"] == kept, "the kept version was deployed")
    check_one_deployed(registry, model)


def check_one_deployed(registry: Registry, model: str) -> None:
    """Check that one version stands DEPLOYED, the one behind the pointer, and at most one is kept for rollback."""
    standings = {v["number"]: v["standing"] for v in registry.client("grace").versions(model)}
    pointer = pointer_of(registry, model)
    assert [number for number, standing in standings.items() if standing == "DEPLOYED"] == [pointer["number"]]
    assert [number for number, standing in standings.items() if standing == "ROLLBACK"] == [pointer["previous"]]


def check_transitions(registry: Registry, model: str) -> None:
    """Check that each version's transitions are numbered without a gap, each beginning where the one before ended."""
    for version in registry.client("grace").versions(model):
        rows = registry.rows(model, version["number"], "TRANSITION#")
        assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
        assert all(before["to"] == after["from"] for before, after in pairwise(rows))


def pointer_of(registry: Registry, model: str) -> Mapping[str, Any]:
    """The pointer of the model's environment."""
    row = registry.meta.get(pointer_key(model, "production"))
    assert row is not None
    return row


def predicted(registry: Registry, model: str) -> Answer:
    """An answer for the measurements that the two versions call by different names."""
    return registry.call("frank-consumer", "POST", f"/v1/models/{model}/predictions", {"instances": [BETWEEN]})


def signed_number(registry: Registry, body: Mapping[str, Any]) -> int:
    """The number of the version that the key behind an answer may sign for."""
    row = registry.meta.get(delegation_key(str(body["prediction_id"]).rpartition("-")[0]))
    assert row is not None
    return int(row["number"])
