"""Rows of a scored file: each is a leaf of one Merkle tree, and one statement per file signs the tree's root.

The output file is JSON lines. A line has one form, to the byte:

    {"index":17,"input_sha256":"<hex>","salt":"<hex>","output":<what the version answered>}

and is, without its newline, the leaf: whoever has the file has all leaves, and whoever has one line and its proof of inclusion has what it
takes to show that the version gave this output for this row of that input.

    facts = ScoredFile(...)                       # what `state_scored` says and `read_scored` reads
    hashes = [leaf_hash(line) for line in lines]
    proof = audit_path(hashes, 17)
    row = verify_row(lines[17], proof, facts)     # raises IntegrityError

Rules:
- The output is the text that was emitted. It is hashed as it stands and never written anew: numbers keep the digits that a model gave.
- The tree is RFC 6962's, by `attestry.evidence.tlog`. A row stands at the place that its index says, so a row that is passed off as
  another, or as one of another file, does not verify.
- `input_sha256` is SHA-256 over the salt's bytes and the row's input, which is its line without the line's end. Salts are made of a secret
  of the file, so the neighbours' hashes in a proof do not let anybody guess at their inputs and outputs.
- Predicate `urn:attestry:predicate:scored-file:v1`; subjects are the output file (name `output`) and the version (its URN).
- The ledger holds one event `file.scored` for the file, which names the attestation by its digest.

Standard: RFC 6962 section 2.1, in-toto Statement v1.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.canonical import parse_strict
from attestry.evidence.digests import is_sha256
from attestry.evidence.statement import Statement, Subject
from attestry.evidence.tlog import leaf_hash, verify_inclusion
from attestry.evidence.version_urn import VersionUrn

SCORED_FILE: Final = "urn:attestry:predicate:scored-file:v1"
KIND: Final = "file.scored"
"""Kind of the event."""

STAGE: Final = "DEPLOYMENT"
"""The stage at which a version stands in place; who signs must be one that may sign there."""

OUTPUT: Final = "output"
"""Name of the subject that is the output file."""

SALT_BYTES: Final = 16
MAX_ROW_BYTES: Final = 4 << 20
_LINE: Final = re.compile(
    rb'\{"index":(0|[1-9][0-9]{0,11}),"input_sha256":"([0-9a-f]{64})","salt":"([0-9a-f]{32})","output":([^\s](?:[^\r\n]*[^\s])?)\}'
)
_SCORING: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Row:
    """One row of a scored file.

    Attributes:
        index: its place in the file, from 0.
        input_sha256: SHA-256 over salt and input, hex.
        salt: 16 bytes, hex.
        output: what the version answered: JSON text without a line break.
    """

    index: int
    input_sha256: str
    salt: str
    output: str

    def to_bytes(self) -> bytes:
        """Return the leaf: the line without its newline.

        Raises:
            InvalidInputError: this is no row, or it is too large.
        """
        text = f'{{"index":{self.index},"input_sha256":"{self.input_sha256}","salt":"{self.salt}","output":{self.output}}}'
        data = text.encode("utf-8", "backslashreplace")
        _require(Row.parse(data) == self, "row", "form", "this is no row")
        return data

    @classmethod
    def parse(cls, data: bytes) -> Row:
        """Return the row that a leaf is.

        Raises:
            InvalidInputError: not byte for byte what `to_bytes` would write.
        """
        _require(len(data) <= MAX_ROW_BYTES, "row", "max_bytes", f"the row has {len(data)} bytes; the limit is {MAX_ROW_BYTES}")
        match = _LINE.fullmatch(data)
        if match is None:
            raise InvalidInputError.of("row", "form", 'a row is {"index":N,"input_sha256":"HEX","salt":"HEX","output":JSON}')
        parse_strict(match[4])
        return cls(int(match[1]), match[2].decode(), match[3].decode(), match[4].decode())

    @property
    def value(self) -> Any:
        """Return the output as a JSON value."""
        return parse_strict(self.output)

    def is_of_input(self, line: bytes) -> bool:
        """Return whether this is what was asked: the input's line without its end."""
        return input_digest(bytes.fromhex(self.salt), line) == self.input_sha256


@dataclass(frozen=True)
class ScoredFile:
    """What is signed of a scored file.

    Attributes:
        scoring: ID of the scoring, 32 hexadecimal digits.
        model: the model's name.
        number: the version that answered every row.
        version_digest: its digest, hex.
        environment: where it stood deployed.
        format: `jsonl` or `csv`, of the input.
        input_sha256: digest of the input file, hex.
        input_size: its bytes.
        output_sha256: digest of the output file, hex.
        output_size: its bytes.
        rows: how many rows both have; at least one.
        root: RFC 6962 root over the rows, hex.
        at: when the file was finished, RFC 3339 in UTC.

    Raises:
        InvalidInputError: on creation, when a field has not the form that it needs.
    """

    scoring: str
    model: str
    number: int
    version_digest: str
    environment: str
    format: str
    input_sha256: str
    input_size: int
    output_sha256: str
    output_size: int
    rows: int
    root: str
    at: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value, wanted = getattr(self, field.name), int if field.type == "int" else str
            _require(type(value) is wanted, field.name, "type", f"is no {wanted.__name__}")
            if field.name.endswith(("_sha256", "_digest")) or field.name == "root":
                _require(is_sha256(value), field.name, "sha256", "no SHA-256 in lower-case hex")
        _require(_SCORING.fullmatch(self.scoring), "scoring", "form", "the ID of a scoring is 32 hexadecimal digits")
        _require(self.rows > 0, "rows", "range", "a scored file has a row")

    @property
    def subject(self) -> str:
        """Return the subject of the file's event."""
        return subject_of(self.scoring)

    @property
    def version(self) -> VersionUrn:
        """Return the version's URN."""
        return VersionUrn(self.model, self.number, self.version_digest)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as the predicate carries them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def event_data(self, attestation: str) -> dict[str, Any]:
        """Return the data of the event, which names the attestation by its SHA-256."""
        return {**self.to_dict(), "attestation": attestation}


def subject_of(scoring: str) -> str:
    """Return the subject of the event about a scoring."""
    return f"scoring/{scoring}"


def row_salt(secret: bytes, index: int) -> bytes:
    """Return the salt of a row: HMAC-SHA-256 of its index under the file's secret, cut to 16 bytes. The same for each try."""
    return hmac.digest(secret, b"attestry row salt\n" + index.to_bytes(8, "big"), hashlib.sha256)[:SALT_BYTES]


def input_digest(salt: bytes, line: bytes) -> str:
    """Return the digest of a row's input, hex.

    Args:
        salt: the row's salt.
        line: the row's line in the input file, without its end.
    """
    return hashlib.sha256(salt + line).hexdigest()


def make_row(secret: bytes, index: int, line: bytes, output: Any) -> Row:
    """Return the row of an output.

    Args:
        secret: the file's secret.
        index: place of the row, from 0.
        line: its line in the input file, without its end.
        output: what the version answered, a JSON value.

    Raises:
        InvalidInputError: the output is no JSON value.
    """
    salt = row_salt(secret, index)
    try:
        text = json.dumps(output, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError.of("output", "json", f"the output of row {index} is no JSON value: {error}") from error
    return Row(index, input_digest(salt, line), salt.hex(), text)


def state_scored(facts: ScoredFile) -> Statement:
    """Return the statement that attests a scored file."""
    subjects = (Subject(OUTPUT, facts.output_sha256), Subject(str(facts.version), facts.version_digest))
    return Statement(subjects, SCORED_FILE, facts.to_dict())


def read_scored(statement: Statement) -> ScoredFile:
    """Return what a verified statement says of a scored file.

    Raises:
        InvalidInputError: a statement about something else, or not one that `state_scored` makes.
    """
    _require(statement.predicate_type == SCORED_FILE, "predicateType", "const", f"not {SCORED_FILE}")
    names = {field.name for field in fields(ScoredFile)}
    _require(set(statement.predicate) == names, "predicate", "fields", f"a scored file has exactly {', '.join(sorted(names))}")
    facts = ScoredFile(**statement.predicate)
    _require(statement == state_scored(facts), "subject", "scored", "the subjects are not the output file and the version")
    return facts


def check_scored(statement: Statement, event: Mapping[str, Any], attestation: str) -> ScoredFile:
    """Check that a verified statement attests exactly the file that an event of the ledger tells of.

    Args:
        statement: what the envelope holds, its signature verified.
        event: the event, as parsed from canonical JSON.
        attestation: SHA-256 of the envelope's file, hex.

    Raises:
        InvalidInputError: not a statement about a scored file.
        IntegrityError: the event is about something else, or says something else.
    """
    facts = read_scored(statement)
    if event["kind"] != KIND or event["subject"] != facts.subject or event["sequence"] != 1:
        raise IntegrityError(f"the event is {event['kind']} of {event['subject']}, not {KIND} of {facts.subject}")
    told, data = facts.event_data(attestation), event["data"]
    if data != told:
        differing = sorted(name for name in told.keys() | data.keys() if told.get(name, ...) != data.get(name, ...))
        raise IntegrityError(f"the attestation and the event of the scored file differ in {', '.join(differing)}")
    return facts


def verify_row(line: bytes, proof: Sequence[bytes], facts: ScoredFile) -> Row:
    """Verify that a line is a row of a scored file.

    Args:
        line: the line, without its newline.
        proof: hashes of its inclusion, 32 bytes each.
        facts: what is signed of the file.

    Raises:
        InvalidInputError: the line is no row.
        IntegrityError: it is none of this file, or not at this place.
    """
    row = Row.parse(line)
    if row.index >= facts.rows:
        raise IntegrityError(f"the file has {facts.rows} rows, and this is row {row.index}")
    verify_inclusion(leaf_hash(line), row.index, facts.rows, proof, bytes.fromhex(facts.root))
    return row


def _require(holds: object, field: str, rule: str, message: str) -> None:
    if not holds:
        raise InvalidInputError.of(field, rule, message)
