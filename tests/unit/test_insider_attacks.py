"""Attacks from inside: events committed around the registry's rules, attested by the right functions' keys and in the ledger. The verifier
applies the rules itself, so none is PROVEN.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestry.client.ceremony import next_targets
from attestry.client.key_changes import revoke
from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal, registry_principal
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version
from attestry.evidence.bundle import BundleIndex, read_bundle
from attestry.evidence.delegation import Delegation, issue
from attestry.evidence.digests import sha256_hex
from attestry.evidence.packet import Packet
from attestry.evidence.predicates import APPROVAL, DEPLOYMENT, Predicate
from attestry.evidence.prediction_id import PredictionId
from attestry.evidence.receipt import ReceiptWriter
from attestry.evidence.seal import Seal, prove_receipt, seal_root
from attestry.evidence.verdict import Verification
from attestry.evidence.verification import verify_bundle
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import Put
from attestry.usecases.packet import load_packet
from attestry.usecases.records import OUTBOX, Move, load_version, move_writes, outbox_put
from attestry.usecases.root import publish_root
from attestry.usecases.sign import delegation_key, receipt_key
from tests.evidence_world import ADMIN, DEPLOYER, ERIN, EvidenceWorld, find_leaf, rewrite
from tests.root_of_trust import REGISTRY
from tests.ssh_keys import SshPerson
from tests.unit.test_bundle_attacks import broken
from tests.unit.test_verification import Made
from tests.versions import DANA, session

HONEST: dict[str, Any] = {}


def commit(world: EvidenceWorld, function: str, move: Move, **changes: Any) -> None:
    """Move the version with the key of a function, whatever the rules say."""
    world.meta.transact(move_writes(world.head, move, world.flow.attestors[function], changes))


def decide(
    world: EvidenceWorld,
    by: Principal = ERIN,
    *,
    function: str = "decide",
    packet: Packet | None = None,
    facts: dict[str, Any] = HONEST,
    content: dict[str, Any] = HONEST,
    evidence: str | None = None,
    kind: str = "version.approved",
) -> None:
    """Record a decision as the registry would, but for what is given."""
    version = world.head
    packet = packet or load_packet(world.store, version)
    policy = ApprovalPolicy.from_item(version.approval_policy)
    told = {
        "person": by.person or by.login,
        "decision": "approve",
        "policy_sha256": policy.digest,
        "opened": packet.content["transition"],
        "signed_by_person": False,
        **facts,
    }
    said = {
        **told,
        "stage": "APPROVAL",
        "version_digest": version.version_digest,
        "policy": policy.to_item(),
        "packet_sha256": packet.sha256,
        **content,
    }
    rests_on = packet.sha256 if evidence is None else evidence
    after = (Status.SUCCEEDED, Standing.APPROVED) if kind == "version.approved" else (Status.RUNNING, version.standing)
    move = Move(Stage.APPROVAL, *after, kind, by, "fine", world.clock.now(), rests_on, told, Predicate(APPROVAL, said))
    commit(world, function, move, approved=kind == "version.approved")


def opened(**kwargs: Any) -> EvidenceWorld:
    """A world whose version waits for its approval."""
    world = EvidenceWorld()
    world.validate(**kwargs)
    world.open()
    return world


def judged(world: EvidenceWorld) -> Verification:
    world.sequence()
    return world.verify(world.version_bundle())


class TestApprovals:
    def test_the_forged_decision_is_right_where_nothing_is_changed(self):
        world = opened()
        decide(world)
        assert judged(world).verdict == "PROVEN"

    @pytest.mark.parametrize(
        ("by", "why"),
        [
            (session("approver", "dana", person="dana"), "submitted the candidate"),
            (session("approver", "other-login-of-dana", person="dana"), "submitted the candidate"),
            (session("scientist", "mary", person="mary"), "in none of the roles"),
            (session("approver", "nobody"), "not taken from that person"),
            (registry_principal("approval-policy"), "not taken from that person"),
        ],
    )
    def test_who_may_not_approve(self, by, why):
        world = opened()
        decide(world, by)
        assert why in broken(judged(world), "approvals")

    @pytest.mark.parametrize(
        "changed",
        [
            {"content": {"version_digest": "cd" * 32}},
            {"content": {"packet_sha256": "cd" * 32}},
            {"content": {"stage": "DEPLOYMENT"}},
            {"content": {"policy": {"automatic": True, "roles": [], "count": 0, "signed": False}}},
            {"content": {"more": 1}},
            {"facts": {"opened": 3}},
            {"facts": {"policy_sha256": "cd" * 32}},
            {"facts": {"decision": "reject"}},
            {"facts": {"person": "grace"}},
            {"evidence": "cd" * 32},
            {"evidence": ""},
        ],
    )
    def test_an_approval_of_something_else_does_not_serve_here(self, changed):
        world = opened()
        decide(world, **changed)
        broken(judged(world), "approvals")

    def test_the_gate_cannot_approve_for_people(self):
        world = opened()
        decide(world, function="gate")
        assert "not taken from that person" in broken(judged(world), "approvals")

    def test_people_cannot_approve_for_a_policy(self):
        def automatic(draft: dict[str, Any]) -> None:
            draft["approval"] = {"automatic": True}

        world = EvidenceWorld()
        world.validate(edit=automatic)
        token = world.flow.pipeline.wait_for_token(world.head.execution_id)
        assert token
        world.open()
        world.sequence()
        assert world.verify(world.version_bundle()).facts["approvals"][0]["grade"] == "policy"

    def test_one_person_does_not_count_twice(self):
        def two(draft: dict[str, Any]) -> None:
            draft["approval"] = {"people": {"roles": ["approver"], "count": 2}}

        world = opened(edit=two)
        decide(world, kind="approval.given")
        decide(world)
        assert "twice" in broken(judged(world), "approvals")
        world = opened(edit=two)
        decide(world)
        assert "asks for 2 approvals" in broken(judged(world), "approvals")

    def test_a_policy_that_asks_for_signatures_is_not_met_without(self):
        def signed(draft: dict[str, Any]) -> None:
            draft["approval"] = {"people": {"roles": ["approver"], "count": 1}, "signed": True}

        world = opened(edit=signed)
        decide(world)
        assert "own signature" in broken(judged(world), "approvals")

    def test_a_signature_by_another_key_or_over_another_packet_is_refused(self):
        world = opened()
        world.approve()
        world.sequence()
        bundle = world.version_bundle()
        packet = str(world.head.packet["sha256"])
        for forged in (SshPerson("mallory").sign(packet), SshPerson("erin").sign("ab" * 32)):
            broken(world.verify(rewrite(bundle, {"signatures/erin.sig": forged})), "approvals")

    def test_a_packet_that_shows_other_numbers_than_the_evidence_is_refused(self):
        """Frozen by the gate itself, decided on, and in the ledger: but not what VALIDATION found."""
        world = EvidenceWorld()
        version = world.validate()
        number, folder = version.transition + 1, version.folder
        from attestry.usecases.freeze_packet import freeze_packet

        honest = freeze_packet(world.meta, world.store, version, world.clock.now()).packet
        forged = Packet.make({**honest.content, "metrics": {**honest.content["metrics"], "recall_score": "1.0"}})
        kept = world.store.put_new(f"{folder}/evidence/packet-forged.json", forged.raw)
        place = {"sha256": kept.sha256, "key": kept.key, "version_id": kept.version_id, "transition": number, "page_sha256": "ab" * 32}
        data = {"policy_sha256": forged.content["policy_sha256"], "page_sha256": "ab" * 32}
        by = registry_principal("pipeline")
        move = Move(Stage.APPROVAL, Status.RUNNING, version.standing, "stage.started", by, "go", world.clock.now(), forged.sha256, data)
        commit(world, "gate", move, packet=place)
        decide(world, packet=forged)
        assert "another metrics" in broken(judged(world), "approvals")

    def test_a_version_that_nobody_approved_cannot_be_deployed(self):
        world = opened()
        facts = {"environment": "production", "capture_rate": "1", "approved_by": []}
        move = Move(
            *(Stage.DEPLOYMENT, Status.SUCCEEDED, Standing.DEPLOYED, "version.deployed", DEPLOYER, "now", world.clock.now()),
            data=facts,
            predicate=Predicate(DEPLOYMENT, {}),
        )
        commit(world, "deploy", move)
        assert "cannot begin at CANDIDATE" in broken(judged(world), "transitions")


class TestMoves:
    @pytest.mark.parametrize(
        ("function", "kind", "standing"),
        [
            ("prepare_stage", "version.approved", Standing.APPROVED),
            ("deploy", "version.killed", Standing.RETIRED),
            ("record_stage", "version.approved", Standing.APPROVED),
        ],
    )
    def test_a_function_cannot_make_the_moves_of_another(self, function, kind, standing):
        world = opened()
        if kind == "version.approved":
            decide(world, function=function)
        else:
            status = Status.FAILED
            commit(world, function, Move(Stage.APPROVAL, status, standing, kind, ADMIN, "x", world.clock.now(), data={"vacated": []}))
        assert "may not sign" in broken(judged(world), "transitions")

    def test_a_move_that_does_more_than_its_kind_says_is_refused(self):
        world = opened()
        move = Move(Stage.DEPLOYMENT, Status.RUNNING, Standing.APPROVED, "stage.started", DEPLOYER, "x", world.clock.now())
        commit(world, "deploy", move)
        assert "it may lead to" in broken(judged(world), "transitions")

    def test_a_missing_move_is_incomplete_and_a_chain_that_does_not_join_is_broken(self):
        world = EvidenceWorld()
        world.deploy()
        held = [k for k in world.meta.rows if k.partition == OUTBOX and b"version.approved" in world.meta.rows[k]["event"]]
        rows = [world.meta.rows.pop(k) for k in held]
        transition = next(k for k in world.meta.rows if k.sort == "TRANSITION#000009")
        kept = world.meta.rows.pop(transition)
        world.sequence()
        lacking = world.verify(world.version_bundle())
        assert lacking.verdict == "INCOMPLETE", lacking.reason
        assert next(s for s in lacking.steps if s.name == "transitions").outcome == "missing"
        world.meta.rows |= {transition: kept, **dict(zip(held, rows, strict=True))}
        world.sequence()
        assert world.verify(world.version_bundle()).verdict == "PROVEN"

    def test_a_key_that_was_revoked_before_signs_nothing_that_counts(self):
        world = EvidenceWorld()
        world.deploy()
        world.sequence()
        assert world.verify(world.version_bundle()).verdict == "PROVEN"
        signer = next(s for s in world.trusted_root.signers if s.name == "decide")
        since = "2026-01-02T03:04:10.000000Z"
        files = world.people.finish(
            next_targets(world.root_files, revoke(world.trusted_root, signer.fingerprint, since=since), at=world.clock.now())
        )
        publish_root(world.meta, world.store, files, registry=REGISTRY, by=ADMIN, at=world.clock.now())
        told = broken(world.verify(world.version_bundle()), "transitions")
        assert "valid from" in told
        assert "decide" in told

    def test_metadata_that_had_expired_at_the_time_of_the_checkpoint_is_refused(self):
        world = EvidenceWorld()
        world.deploy()
        world.sequence()
        world.clock.advance(days=4000)
        # The world goes on: something else is logged years later.
        world.meta.transact([outbox_put(Event("capture.set", "x/production", 1, world.clock.now(), ADMIN, {}))])
        world.sequence()
        assert "expired" in broken(world.verify(world.version_bundle()), "validity")


class TestGates:
    def test_gates_that_were_logged_after_the_evaluation_are_refused(self):
        world = EvidenceWorld()
        version = world.flow.register_example()
        world.version = version
        world.flow.build_environments(version)
        for stage in (Stage.PROCESSING, Stage.TRAINING):
            world.flow.pass_stage(version, stage)
        world.sequence()
        world.flow.prepare(version, Stage.VALIDATION)
        held = {k: world.meta.rows.pop(k) for k in list(world.meta.rows) if k.partition == OUTBOX}
        assert len(held) == 1
        world.flow.record(version, Stage.VALIDATION, world.flow.run(world.head, Stage.VALIDATION))
        world.sequence()
        world.meta.rows |= held
        assert "after the evaluation had ended" in broken(judged(world), "gates")

    @pytest.mark.parametrize("change", ["criteria", "gates", "metrics"])
    def test_a_judgement_by_other_rules_or_over_other_numbers_is_refused(self, change, monkeypatch):
        """The recording function is subverted: it writes and attests a record of its own liking."""
        from attestry.usecases import record_stage

        honest = record_stage.write_record

        def forged(row: Any, recorded: Any, *rest: Any) -> dict[str, Any]:
            record = honest(row, recorded, *rest)
            if record["stage"] == "VALIDATION" and change == "criteria":
                record["criteria"]["gates"]["metrics"][0]["minimum"] = 0.1
            elif record["stage"] == "VALIDATION" and change == "gates":
                record["gates"][0] = {**record["gates"][0], "threshold": "0.1"}
            elif record["stage"] == "VALIDATION":
                record["metrics"] = {**record["metrics"], "recall_score": "0.1"}
            return record

        monkeypatch.setattr(record_stage, "write_record", forged)
        world = EvidenceWorld()
        world.validate()
        broken(judged(world), "gates")

    @pytest.mark.parametrize(
        "change",
        [
            lambda r: r["compared_holdout"].update(labels="ab" * 32),
            lambda r: [g.update(compared_on="another hold-out") for g in r["gates"] if "compared_on" in g],
            lambda r: [g.pop("compared_on", None) for g in r["gates"]],
            lambda r: r.pop("compared_holdout"),
        ],
        ids=["hold-out", "told otherwise", "not told", "hold-out left out"],
    )
    def test_a_comparison_that_hides_which_hold_out_it_was_made_on_is_refused(self, change: Callable[[Any], Any], monkeypatch):
        from attestry.usecases import record_stage

        honest = record_stage.write_record

        def forged(*given: Any) -> dict[str, Any]:
            record = json.loads(json.dumps(honest(*given)))
            if (record["stage"], record["number"]) == ("VALIDATION", 2):
                change(record)
            return record

        def second() -> Verification:
            world = EvidenceWorld()
            world.deploy()
            world.validate(edit=lambda d: d["training"]["hyperparameters"].update(C=0.2))
            world.sequence()
            return world.verify(world.version_bundle(2))

        assert second().verdict == "PROVEN"
        monkeypatch.setattr(record_stage, "write_record", forged)
        broken(second(), "gates")

    @pytest.mark.parametrize(
        ("stage", "change"),
        [
            ("TRAINING", lambda r: r["parameters"].update(C=9.9)),
            ("TRAINING", lambda r: r["code"].update(revision="ab" * 20)),
            ("TRAINING", lambda r: r["inputs"][0].update(digest="ab" * 32)),
            ("TRAINING", lambda r: r["environment"].update(lock_sha256="ab" * 32)),
            ("TRAINING", lambda r: r["resources"]["requested"].update(memory_mib=1)),
            ("PROCESSING", lambda r: r["outputs"][0]["files"][0].update(sha256="ab" * 32)),
            ("PROCESSING", lambda r: r["outputs"].pop(0)),
            ("PROCESSING", lambda r: r.update(candidate="ab" * 32)),
        ],
    )
    def test_a_record_that_is_not_what_was_planned_and_made_is_refused(self, stage: str, change: Callable[[Any], Any], monkeypatch):
        from attestry.usecases import record_stage

        honest = record_stage.write_record

        def forged(*given: Any) -> dict[str, Any]:
            record = honest(*given)
            if record["stage"] == stage:
                change(record)
            return record

        monkeypatch.setattr(record_stage, "write_record", forged)
        world = EvidenceWorld()
        world.validate()
        broken(judged(world), "provenance")


class Thief:
    """Holds the delegator's key, or has it used, and signs with a key of its own."""

    def __init__(self, world: EvidenceWorld, version: Version, *, environment: str = "production") -> None:
        self.world, self.version = world, version
        self.key = Ed25519PrivateKey.generate()
        self.urn = VersionUrn(version.model, version.number, version.version_digest)
        self.delegation: Delegation = issue(
            world.delegator,
            version=self.urn,
            environment=environment,
            standing="DEPLOYED",
            public_key=self.key.public_key().public_bytes_raw(),
            now=world.clock.now(),
        )

    def log_delegation(self, **changes: Any) -> None:
        grant, kid, at = self.delegation.grant, self.delegation.kid, self.world.clock.now()
        data = {
            "kid": kid,
            "delegation_sha256": sha256_hex(self.delegation.token.encode()),
            "version": str(grant.version),
            "environment": grant.environment,
            "standing": grant.standing,
            "expires": grant.expires,
            "capture_rate": "1",
            "delegator": grant.issuer,
            **changes,
        }
        event = Event("key.delegated", f"key/{kid}", 1, at, registry_principal("delegate"), data)
        row = {
            "delegation": self.delegation.token,
            "model": self.version.model,
            "number": self.version.number,
            "folder": self.version.folder,
            "issued": timestamp(at),
        }
        self.world.meta.transact([outbox_put(event), Put(delegation_key(kid), row)])

    def predict(self, *, urn: VersionUrn | None = None, later_ms: int = 1000) -> str:
        writer = ReceiptWriter(self.key.sign, kid=self.delegation.kid, version=urn or self.urn)
        time_ms = self.delegation.grant.not_before * 1000 + later_ms
        receipt = writer.emit(sequence=1, time_ms=time_ms, request=b"{}", output=b"[1]")
        at = timestamp(self.world.clock.now())
        self.world.meta.transact([Put(receipt_key(self.delegation.kid, 1), {"receipt": receipt.token, "at": at, "captured": False})])
        self.token = receipt.token
        return receipt.prediction_id

    def seal(self) -> bytes:
        """Log a seal over the one receipt, and return the proof."""
        kid, receipt = self.delegation.kid, self.token.encode()
        place = f"{self.version.folder}/predictions/{kid}/{1:012d}-{1:012d}.jsonl"
        seal = Seal(kid, self.version.model, self.version.number, 1, 1, seal_root([receipt]), place, "ab" * 32, 0)
        event = Event("key.sealed", f"key/{kid}", 1, self.world.clock.now(), registry_principal("collect"), seal.to_data())
        self.world.meta.transact([outbox_put(event)])
        return prove_receipt([receipt], 0).to_bytes()


class TestPredictions:
    @pytest.fixture
    def world(self):
        world = EvidenceWorld()
        world.deploy()
        world.sequence()
        return world

    def test_a_delegation_for_a_killed_version_is_refused(self, world):
        world.kill()
        world.sequence()
        thief = Thief(world, world.head)
        thief.log_delegation()
        prediction = thief.predict()
        world.sequence()
        assert "stood RETIRED" in broken(world.verify(world.bundle(prediction)), "standing")

    def test_a_delegation_for_a_version_that_was_never_deployed_is_refused(self):
        world = EvidenceWorld()
        world.validate()
        world.open()
        world.approve()
        world.sequence()
        thief = Thief(world, world.head)
        thief.log_delegation()
        prediction = thief.predict()
        world.sequence()
        assert "was not deployed when it was delegated to" in broken(world.verify(world.bundle(prediction)), "standing")

    def test_a_delegation_for_another_environment_is_refused(self, world):
        thief = Thief(world, world.head, environment="staging")
        thief.log_delegation()
        prediction = thief.predict()
        world.sequence()
        assert "deployed in production" in broken(world.verify(world.bundle(prediction)), "standing")

    def test_a_delegation_that_is_not_in_the_ledger_is_incomplete(self, world):
        prediction = world.predict()
        for key in [k for k in world.meta.rows if k.partition == OUTBOX]:
            del world.meta.rows[key]
        world.sequence()
        verification = world.verify(world.bundle(prediction))
        assert verification.verdict == "INCOMPLETE"
        assert "delegation" in verification.reason

    def test_a_delegation_that_was_logged_long_after_its_date_is_told(self, world):
        thief = Thief(world, world.head)
        world.clock.advance(days=2)
        thief.log_delegation()
        prediction = thief.predict()
        world.sequence()
        verification = world.verify(world.bundle(prediction))
        assert verification.verdict == "SIGNED-UNANCHORED"
        assert verification.notes[0].startswith("LOGGED LATE")

    @pytest.mark.parametrize("changes", [{"delegation_sha256": "ab" * 32}, {"expires": 1}, {"version": "urn:x"}, {"standing": "SHADOW"}])
    def test_an_event_of_another_delegation_is_refused(self, world, changes):
        thief = Thief(world, world.head)
        thief.log_delegation(**changes)
        prediction = thief.predict()
        world.sequence()
        broken(world.verify(world.bundle(prediction)), "delegation")

    def test_a_receipt_that_names_another_version_than_its_key_is_refused(self, world):
        thief = Thief(world, world.head)
        thief.log_delegation()
        prediction = thief.predict(urn=VersionUrn(world.head.model, 2, "ab" * 32))
        world.sequence()
        assert "may not sign for" in broken(world.verify(world.bundle(prediction)), "receipt")

    @pytest.mark.parametrize("later_ms", [-1, 3_600_000, 10**11])
    def test_a_receipt_from_outside_the_time_of_its_delegation_is_refused(self, world, later_ms):
        thief = Thief(world, world.head)
        thief.log_delegation()
        prediction = thief.predict(later_ms=later_ms)
        world.sequence()
        broken(world.verify(world.bundle(prediction)), "receipt")

    def test_a_receipt_that_a_stolen_key_signs_after_the_kill_is_refused(self, world):
        thief = Thief(world, world.head)
        thief.log_delegation()
        world.sequence()
        world.kill()
        prediction = thief.predict(later_ms=1_800_000)
        world.sequence()
        assert "after the end of the version" in broken(world.verify(world.bundle(prediction)), "receipt")

    def test_a_receipt_that_was_made_after_its_key_was_closed_is_refused(self):
        made = Made()
        world = made.world
        world.clock.advance(hours=2)
        world.seal()
        world.seal()
        kid = made.prediction.rpartition("-")[0]
        (key,) = world.keys._keys.values()
        key._clock.at = world.clock.at
        writer = key._writer
        late = writer.emit(sequence=2, time_ms=key._last_ms, request=b"{}", output=b"[1]")
        world.meta.transact([Put(receipt_key(kid, 2), {"receipt": late.token, "at": "x", "captured": False})])
        assert PredictionId.parse(late.prediction_id).sequence == 2
        assert "closed without this number" in broken(world.verify(world.bundle(late.prediction_id)), "seal")

    def test_a_seal_of_the_thief_does_not_help_a_version_that_was_killed(self, world):
        world.kill()
        world.sequence()
        thief = Thief(world, world.head)
        thief.log_delegation()
        prediction = thief.predict()
        proof = thief.seal()
        world.sequence()
        bundle = rewrite(world.bundle(prediction), {"prediction/proof.json": proof})
        assert world.verify(bundle).verdict == "BROKEN"

    def test_what_a_bundle_leaves_out_is_found_in_the_ledger_and_not_in_the_bundle(self, world):
        """The limit that the documents name: who makes a bundle can leave out the last moves of the version."""
        prediction = world.predict()
        world.seal()
        honest = world.bundle(prediction)
        world.kill()
        world.sequence()
        killed = find_leaf(world.bundle(prediction), "version.killed", f"{world.head.model}@1", 12)
        assert killed not in read_bundle(honest).files
        assert world.verify(honest).verdict == "PROVEN"
        assert world.verify(honest).witnessing.size < world.verify(world.bundle(prediction)).witnessing.size
        report = read_bundle(honest).files["REPORT.md"].decode()
        assert "that the bundle's maker left out" in report


def test_a_bundle_of_one_registry_is_not_one_of_another():
    first, second = Made(), Made()
    index = read_bundle(first.bundle).index
    assert BundleIndex(**vars(index)) == index
    assert verify_bundle(second.bundle, pin=first.world.pin).verdict == "BROKEN"
    assert load_version(first.world.meta, index.model, 1).submitter_person == DANA.person
