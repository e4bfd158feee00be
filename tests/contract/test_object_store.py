"""The contract of `attestry.ports.ObjectStore`, for the adapter over the emulated bucket and for the fake."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import urllib3

from attestry.aws.object_store import S3ObjectStore
from attestry.domain.errors import IntegrityError, InvalidInputError, NotFoundError
from attestry.ports import ObjectStore, StoredObject
from tests.fakes import MemoryObjectStore

PART = 5 * 1024 * 1024
http = urllib3.PoolManager(retries=False)


@pytest.fixture
def s3(client_of: Callable[..., Any], bucket: str) -> S3ObjectStore:
    return S3ObjectStore(client_of("s3"), bucket, retention=("GOVERNANCE", 1), part_bytes=PART)


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return MemoryObjectStore() if request.param == "memory" else request.getfixturevalue("s3")


class Stream(io.RawIOBase):
    """A stream that can be read once and gives little at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._data.read(min(len(buffer), 100_003))
        buffer[: len(piece)] = piece
        return len(piece)


def bytes_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 7])
def test_a_stream_is_written_and_digested_whatever_its_size(store: ObjectStore, unique: str, size: int) -> None:
    data = bytes_of(size)
    stored = store.put_new(f"{unique}/x", Stream(data))  # type: ignore[arg-type]
    assert stored == StoredObject(f"{unique}/x", stored.version_id, size, hashlib.sha256(data).hexdigest())
    assert stored.version_id
    assert store.read(f"{unique}/x", stored.version_id, max_bytes=size) == data


@pytest.mark.parametrize("size", [10, 2 * PART])
def test_the_same_bytes_again_are_what_is_there_already(store: ObjectStore, unique: str, size: int) -> None:
    first = store.put_new(unique, bytes_of(size))
    assert store.put_new(unique, io.BytesIO(bytes_of(size)), retain=True) == first
    assert len(list(store.list_versions(unique))) == 1


@pytest.mark.parametrize("other", [10, 11, 2 * PART])
@pytest.mark.parametrize("size", [12, 2 * PART + 1])
def test_other_bytes_at_a_taken_key_are_refused(store: ObjectStore, unique: str, size: int, other: int) -> None:
    first = store.put_new(unique, bytes_of(size))
    with pytest.raises(IntegrityError, match="other bytes"):
        store.put_new(unique, bytes_of(other))
    with pytest.raises(IntegrityError, match="other bytes"):
        store.put_new(unique, bytes(size))
    assert [v.version_id for v in store.list_versions(unique)] == [first.version_id]


def test_of_eight_concurrent_writers_of_one_key_one_wins(store: ObjectStore, unique: str) -> None:
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def write(i: int) -> None:
        barrier.wait()
        try:
            store.put_new(unique, bytes([i]) * 10)
        except IntegrityError:
            return
        outcomes.append(str(i))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(outcomes) == 1
    assert store.read(unique, max_bytes=10) == bytes([int(outcomes[0])]) * 10


def test_put_overwrites_and_the_old_version_stays_readable(store: ObjectStore, unique: str) -> None:
    first = store.put_new(unique, b"one")
    store.put(unique, b"three")
    assert store.read(unique, max_bytes=10) == b"three"
    assert store.read(unique, first.version_id, max_bytes=10) == b"one"
    assert [(v.size, v.is_latest) for v in store.list_versions(unique)] == [(5, True), (3, False)]


def test_what_is_not_there_is_not_found(store: ObjectStore, unique: str) -> None:
    assert store.stat(unique) is None
    with pytest.raises(NotFoundError):
        store.open(unique)
    with pytest.raises(NotFoundError):
        store.read(unique, max_bytes=1)
    store.put_new(unique, b"")
    with pytest.raises(NotFoundError):
        store.open(unique, "0" * 32)


def test_an_object_over_the_limit_is_not_read(store: ObjectStore, unique: str) -> None:
    store.put_new(unique, b"12345")
    with pytest.raises(InvalidInputError, match="max_bytes"):
        store.read(unique, max_bytes=4)


def test_stat_tells_the_latest_version_without_a_digest(store: ObjectStore, unique: str) -> None:
    stored = store.put_new(unique, b"12345")
    assert store.stat(unique) == StoredObject(unique, stored.version_id, 5, "")


def test_an_opened_object_reads_in_pieces(store: ObjectStore, unique: str) -> None:
    data = bytes_of(1_000_000)
    store.put_new(unique, data)
    with store.open(unique) as stream:
        assert stream.read(10) == data[:10]
        assert stream.read(600_000) == data[10:600_010]
        assert stream.read() == data[600_010:]
        assert stream.read() == b""


def check_listing(store: ObjectStore, unique: str) -> None:
    for i in range(25):
        store.put(f"{unique}/{i % 23:04d}", b"x")
    listed = list(store.list_versions(f"{unique}/"))
    assert len(listed) == 25
    assert [v.key for v in listed] == sorted(v.key for v in listed)
    assert [v.is_latest for v in listed[:4]] == [True, False, True, False]
    assert list(store.list_versions(f"{unique}0")) == []


def test_a_listing_gives_every_version_below_the_prefix_by_key(store: ObjectStore, unique: str) -> None:
    check_listing(store, unique)


def test_a_listing_reads_on_beyond_one_page(client_of: Callable[..., Any], bucket: str, unique: str) -> None:
    client, pages = client_of("s3"), []

    def small_page(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        pages.append(params)
        return {**params, "MaxKeys": 7}

    client.meta.events.register("provide-client-params.s3.ListObjectVersions", small_page)
    check_listing(S3ObjectStore(client, bucket), unique)
    assert len(pages) == 4 + 1


def test_a_delete_marker_is_listed_and_hides_the_object_but_not_its_version(
    client_of: Callable[..., Any], bucket: str, s3: S3ObjectStore, unique: str
) -> None:
    stored = s3.put_new(unique, b"x")
    marker = client_of("s3").delete_object(Bucket=bucket, Key=unique)["VersionId"]
    assert [(v.is_delete_marker, v.is_latest) for v in s3.list_versions(unique)] == [(True, True), (False, False)]
    assert s3.stat(unique) is None
    assert s3.read(unique, stored.version_id, max_bytes=1) == b"x"
    with pytest.raises(NotFoundError):
        s3.read(unique, marker, max_bytes=1)


class TestPresignedUrls:
    """Over HTTP, as a sandbox or a client uses them."""

    def test_a_get_reads_exactly_its_version(self, s3: S3ObjectStore, unique: str) -> None:
        first = s3.put_new(unique, b"one")
        s3.put(unique, b"two")
        assert http.request("GET", s3.presign_get(unique, first.version_id, seconds=60)).data == b"one"
        assert http.request("GET", s3.presign_get(unique, None, seconds=60)).data == b"two"

    def test_a_get_is_bound_to_its_key_and_version(self, s3: S3ObjectStore, unique: str) -> None:
        first = s3.put_new(unique, b"one")
        url = s3.presign_get(unique, first.version_id, seconds=60)
        assert http.request("GET", url.replace(unique, f"{unique}x")).status == 403
        assert http.request("GET", url.replace(first.version_id, "null")).status == 403

    def put(self, s3: S3ObjectStore, key: str, body: bytes, **changed: str | None) -> int:
        sha256 = hashlib.sha256(b"signed").hexdigest()
        url, headers = s3.presign_put_new(key, sha256=sha256, size=6, seconds=60)
        sent = {**headers, **{k.replace("_", "-"): v for k, v in changed.items()}}
        return http.request("PUT", url, body=body, headers={k: v for k, v in sent.items() if v is not None}).status

    def test_a_put_writes_what_was_signed_once(self, s3: S3ObjectStore, unique: str) -> None:
        assert self.put(s3, unique, b"signed") == 200
        assert self.put(s3, unique, b"signed") == 412
        assert s3.read(unique, max_bytes=6) == b"signed"

    def test_a_put_of_other_bytes_is_refused(self, s3: S3ObjectStore, unique: str) -> None:
        other = base64.b64encode(hashlib.sha256(b"forged").digest()).decode()
        assert self.put(s3, unique, b"forged") == 400
        assert self.put(s3, unique, b"forged", x_amz_checksum_sha256=other) == 403
        assert s3.stat(unique) is None

    def test_a_put_without_the_signed_precondition_is_refused(self, s3: S3ObjectStore, unique: str) -> None:
        assert self.put(s3, unique, b"signed", If_None_Match=None) == 403
        assert s3.stat(unique) is None

    def test_length_checksum_and_precondition_are_signed(self, s3: S3ObjectStore, unique: str) -> None:
        url, _ = s3.presign_put_new(unique, sha256="0" * 64, size=6, seconds=60)
        signed = urllib3.util.parse_url(url).query or ""
        assert "X-Amz-SignedHeaders=content-length%3Bhost%3Bif-none-match%3Bx-amz-checksum-sha256" in signed

    def test_a_post_takes_at_most_its_bytes(self, s3: S3ObjectStore, unique: str) -> None:
        form = s3.presign_post(unique, max_bytes=5, seconds=60)
        fields = {**form["fields"], "file": ("x", b"123456")}
        assert http.request("POST", form["url"], fields=fields).status == 400
        fields["file"] = ("x", b"12345")
        assert http.request("POST", form["url"], fields=fields).status == 204
        assert s3.read(unique, max_bytes=5) == b"12345"

    def test_a_post_is_bound_to_its_key(self, s3: S3ObjectStore, unique: str) -> None:
        form = s3.presign_post(unique, max_bytes=5, seconds=60)
        fields = {**form["fields"], "key": f"{unique}-other", "file": ("x", b"1")}
        assert http.request("POST", form["url"], fields=fields).status == 403


class TestObjectLock:
    def test_a_retained_object_is_locked_for_the_configured_days(
        self, s3: S3ObjectStore, client_of: Callable[..., Any], bucket: str, unique: str
    ) -> None:
        stored = s3.put_new(unique, b"x", retain=True)
        head = client_of("s3").head_object(Bucket=bucket, Key=unique, VersionId=stored.version_id)
        assert head["ObjectLockMode"] == "GOVERNANCE"
        assert timedelta(days=1) <= head["ObjectLockRetainUntilDate"] - datetime.now(UTC) <= timedelta(days=2)

    def test_writers_of_the_same_bytes_at_once_ask_for_the_same_lock(self, s3: S3ObjectStore, unique: str) -> None:
        with ThreadPoolExecutor(8) as pool:
            stored = list(pool.map(lambda _: s3.put_new(unique, b"x", retain=True), range(32)))
        assert len({s.version_id for s in stored}) == 1

    def test_a_retained_object_in_parts_asks_for_the_lock_at_its_start(
        self, client_of: Callable[..., Any], bucket: str, unique: str
    ) -> None:
        # The emulator forgets the lock of an upload in parts, so the request is looked at instead.
        client, asked = client_of("s3"), []
        client.meta.events.register("before-send.s3.CreateMultipartUpload", lambda request, **_: asked.append(request.headers))
        store = S3ObjectStore(client, bucket, retention=("COMPLIANCE", 30), part_bytes=PART)
        store.put_new(unique, bytes_of(PART + 1), retain=True)
        until = datetime.fromisoformat(asked[0]["x-amz-object-lock-retain-until-date"].decode())
        assert asked[0]["x-amz-object-lock-mode"] == b"COMPLIANCE"
        assert timedelta(days=30) <= until - datetime.now(UTC) <= timedelta(days=31)

    def test_an_object_that_is_there_unlocked_is_locked_when_it_is_put_again(
        self, s3: S3ObjectStore, client_of: Callable[..., Any], bucket: str, unique: str
    ) -> None:
        s3.put_new(unique, b"x")
        s3.put_new(unique, b"x", retain=True)
        assert client_of("s3").head_object(Bucket=bucket, Key=unique)["ObjectLockMode"] == "GOVERNANCE"

    def test_without_retention_nothing_is_locked(self, client_of: Callable[..., Any], bucket: str, unique: str) -> None:
        S3ObjectStore(client_of("s3"), bucket).put_new(unique, b"x", retain=True)
        assert "ObjectLockMode" not in client_of("s3").head_object(Bucket=bucket, Key=unique)


def test_a_multipart_upload_that_fails_leaves_no_parts(s3: S3ObjectStore, client_of: Callable[..., Any], bucket: str, unique: str) -> None:
    class Breaking(Stream):
        def readinto(self, buffer: Any) -> int:
            if self._data.tell() > PART + 1000:
                raise OSError("disk gone")
            return super().readinto(buffer)

    with pytest.raises(OSError, match="disk gone"):
        s3.put_new(unique, Breaking(bytes_of(3 * PART)))  # type: ignore[arg-type]
    assert "Uploads" not in client_of("s3").list_multipart_uploads(Bucket=bucket, Prefix=unique)
    assert s3.stat(unique) is None
