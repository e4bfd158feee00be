"""The functions' archives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infra import bundling
from infra.bundling import (
    ARCHIVES,
    REGISTRY,
    SIGNING,
    Archive,
    compile_sources,
    fill,
    install,
    registry_archive,
    remove_other_bundles,
    sandbox_archive,
    signing_archive,
)
from infra.config import Bundling, Config
from infra.specs import specs

ROOT = Path(__file__).resolve().parents[2]


def test_the_sandbox_archive_knows_nothing_of_the_registry() -> None:
    allowed = {"attestry/__init__.py", "lambdas/__init__.py", "lambdas/inference.py", "lambdas/sandbox.py"}
    names = {path.as_posix() for path in sandbox_archive().files}
    assert {name for name in names if not name.startswith("attestry/sandbox/")} <= allowed
    assert sandbox_archive().lock is None


def test_the_registry_archive_leaves_out_what_no_function_needs() -> None:
    names = {path.as_posix() for path in registry_archive().files}
    assert not any(name.startswith(("attestry/cli/", "attestry/client/", "attestry/local/", "infra/", "tests/")) for name in names)
    assert "attestry/ports.py" in names
    assert not any("__pycache__" in name for name in names)


@pytest.mark.parametrize("name", sorted(specs(Config())))
def test_every_function_has_its_module(name: str) -> None:
    assert Path(f"lambdas/{name}.py") in ARCHIVES[specs(Config())[name].archive]().files


def test_the_signing_archive_holds_what_its_function_imports_and_nothing_more() -> None:
    names = {path.as_posix() for path in signing_archive().files}
    assert {"lambdas/sign_artifact.py", "lambdas/__init__.py", "attestry/__init__.py", "attestry/oms/bundle.py"} <= names
    assert {name for name in names if name.startswith("lambdas/")} == {"lambdas/sign_artifact.py", "lambdas/__init__.py"}
    assert not any(name.startswith(("attestry/cli/", "attestry/client/", "attestry/local/")) for name in names)
    assert not {"attestry/usecases/deploy.py", "attestry/usecases/predict.py", "attestry/aws/meta_store.py"} & names


def test_the_library_that_signs_artifacts_is_in_no_other_archive() -> None:
    locks = {name: (ROOT / lock).read_text() for name, archive in ARCHIVES.items() if (lock := archive().lock)}
    assert [name for name, text in locks.items() if "\nmodel-signing==" in text] == [SIGNING]
    assert not any(path.as_posix().startswith("attestry/oms/") for path in registry_archive().files)


def test_bytecode_is_bound_to_no_time_and_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("ANSWER = 42\n")
    (tmp_path / "template.py").write_text("{% not python %}\n")
    assert compile_sources(tmp_path, version=f"{sys.version_info.major}.{sys.version_info.minor}")
    (compiled,) = (tmp_path / "__pycache__").iterdir()
    content = compiled.read_bytes()
    # PEP 552: bit 0 says that the source's hash follows and not its time, bit 1 that it is checked.
    assert int.from_bytes(content[4:8], "little") == 0b01
    assert str(tmp_path).encode() not in content


def test_without_a_python_of_the_functions_version_there_is_no_bytecode(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "module.py").write_text("ANSWER = 42\n")
    assert not compile_sources(tmp_path, version="2.7")
    assert [path.name for path in tmp_path.iterdir()] == ["module.py"]
    assert "no Python 2.7" in capfd.readouterr().err


def test_the_digest_changes_with_a_source_and_with_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundling, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "lock").write_text("x==1")
    archive = Archive("registry", (Path("a.py"),), Path("lock"))
    first = archive.digest()
    assert archive.digest() == first
    (tmp_path / "a.py").write_text("2")
    second = archive.digest()
    (tmp_path / "lock").write_text("x==2")
    assert len({first, second, archive.digest()}) == 3


def test_an_archive_made_in_another_way_is_not_taken_from_the_output_folder(tmp_path: Path) -> None:
    for name, marker in (("asset.1", "source"), ("asset.2", "dependencies"), ("asset.3", None)):
        (tmp_path / name).mkdir()
        if marker:
            (tmp_path / name / bundling.MARKER).write_text(marker)
    remove_other_bundles(tmp_path, Bundling.DEPENDENCIES)
    assert [path.name for path in tmp_path.iterdir()] == ["asset.2"]


def test_sources_alone_need_no_package_index(tmp_path: Path) -> None:
    fill(registry_archive(), tmp_path, Bundling.SOURCE)
    assert (tmp_path / "attestry" / "ports.py").is_file()
    assert not (tmp_path / "boto3").exists()


@pytest.mark.parametrize("lock", [bundling.LOCK, bundling.SIGNING_LOCK])
def test_every_locked_package_is_pinned_by_hash(lock: Path) -> None:
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line and not line.startswith((" ", "#"))]
    assert all("==" in line and line.endswith("\\") for line in lines)
    assert {"boto3==1.43.106 \\", "botocore==1.43.106 \\"} <= set(lines)
    assert "index-url" not in (ROOT / lock).read_text()


@pytest.mark.long
@pytest.mark.parametrize("name", [REGISTRY, SIGNING])
def test_the_lock_installs_for_the_functions_platform_within_lambdas_limit(tmp_path: Path, name: str) -> None:
    fill(ARCHIVES[name](), tmp_path, Bundling.DEPENDENCIES)
    libraries = [path.name for path in tmp_path.rglob("*.so")]
    assert libraries
    assert all("x86_64" not in name for name in libraries)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 250 * 1024**2


@pytest.mark.long
@pytest.mark.parametrize("archive", [REGISTRY, SIGNING])
def test_every_handler_imports_with_the_archive_alone(tmp_path: Path, archive: str) -> None:
    """The embedded AWS runs functions on the server's interpreter and packages, which hides a missing dependency."""
    import platform

    machine = f"manylinux2014_{platform.machine()}"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    made = ARCHIVES[archive]()
    assert made.lock
    install(ROOT / made.lock, tmp_path, platform=machine, python=python)
    fill(made, tmp_path, Bundling.SOURCE)
    names = [name for name, spec in specs(Config()).items() if spec.archive == archive]
    code = f"import importlib\nfor name in {names!r}: importlib.import_module(f'lambdas.{{name}}').handler"
    environment = {"PYTHONPATH": str(tmp_path), "AWS_DEFAULT_REGION": "eu-west-1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
