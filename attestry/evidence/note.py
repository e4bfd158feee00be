"""Signed notes, checkpoints and cosignatures: C2SP signed-note, tlog-checkpoint and tlog-cosignature.

    note = sign_note(Checkpoint(origin, size, root).to_text(), origin, public_key, kms.sign_ed25519)
    opened = open_note(note, [parse_vkey(log_vkey), parse_vkey(witness_vkey)])
    checkpoint = Checkpoint.parse(opened.text)

Rules:
- A note is UTF-8 without control characters other than newline; its text ends where the last empty line begins.
- Signatures by unknown keys are ignored. One by a known key that does not verify, or that occurs twice, voids the note, and so does a
  note on which no known key's signature verifies.
- Base64 is read only in the one form in which it is written.
- Two types of signature are known: plain Ed25519 (0x01) over the text, and timestamped cosignatures (0x04) over a header, the time and
  the text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from attestry.domain.errors import IntegrityError, InvalidInputError

MAX_NOTE_BYTES: Final = 256 * 1024
MAX_SIGNATURES: Final = 100
MAX_SIZE: Final = 2**63 - 1

_HASH_BYTES = 32
_KEY_ID_BYTES = 4
_SIGNATURE_BYTES = 64
_TIME_BYTES = 8
_LINE_START = "\u2014 "
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_KEY_ID = re.compile(r"[0-9a-f]{8}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NAME = re.compile(r"[^\s+]+")

Sign = Callable[[bytes], bytes]
"""Returns the 64-byte Ed25519 signature over a message."""


class Algorithm(IntEnum):
    """The type byte of a signature."""

    ED25519 = 1
    COSIGNATURE = 4


@dataclass(frozen=True)
class Verifier:
    """A key that a reader trusts.

    Attributes:
        name: the key's name: a log's origin, or a witness's name.
        key_id: its 4-byte ID.
        public_key: 32 bytes, RFC 8032.
        algorithm: type of its signatures.
    """

    name: str
    key_id: bytes
    public_key: bytes
    algorithm: Algorithm = Algorithm.ED25519

    @classmethod
    def of(cls, name: str, public_key: bytes, algorithm: Algorithm = Algorithm.ED25519) -> Verifier:
        """Return the verifier of a key, with the ID that the standard derives.

        Raises:
            InvalidInputError: no key name, or no public key.
        """
        if not _NAME.fullmatch(name) or not _is_clean(name):
            raise InvalidInputError.of("name", "key_name", "a key's name is not empty and has neither spaces nor `+`")
        if len(public_key) != _HASH_BYTES:
            raise InvalidInputError.of("public_key", "size", "an Ed25519 public key has 32 bytes")
        key_id = hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + public_key).digest()[:_KEY_ID_BYTES]
        return cls(name, key_id, public_key, algorithm)

    def vkey(self) -> str:
        """Return the key in the form of the standard: `<name>+<ID in hex>+<base64 of type and key>`."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([self.algorithm]) + self.public_key).decode()}"


@dataclass(frozen=True)
class Signature:
    """A signature line.

    Attributes:
        name: name of the key.
        key_id: 4-byte ID of the key.
        raw: what follows the ID: for a cosignature 8 bytes of time and 64 of signature.
    """

    name: str
    key_id: bytes
    raw: bytes

    def to_line(self) -> str:
        """Return the line with its newline."""
        return f"{_LINE_START}{self.name} {base64.b64encode(self.key_id + self.raw).decode()}\n"

    @property
    def timestamp(self) -> int | None:
        """Return when a cosignature says that it was made, in POSIX seconds; None for another type of signature."""
        return int.from_bytes(self.raw[:_TIME_BYTES], "big") if len(self.raw) == _TIME_BYTES + _SIGNATURE_BYTES else None

    def is_by(self, verifier: Verifier) -> bool:
        """Return whether the line names this key; that says nothing of its validity."""
        return (self.name, self.key_id) == (verifier.name, verifier.key_id)

    def check(self, text: str, verifier: Verifier) -> None:
        """Check that the key made this signature over the text.

        Raises:
            IntegrityError: it did not.
        """
        message, signature = text.encode(), self.raw
        valid_form = len(signature) == _SIGNATURE_BYTES
        if verifier.algorithm is Algorithm.COSIGNATURE:
            at = self.timestamp
            valid_form = at is not None and 0 < at <= MAX_SIZE
            message, signature = cosigned_message(text, at or 0), self.raw[_TIME_BYTES:]
        try:
            if not valid_form or not self.is_by(verifier):
                raise InvalidSignature
            Ed25519PublicKey.from_public_bytes(verifier.public_key).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise IntegrityError(f"the signature of {verifier.name} does not verify") from error


@dataclass(frozen=True)
class Note:
    """A note that a known key signed.

    Attributes:
        text: the signed text, with its final newline.
        verified: signatures by known keys; each was checked.
        unverified: signatures by unknown keys: they mean nothing.
    """

    text: str
    verified: tuple[Signature, ...]
    unverified: tuple[Signature, ...]

    def signed_by(self, verifier: Verifier) -> Signature | None:
        """Return the checked signature of a key, if it signed."""
        return next((s for s in self.verified if s.is_by(verifier)), None)


@dataclass(frozen=True)
class Checkpoint:
    """The head of a log: C2SP tlog-checkpoint.

    Attributes:
        origin: identity of the log.
        size: number of leaves.
        root: RFC 6962 root hash of them.
        extensions: further lines, opaque.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return the note's text.

        Raises:
            InvalidInputError: a part that the text cannot carry.
        """
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        text = "".join(f"{line}\n" for line in lines)
        if Checkpoint.parse(text) != self:
            raise InvalidInputError.of("checkpoint", "line", "a line of a checkpoint is not empty and holds no newline")
        return text

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Return the checkpoint that a note's text is.

        Raises:
            InvalidInputError: it is none, to the letter.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() != "" or not all(lines) or not _is_clean(text):
            raise InvalidInputError.of("checkpoint", "lines", "a checkpoint is at least three lines, none empty: origin, size, root")
        root = _decode(lines[2])
        if root is None or len(root) != _HASH_BYTES:
            raise InvalidInputError.of("checkpoint", "root", "the third line of a checkpoint is a SHA-256 in base64")
        return cls(lines[0], parse_size(lines[1]), root, tuple(lines[3:]))


def parse_size(text: str) -> int:
    """Return a size of a tree from its decimal form.

    Raises:
        InvalidInputError: no decimal number from 0 to 2^63 - 1 without leading zeroes.
    """
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_SIZE:
        raise InvalidInputError.of("size", "decimal", "a size is a decimal number without leading zeroes")
    return int(text)


def vkey(name: str, public_key: bytes, algorithm: Algorithm = Algorithm.ED25519) -> str:
    """Return the verifier key of a public key."""
    return Verifier.of(name, public_key, algorithm).vkey()


def parse_vkey(text: str) -> Verifier:
    """Return the verifier that a verifier key describes.

    Raises:
        InvalidInputError: no verifier key, of a type that is not known, or with an ID that is not its key's.
    """
    # Neither name nor ID holds a plus, base64 may.
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    raw = _decode(encoded)
    if not _KEY_ID.fullmatch(key_id) or raw is None or raw[:1] not in (b"\x01", b"\x04"):
        raise InvalidInputError.of("vkey", "vkey", "a verifier key is NAME+ID+KEY, of type Ed25519 or cosignature")
    verifier = Verifier.of(name, raw[1:], Algorithm(raw[0]))
    if verifier.key_id.hex() != key_id:
        raise InvalidInputError.of("vkey", "key_id", "the ID in the verifier key is not that of its name and key")
    return verifier


def sign_note(text: str, name: str, public_key: bytes, sign: Sign) -> bytes:
    """Return the note of a text with one Ed25519 signature.

    Args:
        text: the text; it ends in a newline.
        name: the key's name.
        public_key: 32 bytes.
        sign: makes the signature; what it returns is checked.

    Raises:
        IntegrityError: `sign` returned no signature of this key.
        InvalidInputError: the text cannot be a note's.
    """
    verifier = Verifier.of(name, public_key)
    if not text.endswith("\n") or not _is_clean(text):
        raise InvalidInputError.of("note", "text", "a note's text ends in a newline and has no other control characters")
    signature = Signature(name, verifier.key_id, sign(text.encode()))
    signature.check(text, verifier)
    return f"{text}\n{signature.to_line()}".encode()


def parse_note(data: bytes) -> tuple[str, tuple[Signature, ...]]:
    """Return text and signatures of a note, none of them checked.

    Raises:
        InvalidInputError: no note, to the letter.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise InvalidInputError.of("note", "max_bytes", f"the note has {len(data)} bytes; the limit is {MAX_NOTE_BYTES}")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError.of("note", "utf8", "the note is not UTF-8") from error
    start = whole.rfind("\n\n")
    text, lines = whole[: start + 1], whole[start + 2 :]
    if start < 0 or not lines.endswith("\n") or not _is_clean(whole):
        raise InvalidInputError.of("note", "form", "a note is a text, an empty line and signature lines, without control characters")
    signatures = tuple(parse_signature(line) for line in lines.splitlines(keepends=True))
    if len(signatures) > MAX_SIGNATURES:
        raise InvalidInputError.of("note", "max_signatures", f"the note has {len(signatures)} signatures; the limit is {MAX_SIGNATURES}")
    return text, signatures


def parse_signature(line: str) -> Signature:
    """Return the signature of a line, which ends in its newline.

    Raises:
        InvalidInputError: no signature line, to the letter.
    """
    name, _, encoded = line.removeprefix(_LINE_START).removesuffix("\n").rpartition(" ")
    raw = _decode(encoded)
    if raw is None or len(raw) <= _KEY_ID_BYTES or not _NAME.fullmatch(name):
        raise InvalidInputError.of("note", "signature", "a signature line is an em dash, a key's name and base64")
    signature = Signature(name, raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:])
    if signature.to_line() != line:
        raise InvalidInputError.of("note", "signature", "a signature line is an em dash, a key's name and base64, one space between each")
    return signature


def open_note(data: bytes, verifiers: Iterable[Verifier]) -> Note:
    """Return the note, if at least one known key signed it and no signature by a known key is wrong.

    Args:
        data: the note.
        verifiers: the known keys.

    Raises:
        InvalidInputError: no note, to the letter.
        IntegrityError: no known key signed it, or a known key's signature does not verify or occurs twice.
    """
    text, signatures = parse_note(data)
    known = {(v.name, v.key_id): v for v in verifiers}
    verified: dict[tuple[str, bytes], Signature] = {}
    unverified: list[Signature] = []
    for signature in signatures:
        key = (signature.name, signature.key_id)
        if key not in known:
            unverified.append(signature)
            continue
        if key in verified:
            raise IntegrityError(f"{signature.name} signed the note twice")
        signature.check(text, known[key])
        verified[key] = signature
    if not verified:
        raise IntegrityError("no known key signed the note")
    return Note(text, tuple(verified.values()), tuple(unverified))


def add_signatures(data: bytes, signatures: Sequence[Signature]) -> bytes:
    """Return the note with further signatures; one by a key that has signed already takes the place of the older one.

    Raises:
        InvalidInputError: no note, to the letter.
    """
    text, there = parse_note(data)
    merged = {(s.name, s.key_id): s for s in (*there, *signatures)}
    return (text + "\n" + "".join(s.to_line() for s in merged.values())).encode()


def cosigned_message(text: str, at: int) -> bytes:
    """Return what a cosignature at this POSIX second signs."""
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def cosign(text: str, at: int, name: str, public_key: bytes, sign: Sign) -> Signature:
    """Return a witness's cosignature of a checkpoint.

    Args:
        text: the checkpoint's text.
        at: when, in POSIX seconds.
        name: the witness's name.
        public_key: its key, 32 bytes.
        sign: makes the signature; what it returns is checked.

    Raises:
        IntegrityError: `sign` returned no signature of this key.
        InvalidInputError: the text is no checkpoint.
    """
    Checkpoint.parse(text)
    verifier = Verifier.of(name, public_key, Algorithm.COSIGNATURE)
    signature = Signature(name, verifier.key_id, at.to_bytes(_TIME_BYTES, "big") + sign(cosigned_message(text, at)))
    signature.check(text, verifier)
    return signature


def verify_cosignature(text: str, signature: Signature, verifier: Verifier) -> int:
    """Return when the witness cosigned the checkpoint, in POSIX seconds.

    Raises:
        IntegrityError: this witness did not cosign this text.
    """
    if verifier.algorithm is not Algorithm.COSIGNATURE:
        raise IntegrityError(f"the key of {verifier.name} is not one for cosignatures")
    signature.check(text, verifier)
    return signature.timestamp or 0


def _is_clean(text: str) -> bool:
    return _CONTROL.search(text) is None


def _decode(text: str) -> bytes | None:
    """Return the bytes of base64 in its one canonical form, else None."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.b64encode(raw).decode() == text else None
