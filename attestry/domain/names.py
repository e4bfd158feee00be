"""Names: of models, versions, folders, executions and files.

Rules, enforced here and nowhere else:

1. A model name is a DNS label (RFC 1123): lower-case ASCII letters, digits and hyphens, at most 63, no hyphen at either
   end. So it can never hold a separator and never leaves its prefix `models/<model>/`.
2. A version reference is `MODEL@N`; N counts from 1 and has no leading zero.
3. A file path is relative, its segments are separated by `/`, and no segment is empty, `.` or `..`. Backslashes,
   control characters, text-direction controls and lone surrogates are refused. It has at most 512 bytes in UTF-8, a
   segment at most 255.
4. Two paths of one set differ after Unicode NFC and case folding, and none is a folder of another: they would fall
   together on some file systems.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from attestry.domain.errors import InvalidInputError

MAX_PATH_BYTES = 512
MAX_SEGMENT_BYTES = 255
MAX_EXECUTION_ID = 80
"""Step Functions' limit for the name of an execution, in characters."""

_MODEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_HEX = re.compile(r"[0-9a-f]+")
_DIRECTION_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


@dataclass(frozen=True)
class ModelName:
    """The name of a model (rule 1).

    Raises:
        InvalidInputError: the text breaks the rule.
    """

    text: str

    def __post_init__(self) -> None:
        if _MODEL.fullmatch(self.text) is None:
            raise InvalidInputError.of(
                "model.name",
                "model_name",
                f"{_shown(self.text)} is no model name: use lower-case letters, digits and hyphens, at most 63 characters, "
                "beginning and ending with a letter or digit",
            )

    def __str__(self) -> str:
        return self.text

    @property
    def prefix(self) -> str:
        """The prefix of everything that the model store holds of the model."""
        return f"models/{self.text}/"


@dataclass(frozen=True, order=True)
class VersionReference:
    """A version of a model, written `MODEL@N` (rule 2)."""

    model: str
    number: int

    @classmethod
    def parse(cls, text: str) -> VersionReference:
        """Return the reference that the text names.

        Raises:
            InvalidInputError: the text is not `MODEL@N`.
        """
        model, separator, number = text.partition("@")
        if not separator or _MODEL.fullmatch(model) is None or _NUMBER.fullmatch(number) is None:
            raise InvalidInputError.of(
                "version", "version_reference", f"{_shown(text)} names no version: write MODEL@N, for example credit-risk@3"
            )
        return cls(model, int(number))

    def __str__(self) -> str:
        return f"{self.model}@{self.number}"


class FolderNaming(StrEnum):
    """What follows the number in the name of a version's folder. The number stays in front, so two versions never collide."""

    REVISION_AND_EXECUTION = "revision-execution"
    REVISION = "revision"
    EXECUTION = "execution"
    DATE = "date"


def name_execution(model: str, number: int, attempt: int, candidate: str) -> str:
    """Return the execution ID `<model>-<number>-<attempt>-<first 12 of the candidate digest>`.

    A long model name is cut so that the whole has at most 80 characters, the limit of Step Functions; the digest keeps
    two models apart whose cut names are equal.

    Args:
        model: name of the model.
        number: version number, from 1.
        attempt: attempt of the version, from 1.
        candidate: candidate digest, lower-case hex.

    Raises:
        InvalidInputError: an argument breaks its rule.
    """
    ModelName(model)
    _require_positive("number", number)
    _require_positive("attempt", attempt)
    _require_hex("candidate", candidate, 12)
    tail = f"-{number}-{attempt}-{candidate[:12]}"
    return model[: MAX_EXECUTION_ID - len(tail)].rstrip("-") + tail


def name_version_folder(
    model: str,
    number: int,
    revision: str,
    execution_id: str,
    *,
    naming: FolderNaming = FolderNaming.REVISION_AND_EXECUTION,
    day: date | None = None,
) -> str:
    """Return the folder of a version in the model store, with a slash at the end.

    The default is `models/<model>/<number>-<git revision>-<execution id>/`.

    Args:
        model: name of the model.
        number: version number, from 1.
        revision: full git revision, lower-case hex.
        execution_id: ID of the execution that makes the version.
        naming: what follows the number.
        day: the day of the execution; needed for `FolderNaming.DATE` only.

    Raises:
        InvalidInputError: an argument breaks its rule.
    """
    _require_positive("number", number)
    _require_hex("revision", revision, 40)
    check_relative_path(execution_id, field="execution_id")
    if "/" in execution_id:
        raise InvalidInputError.of("execution_id", "one_segment", f"{_shown(execution_id)} holds a slash")
    if naming is FolderNaming.DATE:
        if day is None:
            raise InvalidInputError.of("day", "required", "folders named by date need the day of the execution")
        rest = day.isoformat()
    else:
        rest = {
            FolderNaming.REVISION_AND_EXECUTION: f"{revision}-{execution_id}",
            FolderNaming.REVISION: revision,
            FolderNaming.EXECUTION: execution_id,
        }[naming]
    return f"{ModelName(model).prefix}{number}-{rest}/"


@dataclass(frozen=True)
class BrokenRule:
    """Why a name is refused.

    Attributes:
        rule: short name of the rule.
        message: the sentence for a person.
    """

    rule: str
    message: str


def find_broken_path_rule(path: str) -> BrokenRule | None:
    """Return the part of rule 3 that the path breaks, or None for a good path."""
    shown = _shown(path)
    if not path:
        return BrokenRule("path_not_empty", "the path is empty")
    if "\0" in path:
        return BrokenRule("path_no_nul", f"{shown} holds a NUL character")
    refused = next((c for c in path if unicodedata.category(c) in _REFUSED_CATEGORIES or c in _DIRECTION_CONTROLS), None)
    if refused is not None:
        return BrokenRule("path_no_control_characters", f"{shown} holds the control character U+{ord(refused):04X}")
    if "\\" in path:
        return BrokenRule("path_no_backslash", f"{shown} holds a backslash; separate folders with /")
    if path.startswith("/"):
        return BrokenRule("path_relative", f"{shown} is absolute; write a path relative to its folder")
    segments = path.split("/")
    if ".." in segments:
        return BrokenRule("path_no_parent", f"{shown} leaves its folder by '..'")
    if "" in segments or "." in segments:
        return BrokenRule("path_plain_segments", f"{shown} has an empty segment or '.'")
    if len(path.encode()) > MAX_PATH_BYTES:
        return BrokenRule("path_length", f"{shown} has more than {MAX_PATH_BYTES} bytes")
    if any(len(segment.encode()) > MAX_SEGMENT_BYTES for segment in segments):
        return BrokenRule("path_length", f"{shown} has a segment of more than {MAX_SEGMENT_BYTES} bytes")
    return None


def check_relative_path(path: str, *, field: str = "path") -> str:
    """Return the path if it keeps rule 3.

    Args:
        path: the path as somebody else wrote it.
        field: the field that the error names.

    Raises:
        InvalidInputError: the path breaks the rule.
    """
    broken = find_broken_path_rule(path)
    if broken is not None:
        raise InvalidInputError.of(field, broken.rule, broken.message)
    return path


def fold_path(path: str) -> str:
    """Return the form in which two paths are compared: NFC, case folded, NFC again (folding can undo it)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


class DistinctPaths:
    """The files of one set, held to rules 3 and 4.

    files = DistinctPaths("source.archive")
    files.add("train.py")
    files.add("Train.py")  # InvalidInputError, path_distinct
    """

    def __init__(self, field: str = "path") -> None:
        self._field = field
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, path: str) -> str:
        """Add a file and return its path.

        Raises:
            InvalidInputError: the path breaks rule 3, or rule 4 with a path that is already in the set.
        """
        check_relative_path(path, field=self._field)
        folded = fold_path(path)
        parents = _parents(folded)
        other = self._files.get(folded) or next((self._files[p] for p in parents if p in self._files), None)
        other = other or self._folders.get(folded)
        if other is not None:
            raise self._collision(path, other)
        self._files[folded] = path
        for parent in parents:
            self._folders.setdefault(parent, path)
        return path

    def add_folder(self, path: str) -> None:
        """Add a folder that may stay empty; the same folder may be added again.

        Raises:
            InvalidInputError: the path breaks rule 3, or is that of a file, or goes through one.
        """
        check_relative_path(path, field=self._field)
        folded = fold_path(path)
        other = next((self._files[p] for p in (folded, *_parents(folded)) if p in self._files), None)
        if other is not None:
            raise self._collision(path, other)
        for folder in (folded, *_parents(folded)):
            self._folders.setdefault(folder, path)

    def _collision(self, path: str, other: str) -> InvalidInputError:
        message = f"{_shown(path)} and {_shown(other)} fall together on some file systems (after NFC and case folding)"
        return InvalidInputError.of(self._field, "path_distinct", message)


def _parents(path: str) -> list[str]:
    segments = path.split("/")
    return ["/".join(segments[:end]) for end in range(1, len(segments))]


def _require_positive(field: str, value: int) -> None:
    if value < 1:
        raise InvalidInputError.of(field, "positive", f"{value} is less than 1")


def _require_hex(field: str, value: str, minimum: int) -> None:
    if len(value) < minimum or _HEX.fullmatch(value) is None:
        raise InvalidInputError.of(field, "hex", f"{_shown(value)} is not lower-case hex of {minimum} or more characters")


def _shown(text: str) -> str:
    """Return the text as it can safely stand in a message: escaped, and cut when long."""
    escaped = ascii(text)
    return escaped if len(escaped) <= 80 else f"{escaped[:76]}...'"
