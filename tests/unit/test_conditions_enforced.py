"""Conditions of approvals where they bind: at delegation, at deployment, in front of the model, and in the count of predictions."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.conditions import Conditions, strictest
from attestry.domain.errors import (
    ApprovalLapsedError,
    AttestryError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    OutsideConditionsError,
    UnavailableError,
)
from attestry.ports import Put, When
from attestry.usecases.collect import Collector
from attestry.usecases.conditions import begin_volume, check_conditions, volume_key
from attestry.usecases.decide import Verdict
from attestry.usecases.delegate import delegate_signing
from attestry.usecases.deploy import begin_deployment, swap_pointer
from attestry.usecases.group_signing import GroupSigner
from attestry.usecases.records import OUTBOX, approval_key, load_version
from attestry.usecases.sign import FunctionDelegator, SigningKeys, open_key
from tests.approvals import ApprovalWorld
from tests.deployed import AT, BODY, ENVIRONMENT, MODEL, POLICY, Scene, principal, recorded_approval
from tests.unit.test_delegation_issuing import ask
from tests.versions import AT as DECIDED
from tests.versions import ATTESTOR, ERIN, FRANK

CONSUMER = principal("frank")
SCHEMA = ({"name": "age", "type": "int64"}, {"name": "region", "type": "string"})


def conditioned(conditions: Conditions, policy: ApprovalPolicy = POLICY) -> Scene:
    """Version 1 stands deployed, approved under conditions."""
    scene = Scene()
    scene.clock.at = AT
    terms = strictest(policy, [(AT, conditions)])
    scene.change_version(1, terms=terms.to_item(), approval_policy=policy.to_item())
    version = load_version(scene.meta, MODEL, 1)
    given = {"conditions": conditions.to_item()} if conditions.to_item() else {}
    scene.meta._apply([*recorded_approval(version, **given), *(Put(w.key, w.item, When()) for w in begin_volume(version, 0, terms))])
    return scene


def predict(scene: Scene, body: bytes = BODY) -> Any:
    return scene.predictor().predict(MODEL, ENVIRONMENT, body, CONSUMER)


def volume(scene: Scene) -> tuple[int, int]:
    row = scene.meta.rows[volume_key(MODEL, 1, 0)]
    return row["given"], row["used"]


class TestUntil:
    def test_a_delegation_ends_with_the_approval_at_the_latest(self):
        scene = conditioned(Conditions(until="2026-01-02"))
        scene.clock.at = datetime.fromisoformat("2026-01-01T23:40:00.4+00:00")
        grant = ask(scene, at=scene.clock.now()).grant
        assert grant.expires == datetime.fromisoformat("2026-01-02T00:00:00+00:00").timestamp()

    def test_nothing_is_delegated_from_that_day_on_and_predictions_say_why(self):
        scene = conditioned(Conditions(until="2026-01-02"))
        predict(scene)
        scene.clock.at = datetime.fromisoformat("2026-01-02T00:00:00+00:00")
        with pytest.raises(ApprovalLapsedError, match="the approval of credit-risk@1 ended at 2026-01-02T00:00:00"):
            predict(scene)

    def test_an_approval_counts_for_the_days_of_its_policy(self):
        scene = conditioned(Conditions(), ApprovalPolicy(False, ("approver",), 1, valid_days=30))
        scene.clock.at = AT + timedelta(days=30, microseconds=-1)
        ask(scene, at=scene.clock.now())
        with pytest.raises(ApprovalLapsedError):
            ask(scene, at=AT + timedelta(days=30))

    def test_an_end_that_was_moved_in_the_table_by_hand_is_found_at_the_next_delegation(self):
        scene = conditioned(Conditions(until="2026-01-02"))
        scene.change_version(1, terms={"until": "2030-01-01T00:00:00.000000Z"})
        with pytest.raises(IntegrityError, match="names other conditions than its approvals give"):
            ask(scene)

    def test_conditions_that_were_taken_out_of_the_approvals_row_are_found_as_well(self):
        scene = conditioned(Conditions(until="2026-01-02"))
        scene.change_version(1, terms={})
        del scene.meta.rows[approval_key(MODEL, 1, "erin")]["conditions"]
        with pytest.raises(IntegrityError, match="transition"):
            ask(scene)


class TestSegment:
    def test_a_request_outside_of_the_segment_never_reaches_the_model(self):
        scene = conditioned(Conditions(segments={"age": ("41", "42")}))
        asked: list[Any] = []
        scene.inference = lambda event: asked.append(event) or {"status": "OK", "output": "[1]"}
        predict(scene)
        with pytest.raises(OutsideConditionsError, match=r"instances\[0\].age: credit-risk@1 is approved only where age is 41 or 42"):
            predict(scene, BODY.replace(b"41", b"43"))
        assert len(asked) == 1

    def test_the_check_costs_no_call_on_the_warm_path(self):
        scene = conditioned(Conditions(segments={"age": ("41",)}))
        predictor = scene.predictor()
        predictor.predict(MODEL, ENVIRONMENT, BODY, CONSUMER)
        scene.faults.clear()
        predictor.predict(MODEL, ENVIRONMENT, BODY, CONSUMER)
        assert len(scene.faults.calls) == 3

    def test_a_server_outside_signs_for_requests_of_the_segment_alone(self):
        scene = conditioned(Conditions(segments={"age": ("41",)}))
        digest = load_version(scene.meta, MODEL, 1).version_digest
        signer = GroupSigner(meta=scene.meta, store=None, keys=scene.keys, model=MODEL, environment=ENVIRONMENT, version_digest=digest)
        assert signer.sign(BODY, b"[1]").sequence == 1
        with pytest.raises(OutsideConditionsError):
            signer.sign(BODY.replace(b"41", b"43"), b"[1]")
        with pytest.raises(InvalidInputError):
            signer.sign(b"a picture", b"[1]")
        assert signer.sign(BODY, b"[1]").sequence == 2


class TestVolume:
    def test_no_more_predictions_than_the_approval_allows_are_made_and_the_next_says_why(self):
        scene = conditioned(Conditions(max_predictions=45))
        made = [predict(scene).prediction_id for _ in range(45)]
        assert len(set(made)) == 45
        with pytest.raises(ApprovalLapsedError, match="the 45 predictions that the approval of credit-risk@1 allows are given out"):
            predict(scene)

    def test_the_parts_of_many_processes_never_sum_to_more_than_the_number(self):
        scene = conditioned(Conditions(max_predictions=200))

        def serve(_: int) -> int:
            keys = SigningKeys(FunctionDelegator(scene.functions, "delegate"), scene.clock)
            version, made = load_version(scene.meta, MODEL, 1), 0
            from attestry.evidence.version_urn import VersionUrn

            while True:
                try:
                    keys.key_for(VersionUrn(MODEL, 1, version.version_digest), ENVIRONMENT).sign(BODY, b"[1]")
                except ApprovalLapsedError:
                    return made
                except (ConflictError, UnavailableError):
                    continue
                made += 1

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(serve, range(4))) == 200
        assert volume(scene) == (200, 0)

    def test_what_a_closed_key_has_not_used_is_free_again_and_what_it_has_is_not(self):
        scene = conditioned(Conditions(max_predictions=30))
        predictor = scene.predictor()
        for _ in range(3):
            predictor.predict(MODEL, ENVIRONMENT, BODY, CONSUMER)
        assert volume(scene) == (20, 0)
        collector = Collector(scene.meta, scene.store, scene.clock)
        assert not collector.collect().errors
        scene.clock.at += timedelta(hours=3)
        assert collector.collect().closed == 1
        assert volume(scene) == (3, 3)
        assert collector.collect().closed == 0
        assert volume(scene) == (3, 3)

    def test_a_version_that_made_all_its_predictions_is_not_put_in_place_again(self):
        scene = conditioned(Conditions(max_predictions=2))
        for _ in range(2):
            predict(scene)
        collector = Collector(scene.meta, scene.store, scene.clock)
        collector.collect()
        scene.clock.at += timedelta(hours=3)
        collector.collect()
        assert volume(scene) == (2, 2)
        with pytest.raises(ApprovalLapsedError, match="has made the 2 predictions that its approval allows"):
            check_conditions(scene.meta, load_version(scene.meta, MODEL, 1), scene.clock.now())

    def test_a_count_that_was_deleted_by_hand_gives_out_nothing(self):
        scene = conditioned(Conditions(max_predictions=10))
        del scene.meta.rows[volume_key(MODEL, 1, 0)]
        with pytest.raises(IntegrityError, match="is gone"):
            ask(scene)

    def test_a_delegation_whose_write_failed_gives_out_no_numbers(self):
        for point in range(1, 20):
            scene = conditioned(Conditions(max_predictions=100))
            scene.faults.clear()
            scene.faults.fail_before(point)
            try:
                ask(scene)
            except UnavailableError:
                scene.faults.clear()
                assert volume(scene) == (0, 0)
                continue
            break
        opened = [k for k in scene.meta.rows if k.partition == open_key("").partition]
        assert len(opened) == 1
        assert volume(scene)[0] == 20

    def test_a_key_of_an_earlier_approval_is_not_used_under_a_later_one(self):
        scene = conditioned(Conditions(max_predictions=100))
        from attestry.evidence.version_urn import VersionUrn

        urn = VersionUrn(MODEL, 1, load_version(scene.meta, MODEL, 1).version_digest)
        first = scene.keys.key_for(urn, ENVIRONMENT, approval=7)
        assert scene.keys.key_for(urn, ENVIRONMENT, approval=7) is first
        assert scene.keys.key_for(urn, ENVIRONMENT, approval=12) is not first


class TestDecisions:
    def test_the_strictest_of_all_approvals_holds_and_stands_in_row_event_and_attestation(self):
        world = ApprovalWorld()
        world.waiting(policy=ApprovalPolicy(False, ("approver",), 2, valid_days=90), schema=SCHEMA)
        world.decide(ERIN, conditions=Conditions(max_predictions=500, segments={"region": ("EU", "CH")}))
        last = world.decide(FRANK, conditions=Conditions(until="2026-02-01", segments={"region": ("CH", "US")}))
        terms = {"until": "2026-02-01T00:00:00.000000Z", "max_predictions": 500, "segments": {"region": ["CH"]}}
        assert dict(last.version.terms) == terms
        (told,) = [e["data"] for e in world.events() if e["kind"] == "version.approved"]
        assert told["terms"] == terms
        assert told["conditions"] == {"until": "2026-02-01", "segments": {"region": ["CH", "US"]}}
        assert world.statement(last.version.transition).predicate["content"]["terms"] == terms
        assert world.meta.get(volume_key(last.version.model, 1, last.version.opening))["max"] == 500

    def test_approvals_that_leave_no_value_of_a_feature_are_refused(self):
        world = ApprovalWorld()
        world.waiting(policy=ApprovalPolicy(False, ("approver",), 2), schema=SCHEMA)
        world.decide(ERIN, conditions=Conditions(segments={"region": ("EU",)}))
        with pytest.raises(InvalidInputError, match="no value of region is left"):
            world.decide(FRANK, conditions=Conditions(segments={"region": ("US",)}))
        assert not world.head().approved

    def test_an_approval_without_conditions_is_stored_as_ever(self):
        world = ApprovalWorld()
        world.waiting()
        row = world.meta.get(approval_key(MODEL, 1, world.decide(ERIN).approvals[0]))
        assert not {"conditions", "terms"} & row.keys()
        assert dict(world.head().terms) == {}

    def test_the_same_approval_again_under_other_conditions_is_refused(self):
        world = ApprovalWorld()
        world.waiting(schema=SCHEMA)
        world.decide(ERIN, conditions=Conditions(max_predictions=5))
        assert world.decide(ERIN, conditions=Conditions(max_predictions=5)).complete
        with pytest.raises(ConflictError, match="under other conditions"):
            world.decide(ERIN, conditions=Conditions(max_predictions=6))

    def test_a_rejection_has_no_conditions(self):
        world = ApprovalWorld()
        world.waiting()
        with pytest.raises(InvalidInputError, match="a rejection has no conditions"):
            world.decide(ERIN, Verdict.REJECT, conditions=Conditions(max_predictions=5))

    def test_conditions_that_are_refused_change_nothing(self):
        world = ApprovalWorld()
        world.waiting(schema=SCHEMA)
        before = len(world.meta.query(OUTBOX))
        with pytest.raises(AttestryError):
            world.decide(ERIN, conditions=Conditions(segments={"colour": ("red",)}))
        assert len(world.meta.query(OUTBOX)) == before

    def test_a_version_whose_approval_has_ended_is_not_deployed(self):
        world = ApprovalWorld()
        world.waiting(policy=ApprovalPolicy(False, ("approver",), 1, valid_days=1))
        version = world.decide(ERIN).version
        late = DECIDED + timedelta(days=1)
        with pytest.raises(ApprovalLapsedError):
            begin_deployment(world.meta, ATTESTOR, version, by=ERIN, reason="go", at=late)
        what = {"environment": "production", "capture_rate": "1", "by": ERIN, "reason": "go", "at": late}
        with pytest.raises(ApprovalLapsedError):
            swap_pointer(world.meta, ATTESTOR, version.model, 1, **what)


def test_a_delegation_says_its_limits_and_its_event_the_number():
    scene = conditioned(Conditions(max_predictions=100, segments={"age": ("41",)}))
    grant = delegate_signing(scene.meta, scene.signer, model=MODEL, environment=ENVIRONMENT, jwk=_jwk(), at=AT).grant
    assert (grant.max_receipts, dict(grant.segments)) == (20, {"age": ("41",)})
    told = [json.loads(row["event"]) for row in scene.meta.query(OUTBOX)]
    assert [e["data"]["max_receipts"] for e in told if e["kind"] == "key.delegated"] == [20]


def _jwk() -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from attestry.evidence.delegation import jwk_of

    return jwk_of(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
