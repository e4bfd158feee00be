"""Loading a model: nothing is handed over that was not approved, or that is not byte for byte what its digest covers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

import attestry
from attestry.client.api import RegistryClient
from attestry.domain.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from attestry.sdk.models import LoadedModel
from tests.evidence_world import EvidenceWorld
from tests.unit.client_double import ApiDouble

MODEL = "tumour-diagnosis"
VERSION = f"GET /v1/models/{MODEL}/versions/1"


@pytest.fixture(scope="module")
def world() -> EvidenceWorld:
    world = EvidenceWorld()
    world.deploy()
    world.seal()
    return world


class Registry:
    """The API with one deployed version, as the world made it."""

    def __init__(self, world: EvidenceWorld, folder: Path) -> None:
        self.api = ApiDouble()
        self.folder, self.head, self.bundle = folder, world.head, world.version_bundle()
        self.files = []
        assert world.head.artifact is not None
        for ref in (world.head.artifact, *world.head.frozen):
            content = world.store.read(ref.key, ref.version_id, max_bytes=1 << 24)
            self.files.append(self.api.serve_file(ref.path, content))
        self.tell_files(self.files)
        self.api.answer(VERSION, {"approved": True, "standing": "DEPLOYED", "version_digest": world.head.version_digest})
        self.api.answer(f"GET /v1/models/{MODEL}", {"deployed": [{"environment": "production", "number": 1}]})
        self.api.answer(f"GET /v1/models/{MODEL}/aliases/champion", {"model": MODEL, "alias": "champion", "number": 1, "rev": 1})
        self.give_bundle(self.bundle)
        session = boto3.Session("AKIDEXAMPLE", "secret", region_name="eu-central-1")
        self.client = RegistryClient(session, self.api.url, patience_seconds=0.01)
        self.pin = folder / "root.json"
        self.pin.write_bytes(world.pin)

    def tell_files(self, files: list[dict[str, Any]], digest: str = "") -> None:
        listed = {"model": MODEL, "version": 1, "version_digest": digest or self.head.version_digest, "files": files}
        self.api.answers.pop(f"{VERSION}/files", None)
        self.api.answer(f"{VERSION}/files", listed)

    def give_bundle(self, data: bytes) -> None:
        entry = self.api.serve_file("bundle.zip", data)
        self.api.answers.pop(f"{VERSION}/bundle", None)
        self.api.answer(f"{VERSION}/bundle", entry)

    def tell_version(self, **changes: Any) -> None:
        told = copy.deepcopy(self.api.answers.pop(VERSION)[0].body)
        self.api.answer(VERSION, {**told, **changes})

    def load(self, reference: str = f"{MODEL}@1", **changes: Any) -> LoadedModel:
        return attestry.load_model(reference, **{"client": self.client, "folder": self.folder / "models", **changes})


@pytest.fixture
def registry(world: EvidenceWorld, tmp_path: Path) -> Iterator[Registry]:
    made = Registry(world, tmp_path)
    yield made
    made.api.close()


@pytest.mark.parametrize("reference", [MODEL, f"{MODEL}@1", f"{MODEL}@champion"])
def test_a_model_is_named_by_number_alias_or_as_the_deployed_one(registry: Registry, reference: str) -> None:
    model = registry.load(reference)
    assert (model.reference, model.version_digest, model.checked) == (f"{MODEL}@1", registry.head.version_digest, "REGISTRY")
    assert sorted(f"model/{p.name}" for p in model.path.iterdir()) == sorted(
        f["path"] for f in registry.files if f["path"].startswith("model/")
    )


def test_with_a_pinned_root_the_version_is_proven_on_this_machine(registry: Registry) -> None:
    registry.tell_version(version_digest="0" * 64, approved=False)  # the registry's word counts for nothing then
    model = registry.load(root=registry.pin, require="PROVEN")
    assert (model.checked, model.standing, model.version_digest) == ("PROVEN", "DEPLOYED", registry.head.version_digest)


def test_the_pinned_root_is_taken_from_the_environment(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTESTRY_ROOT", str(registry.pin))
    assert registry.load().checked == "PROVEN"


def test_a_bundle_that_somebody_changed_proves_nothing_and_nothing_is_fetched(registry: Registry) -> None:
    middle = len(registry.bundle) // 2
    registry.give_bundle(registry.bundle[:middle] + bytes([registry.bundle[middle] ^ 1]) + registry.bundle[middle + 1 :])
    with pytest.raises(IntegrityError, match="BROKEN"):
        registry.load(root=registry.pin)
    assert not (registry.folder / "models").exists()


def test_evidence_of_another_version_is_refused(registry: Registry) -> None:
    answers = registry.api.answers
    answers[f"GET /v1/models/{MODEL}/versions/2/bundle"] = answers[f"{VERSION}/bundle"]
    with pytest.raises(IntegrityError, match="evidence of tumour-diagnosis@1, not of tumour-diagnosis@2"):
        registry.load(f"{MODEL}@2", root=registry.pin)


def test_a_file_that_is_not_as_recorded_is_not_handed_over(registry: Registry) -> None:
    entry = next(f for f in registry.files if f["path"].startswith("model/"))
    registry.api.serve_file(entry["path"], b"other weights")
    with pytest.raises(IntegrityError):
        registry.load()
    assert not (registry.folder / "models" / registry.head.version_digest / entry["path"]).exists()


def test_another_artifact_manifest_than_the_version_digest_names_is_refused(registry: Registry) -> None:
    manifest = registry.api.serve_file("artifact-manifest.json", b"{}")
    registry.tell_files([manifest, *registry.files[1:]], digest=manifest["sha256"])
    with pytest.raises(IntegrityError):
        registry.load()


def test_a_file_that_was_changed_here_since_the_last_load_is_fetched_again(registry: Registry) -> None:
    model = registry.load()
    changed = next(p for p in model.path.iterdir() if p.is_file())
    right = changed.read_bytes()
    changed.write_bytes(b"x" * len(right))
    registry.load()
    assert changed.read_bytes() == right


def test_what_is_not_approved_is_not_handed_over(registry: Registry) -> None:
    registry.tell_version(approved=False, standing="CANDIDATE")
    with pytest.raises(ConflictError, match="not approved"):
        registry.load()


@pytest.mark.parametrize("standing", ["RETIRED", "REJECTED", "CANDIDATE"])
def test_what_is_out_of_use_is_not_handed_over(registry: Registry, standing: str) -> None:
    registry.tell_version(standing=standing)
    with pytest.raises(ConflictError, match=f"stands {standing}"):
        registry.load()


def test_a_version_that_was_killed_is_not_handed_over_whatever_the_registry_says_now(tmp_path: Path) -> None:
    world = EvidenceWorld()
    world.deploy()
    before = Registry(world, tmp_path)
    world.kill()
    world.seal()
    before.give_bundle(world.version_bundle())
    with pytest.raises(ConflictError, match="stands RETIRED"):
        before.load(root=before.pin)
    before.api.close()


def test_a_proof_takes_a_root(registry: Registry) -> None:
    with pytest.raises(InvalidInputError) as refused:
        registry.load(require="PROVEN")
    assert refused.value.problems[0].field == "root"
    assert registry.api.asked == []


@pytest.mark.parametrize("reference", ["", "@1", "a@b@c", "a/b@1", f"{MODEL}@", "x y"])
def test_a_reference_that_cannot_be_read_is_refused(registry: Registry, reference: str) -> None:
    with pytest.raises(InvalidInputError, match="MODEL@ALIAS"):
        registry.load(reference)


def test_no_deployed_version_is_told(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="no version of tumour-diagnosis is deployed in staging"):
        registry.load(MODEL, environment="staging")
