"""A registry that asks for approvers' own signatures by risk tier, whatever a manifest says."""

from __future__ import annotations

from typing import Any

import pytest

from attestry.aws.errors import ConfigurationError
from attestry.aws.settings import Settings
from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import UnsignedApprovalError
from attestry.usecases.register import Registrar
from tests.evidence_world import EvidenceWorld
from tests.flow import PLATFORM, Flow, example_manifest, example_source


def in_tier(tier: str, **approval: Any) -> Any:
    def edit(draft: dict[str, Any]) -> None:
        draft["model"]["risk_tier"] = tier
        if approval:
            draft["approval"] = approval

    return edit


def strict(flow: Flow, *tiers: str) -> Flow:
    ports = (flow.meta, flow.registrar._attestor, flow.store, flow.pipeline, flow.notifier)
    flow.registrar = Registrar(*ports, PLATFORM, signed_tiers=frozenset(tiers))
    return flow


@pytest.mark.parametrize(("tier", "signed"), [("high", True), ("medium", True), ("low", False)])
def test_the_policy_of_a_tier_asks_for_signatures_from_the_registration_on(tier, signed):
    version = strict(Flow(), "high", "medium").register_example(edit=in_tier(tier))
    assert ApprovalPolicy.from_item(version.approval_policy).signed is signed


def test_a_manifest_asks_for_signatures_where_the_registry_does_not():
    version = Flow().register_example(edit=in_tier("low", people={"roles": ["approver"]}, signed=True))
    assert ApprovalPolicy.from_item(version.approval_policy).signed


def test_a_policy_that_asks_nobody_is_refused_in_such_a_tier_and_taken_in_another():
    source = example_source()
    flow = strict(Flow(), "high")
    refused = flow.register(flow.upload(example_manifest(source, edit=in_tier("high", automatic=True)), source))
    assert [(e.field, e.rule) for e in refused.errors] == [("approval.automatic", "signed_tier")]
    assert flow.register_example(edit=in_tier("medium", automatic=True)).number == 1


def test_a_version_of_such_a_tier_is_proven_with_signatures_and_not_approved_without():
    world = EvidenceWorld()
    strict(world.flow, "high")
    world.validate(edit=in_tier("high"))
    world.open()
    with pytest.raises(UnsignedApprovalError):
        world.approve(signed=False)
    world.approve()
    world.sequence()
    verification = world.verify(world.version_bundle())
    assert verification.verdict == "PROVEN", verification.steps
    assert verification.facts["approvals"][0]["grade"] == "signed by person"


@pytest.mark.parametrize(("value", "tiers"), [("", set()), ("high", {"high"}), ("high, medium", {"high", "medium"}), (",low,", {"low"})])
def test_the_setting_is_a_list_of_tiers(value, tiers):
    assert Settings({"ATTESTRY_SIGNED_APPROVAL_TIERS": value}).signed_approval_tiers == tiers
    assert Settings({}).signed_approval_tiers == frozenset()


@pytest.mark.parametrize("value", ["High", "critical", "high;medium", "all"])
def test_a_tier_that_is_none_is_an_error_and_not_no_rule(value):
    with pytest.raises(ConfigurationError, match="low, medium and high"):
        _ = Settings({"ATTESTRY_SIGNED_APPROVAL_TIERS": value}).signed_approval_tiers
