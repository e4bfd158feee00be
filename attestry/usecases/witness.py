"""A witness: cosigns a log's checkpoint when it extends the last one that it cosigned (C2SP tlog-witness, tlog-cosignature).

Rules:
- The witness believes its own row and what a checkpoint's signature and a consistency proof show; it asks the log for nothing.
- Its row of a log is moved forward by a write that is conditional on the row as it was checked, and only then is the checkpoint signed.
  Of two checkpoints that do not extend one another at most one is ever signed, however many processes answer at once.
- A crash between write and answer costs the log one question: it is told the size that is on record, and asks again from there.
- Time is read before the write, so that each cosignature speaks of a moment at which its checkpoint was the largest on record.
- A log is taken at its word once, at its first checkpoint.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from attestry.domain.errors import (
    AttestryError,
    ConditionFailedError,
    ConflictError,
    ForbiddenError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from attestry.domain.events import timestamp
from attestry.evidence.note import Checkpoint, Note, Verifier, cosign, open_note, parse_note, parse_size, parse_vkey
from attestry.evidence.tlog import EMPTY_ROOT, HASH_BYTES, verify_consistency
from attestry.ports import Clock, Item, Key, MetaStore, NoteSigner, Put, When

MAX_BODY_BYTES: Final = 128 * 1024
MAX_PROOF_LINES: Final = 63
MAX_TEXT_BYTES: Final = 3800
"""Of a checkpoint's text, which KMS signs raw: header and text together have at most 4,096 bytes."""

_ATTEMPTS: Final = 5

logger = logging.getLogger(__name__)


class CheckpointConflictError(ConflictError):
    """The witness has another checkpoint on record than the one that the log goes out from.

    Attributes:
        size: of the checkpoint on record, 0 where there is none. Where it is the size that was asked about, the roots differ: a fork.
    """

    code = "checkpoint_conflict"

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class InconsistentCheckpointError(AttestryError):
    """The proof does not show that the checkpoint extends the one on record."""

    code = "inconsistent_checkpoint"
    status = 422


@dataclass(frozen=True)
class CheckpointRequest:
    """The body of `add-checkpoint`.

    Attributes:
        old_size: size of the checkpoint that the proof begins at.
        proof: consistency proof, 32 bytes each.
        note: the signed checkpoint.
    """

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes

    def to_body(self) -> bytes:
        """Return the body."""
        lines = [f"old {self.old_size}", *(base64.b64encode(h).decode() for h in self.proof), ""]
        return "".join(f"{line}\n" for line in lines).encode() + self.note

    @classmethod
    def parse(cls, body: bytes) -> CheckpointRequest:
        """Return the request that a body is.

        Raises:
            InvalidInputError: it is none, to the letter.
        """
        if len(body) > MAX_BODY_BYTES:
            raise InvalidInputError.of("", "max_bytes", f"the body has {len(body)} bytes; the limit is {MAX_BODY_BYTES}")
        head, _, note = body.partition(b"\n\n")
        first, *lines = head.split(b"\n")
        if not first.isascii() or not first.startswith(b"old ") or not note:
            raise InvalidInputError.of("", "form", "a request is a line `old SIZE`, proof lines, an empty line and a checkpoint")
        if len(lines) > MAX_PROOF_LINES:
            raise InvalidInputError.of("proof", "max_lines", f"a proof has at most {MAX_PROOF_LINES} lines")
        return cls(parse_size(first[4:].decode()), tuple(_decode_hash(line) for line in lines), note)


class Witness:
    """Cosigns checkpoints of the logs it knows.

    Args:
        meta: the witness's own table.
        signer: its key.
        clock: the time.
        name: the name of its key, which verifiers configure together with the public key.
        logs: origin to the keys that may sign that log's checkpoints.
    """

    def __init__(self, meta: MetaStore, signer: NoteSigner, clock: Clock, name: str, logs: Mapping[str, Sequence[Verifier]]) -> None:
        self._meta = meta
        self._signer = signer
        self._clock = clock
        self._name = name
        self._logs = logs

    def add_checkpoint(self, body: bytes) -> str:
        """Cosign the checkpoint in the body of an `add-checkpoint` request, and return the signature line.

        Raises:
            InvalidInputError: no such request, or an old size above the checkpoint's.
            NotFoundError: the log is not known here.
            ForbiddenError: no key of the log signed the checkpoint, or a signature in its name does not verify.
            CheckpointConflictError: another checkpoint is on record.
            InconsistentCheckpointError: the proof does not hold.
            UnavailableError: a service did not answer. The checkpoint may be on record then, but was not cosigned.
        """
        request = CheckpointRequest.parse(body)
        note, checkpoint = self._authenticate(request)
        if request.old_size > checkpoint.size:
            raise InvalidInputError.of("old", "maximum", f"the old size {request.old_size} is above the checkpoint's, {checkpoint.size}")
        at = self._clock.now()
        for _ in range(_ATTEMPTS):
            row = self._meta.get(_row_key(checkpoint.origin))
            _check_extends(row, request, checkpoint, note)
            try:
                self._meta.transact([_record(row, checkpoint, note, timestamp(at))])
            except ConditionFailedError:
                # Somebody else moved the row, or only touched it: what it says now decides.
                continue
            signature = cosign(note.text, int(at.timestamp()), self._name, self._signer.public_key(), self._signer.sign_ed25519)
            return signature.to_line()
        raise UnavailableError(f"too many checkpoints of {checkpoint.origin} came at once")

    def _authenticate(self, request: CheckpointRequest) -> tuple[Note, Checkpoint]:
        """Return the checkpoint, signed by its log."""
        text, _ = parse_note(request.note)
        checkpoint = Checkpoint.parse(text)
        if len(text.encode()) > MAX_TEXT_BYTES:
            raise InvalidInputError.of("checkpoint", "max_bytes", f"the checkpoint's text has more than {MAX_TEXT_BYTES} bytes")
        verifiers = self._logs.get(checkpoint.origin)
        if not verifiers:
            raise NotFoundError("the log is not known here")
        try:
            return open_note(request.note, verifiers), checkpoint
        except IntegrityError as error:
            raise ForbiddenError(error.message) from error


def read_logs(text: str, public_key_of: Callable[[str], bytes]) -> dict[str, tuple[Verifier, ...]]:
    """Return the logs that a witness is configured with.

    Args:
        text: JSON object: origin to a verifier key or the ARN of the log's KMS key, or to a list of these while a log changes its key.
        public_key_of: reads the public key (32 bytes) of a KMS key.

    Raises:
        InvalidInputError: anything else.
    """
    try:
        logs = json.loads(text)
    except ValueError as error:
        raise InvalidInputError.of("logs", "json", "the witness's logs are no JSON") from error
    if not isinstance(logs, dict):
        raise InvalidInputError.of("logs", "type", "the witness's logs are an object of origins")
    known: dict[str, tuple[Verifier, ...]] = {}
    for origin, value in logs.items():
        keys = value if isinstance(value, list) else [value]
        if not keys or not all(isinstance(key, str) for key in keys):
            raise InvalidInputError.of(f"logs.{origin}", "type", "a log has a key or a list of keys")
        known[origin] = tuple(Verifier.of(origin, public_key_of(k)) if k.startswith("arn:") else parse_vkey(k) for k in keys)
    return known


def _check_extends(row: Item | None, request: CheckpointRequest, checkpoint: Checkpoint, note: Note) -> None:
    """Check the checkpoint against the one on record."""
    size, root, recorded = (int(row["size"]), bytes.fromhex(row["root"]), row["note"]) if row else (0, EMPTY_ROOT, "")
    if request.old_size != size:
        raise CheckpointConflictError(f"the checkpoint on record has size {size}, not {request.old_size}", size)
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise InconsistentCheckpointError("a log of size 0 has the root of the empty tree")
    if checkpoint.size == size and checkpoint.root != root:
        logger.error("a log signed two checkpoints of one size", extra={"note": note.text, "recorded": recorded})
        raise CheckpointConflictError(f"another checkpoint of size {size} is on record", size)
    try:
        verify_consistency(size, checkpoint.size, request.proof, root, checkpoint.root)
    except IntegrityError as error:
        logger.warning("a checkpoint without a proof that holds", extra={"note": note.text, "recorded": recorded})
        raise InconsistentCheckpointError(error.message) from error


def _record(row: Item | None, checkpoint: Checkpoint, note: Note, at: str) -> Put:
    """Return the write that moves the record to the checkpoint, and holds only while the record is as it was checked."""
    item: Item = {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "note": f"{note.text}\n{''.join(s.to_line() for s in note.verified)}",
        "at": at,
        "rev": int(row["rev"]) + 1 if row else 1,
    }
    same = When(exists=True, equals={"rev": row["rev"], "size": row["size"], "root": row["root"]}) if row else When(exists=False)
    return Put(_row_key(checkpoint.origin), item, same)


def _row_key(origin: str) -> Key:
    return Key(f"LOG#{origin}")


def _decode_hash(line: bytes) -> bytes:
    try:
        raw = base64.b64decode(line, validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != HASH_BYTES or base64.b64encode(raw) != line:
        raise InvalidInputError.of("proof", "hash", "a proof line is a SHA-256 in base64")
    return raw
