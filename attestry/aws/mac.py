"""Message authentication codes by a KMS key whose material never leaves KMS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import translate

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient


class KmsMacKey:
    """`attestry.ports.MacKey` over an `HMAC_256` key.

    Args:
        client: KMS client.
        key_id: the key's ARN.
    """

    def __init__(self, client: KMSClient, key_id: str) -> None:
        self._client = client
        self._key_id = key_id

    def mac(self, message: bytes) -> bytes:
        """Return HMAC-SHA256 over a message of at most 4,096 bytes.

        Raises:
            UnavailableError: KMS did not answer.
        """
        try:
            return self._client.generate_mac(KeyId=self._key_id, Message=message, MacAlgorithm="HMAC_SHA_256")["Mac"]
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"derive a secret by {self._key_id}") from error
