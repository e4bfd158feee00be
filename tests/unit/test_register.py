"""Registration: the same manifest and source is one candidate, however often it is uploaded; what is refused changes nothing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from attestry.domain.endpoints import EndpointSettings
from attestry.domain.errors import NotFoundError, UnavailableError
from attestry.domain.names import FolderNaming
from attestry.usecases.catalogue import create_model, rename_model
from attestry.usecases.records import OUTBOX, upload_key
from attestry.usecases.register import Registrar, UploadedManifest
from attestry.usecases.upload import submission_status
from tests.attestations import attested
from tests.fakes import Faults
from tests.flow import DATA, PLATFORM, Flow, example_manifest, example_source, tar_gz
from tests.versions import DANA, ERIN, session


def status_of(flow, upload):
    return json.loads(flow.store.read(upload.key + ".status.json", max_bytes=10**6))


def refused(flow, manifest, source, **kwargs):
    upload = flow.upload(manifest, source, **kwargs)
    registration = flow.register(upload)
    assert registration.state == "REFUSED"
    assert flow.meta.list_collection("MODELS") == []
    assert flow.meta.query(OUTBOX) == []
    assert not flow.pipeline.executions
    assert status_of(flow, upload)["state"] == "REFUSED"
    return {(e.field, e.rule) for e in registration.errors}


def test_an_uploaded_manifest_becomes_a_version_with_a_running_pipeline():
    flow = Flow()
    version = flow.register_example()
    assert (version.model, version.number, version.submitter_person) == ("tumour-diagnosis", 1, "dana")
    assert list(flow.pipeline.executions) == [version.execution_id]
    assert version.folder == f"models/tumour-diagnosis/1-{'3f' * 20}-{version.execution_id}"
    assert len(flow.meta.query(OUTBOX)) == 1


def test_the_outcome_lies_beside_the_manifest_and_in_a_notification():
    flow = Flow()
    source = example_source()
    upload = flow.upload(example_manifest(source), source)
    flow.register(upload)
    assert status_of(flow, upload)["version"] == 1
    assert flow.notifier.messages[0][0] == "tumour-diagnosis@1: registered"


def test_the_same_event_ten_times_is_one_candidate_and_one_execution():
    flow = Flow()
    source = example_source()
    upload = flow.upload(example_manifest(source), source)
    with ThreadPoolExecutor(10) as pool:
        registrations = list(pool.map(lambda _: flow.register(upload), range(10)))
    assert {r.version.number for r in registrations} == {1}
    assert sum(r.created for r in registrations) == 1
    assert len(flow.pipeline.executions) == 1
    assert len(flow.meta.query(OUTBOX)) == 1


def test_an_experiment_that_was_made_before_is_told_beside_the_manifest():
    flow = Flow()
    source = example_source()
    first = flow.register(flow.upload(example_manifest(source), source))
    other = flow.upload(example_manifest(source, edit=lambda draft: draft["deployment"].update(capture_rate=0.25)), source)
    second = flow.register(other)
    assert (first.alike, [v.number for v in second.alike]) == ((), [1])
    (told,) = status_of(flow, other)["alike"]
    assert (told["model"], told["number"], told["same_code"]) == ("tumour-diagnosis", 1, True)
    third = flow.upload(example_manifest(source, edit=lambda draft: draft["training"]["hyperparameters"].update(max_iter=4321)), source)
    assert flow.register(third).alike == ()


def test_the_same_manifest_uploaded_again_elsewhere_is_the_same_candidate():
    flow = Flow()
    first = flow.register_example()
    second = flow.register_example()
    assert first.number == second.number == 1
    assert flow.meta.get_many([]) == {}
    assert [m["next"] for m in flow.meta.list_collection("MODELS")] == [2]


def test_key_order_and_yaml_or_json_make_no_other_candidate():
    flow = Flow()
    source = example_source()
    manifest = json.loads(example_manifest(source))
    shuffled = json.dumps(dict(reversed(manifest.items())), indent=3).encode()
    one = flow.register(flow.upload(example_manifest(source), source))
    two = flow.register(flow.upload(shuffled, source))
    assert one.version.candidate == two.version.candidate
    assert not two.created


def test_sixteen_different_candidates_at_once_get_sixteen_numbers():
    flow = Flow()
    source = example_source()

    def one(index: int) -> int:
        def edit(draft):
            draft["training"]["hyperparameters"]["max_iter"] = 100 + index

        return flow.register(flow.upload(example_manifest(source, edit=edit), source)).version.number

    with ThreadPoolExecutor(16) as pool:
        numbers = sorted(pool.map(one, range(16)))
    assert numbers == list(range(1, 17))
    assert len(flow.pipeline.executions) == 16


@pytest.mark.parametrize("kind", ["before", "after"])
def test_a_registration_killed_at_any_call_is_finished_by_the_next_delivery(kind):
    source = example_source()
    manifest = example_manifest(source)
    tried = 0
    for point in range(1, 100):
        faults = Faults()
        flow = Flow(faults)
        upload = flow.upload(manifest, source)
        faults.clear()
        getattr(faults, f"fail_{kind}")(point)
        try:
            flow.register(upload)
        except UnavailableError:
            tried += 1
            faults.clear()
            assert flow.register(upload).state == "REGISTERED"
        else:
            break
        assert len(flow.meta.query(OUTBOX)) == 1
        assert len(flow.pipeline.executions) == 1
        assert [m["next"] for m in flow.meta.list_collection("MODELS")] == [2]
        assert status_of(flow, upload)["version"] == 1
        attested(flow.meta, flow.store, flow.mover, "tumour-diagnosis", 1)
    assert tried >= 14


def test_a_manifest_that_breaks_rules_is_refused_with_every_field():
    flow = Flow()
    source = example_source()

    def edit(draft):
        draft["model"]["name"] = "../other"
        draft["trainning"] = {}
        del draft["approval"]

    problems = refused(flow, example_manifest(source, edit=edit), source)
    assert {field for field, _ in problems} >= {"model.name", "trainning", "approval"}


def test_a_manifest_of_a_model_whose_name_another_one_was_given_is_refused():
    flow = Flow()
    create_model(flow.meta, "sandbox", mode="open", by=DANA, at=flow.clock.now())
    rename_model(flow.meta, "sandbox", "tumour-diagnosis", by=DANA, at=flow.clock.now())
    source = example_source()
    upload = flow.upload(example_manifest(source), source)
    registration = flow.register(upload)
    assert registration.state == "REFUSED"
    assert "the model sandbox was given the name tumour-diagnosis" in registration.errors[0].message
    rename_model(flow.meta, "sandbox", "sandbox", by=DANA, at=flow.clock.now())
    assert flow.register(upload).state == "REGISTERED"


def test_a_source_archive_other_than_the_manifest_says_is_refused():
    flow = Flow()
    assert refused(flow, example_manifest(example_source()), example_source(train=b"other")) == {("source.sha256", "digest")}


def test_a_script_that_is_not_in_the_archive_is_refused_by_field():
    source = tar_gz({"train.py": b"", "requirements.lock": b""})
    assert ("processing.script", "in_archive") in refused(Flow(), example_manifest(source), source)


def test_a_lock_file_without_hashes_is_refused():
    source = example_source(requirements=b"scikit-learn==1.7.2\n")
    assert {field for field, _ in refused(Flow(), example_manifest(source), source)} == {"environment.lock_file"}


def test_a_symlink_in_the_source_archive_is_refused():
    import gzip
    import io
    import tarfile

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        link = tarfile.TarInfo("train.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    source = gzip.compress(raw.getvalue())
    assert {field for field, _ in refused(Flow(), example_manifest(source), source)} == {"source.archive"}


@pytest.mark.parametrize("name", ["../train.py", "/train.py", "a\\b.py", "TRAIN.PY"])
def test_a_path_that_leaves_or_collides_is_refused(name):
    source = tar_gz({"train.py": b"", name: b""})
    assert {field for field, _ in refused(Flow(), example_manifest(source), source)} == {"source.archive"}


def test_data_that_is_not_there_is_refused_by_field():
    flow = Flow()
    source = example_source()
    upload = flow.upload(example_manifest(source), source)
    flow.store.delete(f"{upload.folder}data/breast_cancer.csv")
    assert {e.field for e in flow.register(upload).errors} == {"data.source[0].uri"}


def test_who_was_given_the_url_is_the_submitter_only_for_the_bytes_it_was_given_for():
    """Somebody who can write to the bucket swaps the manifest under another's grant: the submitter is then unproven."""
    flow = Flow()
    source = example_source()
    upload = flow.upload(example_manifest(source), source)

    def edit(draft):
        draft["training"]["hyperparameters"]["C"] = 9.5

    flow.store.put(upload.key, example_manifest(source, edit=edit))
    registration = flow.register(upload)
    assert registration.version.submitter_person is None
    assert registration.to_dict()["submitter"] == "unproven"


def test_an_upload_by_hand_is_attributed_to_its_prefix_and_unproven():
    flow = Flow()
    source = example_source()
    folder = "candidates/AIDAHAND/first/"
    for name, body in {"source.tar.gz": source, "data/breast_cancer.csv": DATA, "manifest.json": example_manifest(source)}.items():
        flow.store.put(folder + name, body)
    version = flow.register(UploadedManifest(f"{folder}manifest.json", None, "123456789012")).version
    assert (version.submitter.user_id, version.submitter_person) == ("AIDAHAND", None)


@pytest.mark.parametrize(
    "key",
    [
        "candidates/manifest.json",
        "candidates//x/manifest.json",
        "models/a/manifest.json",
        "candidates/u/x/other.json",
        "candidates/u/x/manifest.yaml.status.json",
    ],
)
def test_other_objects_start_nothing(key):
    assert not UploadedManifest(key, None, "1").is_manifest


def test_a_submission_is_shown_to_its_uploader_alone():
    flow = Flow()
    source = example_source()
    upload = flow.upload(example_manifest(source), source)
    submission = upload.key.split("/")[2]
    assert submission_status(flow.meta, flow.store, submission, by=DANA)["state"] == "PENDING"
    flow.register(upload)
    assert submission_status(flow.meta, flow.store, submission, by=DANA)["version"] == 1
    for stranger in (ERIN, session("scientist", "mallory")):
        with pytest.raises(NotFoundError):
            submission_status(flow.meta, flow.store, submission, by=stranger)


def test_the_grant_names_the_uploader():
    flow = Flow()
    source = example_source()
    upload = flow.upload(example_manifest(source), source)
    assert flow.meta.get(upload_key(upload.key))["principal"]["person"] == "dana"


def dirty_manifest(source, diff):
    import hashlib

    manifest = json.loads(example_manifest(source))
    manifest["source"]["dirty"] = {"diff_sha256": hashlib.sha256(diff).hexdigest()}
    return json.dumps(manifest).encode()


def test_the_difference_of_a_dirty_tree_is_kept_with_the_version():
    flow = Flow()
    source, diff = example_source(), b"--- a/train.py\n+++ b/train.py\n"
    version = flow.register(flow.upload(dirty_manifest(source, diff), source, extra={"source.diff": diff})).version
    assert flow.store.read(version.diff.key, version.diff.version_id, max_bytes=1000) == diff


def test_a_dirty_tree_without_its_difference_or_with_another_is_refused():
    source, diff = example_source(), b"--- a\n"
    assert refused(Flow(), dirty_manifest(source, diff), source) == {("source.dirty.diff_sha256", "present")}
    assert refused(Flow(), dirty_manifest(source, diff), source, extra={"source.diff": b"other"}) == {
        ("source.dirty.diff_sha256", "digest")
    }


def test_a_framework_version_that_the_lock_file_does_not_install_is_refused():
    def edit(draft):
        draft["environment"]["framework"]["version"] = "0.0.1"

    source = example_source()
    assert ("environment.framework.version", "in_lock_file") in refused(Flow(), example_manifest(source, edit=edit), source)


def without_framework(draft):
    draft["environment"]["framework"]["name"] = "scikit-lern"


@pytest.mark.parametrize(
    ("part", "name", "version", "problem"),
    [
        ("framework", "scikit-lern", "1.9.1", ("environment.framework.name", "framework_in_lock")),
        ("framework", "xgboost", "2.1.0", ("environment.framework.name", "framework_in_lock")),
        ("algorithm", "xgboost.XGBClassifier", "2.1.0", ("environment.algorithm.name", "framework_in_lock")),
        ("algorithm", "sklearn.linear_model.LogisticRegression", "1.7.2", ("environment.algorithm.version", "in_lock_file")),
        ("algorithm", "joblib", "9.9.9", ("environment.algorithm.version", "in_lock_file")),
    ],
)
def test_a_framework_or_algorithm_of_a_package_that_the_lock_file_does_not_install_is_refused(part, name, version, problem):
    def edit(draft):
        draft["environment"][part] = {"name": name, "version": version}

    source = example_source()
    assert refused(Flow(), example_manifest(source, edit=edit), source) == {problem}


@pytest.mark.parametrize(("name", "version"), [("Scikit_Learn", "1.9.1"), ("joblib", "1.6.0")])
def test_a_framework_is_found_in_the_lock_file_however_its_name_is_written(name, version):
    flow = Flow()
    assert flow.register_example(edit=lambda d: d["environment"].update(framework={"name": name, "version": version})).number == 1


@pytest.mark.parametrize("name", ["train.OwnNetwork", "logistic regression by Newton's method", "RuleList"])
def test_an_algorithm_of_no_package_is_taken_as_it_is_said(name):
    assert Flow().register_example(edit=lambda d: d["environment"].update(algorithm={"name": name, "version": "1.0"})).number == 1


def test_a_misspelt_framework_is_told_with_the_nearest_package():
    flow, source = Flow(), example_source()
    registration = flow.register(flow.upload(example_manifest(source, edit=without_framework), source))
    assert "did you mean 'scikit-learn'?" in registration.errors[0].message


def test_a_stage_that_asks_for_more_memory_than_a_script_is_given_is_refused():
    def edit(draft):
        draft["training"]["resources"] = {"memory_mib": 4096}
        del draft["validation"]["resources"]

    def registry(memory):
        flow = Flow()
        flow.registrar = Registrar(flow.meta, flow.attestor, flow.store, flow.pipeline, flow.notifier, PLATFORM, sandbox_memory_mib=memory)
        return flow

    source = example_source()
    too_small = {("processing.resources.memory_mib", "available"), ("training.resources.memory_mib", "available")}
    assert refused(registry(4095), example_manifest(source, edit=edit), source) == {("training.resources.memory_mib", "available")}
    assert refused(registry(512), example_manifest(source, edit=edit), source) == too_small
    assert registry(4096).register_example(edit=edit).number == 1


@pytest.mark.parametrize(("naming", "ending"), [("revision", "3f" * 20), ("date", "2026-01-02"), ("execution", None)])
def test_the_folder_is_named_as_configured(naming, ending):
    flow = Flow()
    flow.registrar = Registrar(flow.meta, flow.attestor, flow.store, flow.pipeline, flow.notifier, PLATFORM, FolderNaming(naming))
    version = flow.register_example()
    assert version.folder == f"models/tumour-diagnosis/1-{ending or version.execution_id}"


def test_a_stage_that_this_registry_cannot_run_where_the_manifest_says_is_refused():
    def edit(draft):
        draft["training"] |= {"executor": "sagemaker", "resources": {"instance": "ml.m5.large"}}
        draft["environment"]["container"] = "registry.example.com/train@sha256:" + "ab" * 32

    source = example_source()
    assert ("training.executor", "available") in refused(Flow(), example_manifest(source, edit=edit), source)


def ask_for_sagemaker(draft):
    endpoint = {"container": "registry.example.com/serve@sha256:" + "ab" * 32, "instance": "ml.m7i.xlarge"}
    draft["deployment"] |= {"target": "sagemaker", "endpoint": endpoint}


@pytest.mark.parametrize("models", [(), ("another-model",)])
def test_a_target_that_this_registry_does_not_have_for_the_model_is_refused(models):
    flow, source = Flow(), example_source()
    flow.registrar._endpoints = EndpointSettings(models=models)
    assert refused(flow, example_manifest(source, edit=ask_for_sagemaker), source) == {("deployment.target", "available")}


def test_a_version_that_sagemaker_serves_says_so_from_its_registration_on():
    flow, source = Flow(), example_source()
    flow.registrar._endpoints = EndpointSettings(models=("tumour-diagnosis",))
    version = flow.register(flow.upload(example_manifest(source, edit=ask_for_sagemaker), source)).version
    assert version.target == "sagemaker"
    first = flow.meta.query(f"VERSION#{version.model}#1", prefix="TRANSITION#")[0]
    assert first["data"]["target"] == "sagemaker"
