"""Shadow: ask the shadow what callers asked the deployed version, sign and keep what it predicts, and compare.

Rules:
- A request that was answered is left as a row (`attestry.usecases.shadow_requests`); the caller has gone by the time the shadow is asked.
- A shadow's prediction is signed by a key that is delegated to it as SHADOW, and is sealed, traced and verified as any other; its row names
  the prediction that the caller was given. Nobody is given a shadow's.
- The receipt, the end of the row, and the comparison's counts are one transaction, so that no request is compared twice.
- What the shadow fails is counted, and touches nothing else. Where it is still loading, or a service does not answer, the rows wait.
- A killed shadow predicts nothing from 5 seconds after the kill on (`attestry.usecases.freshness`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from attestry.domain.agreement import compare_outputs
from attestry.domain.conditions import check_segments
from attestry.domain.errors import AttestryError, ConflictError, NotFoundError, NotReadyError, UnavailableError
from attestry.domain.principal import registry_principal
from attestry.domain.stages import Standing
from attestry.domain.version import Version
from attestry.evidence.canonical import parse_strict
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import ABSENT, Delete, Functions, Item, Key, MetaStore, ObjectStore, Put, Update, When, Write
from attestry.usecases.ask import EndpointCalls, Versions
from attestry.usecases.freshness import PointerWatch
from attestry.usecases.pointer import place_in
from attestry.usecases.prediction_request import order_by_schema, parse_prediction_request
from attestry.usecases.rollout_places import PARTITION
from attestry.usecases.shadow_requests import requests_partition
from attestry.usecases.sign import Capture, SigningKeys, receipt_put

PAGE: Final = 25
CALL_SECONDS: Final = 20.0
COUNTED: Final = ("compared", "instances", "agreed", "numeric", "failed", "skipped")


def comparison_key(model: str, environment: str, number: int) -> Key:
    """Return the key of the row that counts how a shadow compares with what callers were given."""
    return Key(f"SHADOWED#{model}#{environment}", f"{number:09d}")


def comparison(meta: MetaStore, model: str, environment: str, number: int) -> dict[str, Any]:
    """Return how a shadow compares: counts by the names in `COUNTED`, and the sum of the numeric differences as text."""
    row = meta.get(comparison_key(model, environment, number)) or {}
    return {**{name: int(row.get(name, 0)) for name in COUNTED}, "difference": str(row.get("difference", "0"))}


@dataclass
class ShadowRun:
    """What one run did; `left` says that requests wait still."""

    compared: int = 0
    failed: int = 0
    skipped: int = 0
    left: bool = False


class ShadowRunner:
    """Works off what waits for shadows."""

    def __init__(
        self,
        *,
        meta: MetaStore,
        store: ObjectStore,
        functions: Functions,
        keys: SigningKeys,
        inference: str,
        endpoints: EndpointCalls | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; see `attestry.usecases.predict.Predictor`."""
        self._meta = meta
        self._store = store
        self._keys = keys
        self._clock = clock
        self._versions = Versions(meta, store, functions, inference=inference, endpoints=endpoints, clock=clock)

    def run(self, seconds: float = 20.0) -> ShadowRun:
        """Ask every shadow what waits for it, for about that long."""
        end, done = self._clock() + seconds, ShadowRun()
        for row in self._meta.query(PARTITION):
            self._work_off(str(row["model"]), str(row["environment"]), end, done)
        return done

    def _work_off(self, model: str, environment: str, end: float, done: ShadowRun) -> None:
        while True:
            rows = self._meta.query(requests_partition(model, environment), limit=PAGE)
            for row in rows:
                if self._clock() >= end:
                    done.left = True
                    return
                try:
                    if not self._shadow(model, environment, row, done):
                        return
                except (ConflictError, NotFoundError, NotReadyError, UnavailableError):
                    done.left = True  # the pointer moves, the version loads, or a service does not answer: the rows wait
                    return
            if len(rows) < PAGE:
                return

    def _shadow(self, model: str, environment: str, row: Item, done: ShadowRun) -> bool:
        """Ask the shadow one request; return False where there is no shadow."""
        watch = PointerWatch(self._meta, model, environment, self._clock)
        place = place_in(watch.read(), Standing.SHADOW)
        version = self._versions.named_by(model, place) if place else None
        if version is None:
            return False
        waiting = Delete(Key(requests_partition(model, environment), str(row["sk"])), When(exists=True))
        if row["version_digest"] != version.version_digest:
            self._meta.transact([waiting])  # it waited for an earlier shadow
            return True
        if "request" not in row:
            self._count(model, environment, version, [waiting], {"skipped": 1})
            done.skipped += 1
            return True
        urn, approval = VersionUrn(model, version.number, version.version_digest), int(place.get("approval") or 0)
        key = self._keys.key_for(urn, environment, Standing.SHADOW.value, approval=approval)
        request = bytes(row["request"])
        try:
            ordered = order_by_schema(parse_prediction_request(request), version.schema)
            check_segments(key.segments, ordered, version.reference)
            output = self._versions.ask(version, ordered, self._clock() + CALL_SECONDS, environment=environment)
            told = compare_outputs(_rows(row["output"]), _rows(output.encode()), str(place["plan"].get("column", "")))
        except (NotReadyError, UnavailableError):
            raise
        except AttestryError as error:
            self._count(model, environment, version, [waiting], {"failed": 1}, error=error.message)
            done.failed += 1
            return True
        watch.confirm(version.version_digest, (Standing.SHADOW.value,))
        emitted = output.encode()
        signed = key.sign(request, emitted)
        capture = Capture(str(place["capture_rate"]), version.folder, self._store)
        counts = {"compared": 1, "instances": told.instances, "agreed": told.agreed, "numeric": told.numeric}
        with key.recording():
            put = receipt_put(signed, capture, request=request, output=emitted, principal=registry_principal("shadow").to_item())
            put = Put(put.key, {**put.item, "shadow_of": str(row["prediction"])}, put.when)
            self._count(model, environment, version, [waiting, put], counts, difference=told.difference)
        done.compared += 1
        return True

    def _count(
        self,
        model: str,
        environment: str,
        version: Version,
        writes: list[Write],
        more: Mapping[str, int],
        *,
        difference: Decimal = Decimal(0),
        error: str = "",
    ) -> None:
        """Commit writes together with what they add to the comparison.

        Raises:
            ConditionFailedError: another run was quicker.
        """
        place = comparison_key(model, environment, version.number)
        row = self._meta.get(place)
        rev = int(row["rev"]) if row else 0
        changes: Item = {name: int((row or {}).get(name, 0)) + more.get(name, 0) for name in COUNTED}
        changes |= {"difference": str(Decimal(str((row or {}).get("difference", "0"))) + difference), "rev": rev + 1}
        changes |= {"last_error": error[:500]} if error else {}
        when = When(exists=True, equals={"rev": rev}) if row else ABSENT
        self._meta.transact([*writes, Update(place, changes, when)])


def _rows(raw: Any) -> list[Any]:
    rows = parse_strict(bytes(raw).decode())
    return rows if isinstance(rows, list) else [rows]
