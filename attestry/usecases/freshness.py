"""Freshness: no answer by a version leaves more than 5 seconds after it was known to stand deployed.

The pointer is read, strongly consistent, when a request comes. Where that reading is older than 3 seconds when a receipt is about to be
written, or has become so while it was written, the pointer is read again, which costs slow requests a round trip and fast ones nothing.
What is left of the 5 seconds is for the answer's way out. So what was killed answers nothing from 5 seconds after the kill on.

    watch = PointerWatch(meta, model, environment, clock)
    pointer = watch.read()
    ...                            # the version that the pointer names answers
    watch.confirm(digest)          # before the receipt
    ...                            # the receipt becomes durable
    watch.confirm(digest)          # before the answer

Rules:
- The age of a reading counts from before it was asked for, by a monotonic clock.
- A reading counts only once its answer was looked at; several threads may share a watch.
- A version that no longer stands there gives no answer, whether it was killed, retired, replaced or rolled back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attestry.domain.errors import ConflictError, NotFoundError, UnavailableError
from attestry.ports import Item, MetaStore
from attestry.usecases.pointer import place_in, require_deployed
from attestry.usecases.records import model_key, pointer_key

FRESH_SECONDS: Final = 3.0
"""How old the reading of a pointer may be on which a receipt is written and an answer given."""

STALE_SECONDS: Final = 5.0
"""How long after a version has left its place an answer by it may still leave."""

READINGS: Final = 3
ANSWERING: Final = ("DEPLOYED", "CANARY")
"""What a version stands as whose answers callers see."""


class PointerMovedError(ConflictError):
    """The version that answered no longer stands deployed there."""


class PointerWatch:
    """The pointer of one environment, as one request reads it."""

    def __init__(self, meta: MetaStore, model: str, environment: str, clock: Callable[[], float]) -> None:
        """Prepare; nothing is read yet.

        Args:
            meta: the table.
            model: the model's name.
            environment: where, for example `production`.
            clock: monotonic seconds.
        """
        self._meta = meta
        self._model = model
        self._environment = environment
        self._clock = clock
        self._asked = float("-inf")

    def read(self) -> Item:
        """Return the pointer.

        Raises:
            NotFoundError: there is no such model, or nothing is deployed there, with the reason where something was.
        """
        asked = self._clock()
        pointer = self._read()
        self._asked = asked
        return pointer

    def confirm(self, version_digest: str, standings: tuple[str, ...] = ANSWERING) -> None:
        """Make sure that the version stood there at most `FRESH_SECONDS` ago; read again where it is longer ago that somebody looked.

        A canary that was put in place meanwhile stands there still.

        Args:
            version_digest: the version that answers.
            standings: what it may stand as.

        Raises:
            PointerMovedError: another version stands there.
            NotFoundError: none does, with the reason.
            UnavailableError: the pointer cannot be read in time.
        """
        for _ in range(READINGS):
            if self._clock() - self._asked <= FRESH_SECONDS:
                return
            asked = self._clock()
            pointer = self._read()
            if version_digest not in [place_in(pointer, standing).get("version_digest") for standing in standings]:
                raise PointerMovedError(
                    f"{self._model}@{pointer['number']} stands deployed in {self._environment} by now, not the version that answered"
                )
            self._asked = asked
        if self._clock() - self._asked > FRESH_SECONDS:
            raise UnavailableError("what stands deployed could not be read in time; nothing is answered")

    def _read(self) -> Item:
        pointer = self._meta.get(pointer_key(self._model, self._environment))
        if pointer is None and self._meta.get(model_key(self._model)) is None:
            raise NotFoundError(f"there is no model {self._model}")
        return require_deployed(pointer, self._model, self._environment)
