"""Signatures of webhooks, as Standard Webhooks 1.0 defines them (https://www.standardwebhooks.com).

- The secret is shown as `whsec_` and base64. What is signed is `<id>.<timestamp>.<body>`; a signature is `v1,` and the base64 of
  HMAC-SHA256 over it. While a secret is being rotated there are two, with a space between them.
- A webhook that MLflow's clients made is signed as MLflow signs: the same HMAC, its key the secret's text, in headers of MLflow's names.
- The secret is derived and not stored: HMAC-SHA256, by a key that never leaves KMS, over the webhook's name and the secret's number.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Final

PREFIX: Final = "whsec_"


def secret_message(webhook: str, number: int) -> bytes:
    """Return what the key makes a code over, which is the secret: `webhook/<name>/<number>`."""
    return f"webhook/{webhook}/{number}".encode()


def show_secret(secret: bytes) -> str:
    """Return a secret as its receiver keeps it."""
    return PREFIX + base64.b64encode(secret).decode()


def sign_webhook(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return one signature: `v1,<base64>`.

    Args:
        secret: the secret's bytes.
        message_id: the ID; it has no dot.
        timestamp: POSIX seconds.
        body: the body's bytes.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()}"


def webhook_headers(secrets: Sequence[bytes], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers of a request: ID, time, and a signature by each secret, the present one first."""
    timestamp = int(at.timestamp())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign_webhook(secret, message_id, timestamp, body) for secret in secrets),
        "content-type": "application/json",
    }


def mlflow_headers(secret: str, delivery_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers of a request in MLflow's form (`mlflow.webhooks`, 3.x): ID, time, and the signature where there is a secret.

    Args:
        secret: the text that the client chose; empty for none, and then nothing is signed.
        delivery_id: the same at each try.
        at: the time of this try.
        body: the body's bytes.
    """
    timestamp = int(at.timestamp())
    headers = {"x-mlflow-delivery-id": delivery_id, "x-mlflow-timestamp": str(timestamp), "content-type": "application/json"}
    return {**headers, "x-mlflow-signature": sign_webhook(secret.encode(), delivery_id, timestamp, body)} if secret else headers
