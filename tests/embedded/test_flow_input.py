"""Bad uploads, and many uploads at once, on the embedded AWS: what is refused changes nothing, and what is the same is one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from attestry.client.submit import PreparedSubmission
from attestry.domain.names import name_execution
from attestry.usecases.records import model_key
from tests.embedded.flow_versions import no_pipeline
from tests.embedded.flows import Registry, at_once, until

pytest_plugins = ("tests.embedded.flows", "tests.embedded.flow_versions")
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

UPLOADERS = 16
DELIVERIES = 10


@dataclass(frozen=True)
class Refused:
    """A submission that was put below the caller's prefix by hand, and its status object."""

    model: str
    status: Mapping[str, Any]

    @property
    def problems(self) -> dict[str, str]:
        """Field and rule of every error; one about the object as a whole names its key, which is left out."""
        return {"" if error["field"].startswith("candidates/") else error["field"]: error["rule"] for error in self.status["errors"]}


@dataclass(frozen=True)
class Delivered:
    """A submission whose event was delivered many times at once.

    Attributes:
        model: its model.
        answers: what the register function said each time.
    """

    model: str
    answers: list[Mapping[str, Any]]


def large(manifest: dict[str, Any], _: PreparedSubmission) -> dict[str, bytes]:
    """A manifest one byte larger than is allowed."""
    return {"manifest.json": json.dumps(manifest).encode().ljust(256 * 1024 + 1)}


def anchored(manifest: dict[str, Any], _: PreparedSubmission) -> dict[str, bytes]:
    """A manifest with a YAML anchor and an alias of it."""
    return {"manifest.yaml": json.dumps(manifest).encode()[:-1] + b', "labels": [&a x, *a]}'}


def unknown(manifest: dict[str, Any], _: PreparedSubmission) -> dict[str, bytes]:
    """A manifest with two fields that there are not."""
    manifest["training"]["colour"] = "blue"
    manifest["deployment"]["colour"] = "blue"
    return {"manifest.json": json.dumps(manifest).encode()}


def without_revision(manifest: dict[str, Any], _: PreparedSubmission) -> dict[str, bytes]:
    """A manifest that names no revision."""
    del manifest["source"]["revision"]
    return {"manifest.json": json.dumps(manifest).encode()}


def leaving(manifest: dict[str, Any], prepared: PreparedSubmission) -> dict[str, bytes]:
    """A source archive with a path that leaves it, and a manifest with the right digest."""
    source = next(f.content for f in prepared.files if f.name == "source.tar.gz")
    assert isinstance(source, bytes)
    archive = add_file(source, "../../outside.py")
    manifest["source"]["sha256"] = hashlib.sha256(archive).hexdigest()
    return {"source.tar.gz": archive, "manifest.json": json.dumps(manifest).encode()}


def other_archive(manifest: dict[str, Any], prepared: PreparedSubmission) -> dict[str, bytes]:
    """A source archive that is not the one of the manifest."""
    source = next(f.content for f in prepared.files if f.name == "source.tar.gz")
    assert isinstance(source, bytes)
    return {"source.tar.gz": add_file(source, "extra.py"), "manifest.json": json.dumps(manifest).encode()}


def elsewhere(manifest: dict[str, Any], _: PreparedSubmission) -> dict[str, bytes]:
    """A model name that would leave its prefix."""
    manifest["model"]["name"] += "/../other"
    return {"manifest.json": json.dumps(manifest).encode()}


def add_file(archive: bytes, name: str) -> bytes:
    """The archive with one file more."""
    raw = io.BytesIO(gzip.decompress(archive))
    with tarfile.open(fileobj=raw, mode="a") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return gzip.compress(raw.getvalue(), mtime=0)


Change = Callable[[dict[str, Any], PreparedSubmission], dict[str, bytes]]
BAD: dict[Change, dict[str, str]] = {
    large: {"": "max_bytes"},
    anchored: {"labels[0]": "no_anchors", "labels[1]": "no_aliases", "labels": "unknown_field"},
    unknown: {"training.colour": "unknown_field", "deployment.colour": "unknown_field"},
    without_revision: {"source.revision": "required"},
    leaving: {"source.archive": "path_no_parent"},
    other_archive: {"source.sha256": "digest"},
    elsewhere: {"model.name": "pattern"},
}


@pytest.fixture(scope="module")
def refused(registry: Registry, prepared: PreparedSubmission) -> dict[Change, Refused]:
    """Every bad submission with its status object."""
    keys = {}
    for change in BAD:
        model = f"bad-{uuid.uuid4().hex[:12]}"
        files = {f.name: f.content if isinstance(f.content, bytes) else f.content.read_bytes() for f in prepared.files[:-1]}
        files |= change(renamed(prepared, model), prepared)
        keys[change] = (model, registry.upload_by_hand(files, submission=uuid.uuid4().hex))
    return {change: Refused(model, registry.outcome(key)) for change, (model, key) in keys.items()}


@pytest.fixture(scope="module")
def delivered(registry: Registry, prepared: PreparedSubmission) -> Delivered:
    """A submission whose event comes once from S3 and ten times at once from elsewhere."""
    model = f"often-{uuid.uuid4().hex[:12]}"
    upload = registry.upload(prepared, json.dumps(renamed(prepared, model)).encode())
    event = {"detail": {"object": {"key": upload.manifest_key}}}
    with no_pipeline(registry, model):
        upload.finish()
        answers = at_once(DELIVERIES, lambda _: registry.invoke("register", event))
    return Delivered(model, answers)


@pytest.fixture(scope="module")
def crowd(registry: Registry, prepared: PreparedSubmission) -> str:
    """A model of which sixteen different manifests were uploaded at once."""
    model = f"crowd-{uuid.uuid4().hex[:12]}"

    def manifest(index: int) -> bytes:
        mapping = renamed(prepared, model)
        mapping["training"]["hyperparameters"]["threshold"] = 10.0 + index
        return json.dumps(mapping).encode()

    uploads = [registry.upload(prepared, manifest(index)) for index in range(UPLOADERS)]
    client = registry.client("dana")
    with no_pipeline(registry, model):
        at_once(UPLOADERS, lambda index: uploads[index].finish())
        until(lambda: all(client.submission(u.submission)["state"] == "REGISTERED" for u in uploads), "all were registered")
    return model


@pytest.mark.parametrize("change", BAD, ids=lambda change: change.__name__)
def test_the_status_object_beside_a_bad_manifest_has_every_error(refused: dict[Change, Refused], change: Change) -> None:
    assert (refused[change].status["state"], refused[change].problems) == ("REFUSED", BAD[change])


@pytest.mark.parametrize("change", BAD, ids=lambda change: change.__name__)
def test_a_bad_manifest_leaves_nothing_in_the_table(registry: Registry, refused: dict[Change, Refused], change: Change) -> None:
    assert [key for key in mentions(registry) if refused[change].model in key] == []


@pytest.mark.parametrize("change", BAD, ids=lambda change: change.__name__)
def test_a_bad_manifest_starts_no_execution(registry: Registry, refused: dict[Change, Refused], change: Change) -> None:
    assert [name for name in executions(registry) if name.startswith(refused[change].model)] == []


def test_an_event_that_comes_ten_times_at_once_is_answered_alike(delivered: Delivered) -> None:
    assert {(a["state"], a["model"], a["version"]) for a in delivered.answers} == {("REGISTERED", delivered.model, 1)}


def test_an_event_that_comes_ten_times_at_once_makes_one_candidate(registry: Registry, delivered: Delivered) -> None:
    assert [v["number"] for v in registry.client("grace").versions(delivered.model)] == [1]
    assert registry.kinds(delivered.model, 1).count("candidate.registered") == 1


def test_an_event_that_comes_ten_times_at_once_starts_one_execution(registry: Registry, delivered: Delivered) -> None:
    candidate = registry.head(delivered.model, 1).candidate
    assert [n for n in executions(registry) if n.startswith(delivered.model)] == [name_execution(delivered.model, 1, 1, candidate)]


def test_sixteen_manifests_at_once_get_numbers_without_a_gap(registry: Registry, crowd: str) -> None:
    assert [v["number"] for v in registry.client("grace").versions(crowd)] == list(range(1, UPLOADERS + 1))


def test_sixteen_manifests_at_once_are_sixteen_candidates_in_folders_of_their_own(registry: Registry, crowd: str) -> None:
    heads = [registry.head(crowd, number) for number in range(1, UPLOADERS + 1)]
    assert len({head.candidate for head in heads}) == len({head.folder for head in heads}) == UPLOADERS


def test_sixteen_manifests_at_once_start_sixteen_executions(registry: Registry, crowd: str) -> None:
    assert len([name for name in executions(registry) if name.startswith(crowd)]) == UPLOADERS


def test_the_next_number_is_one_beyond_those_that_were_given(registry: Registry, crowd: str) -> None:
    head = registry.meta.get(model_key(crowd))
    assert head is not None
    assert int(head["next"]) == UPLOADERS + 1


def test_who_uploaded_through_the_api_is_the_submitter(registry: Registry, crowd: str) -> None:
    assert {v["submitter_person"] for v in registry.client("grace").versions(crowd)} == {"dana"}


def renamed(prepared: PreparedSubmission, model: str) -> dict[str, Any]:
    """The submission's manifest for another model."""
    mapping: dict[str, Any] = json.loads(json.dumps(prepared.mapping))
    mapping["model"]["name"] = model
    return mapping


def executions(registry: Registry) -> list[str]:
    """Names of all executions of the pipeline."""
    machine = registry.stack.outputs["PipelineArn"]
    pages = registry.aws("stepfunctions").get_paginator("list_executions").paginate(stateMachineArn=machine)
    return [execution["name"] for page in pages for execution in page["executions"]]


def mentions(registry: Registry) -> list[str]:
    """All rows of the table as text."""
    pages = registry.aws("dynamodb").get_paginator("scan").paginate(TableName=registry.stack.outputs["MetaTable"])
    return [repr(item) for page in pages for item in page["Items"]]
