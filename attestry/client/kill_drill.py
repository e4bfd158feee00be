"""The drill of the kill switch: kill a version that serves in an environment made for that, under load, and measure until when it answered.

Rules:
- It is the kill itself, by the same request, role and transaction; nothing is simulated. The registry refuses it for what production knows.
- Nothing is killed before every consumer has been answered by the version: a drill of what answers nobody would show nothing.
- Times are read on one clock, the drill's own, from the acknowledgement on. A connection that breaks, or an error of the server, is no
  proof that the version is gone: each consumer has to be refused, or be answered by another version, after its last answer.
- What the registry knows stands in the ledger as the move `version.killed` with `drill`. What was measured is the word of who ran the
  drill: it is written as a remark on that move, whose digest is in the ledger. It names the last prediction, whose receipt proves its time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from attestry.client.api import RegistryClient
from attestry.client.errors import ApiError
from attestry.domain.errors import AttestryError, ConflictError, UnavailableError

BOUND_SECONDS: Final = 5.0
"""From when on after the acknowledgement no answer of a killed version arrives (docs/decisions/0019)."""

WATCH_SECONDS: Final = 10.0
WARM_SECONDS: Final = 120.0
_PAUSE: Final = 0.02
_REFUSED: Final = frozenset({404, 409})


@dataclass(frozen=True)
class Probe:
    """One request of a consumer.

    Attributes:
        consumer: which, from 0.
        sent: when it was sent, seconds on the drill's clock.
        ended: when its answer, or error, was there.
        version: the version that answered; 0 where none did.
        prediction: ID of the prediction; empty where there is none.
        refused: whether the registry itself said that nothing answers.
        trouble: why there is no answer; empty where there is one.
    """

    consumer: int
    sent: float
    ended: float
    version: int = 0
    prediction: str = ""
    refused: bool = False
    trouble: str = ""


@dataclass(frozen=True)
class DrillReport:
    """What a drill came to; seconds count from the acknowledgement of the kill.

    Attributes:
        reference: `MODEL@N`.
        environment: where it served.
        outcome: `PASSED` or `FAILED`.
        failures: why it failed, a sentence each.
        seconds_to_acknowledge: from the request of the kill to its answer.
        last_answer_seconds: when the last answer by the version arrived; negative before the acknowledgement.
        answers_after: answers by it that arrived after the acknowledgement.
        answers: all answers by it.
        refused_after: requests that were refused, or answered by another version, after the acknowledgement.
        last_prediction: ID of its last prediction.
        transition: number of the move that killed it.
        consumers: how many asked at once.
        watched_seconds: for how long it was looked at after the acknowledgement.
    """

    reference: str
    environment: str
    outcome: str
    failures: tuple[str, ...]
    seconds_to_acknowledge: float
    last_answer_seconds: float
    answers_after: int
    answers: int
    refused_after: int
    last_prediction: str
    transition: int
    consumers: int
    watched_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; seconds to the millisecond."""
        told = {name: round(value, 3) if isinstance(value, float) else value for name, value in vars(self).items()}
        return {**told, "failures": list(self.failures)}

    def remark(self) -> str:
        """Return what is remarked on the move, at most 2,000 characters."""
        seconds = f"acknowledged in {self.seconds_to_acknowledge:.3f} s, last answer {self.last_answer_seconds:+.3f} s from then"
        load = f"{self.consumers} consumers, {self.answers} answers, {self.answers_after} after the acknowledgement"
        after = f"{self.refused_after} requests refused or answered by another version in {self.watched_seconds:.0f} s"
        why = f"; {'; '.join(self.failures)}" if self.failures else ""
        text = f"kill drill in {self.environment}: {self.outcome}; {seconds}; {load}; {after}; last prediction {self.last_prediction}{why}"
        return text[:2000]


@dataclass
class KillDrill:
    """Runs drills.

    Attributes:
        operator: the client that kills and remarks.
        consumers: the clients that predict, one per thread, each with a session of its own, as boto3 asks; they wait for nothing.
        instances: what they ask for.
        watch_seconds: for how long to look after the acknowledgement.
        warm_seconds: for how long to wait until the version answers everyone.
        clock: seconds that never go back.
        sleep: waits for so many seconds.
    """

    operator: RegistryClient
    consumers: Sequence[RegistryClient]
    instances: Sequence[Mapping[str, Any]]
    watch_seconds: float = WATCH_SECONDS
    warm_seconds: float = WARM_SECONDS
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _probes: list[Probe] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, model: str, number: int, reason: str) -> DrillReport:
        """Kill the version, measure, remark what was measured on the move, and return it.

        Raises:
            ConflictError: the version stands nowhere, or production knows it; nothing was killed.
            UnavailableError: it did not answer every consumer in time; nothing was killed.
            ApiError: the registry refused the kill.
        """
        before = self.operator.version(model, number)
        environment = str(before.get("deployment_environment") or "production")
        if before["standing"] != "DEPLOYED" or environment == "production":
            raise ConflictError(
                f"{model}@{number} stands {before['standing']} in {environment}; a drill needs a version that stands deployed elsewhere "
                "than in production"
            )
        threads = [threading.Thread(target=self._consume, args=(i, model, environment), daemon=True) for i in range(len(self.consumers))]
        for thread in threads:
            thread.start()
        try:
            self._await_answers(model, number)
            asked = self.clock()
            killed = self.operator.kill(model, number, reason, drill=True)
            acknowledged = self.clock()
            self.sleep(self.watch_seconds)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(timeout=60)
        if not killed["changed"]:
            raise ConflictError(f"{model}@{number} was killed by somebody else at the same time; nothing was measured")
        report = self._report(model, number, environment, asked, acknowledged)
        self.operator.annotate(model, number, report.remark(), report.transition)
        return report

    def _consume(self, consumer: int, model: str, environment: str) -> None:
        while not self._stop.is_set():
            sent = self.clock()
            try:
                answer = self.consumers[consumer].predict(model, self.instances, environment=environment)
                probe = Probe(consumer, sent, self.clock(), int(answer["version"]), str(answer["prediction_id"]))
            except ApiError as error:
                probe = Probe(consumer, sent, self.clock(), refused=error.status in _REFUSED, trouble=error.message)
            except AttestryError as error:
                probe = Probe(consumer, sent, self.clock(), trouble=error.message)
            self._probes.append(probe)
            if not probe.version:
                self._stop.wait(_PAUSE)

    def _await_answers(self, model: str, number: int) -> None:
        """Wait until the version has answered everyone."""
        until = self.clock() + self.warm_seconds
        while silent := set(range(len(self.consumers))) - {p.consumer for p in list(self._probes) if p.version == number}:
            if self.clock() > until:
                why = next((f": {p.trouble}" for p in reversed(self._probes) if p.consumer in silent and p.trouble), "")
                raise UnavailableError(
                    f"{model}@{number} did not answer every consumer in {self.warm_seconds:.0f} s, and nothing was killed{why}"
                )
            self.sleep(0.1)

    def _report(self, model: str, number: int, environment: str, asked: float, acknowledged: float) -> DrillReport:
        version, places = self.operator.version(model, number), self.operator.model(model)["deployed"]
        move = next((m for m in reversed(version["transitions"]) if m["kind"] == "version.killed"), None)
        own = sorted((p for p in self._probes if p.version == number), key=lambda p: p.ended)
        gone = [p for p in self._probes if p.ended > acknowledged and (p.refused or p.version not in (0, number))]
        last = own[-1].ended - acknowledged
        failures = [f"an answer arrived {last:.3f} s after the acknowledgement"] if last > BOUND_SECONDS else []
        failures += self._not_seen_gone(own, gone)
        if version["standing"] != "RETIRED" or move is None:
            failures.append(f"it stands {version['standing']}")
        failures += [f"it is still named in {p['environment']}" for p in places if number in (p.get("number"), p.get("previous"))]
        return DrillReport(
            reference=f"{model}@{number}",
            environment=environment,
            outcome="FAILED" if failures else "PASSED",
            failures=tuple(failures),
            seconds_to_acknowledge=acknowledged - asked,
            last_answer_seconds=last,
            answers_after=sum(p.ended > acknowledged for p in own),
            answers=len(own),
            refused_after=len(gone),
            last_prediction=own[-1].prediction,
            transition=int(move["number"]) if move else 0,
            consumers=len(self.consumers),
            watched_seconds=self.watch_seconds,
        )

    def _not_seen_gone(self, own: Sequence[Probe], gone: Sequence[Probe]) -> list[str]:
        """Return a sentence for each consumer that did not learn, after its last answer, that the version is gone."""
        last = {p.consumer: p.sent for p in own}
        seen = {p.consumer for p in gone if p.sent >= last[p.consumer]}
        return [f"consumer {i} was not refused after its last answer" for i in range(len(self.consumers)) if i not in seen]
