"""Trace: from a prediction back to everything behind it; each step is checked, each field graded, and each manipulation named."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from attestry.aws.audit import AuditNotes
from attestry.aws.settings import Settings
from attestry.aws.world import World as AwsWorld
from attestry.domain.audit import AUDIT
from attestry.domain.errors import InvalidInputError, NotFoundError
from attestry.ports import Delete, Put, Update, When
from attestry.usecases.artifact_copy import MAX_COPY_BYTES, artifact_key, copy_puts
from attestry.usecases.findings import Observed, Scope, settle
from attestry.usecases.records import approval_key, version_key
from lambdas import registry
from tests.fakes import LocalSigner
from tests.flow import Serving
from tests.trace_requirements import REQUIREMENTS, facts_at, problems_of

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "manifests" / "trace.schema.json").read_text())


@pytest.fixture(scope="module")
def serving() -> Serving:
    return Serving()


@pytest.fixture(scope="module")
def trace(serving):
    return serving.trace(serving.predict(), deep=True)


def outcomes(trace):
    return {s["step"]: s["outcome"] for s in trace["steps"]}


def test_every_step_of_an_untouched_prediction_passes(trace):
    assert set(outcomes(trace).values()) == {"passed"}
    assert trace["verdict"] == "SIGNED-UNANCHORED"


def test_the_document_matches_its_schema(trace):
    Draft202012Validator.check_schema(SCHEMA)
    assert [e.message for e in Draft202012Validator(SCHEMA).iter_errors(trace)] == []


@pytest.mark.parametrize("capability", REQUIREMENTS)
def test_the_trace_answers_what_it_has_to_and_is_as_sure_as_it_can_be(trace, capability):
    assert problems_of(trace, capability) == []


@pytest.mark.parametrize("capability", REQUIREMENTS)
def test_a_missing_an_empty_and_a_merely_claimed_answer_are_noticed(trace, capability):
    """The check itself can fail: each way of not answering is found."""
    path, grades = REQUIREMENTS[capability][0]
    for spoil in ({"value": None}, {"value": ""}, *([{"grade": "claimed"}] if "claimed" not in grades else [])):
        spoiled = copy.deepcopy(trace)
        facts_at(spoiled, path)[0].update(spoil)
        assert problems_of(spoiled, capability), spoil


def test_who_ran_wrote_and_deployed_are_three_answers(trace):
    people = trace["people"]
    assert people["ran_by"]["value"]["person"] == "dana"
    assert people["deployed_by"]["value"]["person"] == "erin"
    assert people["code_author"]["value"] == "A data scientist <ds@example.com>"
    assert people["code_author"]["grade"] == "claimed"


def test_the_environment_that_computed_the_metrics_is_told_and_attested(trace):
    told = trace["validation"]["evaluated_with"]
    assert told == {"value": {"scikit-learn": "1.9.1", "environment_id": "e7" * 32}, "grade": "attested"}


def test_a_trace_takes_at_most_six_calls_beside_the_one_at_the_gate_however_many_versions_there_are(serving, monkeypatch):
    """The whole handler in a process that has not read the delegator's public key yet, with the row that tells the auditors of it."""
    prediction = serving.predict()
    for number in range(3):

        def edit(draft, number=number):
            draft["training"]["hyperparameters"]["max_iter"] = 5000 + number

        serving.flow.register_example(edit=edit)
    flow, asked = serving.flow, []
    world = AwsWorld(Settings({"ATTESTRY_ACCOUNT": "123456789012", "ATTESTRY_TABLE": "t", "ATTESTRY_STORE": "s"}))
    notes = AuditNotes(flow.meta, flow.clock, account="123456789012", prefix="attestry")
    vars(world).update(meta=flow.meta, store=flow.store, clock=flow.clock, audit=notes, delegator=_Delegator(serving, asked))
    monkeypatch.setattr(registry, "world", world)
    flow.faults.clear()
    answer = registry.handler(_request(prediction), None)
    assert answer["statusCode"] == 200, answer["body"]
    assert json.loads(answer["body"])["verdict"] == "SIGNED-UNANCHORED"
    assert any(key.partition == AUDIT for key in flow.meta.rows), "the read is told to the auditors"
    gate, *trace = flow.faults.calls
    assert gate == "MemoryMetaStore.get_many"
    assert len(trace) + len(asked) <= 6, trace


class _Delegator:
    """The delegator's key in KMS, each reading of which is a call."""

    def __init__(self, serving: Serving, asked: list[str]) -> None:
        self._serving, self._asked = serving, asked

    def public_key_der(self) -> bytes:
        self._asked.append("GetPublicKey")
        return self._serving.signer.public_key_der()


def _request(prediction: str) -> dict:
    identity = {"userArn": "arn:aws:sts::123456789012:assumed-role/attestry-auditor/grace", "userId": "AROA:grace"}
    return {
        "version": "2.0",
        "routeKey": "GET /v1/predictions/{id}/trace",
        "pathParameters": {"id": prediction},
        "requestContext": {"requestId": "r1", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": identity}},
    }


def test_a_large_artifact_manifest_has_no_copy_and_is_read_from_the_store(serving):
    assert copy_puts("m", 1, b"x" * MAX_COPY_BYTES) != []
    assert copy_puts("m", 1, b"x" * (MAX_COPY_BYTES + 1)) == []
    prediction = serving.predict()
    key = artifact_key(serving.version.model, serving.version.number)
    row = serving.flow.meta.rows[key]
    serving.flow.meta.transact([Delete(key, When())])
    assert serving.trace(prediction)["verdict"] == "SIGNED-UNANCHORED"
    serving.flow.meta.rows[key] = row


@pytest.mark.parametrize("prediction", ["", "x", "a-1", "A" * 52 + "-1", "a" * 52 + "-0", "../../x-1"])
def test_what_is_no_prediction_id_is_refused(serving, prediction):
    with pytest.raises(InvalidInputError):
        serving.trace(prediction)


def test_a_prediction_that_was_never_made_is_not_found(serving):
    with pytest.raises(NotFoundError):
        serving.trace("a" * 52 + "-1")
    known = serving.predict().rpartition("-")[0]
    with pytest.raises(NotFoundError):
        serving.trace(f"{known}-999999")


class TestManipulations:
    """Somebody with rights on the table or the bucket changes something: the trace breaks at the step that it touches."""

    @pytest.fixture
    def fresh(self):
        serving = Serving()
        return serving, serving.predict()

    def broken(self, serving, prediction, step, *, deep=False):
        trace = serving.trace(prediction, deep=deep)
        assert outcomes(trace)[step] in ("failed", "missing"), trace["steps"]
        assert trace["verdict"] in ("BROKEN", "INCOMPLETE")
        return next(s["detail"] for s in trace["steps"] if s["step"] == step), trace

    def edit_head(self, serving, **changes):
        serving.flow.meta.transact([Update(version_key(serving.version.model, 1), changes)])

    def test_a_file_changed_in_the_bucket_is_named(self, fresh):
        serving, prediction = fresh
        model = next(f for f in serving.version.frozen if f.path.startswith("model/"))
        serving.flow.store.put(model.key, b"other weights")
        detail, _ = self.broken(serving, prediction, "frozen files")
        assert "model/model.joblib was changed" in detail

    def test_bytes_swapped_under_the_same_s3_version_show_in_a_deep_trace(self, fresh):
        serving, prediction = fresh
        model = next(f for f in serving.version.frozen if f.path.startswith("model/"))
        serving.flow.store.tamper(model.key, b"swapped", model.version_id)
        detail, _ = self.broken(serving, prediction, "bytes of the frozen files", deep=True)
        assert "model/model.joblib" in detail

    def test_a_changed_copy_of_the_artifact_manifest_is_named(self, fresh):
        serving, prediction = fresh
        key = artifact_key(serving.version.model, serving.version.number)
        data = serving.flow.meta.rows[key]["data"]
        serving.flow.meta.transact([Update(key, {"data": data.replace(b"model/", b"other/")})])
        detail, _ = self.broken(serving, prediction, "artifact manifest")
        assert detail == "the artifact manifest has another digest than the version"

    def test_an_artifact_manifest_that_is_gone_from_the_bucket_is_named_although_its_copy_is_there(self, fresh):
        serving, prediction = fresh
        serving.flow.store.delete(serving.version.artifact.key)
        detail, _ = self.broken(serving, prediction, "frozen files")
        assert "artifact-manifest.json" in detail

    def test_training_data_changed_after_training_show_in_a_deep_trace(self, fresh):
        serving, prediction = fresh
        file = serving.version.dataset("training").files[0]
        serving.flow.store.tamper(file.key, b"swapped", file.version_id)
        self.broken(serving, prediction, "bytes of the data set training", deep=True)

    def test_an_edited_version_digest_breaks_the_version(self, fresh):
        serving, prediction = fresh
        self.edit_head(serving, version_digest="ab" * 32)
        _, trace = self.broken(serving, prediction, "version")
        assert trace["settings"]["hyperparameters"]["grade"] == "attested"

    def test_an_edited_standing_breaks_the_transitions(self, fresh):
        serving, prediction = fresh
        self.edit_head(serving, standing="APPROVED")
        self.broken(serving, prediction, "transitions")

    def test_an_edited_stage_record_breaks_it(self, fresh):
        serving, prediction = fresh
        row = serving.flow.meta.query(f"VERSION#{serving.version.model}#1", prefix="STAGE#VALIDATION#")[0]
        record = json.loads(row["record"])
        record["metrics"]["recall_score"] = "0.999"
        key = version_key(serving.version.model, 1)
        serving.flow.meta.transact([Update(type(key)(key.partition, row["sk"]), {"record": json.dumps(record)})])
        _, trace = self.broken(serving, prediction, "record of VALIDATION")
        assert trace["validation"]["metrics"]["grade"] == "claimed"

    def test_an_approval_moved_from_another_version_breaks_it(self, fresh):
        serving, prediction = fresh
        serving.flow.meta.transact([Update(approval_key(serving.version.model, 1, "erin"), {"version_digest": "cd" * 32})])
        self.broken(serving, prediction, "approval")

    def test_an_approval_by_the_submitter_breaks_it(self, fresh):
        serving, prediction = fresh
        self.edit_head(serving, submitter_person="erin")
        self.broken(serving, prediction, "approval")

    def test_a_receipt_of_another_prediction_breaks_it(self, fresh):
        serving, prediction = fresh
        other = serving.predict()
        rows = serving.flow.meta.query(f"KEY#{prediction.rpartition('-')[0]}", prefix="R#")
        key = version_key(serving.version.model, 1)
        target = type(key)(f"KEY#{prediction.rpartition('-')[0]}", rows[0]["sk"])
        serving.flow.meta.transact([Update(target, {"receipt": rows[1]["receipt"]})])
        assert other != prediction
        self.broken(serving, prediction, "receipt")

    def test_a_delegation_by_another_key_breaks_it(self, fresh):
        serving, prediction = fresh
        serving.signer = LocalSigner()
        _, trace = self.broken(serving, prediction, "delegation")
        assert trace["verdict"] == "BROKEN"

    def test_a_removed_transition_breaks_the_chain(self, fresh):
        serving, prediction = fresh
        row = serving.flow.meta.query(f"VERSION#{serving.version.model}#1", prefix="TRANSITION#")[2]
        key = version_key(serving.version.model, 1)
        serving.flow.meta.transact([Put(type(key)(key.partition, row["sk"]), {**row, "number": 99}, When(exists=True))])
        self.broken(serving, prediction, "transitions")

    def test_an_edited_manifest_object_is_refused(self, fresh):
        serving, prediction = fresh
        serving.flow.store.tamper(serving.version.manifest.key, b"{}", serving.version.manifest.version_id)
        _, trace = self.broken(serving, prediction, "manifest")
        assert "settings" not in trace


def test_a_deep_trace_shows_what_reconciliation_found(serving):
    version = serving.version
    scope = Scope("test", version.model, version.number)
    settle(serving.flow.meta, scope, [Observed("head.metrics", "HEAD", "0.9", "0.99")], serving.flow.clock.now())
    step = next(s for s in serving.trace(serving.predict(), deep=True)["steps"] if s["step"] == "reconciliation")
    assert (step["outcome"], "head.metrics" in step["detail"]) == ("failed", True)
    settle(serving.flow.meta, scope, [], serving.flow.clock.now())
    assert outcomes(serving.trace(serving.predict(), deep=True))["reconciliation"] == "passed"
