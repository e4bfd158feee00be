"""Where MLflow's own client is: an environment of its own, since its packages are many and ask for others than ours (`tests/mlflow/`)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestry.local.process import free_port

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
    command = [str(mlflow_python()), str(HERE / script), *arguments]
    variables = {**_variables(), **(environment or {})}
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=variables, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout


@contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """Run MLflow's own tracking server on sqlite, which also keeps the artifacts, and yield its URL.

    It answers some seconds later, which `client.py` waits for: it takes as long to import MLflow.
    """
    port = free_port()
    command = [str(mlflow_python()), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=_variables(), stdout=log, stderr=log, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, (folder / "server.log").read_text()[-4000:]
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the workers are its children
        process.wait(30)


def _variables() -> dict[str, str]:
    """Return what a program of that environment is given of ours, and the settings that keep it to itself."""
    python = mlflow_python()
    return {
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": str(ROOT),
        "PYTHONPYCACHEPREFIX": str(python.parent.parent / "bytecode"),  # MLflow takes half a minute to import where it is compiled anew
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
