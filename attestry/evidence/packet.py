"""The decision packet: all that a decision on a version rests on, frozen when its approval opens.

Rules:
- The packet is canonical JSON (RFC 8785); its SHA-256 is what every decision on the version names, and what an approver signs.
- It is written once. A decision that names another packet than the version's is refused.
- It has exactly the fields of `FIELDS`, and those of `OPTIONAL` or not; a document with more or fewer of them is no packet.
- Metrics and gate results are those that the registry computed. Texts that people wrote (purpose, owner, origin of data) come from the
  manifest, which the candidate's digest covers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, Self

from attestry.domain.errors import InvalidInputError
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.evidence.version_urn import VersionUrn

MAX_PACKET_BYTES: Final = 4 * 1024 * 1024
FORMAT: Final = 1

FIELDS: Final[Mapping[str, type]] = {
    "format": int,
    "model": str,
    "number": int,
    "version_digest": str,
    "candidate": str,
    "transition": int,
    "opened": str,
    "submitter": dict,
    "about": dict,
    "metrics": dict,
    "gates": list,
    "compared_with": dict,
    "differences": list,
    "lineage": dict,
    "records": list,
    "findings": list,
    "policy": dict,
    "policy_sha256": str,
    "deployment": dict,
}
"""Field of a packet to the type of its value; `compared_with` is empty where no version was deployed."""

OPTIONAL: Final[Mapping[str, type]] = {"cause": dict, "conflicts": list, "import": dict, "reproductions": list, "validations": dict}
"""Fields that a packet may lack: why the version was made, what came out when its recipe was run again (former ones), who has a
conflict of interest (where nobody has), what is verified and what claimed of a version that was made elsewhere, and the validation records
that stood when it was frozen (where there was none)."""

AT_OPENING: Final = ("opened", "reproductions", "compared_with", "differences", "findings", "conflicts", "validations")
"""Fields that tell of the moment; the others follow from the version and cannot differ between two tries."""


@dataclass(frozen=True)
class PacketForm:
    """What packets have in common: canonical bytes of exactly these fields, about one version digest.

    Attributes:
        raw: its bytes.
        content: what they say.
    """

    raw: bytes
    content: Mapping[str, Any]

    NAME: ClassVar[str]
    FIELDS: ClassVar[Mapping[str, type]]
    OPTIONAL: ClassVar[Mapping[str, type]]
    MARKS: ClassVar[Mapping[str, object]]
    """Fields whose value says which kind of packet in which format this is."""

    @classmethod
    def make(cls, content: Mapping[str, Any]) -> Self:
        """Return the packet with this content.

        Raises:
            InvalidInputError: a field is missing, unknown or of another type; or it is too large.
        """
        return cls.parse(canonical_bytes(dict(content)))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the packet of its bytes.

        Raises:
            InvalidInputError: not canonical, too large, or no such packet.
        """
        if len(data) > MAX_PACKET_BYTES:
            raise _refused("", "max_bytes", f"a packet has at most {MAX_PACKET_BYTES} bytes, this has {len(data)}")
        content = parse_canonical(data)
        if not isinstance(content, dict) or content.keys() - cls.OPTIONAL.keys() != cls.FIELDS.keys():
            raise _refused("", "fields", f"this is no {cls.NAME}: fields are missing or unknown")
        for name, kind in {**cls.FIELDS, **cls.OPTIONAL}.items():
            if name in content and type(content[name]) is not kind:
                raise _refused(name, "type", f"the packet's {name} is no {kind.__name__}")
        if any(content[name] != known for name, known in cls.MARKS.items()):
            told, known = (" of ".join(str(said[name]) for name in cls.MARKS) for said in (content, cls.MARKS))
            raise _refused("format", "known", f"the packet has the format {told}; {known} is known here")
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


class Packet(PacketForm):
    """A decision packet."""

    NAME = "decision packet"
    FIELDS = FIELDS
    OPTIONAL = OPTIONAL
    MARKS: ClassVar[Mapping[str, object]] = {"format": FORMAT}

    @property
    def compared_with(self) -> str:
        """`MODEL@N` of the version that was deployed at the time, or empty."""
        other = self.content["compared_with"]
        return f"{self.content['model']}@{other['number']}" if other else ""

    def is_retry_of(self, other: Packet) -> bool:
        """Return whether both are packets of one opening, made at two moments."""
        mine, theirs = ({k: v for k, v in p.content.items() if k not in AT_OPENING} for p in (self, other))
        return mine == theirs


def packet_key(folder: str, transition: int) -> str:
    """Return the key of the packet that a transition froze, in the version's folder (without a slash at the end)."""
    return f"{folder}/evidence/packet-{transition:06d}.json"


def page_key(folder: str, transition: int) -> str:
    """Return the key of the page that shows it."""
    return f"{folder}/evidence/packet-{transition:06d}.html"


def signature_key(folder: str, person: str) -> str:
    """Return the key of a person's own signature over the packet."""
    return f"{folder}/evidence/signatures/{person}.sig"


def _refused(field: str, rule: str, message: str) -> InvalidInputError:
    return InvalidInputError.of(field, rule, message)
