"""The name by which evidence speaks of a version: `urn:attestry:<model>:<number>:sha256:<version digest>`.

The form is that of a URN (RFC 8141); the namespace is not registered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from attestry.domain.errors import InvalidInputError

_URN = re.compile(r"urn:attestry:([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?):([1-9][0-9]{0,8}):sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class VersionUrn:
    """A version by model, number and digest.

    Attributes:
        model: the model's name.
        number: the version's number, from 1.
        digest: the version digest, hex.

    Raises:
        InvalidInputError: on creation, when a part has not the form that the URN needs.
    """

    model: str
    number: int
    digest: str

    def __post_init__(self) -> None:
        if _URN.fullmatch(str(self)) is None:
            raise InvalidInputError.of("version", "version_urn", f"{str(self)!r} names no version")

    def __str__(self) -> str:
        return f"urn:attestry:{self.model}:{self.number}:sha256:{self.digest}"

    @property
    def reference(self) -> str:
        """Return `MODEL@N`."""
        return f"{self.model}@{self.number}"

    @classmethod
    def parse(cls, text: str) -> VersionUrn:
        """Return the version that the text names.

        Raises:
            InvalidInputError: the text is no version URN.
        """
        match = _URN.fullmatch(text)
        if match is None:
            raise InvalidInputError.of("version", "version_urn", "not urn:attestry:<model>:<number>:sha256:<digest>")
        return cls(match[1], int(match[2]), match[3])
