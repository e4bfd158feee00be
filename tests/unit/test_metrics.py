"""Counts that functions write: in the Embedded Metric Format, with few dimensions, and whatever else goes wrong."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from attestry.aws.metrics import NAMESPACE, Count, count
from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.errors import IntegrityError
from attestry.domain.stages import Stage, Status
from attestry.ports import Delete
from attestry.usecases.group_signing import GroupSigner
from attestry.usecases.sign import receipt_key
from lambdas import collect, deploy, record_stage, sweep
from tests.deployed import ENVIRONMENT, MODEL, Scene, make_version
from tests.fakes import FixedClock, MemoryFunctions, MemoryMetaStore, MemoryNotifier, MemoryObjectStore, MemoryPipeline
from tests.versions import AT, ATTESTOR
from tests.versions import make_version as put_version

SETTINGS = {
    "ATTESTRY_GATE_FUNCTION": "gate",
    "ATTESTRY_RECORD_FUNCTION": "record_stage",
    "ATTESTRY_INFERENCE_FUNCTION": "inference",
    "ATTESTRY_PREFIX": "registry-two",
}


class Written:
    """The metrics that a handler wrote into its log."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def take(self) -> dict[str, Any]:
        """Return the one document of metrics since the last time."""
        documents = [json.loads(line) for line in self._capture.readouterr().out.splitlines() if '"_aws"' in line]
        assert len(documents) == 1
        return documents[0]

    def counts(self) -> dict[str, int]:
        document = self.take()
        (metrics,) = document["_aws"]["CloudWatchMetrics"]
        return {metric["Name"]: document[metric["Name"]][0] for metric in metrics["Metrics"]}


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Written:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "collect")
    return Written(capsys)


def put_world(monkeypatch: pytest.MonkeyPatch, module: Any, **ports: Any) -> None:
    world = World(Settings(SETTINGS))
    world.__dict__.update(ports)
    monkeypatch.setattr(module, "world", world)


def signed(scene: Scene, count_of: int) -> str:
    signer = GroupSigner(
        meta=scene.meta,
        store=scene.store,
        keys=scene.keys,
        model=MODEL,
        environment=ENVIRONMENT,
        version_digest=make_version(1).version_digest,
    )
    ids = [signer.sign(b"{}", b"[1]").prediction_id for _ in range(count_of)]
    return ids[0].partition("-")[0]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene()
    put_world(monkeypatch, collect, meta=scene.meta, store=scene.store, clock=scene.clock)
    return scene


def test_counts_are_a_line_of_the_embedded_metric_format_under_deployment_and_service(written: Written) -> None:
    count({Count.RECEIPTS_COLLECTED: 3, Count.SEQUENCE_GAPS: 0}, deployment="registry-two")
    document = written.take()
    (metrics,) = document["_aws"]["CloudWatchMetrics"]
    assert metrics["Namespace"] == NAMESPACE == "Attestry"
    assert [sorted(names) for names in metrics["Dimensions"]] == [["deployment", "service"]]
    assert (document["deployment"], document["service"]) == ("registry-two", "collect")
    assert {m["Name"]: (m["Unit"], document[m["Name"]]) for m in metrics["Metrics"]} == {
        "ReceiptsCollected": ("Count", [3]),
        "SequenceGaps": ("Count", [0]),
    }


def test_dimensions_of_one_count_are_not_those_of_the_next(written: Written) -> None:
    count({Count.STAGES_ENDED: 1}, deployment="a", stage="TRAINING", outcome="FAILED")
    assert written.take()["stage"] == "TRAINING"
    count({Count.RECEIPTS_COLLECTED: 1}, deployment="a")
    assert not written.take().keys() & {"stage", "outcome", "StagesEnded"}


def test_collected_receipts_and_gaps_are_counted(scene: Scene, written: Written) -> None:
    kid = signed(scene, 4)
    scene.meta._apply([Delete(receipt_key(kid, 2))])
    collect.handler({}, None)
    assert written.counts() == {"ReceiptsCollected": 3, "SequenceGaps": 1, "KeysNotCollected": 0}


def test_a_key_that_could_not_be_collected_is_counted(scene: Scene, written: Written) -> None:
    signed(scene, 1)
    scene.faults.fail_before(method="put_new", error=IntegrityError("something else lies there"))
    collect.handler({}, None)
    assert written.counts() == {"ReceiptsCollected": 0, "SequenceGaps": 0, "KeysNotCollected": 1}


def swept(monkeypatch: pytest.MonkeyPatch, *, attempt: int) -> dict[str, int]:
    """Sweep over a version whose execution was aborted under its latest attempt."""
    meta, pipeline = MemoryMetaStore(), MemoryPipeline()
    version = put_version(meta, stage=Stage.TRAINING, status=Status.RUNNING, attempt=attempt)
    name = version.execution_id.replace("-1-1-", f"-1-{attempt}-")
    pipeline.start(name, {})
    pipeline.end(name, "ABORTED")
    later = FixedClock(AT + timedelta(days=1))
    put_world(monkeypatch, sweep, meta=meta, pipeline=pipeline, functions=MemoryFunctions(), clock=later)
    return sweep.handler({}, None)


def test_mended_versions_are_counted(monkeypatch: pytest.MonkeyPatch, written: Written) -> None:
    assert swept(monkeypatch, attempt=1)["restarted"] == 1
    assert written.counts() == {"VersionsSwept": 1, "VersionsUnmended": 0}


def test_a_version_that_could_not_be_mended_is_counted_and_named_in_the_log(
    monkeypatch: pytest.MonkeyPatch, written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    assert swept(monkeypatch, attempt=10)["failed"] == 1
    assert written.counts() == {"VersionsSwept": 0, "VersionsUnmended": 1}
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert vars(record)["version"] == "credit-risk@1"


def test_stages_are_counted_by_stage_and_outcome_and_not_by_version(monkeypatch: pytest.MonkeyPatch, written: Written) -> None:
    meta, scratch = MemoryMetaStore(), MemoryObjectStore()
    put_version(meta, stage=Stage.REGISTERED)
    ports: dict[str, Any] = {"meta": meta, "attestor": ATTESTOR, "store": MemoryObjectStore(), "scratch": scratch}
    ports |= {"notifier": MemoryNotifier(), "clock": FixedClock()}
    put_world(monkeypatch, record_stage, **ports)
    event = {"model": "credit-risk", "version": 1, "attempt": 1, "stage": "PROCESSING", "error": {"Error": "Broken", "Cause": "no wheel"}}
    assert record_stage.handler(event, None)["outcome"] == "FAILED"
    document = written.take()
    (metrics,) = document["_aws"]["CloudWatchMetrics"]
    assert sorted(metrics["Dimensions"][0]) == ["deployment", "outcome", "service", "stage"]
    assert (document["StagesEnded"], document["stage"], document["outcome"]) == ([1], "PROCESSING", "FAILED")


def test_deployments_are_counted_as_a_stage(monkeypatch: pytest.MonkeyPatch, written: Written) -> None:
    meta = MemoryMetaStore()
    put_version(meta, stage=Stage.VALIDATION)
    ports = {"meta": meta, "attestor": ATTESTOR, "store": MemoryObjectStore(), "functions": MemoryFunctions(), "clock": FixedClock()}
    put_world(monkeypatch, deploy, **ports)
    assert deploy.handler({"model": "credit-risk", "version": 1, "attempt": 1}, None)["outcome"] == "FAILED"
    document = written.take()
    assert (document["StagesEnded"], document["stage"], document["outcome"]) == ([1], "DEPLOYMENT", "FAILED")
