"""Where MLflow's own client is: an environment of its own, since its packages are many and ask for others than ours (`tests/mlflow/`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "tests" / "mlflow"
VARIABLE = "ATTESTRY_MLFLOW_PYTHON"


def mlflow_python() -> Path:
    """Return its interpreter: `.venv/mlflow`, which `make test` sets up, or what the variable names."""
    python = Path(os.environ.get(VARIABLE) or ROOT / ".venv" / "mlflow" / "bin" / "python")
    if not python.exists():
        pytest.skip(f"MLflow is not installed: make .venv/mlflow/.installed, or name an interpreter in {VARIABLE}")
    return python


def run(script: str, *arguments: str, given: str = "", environment: Mapping[str, str] | None = None, seconds: float = 120) -> str:
    """Run a script of `tests/mlflow/` in that environment, and return what it prints."""
    python = mlflow_python()
    variables = {
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": str(ROOT),
        "PYTHONPYCACHEPREFIX": str(python.parent.parent / "bytecode"),  # MLflow takes half a minute to import where it is compiled anew
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        **(environment or {}),
    }
    command = [str(python), str(HERE / script), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=variables, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout
