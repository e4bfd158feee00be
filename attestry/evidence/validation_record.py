"""The validation record as a document: what a validator signs with a key of their own, byte for byte.

    {"content": {...}, "format": 1, "kind": "champion-challenger", "made": "2026-03-01T09:00:00.000000Z",
     "model": "credit-risk", "number": 3, "version_digest": "..."}

Rules:
- It is canonical JSON (RFC 8785); what is signed is the line `<its SHA-256 in hex>` and a line feed, in the namespace
  `attestry-validation` (`attestry.evidence.ssh_signature`), so that a signature never serves as an approval, and none as this.
- It names model, number and version digest: it serves for no other version. `made` tells two records of equal counts apart.
- `content` is as `attestry.domain.validations` reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.domain.validations import KINDS, Finding, read_finding
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.evidence.digests import sha256_hex
from attestry.evidence.packet import signature_key
from attestry.evidence.version_urn import VersionUrn

FORMAT: Final = 1
MAX_RECORD_BYTES: Final = 256 * 1024
_FIELDS: Final[Mapping[str, type]] = {
    "format": int,
    "kind": str,
    "model": str,
    "number": int,
    "version_digest": str,
    "made": str,
    "content": dict,
}
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


@dataclass(frozen=True)
class ValidationRecord:
    """A record.

    Attributes:
        raw: its bytes, which are signed.
        kind: one of `attestry.domain.validations.KINDS`.
        model: the model.
        number: the version's number.
        version_digest: the version's digest, hex.
        made: when the validator made it, RFC 3339 in UTC.
        content: what it says.
        finding: the same, read.
    """

    raw: bytes
    kind: str
    model: str
    number: int
    version_digest: str
    made: str
    content: Mapping[str, Any]
    finding: Finding

    @classmethod
    def make(cls, kind: str, model: str, number: int, version_digest: str, made: str, content: Mapping[str, Any]) -> ValidationRecord:
        """Return the record that says this.

        Raises:
            InvalidInputError: see `parse`.
        """
        named = {"model": model, "number": number, "version_digest": version_digest}
        return cls.parse(canonical_bytes({"format": FORMAT, "kind": kind, **named, "made": made, "content": dict(content)}))

    @classmethod
    def parse(cls, data: bytes) -> ValidationRecord:
        """Return the record of its bytes.

        Raises:
            InvalidInputError: not canonical, too large, or a field breaks a rule, which is named.
        """
        if len(data) > MAX_RECORD_BYTES:
            raise InvalidInputError.of("record", "max_bytes", f"a validation record has at most {MAX_RECORD_BYTES} bytes")
        document = parse_canonical(data)
        if not isinstance(document, dict) or document.keys() != _FIELDS.keys():
            raise InvalidInputError.of("record", "fields", f"a validation record has the fields {', '.join(sorted(_FIELDS))}")
        for name, kind in _FIELDS.items():
            if type(document[name]) is not kind:
                raise InvalidInputError.of(name, "type", f"the record's {name} is no {kind.__name__}")
        if document["format"] != FORMAT:
            raise InvalidInputError.of("format", "known", f"the record has the format {document['format']}; {FORMAT} is known here")
        if document["kind"] not in KINDS:
            raise InvalidInputError.of("kind", "enum", f"a validation record is one of {', '.join(KINDS)}")
        if not _TIME.fullmatch(document["made"]):
            raise InvalidInputError.of("made", "time", "the time is RFC 3339 in UTC with microseconds")
        VersionUrn(document["model"], document["number"], document["version_digest"])
        finding = read_finding(document["kind"], document["content"])
        return cls(data, **{name: document[name] for name in _FIELDS if name != "format"}, finding=finding)

    @cached_property
    def sha256(self) -> str:
        """Digest of the record, hex."""
        return sha256_hex(self.raw)

    def require_of(self, model: str, number: int, version_digest: str) -> None:
        """Refuse a record that was made for another version.

        Raises:
            IntegrityError: naming what it is of.
        """
        if (self.model, self.number, self.version_digest) != (model, number, version_digest):
            raise IntegrityError(
                f"the record is of {self.model}@{self.number} with the digest {self.version_digest[:16]}, not of {model}@{number}: "
                "a record counts for the version alone that it names"
            )


def record_key(folder: str, sha256: str) -> str:
    """Return the key of a record, in the version's folder (without a slash at the end)."""
    return f"{folder}/evidence/validations/{sha256}.json"


def kept_of(folder: str, sha256: str, facts: Mapping[str, Any], person: str) -> dict[str, str]:
    """Return what a record left in the store: key of the record and of its signature, each to the S3 version.

    Args:
        folder: the version's folder.
        sha256: digest of the record.
        facts: facts of the event that tells of it.
        person: who signed it.
    """
    signature = signature_key(folder, f"{person}#{sha256}")
    return {record_key(folder, sha256): str(facts["record_version_id"]), signature: str(facts["signature"]["version_id"])}
