"""Importing and downloading from the command line: a local server that speaks the API's contract, and files as they are on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from attestry.client.api import RegistryClient
from attestry.client.imports import download_version, find_files, import_model
from attestry.domain.errors import IntegrityError, InvalidInputError, UnavailableError
from attestry.evidence.artifact_manifest import ArtifactManifest, FrozenFile
from tests.imports import FILES
from tests.unit.client_double import SUBMISSION, ApiDouble, Told

PREFIX = f"candidates/AIDAEXAMPLE/{SUBMISSION}/"
MADE = {"model": "churn", "version": 3, "candidate": "c" * 64, "stage": "IMPORTED", "status": "RUNNING", "standing": "CANDIDATE"}
FROZEN = {"stage": "APPROVAL", "status": "RUNNING", "standing": "CANDIDATE", "version_digest": "d" * 64, "error": ""}


@pytest.fixture
def api() -> Iterator[ApiDouble]:
    double = ApiDouble()
    double.answer("POST /v1/models/churn/versions", MADE, 202)
    double.answer("GET /v1/models/churn/versions/3", {"stage": "IMPORTED", "status": "RUNNING", "standing": "CANDIDATE"})
    double.answer("GET /v1/models/churn/versions/3", FROZEN)
    yield double
    double.close()


@pytest.fixture
def client(api: ApiDouble) -> RegistryClient:
    session = boto3.Session(aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="x", region_name="eu-central-1")
    return RegistryClient(session, api.url, patience_seconds=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for name, content in {**FILES, "deep/er/weights.bin": b"w", "empty": b""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def announced(api: ApiDouble) -> list[dict[str, Any]]:
    return [asked.body for asked in api.asked if asked.path == "/v1/imports"]


def test_a_folder_is_uploaded_file_by_file_and_waited_for(api, client, folder):
    done = import_model(client, folder, "churn", {"source": "runs:/8f0f"})
    assert (done.number, done.files, done.stage, done.version_digest) == (3, len(FILES) + 2, "APPROVAL", "d" * 64)
    assert api.stored[f"{PREFIX}deep/er/weights.bin"] == b"w"
    (made,) = [asked.body for asked in api.asked if asked.path == "/v1/models/churn/versions"]
    assert made == {"source": "runs:/8f0f", "submission": SUBMISSION}


def test_a_single_file_is_an_import_of_its_name(api, client, folder):
    import_model(client, folder / "model.pkl", "churn", {})
    assert [f["name"] for f in announced(api)[0]["files"]] == ["model.pkl"]


def test_the_same_import_again_goes_on_in_the_same_submission_and_another_one_does_not(api, client, folder):
    for claims in ({}, {}, {"source": "elsewhere"}):
        import_model(client, folder, "churn", claims)
    import_model(client, folder, "churn", {}, key="once more")
    first, second, third, fourth = (body["key"] for body in announced(api))
    assert first == second
    assert len({first, third, fourth}) == 3


def test_an_import_whose_freezing_does_not_end_says_that_it_goes_on(api, client, folder):
    api.answers["GET /v1/models/churn/versions/3"] = [Told({"stage": "IMPORTED", "status": "RUNNING", "standing": "CANDIDATE"})]
    with pytest.raises(UnavailableError, match="churn@3"):
        import_model(client, folder, "churn", {}, timeout_seconds=0.1)


@pytest.mark.parametrize("target", ["/etc/passwd", "model.pkl", "."])
def test_a_link_is_never_followed(folder, target):
    (folder / "innocent.bin").symlink_to(target)
    with pytest.raises(InvalidInputError, match="link"):
        find_files(folder)
    with pytest.raises(InvalidInputError):
        find_files(folder / "innocent.bin")


def test_what_is_no_file_is_refused_without_being_read(folder):
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidInputError, match="no plain file"):
        find_files(folder)


def test_an_empty_folder_and_names_that_fall_together_are_refused(tmp_path):
    with pytest.raises(InvalidInputError):
        find_files(tmp_path)
    for name in ("Model.bin", "model.bin"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InvalidInputError, match="fall together"):
        find_files(tmp_path)


def serve(api: ApiDouble, files: dict[str, bytes], *, model: str = "churn", number: int = 3, **changed: bytes) -> ArtifactManifest:
    """Let the server offer a version's files; `changed` gives other bytes to files by their stem."""
    listed = tuple(FrozenFile(f"model/{n}", len(b), hashlib.sha256(b).hexdigest()) for n, b in files.items())
    artifact = ArtifactManifest(model, number, f"{model}-{number}-1-x", "ab" * 32, (), "", "", None, listed)
    offered = {"artifact-manifest.json": artifact.to_bytes(), **{f"model/{n}": b for n, b in files.items()}}
    entries = []
    for path, content in offered.items():
        given = changed.get(Path(path).stem.replace("-", "_"), content)
        entries.append(api.serve_file(path, given, announced=content))
    api.answer("GET /v1/models/churn/versions/3/files", {"version_digest": artifact.version_digest, "files": entries})
    return artifact


def test_a_download_is_checked_down_to_the_version_digest(api, client, tmp_path):
    artifact = serve(api, FILES)
    fetched = download_version(client, "churn", 3, tmp_path, version_digest=artifact.version_digest)
    assert {d.path.relative_to(tmp_path).as_posix() for d in fetched} == {"artifact-manifest.json", *(f"model/{n}" for n in FILES)}
    assert (tmp_path / "model" / "MLmodel").read_bytes() == FILES["MLmodel"]


def test_a_download_of_other_bytes_leaves_no_file_of_that_name(api, client, tmp_path):
    serve(api, {"weights.bin": b"right"}, weights=b"wrong")
    with pytest.raises(IntegrityError):
        download_version(client, "churn", 3, tmp_path)
    assert not (tmp_path / "model" / "weights.bin").exists()


def test_a_registry_that_offers_another_version_digest_than_the_one_that_is_known_is_not_believed(api, client, tmp_path):
    serve(api, {"weights.bin": b"right"})
    with pytest.raises(IntegrityError, match="version digest"):
        download_version(client, "churn", 3, tmp_path, version_digest="cd" * 32)


def test_a_registry_that_offers_the_files_of_another_version_is_not_believed(api, client, tmp_path):
    serve(api, {"weights.bin": b"right"}, number=2)
    with pytest.raises(IntegrityError, match="churn@2"):
        download_version(client, "churn", 3, tmp_path)


def test_a_registry_that_adds_or_leaves_out_a_file_is_not_believed(api, client, tmp_path):
    serve(api, {"weights.bin": b"right", "more.bin": b"more"})
    told = api.answers["GET /v1/models/churn/versions/3/files"][-1].body
    api.answers["GET /v1/models/churn/versions/3/files"] = [Told({**told, "files": told["files"][:-1]})]
    with pytest.raises(IntegrityError, match="other files"):
        download_version(client, "churn", 3, tmp_path)
    assert not (tmp_path / "model").exists()


def test_the_command_line_imports_and_tells_what_is_claimed(api, client, folder, monkeypatch, tmp_path):
    from typer.testing import CliRunner

    from attestry.cli.main import make_app

    monkeypatch.setenv("ATTESTRY_API_URL", api.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    run = tmp_path / "run.json"
    run.write_text(json.dumps({"id": "8f0f", "metrics": {"auc": 0.91}}))
    done = CliRunner().invoke(make_app(), ["import", str(folder), "--model", "churn", "--run", str(run), "--description", "the first"])
    assert done.exit_code == 0, done.output
    assert "churn@3 imported" in done.output
    (made,) = [asked.body for asked in api.asked if asked.path == "/v1/models/churn/versions"]
    assert made["run"] == {"id": "8f0f", "metrics": {"auc": 0.91}}
    serve(api, FILES)
    fetched = CliRunner().invoke(make_app(), ["download", "churn@3", str(tmp_path / "out"), "--json"])
    assert fetched.exit_code == 0, fetched.output
    assert (tmp_path / "out" / "model" / "model.pkl").read_bytes() == FILES["model.pkl"]
    run.write_text("no json")
    assert CliRunner().invoke(make_app(), ["import", str(folder), "--model", "churn", "--run", str(run)]).exit_code == 2
