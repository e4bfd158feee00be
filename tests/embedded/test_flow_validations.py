"""Validation records on the embedded AWS: computed by the function that has SciPy, with the rights that the functions have, and proven."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from attestry.client.validate import make_record
from attestry.evidence.validation_record import ValidationRecord
from attestry.local.stack import Person
from tests.embedded.flows import Answer, Registry
from tests.ssh_keys import SshPerson
from tests.validations import sign

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

MODEL, VALIDATOR = "validated-by-people", "victor"
TRIAL = b"kind: champion-challenger\nmetric: recall\nchampion: {size: 5000, successes: 400}\nchallenger: {size: 5000, successes: 460}\n"
LEAKAGE = b"kind: leakage-check\nmethod: exact rows of features\n"


@dataclass(frozen=True)
class Story:
    """A version whose manifest demands records.

    Attributes:
        early: the answer to the approval before there was one.
        trial, leakage: the answers to the records.
        again: the answer to the trial's record sent once more.
        other: the answer to the approver who hands one in.
        model, number: the version, in place at the end.
    """

    early: Answer
    trial: Answer
    leakage: Answer
    again: Answer
    other: Answer
    model: str
    number: int


def demanding(manifest: dict[str, Any]) -> None:
    trial = {"kind": "champion-challenger", "metric": "recall", "p_value_at_most": 0.05, "effect_at_least": 0, "minimum_size": 1000}
    manifest["gates"]["records"] = [trial, {"kind": "leakage-check", "overlap_at_most": 1000}]


@pytest.fixture(scope="module")
def story(registry: Registry) -> Story:
    registry.stack.add_people(Person(VALIDATOR, ("validator",)))
    key = SshPerson(VALIDATOR)
    registry.client("admin").add_person(VALIDATOR, [VALIDATOR], ssh_keys=[key.public])
    model, number = registry.made(registry.small_project(model=MODEL, edit=demanding))
    path, approve = f"/v1/models/{model}/versions/{number}", {"decision": "approve", "reason": "the gates hold"}
    early = registry.call("erin", "POST", f"{path}/decision", approve)

    def hand_in(record: ValidationRecord, profile: str = VALIDATOR) -> Answer:
        return registry.call(
            profile, "POST", f"{path}/validations", {"record": record.raw.decode(), "signature": sign(record, key).decode()}
        )

    records = [make_record(registry.client(VALIDATOR), model, number, raw, datetime.now(UTC)) for raw in (TRIAL, LEAKAGE)]
    other = hand_in(records[0], "erin")
    trial, leakage = map(hand_in, records)
    again = hand_in(records[0])
    registry.approve(model, number)
    return Story(early, trial, leakage, again, other, model, number)


def test_the_approval_waits_for_what_the_manifest_demands(story: Story) -> None:
    assert (story.early.status, story.early.code) == (409, "validation_missing")
    assert len(story.early.body["details"]["missing"]) == 2
    assert story.other.status == 403


def test_the_trial_is_computed_and_the_rows_are_counted_by_the_registry(story: Story) -> None:
    facts = story.trial.body["facts"]
    assert (story.trial.status, story.trial.body["person"], float(facts["p_value"]) < 0.02) == (200, VALIDATOR, True)
    assert "Fisher's exact test" in facts["method"]
    assert (story.leakage.status, story.leakage.body["facts"]["counted_by"], story.leakage.body["missing"]) == (200, "registry", [])
    assert story.again.body["transition"] == story.trial.body["transition"]


def test_the_version_in_place_is_proven_with_its_records(story: Story, registry: Registry) -> None:
    head = registry.head(story.model, story.number)
    assert (head.standing, head.unvalidated, len(head.validations)) == ("DEPLOYED", False, 2)
    approved = next(row for row in registry.rows(story.model, story.number, "TRANSITION#") if row["kind"] == "version.approved")
    assert sorted(approved["data"]["validations"]) == ["champion-challenger:recall", "leakage-check"]
    shown = registry.client("grace").version(story.model, story.number)
    assert shown["validations"]["champion-challenger:recall"]["person"] == VALIDATOR
