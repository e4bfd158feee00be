"""A public key that a trusted root names: what it speaks for, and its window of validity.

The window is half open: `start` is the first moment at which the key is valid, `end` the first at which it is no longer.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.canonical import canonical_bytes

ED25519: Final = "PKIX_ED25519"
ES256: Final = "PKIX_ECDSA_P256_SHA_256"

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z", re.ASCII)
NAME_FORM = re.compile(r"[!-*,-~]{1,256}")
"""Printable ASCII without spaces and `+`: a name can stand in a signed note."""

_SPKI_HEAD: Final = {
    ED25519: bytes.fromhex("302a300506032b6570032100"),
    ES256: bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
}
"""DER of the SubjectPublicKeyInfo up to the key's own bytes: RFC 8410, and RFC 5480 with an uncompressed point."""

_SPKI_BYTES: Final = {ED25519: 44, ES256: 91}


@dataclass(frozen=True)
class TrustedKey:
    """A key, what it speaks for, and when.

    Attributes:
        name: origin of a ledger, name of a witness, or function of a signer; empty for a delegator.
        key_id: ARN of the KMS key; empty where the document names none.
        details: `PKIX_ED25519` or `PKIX_ECDSA_P256_SHA_256`.
        der: SubjectPublicKeyInfo.
        start: first moment at which the key is valid, RFC 3339 UTC with microseconds.
        end: first moment at which it is no longer; None for an open window.
        outside: of a witness: whether it stands in an account of somebody else.

    Raises:
        InvalidInputError: on creation, when a part is out of form.
    """

    name: str
    key_id: str
    details: str
    der: bytes = field(repr=False)
    start: str
    end: str | None = None
    outside: bool = False

    def __post_init__(self) -> None:
        if (self.name and not NAME_FORM.fullmatch(self.name)) or (self.key_id and not NAME_FORM.fullmatch(self.key_id)):
            raise _invalid("name", f"{self.name or self.key_id!r} is no name of a key")
        if not (self.name or self.key_id):
            raise _invalid("name", "a key has a name or an ARN")
        head = _SPKI_HEAD.get(self.details)
        if head is None or len(self.der) != _SPKI_BYTES[self.details] or not self.der.startswith(head):
            raise _invalid("publicKey", f"{self.name or self.key_id} has no public key of the kind {self.details}")
        check_time(self.start)
        if self.end is not None:
            check_time(self.end)
            if self.end < self.start:
                raise _invalid("validFor", f"the window of {self.name or self.key_id} ends before it starts")

    @property
    def fingerprint(self) -> str:
        """Return SHA-256 of the DER in hex: the key ID of DSSE envelopes, and what people compare."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def public_bytes(self) -> bytes:
        """Return the key's own bytes: 32 of Ed25519; x and y of P-256."""
        return self.der[len(_SPKI_HEAD[self.details]) :]

    def is_valid_at(self, at: str) -> bool:
        """Return whether the moment lies in the window.

        Args:
            at: ledger time, RFC 3339 UTC with microseconds.

        Raises:
            InvalidInputError: `at` is no such time.
        """
        check_time(at)
        # Texts of one length and form sort as the times do.
        return self.start <= at and (self.end is None or at < self.end)

    def require_valid_at(self, at: str) -> None:
        """Refuse a moment outside the window.

        Raises:
            IntegrityError: the key was not valid then.
        """
        if not self.is_valid_at(at):
            until = f"before {self.end}" if self.end else "without end"
            raise IntegrityError(
                f"the key {self.fingerprint[:16]} of {self.name or self.key_id} is valid from {self.start} {until}; not at {at}",
                details={"key": self.fingerprint, "at": at},
            )


def details_of(der: bytes) -> str:
    """Return the kind of a public key by its SubjectPublicKeyInfo.

    Raises:
        InvalidInputError: neither Ed25519 nor P-256.
    """
    for details, head in _SPKI_HEAD.items():
        if der.startswith(head) and len(der) == _SPKI_BYTES[details]:
            return details
    raise _invalid("publicKey", "the public key is neither Ed25519 nor P-256")


def ed25519_der(public_key: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo (RFC 8410) of the 32 bytes of an Ed25519 key."""
    if len(public_key) != 32:
        raise _invalid("publicKey", "an Ed25519 public key has 32 bytes")
    return _SPKI_HEAD[ED25519] + public_key


def thumbprint(key: TrustedKey) -> str:
    """Return the RFC 7638 thumbprint of a P-256 key."""
    x, y = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (key.public_bytes[:32], key.public_bytes[32:]))
    digest = hashlib.sha256(canonical_bytes({"crv": "P-256", "kty": "EC", "x": x, "y": y})).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def check_time(text: str) -> None:
    """Refuse what is not RFC 3339 in UTC with microseconds.

    Raises:
        InvalidInputError: it is not.
    """
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        datetime.fromisoformat(text)
    except ValueError as error:
        raise _invalid("validFor", f"{text!r} is no time in UTC with microseconds") from error


def _invalid(where: str, message: str) -> InvalidInputError:
    return InvalidInputError.of(where, "trusted_key", message)
