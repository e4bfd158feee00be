"""Keys of the root of trust as files: Ed25519, PKCS #8 in PEM, encrypted with a passphrase where there is one.

The private half is written once, readable by its owner alone. The public half is a small JSON file that its holder hands over; its
fingerprint is what two people read to each other.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from attestry.domain.errors import ConflictError, InvalidInputError, NotFoundError
from attestry.evidence.canonical import parse_strict

PUBLIC_SUFFIX: Final = ".pub.json"
_MAX_BYTES: Final = 16 * 1024


def make_key(path: Path, passphrase: bytes | None) -> SSlibKey:
    """Make a key: the private half at `path`, the public half beside it with `.pub.json` appended.

    Args:
        path: file of the private half; it must not exist.
        passphrase: encrypts it; None leaves it in the clear, which is for demos and for media that are encrypted themselves.

    Raises:
        ConflictError: the file exists.
    """
    private = Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConflictError(f"{path} exists; a key is never written over another") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    public = CryptoSigner(private).public_key
    public_path(path).write_text(json.dumps({"keyid": public.keyid, **public.to_dict()}, indent=2) + "\n")
    return public


def public_path(path: Path) -> Path:
    """Return where the public half of a key lies."""
    return path.with_name(path.name + PUBLIC_SUFFIX)


def load_signer(path: Path, passphrase: bytes | None) -> CryptoSigner:
    """Return what signs with a key.

    Raises:
        NotFoundError: no such file.
        InvalidInputError: no Ed25519 key in PEM, or the passphrase is missing or wrong.
    """
    try:
        private = load_pem_private_key(_read(path), passphrase)
    except (ValueError, TypeError) as error:
        # cryptography's messages say what is wrong with passphrase or file, and quote neither.
        raise InvalidInputError.of(str(path), "key", f"the key cannot be read: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidInputError.of(str(path), "ed25519", "a key of the root is Ed25519")
    return CryptoSigner(private)


def is_encrypted(path: Path) -> bool:
    """Return whether a key asks for a passphrase.

    Raises:
        NotFoundError: no such file.
    """
    return b"ENCRYPTED" in _read(path).partition(b"\n")[0]


def load_public(path: Path) -> SSlibKey:
    """Return the public key of a `.pub.json` file.

    Raises:
        NotFoundError: no such file.
        InvalidInputError: it is no public Ed25519 key, or its ID is not that of the key.
    """
    value = parse_strict(_read(path))
    try:
        found = dict(value)
        keyid = str(found.pop("keyid"))
        key = Key.from_dict(keyid, found)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError.of(str(path), "public_key", "no public key of the root of trust") from error
    if not isinstance(key, SSlibKey) or key.keytype != "ed25519" or key != SSlibKey.from_crypto(key_object(key)):
        raise InvalidInputError.of(str(path), "public_key", "no public Ed25519 key under its own ID")
    return key


def key_object(key: SSlibKey) -> Any:
    """Return the key as `cryptography` has it.

    Raises:
        InvalidInputError: no Ed25519 key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(str(key.keyval.get("public"))))
    except ValueError as error:
        raise InvalidInputError.of("public", "ed25519", "no Ed25519 key") from error


def raw_public(key: SSlibKey) -> bytes:
    """Return the 32 bytes of a public key."""
    raw: bytes = key_object(key).public_bytes(Encoding.Raw, PublicFormat.Raw)
    return raw


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise InvalidInputError.of(str(path), "size", "too large for a key")
    return data
