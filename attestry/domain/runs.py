"""Development runs as a registry is told of them: what a run is, what may be said of it, and what is digested when it ends.

Rules:
- All that a run says of itself is *claimed*: the registry was not there. Its own are the owner, the times `created` and `closed`, and the
  digests.
- Who started a run owns it, and nobody else changes it. The ID is made by the client, so that a start which was sent twice is one run.
- A parameter has one value. Tags may be replaced, and a file is never replaced by another. A run that has ended changes no more.
- Sizes are limited so that whatever a run says of itself is one row, which holds at most 400 KB; the points of its metrics are rows of
  their own (`attestry.domain.run_points`).
- With its end everything that was logged is digested (`Run.record_digest`), and the ledger keeps the digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import rfc8785

from attestry.domain.errors import ConflictError, InvalidInputError

FORMAT: Final = 1
MAX_NAME: Final = 250
MAX_VALUE: Final = 8000
MAX_ERROR: Final = 2000
MAX_ENTRIES: Final = 500
"""Parameters, tags, files, or metrics of a run."""

MAX_PART_BYTES: Final = 48 * 1024
"""Names and values, in UTF-8, of the parameters, of the tags, of the files, or of the metrics' names: together they fit into one row."""

MAX_PACKAGES: Final = 2000
MAX_ENVIRONMENT_BYTES: Final = 128 * 1024

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")


class RunState(StrEnum):
    """Where a run is, as its owner says."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"


ENDS: Final = (RunState.FINISHED, RunState.FAILED)


@dataclass(frozen=True)
class Start:
    """What is said of a run when it starts.

    Attributes:
        run: its ID, 32 hex digits.
        experiment: what it belongs to, a name as models have one.
        begun: when it began, as claimed, RFC 3339; empty where nobody says.
        parameters, tags: name to text.
        environment: `python`, `platform`, `cpu_count`, and `packages`, name to version; as far as it is known.
        source: `script`, `revision`, and whether the code was `changed` since that; as far as it is known.
    """

    run: str
    experiment: str
    begun: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Return the SHA-256, hex, over the JCS form of what never changes of a run."""
        fixed = {"format": FORMAT, "run": self.run, "experiment": self.experiment, "begun": self.begun}
        return _digest({**fixed, "environment": dict(self.environment), "source": dict(self.source)})

    @property
    def asked(self) -> str:
        """Return the SHA-256, hex, of the whole start, by which one that is sent again is known."""
        return _digest({"start": self.digest, "parameters": dict(self.parameters), "tags": dict(self.tags)})


@dataclass(frozen=True)
class Change:
    """What is said of a run later on.

    Attributes:
        parameters, tags: name to text; those that are added, of tags also those that are replaced.
        files: name to `sha256` and `size`.
        state: the state in which it ends; None while it goes on.
        error: why it failed.
        ended: when, as claimed, RFC 3339; empty where nobody says.
    """

    parameters: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    state: RunState | None = None
    error: str = ""
    ended: str = ""


@dataclass(frozen=True)
class Run:
    """A run, without its points.

    Attributes:
        run, experiment, begun, parameters, tags, source: see `Start`.
        login, person: of the owner, as they were authenticated; the person may be empty.
        state, error, ended, files: see `Change`.
        last: metric to its last point: `value` (text), `step`, `at`.
        points, batches: how many were logged.
        metrics: digest of all batches in order, see `attestry.domain.run_points`; empty before the first.
        start: digest of the start.
        asked: digest by which a start that is sent again is known.
        created, closed: when the registry was told of its start and its end, RFC 3339.
        rev: counts the changes, from 1.
    """

    run: str
    experiment: str
    login: str
    person: str
    begun: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    source: Mapping[str, Any]
    start: str
    asked: str
    created: str
    state: RunState = RunState.RUNNING
    error: str = ""
    ended: str = ""
    closed: str = ""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    last: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    points: int = 0
    batches: int = 0
    metrics: str = ""
    rev: int = 1

    @property
    def owner(self) -> str:
        """Return the person who owns it, or the login where there is none."""
        return self.person or self.login

    def is_owned_by(self, login: str, person: str | None) -> bool:
        """Return whether a caller is its owner, by the login or as the same person under another one."""
        return login == self.login or (bool(self.person) and person == self.person)

    @property
    def record_digest(self) -> str:
        """Return the SHA-256, hex, over the JCS form of all that was logged: what the ledger keeps of a run that has ended."""
        names = ("run", "experiment", "error", "begun", "ended", "points", "batches", "metrics", "start")
        said = {name: getattr(self, name) for name in names}
        kept = {name: _plain(getattr(self, name)) for name in ("parameters", "tags", "files", "last")}
        return _digest({"format": FORMAT, "state": self.state.value, **said, **kept})

    def require_running(self) -> None:
        """Refuse to change a run that has ended.

        Raises:
            ConflictError: it has.
        """
        if self.state is not RunState.RUNNING:
            raise ConflictError(f"run {self.run} has ended ({self.state.value}); it changes no more", details={"state": self.state.value})

    def changed(self, change: Change, at: str) -> Run:
        """Return the run after a change; itself where that changes nothing, as when the same end is told again.

        Args:
            change: what is said.
            at: the time, RFC 3339.

        Raises:
            ConflictError: it has ended, a parameter has another value, or a file has another digest.
            InvalidInputError: there would be too much of something.
        """
        if self._has(change):
            return self
        self.require_running()
        parameters = merged("parameters", self.parameters, change.parameters, fixed=True)
        files = merged("files", self.files, change.files, fixed=True)
        said = replace(self, parameters=parameters, tags=merged("tags", self.tags, change.tags, fixed=False), files=files, rev=self.rev + 1)
        if change.state is None:
            return said
        return replace(said, state=change.state, error=change.error, ended=change.ended, closed=at)

    def _has(self, change: Change) -> bool:
        pairs = ((self.parameters, change.parameters), (self.tags, change.tags), (self.files, change.files))
        same = all(there.get(name) == value for there, said in pairs for name, value in said.items())
        ended = change.state is None or (change.state, change.error) == (self.state, self.error)
        return same and ended and change.ended in ("", self.ended)

    def to_item(self) -> dict[str, Any]:
        """Return the run as its row has it."""
        return {name: _plain(value) for name, value in ((n, getattr(self, n)) for n in self.__dataclass_fields__)}

    @classmethod
    def from_item(cls, row: Mapping[str, Any]) -> Run:
        """Return the run that a row tells of."""
        return cls(**{**{name: row[name] for name in cls.__dataclass_fields__}, "state": RunState(row["state"])})


def is_run_id(text: str) -> bool:
    """Return whether a text has the form of a run's ID."""
    return _RUN_ID.fullmatch(text) is not None


def merged(what: str, there: Mapping[str, Any], said: Mapping[str, Any], *, fixed: bool) -> dict[str, Any]:
    """Return what a run has of something after more of it was said.

    Args:
        what: the field.
        there: what it has.
        said: what is added.
        fixed: whether what is there may not be replaced.

    Raises:
        ConflictError: it would be.
        InvalidInputError: there would be too many, or too large ones.
    """
    other = next((name for name, value in said.items() if fixed and there.get(name, value) != value), None)
    if other is not None:
        message = f"{what}: {other[:80]!r} was logged otherwise; a run has one of each, so start another run"
        raise ConflictError(message, details={"field": what, "name": other})
    both = {**there, **said}
    check_size(what, both)
    return both


def check_size(what: str, entries: Mapping[str, Any], *, most: int = MAX_ENTRIES, most_bytes: int = MAX_PART_BYTES) -> None:
    """Check how much a run says of something.

    Raises:
        InvalidInputError: too many, or too large together.
    """
    if len(entries) > most:
        raise InvalidInputError.of(what, "max_items", f"a run has at most {most}; {len(entries)} are too many")
    size = sum(
        len(name.encode()) + len(value.encode() if isinstance(value, str) else rfc8785.dumps(value)) for name, value in entries.items()
    )
    if size > most_bytes:
        raise InvalidInputError.of(what, "max_bytes", f"names and values take at most {most_bytes} bytes together; these take {size}")


def check_texts(what: str, value: Any, *, most: int = MAX_ENTRIES, most_bytes: int = MAX_PART_BYTES) -> dict[str, str]:
    """Return checked names and texts.

    Raises:
        InvalidInputError: naming the field and the rule.
    """
    if not isinstance(value, Mapping):
        raise InvalidInputError.of(what, "type", "a mapping of names to texts is needed")
    for name, text in value.items():
        check_entry_name(what, name)
        check_text(f"{what}.{name[:80]}", text, MAX_VALUE)
    check_size(what, value, most=most, most_bytes=most_bytes)
    return dict(value)


def check_entry_name(what: str, name: Any) -> str:
    """Return the checked name of a parameter, tag, file or metric.

    Raises:
        InvalidInputError: it is no text of 1 to 250 printable characters.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidInputError.of(what, "name", f"a name has 1 to {MAX_NAME} printable characters")
    return name


def check_text(what: str, text: Any, most: int) -> str:
    """Return a checked text.

    Raises:
        InvalidInputError: no text, too long, or without a form in UTF-8.
    """
    if not isinstance(text, str):
        raise InvalidInputError.of(what, "type", "a text is needed")
    if len(text) > most:
        raise InvalidInputError.of(what, "max_length", f"has {len(text)} characters; at most {most} are kept")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInputError.of(what, "unicode", "has half of a surrogate pair, which has no form in UTF-8")
    return text


def check_time(what: str, value: Any) -> str:
    """Return a checked time.

    Raises:
        InvalidInputError: it is not RFC 3339 in UTC.
    """
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise InvalidInputError.of(what, "time", "a time is RFC 3339 in UTC: 2026-01-31T12:00:00.000000Z")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return value.value if isinstance(value, RunState) else value


def _digest(value: Any) -> str:
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()
