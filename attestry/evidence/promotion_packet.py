"""The promotion packet: all that a decision on a promotion rests on, frozen when somebody asks for it.

Rules:
- It is canonical JSON (RFC 8785) with exactly the fields of `FIELDS`, and those of `OPTIONAL` or not; its SHA-256 is what every decision
  on the promotion names, and what an approver signs. It is no decision packet of a version, and none passes for the other.
- It lies under its own digest: two people who ask at the same moment write two packets, of which one is opened.
- Metrics and gate results are those that the registry computed; what the version did in the environment before is counted from its keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from attestry.domain.errors import InvalidInputError
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.evidence.packet import MAX_PACKET_BYTES
from attestry.evidence.version_urn import VersionUrn

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


@dataclass(frozen=True)
class PromotionPacket:
    """A promotion packet.

    Attributes:
        raw: its bytes.
        content: what they say.
    """

    raw: bytes
    content: Mapping[str, Any]

    @classmethod
    def make(cls, content: Mapping[str, Any]) -> PromotionPacket:
        """Return the packet with this content.

        Raises:
            InvalidInputError: a field is missing, unknown or of another type; or it is too large.
        """
        return cls.parse(canonical_bytes(dict(content)))

    @classmethod
    def parse(cls, data: bytes) -> PromotionPacket:
        """Return the packet of its bytes.

        Raises:
            InvalidInputError: not canonical, too large, or no promotion packet.
        """
        if len(data) > MAX_PACKET_BYTES:
            raise _refused("", "max_bytes", f"a packet has at most {MAX_PACKET_BYTES} bytes, this has {len(data)}")
        content = parse_canonical(data)
        if not isinstance(content, dict) or content.keys() - OPTIONAL.keys() != FIELDS.keys():
            raise _refused("", "fields", "this is no promotion packet: fields are missing or unknown")
        for name, kind in {**FIELDS, **OPTIONAL}.items():
            if name in content and type(content[name]) is not kind:
                raise _refused(name, "type", f"the packet's {name} is no {kind.__name__}")
        if (content["format"], content["packet"]) != (FORMAT, ABOUT):
            raise _refused(
                "format", "known", f"the packet has the format {content['format']} of {content['packet']}; {FORMAT} is known here"
            )
        VersionUrn(content["model"], content["number"], content["version_digest"])
        return cls(data, content)

    @cached_property
    def sha256(self) -> str:
        """Digest of the packet, hex."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def reference(self) -> str:
        """`MODEL@N`."""
        return f"{self.content['model']}@{self.content['number']}"


def promotion_packet_key(folder: str, sha256: str) -> str:
    """Return the key of a promotion packet, in the version's folder (without a slash at the end)."""
    return f"{folder}/evidence/packet-promotion-{sha256}.json"


def _refused(field: str, rule: str, message: str) -> InvalidInputError:
    return InvalidInputError.of(field, rule, message)
