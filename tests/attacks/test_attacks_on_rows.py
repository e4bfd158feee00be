"""Attacks on the table by an administrator who may write every row of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestry.domain.stages import Stage
from attestry.evidence.leaf import Leaf, event_id, read_bundle
from attestry.evidence.note import Checkpoint, parse_note
from attestry.evidence.tlog import TILE_WIDTH, tile_at
from attestry.ports import Key
from attestry.usecases.ledger_head import leaf_key
from attestry.usecases.records import approval_key, pointer_key, stage_key, transition_key, version_key
from attestry.usecases.sign import delegation_key, receipt_key
from tests.attacks.conftest import Tell
from tests.attacks.scene import Scene, claims_of, failures

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]


def shown_findings(scene: Scene, number: int) -> set[str]:
    """Kinds of the open findings that `show` lists of a version."""
    return {f["what"] for f in scene.registry.client("grace").version(scene.model, number)["findings"]}


def test_an_edited_transition_is_found_and_breaks_every_deep_trace(scene: Scene, tell: Tell) -> None:
    key = transition_key(scene.model, scene.second, 3)
    with scene.edited(key, reason="it was always like this"):
        found, deep = scene.findings(), scene.trace(deep=True)
        shown = shown_findings(scene, scene.second)
    assert f"{key.partition}/{key.sort}" in found["transition.changed"]
    assert "transition.changed" in failures(deep)["reconciliation"]
    assert "transition.changed" in shown
    tell("finding `transition.changed`, in `show` as well; deep trace BROKEN at `reconciliation`")


def test_a_finding_is_closed_once_the_row_is_put_back_and_stays_in_the_ledger(scene: Scene, tell: Tell) -> None:
    key = transition_key(scene.model, scene.second, 4)
    with scene.edited(key, reason="for an hour only"):
        assert f"{key.partition}/{key.sort}" in scene.findings()["transition.changed"]
    assert f"{key.partition}/{key.sort}" not in scene.findings().get("transition.changed", [])
    scene.sequence()
    kinds = [e["kind"] for e in ledger_events(scene)]
    assert kinds.count("finding.opened") >= 1
    assert kinds.count("finding.closed") >= 1
    tell("putting it back closes the finding; that it was open stays in the ledger (`finding.opened`, `finding.closed`)")


def test_a_transition_that_is_deleted_is_missed(scene: Scene, tell: Tell) -> None:
    key = transition_key(scene.model, scene.second, 4)
    with scene.kept(key):
        scene.delete_row(key)
        trace, found = scene.trace(), scene.findings()
    assert "have gaps" in failures(trace)["transitions"]
    assert f"{key.partition}/{key.sort}" in found["transition.deleted"]
    tell("trace BROKEN at `transitions`, finding `transition.deleted`")


def test_metrics_that_are_edited_in_the_record_are_not_those_that_the_approval_rests_on(scene: Scene, tell: Tell) -> None:
    key = stage_key(scene.model, scene.second, Stage.VALIDATION, 1)
    record = json.loads(scene.row(key)["record"]["S"])
    record["metrics"]["recall_score"] = "1.0"
    with scene.edited(key, record=json.dumps(record)):
        trace, found = scene.trace(), scene.findings()
    assert "not the one that its transition rests on" in failures(trace)["record of VALIDATION"]
    assert f"{key.partition}/{key.sort}" in found["run.changed"]
    tell("trace BROKEN at `record of VALIDATION`, finding `run.changed`")


def test_an_edited_head_is_found(scene: Scene, tell: Tell) -> None:
    key = version_key(scene.model, scene.second)
    changes = {"metrics": {"recall_score": "1.0"}, "version_digest": "ab" * 32, "submitter_person": "grace", "standing": "APPROVED"}
    with scene.edited(key, **changes):
        found = scene.findings()
    assert [field for field in changes if f"{key.partition}/HEAD" not in found.get(f"head.{field}", [])] == []
    tell(f"findings {', '.join(f'`head.{field}`' for field in changes)}")


def test_an_approval_that_is_deleted_is_missed(scene: Scene, tell: Tell) -> None:
    key = approval_key(scene.model, scene.second, "erin")
    with scene.kept(key):
        scene.delete_row(key)
        found = scene.findings()
    assert f"{key.partition}/{key.sort}" in found["decision.deleted"]
    tell("finding `decision.deleted`")


def test_a_pointer_that_is_moved_by_hand_is_found_and_signs_for_nothing(scene: Scene, tell: Tell) -> None:
    key, twin = pointer_key(scene.model, "production"), scene.head(scene.twin)
    named = {"version_digest": twin.version_digest, "execution_id": twin.execution_id, "folder": twin.folder}
    with scene.edited(key, number=scene.twin, **named):
        scene.registry.forget_processes("predict")
        answer, found = scene.predict(), scene.findings()
    scene.registry.forget_processes("predict")
    assert answer.status == 409, answer.raw
    assert f"{key.partition}/{key.sort}" in found["pointer.moved"]
    tell("prediction refused: 409, no delegation; finding `pointer.moved`")


def test_a_capture_rate_that_is_lowered_by_hand_is_found(scene: Scene, tell: Tell) -> None:
    key = pointer_key(scene.model, "production")
    with scene.edited(key, capture_rate="0"):
        found = scene.findings()
    assert f"{key.partition}/{key.sort}" in found["pointer.capture_rate"]
    tell("finding `pointer.capture_rate`")


def test_a_receipt_that_is_altered_in_its_row_breaks_its_trace(scene: Scene, tell: Tell) -> None:
    prediction = scene.predictions[1]
    key = receipt_key(scene.kid, int(claims_of(prediction["receipt"])["sequence"]))
    with scene.edited(key, receipt=str(scene.predictions[2]["receipt"])):
        trace = scene.trace()
    assert "of another prediction" in failures(trace)["receipt"]
    tell("trace BROKEN at `receipt`")


def test_a_delegation_that_is_exchanged_in_its_row_breaks_its_traces(scene: Scene, tell: Tell) -> None:
    other = scene.delegation(str(scene.by_first["prediction_id"]).rpartition("-")[0])
    key = delegation_key(scene.kid)
    with scene.edited(key, delegation=other):
        trace = scene.trace()
    assert "not the one that the prediction ID names" in failures(trace)["delegation"]
    tell("trace BROKEN at `delegation`: the key ID is the digest of its delegation")


def test_an_index_row_that_points_elsewhere_is_found(scene: Scene, tell: Tell) -> None:
    key = leaf_key(event_id("version.deployed", f"{scene.model}@{scene.second}", scene.head(scene.second).transition))
    with scene.edited(key, sha256="ab" * 32):
        found = scene.findings(whole=True)
    assert key.partition in found["index.changed"]
    tell("finding `index.changed`")


def test_a_version_that_is_deleted_as_a_whole_is_missed(scene: Scene, tell: Tell) -> None:
    model, number = scene.liar
    keys = [Key(row["pk"], row["sk"]) for row in scene.registry.meta.query(version_key(model, number).partition)]
    with scene.kept(*keys):
        for key in keys:
            scene.delete_row(key)
        found = scene.findings()
    assert f"{version_key(model, number).partition}/HEAD" in found["head.deleted"]
    tell("the ledger still tells of it: finding `head.deleted`")


def ledger_events(scene: Scene) -> list[dict[str, Any]]:
    """All events of the ledger, read through the API."""
    size = Checkpoint.parse(parse_note(scene.ledger_file("checkpoint"))[0]).size
    tiles = [tile_at(0, n, size) for n in range(-(-size // TILE_WIDTH))]
    return [dict(Leaf.parse(leaf).event) for tile in tiles for leaf in read_bundle(scene.ledger_file(tile.entries_path), tile.width)]
