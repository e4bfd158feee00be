"""Attestations: each move of a version is attested before it is committed, and the attestation says what the event says."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from attestry.domain.approvals import MAX_REASON_BYTES as MAX_PERSONS_REASON
from attestry.domain.approvals import read_reason
from attestry.domain.errors import IntegrityError, InvalidInputError, UnavailableError
from attestry.domain.events import MAX_EVENT_BYTES, MAX_REASON_BYTES, shorten
from attestry.domain.principal import Principal
from attestry.domain.stages import Stage, Standing, Status
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.predicates import (
    APPROVAL,
    DEPLOYMENT,
    MOVE_FIELD,
    PROVENANCE,
    TEST_RESULT,
    TRANSITION,
    MoveFacts,
    Predicate,
    check_attestation,
    read_move,
    state_move,
)
from attestry.evidence.statement import Statement, Subject
from attestry.evidence.trusted_root import MAY_SIGN_AT
from attestry.ports import Put
from attestry.usecases.attest import Attestor
from attestry.usecases.deploy import fail_deployment, swap_pointer
from attestry.usecases.records import OUTBOX, Move, approval_key, load_version, move_writes, transition_key
from attestry.usecases.stage_result import StageResult
from tests.attestations import attested, events_of
from tests.fakes import Faults, LocalSigner, MemoryMetaStore, MemoryObjectStore
from tests.flow import Flow, Serving
from tests.versions import AT, ATTESTOR, DANA, ERIN, make_approved, make_version

MODEL = "tumour-diagnosis"


@pytest.fixture(scope="module")
def serving() -> Serving:
    return Serving()


@pytest.fixture(scope="module")
def told(serving) -> dict[tuple[str, str], tuple[dict[str, Any], Statement]]:
    """Event and statement of each move of a deployed version, by kind and stage."""
    flow = serving.flow
    events = events_of(flow.meta, MODEL, 1)
    statements = attested(flow.meta, flow.store, flow.mover, MODEL, 1)
    return {(e["kind"], e["data"]["to"]["stage"]): (e, s) for e, s in zip(events, statements, strict=True)}


def edited(statement: Statement, edit) -> Statement:
    predicate = copy.deepcopy(dict(statement.predicate))
    edit(predicate)
    return replace(statement, predicate=predicate)


class TestMoves:
    def test_every_move_is_attested_by_the_type_of_its_kind(self, told):
        assert {key: s.predicate_type for key, (_, s) in told.items()} == {
            ("candidate.registered", "REGISTERED"): TRANSITION,
            ("stage.started", "PROCESSING"): TRANSITION,
            ("stage.succeeded", "PROCESSING"): PROVENANCE,
            ("stage.started", "TRAINING"): TRANSITION,
            ("stage.succeeded", "TRAINING"): PROVENANCE,
            ("stage.started", "VALIDATION"): TRANSITION,
            ("stage.succeeded", "VALIDATION"): TEST_RESULT,
            ("stage.started", "APPROVAL"): TRANSITION,
            ("version.approved", "APPROVAL"): APPROVAL,
            ("version.deployed", "DEPLOYMENT"): DEPLOYMENT,
        }

    def test_every_move_is_one_that_some_function_may_sign(self, told):
        for kind, stage in told:
            assert [function for function, kinds in MAY_SIGN_AT.items() if stage in kinds.get(kind, ())], kind

    def test_the_subject_is_the_candidate_then_the_data_then_the_version(self, told, serving):
        version = serving.version
        names = {key: tuple(x.name for x in s.subjects) for key, (_, s) in told.items()}
        assert names["stage.started", "PROCESSING"] == ("candidate",)
        assert names["stage.succeeded", "PROCESSING"] == ("dataset/training", "dataset/holdout", "dataset/holdout-labels")
        assert names["stage.started", "TRAINING"] == ("candidate",)
        assert names["stage.succeeded", "TRAINING"] == (f"urn:attestry:{MODEL}:1:sha256:{version.version_digest}",)
        assert names["version.deployed", "DEPLOYMENT"] == names["stage.succeeded", "TRAINING"]
        assert told["candidate.registered", "REGISTERED"][1].subjects[0].sha256 == version.candidate
        assert told["stage.succeeded", "PROCESSING"][1].subjects[0].sha256 == version.dataset("training").digest

    def test_the_replaced_and_the_released_version_have_attestations_of_their_own(self):
        meta, store, signer = MemoryMetaStore(), MemoryObjectStore(), LocalSigner()
        for number in (1, 2, 3):
            make_approved(meta, number)
        for number in (1, 2, 3):
            facts = {"environment": "production", "capture_rate": "1", "by": ERIN, "reason": "approved", "at": AT}
            swap_pointer(meta, Attestor(signer, store), "credit-risk", number, **facts)
        kinds = {n: meta.query(f"VERSION#credit-risk#{n}", prefix="TRANSITION#")[-1]["kind"] for n in (1, 2, 3)}
        assert kinds == {1: "version.released", 2: "version.replaced", 3: "version.deployed"}
        assert len(store.versions) == 1 + 2 + 3

    def test_a_move_whose_attestation_cannot_be_signed_or_kept_does_not_happen(self):
        for method in ("sign_es256", "put_new"):
            faults, meta = Faults(), MemoryMetaStore()
            version = make_version(meta)
            attestor = Attestor(LocalSigner(faults=faults), MemoryObjectStore(faults))
            faults.fail_before(method=method)
            move = Move(Stage.APPROVAL, Status.RUNNING, version.standing, "stage.started", ERIN, "go", AT)
            with pytest.raises(UnavailableError):
                meta.transact(move_writes(version, move, attestor))
            assert load_version(meta, "credit-risk", 1) == version

    def test_a_lost_answer_leaves_an_attestation_that_no_event_names(self):
        faults, meta, signer = Faults(), MemoryMetaStore(), LocalSigner()
        store = MemoryObjectStore(faults)
        version = make_version(meta)
        move = Move(Stage.APPROVAL, Status.RUNNING, version.standing, "stage.started", ERIN, "go", AT)
        faults.fail_after(method="put_new")
        with pytest.raises(UnavailableError):
            move_writes(version, move, Attestor(signer, store))
        meta.transact(move_writes(version, move, Attestor(signer, store)))
        named = meta.get(transition_key("credit-risk", 1, version.transition + 1))["attestation"]["key"]
        assert len(store.versions) == 2
        assert named in store.versions

    def test_a_fact_cannot_take_the_name_of_the_attestation(self):
        meta = MemoryMetaStore()
        version = make_version(meta)
        for name in ("attestation", "from", "to", "reason", "evidence", "version_digest"):
            move = Move(Stage.APPROVAL, Status.RUNNING, version.standing, "stage.started", ERIN, "go", AT, data={name: "x"})
            with pytest.raises(InvalidInputError, match="cannot be named"):
                move_writes(version, move, ATTESTOR)

    def test_a_move_cannot_be_attested_by_the_type_of_another(self):
        meta = MemoryMetaStore()
        version = make_version(meta)
        for kind, predicate in (
            ("stage.started", Predicate(APPROVAL)),
            ("version.approved", Predicate(TRANSITION)),
            ("version.deployed", Predicate(PROVENANCE)),
        ):
            move = Move(Stage.APPROVAL, Status.RUNNING, version.standing, kind, ERIN, "go", AT, predicate=predicate)
            with pytest.raises(InvalidInputError, match="needs"):
                move_writes(version, move, ATTESTOR)

    def test_the_success_of_a_script_is_not_attested_without_its_provenance(self):
        meta = MemoryMetaStore()
        version = make_version(meta)
        move = Move(Stage.TRAINING, Status.SUCCEEDED, version.standing, "stage.succeeded", ERIN, "done", AT)
        with pytest.raises(InvalidInputError, match="slsa"):
            move_writes(version, move, ATTESTOR)


class TestSize:
    LONG = Principal(
        "arn:aws:sts::123456789012:assumed-role/" + "r" * 64 + "/" + "s" * 64,
        "AROA" + "X" * 17 + ":" + "s" * 64,
        "aws:123456789012",
        "CloudTrail StartExecution",
        "2001:0db8:0000:0000:0000:ff00:0042:8329",
        "arn:aws:sts::123456789012:assumed-role/" + "r" * 64 + "/" + "s" * 64,
        ("scientist", "approver", "deployer", "consumer", "auditor", "admin"),
        "p" * 63,
    )

    @pytest.mark.parametrize("letter", ["x", "\x01", '"', "ä", "\U0001f600", "\ud800"])
    def test_the_longest_error_of_a_script_fits_the_event(self, letter):
        meta = MemoryMetaStore()
        version = make_version(meta, model="m" * 63, stage=Stage.DEPLOYMENT, status=Status.RUNNING, submitter=self.LONG)
        fail_deployment(meta, ATTESTOR, version.model, 1, by=self.LONG, error=letter * 5000, at=AT)
        sizes = [len(row["event"]) for row in meta.query(OUTBOX)]
        assert len(sizes) == 2
        assert max(sizes) <= MAX_EVENT_BYTES

    @pytest.mark.parametrize("letter", ["x", '"', "ä", "\U0001f600"])
    def test_a_deployment_on_ten_approvals_with_the_longest_reason_fits_the_event(self, letter):
        meta = MemoryMetaStore()
        reason = letter * min(500, MAX_PERSONS_REASON // len(letter.encode()))
        assert read_reason(reason) == reason
        for number in (1, 2):
            make_approved(meta, number, model="m" * 63, submitter=self.LONG)
            for index in range(10):
                person = f"{index}{'p' * 62}"
                row = {"person": person, "decision": "approve", "version_digest": "ab" * 32, "policy_digest": "ab" * 32, "transition": 1}
                meta.transact([Put(approval_key("m" * 63, number, person), {**row, "evidence": "ab" * 32})])
            facts = {"environment": "e" * 63, "capture_rate": "0.12345678901234567", "by": self.LONG, "reason": reason, "at": AT}
            swap_pointer(meta, ATTESTOR, "m" * 63, number, **facts)
        assert max(len(row["event"]) for row in meta.query(OUTBOX)) <= MAX_EVENT_BYTES

    @pytest.mark.parametrize("letter", ["\x01", "\ud800"])
    def test_a_stage_that_fails_with_the_longest_error_is_recorded(self, letter):
        flow = Flow()
        version = flow.register_example()
        flow.build_environments(version)
        flow.prepare(version, Stage.PROCESSING)
        flow.record(version, Stage.PROCESSING, StageResult({"outcome": "FAILED", "error": letter * 5000}, None, None, "t"))
        assert flow.head(version).status is Status.FAILED
        attested(flow.meta, flow.store, flow.mover, MODEL, 1)

    def test_a_move_whose_event_would_be_too_large_is_refused_before_anything_is_signed(self):
        meta, store = MemoryMetaStore(), MemoryObjectStore()
        version = make_version(meta)
        move = Move(Stage.APPROVAL, Status.RUNNING, version.standing, "stage.started", ERIN, "\x01" * 900, AT)
        with pytest.raises(InvalidInputError, match="the limit is 4096"):
            move_writes(version, move, Attestor(LocalSigner(), store))
        assert store.versions == {}

    @pytest.mark.parametrize("text", ["", "short", "x" * 1198])
    def test_a_text_that_fits_stays(self, text):
        assert shorten(text) == text

    @pytest.mark.parametrize("text", ["x" * 1199, "\x01" * 300, "ä" * 700, "\U0001f600" * 400])
    def test_a_text_that_does_not_fit_is_cut_to_nearly_all_that_does(self, text):
        cut = shorten(text)
        assert cut.endswith("…")
        assert text.startswith(cut[:-1])
        assert MAX_REASON_BYTES - 8 <= len(canonical_bytes(cut)) <= MAX_REASON_BYTES


class TestCheck:
    """What a verifier does with an event and the statement that it names."""

    def test_refuses_a_statement_about_another_move(self, told, serving):
        for one, (event, _) in told.items():
            for other, (_, statement) in told.items():
                if one != other:
                    with pytest.raises(IntegrityError):
                        check_attestation(statement, event, candidate=serving.version.candidate)

    @pytest.mark.parametrize(
        "field", ["model", "number", "transition", "kind", "from", "to", "principal", "reason", "at", "evidence", "version_digest", "data"]
    )
    def test_refuses_a_statement_that_differs_in_any_field(self, told, serving, field):
        for kind, stage in (("version.approved", "APPROVAL"), ("stage.succeeded", "TRAINING")):
            event, statement = told[kind, stage]

            def edit(predicate, field=field):
                predicate.get(MOVE_FIELD, predicate)[field] = "something else"

            with pytest.raises(IntegrityError, match=field):
                check_attestation(edited(statement, edit), event, candidate=serving.version.candidate)

    def test_refuses_a_field_more_or_less(self, told, serving):
        event, statement = told["version.approved", "APPROVAL"]
        for edit in (lambda p: p.update(more="x"), lambda p: p.pop("reason")):
            with pytest.raises(IntegrityError, match="differ in"):
                check_attestation(edited(statement, edit), event, candidate=serving.version.candidate)
        for edit in (lambda p: p.pop("content"), lambda p: p.update(content=[])):
            with pytest.raises(InvalidInputError, match="carries no move"):
                check_attestation(edited(statement, edit), event, candidate=serving.version.candidate)

    def test_refuses_another_subject_or_one_more(self, told, serving):
        for event, statement in told.values():
            for subjects in ((Subject("candidate", "cd" * 32),), (*statement.subjects, Subject("another", "cd" * 32))):
                with pytest.raises(IntegrityError, match="is about"):
                    check_attestation(replace(statement, subjects=subjects), event, candidate=serving.version.candidate)

    def test_refuses_another_type(self, told, serving):
        event, statement = told["version.approved", "APPROVAL"]
        with pytest.raises(IntegrityError, match="is attested by"):
            check_attestation(replace(statement, predicate_type=DEPLOYMENT), event, candidate=serving.version.candidate)
        with pytest.raises(InvalidInputError, match="attests no move"):
            check_attestation(replace(statement, predicate_type="urn:example:other"), event, candidate=serving.version.candidate)

    def test_refuses_a_provenance_that_names_another_record(self, told, serving):
        event, statement = told["stage.succeeded", "TRAINING"]

        def other(predicate):
            predicate["runDetails"]["byproducts"][0]["digest"]["sha256"] = "00" * 32

        def none(predicate):
            predicate["runDetails"] = "x"

        def two(predicate):
            predicate["runDetails"]["byproducts"].append({"name": "record", "digest": {"sha256": "00" * 32}})

        for edit in (other, none, two):
            with pytest.raises(IntegrityError, match="another record"):
                check_attestation(edited(statement, edit), event, candidate=serving.version.candidate)

    def test_refuses_a_test_result_that_says_the_opposite(self, told, serving):
        event, statement = told["stage.succeeded", "VALIDATION"]
        with pytest.raises(IntegrityError, match="FAILED"):
            check_attestation(edited(statement, lambda p: p.update(result="FAILED")), event, candidate=serving.version.candidate)

    @pytest.mark.parametrize(
        "edit",
        [
            lambda e: e.pop("principal"),
            lambda e: e.update(more="x"),
            lambda e: e.update(subject="key/abc"),
            lambda e: e.update(data=[]),
            lambda e: e["data"].pop("attestation"),
        ],
    )
    def test_refuses_what_is_not_the_event_of_a_move(self, told, serving, edit):
        event, statement = told["version.approved", "APPROVAL"]
        event = copy.deepcopy(event)
        edit(event)
        with pytest.raises(InvalidInputError, match="not the event of a move"):
            check_attestation(statement, event, candidate=serving.version.candidate)

    def test_gives_what_a_statement_says_besides_the_move(self, told):
        _, content = read_move(told["version.deployed", "DEPLOYMENT"][1])
        assert content["previous"] is None
        assert [a["person"] for a in content["approvals"]] == ["erin"]
        assert content["approvals"][0]["version_digest"] == content["artifact_manifest"]["sha256"]

    def test_keeps_the_subjects_that_a_move_gives_itself_out_of_the_verifiers_way(self):
        """A function that names other subjects than the rules give makes an attestation that no verifier accepts."""
        meta = MemoryMetaStore()
        version = make_version(meta)
        facts, _ = MoveFacts.from_event(events_of(meta, "credit-risk", 1)[0] | {"sequence": 1})
        statement = state_move(facts, Predicate(TRANSITION, subjects=(Subject("x", "cd" * 32),)), candidate=version.candidate)
        with pytest.raises(IntegrityError, match="is about x"):
            check_attestation(statement, events_of(meta, "credit-risk", 1)[0] | {"sequence": 1}, candidate=version.candidate)


def test_the_standing_before_and_after_is_part_of_what_is_attested(told):
    move, _ = read_move(told["version.approved", "APPROVAL"][1])
    assert move["from"]["standing"] == Standing.CANDIDATE
    assert move["to"]["standing"] == Standing.APPROVED


def test_the_submitter_is_who_registered(told):
    assert told["candidate.registered", "REGISTERED"][0]["principal"]["person"] == DANA.person
