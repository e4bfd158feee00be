"""A version comes from staging to production with the approval of two people, on the embedded AWS."""

from __future__ import annotations

from typing import Any

import pytest

from attestry.domain.errors import AttestryError
from tests.embedded.flows import APPROVERS, Registry, example_rows, until

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.long, pytest.mark.xdist_group("embedded")]

MODEL = "promoted-threshold"


def asks_two(manifest: dict[str, Any]) -> None:
    promotion = [{"to": "production", "people": {"roles": ["approver"], "count": 2}, "valid_days": 90}]
    manifest["deployment"] |= {"environment": "staging", "promotes_to": ["production"], "strategy": "all-at-once", "promotion": promotion}


@pytest.fixture(scope="module")
def number(registry: Registry) -> int:
    """A version that stands in staging, and has answered there."""
    _, number = registry.made(registry.small_project(model=MODEL, edit=asks_two))
    registry.approve(MODEL, number)
    registry.client("frank-consumer").predict(MODEL, [example_rows()[0]], environment="staging")
    return number


@pytest.fixture(scope="module")
def placed(registry: Registry, number: int) -> dict[str, Any]:
    """What each step of the promotion came to."""
    frank, erin, second = (registry.client(login) for login in ("frank", "erin", APPROVERS[0]))
    steps: dict[str, Any] = {"asked": frank.promote(MODEL, number, "production", "CHG-4711")}
    steps["packet"] = erin.promotion_packet(MODEL, number, "production")
    steps["first"] = erin.decide(MODEL, number, "approve", "two weeks", promotion="production", packet_sha256=steps["packet"].sha256)
    steps["waits"] = frank.promote(MODEL, number, "production", "is it through?")
    steps["second"] = second.decide(MODEL, number, "approve", "agreed", promotion="production")
    steps["made"] = frank.promote(MODEL, number, "production", "CHG-4711, Saturday")
    until(lambda: registry.head(MODEL, number).deployment_environment == "production", "the version came to production")
    return steps


def test_the_version_comes_to_production_once_both_have_approved(registry: Registry, number: int, placed: dict[str, Any]) -> None:
    assert placed["asked"]["promotion"]["state"] == placed["waits"]["promotion"]["state"] == "OPEN"
    assert (placed["first"]["complete"], placed["first"]["missing"], placed["second"]["complete"]) == (False, "1 approver", True)
    assert "promotion" not in placed["made"]
    assert placed["packet"].content["service"]["predictions"] == 1
    head = registry.head(MODEL, number)
    assert (head.standing, head.promotions["production"]["state"]) == ("DEPLOYED", "APPROVED")
    told = ["promotion.opened", "promotion.given", "promotion.approved", "stage.started", "version.deployed"]
    assert [m["kind"] for m in registry.rows(MODEL, number, "TRANSITION#")][-5:] == told


def test_what_it_answers_there_is_traced_to_who_approved_the_promotion(registry: Registry, number: int, placed: dict[str, Any]) -> None:
    answer = registry.client("frank-consumer").predict(MODEL, [example_rows()[0]])
    assert answer["version"] == number
    trace = until(lambda: registry.client("grace").trace(answer["prediction_id"]), "the prediction could be traced")
    promotion = trace["people"]["deployed_by"]["value"]["promotion"]
    assert promotion == {"opened": placed["asked"]["promotion"]["opened"], "approved_by": sorted(["erin", APPROVERS[0]])}


def test_what_is_recorded_of_it_is_shown_and_asked_for_no_more(registry: Registry, number: int, placed: dict[str, Any]) -> None:
    shown = registry.client("grace").version(MODEL, number)
    assert [d["person"] for d in shown["promotion_decisions"]] == sorted(["erin", APPROVERS[0]])
    with pytest.raises(AttestryError, match="is approved for production"):
        registry.client("frank").promote(MODEL, number, "production", "again")
