"""Imports: the files of one submission of the caller's own become one version with a number, and what is claimed stays a claim."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import ConflictError, InvalidInputError, ModelExistsError, UnavailableError
from attestry.domain.imports import ImportDocument, read_import
from attestry.domain.policies import Policy
from attestry.domain.stages import Stage, Standing, Status
from attestry.ports import Key, Put, When
from attestry.usecases.begin_import import import_prefix, read_import_files
from attestry.usecases.catalogue import create_model, delete_model, rename_model
from attestry.usecases.import_version import read_import_document
from attestry.usecases.policies import publish_policy
from attestry.usecases.records import OUTBOX
from attestry.usecases.register import UploadedManifest
from tests.fakes import Faults
from tests.flow import Flow
from tests.imports import FILES, MODEL, RUN, bring, request_of, submit
from tests.versions import DANA, ERIN, session

ADMIN = session("admin", "grace", person="grace")


def rules_of(error):
    return {(p.field, p.rule) for p in error.value.problems}


def test_an_import_becomes_a_version_whose_files_are_not_frozen_yet():
    flow = Flow()
    version = bring(flow, submit(flow))
    assert (version.model, version.number, version.submitter_person) == (MODEL, 1, "dana")
    assert (version.stage, version.status, version.standing) == (Stage.IMPORTED, Status.RUNNING, Standing.CANDIDATE)
    assert version.imported
    assert version.folder == f"models/churn/1-import-{version.execution_id}"
    assert not flow.pipeline.executions


def test_the_first_event_says_that_the_version_was_made_elsewhere():
    flow = Flow()
    submission = submit(flow)
    version = bring(flow, submission)
    (row,) = flow.meta.query(OUTBOX)
    event = json.loads(row["event"])
    assert (event["kind"], event["subject"], event["data"]["evidence"]) == ("version.imported", "churn@1", version.candidate)
    assert event["data"]["cause"]["kind"] == "import"
    assert event["data"]["cause"]["submission"] == submission
    assert event["data"]["cause"]["deploy"] == "people"


def test_the_document_pins_each_file_by_its_s3_version_and_keeps_what_is_claimed():
    flow = Flow()
    submission = submit(flow)
    version = bring(flow, submission)
    document = read_import_document(flow.store, version)
    assert [f.path for f in document.files] == sorted(FILES)
    prefix = import_prefix(DANA.user_id, submission)
    assert {f.version_id for f in document.files} == {v.version_id for v in flow.store.list_versions(prefix)}
    assert document.request.claimed["run"]["metrics"] == {"auc": "0.91"}
    assert ImportDocument.from_bytes(document.to_bytes()) == document


def test_the_same_submission_again_is_the_same_version():
    flow = Flow()
    submission = submit(flow)
    first, second = bring(flow, submission), bring(flow, submission)
    assert first.number == second.number == 1
    assert len(flow.meta.query(OUTBOX)) == 1


def test_the_same_submission_as_another_model_or_with_other_claims_is_refused():
    flow = Flow()
    submission = submit(flow)
    bring(flow, submission)
    with pytest.raises(ConflictError, match="imported as churn"):
        bring(flow, submission, model="other")
    with pytest.raises(ConflictError, match="other claims"):
        bring(flow, submission, description="something else")
    assert len(flow.meta.query(OUTBOX)) == 1


def test_files_that_change_after_the_import_was_written_down_change_nothing_of_it():
    flow = Flow()
    submission = submit(flow)
    first = bring(flow, submission)
    flow.store.put(import_prefix(DANA.user_id, submission) + "model.pkl", b"another model")
    assert bring(flow, submission).candidate == first.candidate


def test_sixteen_imports_at_once_get_sixteen_numbers():
    flow = Flow()
    submissions = [submit(flow) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        numbers = sorted(v.number for v in pool.map(lambda s: bring(flow, s), submissions))
    assert numbers == list(range(1, 17))


def test_one_submission_imported_sixteen_times_at_once_is_one_version():
    flow = Flow()
    submission = submit(flow)
    with ThreadPoolExecutor(16) as pool:
        versions = list(pool.map(lambda _: bring(flow, submission), range(16)))
    assert {v.number for v in versions} == {1}
    assert len(flow.meta.query(OUTBOX)) == 1


def test_the_same_submission_that_was_imported_while_its_files_were_looked_at_is_one_version():
    flow = Flow()
    submission = submit(flow)
    look, first = flow.store.list_versions, []

    def overtaken(prefix):
        flow.store.list_versions = look
        first.append(bring(flow, submission))
        return look(prefix)

    # The second finds no document, then the same one, and the model as the first has left it.
    flow.store.list_versions = overtaken
    assert bring(flow, submission).number == first[0].number == 1
    assert len(flow.meta.query(OUTBOX)) == 1


def test_no_model_is_made_under_a_name_that_another_one_was_given():
    flow = Flow()
    create_model(flow.meta, "sandbox", mode="open", by=DANA, at=flow.clock.now())
    rename_model(flow.meta, "sandbox", MODEL, by=DANA, at=flow.clock.now())
    with pytest.raises(ModelExistsError, match="sandbox was given the name churn"):
        bring(flow, submit(flow))
    rename_model(flow.meta, "sandbox", "sandbox", by=DANA, at=flow.clock.now())
    assert bring(flow, submit(flow)).number == 1
    with pytest.raises(ModelExistsError):
        rename_model(flow.meta, "sandbox", MODEL, by=DANA, at=flow.clock.now())


def test_of_a_first_import_and_a_model_that_is_given_its_name_at_the_same_moment_one_has_the_name():
    flow = Flow()
    create_model(flow.meta, "sandbox", mode="open", by=DANA, at=flow.clock.now())
    submission, write = submit(flow), flow.meta.transact

    def overtaken(writes):
        flow.meta.transact = write
        rename_model(flow.meta, "sandbox", MODEL, by=DANA, at=flow.clock.now())
        write(writes)

    flow.meta.transact = overtaken
    with pytest.raises(ModelExistsError):
        bring(flow, submission)
    rename_model(flow.meta, "sandbox", "sandbox", by=DANA, at=flow.clock.now())

    def imported(writes):
        flow.meta.transact = write
        bring(flow, submission)
        write(writes)

    flow.meta.transact = imported
    with pytest.raises(ModelExistsError):
        rename_model(flow.meta, "sandbox", MODEL, by=DANA, at=flow.clock.now())


@pytest.mark.parametrize("kind", ["before", "after"])
def test_an_import_killed_at_any_call_is_finished_by_the_next_try(kind):
    tried = 0
    for point in range(1, 100):
        faults = Faults()
        flow = Flow(faults)
        submission = submit(flow)
        faults.clear()
        getattr(faults, f"fail_{kind}")(point)
        try:
            bring(flow, submission)
        except UnavailableError:
            tried += 1
            faults.clear()
            assert bring(flow, submission).number == 1
            faults.clear()
            assert len(flow.meta.query(OUTBOX)) == 1
        else:
            break
    assert tried > 5


def test_a_submission_of_somebody_else_is_none_of_the_callers():
    flow = Flow()
    submission = submit(flow)
    with pytest.raises(InvalidInputError) as error:
        bring(flow, submission, by=ERIN)
    assert rules_of(error) == {("files", "required")}
    assert flow.meta.query(OUTBOX) == []


@pytest.mark.parametrize("submission", ["", "../x", "ab", "AB" * 12, "ab" * 12 + "/../" + "cd" * 12, "ab" * 40])
def test_a_submission_that_is_no_id_is_refused(submission):
    with pytest.raises(InvalidInputError) as error:
        request_of(submission)
    assert rules_of(error) == {("submission", "submission")}


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (["../MLmodel"], "path_no_parent"),
        (["/etc/passwd"], "path_relative"),
        (["a/./b"], "path_plain_segments"),
        (["model\\x.pkl"], "path_no_backslash"),
        (["Model.pkl", "model.pkl"], "path_distinct"),
        (["caf\u00e9.pkl", "cafe\u0301.pkl"], "path_distinct"),
        (["data", "data/x"], "path_distinct"),
        (["x" * 250 + "/" + "y" * 200], "path_length"),
        ([f"f{n}" for n in range(10_000)], "max_files"),
        ([], "required"),
    ],
)
def test_names_that_no_folder_could_hold_are_refused_when_announced_and_when_found(names, rule):
    announced = {"files": [{"name": n, "size": 1, "sha256": "ab" * 32} for n in names]}
    with pytest.raises(InvalidInputError) as error:
        read_import_files(announced)
    assert {r for _, r in rules_of(error)} == {rule}
    flow = Flow()
    submission = "ab" * 12
    for name in names:
        flow.store.put(import_prefix(DANA.user_id, submission) + name, b"x")
    with pytest.raises(InvalidInputError) as error:
        bring(flow, submission)
    assert {r for _, r in rules_of(error)} == {rule}
    assert flow.meta.query(OUTBOX) == []


def test_files_that_would_not_fit_into_the_versions_row_are_refused():
    announced = {"files": [{"name": f"{n:03d}" + "x" * 200, "size": 1, "sha256": "ab" * 32} for n in range(500)]}
    with pytest.raises(InvalidInputError) as error:
        read_import_files(announced)
    assert rules_of(error) == {("files", "row_size")}


def test_more_bytes_than_an_import_may_have_are_refused_before_a_url_is_given():
    announced = {"files": [{"name": n, "size": 3 * 1024**3, "sha256": "ab" * 32} for n in ("a", "b")]}
    with pytest.raises(InvalidInputError) as error:
        read_import_files(announced)
    assert rules_of(error) == {("files", "max_bytes")}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"by": "somebody"}, "by"),
        ({"submitter": "erin"}, "submitter"),
        ({"run": "8f0f"}, "run"),
        ({"run": {"graded": "attested"}}, "run"),
        ({"run": {"metrics": {"auc": "high"}}}, "run.metrics.auc"),
        ({"run": {"metrics": {"auc": True}}}, "run.metrics.auc"),
        ({"run": {"params": {"C": 1}}}, "run.params.C"),
        ({"run": {"params": {"C": "a\x00b"}}}, "run.params.C"),
        ({"tags": {"k": "v" * 9000}}, "tags.k"),
        ({"source": ["x"]}, "source"),
        ({"description": "x" * 10_001}, "description"),
    ],
)
def test_a_claim_that_breaks_a_rule_is_refused_with_its_field(body, field):
    with pytest.raises(InvalidInputError) as error:
        read_import(MODEL, {"submission": "ab" * 12, **body})
    assert field in {f for f, _ in rules_of(error)}


def test_a_manifest_among_the_files_to_import_registers_nothing():
    flow = Flow()
    submission = submit(flow, {"manifest.json": b"{}", "deep/manifest.yaml": b"model: {}"})
    for name in ("manifest.json", "deep/manifest.yaml"):
        assert not UploadedManifest(import_prefix(DANA.user_id, submission) + name, None, "123456789012").is_manifest
    assert bring(flow, submission).number == 1


def test_a_metric_that_is_no_finite_number_stays_the_text_that_it_was():
    run = {**RUN, "metrics": {"loss": float("nan"), "big": 10**400, "text": "1e3"}}
    claimed = read_import(MODEL, {"submission": "ab" * 12, "run": {**run, "metrics": {"loss": float("nan"), "text": "1e3"}}}).run
    assert claimed.metrics == {"loss": "nan", "text": "1e3"}
    with pytest.raises(InvalidInputError):
        read_import(MODEL, {"submission": "ab" * 12, "run": {**run, "metrics": {"big": 10**400}}})


def test_a_document_that_is_not_canonical_or_has_a_field_too_many_is_refused():
    flow = Flow()
    document = read_import_document(flow.store, bring(flow, submit(flow)))
    body = json.loads(document.to_bytes())
    for changed in ({**body, "more": 1}, {**body, "kind": "manifest"}, {**body, "files": []}, {**body, "claimed": []}, []):
        with pytest.raises(InvalidInputError):
            ImportDocument.from_bytes(json.dumps(changed).encode())
    with pytest.raises(InvalidInputError):
        ImportDocument.from_bytes(json.dumps(body, indent=1).encode())


def test_one_approver_is_asked_for_where_the_model_has_no_version_yet():
    flow = Flow()
    policy = ApprovalPolicy.from_item(bring(flow, submit(flow)).approval_policy)
    assert (policy.automatic, policy.roles, policy.needed) == (False, ("approver",), 1)


def test_an_import_into_a_model_that_people_approve_asks_for_the_same_people():
    def edit(draft):
        draft["approval"] = {"people": {"require": [{"role": "validator", "count": 1}, {"role": "approver", "count": 2}]}}

    flow = Flow()
    made = flow.register_example(edit=edit)
    version = bring(flow, submit(flow), model=made.model)
    assert version.number == 2
    assert ApprovalPolicy.from_item(version.approval_policy).needed == 3


def test_an_import_into_a_model_whose_gates_decide_asks_one_approver_since_no_gate_judges_it():
    flow = Flow()
    made = flow.register_example(edit=lambda draft: draft.update(approval={"automatic": True}))
    version = bring(flow, submit(flow), model=made.model)
    assert ApprovalPolicy.from_item(version.approval_policy).needed == 1
    assert not version.approval_policy["automatic"]


def publish(flow, approval=None, gates=None, applies=None):
    rule = {"name": "floor", "applies": applies or {}, "approval": approval or {}, "gates": gates or {}}
    policy = Policy.from_mapping({"format": 1, "name": "standard", "rules": [rule]})
    publish_policy(flow.meta, policy, by=ADMIN, reason="a rule", at=flow.clock.now())


@pytest.mark.parametrize("applies", [{}, {"risk_tiers": ["high"]}])
def test_a_policy_in_force_raises_what_an_import_asks_for_also_where_nobody_named_the_risk_tier(applies):
    flow = Flow()
    publish(flow, {"persons": 3, "roles": {"validator": 1}, "signed": True}, applies=applies)
    policy = ApprovalPolicy.from_item(bring(flow, submit(flow)).approval_policy)
    assert policy.signed
    assert {(r.roles, r.count) for r in policy.requirements} == {(("validator",), 1), (("approver",), 2)}


@pytest.mark.parametrize("gates", [{"metrics": [{"metric": "accuracy", "minimum": 0.9}]}, {"required": ["model.purpose"]}])
def test_a_policy_that_asks_for_what_no_import_has_refuses_it(gates):
    flow = Flow()
    publish(flow, gates=gates)
    with pytest.raises(InvalidInputError) as error:
        bring(flow, submit(flow))
    assert rules_of(error) == {("model", "policy")}


def test_a_policy_published_between_two_tries_is_not_passed_by_what_was_written_down_before():
    faults = Faults()
    flow = Flow(faults)
    submission = submit(flow)
    faults.clear()
    faults.fail_before(1, method="transact")
    with pytest.raises(UnavailableError):
        bring(flow, submission)
    publish(flow, {"persons": 2})
    with pytest.raises(InvalidInputError, match="asks for more"):
        bring(flow, submission)
    assert bring(flow, submit(flow)).number == 1


def test_a_model_that_is_open_lets_an_import_pass_by_itself_unless_a_policy_asks_for_persons():
    flow = Flow()
    version = bring(flow, submit(flow))
    flow.meta.transact([Put(Key(f"CATALOGUE#{MODEL}"), {"mode": "open"})])
    assert bring(flow, submit(flow)).approval_policy["automatic"]
    publish(flow, {"persons": 2})
    assert not bring(flow, submit(flow)).approval_policy["automatic"]
    assert not version.approval_policy["automatic"]


def test_an_import_begun_while_its_model_was_open_is_not_made_once_it_is_governed():
    faults = Faults()
    flow = Flow(faults)
    entry = Key(f"CATALOGUE#{MODEL}")
    flow.meta.transact([Put(entry, {"mode": "open"})])
    submission = submit(flow)
    faults.clear()
    faults.fail_before(1, method="transact")
    with pytest.raises(UnavailableError):
        bring(flow, submission)
    flow.meta.transact([Put(entry, {"mode": "governed"}, When())])
    with pytest.raises(InvalidInputError, match="open no more"):
        bring(flow, submission)


def test_an_import_into_a_model_that_is_made_anew_and_governed_at_the_same_moment_does_not_pass_by_itself():
    flow = Flow()
    create_model(flow.meta, MODEL, mode="open", by=DANA, at=flow.clock.now())
    submission, write = submit(flow), flow.meta.transact

    def overtaken(writes):
        flow.meta.transact = write
        delete_model(flow.meta, MODEL, by=DANA, at=flow.clock.now())
        create_model(flow.meta, MODEL, mode="governed", by=DANA, at=flow.clock.now())
        write(writes)

    flow.meta.transact = overtaken
    with pytest.raises(InvalidInputError, match="open no more"):
        bring(flow, submission)
    assert not bring(flow, submit(flow)).approval_policy["automatic"]


def test_an_import_keeps_what_the_models_row_says():
    flow = Flow()
    made = flow.register_example()
    bring(flow, submit(flow), model=made.model)
    (row,) = flow.meta.list_collection("MODELS")
    assert (row["next"], row["risk_tier"], bool(row["owner"])) == (3, "high", True)


def test_a_floor_for_promotions_to_where_imports_belong_raises_what_is_asked_of_who_approves_them():
    flow = Flow()
    rule = {"name": "floor", "promotion": {"production": {"persons": 2, "signed": True}, "staging": {"persons": 9}}}
    policy = Policy.from_mapping({"format": 1, "name": "standard", "rules": [rule]})
    publish_policy(flow.meta, policy, by=ADMIN, reason="a rule", at=flow.clock.now())
    asked = ApprovalPolicy.from_item(bring(flow, submit(flow)).approval_policy)
    assert (asked.needed, asked.signed) == (2, True)
