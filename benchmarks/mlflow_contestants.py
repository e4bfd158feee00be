"""The registries that are held against each other: ours on the embedded AWS, and `mlflow server` on sqlite; each with a client of its own.

All clients are MLflow's, unmodified, of the same environment. To ours it signs as `MLFLOW_TRACKING_AUTH=attestry` does.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from attestry.local import saving
from attestry.local.process import find, free_port
from attestry.local.settings import DataDirectory
from benchmarks.embedded import ROOT, EmbeddedRegistry
from benchmarks.filling import write
from benchmarks.mlflow_rows import first_version, rows_of_model
from benchmarks.processes import cpu_seconds, memory_mib, variables_of

SCRIPT = Path(__file__).with_name("mlflow_client.py")
PYTHON = "ATTESTRY_MLFLOW_PYTHON"
QUIET_SHARE, QUIET_SECONDS, IDLE_SECONDS, LONGEST_SECONDS, SAVED_SECONDS = 0.2, 0.5, 2.0, 6.0, 90.0
SOURCE = "s3://elsewhere/models/iris"
FILES = {"MLmodel": b"flavors: {}\n", "model.pkl": b"never opened", "requirements.txt": b"scikit-learn==1.5.1\n"}


def mlflow_python() -> Path:
    """Return the interpreter of MLflow's environment.

    Raises:
        RuntimeError: it is not there.
    """
    python = Path(os.environ.get(PYTHON) or ROOT / ".venv" / "mlflow" / "bin" / "python")
    if not python.exists():
        raise RuntimeError(f"MLflow is not installed: make bench sets it up, or name an interpreter in {PYTHON}")
    return python


class Client:
    """MLflow's client in a process of its own.

    Args:
        environment: which registry, and who asks.
        folder: where it leaves what it makes by itself: a database for tracking, which nothing here asks for.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        python = mlflow_python()
        told = {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(python.parent.parent / "bytecode"), "MLFLOW_DISABLE_TELEMETRY": "true"}
        variables = variables_of(python, {**told, "MLFLOW_HTTP_REQUEST_TIMEOUT": "300", **environment})
        command = [str(python), str(SCRIPT)]
        self._process = subprocess.Popen(command, cwd=folder, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def carry_out(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Have an order carried out.

        Raises:
            RuntimeError: a call failed.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the client has no streams")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "the client ended"}')
        if "error" in told:
            raise RuntimeError(f"{order['act']} of {order['model']}: {told['error']}")
        return told

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)


class Contestant(Protocol):
    """A registry under MLflow's client.

    Attributes:
        name: what it is called in the tables.
        client: its client.
        start_seconds: how long it took to start from nothing, and again on what was there.
    """

    name: str
    client: Client
    start_seconds: tuple[float, float]

    @property
    def pid(self) -> int:
        """The process that all others of the server descend from."""

    def fill(self, model: str, versions: int) -> None:
        """Make a model with so many versions."""

    def sources(self, count: int) -> Sequence[str]:
        """Return sources of as many new versions, whose files are where the registry takes them from."""

    def close(self) -> None:
        """Stop it."""


def settled_cpu(contestant: Contestant, longest: float = LONGEST_SECONDS) -> float:
    """Return the processor time of a server once it has done what it does behind the answers, if that ends within so many seconds."""
    used, deadline = cpu_seconds(contestant.pid), time.monotonic() + longest
    while time.monotonic() < deadline:
        time.sleep(QUIET_SECONDS)
        before, used = used, cpu_seconds(contestant.pid)
        if used - before < QUIET_SHARE * QUIET_SECONDS:
            break
    return used


def idle_share(contestant: Contestant) -> float:
    """Return what share of a processor a server takes while nobody asks it for anything."""
    settled_cpu(contestant, SAVED_SECONDS)  # behind a filling ours saves ten thousand versions
    before, began = cpu_seconds(contestant.pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return (cpu_seconds(contestant.pid) - before) / (time.monotonic() - began)


def memory(contestant: Contestant) -> float:
    """Return the memory of a server, in MiB."""
    return memory_mib(contestant.pid)


class Attestry:
    """This registry; its models are open, so that the calls mean what they mean in MLflow."""

    name = "attestry"

    def __init__(self, embedded: EmbeddedRegistry, folder: Path) -> None:
        self._embedded = embedded
        self.start_seconds = (embedded.start_seconds, embedded.restart())
        stack = embedded.stack
        told = {"MLFLOW_REGISTRY_URI": stack.api_url, "MLFLOW_TRACKING_AUTH": "attestry", "HOME": str(folder)}
        self.client = Client({**stack.environment("dana"), **told}, folder)

    @property
    def pid(self) -> int:
        """The embedded AWS, functions included."""
        server = find(DataDirectory.at(self._embedded.stack.data.path))
        if server is None:
            raise RuntimeError("the embedded AWS has ended")
        return server.pid

    def fill(self, model: str, versions: int) -> None:
        """Make the model by the API, and write the rows of its versions (`benchmarks.mlflow_rows`)."""
        self._embedded.client("dana").create_model(model, mode="open")
        stack = self._embedded.stack
        write(stack.session("root"), stack.outputs["MetaTable"], rows_of_model(first_version(model), versions))
        time.sleep(2 * saving.QUIET_SECONDS)  # by then it saves them, and what is measured waits until it has

    def sources(self, count: int) -> Sequence[str]:
        """Upload the files of each, as the plugin does."""
        client = self._embedded.client("dana")
        announced = [{"name": n, "size": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in FILES.items()]
        found = []
        for _ in range(count):
            grant = client.announce_import(announced)
            for place in grant["uploads"]:
                answer = client.http.put(place["url"], place["headers"], FILES[place["name"]])
                if answer.status_code >= 300:
                    raise RuntimeError(f"{place['name']} was not uploaded: {answer.status_code}")
            found.append(f"attestry://uploads/{grant['submission']}")
        return found

    def close(self) -> None:
        """Stop the client; the registry is another's."""
        self.client.close()


class MlflowServer:
    """`mlflow server` on sqlite, in a folder of its own.

    Args:
        folder: an empty folder.
        workers: how many; None for the default.
    """

    def __init__(self, folder: Path, workers: int | None) -> None:
        self.name = f"mlflow, {workers} worker" if workers else "mlflow, default workers"
        self._folder, self._workers, self._port = folder, workers, free_port()
        self._process, first = self._start()
        self._stop()
        self._process, again = self._start()
        self.start_seconds = (first, again)
        self.client = Client({"MLFLOW_REGISTRY_URI": f"http://127.0.0.1:{self._port}", "HOME": str(folder)}, folder)

    @property
    def pid(self) -> int:
        """The command, of which the workers are children."""
        return self._process.pid

    def fill(self, model: str, versions: int) -> None:
        """Make the model and its first version by the API, and the others by copying its row."""
        first = {"model": model, "versions": 1, "times": 1, "seconds": 60, "at_once": 1, "first": 0, "sources": [SOURCE]}
        self.client.carry_out({**first, "act": "create_model", "model": model})
        with closing(sqlite3.connect(self._folder / "runs.db")) as database, database:
            database.execute("UPDATE registered_models SET name = ? WHERE name = ?", (model, f"{model}-0"))
        self.client.carry_out({**first, "act": "create_version"})
        with closing(sqlite3.connect(self._folder / "runs.db")) as database, database:
            columns = [str(row[1]) for row in database.execute("PRAGMA table_info(model_versions)")]
            kept = ", ".join(c for c in columns if c != "version")
            numbers = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            own = "FROM n, model_versions WHERE name = ? AND version = 1"
            copied = f"INSERT INTO model_versions (version, {kept}) {numbers} SELECT i, {kept} {own}"
            if versions > 1:
                database.execute(copied, (versions, model))

    def sources(self, count: int) -> Sequence[str]:
        """Return sources; the server looks at none."""
        return [SOURCE] * count

    def close(self) -> None:
        """Stop server and client."""
        self.client.close()
        self._stop()

    def _start(self) -> tuple[subprocess.Popen[bytes], float]:
        python = mlflow_python()
        command = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/runs.db", "--artifacts-destination", str(self._folder / "artifacts")]
        command += ["--workers", str(self._workers)] if self._workers else []
        # What runs jobs for evaluations and scorers is no part of the registry.
        told = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "HOME": str(self._folder)}
        variables = variables_of(python, {**told, "PYTHONPYCACHEPREFIX": str(python.parent.parent / "bytecode")})
        began = time.monotonic()
        with (self._folder / "server.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self._folder, env=variables, stdout=log, stderr=log, start_new_session=True)
        while not self._answers():
            if process.poll() is not None or time.monotonic() - began > 180:
                raise RuntimeError(f"mlflow server did not start:\n{(self._folder / 'server.log').read_text()[-3000:]}")
            time.sleep(0.05)
        return process, time.monotonic() - began

    def _stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(60)
        while self._answers():
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
