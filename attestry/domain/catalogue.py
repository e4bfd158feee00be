"""The catalogue: what people say about models and versions, apart from what the pipeline and the ledger made of them.

Rules:
- A version's head, files and moves never change by anything here. Names, descriptions, tags, labels and aliases are descriptive: no gate,
  approval or deployment reads them.
- A model has a *name*, which people see, and an *identity*, which is a model name in the registry's sense (`attestry.domain.names`): in
  folders, references, events and version digests. A name that is a model name is its own identity; of any other the identity is derived,
  the same every time. Renaming changes the name alone, and the identity goes on belonging to the model.
- A model is `governed` (the default) or `open`. Renaming and deleting are for open ones; what is deleted leaves its events in the ledger.
- Sizes are those that MLflow's clients know: a tag's key has at most 250 characters, its value and a description at most 5,000.
- An alias is neither `latest` nor of the form `v3`: both mean a version already.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from attestry.domain.errors import InvalidInputError, ModelModeError
from attestry.domain.names import ModelName

MAX_NAME: Final = 250
MAX_NAME_BYTES: Final = 750
"""Of a name in UTF-8: it is part of a sort key, which has at most 1,024 bytes."""

MAX_KEY: Final = 250
MAX_VALUE: Final = 5000
MAX_DESCRIPTION: Final = 5000
MAX_ALIAS: Final = 255
MAX_TAGS: Final = 50
MAX_TAG_BYTES: Final = 100 * 1024
"""Keys and values of all tags of one subject, in UTF-8: they are one row, and a row has 400 KB."""

MAX_ALIASES: Final = 200
MAX_ANNOTATION: Final = 2000

_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_NUMBERED = re.compile(r"[vV][0-9]+")
_REFUSED_IN_NAMES = frozenset("/:@#\\")
_SLUG = re.compile(r"[^a-z0-9]+")
_SLUG_LENGTH = 50


class Mode(StrEnum):
    """How a model is governed: `open` has MLflow's semantics of deleting and renaming, `governed` deletes nothing."""

    OPEN = "open"
    GOVERNED = "governed"


@dataclass(frozen=True)
class ModelSubject:
    """A model as the subject of tags, by its name or identity."""

    name: str


@dataclass(frozen=True)
class VersionSubject:
    """A version as the subject of tags."""

    name: str
    number: int


Subject = ModelSubject | VersionSubject


@dataclass(frozen=True)
class RegisteredModel:
    """A model as the catalogue has it.

    Attributes:
        name: as people see it.
        description: text, may be empty.
        tags: key to value.
        mode: `open` or `governed`.
        created_at, updated_at: RFC 3339; of the catalogue's entry, not of the latest version.
        rev: counts the changes, from 1; 0 of a model that has versions and was never described here.
        model: the identity, which references, folders and events carry.
        created_by: person or login.
        owner, team, purpose, risk_tier, labels: as the latest manifest says, where one was submitted.
        deleted: whether it was deleted; only what works on rows ever sees such a one.
    """

    name: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    mode: str = Mode.GOVERNED.value
    created_at: str = ""
    updated_at: str = ""
    rev: int = 0
    model: str = ""
    created_by: str = ""
    owner: str = ""
    team: str = ""
    purpose: str = ""
    risk_tier: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    deleted: bool = False

    def require_open(self, act: str) -> None:
        """Refuse what only open models allow.

        Raises:
            ModelModeError: the model is governed.
        """
        if self.mode != Mode.OPEN:
            raise ModelModeError(f"{self.name} is governed: {act}; retire its versions instead")

    def state(self) -> dict[str, Any]:
        """Return what the events tell of: everything but the count of changes and the time of the last one."""
        return {
            "name": self.name,
            "model": self.model,
            "description": self.description,
            "tags": dict(self.tags),
            "mode": self.mode,
            "created": self.created_at,
            "created_by": self.created_by,
            "owner": self.owner,
            "team": self.team,
            "purpose": self.purpose,
            "risk_tier": self.risk_tier,
            "labels": dict(self.labels),
            "deleted": self.deleted,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the model as JSON."""
        shown = {name: value for name, value in self.state().items() if name != "deleted"}
        return {**shown, "updated": self.updated_at, "rev": self.rev}

    @classmethod
    def from_item(cls, row: Mapping[str, Any]) -> RegisteredModel:
        """Return the model that a row of the catalogue tells of, or the head of a model that was never described."""
        model = str(row["model"])
        texts = {name: str(row.get(name) or "") for name in ("description", "created_by", "owner", "team", "purpose", "risk_tier")}
        return cls(
            name=str(row.get("name") or model),
            tags=dict(row.get("tags") or {}),
            mode=str(row.get("mode") or Mode.GOVERNED.value),
            created_at=str(row.get("created") or ""),
            updated_at=str(row.get("updated") or row.get("created") or ""),
            rev=int(row.get("rev") or 0) if "mode" in row else 0,
            model=model,
            labels=dict(row.get("labels") or {}),
            deleted=bool(row.get("deleted")),
            **texts,
        )


@dataclass(frozen=True)
class Labels:
    """What people say about a version.

    Attributes:
        model: the model's identity.
        number: the version's number.
        description: text, may be empty.
        tags: key to value.
        rev: counts the changes, from 1; 0 before the first.
        updated_at: RFC 3339; empty before the first change.
        deleted: whether the version was deleted from the catalogue of an open model.
    """

    model: str
    number: int
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    rev: int = 0
    updated_at: str = ""
    deleted: bool = False

    def state(self) -> dict[str, Any]:
        """Return what the events tell of."""
        return {
            "model": self.model,
            "number": self.number,
            "description": self.description,
            "tags": dict(self.tags),
            "deleted": self.deleted,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the labels as JSON."""
        shown = {name: value for name, value in self.state().items() if name != "deleted"}
        return {**shown, "updated": self.updated_at, "rev": self.rev}

    @classmethod
    def from_item(cls, model: str, number: int, row: Mapping[str, Any] | None) -> Labels:
        """Return the labels that a row tells of; without one, those of a version that nobody has labelled."""
        row = row or {}
        return cls(
            model,
            number,
            str(row.get("description") or ""),
            dict(row.get("tags") or {}),
            int(row.get("rev") or 0),
            str(row.get("updated") or ""),
            bool(row.get("deleted")),
        )


@dataclass(frozen=True)
class Alias:
    """A name for a version of a model.

    Attributes:
        model: the model's identity.
        alias: the name.
        number: the version.
        rev: which change of the model's aliases set it; another number means that it was set anew.
        set_at: RFC 3339.
        set_by: person or login.
    """

    model: str
    alias: str
    number: int
    rev: int
    set_at: str = ""
    set_by: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the alias as JSON."""
        return {"alias": self.alias, "model": self.model, "number": self.number, "rev": self.rev, "set": self.set_at, "by": self.set_by}


@dataclass(frozen=True)
class Annotation:
    """A remark of a person on a version or on one of its moves; it is never changed.

    Attributes:
        model: the model's identity.
        number: the version.
        sequence: counts the remarks on a version, from 1.
        transition: number of the move that it is about; 0 for the version as a whole.
        text: the remark.
        by: person or login.
        at: RFC 3339.
    """

    model: str
    number: int
    sequence: int
    transition: int
    text: str
    by: str
    at: str

    def to_dict(self) -> dict[str, Any]:
        """Return the remark as JSON."""
        return {
            "model": self.model,
            "number": self.number,
            "sequence": self.sequence,
            "transition": self.transition,
            "text": self.text,
            "by": self.by,
            "at": self.at,
        }


def identity_of(name: str) -> str:
    """Return the identity that a name stands for when it is first used; of a model that was renamed, see `RegisteredModel.model`.

    Raises:
        InvalidInputError: no name, see `check_name`.
    """
    check_name(name)
    try:
        return ModelName(name).text
    except InvalidInputError:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        slug = _SLUG.sub("-", plain).strip("-")[:_SLUG_LENGTH].strip("-") or "model"
        return f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def check_name(name: Any) -> str:
    """Return a checked name.

    Raises:
        InvalidInputError: empty, longer than 250 characters, with blanks at an end, or with a character that references use.
    """
    unfit = not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or name != name.strip() or not name.isprintable()
    if unfit or _REFUSED_IN_NAMES & set(name) or len(name.encode()) > MAX_NAME_BYTES:
        rule = f"a name has 1 to {MAX_NAME} printable characters, none of / : @ # \\, and no blanks at its ends"
        raise InvalidInputError.of("name", "name", rule)
    return str(name)


def check_mode(mode: Any) -> str:
    """Return a checked mode.

    Raises:
        InvalidInputError: neither `open` nor `governed`.
    """
    if mode not in tuple(Mode):
        raise InvalidInputError.of("mode", "enum", "the mode is `open` or `governed`")
    return str(mode)


def check_description(text: Any) -> str:
    """Return a checked description.

    Raises:
        InvalidInputError: no text, or longer than 5,000 characters.
    """
    if not isinstance(text, str) or len(text) > MAX_DESCRIPTION or not _is_unicode(text):
        raise InvalidInputError.of("description", "max_length", f"a description is a text of at most {MAX_DESCRIPTION} characters")
    return str(text)


def check_tag(key: Any, value: Any) -> None:
    """Check one tag.

    Raises:
        InvalidInputError: naming `key` or `value` and the rule.
    """
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY or not key.isprintable() or key != key.strip():
        rule = f"a tag's key has 1 to {MAX_KEY} printable characters and no blanks at its ends"
        raise InvalidInputError.of("key", "tag_key", rule)
    if not isinstance(value, str) or len(value) > MAX_VALUE or not _is_unicode(value):
        raise InvalidInputError.of("value", "max_length", f"a tag's value is a text of at most {MAX_VALUE} characters")


def check_tags(tags: Any) -> dict[str, str]:
    """Return checked tags of one subject.

    Raises:
        InvalidInputError: one is out of form, there are more than 50, or they take more than 100 KB.
    """
    if not isinstance(tags, Mapping):
        raise InvalidInputError.of("tags", "type", "tags are a mapping of key to value")
    for key, value in tags.items():
        check_tag(key, value)
    if len(tags) > MAX_TAGS:
        raise InvalidInputError.of("tags", "max_tags", f"there are at most {MAX_TAGS} tags; {len(tags)} are too many")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in tags.items())
    if size > MAX_TAG_BYTES:
        raise InvalidInputError.of("tags", "max_bytes", f"tags take at most {MAX_TAG_BYTES} bytes together; these take {size}")
    return dict(tags)


def check_alias(alias: Any) -> str:
    """Return a checked alias.

    Raises:
        InvalidInputError: empty, too long, of other characters than letters, digits, `_`, `.` and `-`, or one that names a version already.
    """
    if not isinstance(alias, str) or not 0 < len(alias) <= MAX_ALIAS or not _ALIAS.fullmatch(alias):
        rule = f"an alias has 1 to {MAX_ALIAS} letters, digits, `_`, `.` or `-`, and begins with neither `.` nor `-`"
        raise InvalidInputError.of("alias", "alias", rule)
    if alias.lower() == "latest" or _NUMBERED.fullmatch(alias):
        raise InvalidInputError.of(
            "alias", "reserved", f"{alias} means a version by itself: neither `latest` nor `v` and a number is an alias"
        )
    return str(alias)


def check_annotation(text: Any) -> str:
    """Return a checked remark, without blanks at its ends.

    Raises:
        InvalidInputError: empty, or too long.
    """
    if not isinstance(text, str) or not 0 < len(text.strip()) <= MAX_ANNOTATION or not _is_unicode(text):
        raise InvalidInputError.of("text", "length", f"a remark has 1 to {MAX_ANNOTATION} characters")
    return str(text).strip()


def _is_unicode(text: str) -> bool:
    """Return whether a text has a form in UTF-8; lone surrogates, which JSON can smuggle in, have none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
