"""Makes an environment's archive from a list of pinned packages, without running any of their code.

pip installs wheels only and checks every hash; modules are compiled, not imported; the archive depends on paths and contents alone.
"""

from __future__ import annotations

import email.parser
import importlib.util
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from attestry.sandbox.errors import SandboxError

_LEVEL = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PASSED_ON = re.compile(r"PATH|HOME|TMPDIR|LANG|LD_LIBRARY_PATH|PIP_\w+|\w+_(PROXY|proxy)|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE")
_URL = re.compile(r"\b(?:https?|file)://\S+")


class InstallError(SandboxError):
    """The packages cannot be installed as the lock file says."""


def install_packages(lock: Path, folder: Path, *, seconds: float) -> None:
    """Install what a lock file names into a new folder.

    Args:
        lock: requirements with hashes and without options.
        folder: where to.
        seconds: time limit.

    Raises:
        InstallError: pip is missing, refuses, or takes too long; the message ends with what it said, without addresses.
    """
    command = [
        sys.executable,
        "-s",
        # The working directory is not searched for modules: what lies there is no package installer.
        "-P",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-compile",
        "--require-hashes",
        "--only-binary=:all:",
        "--no-warn-conflicts",
        "--root-user-action=ignore",
        "--target",
        str(folder),
        "--requirement",
        str(lock),
    ]
    environment = _environment()
    if "HOME" not in environment:
        command.append("--no-cache-dir")
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False, cwd=lock.parent)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"installing took longer than {seconds:.0f} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(("WARNING", "[notice]"))]
        said = _URL.sub("<address>", "\n".join(lines[-12:]))
        raise InstallError(f"pip ended with {done.returncode}: {said or 'it said nothing'}"[:3000])


def compile_modules(folder: Path) -> None:
    """Compile the modules below a folder beside their sources, so that a script need not do it at each start.

    The compiled files are not checked against times (PEP 552, unchecked hash), and name their sources relative to the folder, so
    they are the same wherever they were made. Tests are left as they are: nobody imports them. A module that does not compile stays source.
    """
    modules = sorted(p for p in folder.rglob("*.py") if not {"tests", "test"}.intersection(p.relative_to(folder).parts))
    workers = min(2, os.cpu_count() or 1)
    compiling = []
    for share in range(workers):
        listed = folder.with_name(f"{folder.name}.modules-{share}")
        listed.write_text("".join(f"{path}\n" for path in modules[share::workers]), encoding="utf-8")
        compiling.append((_start_compiling(folder, listed), listed))
    for process, listed in compiling:
        process.wait()
        listed.unlink()


def _start_compiling(folder: Path, listed: Path) -> subprocess.Popen[bytes]:
    unchecked = ["--invalidation-mode", "unchecked-hash"]
    command = [sys.executable, "-I", "-S", "-m", "compileall", "-qq", *unchecked, "-s", str(folder), "-i", str(listed)]
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, env=_environment(), stdin=nothing, stdout=nothing, stderr=nothing)  # noqa: S603 (the arguments are ours)


def write_archive(folder: Path, archive: Path) -> None:
    """Zip a folder: sorted, without times, owners and the commands in `bin`, which name the builder's own interpreter."""
    files = sorted((p.relative_to(folder).as_posix(), p) for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    with zipfile.ZipFile(archive, "x", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as sink:
        for name, path in files:
            if name.startswith("bin/"):
                continue
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            info.external_attr = (stat.S_IFREG | mode) << 16
            content = path.read_bytes()
            if name.endswith(".dist-info/RECORD"):
                content = _without_commands(content.decode()).encode()
            # A stream into the archive would be compressed at zlib's own level, whatever the archive's is.
            sink.writestr(info, content, compresslevel=_LEVEL)


def list_packages(archive: IO[bytes]) -> list[dict[str, str]]:
    """Return name and version of the packages in an archive, from their own metadata, sorted."""
    with zipfile.ZipFile(archive) as index:
        found = []
        for name in index.namelist():
            if re.fullmatch(r"[^/]+\.dist-info/METADATA", name):
                fields = email.parser.BytesHeaderParser().parsebytes(index.read(name))
                found.append({"name": str(fields["Name"]), "version": str(fields["Version"])})
    return sorted(found, key=lambda package: package["name"].lower())


def _without_commands(record: str) -> str:
    return "".join(line for line in record.splitlines(keepends=True) if not line.startswith(("../../bin/", "bin/")))


def _environment(inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return pip's environment: where its index is and how to reach it, and no credentials of this function."""
    passed = {name: value for name, value in inherited.items() if _PASSED_ON.fullmatch(name)}
    passed["PYTHONPATH"] = str(_pip_folder())
    return passed


def _pip_folder() -> Path:
    """Return where pip can be imported from: the function's own packages, or the wheel that Python brings (PEP 453)."""
    spec = importlib.util.find_spec("pip")
    if spec and spec.origin:
        return Path(spec.origin).parents[1]
    bundled: Sequence[Path] = []
    ensure = importlib.util.find_spec("ensurepip")
    if ensure and ensure.origin:
        bundled = sorted((Path(ensure.origin).parent / "_bundled").glob("pip-*.whl"))
    if not bundled:
        raise InstallError("pip is not there to install packages with")
    return bundled[-1]
