"""Signing with a KMS key whose private half never leaves KMS."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from attestry.aws.errors import ConfigurationError, translate
from attestry.domain.errors import InvalidInputError

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

MAX_RAW_BYTES: Final = 4096
"""What KMS signs as it stands, without a digest made by the caller."""

_P256_BYTES: Final = 32


class KmsSigner:
    """`attestry.ports.Signer` over an `ECC_NIST_P256` key.

    Args:
        client: KMS client.
        key_id: the key's ARN, which names it in signatures.
    """

    def __init__(self, client: KMSClient, key_id: str) -> None:
        self._client = client
        self._key_id = key_id

    @property
    def key_id(self) -> str:
        """Return the key's ARN."""
        return self._key_id

    def sign_es256(self, message: bytes) -> bytes:
        """Return the 64-byte r‖s ECDSA P-256 signature over SHA-256 of the message (RFC 7518 section 3.4).

        The digest is signed (`MessageType=DIGEST`), because KMS takes raw messages of at most 4,096 bytes.

        Raises:
            UnavailableError: KMS did not answer.
        """
        digest = hashlib.sha256(message).digest()
        try:
            der = self._client.sign(KeyId=self._key_id, Message=digest, MessageType="DIGEST", SigningAlgorithm="ECDSA_SHA_256")["Signature"]
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"sign with {self._key_id}") from error
        r, s = decode_dss_signature(der)
        return r.to_bytes(_P256_BYTES, "big") + s.to_bytes(_P256_BYTES, "big")

    def public_key_der(self) -> bytes:
        """Return the SubjectPublicKeyInfo in DER; asked for once."""
        return self._public_key_der

    @cached_property
    def _public_key_der(self) -> bytes:
        try:
            return self._client.get_public_key(KeyId=self._key_id)["PublicKey"]
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"read the public key of {self._key_id}") from error


class KmsNoteSigner:
    """`attestry.ports.NoteSigner` over an `ECC_NIST_EDWARDS25519` key.

    Args:
        client: KMS client.
        key_id: the key's ARN.
    """

    def __init__(self, client: KMSClient, key_id: str) -> None:
        self._client = client
        self._key_id = key_id

    @property
    def key_id(self) -> str:
        """Return the key's ARN."""
        return self._key_id

    def sign_ed25519(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature (RFC 8032) over a message of at most 4,096 bytes.

        The message itself is signed (`MessageType=RAW`): over a digest KMS would make Ed25519ph, which note verifiers refuse.

        Raises:
            InvalidInputError: the message is longer than KMS takes.
            UnavailableError: KMS did not answer.
        """
        if len(message) > MAX_RAW_BYTES:
            raise InvalidInputError.of("", "max_bytes", f"KMS signs at most {MAX_RAW_BYTES} bytes as they stand, not {len(message)}")
        try:
            answer = self._client.sign(KeyId=self._key_id, Message=message, MessageType="RAW", SigningAlgorithm="ED25519_SHA_512")
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"sign with {self._key_id}") from error
        return answer["Signature"]

    def public_key(self) -> bytes:
        """Return the public key, 32 bytes; asked for once."""
        return self._public_key

    @cached_property
    def _public_key(self) -> bytes:
        try:
            der = self._client.get_public_key(KeyId=self._key_id)["PublicKey"]
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"read the public key of {self._key_id}") from error
        # Imported here because the signers of everything else do without, and it costs their functions' start.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        key = load_der_public_key(der)
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigurationError(f"{self._key_id} is no Ed25519 key")
        return key.public_bytes_raw()
