"""Statements: what an attestation says, as an in-toto Statement v1 in canonical JSON.

    {"_type": "https://in-toto.io/Statement/v1",
     "subject": [{"name": "...", "digest": {"sha256": "..."}}, ...],
     "predicateType": "...",
     "predicate": {...}}

Rules:
- The bytes are RFC 8785 canonical JSON; what is read back must be exactly what `Statement.to_bytes` would write.
- A subject has a name and exactly one digest, SHA-256; names do not repeat, and there is at least one subject.
- A field more or less than these four, in the statement or in a subject, is refused.

Standard: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from attestry.domain.errors import InvalidInputError
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.evidence.digests import is_sha256

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
"""Media type of a statement inside an envelope."""

_FIELDS = {"_type", "subject", "predicateType", "predicate"}


@dataclass(frozen=True)
class Subject:
    """What a statement is about.

    Attributes:
        name: name of the artifact within the statement.
        sha256: its digest, hex.
    """

    name: str
    sha256: str

    def __post_init__(self) -> None:
        _require(bool(self.name), "subject.name", "required", "a subject has a name")
        _require(is_sha256(self.sha256), "subject.digest", "sha256", f"the subject {self.name!r} has no SHA-256 in lower-case hex")


@dataclass(frozen=True)
class Statement:
    """A statement.

    Attributes:
        subjects: what it is about; at least one, each name once.
        predicate_type: URI of the predicate's type.
        predicate: what is said, JSON values.

    Raises:
        InvalidInputError: on creation, when a part has not the form that it needs.
    """

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: Mapping[str, Any]

    def __post_init__(self) -> None:
        _require(bool(self.subjects), "subject", "required", "a statement has a subject")
        _require(len({s.name for s in self.subjects}) == len(self.subjects), "subject", "unique", "two subjects have one name")
        _require(":" in self.predicate_type, "predicateType", "uri", "a predicate's type is a URI")

    def to_bytes(self) -> bytes:
        """Return the canonical document.

        Raises:
            InvalidInputError: the predicate has no canonical form.
        """
        return canonical_bytes(
            {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": s.name, "digest": {"sha256": s.sha256}} for s in self.subjects],
                "predicateType": self.predicate_type,
                "predicate": dict(self.predicate),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Statement:
        """Return the statement of a canonical document.

        Raises:
            InvalidInputError: not canonical, another type, a field too many or too few, or of another form.
        """
        body = parse_canonical(data)
        _require(isinstance(body, dict) and set(body) == _FIELDS, "", "fields", f"a statement has exactly {', '.join(sorted(_FIELDS))}")
        _require(body["_type"] == STATEMENT_TYPE, "_type", "const", f"not {STATEMENT_TYPE}")
        _require(isinstance(body["subject"], list), "subject", "type", "the subjects are no list")
        _require(isinstance(body["predicateType"], str), "predicateType", "type", "the predicate's type is no text")
        _require(isinstance(body["predicate"], dict), "predicate", "type", "the predicate is no object")
        return cls(tuple(_subject(s) for s in body["subject"]), body["predicateType"], body["predicate"])


def _subject(value: Any) -> Subject:
    _require(isinstance(value, dict) and set(value) == {"name", "digest"}, "subject", "fields", "a subject has exactly digest, name")
    _require(isinstance(value["name"], str), "subject.name", "type", "the name of a subject is no text")
    digest = value["digest"]
    _require(isinstance(digest, dict) and set(digest) == {"sha256"}, "subject.digest", "fields", "a subject's digest is SHA-256 alone")
    return Subject(value["name"], digest["sha256"])


def _require(holds: bool, field: str, rule: str, message: str) -> None:
    if not holds:
        raise InvalidInputError.of(field, rule, message)
