"""A person's own signature over a document: OpenSSH's SSHSIG, as `ssh-keygen -Y sign -n attestry-approval` makes it.

Rules:
- What is signed is the ASCII text `<the document's SHA-256 in hex>` and a line feed: of a decision packet in the namespace
  `attestry-approval`, of a validation record in `attestry-validation`. A signature in the one never counts in the other. The text names no
  verdict: the namespace says "approve", so a signature never stands beside a rejection.
- A signature counts only if its key is one of those that the registry holds for the person. The key that it carries is never trusted.
- Ed25519 alone (`ssh-ed25519`). RSA is left out for its many encodings of one signature; ECDSA and hardware-backed `sk-` keys are left out
  because `sshsig`, which verifies, does not know them.
- A document that `ssh-keygen` would not have written byte for byte is refused: other line lengths, bytes after the end, a reserved
  field that is not empty, another hash than SHA-256 or SHA-512. `sshsig` passes over these.
- A key of small order is refused: under such a key anybody can make signatures, so it would prove nothing about a person.

The format is told in OpenSSH's `PROTOCOL.sshsig`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sshsig import InvalidSignature, check_signature
from sshsig.sshsig import SshsigSignature

from attestry.domain.errors import IntegrityError, InvalidInputError

NAMESPACE: Final = "attestry-approval"
RECORD_NAMESPACE: Final = "attestry-validation"
MAX_SIGNATURE_BYTES: Final = 1024

_BEGIN, _END, _COLUMNS = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----", 70
_TYPE = "ssh-ed25519"
_TYPE_FIELD = len(_TYPE).to_bytes(4, "big") + _TYPE.encode()
_KEY_HEAD = _TYPE_FIELD + (32).to_bytes(4, "big")
_SIGNATURE_HEAD = _TYPE_FIELD + (64).to_bytes(4, "big")
_HASHES = (b"sha256", b"sha512")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_KEY_LENGTH = 1024

_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""The y coordinates of the points of order 1, 2, 4 and 8, the encodings that are not reduced included."""


@dataclass(frozen=True)
class SshKey:
    """An Ed25519 key of a person.

    Attributes:
        text: `ssh-ed25519 <base64>`, without a comment.
        fingerprint: `SHA256:<base64>`, as `ssh-keygen -l` prints it.
    """

    text: str
    fingerprint: str

    @classmethod
    def parse(cls, line: str) -> SshKey:
        """Return the key of a line of a `.pub` file; its comment is dropped.

        Raises:
            InvalidInputError: no single line with a key, another kind of key, or one that proves nothing.
        """
        if "PRIVATE KEY" in line:
            raise _refused("this is a private key; give the public one, the file whose name ends in .pub")
        parts = line.split(maxsplit=2)
        if len(line) > _MAX_KEY_LENGTH or len(line.strip().splitlines()) != 1 or len(parts) < 2:
            raise _refused("one line `ssh-ed25519 <base64>` is needed, as a .pub file holds it")
        if parts[0] != _TYPE:
            raise _refused(f"the key is {parts[0][:40]!r}; only {_TYPE} keys are accepted: ssh-keygen -t ed25519")
        blob = _from_base64(parts[1])
        if blob is None or not blob.startswith(_KEY_HEAD) or len(blob) != len(_KEY_HEAD) + 32:
            raise _refused(f"this is no {_TYPE} key")
        return cls.of_blob(blob)

    @classmethod
    def of_blob(cls, blob: bytes) -> SshKey:
        """Return the key of its wire form (RFC 8709 section 4).

        Raises:
            InvalidInputError: a key of small order.
        """
        point = blob[len(_KEY_HEAD) :]
        if bytes((*point[:31], point[31] & 0x7F)) in _SMALL_ORDER:
            raise _refused("under this key anybody can sign; make another one: ssh-keygen -t ed25519")
        fingerprint = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        return cls(f"{_TYPE} {base64.b64encode(blob).decode()}", f"SHA256:{fingerprint}")


def approval_message(packet_sha256: str) -> bytes:
    """Return the bytes that an approver signs for a packet, and a validator for a record: its digest.

    Raises:
        InvalidInputError: no SHA-256 in lower-case hex.
    """
    if not _DIGEST.fullmatch(packet_sha256):
        raise InvalidInputError.of("packet_sha256", "sha256", "a SHA-256 of 64 lower-case hex digits is needed")
    return f"{packet_sha256}\n".encode("ascii")


def verify_approval(armored: bytes, packet_sha256: str, keys: Iterable[str], *, namespace: str = NAMESPACE) -> SshKey:
    """Return the key that made a person's signature over a packet, or over a validation record.

    Args:
        armored: the signature as `ssh-keygen -Y sign` wrote it.
        packet_sha256: digest of the packet that was approved, or of the record.
        keys: the person's registered keys, each `ssh-ed25519 <base64>`.
        namespace: the one that the signature has to be of.

    Raises:
        InvalidInputError: no signature in the form in which `ssh-keygen` writes it, or a registered key out of form.
        IntegrityError: the signature is another key's, of another namespace, or over something else.
    """
    message = approval_message(packet_sha256)
    signature = _parse(armored)
    key = SshKey.of_blob(signature.public_key)
    if key.text not in {SshKey.parse(line).text for line in keys}:
        raise IntegrityError(f"the signature is by the key {key.fingerprint}, which is not registered for this person")
    if signature.namespace != namespace.encode():
        name = signature.namespace.decode("utf-8", "replace")[:80]
        raise IntegrityError(f"the signature is of the namespace {name!r}, not {namespace!r}")
    try:
        check_signature(message, armored, namespace)
    except (InvalidSignature, NotImplementedError, ValueError) as error:
        what = "packet" if namespace == NAMESPACE else "record"
        raise IntegrityError(f"the signature by {key.fingerprint} is not over the {what} {packet_sha256}") from error
    return key


def signing_key(armored: bytes) -> SshKey:
    """Return the key that a signature names, which is to be compared with one that is known; the signature is not verified.

    Raises:
        InvalidInputError: no signature in the form in which `ssh-keygen` writes it.
    """
    return SshKey.of_blob(_parse(armored).public_key)


def _parse(armored: bytes) -> SshsigSignature:
    """Return the signature's fields, provided that the text is exactly what `ssh-keygen` writes for them."""
    try:
        text = armored.decode("ascii") if len(armored) <= MAX_SIGNATURE_BYTES else ""
    except UnicodeDecodeError:
        text = ""
    lines = text.split("\n")
    blob = _from_base64("".join(lines[1:-2])) if len(lines) > 3 else None
    if blob is None or text != _armor(blob):
        raise _malformed("it is not armored as `ssh-keygen -Y sign` armors")
    try:
        signature = SshsigSignature(blob)
    except (ValueError, NotImplementedError) as error:
        raise _malformed(str(error) or "it ends too early") from error
    if bytes(signature) != blob:
        raise _malformed("it holds more than a signature")
    if signature.hash_algo not in _HASHES:
        raise _malformed("its hash is neither SHA-256 nor SHA-512")
    if not _is_field(signature.public_key, _KEY_HEAD, 32) or not _is_field(signature.signature, _SIGNATURE_HEAD, 64):
        raise _malformed(f"its key is not {_TYPE}; only such keys are accepted")
    return signature


def _armor(blob: bytes) -> str:
    return "\n".join([_BEGIN, *textwrap.wrap(base64.b64encode(blob).decode(), _COLUMNS), _END, ""])


def _is_field(value: bytes, head: bytes, size: int) -> bool:
    return value.startswith(head) and len(value) == len(head) + size


def _from_base64(text: str) -> bytes | None:
    """Return the bytes, or None where the text is not the one base64 form of them."""
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return blob if base64.b64encode(blob).decode() == text else None


def _refused(why: str) -> InvalidInputError:
    return InvalidInputError.of("ssh_keys", "ssh_key", why)


def _malformed(why: str) -> InvalidInputError:
    return InvalidInputError.of("signature", "sshsig", f"no SSH signature that can be accepted: {why}")
