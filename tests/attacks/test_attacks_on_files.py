"""Attacks on the files of a version: on disk, in the bucket, on the way into a process, and on the data it was trained with."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from attestry.domain.version import FileRef, encode
from attestry.sandbox import confine
from attestry.usecases.records import version_key
from tests.attacks.conftest import Tell
from tests.attacks.scene import Scene, broken, failures
from tests.embedded.flows import Answer, Registry, refusal, until
from tests.evidence_world import rewrite

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

OTHER_MODEL = b'{"threshold": 99.0}'
needs_landlock = pytest.mark.skipif(not confine.landlock_version(), reason="this kernel cannot keep a script from files and connections")
REFUSED = ("AccessDenied", "PreconditionFailed")


@dataclass(frozen=True)
class ColdLoad:
    """A prediction by a process that had to load the version first, while an administrator did what they could about its files.

    Attributes:
        answer: what it answered.
        writes: how often a file was written over meanwhile.
    """

    answer: Mapping[str, Any]
    writes: int


@pytest.fixture(scope="module")
def cold_load(scene: Scene) -> ColdLoad:
    """See the class: one file is written over on and on, one is deleted, one is added."""
    head, file, over = scene.head(scene.second), scene.file(scene.second), threading.Event()
    laid: list[str] = []

    def write_on() -> None:
        while not over.wait(0.02):
            laid.append(scene.put_object(file.key, OTHER_MODEL))

    thread = threading.Thread(target=write_on)
    added = f"{head.folder}/frozen/model/sitecustomize.py"
    with scene.laid_over(added, b"raise SystemExit"), scene.marked_deleted(scene.file(scene.second, "model/canary.pkl").key):
        scene.registry.forget_processes("inference")
        thread.start()
        try:
            answer = ready(scene)
        finally:
            over.set()
            thread.join()
            for version_id in laid:
                scene.registry.aws("s3").delete_object(Bucket=scene.registry.bucket, Key=file.key, VersionId=version_id)
    assert answer.status == 200, answer.raw
    return ColdLoad(answer.body, len(laid))


def ready(scene: Scene) -> Answer:
    """The answer to a prediction, once the version is loaded or refused."""
    answer: Answer = until(lambda: (found := scene.predict()).status != 503 and found, "the version was loaded")
    return answer


def malignant(answer: Mapping[str, Any]) -> bool:
    """What the version said."""
    return [row["malignant"] for row in answer["output"]] == [1]


def store_rules(registry: Registry) -> dict[str, dict[str, Any]]:
    """The statements of the store's bucket policy as it is deployed, which is the synthesised template's."""
    policy = json.loads(registry.aws("s3").get_bucket_policy(Bucket=registry.bucket)["Policy"])
    return {str(s["Sid"]): s for s in policy["Statement"] if "Sid" in s}


def test_a_file_of_a_version_that_is_swapped_shows_in_every_trace(scene: Scene, tell: Tell) -> None:
    file = scene.file(scene.second)
    with scene.laid_over(file.key, scene.read_object(scene.file(scene.first).key)):
        trace, found = scene.trace(), scene.findings()
    assert trace["verdict"] == "BROKEN"
    assert f"{file.path} was changed" in failures(trace)["frozen files"]
    assert file.key in found["object.overwritten"]
    tell("trace BROKEN at `frozen files`, finding `object.overwritten`")


def test_a_swapped_file_that_the_table_points_at_is_refused_at_load(scene: Scene, tell: Tell) -> None:
    file, head = scene.file(scene.second), scene.head(scene.second)
    with scene.laid_over(file.key, OTHER_MODEL) as laid:
        swapped = encode(tuple(replace(f, version_id=laid) if f == file else f for f in head.frozen))
        with scene.edited(version_key(scene.model, scene.second), frozen=swapped):
            scene.registry.forget_processes("inference")
            scene.registry.forget_processes("predict")
            answer = ready(scene)
            deep = scene.trace(deep=True)
    scene.registry.forget_processes("predict")
    assert (answer.status, answer.code) == (409, "integrity"), answer.raw
    assert file.path in failures(deep)["bytes of the frozen files"]
    tell("load refused: 409 `integrity`; deep trace BROKEN at `bytes of the frozen files`")


def test_a_file_that_is_added_to_a_version_shows_and_is_never_loaded(scene: Scene, cold_load: ColdLoad, tell: Tell) -> None:
    key = f"{scene.head(scene.second).folder}/frozen/model/sitecustomize.py"
    with scene.laid_over(key, b"print('added')"):
        trace, found = scene.trace(), scene.findings()
    assert "model/sitecustomize.py was added" in failures(trace)["frozen files"]
    assert key in found["object.added"]
    assert cold_load.answer["version"] == scene.second
    tell("trace BROKEN at `frozen files`, finding `object.added`; only listed files are loaded")


def test_a_file_of_a_version_that_is_renamed_shows(scene: Scene, tell: Tell) -> None:
    file = scene.file(scene.second)
    other = file.key.replace("model.json", "renamed.json")
    with scene.laid_over(other, scene.read_object(file.key, file.version_id)), scene.marked_deleted(file.key):
        trace, found = scene.trace(), scene.findings()
    told = failures(trace)["frozen files"]
    assert f"{file.path} was deleted" in told
    assert "model/renamed.json was added" in told
    assert file.key in found["object.deleted"]
    assert other in found["object.added"]
    tell("trace BROKEN at `frozen files`, findings `object.deleted` and `object.added`")


def test_a_renamed_file_in_the_artifact_manifest_is_another_version(scene: Scene, tell: Tell) -> None:
    head = scene.head(scene.second)
    assert head.artifact is not None
    manifest = scene.read_object(head.artifact.key, head.artifact.version_id)
    renamed = manifest.replace(b"model/model.json", b"model/nodel.json")
    step, reason = broken(scene.verify(rewrite(scene.bundle, {"version/artifact-manifest.json": renamed})))
    assert (step, "digest" in reason) == ("artifact", True), reason
    tell("verify BROKEN at `artifact`: the manifest has another digest than the version")


@pytest.mark.parametrize("function", ["record_stage", "deploy", "sequence", "sign_artifact"])
def test_a_put_over_a_locked_key_is_refused(scene: Scene, tell: Tell, function: str) -> None:
    registry, file = scene.registry, scene.file(scene.second)
    s3 = registry.aws("s3", registry.as_function(function))
    assert refusal(s3.put_object, Bucket=registry.bucket, Key=file.key, Body=OTHER_MODEL) in REFUSED
    assert refusal(s3.put_object, Bucket=registry.bucket, Key=file.key, Body=OTHER_MODEL, IfNoneMatch="*") in REFUSED
    tell("S3 refuses: AccessDenied by bucket policy without `If-None-Match`, PreconditionFailed with it")


def test_a_put_over_a_locked_key_by_the_account_s_root_is_denied_by_the_deployed_policy(scene: Scene, tell: Tell) -> None:
    """The embedded AWS lets the account's root past bucket policies; AWS does not, and the policy is there."""
    rule = store_rules(scene.registry)["DenyOverwrite"]
    assert (rule["Effect"], rule["Principal"]) == ("Deny", {"AWS": "*"})
    assert rule["Condition"] == {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}
    assert f"arn:aws:s3:::{scene.registry.bucket}/models/*" in rule["Resource"]
    tell("bucket policy `DenyOverwrite` for every principal (checked on the deployed policy: here root passes it)")


@pytest.mark.parametrize("bypass", [False, True])
def test_the_bytes_of_a_locked_file_are_deleted_by_nobody(scene: Scene, tell: Tell, bypass: bool) -> None:
    registry, file = scene.registry, scene.file(scene.second)
    named = {"Bucket": registry.bucket, "Key": file.key, "VersionId": file.version_id}
    if bypass:
        profile = registry.as_function("record_stage")
        assert refusal(registry.aws("s3", profile).delete_object, **named, BypassGovernanceRetention=True) == "AccessDenied"
        assert "s3:BypassGovernanceRetention" in str(store_rules(registry)["DenyDelete"]["Action"])
        tell("S3 refuses to bypass the retention: AccessDenied")
        return
    assert refusal(registry.aws("s3").delete_object, **named) == "AccessDenied"
    assert scene.read_object(file.key, file.version_id)
    tell("Object Lock refuses, for the account's root as well: AccessDenied")


def test_a_delete_marker_hides_nothing(scene: Scene, cold_load: ColdLoad, tell: Tell) -> None:
    file = scene.file(scene.second, "model/canary.pkl")
    with scene.marked_deleted(file.key):
        trace, found = scene.trace(), scene.findings()
    assert f"{file.path} was deleted" in failures(trace)["frozen files"]
    assert file.key in found["object.deleted"]
    assert cold_load.answer["version"] == scene.second
    tell("files are read by S3 version, so predictions go on; trace BROKEN at `frozen files`, finding `object.deleted`")


def test_a_file_that_changes_between_hash_and_load_is_loaded_as_it_was_hashed(cold_load: ColdLoad, tell: Tell) -> None:
    """Whoever may write the bucket changes the file all the time while a new process fetches, hashes and loads it."""
    assert cold_load.writes > 0
    assert malignant(cold_load.answer), "a threshold of 14 calls it malignant, one of 99 does not"
    tell("fetched by S3 version and hashed in the reader's own folder: the answer is the approved model's")


@needs_landlock
def test_registered_code_cannot_change_the_files_it_is_loaded_from(scene: Scene, cold_load: ColdLoad, tell: Tell) -> None:
    log = scene.registry.client("dana").log(scene.model, scene.second, "VALIDATION")["text"]
    assert "NOT REWRITTEN PermissionError" in log.splitlines()
    assert malignant(cold_load.answer)
    tell("its rewriting of its own model file is refused (PermissionError)")


def dataset_file(scene: Scene) -> FileRef:
    """A file that `second` was trained on."""
    return scene.head(scene.second).dataset("training").files[0]


def test_a_data_set_that_is_changed_after_training_is_told_from_the_one_trained_on(scene: Scene, tell: Tell) -> None:
    file, head = dataset_file(scene), scene.head(scene.second)
    with scene.laid_over(file.key, b"PAR1 other data PAR1") as laid:
        sets = tuple(
            replace(d, files=tuple(replace(f, version_id=laid) if f == file else f for f in d.files)) if d.name == "training" else d
            for d in head.datasets
        )
        with scene.edited(version_key(scene.model, scene.second), datasets=encode(sets)):
            deep = scene.trace(deep=True)
    assert deep["verdict"] == "BROKEN"
    assert file.path in failures(deep)["bytes of the data set training"]
    tell("deep trace BROKEN at `bytes of the data set training`")


def test_a_data_set_whose_recorded_digests_are_changed_too_is_not_the_artifact_manifest_s(scene: Scene, tell: Tell) -> None:
    head = scene.head(scene.second)
    sets = tuple(
        replace(d, files=tuple(replace(f, sha256="ab" * 32) for f in d.files)) if d.name == "training" else d for d in head.datasets
    )
    with scene.edited(version_key(scene.model, scene.second), datasets=encode(sets)):
        trace, found = scene.trace(), scene.findings()
    assert "the data set training is not the one of the artifact manifest" in failures(trace)["data sets"]
    assert version_key(scene.model, scene.second).partition + "/HEAD" in found["head.datasets"]
    tell("trace BROKEN at `data sets`, finding `head.datasets`")


def test_the_data_that_a_version_was_trained_on_cannot_be_deleted(scene: Scene, tell: Tell) -> None:
    file, s3 = dataset_file(scene), scene.registry.aws("s3")
    named = {"Bucket": scene.registry.bucket, "Key": file.key, "VersionId": file.version_id}
    assert refusal(s3.delete_object, **named) == "AccessDenied"
    tell("Object Lock refuses, for the account's root as well: AccessDenied")


@needs_landlock
def test_a_pickle_among_the_files_is_loaded_in_the_sandbox_alone(scene: Scene, cold_load: ColdLoad, tell: Tell) -> None:
    """By now every function has handled the file: training, freezing, signing, validation, deployment, prediction, trace."""
    log = scene.registry.client("dana").log(scene.model, scene.second, "VALIDATION")["text"]
    sang = [line for line in log.splitlines() if line.startswith("CANARY")]
    assert sang == ["CANARY COULD NOT WRITE"] * len(sang)
    assert sang, "the canary sings where the model is loaded"
    assert cold_load.answer["version"] == scene.second
    assert not scene.canary.exists(), "somebody loaded it outside of the sandbox"
    tell("only registered code loads it: in the sandbox, without a variable of AWS, unable to write outside; no function unpickles")
