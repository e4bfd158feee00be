"""Replay: the table equals what the events say, and every edit around the registry is told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from attestry.domain.replay import Index, compare_approvals, compare_people, compare_pointers, compare_version, replay
from attestry.usecases.browse import show_model, show_version
from tests.attestations import events_of
from tests.flow import Serving


@pytest.fixture(scope="module")
def served() -> Serving:
    return Serving()


@pytest.fixture
def index(served: Serving) -> Index:
    return replay(events_of(served.flow.meta, served.version.model, served.version.number))


@pytest.fixture
def shown(served: Serving) -> dict[str, Any]:
    return copy.deepcopy(show_version(served.flow.meta, served.flow.store, served.version.model, served.version.number))


def differences(index: Index, reference: str, shown: dict[str, Any]) -> list[str]:
    found = compare_version(index, reference, shown, shown["transitions"]) + compare_approvals(index, reference, shown["approvals"])
    return [d.what for d in found]


def test_an_untouched_registry_equals_its_ledger(served: Serving, index: Index, shown: dict[str, Any]) -> None:
    assert len(shown["transitions"]) > 5
    assert differences(index, served.version.reference, shown) == []
    model = served.version.model
    assert compare_pointers(index, model, show_model(served.flow.meta, model)["deployed"]) == []
    assert index.pointers == {(model, "production"): 1}


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def apply(shown: dict[str, Any]) -> None:
        *way, last = path.split(".")
        place: Any = shown
        for step in way:
            place = place[int(step)] if step.lstrip("-").isdigit() else place[step]
        place[last] = value

    return apply


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (change("standing", "RETIRED"), "standing"),
        (change("status", "FAILED"), "status"),
        (change("version_digest", "0" * 64), "version_digest"),
        (change("transition", 3), "transition"),
        (change("transitions.2.reason", "because"), "transition 3: reason"),
        (change("transitions.2.principal", {}), "transition 3: principal"),
        (change("transitions.1.at", "2020-01-01T00:00:00.000000Z"), "transition 2: at"),
        (change("transitions.1.evidence", "0" * 64), "transition 2: evidence"),
        (change("transitions.0.attestation", {"sha256": "0" * 64}), "transition 1: attestation"),
        (change("transitions.-1.data", {"environment": "production"}), "transition 10: capture_rate"),
    ],
)
def test_an_edited_field_is_named(
    served: Serving, index: Index, shown: dict[str, Any], edit: Callable[[dict[str, Any]], None], what: str
) -> None:
    edit(shown)
    assert what in differences(index, served.version.reference, shown)


def test_a_removed_and_an_added_transition_are_named(served: Serving, index: Index, shown: dict[str, Any]) -> None:
    removed = shown["transitions"].pop(3)
    shown["transitions"].append({**removed, "number": 99})
    found = compare_version(index, served.version.reference, shown, shown["transitions"])
    assert [(d.what, d.table is None, d.ledger is None) for d in found] == [("transition 4", True, False), ("transition 99", False, True)]


def test_an_inserted_a_changed_and_a_removed_decision_are_named(served: Serving, index: Index, shown: dict[str, Any]) -> None:
    reference = served.version.reference
    row = shown["approvals"][0]
    inserted = {**row, "person": "mallory", "transition": int(row["transition"]) + 1}
    assert [d.table for d in compare_approvals(index, reference, [row, inserted])] == ["approve by mallory"]
    assert [d.ledger for d in compare_approvals(index, reference, [{**row, "person": "mallory"}])] == [f"approve by {row['person']}"]
    assert [d.table for d in compare_approvals(index, reference, [])] == [None]


def test_a_moved_pointer_is_named(served: Serving, index: Index) -> None:
    model = served.version.model
    assert [(d.ledger, d.table) for d in compare_pointers(index, model, [{"environment": "production", "number": 7}])] == [(1, 7)]
    assert [(d.ledger, d.table) for d in compare_pointers(index, model, [])] == [(1, None)]
    assert [(d.ledger, d.table) for d in compare_pointers(index, "other", [{"environment": "production", "number": 7}])] == [(None, 7)]


def test_a_kill_leaves_nothing_deployed(index: Index, served: Serving) -> None:
    data = {"to": {"stage": "DEPLOYMENT", "status": "SUCCEEDED", "standing": "RETIRED"}}
    index.apply({"kind": "version.killed", "subject": served.version.reference, "sequence": 11, "data": data})
    assert index.pointers == {(served.version.model, "production"): None}


def test_a_login_given_to_another_person_is_named() -> None:
    events = [{"kind": "person.changed", "subject": "person/erin", "sequence": 1, "data": {"logins": ["erin", "erin-admin"]}}]
    index = replay(events)
    assert compare_people(index, {"erin": "erin", "erin-admin": "erin"}) == []
    assert [(d.where, d.ledger, d.table) for d in compare_people(index, {"erin": "mallory"})] == [
        ("login/erin", "erin", "mallory"),
        ("login/erin-admin", "erin", None),
    ]
