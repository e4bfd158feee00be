"""Imports: what a version that was made elsewhere is, as whoever brings it says, and which files it consists of.

Rules:
- The files come from one submission of the caller's own, uploaded beforehand. Each is pinned by its S3 version, so that what is frozen is
  what was there when the version got its number.
- Everything else is *claimed*: where the files come from, the run that made them, its parameters, metrics and tags, a description. Nobody
  here saw the run, so none of it is ever graded better, no gate is passed by it and no lineage is made of it.
- Both, with the approval policy that the version stands under, are one canonical document (RFC 8785). Its SHA-256 is the candidate, as that
  of the manifest is for a version that is made here. It names the submission, so the same submission is the same candidate.
- Reading is strict: a document that the writer would not have written byte for byte is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import rfc8785

from attestry.domain.errors import InvalidInputError, Problem
from attestry.domain.names import DistinctPaths, ModelName

FORMAT: Final = 1
KIND: Final = "import"
MAX_DOCUMENT_BYTES: Final = 1024 * 1024
MAX_FILES: Final = 500
"""Their references lie in the version's row, which holds at most 400 KB."""

MAX_BYTES: Final = 4 * 1024**3
MAX_PATH_BYTES: Final = 400
MAX_ROW_BYTES: Final = 380_000
MAX_SOURCE: Final = 2048
MAX_DESCRIPTION: Final = 10_000
MAX_FACTS: Final = 2000
MAX_NAME: Final = 250
MAX_VALUE: Final = 8000

_REFERENCE_BYTES = 420
"""What the reference to a frozen file takes besides its path, which stands in it twice."""

_SUBMISSION = re.compile(r"[0-9a-f]{16,64}")
_REQUEST = frozenset({"submission", "source", "run", "description", "tags"})
_RUN = ("id", "experiment", "params", "metrics", "tags")


@dataclass(frozen=True)
class ClaimedRun:
    """The run that made the files, as whoever brings them says; the registry saw nothing of it.

    Attributes:
        id: the run's ID where it was tracked.
        experiment: its experiment, a name or an ID.
        params: parameters, name to text.
        metrics: name to number as text.
        tags: name to text.
    """

    id: str = ""
    experiment: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def to_item(self) -> dict[str, Any]:
        """Return the run as JSON."""
        facts = {name: dict(getattr(self, name)) for name in ("params", "metrics", "tags")}
        return {"id": self.id, "experiment": self.experiment, **facts}


@dataclass(frozen=True)
class ImportRequest:
    """A version that somebody brings: files that are in the store already, below the caller's own prefix, and what is claimed of them.

    Attributes:
        model: the model's name.
        submission: ID of the caller's submission that holds the files; the idempotency key.
        source: where they come from, free text such as a URI.
        run: the run that made them.
        description: what the version is.
        tags: name to text.

    Raises:
        InvalidInputError: on creation, naming every field that breaks a rule.
    """

    model: str
    submission: str
    source: str = ""
    run: ClaimedRun = field(default_factory=ClaimedRun)
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ModelName(self.model)
        problems = [
            *_text_problems("source", self.source, MAX_SOURCE),
            *_text_problems("description", self.description, MAX_DESCRIPTION),
            *_text_problems("run.id", self.run.id, MAX_NAME),
            *_text_problems("run.experiment", self.run.experiment, MAX_NAME),
        ]
        for name, facts in (("run.params", self.run.params), ("run.metrics", self.run.metrics), ("run.tags", self.run.tags)):
            problems += _fact_problems(name, facts)
        problems += _fact_problems("tags", self.tags)
        if not _SUBMISSION.fullmatch(self.submission):
            problems.append(Problem("submission", "submission", "the ID of a submission of your own is needed: 16 to 64 hex digits"))
        if problems:
            raise InvalidInputError(problems)

    @property
    def claimed(self) -> dict[str, Any]:
        """Return everything that is said and that nobody here has seen."""
        return {"source": self.source, "run": self.run.to_item(), "description": self.description, "tags": dict(self.tags)}


@dataclass(frozen=True)
class PinnedFile:
    """A file of the submission: its path, size in bytes and exactly which S3 version of it."""

    path: str
    size: int
    version_id: str

    def to_item(self) -> dict[str, Any]:
        """Return the file as JSON."""
        return {"path": self.path, "size": self.size, "version_id": self.version_id}


@dataclass(frozen=True)
class ImportDocument:
    """What is imported, under which policy.

    Attributes:
        request: what was asked for.
        files: the pinned files, sorted by path.
        approval: the approval policy that the version stands under, as `ApprovalPolicy.to_item` has it.

    Raises:
        InvalidInputError: on creation: no file, too many, too large, or paths that break a rule of `attestry.domain.names`.
    """

    request: ImportRequest
    files: tuple[PinnedFile, ...]
    approval: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(sorted(self.files, key=lambda f: f.path)))
        check_files([(f.path, f.size) for f in self.files])

    @property
    def sizes(self) -> dict[str, int]:
        """Return path to size in bytes."""
        return {f.path: f.size for f in self.files}

    @property
    def total_bytes(self) -> int:
        """Return the size of all files."""
        return sum(f.size for f in self.files)

    @property
    def digest(self) -> str:
        """Return the candidate: SHA-256 of the document, hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the document.

        Raises:
            InvalidInputError: it is larger than 1 MiB.
        """
        data = rfc8785.dumps(
            {
                "format": FORMAT,
                "kind": KIND,
                "model": self.request.model,
                "submission": self.request.submission,
                "files": [f.to_item() for f in self.files],
                "claimed": self.request.claimed,
                "approval": dict(self.approval),
            }
        )
        if len(data) > MAX_DOCUMENT_BYTES:
            raise InvalidInputError.of("run", "size", f"what is claimed has {len(data)} bytes; at most {MAX_DOCUMENT_BYTES} are kept")
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> ImportDocument:
        """Read a document.

        Raises:
            InvalidInputError: not canonical JSON of this form, or it breaks a rule.
        """
        try:
            body = json.loads(data)
            claimed, run = body["claimed"], body["claimed"]["run"]
            request = ImportRequest(
                body["model"], body["submission"], claimed["source"], ClaimedRun(**run), claimed["description"], claimed["tags"]
            )
            document = cls(request, tuple(PinnedFile(**f) for f in body["files"]), body["approval"])
            if document.to_bytes() != data:
                raise InvalidInputError.of("", "canonical", "this is no import document in canonical form")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInputError.of("", "import", f"this is no import document: {type(error).__name__}") from error
        return document


def check_files(files: Sequence[tuple[str, int]]) -> None:
    """Check the files of an import: path and size in bytes of each.

    Raises:
        InvalidInputError: naming the file and the rule.
    """
    if not files:
        raise InvalidInputError.of("files", "required", "the submission holds no file below import/; upload the files first")
    if len(files) > MAX_FILES:
        message = f"more than {MAX_FILES} files; pack them into one archive, which is kept and digested as one file"
        raise InvalidInputError.of("files", "max_files", message)
    paths = DistinctPaths("files")
    for path, size in files:
        paths.add(path)
        if len(path.encode()) > MAX_PATH_BYTES:
            raise InvalidInputError.of("files", "path_length", f"{ascii(path)[:80]} has more than {MAX_PATH_BYTES} bytes")
        if type(size) is not int or size < 0:
            raise InvalidInputError.of("files", "size", f"{ascii(path)[:80]} has no size in bytes")
    if sum(2 * len(path.encode()) + _REFERENCE_BYTES for path, _ in files) > MAX_ROW_BYTES:
        message = "so many files with paths this long do not fit into the version's row; pack them into one archive"
        raise InvalidInputError.of("files", "row_size", message)
    total = sum(size for _, size in files)
    if total > MAX_BYTES:
        raise InvalidInputError.of("files", "max_bytes", f"{total} bytes; an import has at most {MAX_BYTES} (4 GiB)")


def read_import(model: str, body: Mapping[str, Any]) -> ImportRequest:
    """Return the import that a request asks for.

    Args:
        model: the model's name.
        body: `submission`, and optionally `source`, `run` (`id`, `experiment`, `params`, `metrics`, `tags`), `description`, `tags`.

    Raises:
        InvalidInputError: a field that is unknown or breaks a rule, named.
    """
    unknown = sorted(str(name) for name in set(body) - _REQUEST)
    if unknown:
        raise InvalidInputError.of(unknown[0][:80], "unknown", f"an import has {', '.join(sorted(_REQUEST))}")
    run = body.get("run") or {}
    if not isinstance(run, dict) or set(run) - set(_RUN):
        raise InvalidInputError.of("run", "type", f"a mapping with {', '.join(_RUN)} is needed")
    metrics = _mapping("run.metrics", run.get("metrics"))
    claimed = ClaimedRun(
        _text("run.id", run.get("id")),
        _text("run.experiment", run.get("experiment")),
        _mapping("run.params", run.get("params")),
        {name: _number(f"run.metrics.{name}", value) for name, value in metrics.items()},
        _mapping("run.tags", run.get("tags")),
    )
    tags, description = _mapping("tags", body.get("tags")), _text("description", body.get("description"))
    return ImportRequest(
        model, _text("submission", body.get("submission")), _text("source", body.get("source")), claimed, description, tags
    )


def is_import_document(data: bytes) -> bool:
    """Return whether a candidate's document is that of an import, and not a manifest."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and body.get("kind") == KIND


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInputError.of(name, "type", "a text is needed")
    return value


def _mapping(name: str, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidInputError.of(name, "type", "a mapping of names is needed")
    return dict(value)


def _number(name: str, value: object) -> str:
    """Return a metric as text: nothing is computed with it, so it stays as it was said."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InvalidInputError.of(name[:120], "number", "a number is needed")
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    try:
        float(value)
    except (ValueError, OverflowError) as error:
        raise InvalidInputError.of(name[:120], "number", "a number is needed") from error
    return value if isinstance(value, str) else repr(value)


def _text_problems(name: str, value: object, limit: int) -> list[Problem]:
    if not isinstance(value, str):
        return [Problem(name[:120], "type", "a text is needed")]
    if len(value) > limit:
        return [Problem(name[:120], "length", f"has {len(value)} characters; at most {limit} are kept")]
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t\r" for c in value):
        return [Problem(name[:120], "printable", "has control characters")]
    return []


def _fact_problems(name: str, facts: object) -> list[Problem]:
    if not isinstance(facts, Mapping):
        return [Problem(name, "type", "a mapping is needed")]
    if len(facts) > MAX_FACTS:
        return [Problem(name, "max_items", f"has {len(facts)} entries; at most {MAX_FACTS} are kept")]
    problems: list[Problem] = []
    for key, value in facts.items():
        problems += _text_problems(f"{name} (a name)", key, MAX_NAME) or _text_problems(f"{name}.{key}", value, MAX_VALUE)
    return problems
