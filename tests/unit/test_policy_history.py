"""The whole ledger shows whether a version was registered past a policy of the registry."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from attestry.evidence.leaf import Leaf
from attestry.evidence.ledger_audit import audit_ledger
from attestry.evidence.policy_history import PolicyHistory
from attestry.usecases import register as register_module
from attestry.usecases.ledger import read_file
from tests.promotions import TWO, PromotionWorld
from tests.unit.test_policy_evidence import policy, publish

STRICT, LAX = "a" * 64, "b" * 64


def leaf(minute: int, kind: str, subject: str, **data: Any) -> Leaf:
    return Leaf({"kind": kind, "subject": subject, "data": data}, b"", f"2026-01-02T03:{minute:02d}:00.000000Z", "")


def published(minute: int, number: int, sha256: str = STRICT, name: str = "standard") -> Leaf:
    return leaf(minute, "policy.published", f"policy/{name}", number=number, sha256=sha256)


def registered(minute: int, *named: dict[str, Any], kind: str = "candidate.registered") -> Leaf:
    return leaf(minute, kind, "churn@1", **({"policies": list(named)} if named else {}))


def edition(number: int, sha256: str = STRICT, name: str = "standard") -> dict[str, Any]:
    return {"name": name, "number": number, "sha256": sha256}


def departures(*leaves: Leaf) -> list[str]:
    history = PolicyHistory()
    for one in leaves:
        history.visit(one)
    return history.finish()


@pytest.mark.parametrize(
    "leaves",
    [
        (registered(0), published(10, 1)),
        (published(0, 1), registered(10, edition(1)), published(20, 2, LAX), registered(30, edition(2, LAX))),
        (published(0, 1), published(0, 1, LAX, "other"), registered(10, edition(1, LAX, "other"), edition(1))),
        (published(0, 1), published(10, 2, LAX), registered(10, edition(1))),
        (published(0, 1), published(10, 2, LAX), registered(12, edition(1))),
        (published(0, 1), registered(10, edition(2, LAX)), published(12, 2, LAX)),
        (registered(10, edition(1)), published(11, 1)),
    ],
)
def test_what_was_in_force_or_could_have_been_at_that_moment_is_no_departure(leaves: tuple[Leaf, ...]) -> None:
    assert departures(*leaves) == []


@pytest.mark.parametrize("kind", ["candidate.registered", "version.imported"])
@pytest.mark.parametrize(
    ("leaves", "named", "wanted"),
    [
        ((published(0, 1),), (), "under none of the policy standard; in force was standard edition 1"),
        ((published(0, 1), published(10, 2, LAX)), (edition(1),), "under standard edition 1"),
        ((published(0, 1),), (edition(1, LAX),), "in force was standard edition 1 (aaaaaaaaaaaaaaaa)"),
        ((published(0, 1),), (edition(1), edition(1, LAX, "invented")), "of the policy invented; in force was none"),
        ((published(0, 1),), (edition(2, LAX),), "in force was standard edition 1"),
        ((published(0, 1),), ({"name": "standard"},), "in another form"),
    ],
)
def test_a_version_that_was_registered_past_a_policy_is_named(
    kind: str, leaves: tuple[Leaf, ...], named: tuple[dict[str, Any], ...], wanted: str
) -> None:
    (departure,) = departures(*leaves, registered(30, *named, kind=kind), published(40, 3, LAX))
    assert departure.startswith("churn@1 ")
    assert wanted in departure


def read_whole(world: PromotionWorld) -> list[str]:
    history = PolicyHistory()
    world.sequence()
    audit_ledger(lambda path: base64.b64decode(read_file(world.store, path)["content"]), [world.log_key], visit=history.visit)
    return history.finish()


def test_a_registration_that_names_no_policy_while_one_is_in_force_is_found_where_its_bundle_cannot_show_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = PromotionWorld()
    publish(world, policy(approval={"persons": 2}))
    monkeypatch.setattr(register_module, "policies_in_force", lambda _: [])
    version = world.validate(edit=world.edit(TWO))
    (departure,) = read_whole(world)
    assert departure.startswith(f"{version.reference} was registered at ")
    assert world.verify(world.version_bundle()).verdict == "PROVEN"


def test_a_registry_that_holds_everything_against_its_policies_shows_none() -> None:
    world = PromotionWorld()
    world.validate(edit=world.edit(TWO))
    publish(world, policy())
    world.validate(edit=world.edit(TWO, memory_mib=2050))
    assert read_whole(world) == []
