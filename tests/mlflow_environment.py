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
FRAMEWORKS = "ATTESTRY_FRAMEWORKS_PYTHON"


def mlflow_python() -> Path:
    """Return its interpreter: `.venv/mlflow`, which `make test` sets up, or what the variable names."""
    return _python(VARIABLE, "mlflow")


def frameworks_python() -> Path:
    """Return the interpreter of the environment that has heavy frameworks besides: `.venv/frameworks`, which `make test-long` sets up."""
    return _python(FRAMEWORKS, "frameworks")


def _python(variable: str, name: str) -> Path:
    python = Path(os.environ.get(variable) or ROOT / ".venv" / name / "bin" / "python")
    if not python.exists():
        pytest.skip(f"it is not installed: make .venv/{name}/.installed, or name an interpreter in {variable}")
    return python


def run(
    script: str,
    *arguments: str,
    given: str = "",
    environment: Mapping[str, str] | None = None,
    seconds: float = 120,
    python: Path | None = None,
) -> str:
    """Run a script of `tests/mlflow/` in that environment, or by another interpreter, and return what it prints."""
    interpreter = python or mlflow_python()
    command = [str(interpreter), str(HERE / script), *arguments]
    variables = {**_variables(interpreter), **(environment or {})}
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
        process = subprocess.Popen(command, cwd=folder, env=_variables(mlflow_python()), stdout=log, stderr=log, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, (folder / "server.log").read_text()[-4000:]
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the workers are its children
        process.wait(30)


def _variables(python: Path) -> dict[str, str]:
    """Return what a program of that environment is given of ours, and the settings that keep it to itself."""
    return {
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": str(ROOT),
        "PYTHONPYCACHEPREFIX": str(python.parent.parent / "bytecode"),  # MLflow takes half a minute to import where it is compiled anew
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
