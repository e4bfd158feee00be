"""Row proofs: one file with everything from which a row of a scored file can be verified offline.

    data = write_row_proof(RowProof(line, hashes, files))
    verification = verify_row_proof(data, pin=root_json)

One canonical document (RFC 8785):

    {"format": 1, "kind": "row", "row": "<the line>", "hashes": ["<hex>", ...], "files": {"<name>": "<text>", ...}}

`files` are those of a bundle, under the same names: the attestation of the file, the ledger's checkpoint with the leaf of the file's event
and its proof (or the event alone, while it is not in the ledger), and the root of trust.

| step | what it shows |
|---|---|
| proof | the document is whole, and of the form that is written |
| root, checkpoint, leaves, validity | as for a bundle, see `attestry.evidence.verification` |
| attestation | a function that may sign scored files signed this one, and the ledger's event says the same |
| row | the line is a row of that file, at its place |
| input | where the input's line is given: that it is what this row was made of |

What the version is, how it was made and who approved it, a version's own bundle shows; both name the version digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.bundle import MAX_FILE_BYTES, MAX_FILES, Bundle, BundleIndex
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.evidence.case import Case, Entry
from attestry.evidence.checks_ledger import check_checkpoint, check_leaves, check_root, check_validity
from attestry.evidence.digests import is_sha256, sha256_hex
from attestry.evidence.dsse import read_envelope, verify_envelope
from attestry.evidence.scored_rows import KIND, STAGE, Row, ScoredFile, check_scored, read_scored, verify_row
from attestry.evidence.statement import Statement
from attestry.evidence.trusted_root import require_may_sign
from attestry.evidence.verdict import Check, MissingError, Verification, run_steps

FORMAT: Final = 1
MAX_PROOF_BYTES: Final = 16 << 20
_FIELDS: Final = {"format", "kind", "row", "hashes", "files"}
_FOLDERS: Final = ("attestations/", "ledger/", "root/")
_NO_TIME: Final = "1970-01-01T00:00:00.000000Z"


@dataclass(frozen=True)
class RowProof:
    """What a proof holds; nothing of it is verified.

    Attributes:
        line: the row's line, without its newline.
        hashes: its proof of inclusion in the file, 32 bytes each.
        files: files of the evidence, by their names in a bundle.
    """

    line: bytes
    hashes: tuple[bytes, ...]
    files: Mapping[str, bytes]

    @property
    def attestation(self) -> tuple[str, bytes]:
        """Return name and bytes of the one attestation.

        Raises:
            IntegrityError: there is none, or more than one.
        """
        named = [(name, body) for name, body in self.files.items() if name.startswith("attestations/")]
        if len(named) != 1:
            raise IntegrityError(f"the proof holds {len(named)} attestations; there is one for a file")
        return named[0]


def write_row_proof(proof: RowProof) -> bytes:
    """Return the document."""
    files = {name: body.decode() for name, body in proof.files.items()}
    hashes = [h.hex() for h in proof.hashes]
    return canonical_bytes({"format": FORMAT, "kind": "row", "row": proof.line.decode(), "hashes": hashes, "files": files})


def read_row_proof(data: bytes) -> RowProof:
    """Return the proof that a document is.

    Raises:
        InvalidInputError: too large, or not byte for byte what `write_row_proof` would write.
    """
    _require(len(data) <= MAX_PROOF_BYTES, "max_bytes", f"has {len(data)} bytes; the limit is {MAX_PROOF_BYTES}")
    body = parse_canonical(data)
    _require(isinstance(body, dict) and set(body) == _FIELDS, "fields", f"has exactly {', '.join(sorted(_FIELDS))}")
    _require((body["format"], body["kind"]) == (FORMAT, "row") and type(body["format"]) is int, "format", "is a row proof of format 1")
    _require(isinstance(body["row"], str), "row", "has a row that is a text")
    _require(isinstance(body["hashes"], list) and all(map(is_sha256, body["hashes"])), "hashes", "has hashes in lower-case hex")
    files = body["files"]
    _require(isinstance(files, dict) and len(files) <= MAX_FILES, "files", f"has files, {MAX_FILES} at most")
    for name, text in files.items():
        known = name.startswith(_FOLDERS) and isinstance(text, str) and len(text) <= MAX_FILE_BYTES
        _require(known, "files", f"has no file {name[:80]!r}, or not as a text")
    hashes = tuple(bytes.fromhex(h) for h in body["hashes"])
    return RowProof(body["row"].encode(), hashes, {name: text.encode() for name, text in files.items()})


def claimed_place(data: bytes) -> int:
    """Return which line of the input file, from 0, a proof claims its row to be made of; nothing is verified.

    Raises:
        InvalidInputError, IntegrityError: not a proof.
    """
    proof = read_row_proof(data)
    facts = read_scored(Statement.parse(read_envelope(proof.attestation[1]).payload))
    return Row.parse(proof.line).index + (1 if facts.format == "csv" else 0)


@dataclass
class _RowCase:
    """What is known of a proof, from step to step; `case` is what the steps of bundles read."""

    case: Case = field(default_factory=Case)
    proof: RowProof | None = None
    facts: ScoredFile | None = None
    row: Row | None = None

    def need_facts(self) -> ScoredFile:
        if self.facts is None:
            raise MissingError("what is signed of the file is not known")
        return self.facts


def verify_row_proof(data: bytes, *, pin: bytes | None, line: bytes | None = None) -> Verification:
    """Verify a row of a scored file.

    Args:
        data: the proof.
        pin: the TUF root.json that the verifier trusts, got on a way of its own; None where there is none, and then the verdict is
            INCOMPLETE at best.
        line: the row's line in the input file, without its end, to check as well.
    """
    told = _RowCase()
    checks: list[tuple[str, Check]] = [
        ("proof", lambda: _check_form(told, data)),
        ("root", lambda: check_root(told.case, pin)),
        ("checkpoint", lambda: check_checkpoint(told.case)),
        ("leaves", lambda: check_leaves(told.case)),
        ("validity", lambda: check_validity(told.case)),
        ("attestation", lambda: _check_attestation(told)),
        ("row", lambda: _check_row(told)),
        *([("input", lambda: _check_input(told, line))] if line is not None else []),
    ]
    steps = run_steps(checks)
    subject = f"row {told.row.index} of scoring {told.facts.scoring}" if told.row and told.facts else ""
    return Verification(subject, steps, told.case.witnessing, tuple(told.case.notes), told.case.facts)


def _check_form(told: _RowCase, data: bytes) -> str:
    proof = read_row_proof(data)
    _, envelope = proof.attestation
    claimed = read_scored(Statement.parse(read_envelope(envelope).payload))
    reference = claimed.version.reference
    told.case.bundle = Bundle(
        BundleIndex("version", reference, claimed.model, claimed.number, claimed.version_digest, _NO_TIME), dict(proof.files)
    )
    told.proof = proof
    return f"{len(proof.files)} files, {len(data)} bytes"


def _check_attestation(told: _RowCase) -> str:
    case = told.case
    if told.proof is None:
        raise MissingError("the proof could not be read")
    name, envelope = told.proof.attestation
    entry = _event(case)
    sha256 = sha256_hex(envelope)
    if name != f"attestations/{sha256}.json":
        raise IntegrityError(f"{name} has another digest than its name")
    key = case.need_root().signer(read_envelope(envelope).keyid, entry.at)
    require_may_sign(key.name, KIND, STAGE)
    facts = check_scored(Statement.parse(verify_envelope(envelope, key.der)), entry.event, sha256)
    case.take(name)
    strange = sorted(told.proof.files.keys() - case.taken)
    if strange:
        raise IntegrityError(f"{strange[0]} is there, and nothing rests on it")
    told.facts = facts
    case.facts["file"] = facts.to_dict()
    return f"{facts.rows} rows of {facts.output_sha256[:16]}, by {facts.version.reference}, signed by {key.name} ({entry.place})"


def _event(case: Case) -> Entry:
    if not case.entries:
        raise MissingError("rests on the event of the file, which is not there")
    if len(case.entries) != 1 or case.entries[0].kind != KIND:
        raise IntegrityError(f"the proof holds other events than the one of the file: {', '.join(sorted({e.kind for e in case.entries}))}")
    return case.entries[0]


def _check_row(told: _RowCase) -> str:
    facts, proof = told.need_facts(), told.proof
    if proof is None:
        raise MissingError("the proof could not be read")
    told.row = verify_row(proof.line, proof.hashes, facts)
    told.case.facts["row"] = {"index": told.row.index, "output": told.row.value, "input_sha256": told.row.input_sha256}
    return f"row {told.row.index} of {facts.rows} is under the file's root {facts.root[:16]}"


def _check_input(told: _RowCase, line: bytes) -> str:
    if told.row is None:
        raise MissingError("the row is not known")
    if not told.row.is_of_input(line):
        raise IntegrityError(f"row {told.row.index} was made of another input")
    return f"row {told.row.index} was made of this input"


def files_of_evidence(
    envelope: bytes, *, metadata: Mapping[str, bytes], pending: bytes | None = None, ledger: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """Return the files of a proof under their names.

    Args:
        envelope: the file's attestation.
        metadata: the registry's TUF files, by name.
        pending: the event while it waits for the ledger, else None.
        ledger: `checkpoint`, `proofs.json` and the leaf, by their names below `ledger/`.
    """
    files = {f"attestations/{sha256_hex(envelope)}.json": envelope, **{f"root/{name}": body for name, body in metadata.items()}}
    if pending is not None:
        files[f"ledger/pending/{parse_canonical(pending)['id']}.json"] = pending
    return files | {f"ledger/{name}": body for name, body in (ledger or {}).items()}


def ledger_files(checkpoint: bytes, size: int, index: int, leaf: bytes, hashes: Sequence[bytes]) -> dict[str, bytes]:
    """Return what `files_of_evidence` takes of the ledger.

    Args:
        checkpoint: the signed note.
        size: its number of leaves.
        index: of the event's leaf.
        leaf: the leaf.
        hashes: its proof of inclusion.
    """
    proofs: dict[str, Any] = {"size": size, "proofs": {str(index): [h.hex() for h in hashes]}}
    return {"checkpoint": checkpoint, f"leaves/{index:012d}.json": leaf, "proofs.json": canonical_bytes(proofs)}


def _require(holds: bool, rule: str, message: str) -> None:
    if not holds:
        raise InvalidInputError.of("proof", rule, f"a row proof {message}")
