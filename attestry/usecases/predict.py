"""Predict: have the deployed version answer, sign the answer, make the receipt durable, return it.

Rules:
- The pointer is read, strongly consistent, for every request; what it names is asked, and signed for. A version is
  signed for by keys of that version only, so an answer carries exactly the version that made it across a cut-over too.
- On the warm path there are three round trips: pointer, inference, receipt. A request that takes longer than 3 seconds reads the
  pointer again, before the receipt and before the answer (`attestry.usecases.freshness`): a killed version answers nothing any more.
- A version that is not loaded is loaded while the caller waits; where that takes too long the caller is told when to
  come back.
- Bytes that are not as recorded are never signed for.
- A request outside of the segment that the version is approved for does not reach it: the delegation names the segment, so that costs no
  call. One whose approval has ended, by its date or its number of predictions, says so.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attestry.domain.conditions import check_segments
from attestry.domain.errors import (
    ApprovalLapsedError,
    AttestryError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotReadyError,
)
from attestry.domain.names import ModelName
from attestry.domain.principal import Principal
from attestry.domain.version import Version
from attestry.evidence.canonical import parse_strict
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import Functions, Item, MetaStore, ObjectStore
from attestry.usecases.freshness import PointerMovedError, PointerWatch
from attestry.usecases.prediction_request import order_by_schema, parse_prediction_request
from attestry.usecases.records import load_version
from attestry.usecases.serving import load_request
from attestry.usecases.sign import Capture, SigningKey, SigningKeys, receipt_put

TRIES = 3
WHOLE_SECONDS = 20.0
"""No load is begun that would take a request beyond this; the gateway gives up at 29 s."""

CALL_SECONDS = 22
"""How long one call of another function may take; the inference function answers by itself within 20 s."""

LOAD_SECONDS = 11
RETRY_AFTER_SECONDS = 5
MAX_OUTPUT_BYTES = 4 << 20
CACHED_VERSIONS = 64


class PredictionFailedError(AttestryError):
    """The version's own code failed on the request, or answered what is no prediction."""

    code = "prediction_failed"
    status = 502


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
    """

    prediction_id: str
    model: str
    number: int
    output: str
    receipt: str
    salt: str

    def to_json(self) -> str:
        """Return the API's answer; the output stands in it as it was signed, byte for byte."""
        head = {"prediction_id": self.prediction_id, "model": self.model, "version": self.number}
        tail = {"receipt": self.receipt, "request_salt": self.salt}
        return f'{json.dumps(head)[:-1]}, "output": {self.output}, {json.dumps(tail)[1:]}'


class Predictor:
    """What one serving process keeps between requests: signing keys, and what it read of versions, by their digest."""

    def __init__(
        self,
        *,
        meta: MetaStore,
        store: ObjectStore,
        functions: Functions,
        keys: SigningKeys,
        inference: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            meta: the table.
            store: the model store.
            functions: calls the inference function, `CALL_SECONDS` at most.
            keys: the signing keys of this process.
            inference: name of the inference function.
            clock: monotonic seconds.
        """
        self._meta = meta
        self._store = store
        self._functions = functions
        self._keys = keys
        self._inference = inference
        self._clock = clock
        self._versions: OrderedDict[str, Version] = OrderedDict()

    def predict(self, model: str, environment: str, body: bytes, by: Principal) -> Prediction:
        """Answer one request.

        Args:
            model: the model's name.
            environment: where, for example `production`.
            body: the request's bytes.
            by: who asks.

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
        instances = parse_prediction_request(body)
        deadline = self._clock() + WHOLE_SECONDS
        for _ in range(TRIES):
            watch = PointerWatch(self._meta, model, environment, self._clock)
            pointer = watch.read()
            version = self._version(pointer)
            if version is None:
                continue
            ordered = order_by_schema(instances, version.schema)
            try:
                urn = VersionUrn(model, version.number, version.version_digest)
                key = self._keys.key_for(urn, environment, approval=int(pointer.get("approval") or 0))
            except ApprovalLapsedError:
                raise
            except ConflictError:
                continue  # the pointer moved after it was read; what stands there by now is read again
            check_segments(key.segments, ordered, version.reference)
            output = self._infer(version, ordered, deadline)
            try:
                watch.confirm(version.version_digest)
                prediction = self._sign(key, version, pointer, body, output, by)
                watch.confirm(version.version_digest)
            except PointerMovedError:
                if self._clock() >= deadline:
                    raise
                continue
            return prediction
        raise ConflictError(f"the deployed version of {model} in {environment} is being changed; try again")

    def _version(self, pointer: Item) -> Version | None:
        digest = str(pointer["version_digest"])
        version = self._versions.get(digest)
        if version is None:
            version = load_version(self._meta, str(pointer["model"]), int(pointer["number"]))
            if version.version_digest != digest:
                return None
            self._versions[digest] = version
            while len(self._versions) > CACHED_VERSIONS:
                self._versions.popitem(last=False)
        return version

    def _infer(self, version: Version, instances: Sequence[Mapping[str, Any]], deadline: float) -> str:
        payload: dict[str, Any] = {
            "version_digest": version.version_digest,
            "instances": list(instances),
            "columns": [str(column["name"]) for column in version.schema],
        }
        answer = self._call(version, payload)
        if answer.get("status") == "NOT_LOADED":
            seconds = min(LOAD_SECONDS, int(deadline - self._clock()) - 2)
            if seconds < 1:
                raise _not_ready(version)
            payload["load"] = load_request(self._store, version, deadline_seconds=seconds)
            answer = self._call(version, payload)
        return _output_of(answer, version, len(instances))

    def _call(self, version: Version, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = self._functions.call(self._inference, payload, tenant=version.execution_id)
        if not isinstance(answer, Mapping):
            raise PredictionFailedError(f"{version.reference} gave no answer that is understood")
        return answer

    def _sign(self, key: SigningKey, version: Version, pointer: Item, body: bytes, output: str, by: Principal) -> Prediction:
        emitted = output.encode()
        signed = key.sign(body, emitted)
        capture = Capture(str(pointer["capture_rate"]), version.folder, self._store)
        with key.recording():
            self._meta.transact([receipt_put(signed, capture, request=body, output=emitted, principal=by.to_item())])
        return Prediction(signed.prediction_id, version.model, version.number, output, signed.receipt, signed.salt)


def _output_of(answer: Mapping[str, Any], version: Version, count: int) -> str:
    """Return the JSON text of the output, of which nothing is believed but that it is a list of `count` elements."""
    status, error = answer.get("status"), str(answer.get("error") or "")[:500]
    if status in ("LOADING", "NOT_LOADED"):
        raise _not_ready(version)
    if status == "REFUSED":
        raise IntegrityError(f"{version.reference} is not what was recorded, and was not loaded: {error}")
    output = answer.get("output")
    if status != "OK" or output is None:
        raise PredictionFailedError(f"{version.reference} failed on this request: {error or 'no output'}")
    try:
        output = output if isinstance(output, str) else json.dumps(output, allow_nan=False)
        if len(output.encode()) > MAX_OUTPUT_BYTES:
            raise PredictionFailedError(f"the output of {version.reference} is larger than {MAX_OUTPUT_BYTES} bytes")
        rows = parse_strict(output)
    except (InvalidInputError, ValueError) as wrong:
        raise PredictionFailedError(f"the output of {version.reference} cannot be signed: {wrong}") from wrong
    if not isinstance(rows, list) or len(rows) != count:
        raise PredictionFailedError(f"{version.reference} did not answer one element for each of {count} instances")
    return output


def _not_ready(version: Version) -> NotReadyError:
    return NotReadyError(f"{version.reference} is being loaded; try again", retry_after_seconds=RETRY_AFTER_SECONDS)
