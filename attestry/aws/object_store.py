"""The object store over one versioned S3 bucket.

Every object that counts is written with `If-None-Match: *`, so that a key is written once, and is digested on the way. A
retry finds its own object there and compares instead of writing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BufferedReader, BytesIO
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import error_code, http_status, translate
from attestry.aws.streams import CHUNK, BodyReader, digest_stream, read_fully
from attestry.domain.errors import AttestryError, IntegrityError, InvalidInputError, NotFoundError, UnavailableError
from attestry.ports import ListedVersion, StoredObject

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES: Final = 16 * 1024 * 1024
"""Size of a multipart part; 10,000 of them make 156 GiB, more than a function should move."""

_MAX_PARTS = 10_000
_CONFLICT_TRIES = 4

RetentionMode = Literal["COMPLIANCE", "GOVERNANCE"]


class S3ObjectStore:
    """`attestry.ports.ObjectStore` over a bucket.

    Args:
        client: SigV4 S3 client.
        bucket: the bucket's name.
        retention: Object Lock mode and days for objects that are put with `retain`; None leaves them without a lock.
        kms_key: key ARN for SSE-KMS; None leaves encryption to the bucket's default.
        part_bytes: streams up to this size go as one PUT, larger ones in parts of it; at least 5 MiB on AWS.
    """

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        *,
        retention: tuple[RetentionMode, int] | None = None,
        kms_key: str | None = None,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._retention = retention
        self._encryption: dict[str, Any] = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
        self._part_bytes = part_bytes

    def put_new(
        self, key: str, body: bytes | IO[bytes], *, content_type: str = "application/octet-stream", retain: bool = False
    ) -> StoredObject:
        """Write an object that must not exist yet, digesting on the way; memory holds one part at a time.

        If the key exists with the same bytes, what is there is returned, and its Object Lock is extended to what `retain`
        asks for.

        Raises:
            IntegrityError: the key exists with other bytes.
            UnavailableError: S3 did not answer, or another writer of the same key was at work all along.
        """
        stream: IO[bytes] = BytesIO(body) if isinstance(body, bytes) else body
        settings = {"ContentType": content_type, **self._encryption, **(self._lock() if retain else {})}
        first = read_fully(stream, self._part_bytes)
        rest = read_fully(stream, 1) if len(first) == self._part_bytes else b""
        if not rest:
            return self._put_bytes(key, first, settings, retain)
        return _MultipartPut(self, key, settings, retain).run(first, rest, stream)

    def _put_bytes(self, key: str, body: bytes, settings: dict[str, Any], retain: bool) -> StoredObject:
        digest = hashlib.sha256(body)
        checksum = base64.b64encode(digest.digest()).decode()
        for _ in range(_CONFLICT_TRIES):
            try:
                answer = self._client.put_object(
                    Bucket=self._bucket, Key=key, Body=body, IfNoneMatch="*", ChecksumSHA256=checksum, **settings
                )
            except ClientError as error:
                if http_status(error) == 412:
                    return self._same_or_refuse(key, digest.hexdigest(), len(body), retain)
                # 409: another conditional write of the key was under way; S3 asks for a retry.
                if http_status(error) != 409:
                    raise translate(error, f"write object {key}") from error
            except BotoCoreError as error:
                raise translate(error, f"write object {key}") from error
            else:
                return StoredObject(key, answer.get("VersionId", ""), len(body), digest.hexdigest())
        raise UnavailableError(f"other writes of object {key} were in the way {_CONFLICT_TRIES} times")

    def _same_or_refuse(self, key: str, sha256: str, size: int, retain: bool) -> StoredObject:
        """Return what lies at a taken key if it has these bytes, else raise IntegrityError."""
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and _is_absent(error):
                raise UnavailableError(f"object {key} was there and is gone: another write of it is under way") from error
            raise translate(error, f"read object {key}") from error
        version = head.get("VersionId", "")
        found = head["ContentLength"]
        if found == size:
            whole = head.get("ChecksumSHA256", "")
            # S3 itself verified a whole-object checksum when it was stored; that of an upload in parts covers their digests.
            if whole and "-" not in whole:
                digest = base64.b64decode(whole).hex()
            else:
                digest, _ = digest_stream(self.open(key, version or None))
            if digest == sha256:
                if retain:
                    self._extend_lock(key, version)
                return StoredObject(key, version, size, sha256)
        raise IntegrityError(
            f"object {key} exists with other bytes ({found} bytes there, {size} bytes to write)",
            details={"key": key, "sha256": sha256},
        )

    def _lock(self) -> dict[str, Any]:
        if self._retention is None:
            return {}
        mode, days = self._retention
        # Until the end of a day, because S3 refuses a date before the one that is set: of two writers of the same bytes at once, the
        # one that read the clock first would fail if it came second.
        until = (datetime.now(UTC) + timedelta(days=days + 1)).replace(hour=0, minute=0, second=0, microsecond=0)
        return {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": until}

    def _extend_lock(self, key: str, version_id: str) -> None:
        lock = self._lock()
        if not lock:
            return
        retention: Any = {"Mode": lock["ObjectLockMode"], "RetainUntilDate": lock["ObjectLockRetainUntilDate"]}
        try:
            self._client.put_object_retention(Bucket=self._bucket, Key=key, VersionId=version_id, Retention=retention)
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"extend the lock of object {key}") from error

    def put(self, key: str, body: bytes, *, content_type: str = "application/octet-stream") -> None:
        """Write or overwrite an object that is not evidence."""
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                ContentType=content_type,
                ChecksumSHA256=checksum,
                **self._encryption,
            )
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"write object {key}") from error

    def open(self, key: str, version_id: str | None = None) -> IO[bytes]:
        """Return a buffered stream over the object, of exactly this version where one is named.

        Raises:
            NotFoundError: no such object or version, or the version is a delete marker.
        """
        body, _ = self._get(key, version_id)
        return body

    def read(self, key: str, version_id: str | None = None, *, max_bytes: int) -> bytes:
        """Return the bytes.

        Raises:
            NotFoundError: no such object or version.
            InvalidInputError: the object is larger than `max_bytes`; nothing of it is read.
        """
        body, size = self._get(key, version_id)
        with body:
            if size > max_bytes:
                raise InvalidInputError.of(key, "max_bytes", f"the object has {size} bytes; the limit is {max_bytes}")
            return body.read()

    def _get(self, key: str, version_id: str | None) -> tuple[IO[bytes], int]:
        which: dict[str, Any] = {"VersionId": version_id} if version_id else {}
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key, **which)
        except (BotoCoreError, ClientError) as error:
            raise self._reading_error(error, key, version_id) from error
        return BufferedReader(BodyReader(answer["Body"], f"read object {key}"), CHUNK), answer["ContentLength"]

    def stat(self, key: str) -> StoredObject | None:
        """Return where the latest version is, without its digest, or None."""
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=key)
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and _is_absent(error):
                return None
            raise translate(error, f"look up object {key}") from error
        return StoredObject(key, head.get("VersionId", ""), head["ContentLength"], "")

    def list_versions(self, prefix: str) -> Iterator[ListedVersion]:
        """Yield every version and delete marker below the prefix by key, the latest of a key first."""
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix)
        try:
            for page in pages:
                entries = [ListedVersion(v["Key"], v["VersionId"], v["Size"], v["IsLatest"], False) for v in page.get("Versions", [])]
                entries += [ListedVersion(m["Key"], m["VersionId"], 0, m["IsLatest"], True) for m in page.get("DeleteMarkers", [])]
                yield from sorted(entries, key=lambda e: (e.key, not e.is_latest))
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"list the versions below {prefix}") from error

    def presign_get(self, key: str, version_id: str | None, *, seconds: int) -> str:
        """Return a URL that reads exactly this version until it, or the credentials that signed it, expire."""
        which = {"VersionId": version_id} if version_id else {}
        try:
            return self._client.generate_presigned_url(
                "get_object", Params={"Bucket": self._bucket, "Key": key, **which}, ExpiresIn=seconds
            )
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"sign a read of object {key}") from error

    def presign_put_new(self, key: str, *, sha256: str, size: int, seconds: int) -> tuple[str, dict[str, str]]:
        """Return a URL and the headers of a PUT that is refused unless key is free and body has this digest and size.

        Precondition, checksum and length are among the signed headers: to leave one out breaks the signature.
        """
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        parameters = {
            "Bucket": self._bucket,
            "Key": key,
            "IfNoneMatch": "*",
            "ChecksumSHA256": checksum,
            "ContentLength": size,
        }
        try:
            url = self._client.generate_presigned_url("put_object", Params=parameters, ExpiresIn=seconds)
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"sign a write of object {key}") from error
        return url, {"If-None-Match": "*", "x-amz-checksum-sha256": checksum, "Content-Length": str(size)}

    def presign_post(self, key: str, *, max_bytes: int, seconds: int) -> dict[str, Any]:
        """Return `url` and `fields` of a browser-style POST of at most `max_bytes`; the last field to add is `file`."""
        try:
            return self._client.generate_presigned_post(
                self._bucket, key, Conditions=[["content-length-range", 0, max_bytes]], ExpiresIn=seconds
            )
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"sign a post of object {key}") from error

    def _reading_error(self, error: BotoCoreError | ClientError, key: str, version_id: str | None) -> AttestryError:
        if isinstance(error, ClientError) and _is_absent(error):
            return NotFoundError(f"there is no object {key}" + (f" of version {version_id}" if version_id else ""), details={"key": key})
        return translate(error, f"read object {key}")


class _MultipartPut:
    """One multipart upload of a stream, completed only if the key is still free."""

    def __init__(self, store: S3ObjectStore, key: str, settings: dict[str, Any], retain: bool) -> None:
        self._store, self._key, self._settings, self._retain = store, key, settings, retain
        self._client = store._client
        self._where: dict[str, Any] = {"Bucket": store._bucket, "Key": key}
        self._digest, self._size = hashlib.sha256(), 0

    def run(self, first: bytes, second: bytes, stream: IO[bytes]) -> StoredObject:
        """Upload `first`, `second` and the rest of the stream."""
        parts = self._parts(first, second, stream)
        if self._store.stat(self._key) is not None:
            for part in parts:
                self._count(part)
            return self._store._same_or_refuse(self._key, self._digest.hexdigest(), self._size, self._retain)
        act = f"write object {self._key}"
        try:
            upload = self._client.create_multipart_upload(**self._where, ChecksumAlgorithm="SHA256", **self._settings)["UploadId"]
            try:
                return self._upload(upload, parts)
            except BaseException:
                # Parts of an unfinished upload cost money; a lifecycle rule sweeps what a crash leaves.
                self._client.abort_multipart_upload(**self._where, UploadId=upload)
                raise
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and http_status(error) == 412:
                return self._store._same_or_refuse(self._key, self._digest.hexdigest(), self._size, self._retain)
            if isinstance(error, ClientError) and http_status(error) == 409:
                raise UnavailableError(f"another write of object {self._key} was under way") from error
            raise translate(error, act) from error

    def _upload(self, upload: str, parts: Iterator[bytes]) -> StoredObject:
        done: list[CompletedPartTypeDef] = []
        for number, part in enumerate(parts, start=1):
            if number > _MAX_PARTS:
                limit = _MAX_PARTS * self._store._part_bytes
                raise InvalidInputError.of(self._key, "max_object_bytes", f"the object has more than {limit} bytes")
            self._count(part)
            checksum = base64.b64encode(hashlib.sha256(part).digest()).decode()
            answer = self._client.upload_part(**self._where, UploadId=upload, PartNumber=number, Body=part, ChecksumSHA256=checksum)
            done.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum})
        end = self._client.complete_multipart_upload(**self._where, UploadId=upload, MultipartUpload={"Parts": done}, IfNoneMatch="*")
        return StoredObject(self._key, end.get("VersionId", ""), self._size, self._digest.hexdigest())

    def _count(self, part: bytes) -> None:
        self._digest.update(part)
        self._size += len(part)

    def _parts(self, first: bytes, second: bytes, stream: IO[bytes]) -> Iterator[bytes]:
        yield first
        part = second + read_fully(stream, self._store._part_bytes - len(second))
        while part:
            yield part
            part = read_fully(stream, self._store._part_bytes)


def _is_absent(error: ClientError) -> bool:
    # 405 is S3's answer to a read of a delete marker by its version ID.
    return http_status(error) in (404, 405) and error_code(error) != "NoSuchBucket"
