"""The promotion packet: all that a decision on a promotion rests on, frozen when somebody asks for it.

Rules:
- It is canonical JSON (RFC 8785) with exactly the fields of `FIELDS`, and those of `OPTIONAL` or not; its SHA-256 is what every decision
  on the promotion names, and what an approver signs. It is no decision packet of a version, and none passes for the other.
- It lies under its own digest: two people who ask at the same moment write two packets, of which one is opened.
- Metrics and gate results are those that the registry computed; what the version did in the environment before is counted from its keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from attestry.evidence.packet import PacketForm

FORMAT: Final = 1
ABOUT: Final = "promotion"

FIELDS: Final[Mapping[str, type]] = {
    "format": int,
    "packet": str,
    "model": str,
    "number": int,
    "version_digest": str,
    "candidate": str,
    "transition": int,
    "opened": str,
    "origin": str,
    "environment": str,
    "asked_by": dict,
    "reason": str,
    "submitter": dict,
    "metrics": dict,
    "gates": list,
    "approval": dict,
    "service": dict,
    "replaces": dict,
    "lineage": dict,
    "findings": list,
    "policy": dict,
    "policy_sha256": str,
}
"""Field to the type of its value. `approval` is the version's own: packet, opening and who gave it. `service` says since when the version
stood in the environment before, and how many predictions it made there; `replaces` what it would replace, empty for nothing."""

OPTIONAL: Final[Mapping[str, type]] = {"conflicts": list, "earlier": list}
"""Fields that it may lack: who has a conflict of interest, and how earlier promotions to the environment ended."""


class PromotionPacket(PacketForm):
    """A promotion packet."""

    NAME = "promotion packet"
    FIELDS = FIELDS
    OPTIONAL = OPTIONAL
    MARKS: ClassVar[Mapping[str, object]] = {"format": FORMAT, "packet": ABOUT}


def promotion_page_key(folder: str, sha256: str) -> str:
    """Return the key of the page that shows it."""
    return f"{folder}/evidence/packet-promotion-{sha256}.html"


def promotion_packet_key(folder: str, sha256: str) -> str:
    """Return the key of a promotion packet, in the version's folder (without a slash at the end)."""
    return f"{folder}/evidence/packet-promotion-{sha256}.json"
