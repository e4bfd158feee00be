"""The ports in memory, for tests of rules: real implementations with the adapters' limits, plus faults on demand.

One `Faults` may be shared by several fakes; it then counts the calls to all of them, so that a test can cut a use case off
between any two calls: `faults.fail_before(n)` for n = 1, 2, 3, ... until the use case ends unharmed.
"""

from __future__ import annotations

import hashlib
import io
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import IO, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from attestry.aws.meta_store import check_writes
from attestry.aws.rows import marshal_row, unmarshal_row
from attestry.domain.errors import (
    ConditionFailedError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from attestry.ports import Check, Delete, Item, Key, ListedVersion, ObjectLock, Put, StoredObject, Update, When, Write


class Killed(BaseException):
    """The process was killed here; nothing but a test catches it."""


@dataclass
class Faults:
    """Counts calls and fails chosen ones.

    Attributes:
        calls: names of all calls so far, `Class.method`.
    """

    calls: list[str] = field(default_factory=list)
    _planned: list[tuple[int, bool, str | None, BaseException]] = field(default_factory=list)

    def fail_before(self, n: int = 1, *, method: str | None = None, error: BaseException | None = None) -> None:
        """Let the n-th call from here (of `method`: `transact` or `MemoryMetaStore.transact`) fail without effect."""
        self._plan(n, False, method, error)

    def fail_after(self, n: int = 1, *, method: str | None = None, error: BaseException | None = None) -> None:
        """Let the n-th call from here take effect and then fail, its answer lost."""
        self._plan(n, True, method, error)

    def clear(self) -> None:
        """Forget planned faults and counted calls."""
        self.calls.clear()
        self._planned.clear()

    def _plan(self, n: int, after: bool, method: str | None, error: BaseException | None) -> None:
        self._planned.append((n, after, method, error or UnavailableError("injected fault: no answer")))

    def run(self, name: str, act: Callable[[], Any]) -> Any:
        """Perform a call, or fail as planned."""
        self.calls.append(name)
        due: tuple[bool, BaseException] | None = None
        left = []
        for n, after, method, error in self._planned:
            if method is not None and method not in (name, name.rpartition(".")[2]):
                left.append((n, after, method, error))
            elif n == 1:
                due = (after, error)
            else:
                left.append((n - 1, after, method, error))
        self._planned[:] = left
        if due and not due[0]:
            raise due[1]
        result = act()
        if due:
            raise due[1]
        return result


class _Faulty:
    """Gives a fake its `Faults`, shared or its own."""

    def __init__(self, faults: Faults | None) -> None:
        self.faults = faults or Faults()

    def _call(self, method: str, act: Callable[[], Any]) -> Any:
        return self.faults.run(f"{type(self).__name__}.{method}", act)


class MemoryMetaStore(_Faulty):
    """`attestry.ports.MetaStore`; rows pass through DynamoDB's wire format, so what a table refuses is refused here."""

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__(faults)
        self.rows: dict[Key, Item] = {}
        self._lock = threading.Lock()

    def get(self, key: Key) -> Item | None:
        return self._call("get", lambda: self._copy(key))

    def get_many(self, keys: Sequence[Key], *, only: Sequence[str] = ()) -> dict[Key, Item]:
        def read() -> dict[Key, Item]:
            return {key: row for key in keys if (row := self._copy(key, only)) is not None}

        return self._call("get_many", read)

    def query(
        self,
        partition: str,
        *,
        prefix: str = "",
        after: str | None = None,
        before: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        only: Sequence[str] = (),
    ) -> list[Item]:
        if (prefix and (after is not None or before is not None)) or "" in (after, before):
            raise ValueError("a query takes a prefix or places to go on from, not both")

        def read() -> list[Item]:
            with self._lock:
                keys = [k for k in self.rows if k.partition == partition and k.sort.startswith(prefix)]
                keys = [k for k in keys if after is None or k.sort.encode() > after.encode()]
                keys = [k for k in keys if before is None or k.sort.encode() < before.encode()]
            keys.sort(key=lambda k: k.sort.encode(), reverse=newest_first)
            return [row for k in keys[:limit] if (row := self._copy(k, only)) is not None]

        return self._call("query", read)

    def list_collection(
        self, collection: str, *, after: str | None = None, limit: int | None = None, newest_first: bool = False
    ) -> list[Item]:
        def read() -> list[Item]:
            with self._lock:
                rows = [dict(r) for r in self.rows.values() if r.get("gsi_pk") == collection and "gsi_sk" in r]
            rows.sort(key=lambda r: r["gsi_sk"].encode(), reverse=newest_first)
            if after:
                rows = [r for r in rows if (r["gsi_sk"] < after if newest_first else r["gsi_sk"].encode() > after.encode())]
            return rows[:limit]

        return self._call("list_collection", read)

    def transact(self, writes: Sequence[Write]) -> None:
        check_writes(writes)
        if any(isinstance(w, Check) and w.when == When() for w in writes):
            raise ValueError("a check has a condition")
        self._call("transact", lambda: self._apply(writes))

    def _apply(self, writes: Sequence[Write]) -> None:
        with self._lock:
            failed = [i for i, w in enumerate(writes) if not _holds(w.when, self.rows.get(w.key))]
            if failed:
                names = ", ".join(f"{writes[i].key.partition}/{writes[i].key.sort}" for i in failed)
                raise ConditionFailedError(f"the condition on {names} did not hold; nothing was written", failed)
            rows = {w.key: self._after(w) for w in writes}
            for key, row in rows.items():
                if row is None:
                    self.rows.pop(key, None)
                else:
                    self.rows[key] = row

    def _after(self, write: Write) -> Item | None:
        key = {"pk": write.key.partition, "sk": write.key.sort}
        if isinstance(write, Put):
            return unmarshal_row(marshal_row({**write.item, **key}))
        if isinstance(write, Update):
            row = {**self.rows.get(write.key, {}), **key, **write.changes}
            removed = [a for a, v in write.changes.items() if v is None]
            return unmarshal_row(marshal_row({a: v for a, v in row.items() if a not in removed}))
        return None if isinstance(write, Delete) else self.rows.get(write.key)

    def _copy(self, key: Key, only: Sequence[str] = ()) -> Item | None:
        with self._lock:
            row = self.rows.get(key)
        shown = {"pk", "sk", *only} if only else None
        return None if row is None else unmarshal_row(marshal_row({a: v for a, v in row.items() if shown is None or a in shown}))


def _holds(when: When, row: Item | None) -> bool:
    found = row or {}
    if when.exists is not None and when.exists != (row is not None):
        return False
    if any(found.get(a) is not None if v is None else not _same(found.get(a), v) for a, v in when.equals.items()):
        return False
    if any(any(_same(item, v) for item in found.get(a) or ()) for a, v in when.lacks.items()):
        return False
    return all(found.get(a) is not None if v is None else not _same(found.get(a), v) for a, v in when.differs.items())


def _same(found: Any, wanted: Any) -> bool:
    # True == 1 in Python; in a table a boolean is not a number.
    return type(found) is type(wanted) and found == wanted


@dataclass
class _Stored:
    version_id: str
    body: bytes
    content_type: str
    retained: bool = False
    is_delete_marker: bool = False
    until: datetime | None = None
    mode: str = ""
    legal_hold: bool = False


class MemoryObjectStore(_Faulty):
    """`attestry.ports.ObjectStore`: a versioned bucket.

    Presigned URLs name `memory://`; `fetch`, `upload` and `post` do what an HTTP client would do with them. `tamper` changes
    bytes as only somebody around the API could.
    """

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__(faults)
        self.versions: dict[str, list[_Stored]] = {}
        self.forms: dict[str, tuple[str, int]] = {}
        self.address = "memory://bucket/"
        """Where presigned URLs lead; a test may serve them elsewhere."""
        self._lock = threading.Lock()

    def put_new(
        self, key: str, body: bytes | IO[bytes], *, content_type: str = "application/octet-stream", retain: bool = False
    ) -> StoredObject:
        data = body if isinstance(body, bytes) else body.read()
        return self._call("put_new", lambda: self._put_new(key, data, content_type, retain))

    def _put_new(self, key: str, data: bytes, content_type: str, retain: bool) -> StoredObject:
        sha256 = hashlib.sha256(data).hexdigest()
        with self._lock:
            there = self._latest(key)
            if there is None:
                there = self._append(key, data, content_type)
            elif there.body != data:
                raise IntegrityError(f"object {key} exists with other bytes", details={"key": key, "sha256": sha256})
            there.retained = there.retained or retain
            return StoredObject(key, there.version_id, len(data), sha256)

    def put(self, key: str, body: bytes, *, content_type: str = "application/octet-stream") -> None:
        def write() -> None:
            with self._lock:
                self._append(key, body, content_type)

        self._call("put", write)

    def open(self, key: str, version_id: str | None = None) -> IO[bytes]:
        return self._call("open", lambda: io.BytesIO(self._find(key, version_id).body))

    def read(self, key: str, version_id: str | None = None, *, max_bytes: int) -> bytes:
        def read() -> bytes:
            body = self._find(key, version_id).body
            if len(body) > max_bytes:
                raise InvalidInputError.of(key, "max_bytes", f"the object has {len(body)} bytes; the limit is {max_bytes}")
            return body

        return self._call("read", read)

    def stat(self, key: str) -> StoredObject | None:
        def look() -> StoredObject | None:
            there = self._latest(key)
            return StoredObject(key, there.version_id, len(there.body), "") if there else None

        return self._call("stat", look)

    def list_versions(self, prefix: str) -> Iterator[ListedVersion]:
        def entries() -> list[ListedVersion]:
            listed = []
            for key in sorted(self.versions):
                if key.startswith(prefix):
                    newest = reversed(list(enumerate(self.versions[key], start=1)))
                    count = len(self.versions[key])
                    listed += [ListedVersion(key, v.version_id, len(v.body), i == count, v.is_delete_marker) for i, v in newest]
            return listed

        return iter(self._call("list_versions", entries))

    def presign_get(self, key: str, version_id: str | None, *, seconds: int) -> str:
        return f"{self.address}{quote(key)}?op=get&version={version_id or ''}&seconds={seconds}"

    def presign_put_new(self, key: str, *, sha256: str, size: int, seconds: int) -> tuple[str, dict[str, str]]:
        url = f"memory://bucket/{quote(key)}?op=put&sha256={sha256}&size={size}&seconds={seconds}"
        return url, {"If-None-Match": "*", "x-amz-checksum-sha256": sha256, "Content-Length": str(size)}

    def presign_post(self, key: str, *, max_bytes: int, seconds: int) -> dict[str, Any]:
        form = uuid.uuid4().hex
        self.forms[form] = (key, max_bytes)
        return {"url": self.address, "fields": {"key": key, "form": form}}

    def fetch(self, url: str) -> bytes:
        """Return what a GET of a presigned URL answers."""
        key, query = _split(url)
        return self._find(key, query.get("version") or None).body

    def upload(self, url: str, body: bytes) -> None:
        """Do a presigned PUT; one of other bytes or to a taken key is refused."""
        key, query = _split(url)
        if len(body) != int(query["size"]) or hashlib.sha256(body).hexdigest() != query["sha256"]:
            raise IntegrityError(f"the body of {key} is not what was signed")
        if self._latest(key):
            raise ConditionFailedError(f"object {key} exists")
        self.put(key, body)

    def post(self, fields: Mapping[str, str], body: bytes) -> None:
        """Do a presigned POST."""
        key, max_bytes = self.forms[fields["form"]]
        if len(body) > max_bytes:
            raise InvalidInputError.of(key, "content-length-range", "the body is too large")
        self.put(key, body)

    def delete(self, key: str) -> None:
        """Lay a delete marker over the key."""
        self._append(key, b"", "").is_delete_marker = True

    def tamper(self, key: str, body: bytes, version_id: str | None = None) -> None:
        """Change the bytes of a version in place."""
        self._find(key, version_id).body = body

    def _append(self, key: str, body: bytes, content_type: str) -> _Stored:
        stored = _Stored(uuid.uuid4().hex, body, content_type)
        self.versions.setdefault(key, []).append(stored)
        return stored

    def _latest(self, key: str) -> _Stored | None:
        versions = self.versions.get(key)
        return versions[-1] if versions and not versions[-1].is_delete_marker else None

    def _find(self, key: str, version_id: str | None) -> _Stored:
        found = self._latest(key)
        if version_id:
            found = next((v for v in self.versions.get(key, []) if v.version_id == version_id and not v.is_delete_marker), None)
        if found is None:
            raise NotFoundError(f"there is no object {key}", details={"key": key})
        return found


class MemoryObjectCustody(_Faulty):
    """`attestry.ports.ObjectCustody` over a `MemoryObjectStore`; `now` is the store's clock."""

    def __init__(self, store: MemoryObjectStore, now: Callable[[], datetime], faults: Faults | None = None) -> None:
        super().__init__(faults)
        self.store, self.now = store, now

    def lock_of(self, key: str, version_id: str) -> ObjectLock | None:
        def look() -> ObjectLock | None:
            there = self._there(key, version_id)
            if there is None:
                return None
            until = there.until.isoformat(timespec="seconds").replace("+00:00", "Z") if there.until else ""
            return ObjectLock(hashlib.sha256(there.body).hexdigest(), until, there.mode, there.legal_hold)

        return self._call("lock_of", look)

    def set_legal_hold(self, key: str, version_id: str, *, on: bool) -> None:
        def write() -> None:
            there = self._there(key, version_id)
            if there is not None:
                there.legal_hold = on

        self._call("set_legal_hold", write)

    def retain(self, key: str, version_id: str, *, mode: str, until: datetime) -> None:
        def write() -> None:
            there = self._there(key, version_id)
            if there is not None and (there.until is None or there.until <= until):
                there.mode, there.until = mode, until

        self._call("retain", write)

    def delete_version(self, key: str, version_id: str) -> bool:
        def delete() -> bool:
            there = self._there(key, version_id)
            if there is not None and (there.legal_hold or (there.until is not None and there.until > self.now())):
                return False
            self.store.versions[key] = [v for v in self.store.versions.get(key, []) if v.version_id != version_id]
            return True

        return self._call("delete_version", delete)

    def _there(self, key: str, version_id: str) -> _Stored | None:
        return next((v for v in self.store.versions.get(key, []) if v.version_id == version_id), None)


def _split(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    return unquote(parts.path[1:]), {k: v[0] for k, v in parse_qs(parts.query).items()}


class LocalSigner(_Faulty):
    """`attestry.ports.Signer` over a P-256 key in memory."""

    def __init__(self, key_id: str = "local:p256", faults: Faults | None = None) -> None:
        super().__init__(faults)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._key_id = key_id

    @property
    def key_id(self) -> str:
        return self._key_id

    def sign_es256(self, message: bytes) -> bytes:
        def sign() -> bytes:
            r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")

        return self._call("sign_es256", sign)

    def public_key_der(self) -> bytes:
        return self._key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class LocalNoteSigner(_Faulty):
    """`attestry.ports.NoteSigner` over an Ed25519 key in memory, with KMS's limit of a raw message."""

    def __init__(self, key_id: str = "local:ed25519", faults: Faults | None = None) -> None:
        super().__init__(faults)
        self._key = ed25519.Ed25519PrivateKey.generate()
        self._key_id = key_id

    @property
    def key_id(self) -> str:
        return self._key_id

    def sign_ed25519(self, message: bytes) -> bytes:
        if len(message) > 4096:
            raise InvalidInputError.of("message", "max_bytes", "KMS signs raw messages of at most 4,096 bytes")
        return self._call("sign_ed25519", lambda: self._key.sign(message))

    def public_key(self) -> bytes:
        return self._key.public_key().public_bytes_raw()


class MemoryFunctions(_Faulty):
    """`attestry.ports.Functions` over callables; `send` queues until `deliver`.

    Attributes:
        handlers: function name to a callable of the payload.
        called: name, payload and tenant of each call.
        sent: name and payload of each event not yet delivered.
    """

    def __init__(self, handlers: Mapping[str, Callable[[Any], Any]] | None = None, faults: Faults | None = None) -> None:
        super().__init__(faults)
        self.handlers = dict(handlers or {})
        self.called: list[tuple[str, Any, str | None]] = []
        self.sent: list[tuple[str, Any]] = []

    def call(self, name: str, payload: Mapping[str, Any], *, tenant: str | None = None) -> Any:
        self.called.append((name, payload, tenant))
        return self._call("call", lambda: self._run(name, payload))

    def send(self, name: str, payload: Mapping[str, Any]) -> None:
        self._call("send", lambda: self.sent.append((name, payload)))

    def deliver(self) -> list[Any]:
        """Run what was sent and return the answers."""
        due, self.sent = self.sent, []
        return [self._run(name, payload) for name, payload in due]

    def _run(self, name: str, payload: Mapping[str, Any]) -> Any:
        if name not in self.handlers:
            raise UnavailableError(f"the function {name} failed: no such function")
        try:
            return self.handlers[name](payload)
        except Exception as error:
            raise UnavailableError(f"the function {name} failed: {type(error).__name__}: {error}") from error


@dataclass
class _Execution:
    payload: Any
    status: str = "RUNNING"


class MemoryPipeline(_Faulty):
    """`attestry.ports.Pipeline`; a test plays the state machine.

    Attributes:
        executions: by ID.
        waiting: token to execution ID.
        resumed: output by token.
    """

    def __init__(self, faults: Faults | None = None, arn: str = "arn:aws:states:eu-central-1:123456789012:stateMachine:attestry") -> None:
        super().__init__(faults)
        self.arn = arn
        self.executions: dict[str, _Execution] = {}
        self.waiting: dict[str, str] = {}
        self.resumed: dict[str, Any] = {}
        self._lock = threading.Lock()

    def start(self, execution_id: str, payload: Mapping[str, Any]) -> str:
        def start() -> str:
            with self._lock:
                self.executions.setdefault(execution_id, _Execution(payload))
            return f"{self.arn.replace(':stateMachine:', ':execution:')}:{execution_id}"

        return self._call("start", start)

    def status(self, execution_id: str) -> str | None:
        def look() -> str | None:
            execution = self.executions.get(execution_id)
            return execution.status if execution else None

        return self._call("status", look)

    def resume(self, token: str, output: Mapping[str, Any]) -> bool:
        def resume() -> bool:
            with self._lock:
                if self.waiting.pop(token, None) is None:
                    return False
                self.resumed[token] = output
            return True

        return self._call("resume", resume)

    def wait_for_token(self, execution_id: str) -> str:
        """Let the execution wait, and return the token that it waits for."""
        token = uuid.uuid4().hex
        self.waiting[token] = execution_id
        return token

    def end(self, execution_id: str, status: str) -> None:
        """Let the execution end; tokens that it waited for are void."""
        self.executions[execution_id].status = status
        self.waiting = {t: e for t, e in self.waiting.items() if e != execution_id}


class FixedClock:
    """`attestry.ports.Clock` that moves when it is told to."""

    def __init__(self, at: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def advance(self, **parts: float) -> datetime:
        """Move on by `timedelta(**parts)`."""
        self.at += timedelta(**parts)
        return self.at


class MemoryAlarms(_Faulty):
    """`attestry.ports.Alarms`; a test sets `known`, name to state."""

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__(faults)
        self.known: dict[str, str] = {}

    def states(self, names: Sequence[str]) -> Mapping[str, str]:
        return self._call("states", lambda: {name: self.known[name] for name in names if name in self.known})


class MemoryNotifier(_Faulty):
    """`attestry.ports.Notifier` that keeps what it was told."""

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__(faults)
        self.messages: list[tuple[str, Mapping[str, Any]]] = []

    def notify(self, subject: str, message: Mapping[str, Any]) -> None:
        self._call("notify", lambda: self.messages.append((subject, message)))
