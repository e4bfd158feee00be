"""The compliance view: what is deployed is complete when trace, bundle and reconciliation find nothing, and else says what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from attestry.usecases.compliance import review_deployed
from attestry.usecases.findings import Observed, Scope, settle
from attestry.usecases.records import pointer_key
from tests.evidence_world import EvidenceWorld

MODEL = "tumour-diagnosis"


def review(world: EvidenceWorld, **more: Any) -> dict[str, Any]:
    return review_deployed(world.meta, world.store, world.clock.now(), **more)


def lacking(world: EvidenceWorld) -> list[str]:
    (row,) = review(world)["deployed"]
    assert row["complete"] == (not row["failed"])
    return [f"{s['step']} {s['outcome']}: {s['detail']}" for s in row["failed"]]


@pytest.fixture
def world() -> EvidenceWorld:
    made = EvidenceWorld()
    made.deploy()
    made.sequence()
    return made


def test_a_version_whose_evidence_holds_is_complete(world: EvidenceWorld) -> None:
    answer = review(world)
    assert (answer["incomplete"], answer["next"]) == (0, None)
    (row,) = answer["deployed"]
    assert (row["model"], row["version"], row["environment"], row["complete"], row["failed"]) == (MODEL, 1, "production", True, [])


def test_moves_that_are_not_in_the_ledger_yet_are_told() -> None:
    made = EvidenceWorld()
    made.deploy()
    assert any(("evidence: transitions" in told and "pending" in told) or "ledger/checkpoint" in told for told in lacking(made))


def test_an_open_finding_shows_and_one_of_another_version_does_not(world: EvidenceWorld) -> None:
    settle(world.meta, Scope("3/x#2", MODEL, 2), [Observed("object.changed", "frozen/x", "a", "b")], world.clock.now())
    assert lacking(world) == []
    settle(world.meta, Scope("3/x#1", MODEL, 1), [Observed("transition.changed", "VERSION#x", "a", "b")], world.clock.now())
    assert [told.split(" since")[0] for told in lacking(world)] == ["reconciliation failed: transition.changed at VERSION#x"]
    settle(world.meta, Scope("3/x#0", MODEL, 0), [Observed("pointer.changed", "MODEL#x", "a", "b")], world.clock.now())
    assert len(lacking(world)) == 2


def test_a_changed_signature_over_the_files_shows(world: EvidenceWorld) -> None:
    key = next(k for k in world.store.versions if k.endswith("/evidence/model.sig"))
    world.store.put(key, b"{}")
    assert any(told.startswith("evidence: artifact failed: version/model.sig") for told in lacking(world))


def test_an_attestation_that_is_gone_shows(world: EvidenceWorld) -> None:
    key = next(k for k in world.store.versions if "/evidence/attestations/" in k)
    del world.store.versions[key]
    assert any("evidence: transitions missing: the attestation" in told for told in lacking(world))


def test_a_pointer_to_a_version_that_is_gone_from_the_table_is_incomplete(world: EvidenceWorld) -> None:
    world.meta.rows[pointer_key(MODEL, "production")]["number"] = 7
    assert any("there is no version tumour-diagnosis@7" in told for told in lacking(world))


def test_without_a_published_root_nothing_is_proven(world: EvidenceWorld) -> None:
    for key in [k for k in world.meta.rows if k.partition == "ROOT"]:
        del world.meta.rows[key]
    assert any(told.startswith("evidence: root missing") for told in lacking(world))


class Counting:
    """A port whose calls are counted by name."""

    def __init__(self, port: Any, calls: Counter[str]) -> None:
        self._port, self._calls = port, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._calls[f"{name} {args[0].partition('/')[0]}" if name == "read" else name] += 1
            return found(*args, **kwargs)

        return counted if callable(found) else found


def test_the_ledger_is_not_read_leaf_by_leaf_and_what_two_versions_share_is_read_once(world: EvidenceWorld) -> None:
    def calls() -> Counter[str]:
        counted: Counter[str] = Counter()
        review_deployed(Counting(world.meta, counted), Counting(world.store, counted), world.clock.now())
        return counted

    once = calls()
    moves = world.head.transition
    assert once["read ledger"] < moves
    assert once["get_many"] < moves
    pointer = world.meta.rows[pointer_key(MODEL, "production")]
    second = pointer_key(MODEL, "staging")
    world.meta.rows[second] = {**pointer, "pk": second.partition, "sk": second.sort, "environment": "staging"}
    twice = calls()
    assert twice["read ledger"] == once["read ledger"] + 1  # the checkpoint
    assert twice["read root"] == once["read root"]


def test_a_review_goes_on_behind_the_model_where_its_time_was_up(world: EvidenceWorld) -> None:
    def ticking() -> Iterator[float]:
        yield from (0.0, 0.0)
        while True:
            yield 100.0

    clock = ticking()
    first = review(world, monotonic=lambda: next(clock))
    assert [r["model"] for r in first["deployed"]] == [MODEL]
    assert review(world, after=MODEL)["deployed"] == []
