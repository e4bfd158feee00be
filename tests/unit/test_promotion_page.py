"""The page of a promotion packet: it shows what is decided on, and nothing that others wrote can act in it."""

from __future__ import annotations

import copy
import hashlib
import re
from typing import Any

import pytest

from attestry.domain.approvals import Verdict
from attestry.evidence.promotion_packet import PromotionPacket, promotion_page_key
from attestry.evidence.promotion_page import render_promotion_page
from attestry.usecases.packet import show_promotion_packet
from tests.evidence_world import ERIN, GRACE
from tests.promotions import TWO, PromotionWorld
from tests.unit.test_packet import HOSTILE, Page, spoiled

KEPT = ("packet", "model", "version_digest", "candidate", "policy_sha256")
"""What a packet is not one without, whatever stands in it else."""


@pytest.fixture(scope="module")
def world() -> PromotionWorld:
    """A promotion that is asked for again, beside a version that stands where it is to come."""
    made = PromotionWorld().staged()
    made.approved()
    made.place()
    made.staged({**TWO, "valid_days": 90, "signed": True})
    made.ask()
    made.decide(ERIN, signed=True)
    made.decide(GRACE, Verdict.REJECT)
    made.ask()
    return made


@pytest.fixture(scope="module")
def packet(world: PromotionWorld) -> PromotionPacket:
    shown = show_promotion_packet(world.meta, world.store, world.head.model, 2, "production")
    return PromotionPacket.parse(shown["content"].encode())


def words_of(packet: PromotionPacket) -> str:
    return " ".join(" ".join(Page(render_promotion_page(packet)).words).split())


def test_the_page_lies_beside_the_packet_as_the_event_says_and_is_linked(world: PromotionWorld, packet: PromotionPacket) -> None:
    (kept,) = world.store.versions[promotion_page_key(world.head.folder, packet.sha256)]
    assert kept.body == render_promotion_page(packet)
    assert kept.retained
    shown = show_promotion_packet(world.meta, world.store, world.head.model, 2, "production")
    assert shown["page"]["sha256"] == hashlib.sha256(kept.body).hexdigest()
    assert world.store.fetch(shown["page"]["url"]) == kept.body
    _, message = world.flow.notifier.messages[-1]
    assert "--promotion production --html FILE" in message["packet"]
    assert f"/v1/models/{world.head.model}/versions/2/packet?promotion=production" in message["packet"]


@pytest.mark.parametrize(
    "part",
    [
        "tumour-diagnosis@2",
        "From staging to production",
        "henry (henry)",
        "2 different persons in the role approver must approve; never who submitted the candidate, nor who asked for the promotion",
        "own signature over the digest of this packet",
        "90 days",
        "What it did in staging",
        "What it would replace in production Version 1",
        "now in production: version 1",
        "Promotions there that were asked for before",
        "erin approve reviewed",
        "grace reject reviewed",
        "roc_auc_score",
        "No open finding",
    ],
)
def test_the_page_shows_what_is_decided_on(packet: PromotionPacket, part: str) -> None:
    assert part in words_of(packet)


def test_the_page_shows_the_digest_and_says_where_the_decision_will_be_found(packet: PromotionPacket) -> None:
    page = re.sub(r"<[^>]+>", "", render_promotion_page(packet).decode())
    assert f"sha256sum packet-promotion-{packet.sha256}.json" in page
    assert "attestry packet tumour-diagnosis@2 --promotion production" in page
    assert "attestry bundle tumour-diagnosis@2 -o version.zip" in page


def test_who_has_a_conflict_of_interest_is_named(packet: PromotionPacket) -> None:
    content: dict[str, Any] = {**packet.content, "conflicts": [{"person": "ivan", "reason": "own budget"}]}
    assert "ivan does not decide: own budget." in words_of(PromotionPacket.make(content))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_others_can_act_or_change_what_stands_beside_it(packet: PromotionPacket, text: str) -> None:
    finding = {"what": "a", "where": "b", "expected": "c", "found": "d", "opened": "e", "id": "f"}
    content = {**copy.deepcopy(dict(packet.content)), "findings": [finding], "conflicts": [{"person": "a", "reason": "b"}]}
    hostile, harmless = (
        render_promotion_page(PromotionPacket.make({k: v if k in KEPT else spoiled(v, word) for k, v in content.items()}))
        for word in (text, "word")
    )
    assert [tag for tag, _ in Page(hostile).tags] == [tag for tag, _ in Page(harmless).tags]
    assert {tag for tag, _ in Page(hostile).tags} & {"script", "img", "iframe", "link", "form", "object", "a"} == set()
    assert not any(name.startswith("on") for _, attributes in Page(hostile).tags for name in attributes)
    assert not any(c in hostile.decode() for c in "\u202e\x00\x1b")


def test_the_page_loads_nothing(packet: PromotionPacket) -> None:
    page = render_promotion_page(packet)
    assert b"default-src 'none'" in page
    assert not [a for _, attributes in Page(page).tags for a in attributes if a in ("src", "href", "srcset")]
    assert b"url(" not in page
    assert b"@import" not in page
