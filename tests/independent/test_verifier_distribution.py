"""The verifier as a distribution of its own: on a machine that has nothing else of ours it tells the verdicts that it tells here."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from attestry.evidence.bundle import read_bundle
from tests.evidence_world import EvidenceWorld, rewrite

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"attestry", "attestry/domain", "attestry/evidence", "attestry/verifier"}
DEPENDENCIES = {"cryptography", "joserfc", "rfc8785", "securesystemslib", "sshsig", "tuf"}


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program with nothing of this environment but the way to the package index."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert not check or done.returncode == 0, done.stderr + done.stdout
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *build, ROOT / "verifier", cwd=folder)
    return next(folder.glob("attestry_verifier-*.whl"))


@pytest.fixture(scope="module")
def machine(wheel, tmp_path_factory) -> Path:
    """A fresh virtual environment outside the checkout that has the wheel and what the wheel asks for; its `bin`."""
    folder = tmp_path_factory.mktemp("machine")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    binaries = folder / "venv" / "bin"
    run(
        sys.executable, "-m", "pip", "--python", binaries / "python", "--disable-pip-version-check", "install", "--quiet", wheel, cwd=folder
    )
    return binaries


@pytest.fixture(scope="module")
def evidence(tmp_path_factory) -> Path:
    """Bundle and pin, made by the registry's own code over ports in memory."""
    folder = tmp_path_factory.mktemp("evidence")
    world = EvidenceWorld()
    world.deploy()
    prediction = world.predict()
    world.seal()
    (folder / "bundle.zip").write_bytes(world.bundle(prediction))
    (folder / "root.json").write_bytes(world.pin)
    name = read_bundle(world.bundle(prediction)).names("attestations/")[0]
    (folder / "broken.zip").write_bytes(rewrite(world.bundle(prediction), {name: b"{}"}))
    return folder


def verify(machine: Path, evidence: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command without any environment."""
    command = ["env", "-i", str(machine / "attestry-verify"), *arguments]
    return run(*command, cwd=evidence, check=False)


def test_the_wheel_holds_what_verifying_needs_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    modules = {n for n in names if n.endswith(".py")}
    assert {str(Path(n).parent) for n in modules} == PARTS
    assert not {n for n in modules if "manifest_source" in n or "manifest_schema" in n or "archive" in n}
    asked = {line.split()[1].partition(">")[0].partition(";")[0] for line in metadata.splitlines() if line.startswith("Requires-Dist:")}
    assert asked == DEPENDENCIES


def test_nothing_of_aws_and_nothing_else_of_ours_is_there(machine, evidence):
    names = [
        "boto3",
        "botocore",
        "attestry.aws",
        "attestry.usecases",
        "attestry.cli",
        "attestry.client",
        "attestry.oms",
        "yaml",
        "jsonschema",
    ]
    program = f"import importlib.util as u; print([n for n in {names!r} if u.find_spec(n)])"
    assert run(machine / "python", "-I", "-c", program, cwd=evidence).stdout.strip() == "[]"


def test_it_tells_the_verdict_of_the_bundle(machine, evidence):
    done = verify(machine, evidence, "bundle.zip", "--root", "root.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("PROVEN")
    told = json.loads(verify(machine, evidence, "bundle.zip", "--root", "root.json", "--json").stdout)
    assert told["verdict"] == "PROVEN"
    assert {s["outcome"] for s in told["steps"]} == {"passed"}


def test_it_refuses_what_was_changed_and_says_what_is_missing(machine, evidence):
    done = verify(machine, evidence, "broken.zip", "--root", "root.json")
    assert (done.returncode, done.stdout.split()[0]) == (5, "BROKEN")
    done = verify(machine, evidence, "bundle.zip")
    assert (done.returncode, done.stdout.split()[0]) == (4, "INCOMPLETE")
    assert verify(machine, evidence).returncode == 2


def test_every_module_in_it_can_be_imported(machine, wheel, evidence):
    with zipfile.ZipFile(wheel) as archive:
        names = [n.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for n in archive.namelist() if n.endswith(".py")]
    program = f"import importlib; [importlib.import_module(n) for n in {sorted(names)!r} if not n.endswith('__main__')]"
    run(machine / "python", "-I", "-c", program, cwd=evidence)
