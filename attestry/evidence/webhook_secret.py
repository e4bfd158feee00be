"""Secrets of webhooks that their owners chose, as rows hold them: encrypted, since they cannot be derived.

AES-256-GCM (NIST SP 800-38D) under a key that is the code of a KMS key over the webhook's name and the secret's number, so that each key
encrypts one secret, and who cannot have codes made cannot read it. The name is authenticated with it, so that a secret which was moved to
another row opens nothing.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from attestry.domain.errors import IntegrityError

NONCE_BYTES: Final = 12


def seal_message(webhook: str, number: int) -> bytes:
    """Return what the key of a sealed secret is the code of; nothing else is (see `webhook_signature.secret_message`)."""
    return f"webhook-seal/{webhook}/{number}".encode()


def seal_secret(key: bytes, webhook: str, secret: str, nonce: bytes) -> str:
    """Return a secret as its row holds it: base64 of nonce and ciphertext.

    Args:
        key: 32 bytes.
        webhook: the webhook's name.
        secret: the text; empty for none, which stays empty.
        nonce: `NONCE_BYTES` random bytes.
    """
    if not secret:
        return ""
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, secret.encode(), webhook.encode())).decode()


def open_secret(key: bytes, webhook: str, sealed: str) -> str:
    """Return the secret that was sealed; empty where there is none.

    Raises:
        IntegrityError: it was changed, or sealed for another webhook or number.
    """
    if not sealed:
        return ""
    try:
        raw = base64.b64decode(sealed, validate=True)
        return AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], webhook.encode()).decode()
    except (InvalidTag, ValueError, binascii.Error) as error:
        raise IntegrityError(f"the secret of the webhook {webhook} is not the one that was sealed") from error
