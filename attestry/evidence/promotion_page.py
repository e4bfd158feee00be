"""The promotion packet as a page for people: what a version did where it stands, and what it would replace where it is to come.

It is made of the packet alone: the same packet gives the same bytes. What texts of others can do in it, `attestry.evidence.page` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attestry.evidence.packet_page import findings_box, gates_section, metrics_section, people_of, submitter_of
from attestry.evidence.page import Code, as_code, as_plain, as_text, facts_of, frame, section_of, table_of
from attestry.evidence.promotion_packet import PromotionPacket

_NONE = '<p class="note">None.</p>'


def render_promotion_page(packet: PromotionPacket) -> bytes:
    """Return the page in UTF-8."""
    content = packet.content
    parts = [
        _head(packet),
        _asked(packet),
        findings_box(content["findings"]),
        _service(content),
        _replaces(content),
        metrics_section(content["metrics"], content["replaces"], f"now in {content['environment']}"),
        gates_section(content),
        _approval(content["approval"]),
        *([_earlier(content["earlier"])] if content.get("earlier") else []),
        section_of("Code", facts_of({"Repository": _code(content, "repository"), "Revision": Code(_code(content, "revision"))})),
        _foot(packet),
    ]
    return frame(f"Promotion packet {packet.reference} to {content['environment']}", parts)


def _head(packet: PromotionPacket) -> str:
    content = packet.content
    facts = {
        "Asked for by": submitter_of(content["asked_by"]),
        "Because": content["reason"],
        "Submitted by": submitter_of(content["submitter"]),
    }
    return (
        '<header><div class="kicker">Promotion packet</div>'
        f"<h1>{as_text(packet.reference)}</h1>"
        f'<p class="purpose">From {as_text(content["origin"])} to {as_text(content["environment"])}</p>'
        f"{facts_of(facts)}</header>"
    )


def _asked(packet: PromotionPacket) -> str:
    content, policy = packet.content, packet.content["policy"]
    asked = (
        f"{people_of(policy)} must approve; never who submitted the candidate, nor who asked for the promotion. One rejection ends the "
        "promotion, not the version, which stays where it stands. Once it is approved, a deployer puts the version in place."
    )
    if policy.get("signed"):
        asked += " Each approval needs the approver's own signature over the digest of this packet."
    for conflict in content.get("conflicts", []):
        asked += f" {conflict['person']} does not decide: {conflict['reason']}."
    rows = {
        "Version digest": Code(content["version_digest"]),
        "Packet digest": Code(packet.sha256),
        "An approval counts for": f"{policy['valid_days']} days" if policy.get("valid_days") else "",
        "And until": policy.get("until"),
        "Frozen": f"{content['opened']}, by transition {content['transition']}",
    }
    return f'<div class="box"><strong>What is decided</strong><p>{as_text(asked)}</p>{facts_of(rows)}</div>'


def _service(content: Mapping[str, Any]) -> str:
    service = content["service"]
    facts = {"Stands": service.get("standing"), "Since": service.get("since"), "Predictions there": service.get("predictions")}
    note = "Predictions are counted from the numbers of the keys that signed their receipts."
    return section_of(f"What it did in {content['origin']}", facts_of(facts, exact=True), note)


def _replaces(content: Mapping[str, Any]) -> str:
    other = content["replaces"]
    facts = facts_of({"Version": other["number"], "Version digest": Code(other["version_digest"])}) if other else ""
    return section_of(f"What it would replace in {content['environment']}", facts or '<p class="note">Nothing stands there.</p>')


def _approval(approval: Mapping[str, Any]) -> str:
    facts = {
        "Approved by": approval.get("approved_by"),
        "On the packet": Code(approval.get("packet_sha256")),
        "Under": approval.get("terms"),
    }
    return section_of("The version's own approval", facts_of(facts))


def _earlier(earlier: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for promotion in earlier:
        decisions = promotion.get("decisions") or [{}]
        for said in decisions:
            cells = (promotion.get("opened"), promotion.get("asked_by"), said.get("person"), said.get("decision"), said.get("reason"))
            rows.append([as_text(cell) for cell in cells])
    columns = ("transition", "asked for by", "decided by", "decision", "reason")
    return section_of("Promotions there that were asked for before", table_of(columns, rows) if rows else _NONE)


def _code(content: Mapping[str, Any], name: str) -> Any:
    return dict(content["lineage"].get("code") or {}).get(name)


def _foot(packet: PromotionPacket) -> str:
    content = packet.content
    show = f"attestry packet {packet.reference} --promotion {content['environment']}"
    return (
        f"<footer><p>This page shows the packet {as_code(packet.sha256)} and nothing else. The decision names that digest. "
        f"To check it: {as_code(show)}, or {as_code(f'sha256sum packet-promotion-{packet.sha256}.json')} beside this page.</p>"
        "<p>What is decided will be an event in the registry's ledger that names this digest, with an attestation signed by the function "
        "that takes decisions. Both are in the version's bundle: "
        f"{as_code(f'attestry bundle {packet.reference} -o version.zip')}, then "
        f"{as_code('attestry verify version.zip --root ROOT.json')}.</p>"
        f"<p>Candidate <code>{as_plain(content['candidate'])}</code><br>"
        f"Policy <code>{as_plain(content['policy_sha256'])}</code></p></footer>"
    )
