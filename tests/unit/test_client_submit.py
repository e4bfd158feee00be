"""Submitting a candidate: a real repository, and a local server that speaks the API's contract."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from attestry.client.api import RegistryClient
from attestry.client.errors import SubmissionRefusedError
from attestry.client.source import DirtyTreeError
from attestry.client.submit import find_manifest, prepare_submission, submit
from attestry.domain.errors import InvalidInputError, UnavailableError
from attestry.domain.manifest import read_manifest
from tests.unit.client_double import SUBMISSION, ApiDouble

EXAMPLE = Path(__file__).resolve().parents[2] / "manifests" / "tumour-diagnosis"
PREFIX = f"candidates/AIDAEXAMPLE/{SUBMISSION}/"
REGISTERED = {"state": "REGISTERED", "model": "tumour-diagnosis", "version": 4, "candidate": "c" * 64, "created": True, "errors": []}


def git(folder: Path, *arguments: str) -> str:
    identity = {f"GIT_{who}_{what}": "dana" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **identity, "GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "change")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "tumour-diagnosis"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    (folder / "data").mkdir()
    (folder / "data" / "breast_cancer.csv").write_text("radius,malignant\n1.5,0\n")
    # The repository's own rule, which a copy of the folder does not have.
    (folder.parent / ".gitignore").write_text("*/data/\n")
    git(folder.parent, "init", "--quiet")
    commit(folder.parent)
    return folder


@pytest.fixture
def api() -> Iterator[ApiDouble]:
    double = ApiDouble()
    yield double
    double.close()


@pytest.fixture
def client(api: ApiDouble, monkeypatch: pytest.MonkeyPatch) -> RegistryClient:
    monkeypatch.setattr("attestry.client.submit._POLL_SECONDS", (0.001, 0.001))
    monkeypatch.setattr("attestry.client.submit._UPLOAD_PAUSE", 0.001)
    return RegistryClient(boto3.Session("AKIDEXAMPLE", "secret", region_name="eu-central-1"), api.url)


def test_source_data_and_manifest_are_uploaded_and_the_version_is_told(api: ApiDouble, client: RegistryClient, folder: Path) -> None:
    api.registration = [{"state": "PENDING", "errors": []}, REGISTERED]
    submitted = submit(client, folder)
    assert (submitted.model, submitted.version, submitted.created, submitted.dirty) == ("tumour-diagnosis", 4, True, False)
    assert list(api.stored) == [PREFIX + n for n in ("source.tar.gz", "data/breast_cancer.csv", "manifest.json")]
    manifest = read_manifest(api.stored[PREFIX + "manifest.json"]).manifest
    assert manifest.source.revision == git(folder, "rev-parse", "HEAD") == submitted.revision
    assert manifest.source.sha256 == hashlib.sha256(api.stored[PREFIX + "source.tar.gz"]).hexdigest()
    assert manifest.data.source[0].sha256 == hashlib.sha256(api.stored[PREFIX + "data/breast_cancer.csv"]).hexdigest()


def test_the_manifest_is_the_last_to_be_uploaded(folder: Path) -> None:
    assert [f.name for f in prepare_submission(folder).files][-1] == "manifest.json"


def test_the_same_submission_again_is_the_same_candidate(folder: Path) -> None:
    ids = {read_manifest(prepare_submission(folder).files[-1].content).candidate_id for _ in range(2)}  # type: ignore[arg-type]
    assert len(ids) == 1


def test_a_refused_submission_tells_every_problem(api: ApiDouble, client: RegistryClient, folder: Path) -> None:
    problem = {"field": "gates.metrics[0]", "rule": "known_metric", "message": "no such metric", "line": 7}
    api.registration = [{"state": "REFUSED", "errors": [problem]}]
    with pytest.raises(SubmissionRefusedError) as caught:
        submit(client, folder)
    assert caught.value.problems[0].to_dict() == problem


def test_a_dirty_tree_is_refused_before_anything_is_sent(api: ApiDouble, client: RegistryClient, folder: Path) -> None:
    (folder / "train.py").write_text("changed")
    with pytest.raises(DirtyTreeError):
        submit(client, folder)
    assert api.asked == []


def test_an_allowed_dirty_tree_goes_with_its_difference(api: ApiDouble, client: RegistryClient, folder: Path) -> None:
    api.registration = [REGISTERED]
    with (folder / "train.py").open("a") as script:
        script.write("# tried out\n")
    assert submit(client, folder, allow_dirty=True).dirty
    diff = api.stored[PREFIX + "source.diff"]
    assert b"+# tried out" in diff
    dirty = read_manifest(api.stored[PREFIX + "manifest.json"]).manifest.source.dirty
    assert dirty is not None
    assert dirty.diff_sha256 == hashlib.sha256(diff).hexdigest()


def test_a_changed_data_file_is_no_dirty_tree_but_other_data(folder: Path) -> None:
    before = prepare_submission(folder)
    with (folder / "data" / "breast_cancer.csv").open("a") as rows:
        rows.write("\n")
    after = prepare_submission(folder)
    assert after.source == before.source
    assert after.mapping["data"] != before.mapping["data"]


def edit(folder: Path, change: Any) -> None:
    import yaml

    manifest = folder / "manifest.yaml"
    mapping = yaml.safe_load(manifest.read_text())
    change(mapping)
    manifest.write_text(yaml.safe_dump(mapping, sort_keys=False))
    commit(folder)


def test_a_missing_data_file_is_named_with_its_line(folder: Path) -> None:
    (folder / "data" / "breast_cancer.csv").unlink()
    with pytest.raises(InvalidInputError) as caught:
        prepare_submission(folder)
    problem = caught.value.problems[0]
    assert (problem.field, problem.rule) == ("data.source[0].uri", "present")
    assert problem.line == 1 + (folder / "manifest.yaml").read_text().splitlines().index("      uri: data/breast_cancer.csv")


def test_a_data_file_that_is_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    data = folder / "data" / "breast_cancer.csv"
    data.rename(tmp_path / "elsewhere.csv")
    data.symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(InvalidInputError, match="present"):
        prepare_submission(folder)


def test_a_script_that_is_not_committed_is_named(folder: Path) -> None:
    edit(folder, lambda m: m["training"].update(script="other.py"))
    (folder / ".gitignore").write_text("other.py\n")
    commit(folder)
    (folder / "other.py").write_text("print()")
    with pytest.raises(InvalidInputError) as caught:
        prepare_submission(folder)
    assert [(p.field, p.rule) for p in caught.value.problems] == [("training.script", "in_archive")]


def test_a_broken_manifest_is_refused_before_git_is_asked(tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text("model: {name: X!}\nunknown: 1\n")
    with pytest.raises(InvalidInputError) as caught:
        prepare_submission(tmp_path)
    assert {"unknown"} <= {p.field for p in caught.value.problems}


def test_a_manifest_over_256_kib_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text("# " + "x" * 300_000)
    with pytest.raises(InvalidInputError, match="max_bytes"):
        prepare_submission(tmp_path)


def test_a_revision_that_the_manifest_states_is_the_one_that_is_packed(folder: Path) -> None:
    first = git(folder, "rev-parse", "HEAD")
    (folder / "train.py").write_text((folder / "train.py").read_text() + "# later\n")
    commit(folder)
    edit(folder, lambda m: m.update(source={"revision": first}))
    prepared = prepare_submission(folder)
    assert prepared.mapping["source"]["revision"] == first


@pytest.mark.parametrize("names", [[], ["manifest.yaml", "manifest.json"]])
def test_a_folder_needs_exactly_one_manifest(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InvalidInputError, match="one_manifest"):
        find_manifest(tmp_path)


def test_an_upload_whose_answer_was_lost_counts_as_done(api: ApiDouble, client: RegistryClient, folder: Path) -> None:
    api.registration = [REGISTERED]
    api.stored[PREFIX + "source.tar.gz"] = prepare_submission(folder).source.archive
    assert submit(client, folder).version == 4


def test_a_store_that_does_not_take_the_upload_is_unavailable(api: ApiDouble, client: RegistryClient, folder: Path) -> None:
    api.refuse_uploads = 100
    with pytest.raises(UnavailableError, match="503"):
        submit(client, folder)
    assert api.stored == {}


def test_a_store_that_is_busy_for_a_moment_is_asked_again(api: ApiDouble, client: RegistryClient, folder: Path) -> None:
    api.registration, api.refuse_uploads = [REGISTERED], 2
    assert submit(client, folder).version == 4


def test_a_registration_that_does_not_come_names_the_submission(api: ApiDouble, client: RegistryClient, folder: Path) -> None:
    api.registration = [{"state": "PENDING", "errors": []}]
    with pytest.raises(UnavailableError, match=SUBMISSION):
        submit(client, folder, timeout_seconds=0.01)


def test_progress_of_uploads_is_told_up_to_each_files_size(api: ApiDouble, client: RegistryClient, folder: Path) -> None:
    api.registration = [REGISTERED]
    told: dict[str, tuple[int, int]] = {}
    submit(client, folder, advance=lambda name, done, total: told.update({name: (done, total)}))
    assert set(told) == {"source.tar.gz", "data/breast_cancer.csv", "manifest.json"}
    assert all(done == total > 0 for done, total in told.values())


def test_the_announced_digests_are_those_of_the_files(api: ApiDouble, client: RegistryClient, folder: Path) -> None:
    api.registration = [REGISTERED]
    submit(client, folder)
    announced = {f["name"]: (f["size"], f["sha256"]) for f in api.asked[0].body["files"]}
    stored = {k.removeprefix(PREFIX): (len(v), hashlib.sha256(v).hexdigest()) for k, v in api.stored.items()}
    assert announced == stored


def test_a_manifest_in_json_is_taken_too(folder: Path) -> None:
    import yaml

    mapping = yaml.safe_load((folder / "manifest.yaml").read_text())
    (folder / "manifest.yaml").unlink()
    (folder / "manifest.json").write_text(json.dumps(mapping))
    commit(folder)
    assert prepare_submission(folder).mapping["model"]["name"] == "tumour-diagnosis"
