"""Locks of objects over S3 Object Lock, and the deletion of object versions.

A version that is retained, or under a legal hold, is not deleted by S3 whoever asks. The right to pass over the retention of
GOVERNANCE mode is given to nobody (`infra/stores.py`), and none of these calls asks for it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import error_code, http_status, translate
from attestry.domain.errors import InvalidInputError
from attestry.domain.events import timestamp
from attestry.ports import ObjectLock

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MODES: Final = ("GOVERNANCE", "COMPLIANCE")
_REFUSED: Final = ("AccessDenied", "AccessForbidden", "InvalidRequest", "ObjectLocked")


class S3ObjectCustody:
    """`attestry.ports.ObjectCustody` over a bucket with Object Lock.

    Args:
        client: SigV4 S3 client.
        bucket: the bucket's name.
    """

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def lock_of(self, key: str, version_id: str) -> ObjectLock | None:
        """Return what S3 knows of a version, or None where it is gone."""
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=key, VersionId=version_id, ChecksumMode="ENABLED")
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and http_status(error) in (404, 405):
                return None
            raise translate(error, f"look up object {key}") from error
        whole = head.get("ChecksumSHA256", "")
        # Of an object without a lock S3 leaves the fields out, whatever the stubs say.
        locked: Mapping[str, Any] = {name: head.get(name) for name in ("ObjectLockRetainUntilDate", "ObjectLockMode")}
        until = locked["ObjectLockRetainUntilDate"]
        return ObjectLock(
            # The checksum of an upload in parts covers the digests of its parts, not the object.
            sha256=base64.b64decode(whole).hex() if whole and "-" not in whole else "",
            retained_until=timestamp(until.astimezone(UTC)) if until else "",
            mode=str(locked["ObjectLockMode"] or ""),
            legal_hold=head.get("ObjectLockLegalHoldStatus") == "ON",
        )

    def set_legal_hold(self, key: str, version_id: str, *, on: bool) -> None:
        """Place or lift the legal hold of a version."""
        hold: Any = {"Status": "ON" if on else "OFF"}
        try:
            self._client.put_object_legal_hold(Bucket=self._bucket, Key=key, VersionId=version_id, LegalHold=hold)
        except (BotoCoreError, ClientError) as error:
            if not _is_gone(error):
                raise translate(error, f"set the legal hold of object {key}") from error

    def retain(self, key: str, version_id: str, *, mode: str, until: datetime) -> None:
        """Retain a version; S3 refuses a time before the one that is set, and to weaken COMPLIANCE."""
        if mode not in _MODES:
            raise InvalidInputError.of("mode", "one_of", f"a mode of Object Lock is {' or '.join(_MODES)}")
        retention: Any = {"Mode": mode, "RetainUntilDate": until}
        try:
            self._client.put_object_retention(Bucket=self._bucket, Key=key, VersionId=version_id, Retention=retention)
        except (BotoCoreError, ClientError) as error:
            if not _is_gone(error):
                raise translate(error, f"extend the lock of object {key}") from error

    def delete_version(self, key: str, version_id: str) -> bool:
        """Delete a version for good; False where a lock, or the bucket's policy, stands against it."""
        try:
            self._client.delete_object(Bucket=self._bucket, Key=key, VersionId=version_id)
        except (BotoCoreError, ClientError) as error:
            if _is_gone(error):
                return True
            if isinstance(error, ClientError) and error_code(error) in _REFUSED:
                return False
            raise translate(error, f"delete a version of object {key}") from error
        return True


def _is_gone(error: BotoCoreError | ClientError) -> bool:
    return isinstance(error, ClientError) and error_code(error) in ("NoSuchKey", "NoSuchVersion", "404", "MethodNotAllowed")
