"""Predict: have the version that stands in place answer, sign the answer, make the receipt durable, return it.

Rules:
- The pointer is read, strongly consistent, for every request; what it names is asked, and signed for. A version is
  signed for by keys of that version only, so an answer carries exactly the version that made it across a cut-over too.
- Where the pointer names a canary, that answers its share of the requests (`attestry.domain.rollout`). What it fails, the deployed version
  answers: the caller sees no failure of a canary, and it is counted together with the receipt of the answer.
- Where the pointer names a shadow, the request is left for it together with the receipt (`attestry.usecases.shadow`); nobody waits for it.
- On the warm path there are three round trips: pointer, function or endpoint, receipt. A request that takes longer than 3 seconds reads the
  pointer again, before the receipt and before the answer (`attestry.usecases.freshness`): a killed version answers nothing any more.
- A version that is not loaded is loaded while the caller waits; where that takes too long the caller is told when to
  come back.
- Bytes that are not as recorded are never signed for.
- A request outside of the segment that the version is approved for does not reach it: the delegation names the segment, so that costs no
  call. One whose approval has ended, by its date or its number of predictions, says so.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from attestry.domain.conditions import check_segments
from attestry.domain.errors import (
    ApprovalLapsedError,
    AttestryError,
    ConflictError,
    NotReadyError,
    OutsideConditionsError,
    PredictionFailedError,
)
from attestry.domain.names import ModelName
from attestry.domain.principal import Principal
from attestry.domain.rollout import is_taken
from attestry.domain.stages import Standing
from attestry.domain.version import Version
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import Functions, Item, MetaStore, ObjectStore, Put, Write
from attestry.usecases.ask import EndpointCalls, Versions
from attestry.usecases.canary_counts import failure_put
from attestry.usecases.freshness import PointerMovedError, PointerWatch
from attestry.usecases.pointer import place_in
from attestry.usecases.prediction_request import order_by_schema, parse_prediction_request
from attestry.usecases.shadow_requests import shadow_put
from attestry.usecases.sign import Capture, SigningKey, SigningKeys, receipt_put

__all__ = ["CALL_SECONDS", "WHOLE_SECONDS", "Prediction", "PredictionFailedError", "Predictor"]

TRIES = 4
WHOLE_SECONDS = 20.0
"""No load is begun that would take a request beyond this; the gateway gives up at 29 s."""

CALL_SECONDS = 22
"""How long one call of another function may take; the inference function answers by itself within 20 s."""

ROUTING_BYTES = 16


@dataclass(frozen=True)
class Prediction:
    """An answer with its evidence.

    Attributes:
        prediction_id: `<key ID>-<sequence>`.
        model: the model's name.
        number: the version that made it.
        output: JSON text of a list with one element per instance, exactly as it was signed.
        receipt: compact JWS.
        salt: hex, for checking the receipt's digest of the request.
        standing: what the version stood as when it answered: DEPLOYED or CANARY.
    """

    prediction_id: str
    model: str
    number: int
    output: str
    receipt: str
    salt: str
    standing: str = Standing.DEPLOYED.value

    def to_json(self) -> str:
        """Return the API's answer; the output stands in it as it was signed, byte for byte."""
        head = {"prediction_id": self.prediction_id, "model": self.model, "version": self.number, "standing": self.standing}
        tail = {"receipt": self.receipt, "request_salt": self.salt}
        return f'{json.dumps(head)[:-1]}, "output": {self.output}, {json.dumps(tail)[1:]}'


@dataclass
class _Request:
    """One request on its way.

    Attributes:
        model: the model's name.
        environment: where.
        body: the request's bytes.
        instances: what they say.
        by: who asks.
        routing: what decides whether a canary answers.
        deadline: by the monotonic clock.
        passed_over: digests of canaries that do not answer it after all.
        failures: canaries that failed on it, and why.
    """

    model: str
    environment: str
    body: bytes
    instances: list[Mapping[str, Any]]
    by: Principal
    routing: bytes
    deadline: float
    passed_over: set[str] = field(default_factory=set)
    failures: list[tuple[Version, str]] = field(default_factory=list)


class Predictor:
    """What one serving process keeps between requests: its signing `keys`, and what it read of versions, by their digest."""

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
        """Prepare; nothing is read yet.

        Args:
            meta: the table.
            store: the model store.
            functions: calls the inference function, `CALL_SECONDS` at most.
            keys: the signing keys of this process.
            inference: name of the inference function.
            endpoints: how versions that SageMaker serves are asked; None where none is.
            clock: monotonic seconds.
        """
        self._meta = meta
        self._store = store
        self.keys = keys
        self._clock = clock
        self._versions = Versions(meta, store, functions, inference=inference, endpoints=endpoints, clock=clock)

    def predict(self, model: str, environment: str, body: bytes, by: Principal, *, routing_key: str = "") -> Prediction:
        """Answer one request.

        Args:
            model: the model's name.
            environment: where, for example `production`.
            body: the request's bytes.
            by: who asks.
            routing_key: requests of the same key go to the canary or not alike; by default each request goes by chance.

        Raises:
            InvalidInputError: the request breaks a rule; the error names the field.
            NotFoundError: nothing is deployed there, or not any more: what answered was killed or retired.
            OutsideConditionsError: the request is not of the segment that the version is approved for.
            ApprovalLapsedError: its approval has ended, or the predictions that it allows are made.
            NotReadyError: the version is still loading.
            IntegrityError: a file of the version is not as recorded.
            PredictionFailedError: the version's own code failed.
            ConflictError: the pointer kept moving.
            UnavailableError: a service did not answer; nothing that the caller saw is lost.
        """
        ModelName(model)
        routing = routing_key.encode() or os.urandom(ROUTING_BYTES)
        request = _Request(model, environment, body, parse_prediction_request(body), by, routing, self._clock() + WHOLE_SECONDS)
        for _ in range(TRIES):
            prediction = self._try(request)
            if prediction is not None:
                return prediction
        raise ConflictError(f"the deployed version of {model} in {environment} is being changed; try again")

    def _try(self, request: _Request) -> Prediction | None:
        """Return the answer of who the pointer names now; None where that moved, or failed as a canary: look again."""
        watch = PointerWatch(self._meta, request.model, request.environment, self._clock)
        pointer = watch.read()
        place, standing = _choose(pointer, request)
        version = self._versions.named_by(request.model, place)
        if version is None:
            return None
        ordered = order_by_schema(request.instances, version.schema)
        try:
            key = self._key_for(request, version, place, standing)
            check_segments(key.segments, ordered, version.reference)
        except (ConflictError, OutsideConditionsError) as error:
            if standing != Standing.CANARY and isinstance(error, (ApprovalLapsedError, OutsideConditionsError)):
                raise
            # The pointer moved after it was read, and is read again; or the canary may not answer this request.
            request.passed_over.add(version.version_digest if standing == Standing.CANARY else "")
            return None
        began = self._clock()
        try:
            output = self._versions.ask(version, ordered, request.deadline, environment=request.environment)
        except AttestryError as error:
            if standing != Standing.CANARY:
                raise
            self._set_aside(request, version, error)
            return None
        took = int((self._clock() - began) * 1000)
        try:
            watch.confirm(version.version_digest)
            prediction = self._sign(key, version, place, pointer, request, output, took)
            watch.confirm(version.version_digest)
        except PointerMovedError:
            if self._clock() >= request.deadline:
                raise
            return None
        return prediction

    def _key_for(self, request: _Request, version: Version, place: Mapping[str, Any], standing: str) -> SigningKey:
        urn = VersionUrn(request.model, version.number, version.version_digest)
        return self.keys.key_for(urn, request.environment, standing, approval=int(place.get("approval") or 0))

    def _set_aside(self, request: _Request, version: Version, error: AttestryError) -> None:
        """Let the deployed version answer what the canary failed on; where no time is left for that, the failure counts at once."""
        request.passed_over.add(version.version_digest)
        if not isinstance(error, NotReadyError):  # that it is still loading is no failure
            request.failures.append((version, error.message))
        if self._clock() >= request.deadline:
            if request.failures:
                self._meta.transact(_failures(request, self.keys.now()))
            raise error

    def _sign(
        self,
        key: SigningKey,
        version: Version,
        place: Mapping[str, Any],
        pointer: Item,
        request: _Request,
        output: str,
        took: int,
    ) -> Prediction:
        emitted = output.encode()
        signed = key.sign(request.body, emitted)
        capture = Capture(str(place["capture_rate"]), version.folder, self._store)
        with key.recording():
            put = receipt_put(signed, capture, request=request.body, output=emitted, principal=request.by.to_item())
            if key.standing == Standing.CANARY:
                put = Put(put.key, {**put.item, "took_ms": took}, put.when)
            shadow = place_in(pointer, Standing.SHADOW)
            left = [shadow_put(request.model, request.environment, shadow, signed, request.body, emitted)] if shadow else []
            self._meta.transact([put, *left, *_failures(request, signed.at)])
        return Prediction(signed.prediction_id, version.model, version.number, output, signed.receipt, signed.salt, key.standing)


def _choose(pointer: Item, request: _Request) -> tuple[Mapping[str, Any], str]:
    """Return who answers, and what it stands as."""
    canary = place_in(pointer, Standing.CANARY)
    digest = str(canary.get("version_digest"))
    if canary and digest not in request.passed_over and is_taken(int(canary["share"]), digest, request.routing):
        return canary, Standing.CANARY.value
    return pointer, Standing.DEPLOYED.value


def _failures(request: _Request, at: datetime) -> list[Write]:
    """Return the writes that count a canary's failures."""
    return [failure_put(version, why, at) for version, why in request.failures]
