"""Development runs: what was tried, on this machine, in a folder that can be read without us.

    with attestry.start_run("tumour-diagnosis", parameters={"C": 0.1}) as run:
        for epoch in range(10):
            run.log_metric("loss", train(epoch), step=epoch)
        run.log_file("model.joblib")

A run is a folder `<folder>/<run ID>/`:

    run.json        what a registry may be told of the run: `attestry import PATH --model NAME --run run.json`
    record.json     who and what made it: state, times, environment, revision of the code, digests of the files
    metrics.jsonl   one line for each value: {"name", "value", "step", "at"}
    files/          copies of what was logged

Rules:
- No server is needed, and nothing is sent anywhere unless it is asked for. What a registry is told of a run is *claimed*: it was not there.
- A value is in its file before `log_metric` returns, so a run that is killed keeps what it logged; its state stays RUNNING.
- Environment variables and arguments of the command line are not written down, since they hold secrets.
"""

from __future__ import annotations

import json
import math
import os
import platform
import secrets
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from attestry.client.routes.runs import RunRoutes
    from attestry.sdk.run_sender import RunSender

FOLDER: Final = Path(".attestry", "runs")
FOLDER_VARIABLE: Final = "ATTESTRY_RUNS"
"""Environment variable that names another folder of runs."""

RUNNING: Final = "RUNNING"
FINISHED: Final = "FINISHED"
FAILED: Final = "FAILED"
State = Literal["RUNNING", "FINISHED", "FAILED"]

MAX_NAME: Final = 250
MAX_VALUE: Final = 8000
MAX_ERROR: Final = 2000
MAX_STEP: Final = 2**53 - 1
"""Limits of what a registry takes, so that a run which is sent later is not refused then."""

_GIT_SECONDS = 10
_CHUNK = 1 << 20

Parameter = str | bool | int | float | None


class RunError(ValueError):
    """Something cannot be logged; the sentence says what and why."""


class RunWarning(UserWarning):
    """A run is kept in its folder and could not be sent."""


class Run:
    """One run, from its start to its end; a context manager, and safe to use from several threads.

    Attributes:
        id: 32 hex digits.
        experiment: what it belongs to.
        folder: where it is kept.
    """

    def __init__(
        self,
        experiment: str,
        folder: Path,
        parameters: Mapping[str, Parameter],
        tags: Mapping[str, str],
        connect: Callable[[], RunRoutes] | None = None,
    ) -> None:
        self.id = secrets.token_hex(16)
        self.experiment = _name("experiment", experiment)
        self.folder = folder / self.id
        self._files = self.folder / "files"
        self._files.mkdir(parents=True)
        self._lock = threading.Lock()
        self._parameters: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._last: dict[str, float] = {}
        self._logged: dict[str, dict[str, Any]] = {}
        self._state: State = RUNNING
        self._error = ""
        self._begun, self._ended = _now(), ""
        self._made_by = {"environment": _environment(), "code": _code()}
        self._metrics: IO[str] = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._sender: RunSender | None = None
        self.log_parameters(parameters)
        self.log_tags(tags)
        if connect is not None:
            from attestry.sdk.run_sender import RunSender

            self._sender = RunSender(self.folder, connect)

    @property
    def unsent(self) -> str:
        """Return why the registry does not have all of the run; empty where it does, or where nothing is to be sent."""
        return self._sender.problem if self._sender else ""

    @property
    def state(self) -> State:
        """Return RUNNING, FINISHED or FAILED."""
        return self._state

    @property
    def metrics(self) -> dict[str, float]:
        """Return the last value of each metric."""
        return dict(self._last)

    def log_parameter(self, name: str, value: Parameter) -> None:
        """Record a setting of the run.

        Args:
            name: at most 250 characters.
            value: a text, number, truth value or None; its text has at most 8,000 characters.

        Raises:
            RunError: the run has ended, a rule is broken, or the parameter was logged with another value.
        """
        self.log_parameters({name: value})

    def log_parameters(self, parameters: Mapping[str, Parameter]) -> None:
        """Record settings, all or none; see `log_parameter`."""
        told = {_name("a parameter's name", name): _text(f"parameter {name}", value) for name, value in parameters.items()}
        with self._lock:
            self._check_running()
            for name, text in told.items():
                if self._parameters.get(name, text) != text:
                    raise RunError(f"parameter {name} was logged as {self._parameters[name]!r}; a run has one value of each")
            self._parameters |= told
            self._write()

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Record words about the run; a tag that is logged again is replaced.

        Raises:
            RunError: the run has ended, or a rule is broken.
        """
        told = {_name("a tag's name", name): _text(f"tag {name}", value) for name, value in tags.items()}
        with self._lock:
            self._check_running()
            self._tags |= told
            self._write()

    def log_metric(self, name: str, value: float, *, step: int | None = None) -> None:
        """Record a value of a metric; it is in the file when this returns.

        Args:
            name: at most 250 characters.
            value: a number; NaN and infinities are kept as such, since a run that diverges is worth knowing.
            step: which step of the run it belongs to, for example the epoch.

        Raises:
            RunError: the run has ended, or a rule is broken.
        """
        self.log_metrics({name: value}, step=step)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Record values of one step; see `log_metric`."""
        _check_step(step)
        values = {_name("a metric's name", name): _number(name, value) for name, value in metrics.items()}
        at = _now()
        lines = [json.dumps({"name": n, "value": _plain(v), "step": step, "at": at}, ensure_ascii=False) for n, v in values.items()]
        with self._lock:
            self._check_running()
            self._metrics.write("".join(f"{line}\n" for line in lines))
            self._metrics.flush()
            self._last |= values

    def log_file(self, path: str | os.PathLike[str], name: str | None = None) -> str:
        """Copy a file into the run.

        Args:
            path: the file.
            name: where it goes below `files/`; by default its own name.

        Returns:
            Its SHA-256, hex.

        Raises:
            RunError: the run has ended, the name leads out of the run, or another file has it already.
            FileNotFoundError: there is no such file.
        """
        source = Path(path)
        target = _below(self._files, _name("a file's name", name or source.name))
        with self._lock:
            self._check_running()
            relative = target.relative_to(self._files).as_posix()
            sha256, size = _copy_new(source, target, relative)
            self._logged[relative] = {"sha256": sha256, "size": size}
            self._write()
        return sha256

    def claim(self) -> dict[str, Any]:
        """Return what a registry may be told: `id`, `experiment`, `params`, `metrics` (last values, as text) and `tags`."""
        metrics = {name: repr(value) for name, value in self._last.items()}
        about = {"id": self.id, "experiment": self.experiment}
        return {**about, "params": dict(self._parameters), "metrics": metrics, "tags": dict(self._tags)}

    def end(self, error: str = "") -> None:
        """End the run; the second time changes nothing.

        Args:
            error: why it failed; empty where it did not.
        """
        with self._lock:
            if self._state != RUNNING:
                return
            # Why it failed is often another program's text, and must not keep the run from ending.
            said = error[:MAX_ERROR].encode("utf-8", "replace").decode()
            self._state, self._error, self._ended = (FAILED if error else FINISHED), said, _now()
            self._metrics.close()
            self._write()
        problem = self._sender.finish() if self._sender else ""
        if problem:
            warnings.warn(f"run {self.id} was not sent: {problem}; attestry runs push {self.folder} sends it", RunWarning, stacklevel=2)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end(f"{kind.__name__}: {error}" if kind else "")

    def _check_running(self) -> None:
        if self._state != RUNNING:
            raise RunError(f"run {self.id} has ended; start another one")

    def _write(self) -> None:
        """Write both documents, each whole or not at all."""
        record = {
            "format": 1,
            "id": self.id,
            "experiment": self.experiment,
            "state": self._state,
            "error": self._error,
            "begun": self._begun,
            "ended": self._ended,
            **self._made_by,
            "files": self._logged,
        }
        # Whoever reads the record of a run that has ended finds all the rest as it was at its end.
        _replace(self.folder / "run.json", self.claim())
        _replace(self.folder / "record.json", record)


def start_run(
    experiment: str,
    *,
    parameters: Mapping[str, Parameter] | None = None,
    tags: Mapping[str, str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    registry: bool = False,
    client: RunRoutes | None = None,
) -> Run:
    """Start a run.

    Args:
        experiment: what it belongs to, for example the model's name.
        parameters: its settings.
        tags: words about it.
        folder: where runs are kept; by default what ATTESTRY_RUNS says, else `.attestry/runs` below the working directory.
        registry: send the run to the registry as well, while it goes on, with the usual AWS credentials or ATTESTRY_TOKEN. What cannot be
            sent stays in the folder, `end` warns of it, and `attestry runs push` sends it.
        client: the same by a client of one's own, an `attestry.client.api.RegistryClient`.

    Raises:
        RunError: a rule is broken; see `Run`.
    """
    where = Path(folder or os.environ.get(FOLDER_VARIABLE) or FOLDER)
    connect = (lambda: client) if client is not None else _default_client if registry else None
    return Run(experiment, where, parameters or {}, tags or {}, connect)


def _default_client() -> RunRoutes:
    from attestry.client.api import RegistryClient

    return RegistryClient(patience_seconds=10)


def _name(what: str, value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_NAME or not value.isprintable():
        raise RunError(f"{what} {value!r:.80} is no text of 1 to {MAX_NAME} printable characters")
    return value


def _text(what: str, value: object) -> str:
    if value is not None and not isinstance(value, (str, bool, int, float)):
        raise RunError(f"{what} is a {type(value).__name__}; a text, number, truth value or None is needed")
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) > MAX_VALUE:
        raise RunError(f"{what} has {len(text)} characters; at most {MAX_VALUE} are kept")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RunError(f"{what} has half of a surrogate pair, which no file can hold")
    return text


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        return float(value)  # type: ignore[arg-type]  # NumPy's scalars are numbers by their __float__
    except (TypeError, ValueError, OverflowError) as error:
        raise RunError(f"metric {name}: {value!r:.80} is no number") from error


def _check_step(step: object) -> None:
    if step is not None and (isinstance(step, bool) or not isinstance(step, int) or abs(step) > MAX_STEP):
        raise RunError(f"step {step!r:.80} is no whole number of at most 53 bits")


def _plain(value: float) -> float | str:
    """Return a number as JSON has it; what JSON has no number for, as text."""
    return value if math.isfinite(value) else repr(value)


def _below(folder: Path, name: str) -> Path:
    target = Path(os.path.normpath(folder / name))
    if target == folder or folder not in target.parents:
        raise RunError(f"{name!r} leads out of the run's folder")
    return target


def _copy_new(source: Path, target: Path, name: str) -> tuple[str, int]:
    import hashlib

    digest, size = hashlib.sha256(), 0
    with source.open("rb") as stream:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        with part.open("wb") as sink:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                sink.write(chunk)
    if target.exists():
        with target.open("rb") as stream:
            same = hashlib.file_digest(stream, "sha256").digest() == digest.digest()
        part.unlink()
        if not same:
            raise RunError(f"another file was logged as {name}; give this one a name of its own")
    else:
        part.replace(target)
    return digest.hexdigest(), size


def _replace(path: Path, document: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    part.replace(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _environment() -> dict[str, Any]:
    from importlib.metadata import distributions

    # What is left of a package that was half removed has no version.
    packages = {str(d.metadata["Name"]): str(d.version or "") for d in distributions() if d.metadata["Name"]}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def _code() -> dict[str, Any]:
    """Return the revision of the working directory and whether it has changes; empty outside of a repository, or without git."""
    script = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    git = shutil.which("git")
    revision = _git(git, "rev-parse", "HEAD") if git else None
    if git is None or revision is None:
        return {"script": script}
    changed = _git(git, "status", "--porcelain", "--untracked-files=no")
    return {"script": script, "revision": revision, "changed": bool(changed) if changed is not None else None}


def _git(git: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run([git, *arguments], capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
