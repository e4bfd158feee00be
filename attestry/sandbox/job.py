"""The job document: what to run, on what, and where the results go. Format 1, written by the registry.

Everything is checked here, once, so that the rest of the sandbox handles only well-formed values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestry.sandbox.errors import BadJobError, UnsafeArchiveError
from attestry.sandbox.paths import check_distinct, check_relative_path

MAX_JOB_BYTES = 8 << 20
MODES = ("script", "predict")
SCRIPT_SUFFIXES = (".py", ".R", ".r")
_CHANNEL = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,126}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Input:
    """A file to read.

    Attributes:
        path: relative path that it gets, or the name of the archive.
        url: presigned GET; empty for a file that a service has mounted.
        size: bytes.
        sha256: hex.
    """

    path: str
    url: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Upload:
    """A presigned POST: `url` and form `fields`, in order."""

    url: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Job:
    """One run of one script.

    Attributes:
        name: `<execution id>/<STAGE>/<attempt>`.
        stage: PROCESSING, TRAINING or VALIDATION.
        mode: `script` runs the entry point; `predict` calls its `model_fn` and `predict_fn` on its one channel.
        timeout_seconds: wall clock limit of the script.
        max_output_bytes: limit of each output folder, before compression.
        max_log_bytes: limit of the log.
        environment: zip with the packages; None in a container, which brings its own.
        source: tar.gz with the source, without a leading folder.
        entry_point: path of the script within the source.
        arguments: hyperparameters, in order.
        channels: channel name to its files.
        model: files of a frozen model, for `predict`.
        outputs: `model`, `output` and `log` to where they go.
    """

    name: str
    stage: str
    mode: str
    timeout_seconds: float
    max_output_bytes: int
    max_log_bytes: int
    environment: Input | None
    source: Input
    entry_point: str
    arguments: Mapping[str, Any]
    channels: Mapping[str, tuple[Input, ...]]
    model: tuple[Input, ...]
    outputs: Mapping[str, Upload]


def read_job(document: Mapping[str, Any]) -> Job:
    """Return the job of a document for the sandbox.

    Raises:
        BadJobError: a field is missing or has the wrong form; the message names it.
    """
    environment = read_input("environment", _mapping(document, "environment"), "environment.zip")
    return _read(document, environment, mounted=False, entry_point=read_entry_point(document))


def read_container_job(document: Mapping[str, Any], *, mounted: bool) -> Job:
    """Return the job of a document for a container, which brings its own packages and may bring R.

    Args:
        document: the document.
        mounted: whether a service has laid the inputs out, so that they have no URLs.

    Raises:
        BadJobError: a field is missing or has the wrong form; the message names it.
    """
    suffixes = (".py",) if document.get("mode") == "predict" else SCRIPT_SUFFIXES
    return _read(document, None, mounted=mounted, entry_point=read_entry_point(document, suffixes))


def _read(document: Mapping[str, Any], environment: Input | None, *, mounted: bool, entry_point: str) -> Job:
    if document.get("format") != 1:
        raise BadJobError("format: only 1 is known")
    mode = _text(document, "mode")
    if mode not in MODES:
        raise BadJobError(f"mode: one of {', '.join(MODES)}")
    channels = {name: _files(f"channels.{name}", files, mounted) for name, files in _mapping(document, "channels").items()}
    for name in channels:
        if not _CHANNEL.fullmatch(name):
            raise BadJobError(f"channels: {name!r} is not a channel name (lower case letters, digits and _)")
    if mode == "predict" and (len(channels) != 1 or not all(channels.values())):
        raise BadJobError("channels: exactly one, with files, to predict on")
    arguments = _mapping(document, "arguments")
    for name, value in arguments.items():
        _check_argument(name, value)
    return Job(
        name=_text(document, "job"),
        stage=_text(document, "stage"),
        mode=mode,
        timeout_seconds=_positive(document, "timeout_seconds"),
        max_output_bytes=int(_positive(document, "max_output_bytes")),
        max_log_bytes=int(_positive(document, "max_log_bytes")),
        environment=environment,
        source=read_input("source", _mapping(document, "source"), "source.tar.gz", mounted=mounted),
        entry_point=entry_point,
        arguments=arguments,
        channels=channels,
        model=_files("model", document.get("model", []), mounted),
        outputs={name: _upload(name, value) for name, value in _mapping(document, "outputs").items()},
    )


def read_entry_point(document: Mapping[str, Any], suffixes: tuple[str, ...] = (".py",)) -> str:
    """Return the path of the script.

    Raises:
        BadJobError: it is not a relative path of a Python file, or of one that ends as `suffixes` say.
    """
    path = _text(document, "entry_point")
    try:
        check_relative_path(path)
    except UnsafeArchiveError as error:
        raise BadJobError(f"entry_point: {error}") from error
    if not path.endswith(suffixes):
        raise BadJobError(f"entry_point: {path!r} is not a Python file{' or an R file' if len(suffixes) > 1 else ''}")
    return path


def read_input(field: str, value: Any, path: str | None = None, *, mounted: bool = False) -> Input:
    """Return one input; its path is `path` or, without it, that of the document. One that is mounted has no URL.

    Raises:
        BadJobError: it breaks the format.
    """
    if not isinstance(value, Mapping):
        raise BadJobError(f"{field}: not an object")
    try:
        name = check_relative_path(path if path is not None else _text(value, "path"))
        url = "" if mounted else _text(value, "url")
    except (UnsafeArchiveError, BadJobError) as error:
        raise BadJobError(f"{field}: {error}") from error
    size, sha256 = value.get("size"), value.get("sha256")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadJobError(f"{field}.size: not a number of bytes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise BadJobError(f"{field}.sha256: not a SHA-256 in hex")
    return Input(name, url, size, sha256)


def _files(field: str, value: Any, mounted: bool) -> tuple[Input, ...]:
    if not isinstance(value, list):
        raise BadJobError(f"{field}: not a list")
    files = tuple(read_input(f"{field}[{index}]", item, mounted=mounted) for index, item in enumerate(value))
    try:
        check_distinct(file.path for file in files)
    except UnsafeArchiveError as error:
        raise BadJobError(f"{field}: {error}") from error
    return files


def _upload(name: str, value: Any) -> Upload:
    if name not in {"model", "output", "log"}:
        raise BadJobError(f"outputs: {name!r} is unknown")
    if not isinstance(value, Mapping) or not isinstance(value.get("fields"), Mapping):
        raise BadJobError(f"outputs.{name}: needs url and fields")
    fields = value["fields"]
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in fields.items()):
        raise BadJobError(f"outputs.{name}.fields: not all text")
    return Upload(_text(value, "url"), tuple(fields.items()))


def _check_argument(name: str, value: Any) -> None:
    if not _ARGUMENT.fullmatch(name):
        raise BadJobError(f"arguments: {name!r} is not an argument name")
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise BadJobError(f"arguments.{name}: null, NaN and infinities cannot be passed")
    if isinstance(value, str) and "\0" in value:
        raise BadJobError(f"arguments.{name}: holds NUL")


def _mapping(document: Mapping[str, Any], field: str) -> dict[str, Any]:
    value = document.get(field, {})
    if not isinstance(value, dict):
        raise BadJobError(f"{field}: not an object")
    return value


def _text(document: Mapping[str, Any], field: str) -> str:
    value = document.get(field)
    if not isinstance(value, str) or not value:
        raise BadJobError(f"{field}: missing or not text")
    return value


def _positive(document: Mapping[str, Any], field: str) -> float:
    value = document.get(field)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise BadJobError(f"{field}: not a positive number")
    return value
