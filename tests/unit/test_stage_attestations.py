"""Attestations of stages: what went in, what came out, and by which rules it was judged, committed before it ran."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from attestry.domain.stages import Stage
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.predicates import TEST_RESULT
from attestry.evidence.statement import Statement
from attestry.ports import Update
from attestry.usecases.records import stage_key, transition_key
from attestry.usecases.trace import trace_version
from tests.attestations import attested, events_of
from tests.flow import GOOD, LOCK, REVISION, Flow, Serving

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


def record_of(serving: Serving, stage: Stage) -> tuple[dict[str, Any], str]:
    row = serving.flow.meta.get(stage_key(MODEL, 1, stage, 1))
    return json.loads(row["record"]), row["record_sha256"]


class TestProvenance:
    def test_of_training_names_everything_that_went_in(self, told, serving):
        _, statement = told["stage.succeeded", "TRAINING"]
        record, sha256 = record_of(serving, Stage.TRAINING)
        version = serving.version
        definition, details = statement.predicate["buildDefinition"], statement.predicate["runDetails"]
        assert definition["buildType"] == "urn:attestry:build:stage:v1"
        assert definition["externalParameters"] == {
            "stage": "TRAINING",
            "executor": "lambda",
            "entryPoint": "train.py",
            "hyperparameters": record["parameters"],
            "resources": record["resources"]["requested"],
        }
        assert record["parameters"]
        assert definition["internalParameters"]["resources"]["memory_mib"] == 2048
        digests = {d["name"]: d["digest"] for d in definition["resolvedDependencies"]}
        assert digests == {
            "commit": {"gitCommit": REVISION},
            "source": {"sha256": version.source.sha256},
            "manifest": {"sha256": version.candidate},
            "dataset/training": {"sha256": version.dataset("training").digest},
            "environment": {"sha256": version.environment.archive.sha256},
            "lock file": {"sha256": hashlib.sha256(LOCK).hexdigest()},
        }
        assert details["builder"]["id"] == "urn:attestry:builder:arn:aws:lambda:eu-central-1:123456789012:function:attestry-sandbox"
        assert details["metadata"] == {
            "invocationId": f"{record['execution']['arn']}/TRAINING/1",
            "startedOn": record["started"],
            "finishedOn": record["ended"],
        }
        assert [(b["name"], b["digest"]["sha256"]) for b in details["byproducts"]] == [("record", sha256), ("log", record["log"]["sha256"])]

    def test_of_processing_names_each_source_by_where_it_came_from_and_its_digest(self, told, serving):
        event, statement = told["stage.succeeded", "PROCESSING"]
        dependencies = {d["name"]: d for d in statement.predicate["buildDefinition"]["resolvedDependencies"]}
        [source] = [d for name, d in dependencies.items() if name.startswith("dataset/")]
        dataset = next(d for d in serving.version.datasets if d.name.startswith("source/"))
        assert source["uri"].endswith("/data/breast_cancer.csv")
        assert source["uri"].startswith("urn:attestry:object:candidates/")
        assert source["digest"] == {"sha256": dataset.digest}
        assert source["annotations"]["attestry_version_id"] == dataset.files[0].version_id
        assert dependencies["commit"]["uri"] == f"git+https://git.example.com/models.git@{REVISION}"
        assert "arguments" in statement.predicate["buildDefinition"]["externalParameters"]
        assert event["data"]["outputs"]["holdout"] == serving.version.dataset("holdout").digest

    def test_leads_from_the_version_through_its_training_set_to_the_source(self, told):
        """Lineage recurses: what one provenance consumed is the subject of another."""
        training, processing = told["stage.succeeded", "TRAINING"][1], told["stage.succeeded", "PROCESSING"][1]
        consumed = {d["digest"].get("sha256") for d in training.predicate["buildDefinition"]["resolvedDependencies"]}
        assert processing.subjects[0].sha256 in consumed

    def test_says_that_the_commit_is_claimed_and_nothing_else(self, told):
        dependencies = told["stage.succeeded", "TRAINING"][1].predicate["buildDefinition"]["resolvedDependencies"]
        assert [d["name"] for d in dependencies if d.get("annotations") == {"attestry_grade": "claimed"}] == ["commit"]


class TestJudgement:
    def test_of_a_version_that_passes_lists_every_gate(self, told, serving):
        _, statement = told["stage.succeeded", "VALIDATION"]
        record, _ = record_of(serving, Stage.VALIDATION)
        said = statement.predicate
        assert said["result"] == "PASSED"
        assert said["passedTests"] == [f"{g['name']} {g['rule']}" for g in record["gates"]]
        assert said["failedTests"] == []
        assert said["attestry_metrics"] == {name: repr(value) for name, value in GOOD.items()}
        configuration = {c["name"]: c["digest"]["sha256"] for c in said["configuration"]}
        gates = json.loads(serving.flow.store.read(serving.version.manifest.key, max_bytes=1 << 20))["gates"]
        assert configuration["gates"] == record["criteria"]["gates_sha256"]
        assert record["criteria"]["gates"].items() >= gates.items()
        assert configuration["dataset/holdout"] == serving.version.dataset("holdout").digest
        assert configuration["dataset/holdout-labels"] == serving.version.dataset("holdout-labels").digest

    def test_of_a_version_that_is_rejected_names_the_gates_that_failed(self):
        flow = Flow()
        version = flow.register_example()
        flow.build_environments(version)
        for stage in (Stage.PROCESSING, Stage.TRAINING):
            flow.pass_stage(version, stage)
        assert flow.pass_stage(version, Stage.VALIDATION, metrics={**GOOD, "recall_score": 0.1})["outcome"] == "REJECTED"
        statement = attested(flow.meta, flow.store, flow.mover, MODEL, 1)[-1]
        assert statement.predicate_type == TEST_RESULT
        assert statement.predicate["result"] == "FAILED"
        assert {t.split()[0] for t in statement.predicate["failedTests"]} == {"recall_score"}
        assert statement.predicate["passedTests"]


class TestCommitment:
    """Gates and policy are an event before the evaluation runs."""

    def begun(self) -> tuple[Flow, Any]:
        flow = Flow()
        version = flow.register_example()
        flow.build_environments(version)
        for stage in (Stage.PROCESSING, Stage.TRAINING):
            flow.pass_stage(version, stage)
        flow.prepare(version, Stage.VALIDATION)
        return flow, version

    def test_the_event_of_the_beginning_of_validation_commits_gates_and_policy(self):
        flow, version = self.begun()
        event = events_of(flow.meta, MODEL, 1)[-1]
        assert (event["kind"], event["data"]["to"]["stage"]) == ("stage.started", "VALIDATION")
        plan = json.loads(flow.meta.get(stage_key(MODEL, 1, Stage.VALIDATION, 1))["plan"])
        for name in ("gates", "policy"):
            assert event["data"][f"{name}_sha256"] == hashlib.sha256(canonical_bytes(plan["criteria"][name])).hexdigest()
        assert plan["criteria"]["policy"] == flow.head(version).approval_policy
        assert plan["criteria"]["gates"]["metrics"][0]["minimum"] > 0

    def test_other_stages_commit_no_gates(self, told):
        for stage in ("PROCESSING", "TRAINING"):
            assert not {"gates_sha256", "policy_sha256"} & set(told["stage.started", stage][0]["data"])

    def outcome(self, flow: Flow) -> dict[str, str]:
        steps = trace_version(flow.meta, flow.store, MODEL, 1)
        return next(s for s in steps if s["step"] == "record of VALIDATION")

    def test_an_untouched_version_passes(self):
        flow, version = self.begun()
        flow.record(version, Stage.VALIDATION, flow.run(flow.head(version), Stage.VALIDATION))
        assert self.outcome(flow)["outcome"] == "passed"

    def test_a_policy_that_was_changed_in_the_table_afterwards_shows(self):
        flow, version = self.begun()
        flow.record(version, Stage.VALIDATION, flow.run(flow.head(version), Stage.VALIDATION))
        head = flow.head(version)
        key = transition_key(MODEL, 1, 1)
        policy = {**head.approval_policy, "count": 0}
        flow.meta.transact([Update(type(key)(key.partition, "HEAD"), {"approval_policy": policy})])
        assert "policy" in self.outcome(flow)["detail"]
        assert self.outcome(flow)["outcome"] == "failed"

    def test_a_commitment_that_was_changed_in_the_transition_shows(self):
        flow, version = self.begun()
        number = flow.head(version).transition
        flow.record(version, Stage.VALIDATION, flow.run(flow.head(version), Stage.VALIDATION))
        key = transition_key(MODEL, 1, number)
        data = {**flow.meta.get(key)["data"], "gates_sha256": "00" * 32}
        flow.meta.transact([Update(key, {"data": data})])
        assert "gates" in self.outcome(flow)["detail"]

    def test_thresholds_that_were_lowered_in_plan_record_and_rows_at_once_still_show(self):
        """An editor of the table who recomputes every digest there is left with the manifest, which the version digest names."""
        flow, version = self.begun()
        started = flow.head(version).transition
        flow.record(version, Stage.VALIDATION, flow.run(flow.head(version), Stage.VALIDATION))
        key = stage_key(MODEL, 1, Stage.VALIDATION, 1)
        row = flow.meta.get(key)
        documents = {name: json.loads(row[name]) for name in ("plan", "record")}
        for document in documents.values():
            gates = document["criteria"]["gates"]
            gates["metrics"][0]["minimum"] = 0.01
            document["criteria"]["gates_sha256"] = hashlib.sha256(canonical_bytes(gates)).hexdigest()
        plan, record = (canonical_bytes(documents[n]) for n in ("plan", "record"))
        shas = [hashlib.sha256(d).hexdigest() for d in (plan, record)]
        flow.meta.transact(
            [Update(key, {"plan": plan.decode(), "record": record.decode(), "plan_sha256": shas[0], "record_sha256": shas[1]})]
        )
        data = flow.meta.get(transition_key(MODEL, 1, started))["data"]
        committed = {**data, "gates_sha256": documents["plan"]["criteria"]["gates_sha256"]}
        flow.meta.transact([Update(transition_key(MODEL, 1, started), {"evidence": shas[0], "data": committed})])
        flow.meta.transact([Update(transition_key(MODEL, 1, started + 1), {"evidence": shas[1]})])
        assert "not those of the manifest" in self.outcome(flow)["detail"]
