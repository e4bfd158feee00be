"""The functions' archives, made on this machine without docker.

Three archives: `registry`, the package with its dependencies for the functions that hold permissions; `sandbox`, the few stdlib-only
modules for the two functions that run registered code and hold none; and `signing`, what the function that signs artifacts imports, with
the one library that none of the others needs. The hash that names an archive is taken over the sources and the lock file, not over what
pip and the compiler wrote, so that the template does not depend on the machine or on whether dependencies were installed.

Lambda cannot write bytecode beside the sources, so without it every cold start compiles everything anew. Where a Python of the functions'
version is on the path it is compiled here, by the hash of each source and not by its time, which the archive does not keep.
"""

from __future__ import annotations

import ast
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsii
from aws_cdk import AssetHashType, BundlingOptions, DockerImage, ILocalBundling
from aws_cdk import aws_lambda as lambda_

from infra.config import Bundling

ROOT = Path(__file__).resolve().parent.parent
LOCK = Path("lambdas/requirements.lock")
SIGNING_LOCK = Path("lambdas/sign_artifact.requirements.lock")
PLATFORM = "manylinux2014_aarch64"
PYTHON = "3.13"
MARKER = ".bundling"
"""File inside an archive that says how it was made; two ways share one hash, so an output folder could hold the wrong one."""

REGISTRY = "registry"
SANDBOX = "sandbox"
SIGNING = "signing"

_SIGNING_ENTRY = Path("lambdas/sign_artifact.py")
_FOR_PEOPLE = ("attestry/cli/", "attestry/client/", "attestry/local/", "attestry/sdk/")
_REGISTRY_EXCLUDED = (*_FOR_PEOPLE, "attestry/oms/", _SIGNING_ENTRY.as_posix())
_SOURCE_SUFFIXES = frozenset({".cedar", ".cedarschema", ".json", ".lock", ".py", ".typed"})


@dataclass(frozen=True)
class Archive:
    """What goes into an archive.

    Attributes:
        name: `registry`, `sandbox` or `signing`.
        files: paths below the repository's root, sorted.
        lock: the lock file whose packages are installed beside them, or None.
    """

    name: str
    files: tuple[Path, ...]
    lock: Path | None

    def digest(self) -> str:
        """Return the SHA-256 that names the archive: over names and bytes of the sources and the lock file."""
        digest = hashlib.sha256(f"{self.name} {PLATFORM} {PYTHON}\n".encode())
        for path in (*self.files, *((self.lock,) if self.lock else ())):
            content = (ROOT / path).read_bytes()
            digest.update(f"{path.as_posix()} {len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()


def registry_archive() -> Archive:
    """Return the archive of the functions that hold permissions."""
    files = [path for path in (*_sources("attestry"), *_sources("lambdas")) if not path.as_posix().startswith(_REGISTRY_EXCLUDED)]
    return Archive(REGISTRY, tuple(files), LOCK)


def sandbox_archive() -> Archive:
    """Return the archive of the functions that run registered code: nothing in it knows the registry."""
    handlers = [Path("lambdas") / name for name in ("__init__.py", "inference.py", "sandbox.py")]
    files = [Path("attestry/__init__.py"), *_sources("attestry/sandbox"), *(path for path in handlers if (ROOT / path).exists())]
    return Archive(SANDBOX, tuple(sorted(files)), None)


def signing_archive() -> Archive:
    """Return the archive of the function that signs artifacts: what its module imports, and no other module of ours."""
    found: set[Path] = set()
    left = [_SIGNING_ENTRY]
    while left:
        path = left.pop()
        if path not in found and not path.as_posix().startswith(_FOR_PEOPLE):
            found.add(path)
            left += _imports(path)
    return Archive(SIGNING, tuple(sorted(found)), SIGNING_LOCK)


ARCHIVES: Mapping[str, Callable[[], Archive]] = {REGISTRY: registry_archive, SANDBOX: sandbox_archive, SIGNING: signing_archive}


def _imports(path: Path) -> Iterator[Path]:
    """Yield the modules of ours that a module imports, and the packages that hold it and them."""
    yield from (parent / "__init__.py" for parent in path.parents if (ROOT / parent / "__init__.py").is_file())
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            # What is imported from a package may be a module of it.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            base = Path(*name.split("."))
            yield from (file for file in (base.with_suffix(".py"), base / "__init__.py") if (ROOT / file).is_file())


def code_of(archive: Archive, bundling: Bundling) -> lambda_.Code:
    """Return the CDK asset of an archive."""
    return lambda_.Code.from_asset(
        str(ROOT / "lambdas"),
        asset_hash_type=AssetHashType.CUSTOM,
        asset_hash=archive.digest(),
        bundling=BundlingOptions(image=DockerImage.from_registry("not-used"), local=LocalBundling(archive, bundling)),
    )


def remove_other_bundles(outdir: Path, bundling: Bundling) -> None:
    """Remove archives from an output folder that were made in another way, because their hashes would match."""
    for asset in outdir.glob("asset.*"):
        marker = asset / MARKER
        if asset.is_dir() and (not marker.exists() or marker.read_text() != bundling):
            shutil.rmtree(asset)


@jsii.implements(ILocalBundling)
class LocalBundling:
    """Fills an asset's folder on this machine."""

    def __init__(self, archive: Archive, bundling: Bundling) -> None:
        self._archive = archive
        self._bundling = bundling

    def try_bundle(self, output_dir: str, *_options: Any, **_more: Any) -> bool:
        """Copy the sources and install the locked packages.

        Raises:
            subprocess.CalledProcessError: pip failed; synthesis stops, and does not fall back to docker.
        """
        fill(self._archive, Path(output_dir), self._bundling)
        return True


def fill(archive: Archive, target: Path, bundling: Bundling) -> None:
    """Write an archive's files below `target`."""
    if archive.lock and bundling is Bundling.DEPENDENCIES:
        install(ROOT / archive.lock, target)
    for path in archive.files:
        destination = target / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, destination)
    if bundling is Bundling.DEPENDENCIES:
        compile_sources(target)
    (target / MARKER).write_text(bundling)


def compile_sources(target: Path, *, version: str = PYTHON) -> bool:
    """Compile every source below `target` for the functions' Python; return whether one of that version was there to do it."""
    python = _python_of(version)
    if python is None:
        sys.stderr.write(f"no Python {version} is on the path, so the archive holds no bytecode and cold starts take longer\n")
        return False
    # No checks when a module is loaded: nobody can write to an archive in place. What does not compile (templates that libraries bring
    # along) stays a source.
    command = [python, "-I", "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash", "-s", str(target), str(target)]
    subprocess.run(command, check=False, stdout=sys.stderr)  # noqa: S603 - a fixed command with paths of our own
    return True


def _python_of(version: str) -> str | None:
    """Return an interpreter of a version that runs: a name on the path may be that of a version manager's script."""
    for candidate in (sys.executable, shutil.which(f"python{version}")):
        if candidate:
            ask = [candidate, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2], sys.implementation.name)"]
            done = subprocess.run(ask, capture_output=True, text=True, check=False)  # noqa: S603 - as above
            if done.returncode == 0 and done.stdout.strip() == f"{version} cpython":
                return candidate
    return None


def install(lock: Path, target: Path, *, platform: str = PLATFORM, python: str = PYTHON) -> None:
    """Install the packages of a lock file with hashes for the functions' platform; no package's own code runs."""
    options = ["--platform", platform, "--python-version", python, "--implementation", "cp", "--only-binary=:all:", "--require-hashes"]
    quiet = ["--disable-pip-version-check", "--no-compile", "--quiet", "--no-input"]
    command = [sys.executable, "-m", "pip", "install", *options, *quiet, "--no-deps", "--target", str(target), "-r", str(lock)]
    subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603 - a fixed command with paths of our own


def _sources(folder: str) -> Iterator[Path]:
    for path in sorted((ROOT / folder).rglob("*")):
        relative = path.relative_to(ROOT)
        if path.is_file() and path.suffix in _SOURCE_SUFFIXES and "__pycache__" not in relative.parts:
            yield relative
