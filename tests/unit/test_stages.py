"""Stages: what is prepared, what is frozen, what is recorded; nothing the sandbox says is believed; a crash anywhere is gone on from."""

from __future__ import annotations

import json

import pytest

from attestry.domain.errors import ConflictError, IntegrityError, InvalidInputError, UnavailableError
from attestry.domain.jobs import job_prefix
from attestry.domain.stages import Stage, Standing, Status
from attestry.evidence.artifact_manifest import ArtifactManifest
from attestry.evidence.digests import sha256_hex
from attestry.ports import Key, Update
from attestry.usecases.executions import start_next_attempt
from attestry.usecases.readiness import check_frozen_files
from attestry.usecases.records import OUTBOX, version_key
from attestry.usecases.stage_result import StageResult
from tests.attestations import attested
from tests.fakes import Faults
from tests.flow import GOOD, Flow, Serving

ALL = (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION)


@pytest.fixture
def flow() -> Flow:
    return Flow()


def up_to(flow, *stages):
    version = flow.register_example()
    flow.build_environments(version)
    for stage in stages:
        assert flow.pass_stage(version, stage)["outcome"] == "SUCCEEDED"
    return flow.head(version)


def job_of(flow, version, stage):
    flow.prepare(version, stage)
    return json.loads(flow.scratch.read(f"jobs/{version.model}/{version.execution_id}/{stage.value}/1/job.json", max_bytes=10**6))


def test_source_data_lies_at_its_digest_before_anything_runs(flow):
    version = up_to(flow)
    flow.prepare(version, Stage.PROCESSING)
    source = flow.head(version).dataset("source/wisconsin-breast-cancer")
    assert source.files[0].key == f"datasets/{source.digest}/breast_cancer.csv"
    with flow.store.open(source.files[0].key, source.files[0].version_id) as stream:
        assert sha256_hex(stream.read()) == source.digest


def test_data_that_changed_since_the_manifest_was_written_is_refused(flow):
    version = up_to(flow)
    flow.store.put(f"{version.upload_folder}data/breast_cancer.csv", b"other data")
    with pytest.raises(IntegrityError, match=r"data\.source\[0\]\.sha256"):
        flow.prepare(version, Stage.PROCESSING)


def test_training_is_given_the_training_set_and_nothing_of_the_hold_out(flow):
    version = up_to(flow, Stage.PROCESSING)
    text = json.dumps(job_of(flow, version, Stage.TRAINING))
    assert list(json.loads(text)["channels"]) == ["train"]
    assert "holdout" not in text


def test_validation_is_given_features_and_the_model_but_no_labels(flow):
    version = up_to(flow, Stage.PROCESSING, Stage.TRAINING)
    job = job_of(flow, version, Stage.VALIDATION)
    assert list(job["channels"]) == ["holdout"]
    assert "labels" not in json.dumps(job)
    assert [f["path"] for f in job["model"]] == ["model.joblib"]
    assert job["mode"] == "predict"


def test_the_plan_is_recorded_before_the_script_runs_and_stands_in_the_record(flow):
    version = up_to(flow)
    flow.prepare(version, Stage.PROCESSING)
    row = flow.meta.query(f"VERSION#{version.model}#1", prefix="STAGE#PROCESSING#")[0]
    assert row["status"] == "RUNNING"
    flow.record(version, Stage.PROCESSING, flow.run(version, Stage.PROCESSING))
    done = flow.meta.query(f"VERSION#{version.model}#1", prefix="STAGE#PROCESSING#")[0]
    assert done["plan"] == row["plan"]
    record = json.loads(done["record"])
    assert record["code"]["script"] == "process.py"
    assert record["parameters"]["holdout_share"] == 0.25
    assert record["ran_by"]["person"] == "dana"
    assert record["resources"]["configured"]["memory_mib"] == 2048
    assert record["claimed"]["machine"]["cpu_count"] == 2


def test_after_training_the_artifact_manifest_closes_the_frozen_folder(flow):
    version = up_to(flow, Stage.PROCESSING, Stage.TRAINING)
    raw = flow.store.read(version.artifact.key, version.artifact.version_id, max_bytes=10**6)
    assert sha256_hex(raw) == version.version_digest
    manifest = ArtifactManifest.from_bytes(raw)
    assert [f.path for f in manifest.files] == ["manifest.json", "model/model.joblib", "requirements.lock", "source.tar.gz"]
    assert manifest.candidate == version.candidate
    check_frozen_files(flow.store, version)


def test_equal_bytes_trained_twice_are_two_version_digests(flow):
    one = up_to(flow, Stage.PROCESSING, Stage.TRAINING)

    def edit(draft):
        draft["training"]["hyperparameters"]["C"] = 0.2

    two = flow.register_example(edit=edit)
    for stage in (Stage.PROCESSING, Stage.TRAINING):
        flow.pass_stage(two, stage)
    assert flow.head(two).version_digest != one.version_digest


@pytest.mark.parametrize(
    ("outputs", "named"),
    [
        ({}, "wrote no file"),
        ({"../x": b"1"}, "leaves its folder"),
        ({"a": b"1", "A": b"2"}, "fall together"),
        ({f"f{i}": b"" for i in range(501)}, "500"),
    ],
)
def test_a_model_folder_that_breaks_a_rule_fails_training_with_the_rule(flow, outputs, named):
    version = up_to(flow, Stage.PROCESSING)
    flow.prepare(version, Stage.TRAINING)
    outcome = flow.record(version, Stage.TRAINING, flow.run(version, Stage.TRAINING, model=outputs))
    assert outcome["outcome"] == "FAILED"
    assert named in outcome["error"]
    head = flow.head(version)
    assert (head.stage, head.status, head.version_digest) == (Stage.TRAINING, Status.FAILED, "")


def test_gates_that_hold_lead_on_and_the_numbers_are_the_registrys(flow):
    version = up_to(flow, *ALL)
    assert version.metrics == {k: repr(v) for k, v in GOOD.items()}
    assert all(g["passed"] for g in version.gates)
    assert version.standing is Standing.CANDIDATE


def test_a_gate_that_fails_rejects_the_version_with_the_numbers(flow):
    version = up_to(flow, Stage.PROCESSING, Stage.TRAINING)
    flow.prepare(version, Stage.VALIDATION)
    outcome = flow.record(version, Stage.VALIDATION, flow.run(version, Stage.VALIDATION, metrics={**GOOD, "recall_score": 0.5}))
    assert outcome["outcome"] == "REJECTED"
    assert "recall_score is 0.5, wanted at least 0.9" in outcome["error"]
    assert flow.head(version).standing is Standing.REJECTED


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_no_number_passes_no_gate(flow, value):
    version = up_to(flow, Stage.PROCESSING, Stage.TRAINING)
    flow.prepare(version, Stage.VALIDATION)
    outcome = flow.record(version, Stage.VALIDATION, flow.run(version, Stage.VALIDATION, metrics={**GOOD, "roc_auc_score": value}))
    assert outcome["outcome"] == "REJECTED"


@pytest.mark.parametrize(
    ("run", "error"),
    [
        ({"outcome": "FAILED", "exit_code": 3, "error": "exit code 3"}, "exit code 3"),
        ({"outcome": "TIMED_OUT", "error": "over 300 s"}, "over 300 s"),
        ({"outcome": "MAYBE"}, "no answer that can be read"),
        ({}, "no answer that can be read"),
        (None, "no answer that can be read"),
    ],
)
def test_a_script_that_fails_leaves_the_version_in_a_named_state_with_error_and_log(flow, run, error):
    version = up_to(flow, Stage.PROCESSING)
    flow.prepare(version, Stage.TRAINING)
    flow.run(version, Stage.TRAINING)
    outcome = flow.record(version, Stage.TRAINING, StageResult(run, None, None, "t"))
    assert outcome["outcome"] == "FAILED"
    assert error in outcome["error"]
    row = flow.meta.query(f"VERSION#{version.model}#1", prefix="STAGE#TRAINING#")[0]
    assert flow.store.read(row["log"]["key"], row["log"]["version_id"], max_bytes=100) == b"the script's log\n"
    assert flow.head(version).error == outcome["error"]


def test_what_the_pipeline_caught_is_told_in_its_own_words(flow):
    version = up_to(flow, Stage.PROCESSING)
    flow.prepare(version, Stage.TRAINING)
    caught = {"Error": "Sandbox.Timedout", "Cause": json.dumps({"errorMessage": "Task timed out after 900.00 seconds"})}
    outcome = flow.record(version, Stage.TRAINING, StageResult(None, None, caught, "t"))
    assert outcome["error"] == "Sandbox.Timedout: Task timed out after 900.00 seconds"


def test_an_environment_that_does_not_build_fails_processing_under_its_name(flow):
    version = flow.register_example()
    outcome = flow.record(
        version, Stage.PROCESSING, StageResult(None, None, {"Error": "StageFailedError", "Cause": "no such package"}, "t")
    )
    assert outcome["outcome"] == "FAILED"
    assert (flow.head(version).stage, flow.head(version).status) == (Stage.PROCESSING, Status.FAILED)


def test_metrics_that_a_script_reports_about_itself_pass_no_gate(flow):
    """The sandbox's answer carries numbers that it did not earn; they appear nowhere but under `claimed`."""
    version = up_to(flow, Stage.PROCESSING, Stage.TRAINING)
    flow.prepare(version, Stage.VALIDATION)
    result = flow.run(version, Stage.VALIDATION, metrics={**GOOD, "recall_score": 0.1})
    lying = StageResult(
        {**result.run, "metrics": {"recall_score": 1.0}, "evaluation": {"metrics": {"recall_score": 1.0}}}, result.evaluation, None, "t"
    )
    assert flow.record(version, Stage.VALIDATION, lying)["outcome"] == "REJECTED"
    assert flow.head(version).metrics["recall_score"] == "0.1"


def test_a_stage_cannot_begin_before_the_one_before_it(flow):
    version = flow.register_example()
    flow.build_environments(version)
    with pytest.raises(ConflictError):
        flow.prepare(version, Stage.TRAINING)


def test_a_rejected_version_runs_nothing_more(flow):
    version = up_to(flow, Stage.PROCESSING, Stage.TRAINING)
    flow.prepare(version, Stage.VALIDATION)
    flow.record(version, Stage.VALIDATION, flow.run(version, Stage.VALIDATION, metrics={**GOOD, "recall_score": 0.1}))
    with pytest.raises(ConflictError):
        flow.prepare(version, Stage.VALIDATION, attempt=2)


def test_a_second_attempt_skips_what_is_done_and_keeps_the_number(flow):
    version = up_to(flow, Stage.PROCESSING)
    flow.prepare(version, Stage.TRAINING)
    flow.record(version, Stage.TRAINING, StageResult({"outcome": "FAILED", "error": "x"}, None, None, "t"))
    again = start_next_attempt(flow.meta, flow.pipeline, flow.head(version))
    assert (again.number, again.attempt) == (1, 2)
    assert flow.prepare(again, Stage.PROCESSING, attempt=2) == {"skip": True}
    assert flow.pass_stage(again, Stage.TRAINING, attempt=2)["outcome"] == "SUCCEEDED"
    assert flow.head(again).number == 1


def test_a_freeze_that_was_cut_off_and_retrained_to_other_bytes_gets_its_own_folder(flow):
    version = up_to(flow, Stage.PROCESSING)
    flow.prepare(version, Stage.TRAINING)
    result = flow.run(version, Stage.TRAINING, model={"a.bin": b"first", "b.bin": b"first"})
    flow.faults.fail_before(method="MemoryMetaStore.transact")
    with pytest.raises(UnavailableError):
        flow.record(version, Stage.TRAINING, result)
    flow.record(version, Stage.TRAINING, StageResult(None, None, {"Error": "States.Timeout", "Cause": ""}, "t"))
    again = start_next_attempt(flow.meta, flow.pipeline, flow.head(version))
    assert flow.pass_stage(again, Stage.TRAINING, attempt=2, model={"a.bin": b"second", "b.bin": b"second"})["outcome"] == "SUCCEEDED"
    after = flow.head(again)
    assert after.folder != version.folder
    check_frozen_files(flow.store, after)


@pytest.mark.parametrize("stage", ALL)
@pytest.mark.parametrize("kind", ["before", "after"])
def test_a_stage_killed_at_any_call_is_finished_by_a_retry(stage, kind):
    before = ALL[: ALL.index(stage)]
    tried = 0
    for point in range(1, 200):
        faults = Faults()
        flow = Flow(faults)
        version = up_to(flow, *before)
        faults.clear()
        getattr(faults, f"fail_{kind}")(point)
        failed = False
        for _ in range(3):
            try:
                if not flow.prepare(version, stage).get("skip"):
                    result = flow.run(flow.head(version), stage)
                    outcome = flow.record(version, stage, result)
                    assert outcome["outcome"] == "SUCCEEDED", outcome
                break
            except UnavailableError:
                failed = True
        if not failed:
            break
        tried += 1
        head = flow.head(version)
        assert (head.stage, head.status) == (stage, Status.SUCCEEDED)
        moves = [t["kind"] for t in flow.meta.query(f"VERSION#{version.model}#1", prefix="TRANSITION#")]
        assert moves.count("stage.succeeded") == len(before) + 1
        assert len(flow.meta.query(OUTBOX)) == len(moves)
        attested(flow.meta, flow.store, flow.mover, version.model, 1)
    assert tried >= 14


def test_an_s3_source_outside_the_configured_buckets_is_refused_by_field(flow):
    def edit(draft):
        draft["data"]["source"][0] |= {"uri": "s3://somebody-elses/x.csv", "sha256": "ab" * 32}

    version = flow.register_example(edit=edit)
    flow.build_environments(version)
    with pytest.raises(InvalidInputError) as refused:
        flow.prepare(version, Stage.PROCESSING)
    assert (refused.value.problems[0].field, refused.value.problems[0].rule) == ("data.source[0].uri", "data_bucket")


def test_wrong_bytes_never_get_to_the_place_of_a_digest(flow):
    """They could never be replaced there, so one wrong upload would block the right data for everybody."""
    version = up_to(flow)
    flow.store.put(f"{version.upload_folder}data/breast_cancer.csv", b"other data")
    with pytest.raises(IntegrityError):
        flow.prepare(version, Stage.PROCESSING)
    assert list(flow.store.list_versions("datasets/")) == []


@pytest.mark.parametrize(("labels", "compared_on"), [(None, "the same hold-out"), (b"PAR1 other labels", "another hold-out")])
def test_a_comparison_with_the_deployed_version_says_on_which_hold_out_that_one_was_measured(labels, compared_on):
    serving = Serving()
    flow = serving.flow
    version = flow.register_example(edit=lambda d: d["training"]["hyperparameters"].update(C=0.2))
    flow.build_environments(version)
    flow.prepare(version, Stage.PROCESSING)
    result = flow.run(flow.head(version), Stage.PROCESSING)
    if labels:
        prefix = job_prefix(version.model, version.execution_id, Stage.PROCESSING, 1)
        flow.scratch.put(f"{prefix}evaluated/holdout-labels/labels.parquet", labels)
    flow.record(version, Stage.PROCESSING, result)
    flow.pass_stage(version, Stage.TRAINING)
    assert flow.pass_stage(version, Stage.VALIDATION)["outcome"] == "SUCCEEDED"
    head = flow.head(version)
    compared = [g for g in head.gates if g["rule"] == "no_worse_than_deployed"]
    assert compared
    assert {g["compared_on"] for g in compared} == {compared_on}
    assert all(("on another hold-out" in g["reason"]) is bool(labels) for g in compared)
    record = json.loads(flow.meta.query(f"VERSION#{version.model}#2", prefix="STAGE#VALIDATION#")[0]["record"])
    digests = {d.name: d.digest for d in serving.version.datasets}
    assert record["compared_with"] == "tumour-diagnosis@1"
    assert record["compared_holdout"] == {"holdout": digests["holdout"], "labels": digests["holdout-labels"]}
    statement = attested(flow.meta, flow.store, flow.mover, version.model, 2)[-1]
    assert statement.predicate["attestry_compared_holdout"] == record["compared_holdout"]


def challenge(serving, **gate):
    """Take a second version with such a gate up to the end of VALIDATION's run."""
    flow = serving.flow
    gates = [{"metric": "roc_auc_score", "by_more_than": 0.01, "confidence": 0.95, **gate}]

    def edit(draft):
        draft["training"]["hyperparameters"].update(C=0.2)
        draft["gates"]["no_worse_than_deployed"] = gates

    version = flow.register_example(edit=edit)
    flow.build_environments(version)
    flow.pass_stage(version, Stage.PROCESSING)
    flow.pass_stage(version, Stage.TRAINING)
    return flow.head(version), flow.prepare(version, Stage.VALIDATION)


def compared(flow, version, low, champion="tumour-diagnosis@1"):
    """What `evaluate` found."""
    result = flow.run(version, Stage.VALIDATION)
    key = result.evaluation["summary_key"]
    summary = json.loads(flow.scratch.read(key, max_bytes=10**6))
    interval = {"effect": "0.02", "low": repr(low), "high": "0.05", "p_value": "0.01", "confidence": "0.95", "rows": 143, "resamples": 2000}
    summary |= {"champion": champion, "comparisons": {"roc_auc_score": interval}}
    flow.scratch.put(key, json.dumps(summary).encode())
    return flow.record(version, Stage.VALIDATION, result)["outcome"], interval


def test_a_gate_with_confidence_is_given_what_the_deployed_version_predicted(monkeypatch):
    serving = Serving()
    _, job = challenge(serving)
    champion = job["evaluate"]["champion"]
    assert champion["reference"] == "tumour-diagnosis@1"
    assert champion["predictions"]["key"].endswith("stages/VALIDATION/1/predictions.json")
    assert job["evaluate"]["compare"] == {"roc_auc_score": 0.95}


def test_a_deployed_version_whose_record_was_rewritten_with_its_digest_is_compared_with_nothing():
    serving = Serving()
    key = Key(version_key("tumour-diagnosis", 1).partition, "STAGE#VALIDATION#001")
    record = str(serving.flow.meta.rows[key]["record"]).replace("predictions.json", "better-ones.json")
    serving.flow.meta._apply([Update(key, {"record": record, "record_sha256": sha256_hex(record.encode())})])
    with pytest.raises(IntegrityError, match="not one that a transition rests on"):
        challenge(serving)


def test_a_comparison_is_recorded_attested_and_judged_by_its_interval():
    serving = Serving()
    flow = serving.flow
    version, _ = challenge(serving)
    outcome, interval = compared(flow, version, -0.005)
    assert outcome == "SUCCEEDED"
    record = json.loads(flow.meta.query(f"VERSION#{version.model}#2", prefix="STAGE#VALIDATION#")[0]["record"])
    assert record["comparisons"] == {"roc_auc_score": interval}
    statement = attested(flow.meta, flow.store, flow.mover, version.model, 2)[-1]
    assert statement.predicate["attestry_comparisons"] == record["comparisons"]


@pytest.mark.parametrize(("low", "champion"), [(-0.02, "tumour-diagnosis@1"), (0.01, "tumour-diagnosis@7")])
def test_a_version_that_is_worse_or_was_compared_with_another_than_the_deployed_one_is_rejected(low, champion):
    serving = Serving()
    version, _ = challenge(serving)
    assert compared(serving.flow, version, low, champion)[0] == "REJECTED"


def test_a_lock_file_that_is_the_registry_s_own_is_built_once(flow):
    version = flow.register_example()
    _, locked = version.code
    assert len(flow.preparer.plan_environments(version.model, version.number)) == 2
    flow.preparer._evaluation_lock = flow.store.read(locked.key, locked.version_id, max_bytes=locked.size)
    (built,) = flow.preparer.plan_environments(version.model, version.number)
    assert built["lock_sha256"] == sha256_hex(flow.preparer._evaluation_lock)


def test_without_such_a_gate_nothing_is_compared_row_by_row():
    serving = Serving()
    flow = serving.flow
    version = flow.register_example(edit=lambda d: d["training"]["hyperparameters"].update(C=0.2))
    flow.build_environments(version)
    flow.pass_stage(version, Stage.PROCESSING)
    flow.pass_stage(version, Stage.TRAINING)
    assert "champion" not in flow.prepare(version, Stage.VALIDATION)["evaluate"]


def test_what_computed_the_metrics_is_in_the_record_and_attested(flow):
    version = up_to(flow, *ALL)
    record = json.loads(flow.meta.query(f"VERSION#{version.model}#1", prefix="STAGE#VALIDATION#")[0]["record"])
    assert record["evaluated_with"] == {"scikit-learn": "1.9.1", "environment_id": "e7" * 32}
    statement = attested(flow.meta, flow.store, flow.mover, version.model, 1)[-1]
    assert statement.predicate["attestry_evaluated_with"] == record["evaluated_with"]
    assert record["compared_holdout"] == {}
