"""Sign the predictions of a serving process with many threads; those that wait at the same time become durable together.

One thread at a time leads: it takes what waits, in order, signs it, and writes the receipts in one transaction. So receipts become
durable in sequence, and a busy process pays one round trip for up to 100 predictions. Each thread that returns makes sure that the
pointer was read at most 3 seconds before (`attestry.usecases.freshness`), however long it waited.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attestry.domain.conditions import check_segments
from attestry.domain.errors import ConflictError, InvalidInputError, NotFoundError, OutsideConditionsError, UnavailableError
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import Item, MetaStore, ObjectStore, Put
from attestry.usecases.freshness import PointerWatch
from attestry.usecases.prediction_request import parse_prediction_request
from attestry.usecases.sign import Capture, SignedPrediction, SigningKey, SigningKeys, receipt_put

MAX_GROUP = 100
MAX_GROUP_BYTES = 2 << 20


@dataclass
class _Waiting:
    request: bytes
    output: bytes
    principal: Mapping[str, Any] | None
    signed: SignedPrediction | None = None
    watch: PointerWatch | None = None
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.signed is not None or self.error is not None


class GroupSigner:
    """Signs for one version in one environment; safe to share between threads."""

    def __init__(
        self,
        *,
        meta: MetaStore,
        store: ObjectStore | None,
        keys: SigningKeys,
        model: str,
        environment: str,
        version_digest: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            meta: the table.
            store: the model store, for captured payloads too large for a row; None to leave those out.
            keys: the signing keys of this process.
            model: the model's name.
            environment: where, for example `production`.
            version_digest: the version that the process has loaded, hex.
            clock: monotonic seconds.
        """
        self._meta = meta
        self._store = store
        self._keys = keys
        self._model = model
        self._environment = environment
        self._digest = version_digest
        self._clock = clock
        self._queue: deque[_Waiting] = deque()
        self._leading = threading.Lock()

    def sign(self, request: bytes, output: bytes, principal: Mapping[str, Any] | None = None) -> SignedPrediction:
        """Sign a prediction and return once its receipt is durable.

        Args:
            request: the request's bytes as they arrived.
            output: the output's bytes as they will be emitted: JSON in UTF-8.
            principal: who asked, as far as the process knows.

        Raises:
            InvalidInputError: the output is no JSON, or holds NaN or an infinity; or the approval sets a segment, and the request is not of
                the form in which its instances can be checked.
            OutsideConditionsError: the request lies outside of the segment that the version is approved for.
            ConflictError: the version does not stand deployed there (any more): the process has to load another.
            NotFoundError: nothing is deployed there (any more), with the reason.
            UnavailableError: the receipt may not be durable; the output must not be shown.
        """
        mine = _Waiting(request, output, principal)
        self._queue.append(mine)
        while not mine.is_done:
            with self._leading:
                if not mine.is_done:
                    self._lead(self._take())
        if mine.signed is None or mine.watch is None:
            raise mine.error or UnavailableError("the prediction was not signed")
        mine.watch.confirm(self._digest)
        return mine.signed

    def _take(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        size = 0
        while self._queue and len(group) < MAX_GROUP:
            size += len(self._queue[0].request) + len(self._queue[0].output)
            if group and size > MAX_GROUP_BYTES:
                break
            group.append(self._queue.popleft())
        return group

    def _lead(self, group: list[_Waiting]) -> None:
        """Sign and record a group; every member ends with a result or an error."""
        try:
            watch = PointerWatch(self._meta, self._model, self._environment, self._clock)
            pointer = self._pointer(watch)
            version = VersionUrn(self._model, int(pointer["number"]), self._digest)
            key = self._keys.key_for(version, self._environment, approval=int(pointer.get("approval") or 0))
            watch.confirm(self._digest)
            self._record(group, key, pointer, watch)
        except (ConflictError, NotFoundError, UnavailableError) as error:
            _fail(group, error)
        except BaseException as error:
            _fail(group, UnavailableError(f"the predictions were not signed: {type(error).__name__}: {error}"))
            raise

    def _pointer(self, watch: PointerWatch) -> Item:
        pointer = watch.read()
        if pointer["version_digest"] != self._digest:
            raise ConflictError(
                f"{self._model}@{pointer['number']} stands deployed in {self._environment}, not the version that is loaded here"
            )
        return pointer

    def _record(self, group: list[_Waiting], key: SigningKey, pointer: Item, watch: PointerWatch) -> None:
        capture = Capture(str(pointer["capture_rate"]), str(pointer["folder"]), self._store)
        signed: list[tuple[_Waiting, SignedPrediction]] = []
        puts: list[Put] = []
        with key.recording():
            for waiting in group:
                try:
                    self._check(waiting, key)
                    one = key.sign(waiting.request, waiting.output)
                except (InvalidInputError, OutsideConditionsError, _KeyUsedUpError) as error:
                    waiting.error = error
                    continue
                signed.append((waiting, one))
                puts.append(receipt_put(one, capture, request=waiting.request, output=waiting.output, principal=waiting.principal))
            if puts:
                self._meta.transact(puts)
        for waiting, one in signed:
            waiting.watch, waiting.signed = watch, one

    def _check(self, waiting: _Waiting, key: SigningKey) -> None:
        if key.left < 1:
            raise _KeyUsedUpError("the key has signed all that its delegation allows; ask again")
        if key.segments:
            check_segments(key.segments, parse_prediction_request(waiting.request), key.version.reference)


class _KeyUsedUpError(UnavailableError):
    """The rest of a group needs another key."""


def _fail(group: list[_Waiting], error: Exception) -> None:
    for waiting in group:
        if not waiting.is_done:
            waiting.error = error
