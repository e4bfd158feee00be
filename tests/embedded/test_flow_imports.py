"""Imports on the embedded AWS: files that were made elsewhere, through the functions' own rights, to an approval and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestry.client.errors import ApiError
from attestry.client.imports import Imported, download_version, import_model
from tests.embedded.flows import Registry, at_once, until
from tests.imports import FILES, RUN

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

CLAIMS = {"source": "runs:/8f0f/model", "run": RUN}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as MLflow leaves it."""
    folder = tmp_path_factory.mktemp("made-elsewhere")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def imported(registry: Registry, folder: Path) -> Imported:
    """A version that was imported and waits for its approval."""
    done = import_model(registry.client("dana"), folder, "brought", CLAIMS)
    until(lambda: registry.head("brought", done.number).packet, "the approval was opened", 60)
    return done


def test_an_import_comes_to_its_approval_through_the_functions_own_rights(registry: Registry, imported: Imported) -> None:
    assert registry.kinds("brought", imported.number) == ["version.imported", "stage.succeeded", "stage.started"]
    head = registry.head("brought", imported.number)
    assert (head.submitter_person, head.version_digest) == ("dana", imported.version_digest)
    assert {key.partition("/frozen/")[2] for key in registry.keys(f"{head.folder}/frozen/")} == {
        "artifact-manifest.json",
        "import.json",
        *(f"model/{name}" for name in FILES),
    }


def test_the_same_import_again_is_the_same_version(registry: Registry, imported: Imported, folder: Path) -> None:
    assert import_model(registry.client("dana"), folder, "brought", CLAIMS).number == imported.number


def test_imports_at_once_get_numbers_of_their_own(registry: Registry, folder: Path) -> None:
    done = at_once(8, lambda n: import_model(registry.client("dana"), folder, "brought-at-once", {}, key=f"import {n}"))
    assert sorted(d.number for d in done) == list(range(1, 9))


def test_a_person_approves_it_and_everybody_has_the_files_back_byte_for_byte(
    registry: Registry, imported: Imported, tmp_path: Path
) -> None:
    registry.client("erin").decide("brought", imported.number, "approve", "compared with the incumbent")
    assert registry.head("brought", imported.number).standing == "APPROVED"
    download_version(registry.client("grace"), "brought", imported.number, tmp_path, version_digest=imported.version_digest)
    assert {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()} == FILES
    with pytest.raises(ApiError, match="no inference script"):
        registry.client("frank").deploy("brought", imported.number, "try")
