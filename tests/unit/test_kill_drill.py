"""The drill of the kill switch: it measures what consumers really got, records it, and says when it shows nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from attestry.cli.main import make_app
from attestry.client.api import RegistryClient
from attestry.client.kill_drill import KillDrill
from attestry.domain.errors import AttestryError, ConflictError, UnavailableError
from tests.unit.client_double import ApiDouble, Told, problem

VERSION = "/v1/models/credit-risk/versions/2"
PREDICT = "POST /v1/models/credit-risk/predictions"
GONE = Told(problem("not_found", "no version of credit-risk is deployed in staging"), 404)


class Registry(ApiDouble):
    """A registry whose version 2 answers in staging until it is killed, and for `lingers` seconds longer.

    Attributes:
        environment: where the version stands.
        after: what a request gets once it is gone.
        mute: consumers get no answer at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.environment, self.lingers, self.after, self.mute = "staging", 0.0, GONE, False
        self.standing, self.killed_at, self.still_named = "DEPLOYED", float("inf"), False
        self.count, self.remarks, self.kills = 0, list[Any](), list[Any]()
        self.lock = threading.Lock()
        self.functions |= {
            PREDICT: self._predict,
            f"POST {VERSION}/kill": self._kill,
            f"POST {VERSION}/annotations": self._annotate,
            f"GET {VERSION}": lambda _: Told(self._version()),
            "GET /v1/models/credit-risk": lambda _: Told({"deployed": [self._pointer()]}),
        }

    def _version(self) -> Any:
        killed = self.standing == "RETIRED"
        moves = [{"kind": "version.deployed", "number": 11}, *([{"kind": "version.killed", "number": 12}] if killed else [])]
        return {"standing": self.standing, "deployment_environment": self.environment, "transitions": moves}

    def _pointer(self) -> Any:
        number = 2 if self.standing == "DEPLOYED" or self.still_named else None
        return {"environment": self.environment, "number": number, "previous": 1}

    def _predict(self, _: Any) -> Told:
        if self.mute:
            return Told(problem("unavailable", "it loads"), 503)
        if time.monotonic() > self.killed_at + self.lingers:
            return self.after
        with self.lock:
            self.count += 1
            return Told({"version": 2, "prediction_id": f"p{self.count}"})

    def _kill(self, body: Any) -> Told:
        self.kills.append(body)
        changed, self.standing = self.standing == "DEPLOYED", "RETIRED"
        self.killed_at = min(self.killed_at, time.monotonic())
        return Told({"changed": changed, "standing": "RETIRED", "vacated": ["staging"]})

    def _annotate(self, body: Any) -> Told:
        self.remarks.append(body)
        return Told({"sequence": 1}, 201)


@pytest.fixture
def registry() -> Iterator[Registry]:
    double = Registry()
    yield double
    double.close()


@pytest.fixture
def drill(registry: Registry) -> Callable[..., KillDrill]:
    session = boto3.Session("AKIDEXAMPLE", "secret", region_name="eu-central-1")

    def made(consumers: int = 3, **given: Any) -> KillDrill:
        clients = [RegistryClient(session, registry.url, patience_seconds=0) for _ in range(consumers + 1)]
        return KillDrill(clients[0], clients[1:], [{"a": 1}], **{"watch_seconds": 0.3, "warm_seconds": 0.3, **given})

    return made


def test_a_drill_kills_measures_and_remarks_on_the_move(registry: Registry, drill: Callable[..., KillDrill]) -> None:
    report = drill().run("credit-risk", 2, "the quarterly drill")
    assert (report.outcome, report.failures) == ("PASSED", ())
    assert registry.kills == [{"reason": "the quarterly drill", "drill": True}]
    assert report.answers >= 3
    assert report.refused_after >= 3
    assert report.last_answer_seconds < 0.3
    assert int(report.last_prediction.removeprefix("p")) > registry.count - 3
    assert (report.environment, report.transition, report.consumers) == ("staging", 12, 3)
    remark = registry.remarks[0]
    assert remark["transition"] == 12
    assert remark["text"].startswith("kill drill in staging: PASSED; acknowledged in 0.")
    assert report.last_prediction in remark["text"]


def test_an_answer_that_comes_later_than_five_seconds_after_the_kill_fails_the_drill(
    registry: Registry, drill: Callable[..., KillDrill], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attestry.client.kill_drill.BOUND_SECONDS", 0.1)
    registry.lingers = 0.25
    report = drill(watch_seconds=0.5).run("credit-risk", 2, "the quarterly drill")
    assert report.outcome == "FAILED"
    assert report.failures[0].startswith("an answer arrived 0.2")
    assert report.answers_after > 0
    assert "FAILED" in registry.remarks[0]["text"]


@pytest.mark.parametrize("status", [500, 503, 429, 403])
def test_an_error_of_the_server_is_no_proof_that_the_version_is_gone(
    registry: Registry, drill: Callable[..., KillDrill], status: int
) -> None:
    registry.after = Told(problem("internal", "no"), status)
    report = drill(2).run("credit-risk", 2, "the quarterly drill")
    assert report.failures == ("consumer 0 was not refused after its last answer", "consumer 1 was not refused after its last answer")


def test_another_version_in_its_place_shows_that_it_is_gone(registry: Registry, drill: Callable[..., KillDrill]) -> None:
    registry.after = Told({"version": 1, "prediction_id": "other"})
    report = drill().run("credit-risk", 2, "the quarterly drill")
    assert report.outcome == "PASSED"
    assert report.last_prediction != "other"


def test_a_place_that_still_names_it_fails_the_drill(registry: Registry, drill: Callable[..., KillDrill]) -> None:
    registry.still_named = True
    assert drill().run("credit-risk", 2, "the quarterly drill").failures == ("it is still named in staging",)


@pytest.mark.parametrize(("environment", "standing"), [("production", "DEPLOYED"), ("staging", "APPROVED"), ("staging", "ROLLBACK")])
def test_nothing_is_killed_that_production_knows_or_that_does_not_serve(
    registry: Registry, drill: Callable[..., KillDrill], environment: str, standing: str
) -> None:
    registry.environment, registry.standing = environment, standing
    with pytest.raises(ConflictError, match="a drill needs a version that stands deployed elsewhere than in production"):
        drill().run("credit-risk", 2, "the quarterly drill")
    assert registry.kills == []


def test_nothing_is_killed_before_the_version_has_answered_everyone(registry: Registry, drill: Callable[..., KillDrill]) -> None:
    registry.mute = True
    with pytest.raises(UnavailableError, match="did not answer every consumer in 0 s, and nothing was killed: it loads"):
        drill().run("credit-risk", 2, "the quarterly drill")
    assert (registry.kills, registry.remarks) == ([], [])
    assert threading.active_count() < 10


def test_consumers_without_credentials_are_told_and_nothing_is_killed(registry: Registry, drill: Callable[..., KillDrill]) -> None:
    made = drill()
    nobody = RegistryClient(boto3.Session(), "http://registry.example", patience_seconds=0)
    with pytest.raises(UnavailableError, match=r"nothing was killed: the registry.s address http://registry\.example is neither HTTPS"):
        KillDrill(made.operator, [nobody], [{"a": 1}], warm_seconds=0.3).run("credit-risk", 2, "the quarterly drill")
    assert registry.kills == []


def test_a_registry_that_refuses_the_drill_ends_it(registry: Registry, drill: Callable[..., KillDrill]) -> None:
    registry.functions[f"POST {VERSION}/kill"] = lambda _: Told(problem("conflict", "credit-risk@2 belongs to production"), 409)
    with pytest.raises(AttestryError, match="belongs to production"):
        drill().run("credit-risk", 2, "the quarterly drill")
    assert registry.remarks == []


def test_a_version_that_somebody_else_killed_meanwhile_gives_no_measurement(registry: Registry, drill: Callable[..., KillDrill]) -> None:
    registry.functions[f"POST {VERSION}/kill"] = lambda _: Told({"changed": False})
    with pytest.raises(ConflictError, match="nothing was measured"):
        drill().run("credit-risk", 2, "the quarterly drill")
    assert registry.remarks == []


def test_the_command_prints_the_report_and_ends_with_its_outcome(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attestry.client.kill_drill.WATCH_SECONDS", 0.3)
    for name, value in {"API_URL": registry.url}.items():
        monkeypatch.setenv(f"ATTESTRY_{name}", value)
    for name, value in {"ACCESS_KEY_ID": "AKIDEXAMPLE", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    asked = tmp_path / "instances.json"
    asked.write_text(json.dumps({"instances": [{"a": 1}]}))
    command = ["drill", "kill", "credit-risk@2", "--reason", "quarterly", "--file", str(asked), "--consumers", "2", "--json"]
    done = CliRunner().invoke(make_app(), command)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["outcome"], report["consumers"], report["reference"]) == ("PASSED", 2, "credit-risk@2")
    asked.write_text("no JSON")
    assert CliRunner().invoke(make_app(), command).exit_code == 2
