"""Ask: have a version answer, through the inference function or SageMaker, of which nothing is believed but the form of the answer."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attestry.domain.errors import IntegrityError, InvalidInputError, NotReadyError, PredictionFailedError, UnavailableError
from attestry.domain.version import Version
from attestry.evidence.canonical import parse_strict
from attestry.ports import EndpointRuntime, Functions, MetaStore, ObjectStore
from attestry.usecases.records import load_version
from attestry.usecases.serving import load_request

LOAD_SECONDS = 11
RETRY_AFTER_SECONDS = 5
MAX_OUTPUT_BYTES = 4 << 20
CACHED_VERSIONS = 64


@dataclass(frozen=True)
class EndpointCalls:
    """How versions that SageMaker serves are asked: `runtime` is made when one is, since most processes ask none."""

    prefix: str
    runtime: Callable[[], EndpointRuntime]


class Versions:
    """The versions that one serving process asks, and what it read of them, by their digest."""

    def __init__(
        self,
        meta: MetaStore,
        store: ObjectStore,
        functions: Functions,
        *,
        inference: str,
        endpoints: EndpointCalls | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            meta: the table.
            store: the model store.
            functions: calls the inference function.
            inference: name of the inference function.
            endpoints: how versions that SageMaker serves are asked; None where none is.
            clock: monotonic seconds.
        """
        self._meta = meta
        self._store = store
        self._functions = functions
        self._inference = inference
        self._endpoints = endpoints
        self._clock = clock
        self._versions: OrderedDict[str, Version] = OrderedDict()

    def named_by(self, model: str, place: Mapping[str, Any]) -> Version | None:
        """Return the version that a place of a pointer names, or None where its row has another digest by now.

        Args:
            model: the model's name.
            place: `number` and `version_digest` of it, as the pointer has them.
        """
        digest = str(place["version_digest"])
        version = self._versions.get(digest)
        if version is None:
            version = load_version(self._meta, model, int(place["number"]))
            if version.version_digest != digest:
                return None
            self._versions[digest] = version
            while len(self._versions) > CACHED_VERSIONS:
                self._versions.popitem(last=False)
        return version

    def ask(self, version: Version, instances: Sequence[Mapping[str, Any]], deadline: float, *, environment: str) -> str:
        """Return the JSON text of a version's output for instances in the order of its columns; load it where that is needed.

        Args:
            version: the version.
            instances: the instances.
            deadline: by the clock, beyond which no load is begun.
            environment: where the version stands.

        Raises:
            NotReadyError: the version is still loading.
            IntegrityError: a file of the version is not as recorded, or something else answered in its place.
            PredictionFailedError: the version's own code failed.
            UnavailableError: the inference function, or SageMaker, did not answer.
        """
        payload: dict[str, Any] = {
            "version_digest": version.version_digest,
            "instances": list(instances),
            "columns": [str(column["name"]) for column in version.schema],
        }
        if version.target:
            return _output_of(self._call_endpoint(version, payload, environment), version, len(instances))
        answer = self._call(version, payload)
        if answer.get("status") == "NOT_LOADED":
            seconds = min(LOAD_SECONDS, int(deadline - self._clock()) - 2)
            if seconds < 1:
                raise _not_ready(version)
            payload["load"] = load_request(self._store, version, deadline_seconds=seconds)
            answer = self._call(version, payload)
        return _output_of(answer, version, len(instances))

    def _call(self, version: Version, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return _understood(version, self._functions.call(self._inference, payload, tenant=version.execution_id))

    def _call_endpoint(self, version: Version, payload: Mapping[str, Any], environment: str) -> Mapping[str, Any]:
        # Here alone: a process that serves by the function does not load what endpoints need.
        from attestry.usecases.ask_endpoint import ask_endpoint

        if self._endpoints is None:
            raise UnavailableError(f"{version.reference} is served by {version.target}, which this registry has no endpoints on")
        return _understood(version, ask_endpoint(self._endpoints.runtime(), self._endpoints.prefix, environment, version, payload))


def _understood(version: Version, answer: Any) -> Mapping[str, Any]:
    if not isinstance(answer, Mapping):
        raise PredictionFailedError(f"{version.reference} gave no answer that is understood")
    return answer


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
